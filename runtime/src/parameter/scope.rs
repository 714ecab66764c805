//! The current scope of the thread, and flags that apply in it.

use candle_core::DType;

use crate::context::{change, with};

/// Runs `f` in the scope `name` below the current one: parameters are registered and looked up there.
///
/// Scopes nest, and `"a/b"` is the same as `"a"` and `"b"` nested. Empty components are ignored. The previous
/// scope is restored after `f`, including on an early return and on a panic.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{affine, get_parameters, parameter_scope};
///
/// let x = Tensor::zeros((4, 3), DType::F32, &Device::Cpu)?;
/// parameter_scope("network1/head", || affine(&x, 2).call())?;
/// assert!(get_parameters().get("network1/head/affine/W").is_some());
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn parameter_scope<R>(name: impl AsRef<str>, f: impl FnOnce() -> R) -> R {
    let _restore = with(|state| state.enter(&[name.as_ref()], None));
    f()
}

/// The path of the current scope; empty at the root.
#[must_use]
pub fn current_parameter_scope() -> String {
    with(|state| state.path.clone())
}

/// Runs `f` with all parameters detached: they receive no gradients, whatever their `need_grad`.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    let _restore = change(|flags| flags.detached = true);
    f()
}

/// Runs `f`, a part of a layer's body, as if the layer had been called without `fix_parameters`.
pub(crate) fn unfixed<R>(f: impl FnOnce() -> R) -> R {
    let _restore = change(|flags| flags.detached = flags.detached_around);
    f()
}

/// Runs `f` such that layers of half precision create and use their parameters in `f32`: for statistics that
/// add up many small numbers.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{batch_normalization, get_parameter};
///
/// let x = Tensor::ones((4, 3), DType::BF16, &Device::Cpu)?;
/// batch_normalization(&x).call()?; // takes `mean` by `full_precision(|| param!(mean))?`
/// assert_eq!(get_parameter("bn/gamma").unwrap().var().dtype(), DType::BF16);
/// assert_eq!(get_parameter("bn/mean").unwrap().var().dtype(), DType::F32);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn full_precision<R>(f: impl FnOnce() -> R) -> R {
    let _restore = change(|flags| {
        if matches!(flags.dtype, DType::F16 | DType::BF16) {
            flags.dtype = DType::F32;
        }
    });
    f()
}
