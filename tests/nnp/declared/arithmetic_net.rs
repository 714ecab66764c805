//! The network `net` of the file `arithmetic.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 4] |
//! | `z` | [-1, 4] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("arithmetic.nnp")?;
//! let y = net(&x, &z)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `parts`, `sums`.
    pub fn net() -> Result<(Tensor, Tensor)> |x, z|
    < affine(4) as affine_out -> use(z) -> (|h: &Tensor| functions::mul2(h, h))
   -> functions::add_scalar(1.0) as add_scalar_out -> use(affine_out)
   -> concat(1) {
       add { _, use(z) },
       functions::sub2(z),
       mul { _, use(z) },
       functions::div2(add_scalar_out),
       (|h: &Tensor| functions::mul2(h, h)) -> functions::add_scalar(0.5) -> functions::pow2(z),
       functions::add_scalar(1.5),
       functions::r_sub_scalar(2.0),
       functions::mul_scalar(3.0),
       (|h: &Tensor| functions::mul2(h, h)) -> functions::add_scalar(1.0) -> functions::r_div_scalar(1.0),
       functions::r_pow_scalar(2.0),
       (|h: &Tensor| functions::mul2(h, h)) -> functions::add_scalar(0.25) -> functions::pow_scalar(0.5),
       functions::maximum2(z),
       functions::minimum2(z),
       functions::maximum_scalar(0.1),
       functions::minimum_scalar(0.1),
       (|h: &Tensor| functions::mul2(h, h)) -> functions::add_scalar(1.0) -> functions::log,
       functions::sin,
       functions::cos,
       functions::round,
       functions::floor,
       functions::ceil,
       functions::sign(1.0),
       functions::greater(z) -> functions::where_cond(affine_out, z),
       functions::greater_scalar(0.0),
       functions::cumsum(1, false, false),
       functions::sort(1, false),
   } as parts
   -> use(affine_out)
   -> concat(1) {
       functions::sum(1, true),
       functions::mean(1, true),
       functions::max(1, true),
       functions::min(1, true),
       functions::prod(1, true),
       functions::norm(2.0, 1, true),
   } as sums
   -> use((parts, sums)) >
}
