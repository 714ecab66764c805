//! Arithmetic of two tensors, and of a tensor and a number.

use candle_core::Tensor;

use super::node::{in_type, widened_list};
use super::pointwise::{Pointwise, Slope, apply, binary, unary};
use crate::number::Number;
use crate::told::{Form, told};
use crate::{Error, Result, check};

binary! {
    /// `x0 + x1`.
    fn add2() = Add2 as "Add2" {
        example([1.0, 2.0], [3.0, 4.0]) = [4.0, 6.0];
        value(a, b) = a + b;
        gradients_pass;
    }

    /// `x0 − x1`.
    fn sub2() = Sub2 as "Sub2" {
        example([1.0, 2.0], [3.0, 3.0]) = [-2.0, -1.0];
        value(a, b) = a - b;
        constant_gradients(dy) = [dy, dy.negative()];
    }

    /// `x0 · x1`.
    fn mul2() = Mul2 as "Mul2" {
        example([1.0, 2.0], [3.0, 4.0]) = [3.0, 8.0];
        value(a, b) = a * b;
        gradients(a, b, dy) = [dy * b, dy * a];
    }

    /// `x0 / x1`.
    fn div2() = Div2 as "Div2" {
        example([1.0, 2.0], [4.0, 4.0]) = [0.25, 0.5];
        value(a, b) = a / b;
        gradients(a, b, dy) = [dy / b, (dy * (a / b.clone()) / b).negative()];
    }

    /// `x0^x1`. Where `x0` is 0 or `x1` is 0, the gradients are the limits of those nearby, if these exist.
    fn pow2() = PowerOfTwo as "Pow2" {
        example([2.0, -2.0], [3.0, 3.0]) = [8.0, -8.0];
        value(a, b) = a.pow(b);
        gradients(a, b, dy) = [
            {
                let is_zero = b.equals(&b.constant(0.0));
                let slope = b.clone() * a.pow(b.clone().offset(-1.0));
                let zero = dy.constant(0.0);
                V::select(is_zero, || zero, || dy * slope)
            },
            {
                let y = a.clone().pow(b);
                let is_zero = y.equals(&y.constant(0.0));
                let zero = dy.constant(0.0);
                V::select(is_zero, || zero, || dy * y * a.ln())
            }
        ];
    }

    /// The larger of the two. If they are equal, `x1` gets the gradient.
    fn maximum2() = Maximum2 as "Maximum2" {
        example([1.0, 5.0], [3.0, 4.0]) = [3.0, 5.0];
        value(a, b) = V::select(a.exceeds(&b), || a.clone(), || b.clone());
        gradients(a, b, dy) = [
            V::select(a.exceeds(&b), || dy.clone(), || dy.constant(0.0)),
            V::select(a.exceeds(&b), || dy.constant(0.0), || dy.clone())
        ];
    }

    /// The smaller of the two. If they are equal, `x1` gets the gradient.
    fn minimum2() = Minimum2 as "Minimum2" {
        example([1.0, 5.0], [3.0, 4.0]) = [1.0, 4.0];
        value(a, b) = V::select(b.exceeds(&a), || a.clone(), || b.clone());
        gradients(a, b, dy) = [
            V::select(b.exceeds(&a), || dy.clone(), || dy.constant(0.0)),
            V::select(b.exceeds(&a), || dy.constant(0.0), || dy.clone())
        ];
    }

    /// The angle of the point with the coordinates `x1` and `x0`, in (−π, π]: the arc tangent of `x0 / x1`, in
    /// the quadrant of the point.
    fn atan2() = Atan2 as "ATan2" {
        example([0.0, 1.0], [-1.0, 0.0]) = [std::f64::consts::PI, std::f64::consts::FRAC_PI_2];
        value(y, x) = {
            let angle = (y.clone() / x.clone()).atan();
            let half_turn = V::select(
                y.below(0.0),
                || y.constant(-std::f64::consts::PI),
                || y.constant(std::f64::consts::PI),
            );
            let turned = V::select(x.below(0.0), || angle.clone() + half_turn, || angle.clone());
            let is_origin = (y.clone().abs() + x.clone().abs()).at_most(0.0);
            V::select(is_origin, || y.constant(0.0), || turned)
        };
        gradients(y, x, dy) = [
            dy * x.clone() / (y.clone() * y + x.clone() * x),
            (dy * y.clone() / (y.clone() * y + x.clone() * x)).negative()
        ];
    }
}

