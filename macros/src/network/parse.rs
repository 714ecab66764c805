//! Tokens to syntax tree. A mistake is noted and parsing goes on, so that all mistakes are shown at once and an
//! editor still sees the stages around a half-typed one.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use syn::Error;

use super::arguments::parse_arguments;
use super::ast::{Arm, Body, Call, Chain, If, Item, Join, JoinKind, Label, Network, Otherwise, Stage, Step};
use super::cursor::Cursor;

/// Mistakes found so far.
#[derive(Default)]
pub(super) struct Errors {
    found: Vec<Error>,
    /// Whether the stages around a mistake are unclear too, so that expanding them would only add wrong errors.
    unclear: bool,
}

impl Errors {
    pub(super) fn at(&mut self, span: Span, text: impl std::fmt::Display) {
        self.found.push(Error::new(span, text));
    }

    pub(super) fn over(&mut self, tokens: &[TokenTree], text: impl std::fmt::Display) {
        let tokens: TokenStream = tokens.iter().cloned().collect();
        self.found.push(Error::new_spanned(tokens, text));
    }

    pub(super) fn push(&mut self, error: Error) {
        self.found.push(error);
    }

    /// As [`at`](Self::at), where the rest cannot be expanded.
    fn unclear_at(&mut self, span: Span, text: impl std::fmt::Display) {
        self.unclear = true;
        self.at(span, text);
    }

    pub(super) fn unclear(&self) -> bool {
        self.unclear
    }

    pub(super) fn into_error(self) -> Option<Error> {
        self.found.into_iter().reduce(|mut all, error| {
            all.combine(error);
            all
        })
    }
}

/// What one `network!` holds.
pub(super) enum Input {
    Expression(Network),
    Items(Vec<Item>),
}

pub(super) fn parse(input: TokenStream, errors: &mut Errors) -> Input {
    let mut cursor = Cursor::new(input, Span::call_site());
    let is_item = cursor.char_at(0) == Some('#')
        || ["pub", "fn", "async", "const", "unsafe", "extern"].iter().any(|word| cursor.keyword_at(0, word));
    if is_item {
        return Input::Items(parse_items(&mut cursor, errors));
    }
    let moved = cursor.keyword_at(0, "move").then(|| cursor.next());
    let moved = moved.flatten().and_then(|token| match token {
        TokenTree::Ident(ident) => Some(ident),
        _ => None,
    });
    // `network! { move { a -> b } }` reads naturally; `network! { { a -> b } }` is a block.
    let body = match (moved.is_some(), cursor.group_at(0, Delimiter::Brace), cursor.peek_at(1)) {
        (true, Some(group), None) => parse_body(&mut Cursor::of_group(&group.clone()), errors),
        _ => parse_body(&mut cursor, errors),
    };
    Input::Expression(Network { moved, body })
}

/// Everything up to the end of the cursor.
fn parse_body(cursor: &mut Cursor, errors: &mut Errors) -> Body {
    let inputs = parse_inputs(cursor, errors);
    if errors.unclear() {
        return Body { inputs, chain: Chain { steps: Vec::new() } };
    }
    let chain = parse_angled_chain(cursor, errors);
    if !cursor.at_end() {
        let span = cursor.span();
        let what = match cursor.char_at(0) {
            Some('>') => "this `>` closes nothing; a network is written `a -> b` or `< a -> b >`",
            Some(',') => {
                "branches need a join: `add { a, b }`, `mul { a, b }`, `concat(axis) { a, b }` or `tuple { a, b }`"
            }
            _ => "nothing may follow the `>` that closes the network; an arrow is written `->`",
        };
        errors.at(span, what);
        cursor.rest();
    }
    Body { inputs, chain }
}

/// `|x, y|`
fn parse_inputs(cursor: &mut Cursor, errors: &mut Errors) -> Vec<Ident> {
    let mut inputs = Vec::new();
    if cursor.char_at(0) != Some('|') {
        return inputs;
    }
    let opening = cursor.take(1);
    loop {
        match cursor.next() {
            Some(TokenTree::Ident(ident)) => inputs.push(ident),
            Some(TokenTree::Punct(punct)) if punct.as_char() == '|' => break,
            Some(TokenTree::Punct(punct)) if punct.as_char() == ',' => {}
            Some(_) => {
                errors.unclear_at(
                    opening[0].span(),
                    "the inputs of a network are names, `|x, y|`, and tensors; a closure that is a stage stands in \
                     parentheses: `(|x: &Tensor| x * 2.0)`",
                );
                cursor.rest();
                return inputs;
            }
            None => {
                errors.over(&opening, "this `|` is never closed; inputs are written `|x, y|`");
                return inputs;
            }
        }
    }
    if inputs.is_empty() {
        errors.over(&opening, "name at least one input, as in `|x|`, or leave the bars out");
    }
    inputs
}

