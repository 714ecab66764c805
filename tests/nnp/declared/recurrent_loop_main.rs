//! The network `Main` of the file `recurrent_loop.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `Input` | [-1, 5, 3] |
//! | `Delay_Initial` | [-1, 4] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("recurrent_loop.nnp")?;
//! let y = main_network(&input, &delay_initial)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `Last`.
    pub fn main_network() |input, delay_initial|
    < functions::split(1) as steps_steps_0 -> use(&steps_steps_0[0]) -> concat(1) { _, use(delay_initial) }
   -> shared cell: affine(4) -> tanh as tanh_steps_0 -> use(&steps_steps_0[1])
   -> concat(1) { _, use(tanh_steps_0) } -> shared cell: affine(4) -> tanh as tanh_steps_1
   -> use(&steps_steps_0[2]) -> concat(1) { _, use(tanh_steps_1) } -> shared cell: affine(4)
   -> tanh as tanh_steps_2 -> use(&steps_steps_0[3]) -> concat(1) { _, use(tanh_steps_2) }
   -> shared cell: affine(4) -> tanh as tanh_steps_3 -> use(&steps_steps_0[4])
   -> concat(1) { _, use(tanh_steps_3) } -> shared cell: affine(4) -> tanh as tanh_steps_4
   -> use(tanh_steps_0)
   -> (|h: &Tensor| functions::stack(&[h, tanh_steps_1, tanh_steps_2, tanh_steps_3, tanh_steps_4], 1))
   -> functions::slice(&[Some(4), Some(0)], &[Some(5), Some(4)], &[1, 1]) >
}
