//! Every form of argument, parameter and layer.

use candle_core::{DType, Device, Tensor};
use layerfn::{
    Dims, Error, Initializer, ParameterStore, PerAxis, Result, get_all_parameters, parametric_function,
};

/// Affine layer with a learned gate.
///
/// More about it.
#[parametric_function(
    scope = "gated",
    params(
        /// Weight matrix.
        W: [inmaps, outmaps] = w_init.unwrap_or_else(|| Initializer::uniform(-1.0, 1.0)),
        /// Gate.
        g: [outmaps] = 1.0,
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = 0.0,
        /// Moving average of the output.
        #[need_grad(false)]
        mean: [1, ..[outmaps]] = 0.0,
    )
)]
pub fn gated(
    /// Input, shape (batch, inmaps).
    inp: &Tensor,
    /// Number of outputs.
    outmaps: usize,
    /// Initializer of `W`; uniform when absent.
    #[opt]
    w_init: Option<Initializer>,
    /// Whether to add the bias.
    #[opt(default = true)]
    with_bias: bool,
) -> Result<Tensor> {
    let inmaps = inp.dim(1)?;
    let y = inp.matmul(&param!(W)?)?.broadcast_mul(&param!(g)?)?;
    let b = param!(b)?;
    let y = match b {
        Some(b) => y.broadcast_add(&b)?,
        None => y,
    };
    let mean = (param!(mean)? * 0.9)?;
    param!(mean = &(mean + y.mean_keepdim(0)? * 0.1)?)?;
    Ok(y)
}

fn input() -> Result<Tensor> {
    Ok(Tensor::ones((2, 3), DType::F32, &Device::Cpu)?)
}

fn paths() -> Vec<String> {
    get_all_parameters().iter().map(|(path, _)| path.to_string()).collect()
}

#[test]
fn parameters_are_registered_as_declared() -> Result<()> {
    ParameterStore::new().enter(|| {
        let y = gated(&input()?, 4).name("fc1").call()?;
        assert_eq!(y.dims(), [2, 4]);
        assert_eq!(paths(), ["fc1/gated/W", "fc1/gated/g", "fc1/gated/b", "fc1/gated/mean"]);
        Ok(())
    })
}

#[test]
fn a_condition_decides_about_a_parameter() -> Result<()> {
    ParameterStore::new().enter(|| {
        gated(&input()?, 4).with_bias(false).w_init(Initializer::constant(1.0)).call()?;
        assert_eq!(paths(), ["gated/W", "gated/g", "gated/mean"]);
        Ok(())
    })
}

#[test]
fn the_declaration_can_be_read() {
    let info = Gated::INFO;
    assert_eq!((info.name, info.scope, info.doc), ("gated", "gated", "Affine layer with a learned gate."));
    let arguments = info.arguments.iter().map(|a| (a.name, a.ty, a.default)).collect::<Vec<_>>();
    assert_eq!(
        arguments,
        [
            ("inp", "&Tensor", None),
            ("outmaps", "usize", None),
            ("w_init", "Option<Initializer>", Some("none")),
            ("with_bias", "bool", Some("true")),
        ]
    );
    let parameters = info.parameters.iter().map(|p| (p.name, p.shape, p.need_grad, p.initial, p.when));
    assert_eq!(
        parameters.collect::<Vec<_>>(),
        [
            ("W", "(inmaps, outmaps)", true, "w_init, or Initializer::uniform(-1.0, 1.0)", None),
            ("g", "(outmaps)", true, "1.0", None),
            ("b", "(outmaps)", true, "0.0", Some("with_bias")),
            ("mean", "(1, ..[outmaps])", false, "0.0", None),
        ]
    );
}

#[test]
fn an_error_says_where_it_happened() -> Result<()> {
    ParameterStore::new().enter(|| {
        let vector = input()?.flatten_all()?;
        let error = gated(&vector, 4).name("fc1").call().map(drop);
        assert!(matches!(error, Err(Error::InLayer { path, layer: "gated", .. }) if path == "fc1/gated"));
        Ok(())
    })
}

#[test]
fn fixed_parameters_have_no_gradient() -> Result<()> {
    ParameterStore::new().enter(|| {
        let y = gated(&input()?, 4).fix_parameters(true).call()?;
        assert!(!y.track_op());
        let y = gated(&input()?, 4).call()?;
        assert!(y.track_op());
        Ok(())
    })
}

/// A function with every form of argument, without parameters: only a builder.
#[parametric_function]
#[allow(unused_mut)]
fn forms(
    #[into] mut kernel: Dims,
    text: &str,
    list: &[usize],
    maybe_tensor: Option<&Tensor>,
    #[opt(into, default = 1)] stride: PerAxis,
    #[opt(default = kernel.len() + text.len())] from_earlier: usize,
    #[opt(default = first(list)?)] fallible: usize,
    #[opt] flag: bool,
    #[opt(into)] converted: Option<Dims>,
    #[opt] borrowed: Option<&str>,
    #[opt(maybe, default = Some(3))] count: Option<usize>,
    #[opt(into, maybe)] both: Option<String>,
    #[opt(maybe)] tensor: Option<&Tensor>,
    #[opt(default = "none")] label: &str,
    required_last: &'static str,
    function: fn(&Tensor) -> usize,
) -> Result<String> {
    let _ = (function, maybe_tensor);
    let stride = stride.resolve("stride", kernel.len())?;
    let tensor = tensor.map(Tensor::rank);
    Ok(format!(
        "{:?} {text} {list:?} {stride:?} {from_earlier} {fallible} {flag} {converted:?} {borrowed:?} {count:?} \
         {both:?} {tensor:?} {label} {required_last}",
        &kernel[..]
    ))
}

