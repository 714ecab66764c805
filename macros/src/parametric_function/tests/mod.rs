//! Tokens in, pretty-printed code or errors out.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;

use super::expand;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The expansion, as rustfmt would print it.
fn printed(args: TokenStream, item: &TokenStream) -> Result<String, syn::Error> {
    Ok(prettyplease::unparse(&syn::parse2(expand(args, item.clone()))?))
}

/// The messages of the `compile_error!`s in an expansion; where they point, the ui tests record.
fn messages(args: &str, item: &str) -> Vec<String> {
    let (Ok(args), Ok(item)) = (args.parse::<TokenStream>(), item.parse::<TokenStream>()) else {
        return vec!["the test does not parse".to_owned()];
    };
    let expansion = expand(args, item).into_iter().collect::<Vec<_>>();
    let calls = expansion.windows(3).filter_map(|tokens| match tokens {
        [TokenTree::Ident(name), TokenTree::Punct(_), TokenTree::Group(message)]
            if name == "compile_error" =>
        {
            Some(syn::parse2::<syn::LitStr>(message.stream()).ok()?.value())
        }
        _ => None,
    });
    calls.collect()
}

/// A layer with one argument of each kind.
fn layer() -> (TokenStream, TokenStream) {
    let args = quote! {
        scope = "conv",
        params(
            /// Filter weights.
            W: [outmaps, inmaps / group, ..kernel] = w_init.unwrap_or_else(|| Initializer::uniform(-1.0, 1.0)),
            /// Bias vector,
            /// one | each.
            #[when(with_bias)]
            #[need_grad(false)]
            b: [outmaps] = 0.0,
        )
    };
    let item = quote! {
        /// Convolution.
        ///
        /// More.
        ///
        /// # Example
        /// None.
        #[inline]
        #[allow(unused)]
        pub fn convolution(
            /// Input.
            inp: &Tensor,
            outmaps: usize,
            #[into] kernel: Dims,
            /// Stride.
            ///
            /// In detail.
            #[opt(into, default = 1)]
            stride: Dims,
            #[opt(maybe)] w_init: Option<Initializer>,
            #[opt(default = |x| x)] hook: fn(f64) -> f64,
            #[opt] bias: Option<&Tensor>,
        ) -> Result<Tensor> {
            let w = param!(W)?;
            helper!(param!(b)?, other::param!(W));
            param!(b = &w)?;
            Ok(w)
        }
    };
    (args, item)
}

/// To accept a change: `UPDATE=1 cargo test -p layerfn-macros`, then read the difference.
#[test]
fn expansion_is_as_recorded() -> Outcome {
    let (args, item) = layer();
    let got = printed(args, &item)?;
    if std::env::var_os("UPDATE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/parametric_function/tests/convolution.expanded");
        std::fs::write(path, &got)?;
    }
    assert_eq!(got, include_str!("convolution.expanded"));
    Ok(())
}

#[test]
fn expansion_stays_small() -> Outcome {
    let (args, item) = layer();
    assert!(printed(args, &item)?.lines().count() < 300);
    Ok(())
}

