//! Functions without parameters that want options: pooling and dropout as stages of a network.

use candle_core::Tensor;

use crate::{ParameterStore, PerAxis, Result, Rng, functions, is_training, parametric_function};

/// Max pooling: the largest element of each window.
///
/// # Shapes
/// - input: `(N.., L_1, .., L_d)`; the windows run over as many trailing axes as `kernel` has entries
/// - output: `L' = (L + 2·pad − kernel) / stride + 1` on each of them, rounded down with `ignore_border` and up
///   without
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a window is empty or exceeds the padded input.
///
/// # Source
/// NNabla `F.max_pooling`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::max_pooling;
///
/// let x = Tensor::zeros((8, 3, 7, 7), DType::F32, &Device::Cpu)?;
/// assert_eq!(max_pooling(&x, (2, 2)).call()?.dims(), [8, 3, 3, 3]);
/// assert_eq!(max_pooling(&x, (3, 3)).stride((2, 2)).pad((1, 1)).call()?.dims(), [8, 3, 4, 4]);
///
/// let x = Tensor::new(&[[[1f32, 3., 2., 5., 4.]]], &Device::Cpu)?;
/// assert_eq!(max_pooling(&x, 2).call()?.to_vec3::<f32>()?, [[[3., 5.]]]);
/// assert_eq!(max_pooling(&x, 2).ignore_border(false).call()?.to_vec3::<f32>()?, [[[3., 5., 4.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(family = Pooling, multiply_adds = [0])]
pub fn max_pooling(
    /// Input.
    inp: &Tensor,
    /// Size of the window on each axis.
    #[into]
    kernel: PerAxis,
    /// Step of the window; `kernel` if absent.
    #[opt(into)]
    stride: Option<PerAxis>,
    /// Whether elements that do not fill a window are left out.
    #[opt(default = true)]
    ignore_border: bool,
    /// Border on both sides of each axis, which is never the largest.
    #[opt(into, default = 0)]
    pad: PerAxis,
) -> Result<Tensor> {
    functions::pooling::max_pooling(inp, &kernel, stride.as_ref(), ignore_border, &pad)
}

/// Average pooling: the mean of each window.
///
/// # Shapes
/// As [`max_pooling`](fn@max_pooling).
///
/// # Errors
/// As [`max_pooling`](fn@max_pooling).
///
/// # Source
/// NNabla `F.average_pooling`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::average_pooling;
///
/// let x = Tensor::ones((1, 1, 4, 4), DType::F32, &Device::Cpu)?;
/// assert_eq!(average_pooling(&x, (2, 2)).call()?.dims(), [1, 1, 2, 2]);
///
/// let x = Tensor::new(&[[[1f32, 3., 2., 5.]]], &Device::Cpu)?;
/// assert_eq!(average_pooling(&x, 2).pad(1).call()?.to_vec3::<f32>()?, [[[0.5, 2.5, 2.5]]]);
/// let y = average_pooling(&x, 2).pad(1).including_pad(false).call()?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[1., 2.5, 5.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(family = Pooling, multiply_adds = [0])]
pub fn average_pooling(
    /// Input.
    inp: &Tensor,
    /// Size of the window on each axis.
    #[into]
    kernel: PerAxis,
    /// Step of the window; `kernel` if absent.
    #[opt(into)]
    stride: Option<PerAxis>,
    /// Whether elements that do not fill a window are left out.
    #[opt(default = true)]
    ignore_border: bool,
    /// Zeros on both sides of each axis.
    #[opt(into, default = 0)]
    pad: PerAxis,
    /// Whether the zeros of the border count as elements of the window.
    #[opt(default = true)]
    including_pad: bool,
) -> Result<Tensor> {
    functions::pooling::average_pooling(inp, &kernel, stride.as_ref(), ignore_border, &pad, including_pad)
}

/// Dropout: in training, sets each element to zero with probability `p` and scales the others by `1 / (1 − p)`;
/// in [`test_mode`](crate::test_mode) the identity.
///
/// # Shapes
/// - input and output: any
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `p` is not in [0, 1).
///
/// # Source
/// NNabla `F.dropout`; Srivastava et al., Dropout, JMLR 2014.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{dropout, test_mode};
///
/// let x = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
/// let y = dropout(&x).p(0.5).call()?;
/// assert!(y.flatten_all()?.to_vec1::<f32>()?.iter().all(|&y| y == 0.0 || y == 2.0));
/// assert_eq!(test_mode(|| dropout(&x).call())?.to_vec2::<f32>()?, [[1.0; 3]; 2]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(family = Dropout, multiply_adds = [0])]
pub fn dropout(
    /// Input.
    inp: &Tensor,
    /// Probability of a zero, in [0, 1).
    #[opt(default = 0.5)]
    p: f64,
    /// Generator of the zeros; the one of the current store if absent.
    #[opt(into, default = ParameterStore::current().rng())]
    rng: Rng,
) -> Result<Tensor> {
    if is_training() {
        functions::activation::dropout(inp, p, &mut || rng.next_u32())
    } else {
        Ok(inp.clone())
    }
}