/// A chain with or without `< >` around it.
fn parse_angled_chain(cursor: &mut Cursor, errors: &mut Errors) -> Chain {
    if cursor.char_at(0) != Some('<') || cursor.punct_at(0).starts_with("<-") {
        return parse_chain(cursor, false, errors);
    }
    let opening = cursor.take(1);
    let chain = parse_chain(cursor, true, errors);
    if cursor.char_at(0) == Some('>') {
        cursor.next();
    } else if cursor.at_end() {
        errors.over(&opening, "this `<` is never closed; end the network with `>`, or leave out both");
    }
    chain
}

/// Steps with arrows between them, up to a `,`, the end, or the `>` of `angled`.
fn parse_chain(cursor: &mut Cursor, angled: bool, errors: &mut Errors) -> Chain {
    let mut steps = Vec::new();
    if cursor.at_arrow() {
        let arrow = cursor.take(2);
        errors.over(&arrow, "a network starts with a stage, not with `->`");
    }
    if at_chain_end(cursor, angled) {
        errors.at(cursor.span(), "expected a stage, such as `affine(10)`; `_` passes its input on unchanged");
        return Chain { steps };
    }
    loop {
        steps.push(parse_step(cursor, errors));
        if at_chain_end(cursor, angled) {
            break;
        }
        let arrow = parse_arrow(cursor, errors);
        if at_chain_end(cursor, angled) {
            errors.over(&arrow, "nothing follows this arrow; write a stage after it or remove it");
            break;
        }
    }
    Chain { steps }
}

fn at_chain_end(cursor: &Cursor, angled: bool) -> bool {
    match cursor.char_at(0) {
        Some(',') => true,
        // `>>` with something behind it is meant as an arrow; a `>` that closes nothing is the caller's error.
        Some('>') => {
            let run = cursor.punct_at(0);
            match (angled, run.as_str()) {
                (_, ">") => angled || cursor.peek_at(1).is_none(),
                (_, ">>") => cursor.peek_at(2).is_none(),
                _ => false,
            }
        }
        _ => cursor.at_end(),
    }
}

/// `->`, or what stands in its place.
fn parse_arrow(cursor: &mut Cursor, errors: &mut Errors) -> Vec<TokenTree> {
    if cursor.at_arrow() {
        return cursor.take(2);
    }
    let run = cursor.punct_at(0);
    if run.is_empty() {
        let text = match cursor.peek() {
            Some(TokenTree::Ident(ident)) => format!("expected `->` before `{ident}`"),
            _ => "expected `->` between two stages".to_owned(),
        };
        errors.at(cursor.span(), text);
        return Vec::new();
    }
    let tokens = cursor.take(run.chars().count());
    match run.as_str() {
        "." => {
            let method = cursor.ident_at(0).map_or_else(|| "pad".to_owned(), Ident::to_string);
            errors.over(&tokens, format!("options stand inside the parentheses, as `{method} = ..`"));
            // The method and its arguments.
            if cursor.ident_at(0).is_some() {
                cursor.next();
            }
            if cursor.group_at(0, Delimiter::Parenthesis).is_some() {
                cursor.next();
            }
            return if cursor.at_arrow() { cursor.take(2) } else { Vec::new() };
        }
        "?" => {
            errors.over(&tokens, "a stage needs no `?`: the network returns its error");
            return if cursor.at_arrow() { cursor.take(2) } else { Vec::new() };
        }
        "!" => {
            errors.over(
                &tokens,
                "a macro is no stage; put a function or a closure in parentheses, `(|x: &Tensor| ..)`",
            );
            if let Some(TokenTree::Group(_)) = cursor.peek() {
                cursor.next();
            }
            return if cursor.at_arrow() { cursor.take(2) } else { Vec::new() };
        }
        ":" | "::" => {
            errors.over(&tokens, "a label is one identifier before a stage, as in `c1: conv(32, (5, 5))`")
        }
        ";" => errors.over(&tokens, "stages are joined by `->`, not ended by `;`"),
        _ => errors.over(&tokens, format!("`{run}` is no arrow; write `->`")),
    }
    tokens
}

