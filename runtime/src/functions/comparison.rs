//! Comparisons and logic: 1 if the condition holds, else 0, in the type of the input and without a gradient.
//! Every number except 0 counts as true.

use candle_core::{DType, Tensor};

use super::pointwise::{Pointwise, Slope, apply, binary, unary};
use crate::number::Number;
use crate::told::{Form, told};
use crate::{Error, Result, check};

binary! {
    /// Whether `x0 = x1`.
    fn equal() = Equal as "Equal" {
        example([1.0, 2.0], [1.0, 3.0]) = [1.0, 0.0];
        value(a, b) = a.indicator(a.equals(&b));
        no_gradients;
    }

    /// Whether `x0 ≠ x1`.
    fn not_equal() = NotEqual as "NotEqual" {
        example([1.0, 2.0], [1.0, 3.0]) = [0.0, 1.0];
        value(a, b) = a.indicator(a.equals(&b)).complement();
        no_gradients;
    }

    /// Whether `x0 > x1`.
    fn greater() = Greater as "Greater" {
        example([1.0, 4.0], [1.0, 3.0]) = [0.0, 1.0];
        value(a, b) = a.indicator(a.exceeds(&b));
        no_gradients;
    }

    /// Whether `x0 ≥ x1`.
    fn greater_equal() = GreaterEqual as "GreaterEqual" {
        example([1.0, 2.0], [1.0, 3.0]) = [1.0, 0.0];
        value(a, b) = a.indicator(a.reaches(&b));
        no_gradients;
    }

    /// Whether `x0 < x1`.
    fn less() = Less as "Less" {
        example([1.0, 2.0], [1.0, 3.0]) = [0.0, 1.0];
        value(a, b) = a.indicator(b.exceeds(&a));
        no_gradients;
    }

    /// Whether `x0 ≤ x1`.
    fn less_equal() = LessEqual as "LessEqual" {
        example([1.0, 4.0], [1.0, 3.0]) = [1.0, 0.0];
        value(a, b) = a.indicator(b.reaches(&a));
        no_gradients;
    }

    /// Whether both are true.
    fn logical_and() = LogicalAnd as "LogicalAnd" {
        example([1.0, 2.0, 0.0], [0.0, 3.0, 0.0]) = [0.0, 1.0, 0.0];
        value(a, b) = truth(&a) * truth(&b);
        no_gradients;
    }

    /// Whether one of the two is true, or both.
    fn logical_or() = LogicalOr as "LogicalOr" {
        example([1.0, 2.0, 0.0], [0.0, 3.0, 0.0]) = [1.0, 1.0, 0.0];
        value(a, b) = (truth(&a).complement() * truth(&b).complement()).complement();
        no_gradients;
    }

    /// Whether one of the two is true, and not both.
    fn logical_xor() = LogicalXor as "LogicalXor" {
        example([1.0, 2.0, 0.0], [0.0, 3.0, 0.0]) = [1.0, 0.0, 0.0];
        value(a, b) = (truth(&a) - truth(&b)).abs();
        no_gradients;
    }
}

