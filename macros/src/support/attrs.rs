//! Reads the attributes of an item: documentation, lints, conditions.

use syn::{Attribute, Expr, ExprLit, Ident, Lit, Meta, Token, punctuated::Punctuated};

/// The attributes of a function, by their purpose.
#[derive(Default)]
pub(crate) struct ItemAttributes {
    /// Documentation, for the public item.
    pub(crate) docs: Vec<Attribute>,
    /// Conditions and lint levels, for every generated item.
    pub(crate) everywhere: Vec<Attribute>,
    /// `deprecated`, for the items a caller names.
    pub(crate) deprecated: Vec<Attribute>,
    /// Everything else, for the function as the user wrote it.
    pub(crate) function: Vec<Attribute>,
}

impl ItemAttributes {
    pub(crate) fn sort(attributes: Vec<Attribute>) -> Self {
        let mut sorted = Self::default();
        for attribute in attributes {
            let decisive = match conditional(&attribute) {
                Some(inner) => inner.to_string(),
                None => attribute.path().get_ident().map(Ident::to_string).unwrap_or_default(),
            };
            match decisive.as_str() {
                "doc" => sorted.docs.push(attribute),
                "cfg" | "allow" | "expect" | "warn" | "deny" | "forbid" => sorted.everywhere.push(attribute),
                "deprecated" => sorted.deprecated.push(attribute),
                _ => sorted.function.push(attribute),
            }
        }
        sorted
    }

    /// Conditions and lint levels for items beside the user's function.
    ///
    /// An `expect` is fulfilled by the function itself; on other items, it would be unfulfilled.
    pub(crate) fn beside(&self) -> Vec<Attribute> {
        let mut attributes = self.everywhere.clone();
        for attribute in &mut attributes {
            if let Meta::List(list) = &mut attribute.meta
                && list.path.is_ident("expect")
            {
                let span = syn::spanned::Spanned::span(&list.path);
                list.path = Ident::new("allow", span).into();
            }
        }
        attributes
    }
}

/// The first item in `cfg_attr(condition, here)`.
fn conditional(attribute: &Attribute) -> Option<Ident> {
    if !attribute.path().is_ident("cfg_attr") {
        return None;
    }
    let metas = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?;
    metas.get(1)?.path().get_ident().cloned()
}

/// The lines of documentation written as `///`, without the space in front of each.
pub(crate) fn doc_lines(attributes: &[Attribute]) -> Vec<String> {
    let text = attributes.iter().filter_map(doc_text).collect::<Vec<_>>().join("\n");
    text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned()).collect()
}

/// The first paragraph, on one line.
pub(crate) fn first_paragraph(lines: &[String]) -> String {
    let lines = lines.iter().skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty());
    lines.map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// All the documentation on one line.
pub(crate) fn one_line(lines: &[String]) -> String {
    lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn doc_text(attribute: &Attribute) -> Option<String> {
    match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}
