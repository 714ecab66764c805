//! The network `net` of the file `binary.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 2, 5, 5] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("binary.nnp")?;
//! let y = net(&x)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn net() |x|
    < bc: binary_connect_convolution(4, (3, 3)) -> bn: bn(batch_stat = false) -> functions::hard_tanh
   -> bw: binary_weight_convolution(3, (2, 2)) -> elu(1.0)
   -> inq: inq_affine(
       4, num_bits = 3, inq_iterations = [5],
       selection_algorithm = functions::SelectionAlgorithm::LargestAbs
   )
   -> binary_connect_affine(2, quantize_zero_to = 0.0) >
}
