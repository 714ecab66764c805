//! The rectifier with a learned slope.

use candle_core::Tensor;

use crate::{Axis, Initializer, Result, check, functions, parametric_function};

/// Parametrized rectified linear unit.
///
/// `y = max(0, x) + slope · min(0, x)`, where the slope is one number, or one for each index of the axis
/// `base_axis`.
///
/// # Shapes
/// - input and output: any
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the slope is not shared and the input has no axis
/// `base_axis`.
///
/// # Source
/// NNabla `PF.prelu`. The slope starts at −1, as NNabla 1.0 documents it; NNabla today starts at 0.25, which is
/// `.slope_init(0.25)` here. He et al., [Delving Deep into Rectifiers](https://arxiv.org/abs/1502.01852).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::prelu;
///
/// let x = Tensor::new(&[[-2.0, 3.0]], &Device::Cpu)?;
/// assert_eq!(prelu(&x).slope_init(0.25).call()?.to_vec2::<f64>()?, [[-0.5, 3.0]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "prelu",
    family = Activation,
    multiply_adds = [0],
    params(
        /// Negative slope.
        slope: [..shape] = slope_init,
    )
)]
pub fn prelu(
    /// Input.
    inp: &Tensor,
    /// Axis whose indices have a slope each, if the slope is not shared; counts from the back if negative.
    #[opt(into, default = 1)]
    base_axis: Axis,
    /// Whether all elements share one slope.
    #[opt(default = true)]
    shared: bool,
    /// Initializer of `slope`.
    #[opt(into, default = -1.0)]
    slope_init: Initializer,
) -> Result<Tensor> {
    check::input("inp", inp)?;
    let shape = match shared {
        true => vec![],
        false => vec![inp.dims()[base_axis.resolve("base_axis", inp.dims())?]],
    };
    functions::prelu(inp, &param!(slope)?, base_axis)
}