fn parse_step(cursor: &mut Cursor, errors: &mut Errors) -> Step {
    let label = parse_label(cursor, errors);
    let stage = parse_stage(cursor, errors);
    let mut bind = None;
    if cursor.keyword_at(0, "as") {
        let keyword = cursor.take(1);
        match cursor.ident_at(0) {
            Some(name) => {
                bind = Some(name.clone());
                cursor.next();
            }
            None => errors
                .over(&keyword, "`as` is followed by a name for the stage's output, as in `relu as skip`"),
        }
    }
    Step { label, stage, bind }
}

/// `name:`, `name[index]:`, `shared name:`
fn parse_label(cursor: &mut Cursor, errors: &mut Errors) -> Option<Label> {
    let is_label = |at: usize| {
        let indexed = usize::from(cursor.group_at(at + 1, Delimiter::Bracket).is_some());
        cursor.ident_at(at).is_some_and(|ident| ident != "_") && cursor.colon_at(at + 1 + indexed)
    };
    let shared = !is_label(0) && cursor.keyword_at(0, "shared") && is_label(1);
    if shared {
        cursor.next();
    } else if !is_label(0) {
        refuse_label(cursor, errors);
        return None;
    }
    let Some(TokenTree::Ident(name)) = cursor.next() else { return None };
    let mut index = cursor.group_at(0, Delimiter::Bracket).map(Group::stream);
    if index.is_some() {
        let brackets = cursor.take(1);
        index = index.filter(|index| !index.is_empty());
        if index.is_none() {
            errors.over(&brackets, format!("the index is missing: `{name}[i]: ..`"));
        }
    }
    cursor.next();
    Some(Label { shared, name, index })
}

/// Notes and skips something before a `:` that is no identifier.
fn refuse_label(cursor: &mut Cursor, errors: &mut Errors) {
    let mut length = 0;
    loop {
        match cursor.peek_at(length) {
            Some(_) if length > 0 && cursor.colon_at(length) => break,
            Some(TokenTree::Punct(punct)) if "-.'+".contains(punct.as_char()) => {
                if cursor.char_at(length + 1) == Some('>') {
                    return;
                }
                length += 1;
            }
            Some(TokenTree::Ident(_) | TokenTree::Literal(_)) if length < 6 => length += 1,
            _ => return,
        }
    }
    let tokens = cursor.take(length);
    cursor.next();
    let written = tokens.iter().cloned().collect::<TokenStream>().to_string().replace(' ', "");
    errors.over(
        &tokens,
        format!("`{written}` is no label: a label is an identifier, such as `{}`", as_ident(&written)),
    );
}

/// The identifier that looks most like `text`.
fn as_ident(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let ident = words.join("_");
    if ident.is_empty() || ident.starts_with(|c: char| c.is_numeric()) || ident == "_" {
        format!("stage{}", ident.trim_start_matches('_'))
    } else {
        ident
    }
}

fn parse_stage(cursor: &mut Cursor, errors: &mut Errors) -> Stage {
    match cursor.peek().cloned() {
        Some(TokenTree::Ident(ident)) => parse_named(cursor, &ident, errors),
        Some(TokenTree::Group(group)) => {
            cursor.next();
            match group.delimiter() {
                Delimiter::Brace => Stage::Block(parse_block(&group, errors)),
                Delimiter::Parenthesis if group.stream().is_empty() => {
                    errors.at(group.span(), "expected a function or a closure in the parentheses");
                    Stage::Missing
                }
                Delimiter::Parenthesis => Stage::Value { tokens: group.stream(), span: group.span() },
                // What a `macro_rules!` put in place of `$stage`.
                Delimiter::None => Stage::Value { tokens: group.stream(), span: group.span() },
                Delimiter::Bracket => {
                    errors.at(group.span(), "expected a stage; branches are written `concat(1) { a, b }`");
                    Stage::Missing
                }
            }
        }
        Some(TokenTree::Punct(punct)) if punct.as_char() == '|' => refuse_bare_closure(cursor, errors),
        Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && cursor.path_sep_at(0) => {
            parse_call(cursor, errors)
        }
        Some(TokenTree::Punct(punct)) if punct.as_char() == '<' => {
            let text =
                "`< >` stands once, around the whole network; stages are grouped with braces, `{ a -> b }`";
            errors.at(punct.span(), text);
            Stage::Block(parse_angled_chain(cursor, errors))
        }
        Some(token) => {
            refuse_token(cursor, &token, errors);
            Stage::Missing
        }
        None => {
            errors.at(cursor.span(), "expected a stage after this");
            Stage::Missing
        }
    }
}

