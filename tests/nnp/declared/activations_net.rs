//! The network `net` of the file `activations.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 5] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("activations.nnp")?;
//! let y = net(&x)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn net() |x|
    < concat(1) {
       elu(1.0),
       functions::selu_with(1.05070098735548, 1.673263242354377),
       gelu,
       functions::mish,
       silu,
       functions::softplus_with(1.0),
       functions::softsign,
       leaky_relu(0.1),
       hard_sigmoid,
       functions::hard_tanh,
       functions::log_sigmoid,
       functions::relu6,
       functions::crelu(1),
       functions::celu(1.0, 1),
       functions::tanh_shrink,
       functions::sinc,
       functions::abs,
       functions::exp,
       sigmoid,
       tanh,
       one: prelu,
       each: prelu(shared = false),
       elu(0.5),
       functions::softplus_with(2.0),
       leaky_relu(0.3),
       functions::maximum_scalar(-0.5) -> functions::minimum_scalar(0.5),
   }
   -> affine(3) >
}
