//! The network `net` of the file `lstm_unrolled.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 4, 5] |
//! | `h0` | [-1, 6] |
//! | `c0` | [-1, 6] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("lstm_unrolled.nnp")?;
//! let y = net(&x, &h0, &c0)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`, `cell`.
    pub fn net() -> Result<(Tensor, Tensor)> |x, h0, c0|
    < functions::split(1) as split_out -> use(&split_out[0]) -> concat(1) { _, use(h0) }
   -> shared encoder: { shared lstm: affine((4, 6)) } -> functions::split(1) as split_out_4
   -> use(&split_out_4[3]) -> tanh as tanh_out -> use(&split_out_4[0]) -> sigmoid
   -> mul { _, use(tanh_out) } as mul2_out_1 -> use(&split_out_4[2]) -> sigmoid -> mul { _, use(c0) }
   -> add { _, use(mul2_out_1) } as add2_out -> tanh as tanh_out_1 -> use(&split_out_4[1]) -> sigmoid
   -> mul { _, use(tanh_out_1) } as mul2_out_2 -> use(&split_out[1]) -> concat(1) { _, use(mul2_out_2) }
   -> shared encoder: { shared lstm: affine((4, 6)) } -> functions::split(1) as split_out_8
   -> use(&split_out_8[3]) -> tanh as tanh_out_2 -> use(&split_out_8[0]) -> sigmoid
   -> mul { _, use(tanh_out_2) } as mul2_out_4 -> use(&split_out_8[2]) -> sigmoid
   -> mul { _, use(add2_out) } -> add { _, use(mul2_out_4) } as add2_out_1 -> tanh as tanh_out_3
   -> use(&split_out_8[1]) -> sigmoid -> mul { _, use(tanh_out_3) } as mul2_out_5 -> use(&split_out[2])
   -> concat(1) { _, use(mul2_out_5) } -> shared encoder: { shared lstm: affine((4, 6)) }
   -> functions::split(1) as split_out_12 -> use(&split_out_12[3]) -> tanh as tanh_out_4
   -> use(&split_out_12[0]) -> sigmoid -> mul { _, use(tanh_out_4) } as mul2_out_7 -> use(&split_out_12[2])
   -> sigmoid -> mul { _, use(add2_out_1) } -> add { _, use(mul2_out_7) } as add2_out_2
   -> tanh as tanh_out_5 -> use(&split_out_12[1]) -> sigmoid -> mul { _, use(tanh_out_5) } as mul2_out_8
   -> use(&split_out[3]) -> concat(1) { _, use(mul2_out_8) }
   -> shared encoder: { shared lstm: affine((4, 6)) } -> functions::split(1) as split_out_16
   -> use(&split_out_16[3]) -> tanh as tanh_out_6 -> use(&split_out_16[0]) -> sigmoid
   -> mul { _, use(tanh_out_6) } as mul2_out_10 -> use(&split_out_16[2]) -> sigmoid
   -> mul { _, use(add2_out_2) } -> add { _, use(mul2_out_10) } as add2_out_3 -> tanh as tanh_out_7
   -> use(&split_out_16[1]) -> sigmoid -> mul { _, use(tanh_out_7) } -> head: affine(2) as y
   -> use((y, add2_out_3)) >
}