fn refuse_token(cursor: &mut Cursor, token: &TokenTree, errors: &mut Errors) {
    match token {
        TokenTree::Literal(literal) => {
            cursor.next();
            errors.at(
                literal.span(),
                "expected a stage: a function such as `relu`, or a closure in parentheses, `(|x: &Tensor| x * 2.0)`",
            );
        }
        // The chain goes on with the arrow.
        _ if cursor.at_arrow() => {
            let arrow = cursor.clone().take(2);
            errors.over(&arrow, "a stage is missing before this arrow");
        }
        _ => {
            let run = cursor.punct_at(0);
            let tokens = cursor.take(run.chars().count());
            errors.over(&tokens, format!("expected a stage, found `{run}`"));
            skip_stage(cursor);
        }
    }
}

/// Moves to the next arrow or to the end of the chain.
fn skip_stage(cursor: &mut Cursor) {
    while !cursor.at_end() && !cursor.at_arrow() && !matches!(cursor.char_at(0), Some('>' | ',')) {
        cursor.next();
    }
}

fn refuse_bare_closure(cursor: &mut Cursor, errors: &mut Errors) -> Stage {
    errors.unclear_at(cursor.span(), "a closure stands in parentheses: `(|x: &Tensor| x * 2.0)`");
    cursor.next();
    skip_stage(cursor);
    Stage::Missing
}

/// A stage that starts with an identifier.
fn parse_named(cursor: &mut Cursor, ident: &Ident, errors: &mut Errors) -> Stage {
    match ident.to_string().as_str() {
        "_" => {
            cursor.next();
            Stage::Identity
        }
        "for" => parse_for(cursor, errors),
        "if" => parse_if(cursor, errors).map_or(Stage::Missing, Stage::If),
        "match" => parse_match(cursor, errors),
        "use" => match cursor.group_at(1, Delimiter::Parenthesis).cloned() {
            Some(group) => {
                cursor.take(2);
                Stage::Use { tokens: group.stream(), span: group.span() }
            }
            None => {
                errors.at(ident.span(), "`use` takes the tensor to go on with in parentheses: `use(skip)`");
                skip_stage(cursor);
                Stage::Missing
            }
        },
        keyword @ ("while" | "loop" | "let" | "move" | "return" | "fn" | "in" | "else" | "as") => {
            cursor.next();
            let instead = match keyword {
                "while" | "loop" => "repeat stages with `for i in 0..3 { .. }`",
                "let" => "name a stage's output with `as`: `relu as skip`",
                "move" => "`move` stands at the front: `network! { move < .. > }`",
                "else" => "it follows the block of an `if`",
                _ => "expected a stage",
            };
            errors.unclear_at(ident.span(), format!("`{keyword}` is no stage; {instead}"));
            skip_stage(cursor);
            Stage::Missing
        }
        _ => parse_call(cursor, errors),
    }
}

