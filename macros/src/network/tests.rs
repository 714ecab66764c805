//! The grammar at the level of tokens.

use proc_macro2::TokenStream;

use super::ast::{Input, Stage};
use super::network;
use super::parse::parse;
use crate::support::errors::Errors;

/// The expansion without spaces.
fn expanded(input: &str) -> String {
    let tokens: TokenStream = format!("nn; {input}").parse().expect("tokens");
    network(tokens).to_string().replace(' ', "")
}

fn errors(input: &str) -> Vec<String> {
    let mut errors = Errors::default();
    let input = parse(input.parse().expect("tokens"), &mut errors);
    super::check::check(&input, &mut errors);
    let error = errors.finish();
    error.into_iter().flatten().map(|error| error.to_string()).collect()
}

#[test]
fn a_stage_is_a_call_with_its_input_in_front() {
    let text = expanded("< nn::conv(32, (5, 5), pad = (2, 2)) -> elu >");
    assert!(text.contains("nn::conv(&__pf_x,32,(5,5)).pad((2,2))"), "{text}");
    assert!(text.contains("let__pf_next0=&elu;") && text.contains("__pf_next0(&__pf_x)"), "{text}");
    assert!(text.contains("unlabelled(\"conv\",1usize,1u32,&__pf_x)"), "{text}");
}

#[test]
fn a_stage_is_told_of_a_plain_function_behind_it() {
    let told = |input: &str| expanded(input).matches(".kind().run(").count();
    for (input, n) in [
        ("bn -> relu", 1),
        ("n: bn(axes = [1]) -> functions::relu as h -> relu", 1),
        ("add { a, b } -> relu -> residual { a -> relu } -> relu", 3),
        ("a -> relu -> relu", 2),
        ("conv(32) -> bn -> own::relu", 2),
        ("a as h -> relu", 0),
        ("a -> act: relu", 0),
        ("a -> relu(1)", 0),
        ("a -> self.relu", 0),
        ("l: add { a, b } -> relu", 0),
        ("mul { a, b } -> relu -> { a } -> relu -> (|x| x) -> relu", 0),
    ] {
        assert_eq!(told(input), n, "{input}");
    }
    // A row does not end between the two.
    assert_eq!(told(&format!("{} -> relu", ["a"; 32].join(" -> "))), 32);
    assert_eq!(told(&format!("{} -> relu -> {0}", ["a(1)"; 32].join(" -> "))), 1);
    // What may be a variable may be a closure that can be called by value only.
    assert_eq!(told("pub fn f(relu: impl FnOnce(&Tensor) -> Result<Tensor>) < a -> relu -> own::relu >"), 1);
    assert_eq!(told("for f in fs { a -> f }"), 0);
}

#[test]
fn commas_in_closures_and_type_arguments_end_no_argument() {
    let text = expanded("a(|x, y| x + y, f::<A, B>(1), key = |x, y| x, other = || 1)");
    assert!(text.contains("a(&__pf_x,|x,y|x+y,f::<A,B>(1)).key(|x,y|x).other(||1)"), "{text}");
}

#[test]
fn half_typed_arguments_reach_the_editor() {
    for (input, kept) in [("conv(self. )", "conv(&__pf_x,self.)"), ("conv(32, pad = self. )", ".pad(self.)")]
    {
        let text = expanded(input);
        assert!(text.contains(kept), "{text}");
        assert_eq!(errors(input), [""; 0]);
    }
    let text = expanded("a(1) -> b(2) -> ");
    assert!(text.contains("b(&__pf_x,2)") && text.contains("compile_error"), "{text}");
}

#[test]
fn long_chains_are_cut_into_rows_that_nothing_leaves() {
    let rows = |last: &str| {
        let text = expanded(&format!("{}{last}", "a(1, k = !b) -> ".repeat(63)));
        text.matches("__pf_private::row(").count()
    };
    assert_eq!(rows("a"), 2);
    for leaving in ["a(f()?)", "a(k = { return x })", "a(bail!(x))", "(|x| (x?))", "a as name", "{ a }"] {
        assert_eq!(rows(leaving), 1, "{leaving}");
    }
    assert_eq!(rows("l[f()?]: a"), 1);
    assert_eq!(expanded("a -> b").matches("row(").count(), 0);
}

#[test]
fn stages_without_a_label_are_counted_by_block() {
    let text = expanded("a -> a -> l: a -> b: { a -> a } -> { a }");
    let counts: Vec<_> =
        text.match_indices("unlabelled(\"a\",").map(|(at, found)| &text[at + found.len()..][..1]).collect();
    assert_eq!(counts, ["1", "2", "1", "2", "3"]);
}

#[test]
fn type_arguments_and_members_are_part_of_a_callee() {
    let text = expanded("f::<A, fn(u8) -> u8>(3) -> self.block(2) -> self.net");
    assert!(text.contains("f::<A,fn(u8)->u8>(&__pf_x,3)"), "{text}");
    assert!(text.contains("self.block(&__pf_x,2)"), "{text}");
    assert!(text.contains("(self.net)(&__pf_x)"), "{text}");
}

#[test]
fn all_mistakes_are_found_at_once() {
    assert_eq!(errors("c: a => c: a(x = 1, x = 2) >> b ->").len(), 1 + 2 + 1 + 1 + 2);
    assert_eq!(errors("a -> { b, c }").len(), 1);
}

#[test]
fn joins_and_loops_are_stages() {
    let mut errors = Errors::default();
    let input =
        "add { a -> b, _ } -> for i in 0..3 { c[i]: a } -> if x { a } else if y { b } else { _ } -> use(x)";
    let Input::Expression(network) = parse(input.parse().expect("tokens"), &mut errors) else {
        panic!("no items")
    };
    let stages: Vec<_> = network.body.chain.steps.iter().map(|step| &step.stage).collect();
    assert!(matches!(stages[..], [Stage::Join(_), Stage::For { .. }, Stage::If(_), Stage::Use { .. }]));
    assert!(errors.finish().is_none());
}

#[test]
fn a_network_function_documents_its_stages() {
    let text =
        expanded("pub fn f(g: G) < c1: nn::conv(g.n, pad = 2) -> relu -> relu -> g(|x| x) -> b: { relu } >");
    for row in [
        "|`c1`|[`nn::conv`](fn@nn::conv)|`g.n,pad=2`|",
        "|`relu_2`|[`relu`](fn@relu)||",
        "|`b`|[`relu`](fn@relu)||",
    ] {
        assert!(text.contains(row), "{row} is not in {text}");
    }
    assert!(text.contains("||`g`|`\\\\|x\\\\|x`|"), "{text}");
}