#[test]
fn a_plain_function_becomes_a_builder() -> Outcome {
    let got = printed(
        quote!(),
        &quote!(
            fn pool(inp: &Tensor) -> Result<Tensor> {
                Ok(inp.clone())
            }
        ),
    )?;
    assert!(got.contains("fn name("));
    assert!(!got.contains("fn fix_parameters("));
    assert!(got.contains(r#"scope: """#));
    Ok(())
}

#[test]
fn documentation_stands_once() -> Outcome {
    let (args, item) = layer();
    let got = printed(args, &item)?;
    assert_eq!(got.matches("/// Convolution.").count(), 1);
    assert_eq!(got.matches("/// More.").count(), 1);
    Ok(())
}

#[test]
fn the_structure_is_named_after_the_function() -> Outcome {
    for (function, structure) in [
        ("affine", "Affine"),
        ("residual_block_2", "ResidualBlock2"),
        ("lp_1_2", "Lp1_2"),
        ("_hidden", "Hidden"),
        ("r#loop", "Loop"),
        ("_2d", "Layer2d"),
        ("r#self_", "Self_"),
    ] {
        let item = format!("fn {function}() -> Result<()> {{ Ok(()) }}").parse()?;
        let got = printed(quote!(), &item)?;
        // `Self` is a word of the language.
        let structure = if structure == "Self_" { "LayerSelf" } else { structure };
        assert!(got.contains(&format!("struct {structure} {{")), "{function}:\n{got}");
    }
    Ok(())
}

#[test]
fn several_mistakes_are_reported_at_once() {
    let got = messages(
        "scop = \"a\", params(W = 1.0, /** x */ #[whem(a)] b: [1] = 1.0), scope = \"b\"",
        "fn f(#[opt(defualt = 1)] a: usize, (b, c): (usize, usize), name: usize) -> usize { param!(V) }",
    );
    assert_eq!(
        got,
        [
            "unknown key `scop`; did you mean `scope`? expected one of `scope`, `options`, `params`, `family`, `multiply_adds`, `fuses`, `rename`, `crate`",
            "parameter `W` needs a shape: `W: [outmaps, inmaps] = 0.0`",
            "unknown attribute `whem`; did you mean `when`? expected one of `need_grad`, `when`",
            "unknown key `defualt`; did you mean `default`? expected one of `default`, `into`, `maybe`",
            "an argument of a layer needs a name: write `x` here and take it apart in the body",
            "a layer returns `Result<T>`; write `Result<usize>`",
            "`name` is added by `#[parametric_function]`; rename this argument",
            "parameter `b` is never used; ask for it in the body with `param!(b)?`",
        ]
    );
}

#[test]
fn unknown_keys_name_the_nearest() {
    assert_eq!(
        messages("scop = \"a\"", "fn f() -> Result<()> {}"),
        [
            "unknown key `scop`; did you mean `scope`? expected one of `scope`, `options`, `params`, `family`, `multiply_adds`, `fuses`, `rename`, `crate`"
        ]
    );
}

#[test]
fn an_unreadable_declaration_does_not_make_names_undeclared() {
    let got = messages("scope = \"a\", params(W: 1)", "fn f() -> Result<()> { param!(W)?; param!(V) }");
    assert_eq!(got, ["expected the shape of `W` in brackets: `W: [outmaps, ..kernel]`"]);
}

#[test]
fn no_input_makes_the_macro_panic() {
    let functions = [
        "",
        "fn",
        "struct S;",
        "fn f();",
        "fn f() {}",
        "fn f(self) -> Result<()> {}",
        "fn f(&self, x: &'a &mut [&T]) -> Result<&T> {}",
        "fn f(x: impl Fn(&T) -> &T, ..: T) -> Result<(), E> {}",
        "fn f(#[opt(default = async { yield x })] x: T) -> Result<T> { param!(W = ) }",
        "fn f(#[opt(default = const { 1 })] x: [u8; { 2 }]) -> Result<T> { param! }",
        "fn f(#[opt(default = builtin # offset_of(T, x))] x: !) -> Result<impl T> { param!{W} param![W] }",
        "const async unsafe extern \"C\" fn f<'a, T, const N: usize>(x: T, ...) -> Result where T: Copy {}",
        "impl T for S { fn f() {} }",
    ];
    let args = [
        "",
        ",",
        "scope",
        "scope = ",
        "scope = \"\"",
        "scope = \"a\", params",
        "scope = \"a\", params(",
        "scope = \"a\", params()",
        "scope = \"a\", params(,)",
        "scope = \"a\", params(#[when] #[need_grad(1)] W)",
        "scope = \"a\", params(/** d */ W: [..] = )",
        "scope = \"a\", params(/** d */ W: [a b] = 1)",
        "scope = \"a\", params(/** d */ W: [a; 3] = 1,, /** d */ V: [] = const { async move {} })",
        "scope = \"a\", params(/** d */ W: [..=3, match x { _ => 1 }] = |x| yield x)",
        "crate = 1, rename = 1",
        "crate = ::a::b, rename = \"fn\"",
    ];
    for item in functions {
        for args in args {
            // Unbalanced tokens cannot reach a macro.
            if let (Ok(args), Ok(item)) = (args.parse(), item.parse()) {
                let _ = expand(args, item);
            }
        }
    }
}

/// The messages for a layer whose attribute has these keys and whose body is this.
fn refused(keys: &str, body: &str) -> Vec<String> {
    messages(keys, &format!("fn f(inp: &Tensor) -> Result<Tensor> {{ {body} }}"))
}

#[test]
fn lists_of_parameters_are_declared_and_taken_by_number() {
    let list = |declaration: &str, body: &str| {
        refused(&format!("scope = \"s\", params(/** Weights. */ {declaration})"), body)
    };
    assert_eq!(list("W[i in 0..2]: [i] = i as f64", "param!(W[1])"), [""; 0]);
    assert_eq!(list("W[i in 0..2]: [i] = 0.0", "param!(W[a + 1] = &b)"), [""; 0]);
    let declared = ["a list of parameters is declared as `W[i in 0..n]: [sizes] = initial`"];
    for wrong in
        ["W[n]: [1] = 0.0", "W[i in 0..=n]: [1] = 0.0", "W[i in 0..]: [1] = 0.0", "W[i in 3]: [1] = 0.0"]
    {
        assert_eq!(list(wrong, "param!(W[0])"), declared, "{wrong}");
    }
    assert_eq!(
        list("W[i in 0..n()?]: [1] = 0.0", "param!(W[0])"),
        [
            "`?` cannot stand in the declaration of `W`; compute the value in the body with `let` and name it here"
        ]
    );
    assert_eq!(
        list("W[i in 0..2]: [1] = 0.0", "param!(W)"),
        ["`W` is a list of parameters; say which one: `param!(W[i])`"]
    );
    assert_eq!(list("W: [1] = 0.0", "param!(W[0])"), ["`W` is one parameter; write `param!(W)`"]);
    assert_eq!(
        list("W[i in 0..2]: [1] = 0.0", "inp"),
        ["parameter `W` is never used; ask for it in the body with `param!(W[i])?`"]
    );
    assert_eq!(
        list("W[i in 0..2]: [1] = 0.0, /** One. */ W1: [1] = 0.0", "param!(W[0]) + param!(W1)"),
        ["`W1` may be the name of one of the parameters `W{i}`, too; rename one of the two"]
    );
    let [message] = &list("W[i in 0..2]: [1] = 0.0", "param!(W[0] 1); param!(W[0])")[..] else {
        panic!("one")
    };
    assert!(
        message.starts_with("unexpected `1`; write `param!(W)` to take a parameter, `param!(W[i])`"),
        "{message}"
    );
}

#[test]
fn family_and_cost_need_values() {
    assert_eq!(refused("family = Pooling, multiply_adds = [2, ..sizes]", "inp"), [""; 0]);
    assert_eq!(
        refused("multiply_adds = 3, family", "inp"),
        [
            "expected a list of numbers, which are multiplied: `multiply_adds = [inp.elem_count(), outmaps]`",
            "`family` needs a value: `family = Convolution`",
        ]
    );
    assert_eq!(
        refused("multiply_adds = [inp.dim(0)?]", "inp"),
        ["`?` cannot stand in `multiply_adds`; compute the value in the body with `let` and name it here"]
    );
    assert_eq!(refused("family = A, family = B", "inp"), ["`family` is given twice"]);
}

#[test]
fn a_refused_layer_has_its_constant() {
    let (Ok(args), Ok(item)) = (
        "scope = \"s\", params(/** Weights. */ W: [1] = 0.0)".parse(),
        "fn f<T>(inp: T) -> Result<Tensor> { param!(W) }".parse(),
    ) else {
        panic!("the test does not parse")
    };
    let text = expand(args, item).to_string();
    assert!(text.contains("compile_error") && text.contains("const INFO"), "{text}");
}
