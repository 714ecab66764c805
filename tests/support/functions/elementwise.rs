//! Functions of each element, softmax and losses.

use candle_core::{DType, Tensor};
use layerfn::functions::{self as f, FixedPoint, Pow2, Prune, Transform};

use super::Axis;
use super::shapes::AxisList;

functions! {
    relu(x) => f::relu(&x);
    leaky_relu(x; alpha: f64 = 0.1) => f::leaky_relu(&x, alpha);
    relu6(x) => f::relu6(&x);
    elu(x; alpha: f64 = 1.0) => f::elu(&x, alpha);
    selu(x; scale: f64 = 1.05070098735548, alpha: f64 = 1.673263242354377) => f::selu_with(&x, scale, alpha);
    prelu(x0, x1; base_axis: usize = 1) => f::prelu(&x0, &x1, base_axis);
    gelu(x) => f::gelu(&x);
    crelu(x; axis: i64 = 1) => f::crelu(&x, axis);
    celu(x; alpha: f64 = 1.0, axis: i64 = 1) => f::celu(&x, alpha, axis);
    mish(x) => f::mish(&x);
    swish(x) => f::silu(&x);
    softplus(x; beta: f64 = 1.0) => f::softplus_with(&x, beta);
    softsign(x) => f::softsign(&x);
    sigmoid(x) => f::sigmoid(&x);
    log_sigmoid(x) => f::log_sigmoid(&x);
    hard_sigmoid(x) => f::hard_sigmoid(&x);
    binary_sigmoid(x) => f::binary_sigmoid(&x);
    tanh(x) => f::tanh(&x);
    tanh_shrink(x) => f::tanh_shrink(&x);
    hard_tanh(x) => f::hard_tanh(&x);
    binary_tanh(x) => f::binary_tanh(&x);
    dropout(x; p: f64 = 0.5) => layerfn::dropout(&x).p(p).call();
    softmax(x; axis: Axis = Axis(-1)) => f::softmax(&x, axis);
    log_softmax(x; axis: Axis = Axis(-1)) => f::log_softmax(&x, axis);

    identity(x) => f::identity(&x);
    abs(x) => f::abs(&x);
    exp(x) => f::exp(&x);
    log(x) => f::log(&x);
    sin(x) => f::sin(&x);
    cos(x) => f::cos(&x);
    tan(x) => f::tan(&x);
    sinc(x) => f::sinc(&x);
    asin(x) => f::asin(&x);
    acos(x) => f::acos(&x);
    atan(x) => f::atan(&x);
    sinh(x) => f::sinh(&x);
    cosh(x) => f::cosh(&x);
    asinh(x) => f::asinh(&x);
    acosh(x) => f::acosh(&x);
    atanh(x) => f::atanh(&x);
    erf(x) => f::erf(&x);
    round(x) => f::round(&x);
    ceil(x) => f::ceil(&x);
    floor(x) => f::floor(&x);
    sign(x; alpha: f64 = 1.0) => f::sign(&x, alpha);

    add2(x0, x1) => f::add2(&x0, &x1);
    add_n({inputs}) => f::add_n(&inputs.iter().collect::<Vec<_>>());
    sub2(x0, x1) => f::sub2(&x0, &x1);
    mul2(x0, x1) => f::mul2(&x0, &x1);
    div2(x0, x1) => f::div2(&x0, &x1);
    pow2(x0, x1) => f::pow2(&x0, &x1);
    atan2(x0, x1) => f::atan2(&x0, &x1);
    maximum2(x0, x1) => f::maximum2(&x0, &x1);
    minimum2(x0, x1) => f::minimum2(&x0, &x1);
    add_scalar(x; val: f64 = 1.0) => f::add_scalar(&x, val);
    mul_scalar(x; val: f64 = 1.0) => f::mul_scalar(&x, val);
    pow_scalar(x; val: f64 = 1.0) => f::pow_scalar(&x, val);
    r_sub_scalar(x; val: f64 = 1.0) => f::r_sub_scalar(&x, val);
    r_div_scalar(x; val: f64 = 1.0) => f::r_div_scalar(&x, val);
    r_pow_scalar(x; val: f64 = 1.0) => f::r_pow_scalar(&x, val);
    maximum_scalar(x; val: f64 = 1.0) => f::maximum_scalar(&x, val);
    minimum_scalar(x; val: f64 = 1.0) => f::minimum_scalar(&x, val);

    equal(x0, x1) => f::equal(&x0, &x1);
    not_equal(x0, x1) => f::not_equal(&x0, &x1);
    greater(x0, x1) => f::greater(&x0, &x1);
    greater_equal(x0, x1) => f::greater_equal(&x0, &x1);
    less(x0, x1) => f::less(&x0, &x1);
    less_equal(x0, x1) => f::less_equal(&x0, &x1);
    logical_and(x0, x1) => f::logical_and(&x0, &x1);
    logical_or(x0, x1) => f::logical_or(&x0, &x1);
    logical_xor(x0, x1) => f::logical_xor(&x0, &x1);
    equal_scalar(x0; val: f64 = 1.0) => f::equal_scalar(&x0, val);
    not_equal_scalar(x0; val: f64 = 1.0) => f::not_equal_scalar(&x0, val);
    greater_scalar(x0; val: f64 = 1.0) => f::greater_scalar(&x0, val);
    greater_equal_scalar(x0; val: f64 = 1.0) => f::greater_equal_scalar(&x0, val);
    less_scalar(x0; val: f64 = 1.0) => f::less_scalar(&x0, val);
    less_equal_scalar(x0; val: f64 = 1.0) => f::less_equal_scalar(&x0, val);
    logical_not(x0) => f::logical_not(&x0);
    isnan(x0) => f::isnan(&x0);
    isinf(x0) => f::isinf(&x0);
    reset_nan(x0; val: f64 = 0.0) => f::reset_nan(&x0, val);
    reset_inf(x0; val: f64 = 0.0) => f::reset_inf(&x0, val);
    where(condition, x_true, x_false) => f::where_cond(&condition, &x_true, &x_false);

    clip_by_value(x, (min), (max)) => f::clip_by_value(&x, min, max);
    clip_grad_by_value(x, (min), (max)) => f::clip_grad_by_value(&x, min, max);

    clip_by_norm(x; clip_norm: f64, axis: AxisList = AxisList::all()) => f::clip_by_norm(&x, clip_norm, axis.0);
    clip_grad_by_norm(x; clip_norm: f64, axes: AxisList = AxisList::all()) =>
        f::clip_grad_by_norm(&x, clip_norm, axes.0);

    fixed_point_quantize(x; sign: bool = true, n: usize = 8, delta: f64 = 0.0625, ste_fine_grained: bool = true) =>
        FixedPoint { sign, n, delta, ste_fine_grained }.checked().and_then(|quantizer| quantizer.apply(&x));
    pow2_quantize(
        x; sign: bool = true, with_zero: bool = true, n: usize = 8, m: i32 = 1, ste_fine_grained: bool = true
    ) => Pow2 { sign, with_zero, n, m, ste_fine_grained }.checked().and_then(|quantizer| quantizer.apply(&x));
    prune(x; rate: f64 = 0.9) => Prune { rate }.checked().and_then(|prune| prune.apply(&x));

    softmax_cross_entropy(x, target; axis: Axis = Axis(-1)) => f::softmax_cross_entropy(&x, &target, axis);
    categorical_cross_entropy(x, target; axis: Axis = Axis(-1)) =>
        f::categorical_cross_entropy(&x, &target, axis);
    kl_multinomial(p, q; base_axis: i64 = 1) => f::kl_multinomial(&p, &q, base_axis);
    sigmoid_cross_entropy(x, target) => labels(&target).and_then(|target| f::sigmoid_cross_entropy(&x, &target));
    binary_cross_entropy(x, target) => f::binary_cross_entropy(&x, &target);
    binary_error(x, target) => f::binary_error(&x, &target);
    squared_error(x0, x1) => f::squared_error(&x0, &x1);
    absolute_error(x0, x1) => f::absolute_error(&x0, &x1);
    huber_loss(x0, x1; delta: f64 = 1.0) => f::huber_loss(&x0, &x1, delta);
    epsilon_insensitive_loss(x0, x1; epsilon: f64) => f::epsilon_insensitive_loss(&x0, &x1, epsilon);
}

/// The integers that NNabla makes of a target that it reads as labels.
fn labels(target: &Tensor) -> layerfn::Result<Tensor> {
    Ok(target.to_dtype(DType::I64)?)
}