/// `conv(32, (5, 5))`, `nn::relu`, `self.block`, `f::<T>(3)`, or a join.
fn parse_call(cursor: &mut Cursor, errors: &mut Errors) -> Stage {
    let mut callee = Vec::new();
    let mut name = None;
    let mut is_member = false;
    if cursor.path_sep_at(0) {
        callee.extend(cursor.take(2));
    }
    while let Some(TokenTree::Ident(ident)) = cursor.peek().cloned() {
        callee.extend(cursor.take(1));
        name = Some(ident);
        if cursor.path_sep_at(0) {
            callee.extend(cursor.take(2));
            if cursor.char_at(0) == Some('<') {
                callee.extend(take_generics(cursor, errors));
                if cursor.path_sep_at(0) {
                    callee.extend(cursor.take(2));
                    continue;
                }
                break;
            }
        } else if cursor.punct_at(0) == "." && cursor.ident_at(1).is_some() {
            callee.extend(cursor.take(1));
            is_member = true;
        } else {
            break;
        }
    }
    let Some(name) = name else {
        errors.at(cursor.span(), "expected the name of a function");
        return Stage::Missing;
    };
    let arguments = cursor.group_at(0, Delimiter::Parenthesis).cloned();
    if arguments.is_some() {
        cursor.next();
    }
    if let Some(group) = cursor.group_at(0, Delimiter::Brace).cloned() {
        cursor.next();
        return parse_join(&name, callee.len() == 1, arguments.as_ref(), &group, errors);
    }
    let arguments = arguments.map(|group| parse_arguments(&group, errors));
    Stage::Call(Call { callee, name, is_member, arguments })
}

/// `<A, B>` behind `::`; the `>` of an arrow closes nothing.
fn take_generics(cursor: &mut Cursor, errors: &mut Errors) -> Vec<TokenTree> {
    let mut tokens = Vec::new();
    let mut depth = 0usize;
    while !cursor.at_end() {
        if cursor.at_arrow() {
            tokens.extend(cursor.take(2));
            continue;
        }
        match cursor.char_at(0) {
            Some('<') => depth += 1,
            Some('>') => depth -= 1,
            _ => {}
        }
        tokens.extend(cursor.take(1));
        if depth == 0 {
            return tokens;
        }
    }
    errors.at(tokens[0].span(), "these type arguments are never closed by `>`");
    tokens
}

fn parse_join(
    name: &Ident,
    is_plain: bool,
    arguments: Option<&Group>,
    block: &Group,
    errors: &mut Errors,
) -> Stage {
    let Some(kind) = JoinKind::from_name(&name.to_string()).filter(|_| is_plain) else {
        let near = nearest(&name.to_string(), &JoinKind::NAMES);
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("if `{name}` is a stage of its own, write `{name} -> {{ .. }}`"),
        };
        errors.at(
            name.span(),
            format!("`{name}` joins no branches; the joins are `residual`, `add`, `mul`, `concat(axis)` and `tuple`; {hint}"),
        );
        let _ = parse_branches(block, errors);
        return Stage::Missing;
    };
    let tokens = arguments.map(Group::stream).unwrap_or_default();
    match kind {
        JoinKind::Concat if tokens.is_empty() => errors.at(
            arguments.map_or(name.span(), Group::span),
            "`concat` needs the axis to join along: `concat(1) { a, b }`",
        ),
        JoinKind::Concat => {}
        _ if !tokens.is_empty() => errors.at(
            arguments.map_or(name.span(), Group::span),
            format!("`{name}` takes no arguments: `{name} {{ .. }}`"),
        ),
        _ => {}
    }
    let branches = parse_branches(block, errors);
    match (kind, branches.len()) {
        (JoinKind::Residual, 2..) => errors.at(
            name.span(),
            "`residual` adds one branch to its input; for several branches write `add { _, a, b }`, where `_` is the \
             input",
        ),
        (JoinKind::Residual, _) | (_, 2..) => {}
        (_, 1) => errors.at(
            name.span(),
            format!("`{name}` joins at least two branches, separated by commas; `_` stands for the input unchanged"),
        ),
        _ => {}
    }
    Stage::Join(Join { kind, keyword: name.clone(), arguments: tokens, branches })
}

/// Chains separated by commas.
fn parse_branches(block: &Group, errors: &mut Errors) -> Vec<Chain> {
    let mut cursor = Cursor::of_group(block);
    let mut branches = Vec::new();
    loop {
        branches.push(parse_angled_chain(&mut cursor, errors));
        if !finish_branch(&mut cursor, errors) {
            return branches;
        }
    }
}

/// Moves behind a comma; whether another branch follows.
fn finish_branch(cursor: &mut Cursor, errors: &mut Errors) -> bool {
    while !cursor.at_end() {
        if cursor.char_at(0) == Some(',') {
            cursor.next();
            return !cursor.at_end();
        }
        errors.at(cursor.span(), "expected `->`, `,` or the end of the branches");
        while !cursor.at_end() && cursor.char_at(0) != Some(',') {
            cursor.next();
        }
    }
    false
}