fn first(list: &[usize]) -> Result<usize> {
    list.first().copied().ok_or_else(|| Error::invalid("list", "must not be empty", list))
}

#[test]
fn options_have_their_defaults() -> Result<()> {
    let got = forms((5, 5), "ab", &[7, 8], None, "last", Tensor::rank).call()?;
    assert_eq!(got, r#"[5, 5] ab [7, 8] [1, 1] 4 7 false None None Some(3) None None none last"#);
    Ok(())
}

#[test]
fn options_are_set() -> Result<()> {
    let owned = String::from("owned");
    let call = forms(Dims::from(5), &owned, &[7], Some(&input()?), "last", Tensor::rank)
        .stride((2,))
        .from_earlier(1)
        .fallible(2)
        .flag(true)
        .converted((1, 2))
        .borrowed(&owned)
        .maybe_count(None)
        .maybe_both(Some("both"))
        .maybe_tensor(Some(&input()?))
        .label("label");
    drop(owned);
    let got = call.call()?;
    assert_eq!(
        got,
        r#"[5] owned [7] [2] 1 2 true Some(Dims([1, 2])) Some("owned") None Some("both") Some(2) label last"#
    );
    Ok(())
}

#[test]
fn an_error_in_a_default_is_the_layers() {
    let error = forms((5, 5), "ab", &[], None, "last", Tensor::rank).call();
    assert_eq!(error.unwrap_err().to_string(), ": forms: `list` must not be empty, got []");
}

/// A layer made of layers.
#[parametric_function(scope = "block", rename = "TwoGates")]
fn two_gates(inp: &Tensor) -> Result<Tensor> {
    let h = gated(inp, 3).name("first").call()?;
    gated(&h, 3).name("second").call()
}

/// A function of layers, without a scope of its own.
#[parametric_function]
fn a_gate(inp: &Tensor) -> Result<Tensor> {
    gated(inp, 3).with_bias(false).call()
}

#[test]
fn layers_nest() -> Result<()> {
    ParameterStore::new().enter(|| {
        let y: TwoGates = two_gates(&input()?).fix_parameters(true);
        assert!(!y.call()?.track_op());
        a_gate(&input()?).name("x").call()?;
        a_gate(&input()?).call()?;
        let paths = paths();
        assert_eq!(
            paths.iter().filter(|path| path.ends_with("/W")).collect::<Vec<_>>(),
            ["block/first/gated/W", "block/second/gated/W", "x/gated/W", "gated/W"]
        );
        Ok(())
    })
}

mod elsewhere {
    pub(super) mod reexported {
        pub(crate) use layerfn::*;
    }

    /// Names of the language, another path to the crate, restricted visibility.
    #[layerfn::parametric_function(
        scope = "a/b",
        crate = self::reexported,
        params(
            /// A name of the language.
            r#type: [] = 1.0,
            /// Another.
            r#match: [r#in] = 1.0,
        ),
    )]
    pub(super) fn r#loop(r#in: usize, #[opt(default = r#in)] r#fn: usize) -> layerfn::Result<(usize, usize)> {
        let shape = param!(r#match)?.dims().to_vec();
        Ok((shape[0] + r#fn, param!(r#type)?.rank()))
    }
}

#[test]
fn words_of_the_language_are_names() -> Result<()> {
    ParameterStore::new().enter(|| {
        assert_eq!(elsewhere::r#loop(2).r#fn(1).call()?, (3, 0));
        assert_eq!(paths(), ["a/b/match", "a/b/type"]);
        Ok(())
    })
}

#[test]
fn a_layer_can_stand_in_a_function() -> Result<()> {
    #[parametric_function(scope = "inner", params(/** Block comment. */ W: [2] = 0.5))]
    fn inner() -> Result<Tensor> {
        Ok(vec![param!(W)?].remove(0))
    }
    ParameterStore::new().enter(|| {
        assert_eq!(inner().call()?.to_vec1::<f32>()?, [0.5, 0.5]);
        Ok(())
    })
}

/// A function of candle's, with its error, on many tensors.
#[parametric_function(
    scope = "sum",
    params(
        /// In the type of the first tensor.
        offset: [] = 1.0,
    )
)]
fn sum(tensors: &[Tensor]) -> candle_core::Result<Tensor> {
    let mut sum = param!(offset)?;
    for tensor in tensors {
        sum = sum.broadcast_add(tensor)?;
    }
    Ok(sum)
}

#[test]
fn candles_result_is_a_result() -> Result<()> {
    ParameterStore::new().enter(|| {
        let x = input()?.to_dtype(DType::F64)?;
        assert_eq!(sum(&[x.clone(), x]).call()?.to_vec2::<f64>()?, [[3.0; 3]; 2]);
        let error =
            sum(&[input()?.flatten_all()?, Tensor::ones(2, DType::F32, &Device::Cpu)?]).call().map(drop);
        assert!(matches!(error, Err(Error::InLayer { layer: "sum", .. })));
        Ok(())
    })
}

/// An old layer.
#[parametric_function]
#[deprecated(note = "use a new one")]
pub fn old(#[opt] x: usize) -> Result<usize> {
    Ok(x)
}

/// A layer that this build does not have.
#[parametric_function]
#[cfg(any())]
pub fn absent(x: Missing) -> Result<Missing> {}

#[test]
#[expect(deprecated)]
fn a_deprecated_layer_warns_its_caller_only() -> Result<()> {
    assert_eq!(old().x(2).call()?, 2);
    Ok(())
}
