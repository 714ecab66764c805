//! Every form of argument, parameter and layer.

use candle_core::{DType, Device, Tensor};
use layerfn::{Error, Initializer, ParameterStore, Result, get_all_parameters, parametric_function};

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
            ("w_init", "Option<Initializer>", Some("None")),
            ("with_bias", "bool", Some("true")),
        ]
    );
    let parameters = info.parameters.iter().map(|p| (p.name, p.shape, p.need_grad, p.initial, p.when));
    assert_eq!(
        parameters.collect::<Vec<_>>(),
        [
            (
                "W",
                "(inmaps, outmaps)",
                true,
                "w_init.unwrap_or_else(|| Initializer::uniform(-1.0, 1.0))",
                None
            ),
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