/// One chain in braces.
fn parse_block(block: &Group, errors: &mut Errors) -> Chain {
    let mut cursor = Cursor::of_group(block);
    let chain = parse_body(&mut cursor, errors);
    if let Some(input) = chain.inputs.first() {
        errors.at(input.span(), "only the whole network names its inputs; name a stage's output with `as`");
    }
    chain.chain
}

/// Raw tokens up to the next braces, which are the body: as in Rust, a struct literal needs parentheses here.
fn take_head(cursor: &mut Cursor, keyword: &Ident, errors: &mut Errors) -> Option<(TokenStream, Group)> {
    let mut head = Vec::new();
    while let Some(token) = cursor.next() {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                return Some((head.into_iter().collect(), group));
            }
            token => head.push(token),
        }
    }
    let form = match keyword.to_string().as_str() {
        "for" => "`for i in 0..3 { .. }`",
        "match" => "`match value { pattern => .., }`",
        _ => "`if condition { .. } else { .. }`",
    };
    errors.unclear_at(keyword.span(), format!("the braces of this `{keyword}` are missing: {form}"));
    None
}

fn parse_for(cursor: &mut Cursor, errors: &mut Errors) -> Stage {
    let Some(TokenTree::Ident(keyword)) = cursor.next() else { return Stage::Missing };
    let Some((head, group)) = take_head(cursor, &keyword, errors) else { return Stage::Missing };
    if !head.clone().into_iter().any(|token| matches!(&token, TokenTree::Ident(ident) if ident == "in")) {
        errors.unclear_at(keyword.span(), "a loop is written `for i in 0..3 { .. }`");
    }
    Stage::For { head, keyword, body: parse_block(&group, errors) }
}

fn parse_if(cursor: &mut Cursor, errors: &mut Errors) -> Option<If> {
    let Some(TokenTree::Ident(keyword)) = cursor.next() else { return None };
    let (condition, group) = take_head(cursor, &keyword, errors)?;
    if condition.is_empty() {
        errors.unclear_at(keyword.span(), "the condition is missing: `if condition { .. } else { .. }`");
    }
    let then = parse_block(&group, errors);
    let mut otherwise = None;
    if cursor.keyword_at(0, "else") {
        let span = cursor.span();
        cursor.next();
        if cursor.keyword_at(0, "if") {
            otherwise = parse_if(cursor, errors).map(|inner| Otherwise::If(Box::new(inner)));
        } else if let Some(group) = cursor.group_at(0, Delimiter::Brace).cloned() {
            cursor.next();
            otherwise = Some(Otherwise::Block(parse_block(&group, errors)));
        } else {
            errors.at(span, "`else` is followed by a block: `else { .. }`");
            skip_stage(cursor);
        }
    }
    Some(If { keyword, condition, then, otherwise })
}

fn parse_match(cursor: &mut Cursor, errors: &mut Errors) -> Stage {
    let Some(TokenTree::Ident(keyword)) = cursor.next() else { return Stage::Missing };
    let Some((head, group)) = take_head(cursor, &keyword, errors) else { return Stage::Missing };
    let mut cursor = Cursor::of_group(&group);
    let mut arms = Vec::new();
    while !cursor.at_end() {
        let start = cursor.span();
        let mut pattern = TokenStream::new();
        while !cursor.at_end() && cursor.punct_at(0) != "=>" {
            pattern.extend(cursor.take(1));
        }
        if cursor.at_end() {
            errors.unclear_at(start, "an arm is written `pattern => stage -> stage,`");
            break;
        }
        let arrow = cursor.take(2).into_iter().collect();
        let chain = parse_angled_chain(&mut cursor, errors);
        arms.push(Arm { pattern, arrow, chain });
        finish_branch(&mut cursor, errors);
    }
    Stage::Match { head, keyword, arms }
}

const NETWORK_FUNCTION: &str = "a network function is written `pub fn name(arguments) < a -> b >`";

fn parse_items(cursor: &mut Cursor, errors: &mut Errors) -> Vec<Item> {
    let mut items = Vec::new();
    while !cursor.at_end() {
        match parse_item(cursor, errors) {
            Ok(item) => items.push(item),
            Err(error) => {
                errors.push(error);
                break;
            }
        }
    }
    items
}