unary! {
    /// Whether `x = val`.
    fn equal_scalar(val) = EqualScalar as "EqualScalar" {
        example([1.0, 2.0], 1.0) = [1.0, 0.0];
        value(x) = x.indicator(x.equals(&x.constant(val)));
        no_gradient;
    }

    /// Whether `x ≠ val`.
    fn not_equal_scalar(val) = NotEqualScalar as "NotEqualScalar" {
        example([1.0, 2.0], 1.0) = [0.0, 1.0];
        value(x) = x.indicator(x.equals(&x.constant(val))).complement();
        no_gradient;
    }

    /// Whether `x > val`.
    fn greater_scalar(val) = GreaterScalar as "GreaterScalar" {
        example([1.0, 2.0], 1.0) = [0.0, 1.0];
        value(x) = x.indicator(x.above(val));
        no_gradient;
    }

    /// Whether `x ≥ val`.
    fn greater_equal_scalar(val) = GreaterEqualScalar as "GreaterEqualScalar" {
        example([1.0, 0.0], 1.0) = [1.0, 0.0];
        value(x) = x.indicator(x.at_least(val));
        no_gradient;
    }

    /// Whether `x < val`.
    fn less_scalar(val) = LessScalar as "LessScalar" {
        example([1.0, 0.0], 1.0) = [0.0, 1.0];
        value(x) = x.indicator(x.below(val));
        no_gradient;
    }

    /// Whether `x ≤ val`.
    fn less_equal_scalar(val) = LessEqualScalar as "LessEqualScalar" {
        example([1.0, 2.0], 1.0) = [1.0, 0.0];
        value(x) = x.indicator(x.at_most(val));
        no_gradient;
    }

    /// Whether `x` is not true.
    fn logical_not() = LogicalNot as "LogicalNot" {
        example([1.0, 0.0]) = [0.0, 1.0];
        value(x) = truth(&x).complement();
        no_gradient;
    }

    /// Whether `x` is not a number.
    fn isnan() = IsNaN as "IsNaN" {
        example([f64::NAN, f64::INFINITY]) = [1.0, 0.0];
        value(x) = x.indicator(x.equals(&x)).complement();
        no_gradient;
    }

    /// Whether `x` is infinite.
    fn isinf() = IsInf as "IsInf" {
        example([f64::NAN, f64::INFINITY]) = [0.0, 1.0];
        value(x) = x.indicator(is_infinite(&x));
        no_gradient;
    }

    /// Replaces each NaN by `val`, where the gradient is 0.
    fn reset_nan(val) = ResetNaN as "ResetNaN" {
        example([f64::NAN, 2.0], 1.0) = [1.0, 2.0];
        value(x) = V::select(x.equals(&x), || x.clone(), || x.constant(val));
        gradient_from_element(x, dy) = V::select(x.equals(&x), || dy.clone(), || dy.constant(0.0));
    }

    /// Replaces each infinite element by `val`, where the gradient is 0.
    fn reset_inf(val) = ResetInf as "ResetInf" {
        example([f64::INFINITY, 2.0], 1.0) = [1.0, 2.0];
        value(x) = V::select(is_infinite(&x), || x.constant(val), || x.clone());
        gradient_from_element(x, dy) = V::select(is_infinite(&x), || dy.constant(0.0), || dy.clone());
    }
}

/// 0 or 1.
#[inline(always)]
fn truth<V: Number>(x: &V) -> V {
    x.indicator(x.equals(&x.constant(0.0))).complement()
}

#[inline(always)]
fn is_infinite<V: Number>(x: &V) -> V::Mask {
    let size = x.clone().abs();
    size.equals(&x.constant(f64::INFINITY))
}

#[derive(Clone, Copy)]
struct Where;

impl Pointwise<3> for Where {
    const NAME: &'static str = "where_cond";

    #[inline(always)]
    fn value<V: Number>(self, [condition, yes, no]: [V; 3]) -> V {
        let is_false = condition.equals(&condition.constant(0.0));
        V::select(is_false, || no, || yes)
    }

    #[inline(always)]
    fn gradient<V: Number>(self, index: usize, dy: V, [condition, ..]: [V; 3]) -> V {
        let is_false = condition.equals(&condition.constant(0.0));
        let zero = dy.constant(0.0);
        match index {
            1 => V::select(is_false, || zero, || dy),
            2 => V::select(is_false, || dy, || zero),
            _ => zero,
        }
    }
}

/// `x_true` where the condition is not 0, else `x_false`. NNabla calls it `where`, which is a keyword in Rust.
///
/// The condition gets no gradient.
///
/// # Shapes
/// - `condition`: the shape of the others or its first axes, of any numeric type
/// - `x_true`, `x_false`: any shape, both the same
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes do not fit.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let condition = Tensor::new(&[0u8, 1], &Device::Cpu)?;
/// let y = layerfn::functions::where_cond(&condition, &x, &x.neg()?)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[-1., -2.], [3., 4.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn where_cond(condition: &Tensor, x_true: &Tensor, x_false: &Tensor) -> Result<Tensor> {
    told(
        || Form::new("Where", &[condition, x_true, x_false]),
        || {
            let dims = x_true.dims();
            if x_false.dims() != dims {
                return Err(Error::invalid(
                    "x_false",
                    format!("must have the shape {dims:?} of `x_true`"),
                    x_false.dims(),
                ));
            }
            if !dims.starts_with(condition.dims()) {
                let reason = format!("must have the shape {dims:?} of `x_true` or its first axes");
                return Err(Error::invalid("condition", reason, condition.dims()));
            }
            check::input("x_true", x_true)?;
            check::tensor("condition", condition.dims(), DType::F64)?;
            let mut own = condition.dims().to_vec();
            own.resize(dims.len(), 1);
            let condition = condition.detach().ne(0.0)?.to_dtype(x_true.dtype())?.reshape(own)?;
            apply(Where, [&condition, x_true, x_false])
        },
    )
}