unary! {
    /// `x + val`.
    fn add_scalar(val) = AddScalar as "AddScalar" {
        example([1.0, 2.0], 0.5) = [1.5, 2.5];
        value(x) = x.offset(val);
        gradient_passes;
    }

    /// `x · val`.
    fn mul_scalar(val) = MulScalar as "MulScalar" {
        example([1.0, 2.0], 0.5) = [0.5, 1.0];
        value(x) = x.scale(val);
        constant_gradient(dy) = dy.scale(val);
    }

    /// `x^val`.
    fn pow_scalar(val) = PowScalar as "PowScalar" {
        example([1.0, 2.0], 3.0) = [1.0, 8.0];
        value(x) = x.powf(val);
        gradient_from_element(x, dy) = match val {
            0.0 => dy.constant(0.0), // at 0 as well
            _ => dy.scale(val) * x.powf(val - 1.0),
        };
    }

    /// `val − x`.
    fn r_sub_scalar(val) = RSubScalar as "RSubScalar" {
        example([1.0, 2.0], 3.0) = [2.0, 1.0];
        value(x) = x.negative().offset(val);
        constant_gradient(dy) = dy.negative();
    }

    /// `val / x`.
    fn r_div_scalar(val) = RDivScalar as "RDivScalar" {
        example([1.0, 4.0], 2.0) = [2.0, 0.5];
        value(x) = x.constant(val) / x;
        gradient_from_element(x, dy) = dy.scale(-val) / (x.clone() * x);
    }

    /// `val^x`.
    fn r_pow_scalar(val) = RPowScalar as "RPowScalar" {
        example([1.0, 3.0], 2.0) = [2.0, 8.0];
        value(x) = x.constant(val).pow(x);
        gradient_from_value(y, dy) = match val {
            0.0 => dy.constant(0.0),
            _ => dy * y.scale(val.ln()),
        };
    }

    /// The larger of `x` and `val`; where the two are equal, the gradient is 0.
    fn maximum_scalar(val) = MaximumScalar as "MaximumScalar" {
        example([1.0, 3.0], 2.0) = [2.0, 3.0];
        value(x) = {
            let limit = x.constant(val);
            V::select(x.at_most(val), || limit, || x.clone()) // NaN stays
        };
        gradient_from_element(x, dy) = V::select(x.at_most(val), || dy.constant(0.0), || dy.clone());
    }

    /// The smaller of `x` and `val`; where the two are equal, the gradient is 0.
    fn minimum_scalar(val) = MinimumScalar as "MinimumScalar" {
        example([1.0, 3.0], 2.0) = [1.0, 2.0];
        value(x) = {
            let limit = x.constant(val);
            V::select(x.at_least(val), || limit, || x.clone())
        };
        gradient_from_element(x, dy) = V::select(x.at_least(val), || dy.constant(0.0), || dy.clone());
    }
}

/// The sum of any number of tensors of the same shape.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no tensor, or the shapes or types differ.
///
/// # Source
/// NNabla `F.add_n`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::add_n(&[&x, &x, &x])?.to_vec1::<f32>()?, [3., 6.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn add_n(inputs: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = inputs.first() else {
        return Err(Error::invalid("inputs", "must be at least one tensor", 0));
    };
    if let Some(other) = inputs.iter().find(|other| other.dims() != first.dims()) {
        let reason = format!("must have the shape {:?} of the first", first.dims());
        return Err(Error::invalid("inputs", reason, other.dims()));
    }
    inputs.iter().try_for_each(|inp| check::input("inputs", inp))?;
    told(
        || Form::new("AddN", inputs),
        || {
            // The half precisions are rounded once, at the end.
            let wide = widened_list("add_n", inputs)?;
            let sum = wide[1..].iter().try_fold(Tensor::clone(&wide[0]), |sum, x| add2(&sum, x))?;
            in_type(sum, first.dtype())
        },
    )
}
