//! Syntax tree of a `network!`. Rust expressions in it remain raw tokens.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt;

/// The content of one `network!`.
pub(super) enum Input {
    Expression(Network),
    Items(Vec<Item>),
}

/// `move |x, y| < a -> b >`
pub(super) struct Network {
    pub(super) moved: Option<Ident>,
    /// Start of the body, where `move` would be written.
    pub(super) start: Span,
    pub(super) body: Body,
}

/// `/// docs  pub fn name(arguments) -> Result<..> |x, y| < a -> b >`
pub(super) struct Item {
    pub(super) attrs: Vec<syn::Attribute>,
    pub(super) vis: syn::Visibility,
    pub(super) name: Ident,
    pub(super) arguments: Vec<syn::FnArg>,
    pub(super) output: Option<syn::Type>,
    pub(super) body: Body,
}

/// Names of the inputs, if given, and the chain that starts with the first.
pub(super) struct Body {
    pub(super) inputs: Vec<Ident>,
    pub(super) chain: Chain,
}

/// `a -> b -> c`
pub(super) struct Chain {
    pub(super) steps: Vec<Step>,
}

impl Chain {
    /// Position of its last stage.
    pub(super) fn end(&self) -> Span {
        match self.steps.last().map(|step| &step.stage) {
            Some(Stage::Call(call)) => call.name.span(),
            Some(Stage::Value { span, .. } | Stage::Use { span, .. }) => *span,
            Some(Stage::Block(chain)) => chain.end(),
            Some(Stage::Join(Join { keyword, .. })) => keyword.span(),
            Some(
                Stage::For { keyword, .. } | Stage::If(If { keyword, .. }) | Stage::Match { keyword, .. },
            ) => keyword.span(),
            Some(Stage::Identity | Stage::Missing) | None => Span::call_site(),
        }
    }
}

/// `label: stage as name`
pub(super) struct Step {
    pub(super) label: Option<Label>,
    pub(super) stage: Stage,
    pub(super) bind: Option<Ident>,
}

/// `name`, `name[index]`, `shared name`, `frozen name`
pub(super) struct Label {
    pub(super) shared: bool,
    pub(super) frozen: bool,
    pub(super) name: Ident,
    pub(super) index: Option<TokenStream>,
}

impl Label {
    pub(super) fn text(&self) -> String {
        self.name.unraw().to_string()
    }
}

pub(super) enum Stage {
    /// `conv(32, (5, 5), pad = (2, 2))`, `relu`, `self.block`
    Call(Call),
    /// `(|x: &Tensor| x * 2.0)`
    Value { tokens: TokenStream, span: Span },
    /// `_`
    Identity,
    /// `use(expression)`
    Use { tokens: TokenStream, span: Span },
    /// `{ a -> b }`
    Block(Chain),
    /// `add { a, b }`
    Join(Join),
    /// `for pattern in iterator { a -> b }`
    For { head: TokenStream, keyword: Ident, body: Chain },
    /// `if condition { a } else { b }`
    If(If),
    /// `match value { pattern => a, .. }`
    Match { head: TokenStream, keyword: Ident, arms: Vec<Arm> },
    /// A stage that could not be parsed; an error was reported.
    Missing,
}

pub(super) struct If {
    pub(super) keyword: Ident,
    pub(super) condition: TokenStream,
    pub(super) then: Chain,
    pub(super) otherwise: Option<Otherwise>,
}

pub(super) enum Otherwise {
    If(Box<If>),
    Block(Chain),
}

pub(super) struct Arm {
    /// Pattern and guard.
    pub(super) pattern: TokenStream,
    pub(super) arrow: TokenStream,
    pub(super) chain: Chain,
}

pub(super) struct Join {
    pub(super) kind: JoinKind,
    pub(super) keyword: Ident,
    pub(super) arguments: TokenStream,
    pub(super) branches: Vec<Chain>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum JoinKind {
    Residual,
    Add,
    Mul,
    Concat,
    Tuple,
}

impl JoinKind {
    pub(super) const NAMES: [&'static str; 5] = ["residual", "add", "mul", "concat", "tuple"];

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "residual" => Self::Residual,
            "add" => Self::Add,
            "mul" => Self::Mul,
            "concat" => Self::Concat,
            "tuple" => Self::Tuple,
            _ => return None,
        })
    }
}

pub(super) struct Call {
    /// `conv`, `nn::conv::<f32>`, `self.block`: everything before the parentheses.
    pub(super) callee: Vec<TokenTree>,
    /// The last name in it, which names the stage.
    pub(super) name: Ident,
    /// Whether `name` comes after a dot.
    pub(super) is_member: bool,
    /// Absent for `relu`.
    pub(super) arguments: Option<Arguments>,
}

impl Call {
    /// The option `key = ..`, if it is given.
    pub(super) fn option(&self, key: &str) -> Option<&Opt> {
        self.arguments.as_ref()?.options.iter().find(|option| option.key == key)
    }
}

#[derive(Default)]
pub(super) struct Arguments {
    pub(super) span: Option<Span>,
    pub(super) positional: Vec<TokenStream>,
    pub(super) options: Vec<Opt>,
}

/// `pad = (2, 2)`
pub(super) struct Opt {
    pub(super) key: Ident,
    pub(super) value: TokenStream,
}
