//! The network `net` of the file `shapes.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [2, 3, 4, 6] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("shapes.nnp")?;
//! let y = net(&x)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`, `z`.
    pub fn net() -> Result<(Tensor, Tensor)> |x|
    < pad((1, 1, 2, 0), mode = functions::PadMode::Reflect)
   -> interpolate(output_size = (5, 9), half_pixel = true)
   -> functions::slice(
       &[Some(0), Some(0), Some(1), Some(0)], &[Some(2), Some(3), Some(5), Some(9)], &[1, 1, 1, 2]
   )
   -> functions::split(1) as split_out -> use(x) -> functions::mean([2, 3], false)
   -> functions::reshape(&[2, 3, 1]) -> functions::broadcast((2, 3, 40)) as broadcast_out
   -> use(&split_out[2]) -> (|h: &Tensor| functions::stack(&[h, &split_out[0], &split_out[1]], 2))
   -> functions::transpose([0, 2, 1, 3]) -> concat(3) { _, functions::flip(3) }
   -> functions::reshape(&[2, 3, 40]) -> add { _, use(broadcast_out) } -> functions::sum(2, true)
   -> functions::tile((1, 1, 4)) -> pad((1, 2), constant_value = 0.5)
   -> interpolate(output_size = 14, mode = functions::InterpolationMode::Nearest)
   -> functions::shift(&[3], functions::BorderMode::Nearest) as y -> use(x) -> unpooling((2, 1)) as z
   -> use((y, z)) >
}
