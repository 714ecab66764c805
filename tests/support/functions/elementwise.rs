//! Functions of each element, softmax and losses.

use layerfn::functions as f;

use super::Axis;

functions! {
    relu(x) => f::relu(&x);
    leaky_relu(x; alpha: f64 = 0.1) => f::leaky_relu(&x, alpha);
    elu(x; alpha: f64 = 1.0) => f::elu(&x, alpha);
    gelu(x) => f::gelu(&x);
    swish(x) => f::silu(&x);
    sigmoid(x) => f::sigmoid(&x);
    hard_sigmoid(x) => f::hard_sigmoid(&x);
    tanh(x) => f::tanh(&x);
    softmax(x; axis: Axis = Axis(-1)) => f::softmax(&x, axis);
    log_softmax(x; axis: Axis = Axis(-1)) => f::log_softmax(&x, axis);
    softmax_cross_entropy(x, target; axis: Axis = Axis(-1)) => f::softmax_cross_entropy(&x, &target, axis);
}
