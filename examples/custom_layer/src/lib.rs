//! A layer of one's own, in a crate that depends on `layerfn` only.
//!
//! The page of [`gated`], with its two tables, is made from the one declaration in the source.

use layerfn::prelude::*;

/// Affine layer with a learned gate.
///
/// `y[n, o] = g[o] * sum_i x[n, i] W[i, o] + b[o]`. While training, the layer keeps a moving average of its output,
/// which shows outputs that have drifted far from zero.
///
/// # Shapes
/// - input: `(batch, inmaps)`
/// - output: `(batch, outmaps)`
///
/// # Errors
/// If the input is not a matrix, or the parameters exist with other shapes.
///
/// # Example
/// ```
/// use custom_layer::gated;
/// use layerfn::prelude::*;
///
/// let x = Tensor::ones((4, 3), DType::F32, &Device::Cpu)?;
/// let y = gated(&x, 10).with_bias(false).name("fc1").call()?;
/// assert_eq!(y.dims(), [4, 10]);
/// assert_eq!(get_parameters().paths().collect::<Vec<_>>(), ["fc1/gated/W", "fc1/gated/g"]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "gated",
    params(
        /// Weight matrix.
        W: [inmaps, outmaps] = w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])),
        /// Gate.
        g: [outmaps] = 1.0,
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = 0.0,
        /// Moving average of the output.
        #[need_grad(false)]
        mean: [outmaps] = 0.0,
    )
)]
pub fn gated(
    /// Input, shape (batch, inmaps).
    inp: &Tensor,
    /// Number of outputs.
    outmaps: usize,
    /// Initializer of `W`; Glorot uniform when absent.
    #[opt]
    w_init: Option<Initializer>,
    /// Whether to add the bias.
    #[opt(default = true)]
    with_bias: bool,
    /// Weight of the past in the moving average, in [0, 1].
    #[opt(default = 0.9)]
    decay: f64,
) -> Result<Tensor> {
    let (_, inmaps) = inp.dims2()?;
    let y = inp.matmul(&param!(W)?)?.broadcast_mul(&param!(g)?)?;
    let y = match param!(b)? {
        Some(b) => y.broadcast_add(&b)?,
        None => y,
    };
    let mean = param!(mean)?;
    if is_training() {
        let mean = ((mean * decay)? + (y.mean(0)? * (1.0 - decay))?)?;
        param!(mean = &mean)?;
    }
    Ok(y)
}