fn parse_item(cursor: &mut Cursor, errors: &mut Errors) -> syn::Result<Item> {
    // Everything up to the arguments is Rust; what follows them is not.
    let mut front = Vec::new();
    while !cursor.at_end() && cursor.group_at(0, Delimiter::Parenthesis).is_none_or(|_| !is_fn_name(&front)) {
        front.extend(cursor.take(1));
        if cursor.char_at(0) == Some('<') && is_fn_name(&front) {
            let message = "a network function takes no type parameters; give its arguments concrete types";
            return Err(Error::new(cursor.span(), message));
        }
    }
    let Some(group) = cursor.group_at(0, Delimiter::Parenthesis).cloned() else {
        syn::parse::Parser::parse2(parse_front, front.into_iter().collect())?;
        return Err(Error::new(cursor.span(), NETWORK_FUNCTION));
    };
    cursor.next();
    let front: TokenStream = front.into_iter().collect();
    let (attrs, vis, name) = syn::parse::Parser::parse2(parse_front, front)?;
    let arguments = syn::parse::Parser::parse2(
        syn::punctuated::Punctuated::<syn::FnArg, syn::Token![,]>::parse_terminated,
        group.stream(),
    )?;
    let output = parse_output(cursor)?;
    let body = match cursor.group_at(0, Delimiter::Brace).cloned() {
        Some(group) => {
            cursor.next();
            parse_body(&mut Cursor::of_group(&group), errors)
        }
        None => {
            let inputs = parse_inputs(cursor, errors);
            if cursor.char_at(0) != Some('<') {
                let message = "the network of a function stands between `<` and `>`, or in braces";
                return Err(Error::new(cursor.span(), message));
            }
            Body { inputs, chain: parse_angled_chain(cursor, errors) }
        }
    };
    Ok(Item { attrs, vis, name, arguments: arguments.into_iter().collect(), output, body })
}

fn is_fn_name(front: &[TokenTree]) -> bool {
    matches!(front, [.., TokenTree::Ident(keyword), TokenTree::Ident(_)] if keyword == "fn")
}

fn parse_front(
    input: syn::parse::ParseStream<'_>,
) -> syn::Result<(Vec<syn::Attribute>, syn::Visibility, Ident)> {
    let attrs = input.call(syn::Attribute::parse_outer)?;
    let vis = input.parse()?;
    if !input.peek(syn::Token![fn]) {
        return Err(input.error(NETWORK_FUNCTION));
    }
    input.parse::<syn::Token![fn]>()?;
    let name = input.parse()?;
    if input.is_empty() { Ok((attrs, vis, name)) } else { Err(input.error(NETWORK_FUNCTION)) }
}

/// `-> Result<(Tensor, Tensor)>`; the tokens behind it stay.
fn parse_output(cursor: &mut Cursor) -> syn::Result<Option<syn::Type>> {
    if !cursor.at_arrow() {
        return Ok(None);
    }
    cursor.take(2);
    let mut tokens = TokenStream::new();
    let mut depth = 0i32;
    while !cursor.at_end() {
        let ends = depth == 0
            && !tokens.is_empty()
            && (cursor.char_at(0) == Some('|')
                || cursor.group_at(0, Delimiter::Brace).is_some()
                || (cursor.char_at(0) == Some('<')
                    && syn::parse2::<syn::Type>(tokens.clone()).is_ok()
                    && has_generics(&tokens)));
        if ends {
            break;
        }
        match cursor.char_at(0) {
            Some('<') => depth += 1,
            Some('>') => depth -= 1,
            _ => {}
        }
        tokens.extend(cursor.take(1));
    }
    syn::parse2(tokens).map(Some)
}

/// Whether a second `<` would be the network's: the type has its own already.
fn has_generics(tokens: &TokenStream) -> bool {
    tokens
        .clone()
        .into_iter()
        .any(|token| matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '<'))
}

/// The name in `names` that `word` is probably meant to be.
pub(super) fn nearest<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &str| {
        let (a, b): (Vec<char>, Vec<char>) = (word.chars().collect(), name.chars().collect());
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, y) in b.iter().enumerate() {
                let change = diagonal + usize::from(x != y);
                diagonal = row[j + 1];
                row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
            }
        }
        row[b.len()]
    };
    names.iter().map(|&name| (distance(name), name)).filter(|(d, _)| *d <= 2).min().map(|(_, name)| name)
}
