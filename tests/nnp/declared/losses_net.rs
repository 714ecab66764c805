//! The network `net` of the file `losses.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 6] |
//! | `label` | [-1, 1], integers |
//! | `flag` | [-1, 4] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("losses.nnp")?;
//! let y = net(&x, &label, &flag)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives, in this order:
    ///
    /// - `softmax_cross_entropy`
    /// - `categorical_cross_entropy`
    /// - `sigmoid_cross_entropy`
    /// - `binary_cross_entropy`
    /// - `squared_error`
    /// - `absolute_error`
    /// - `huber_loss`
    /// - `epsilon_insensitive_loss`
    /// - `kl_multinomial`
    /// - `top_n_error`
    /// - `one_hot`
    /// - `mean`
    pub fn net() -> Result<Vec<Tensor>> |x, label, flag|
    < fc: affine(4) as affine_out -> softmax_cross_entropy(label, 1) as softmax_cross_entropy_out
   -> use(affine_out) -> softmax(1) as softmax_out
   -> functions::categorical_cross_entropy(label, 1) as categorical_cross_entropy -> use(affine_out)
   -> sigmoid_cross_entropy(flag) as sigmoid_cross_entropy_out -> use(affine_out) -> sigmoid
   -> functions::binary_cross_entropy(flag) as binary_cross_entropy -> use(affine_out)
   -> squared_error(softmax_out) as squared_error_out -> use(affine_out)
   -> functions::absolute_error(softmax_out) as absolute_error -> use(affine_out)
   -> functions::huber_loss(softmax_out, 0.5) as huber_loss -> use(affine_out)
   -> functions::epsilon_insensitive_loss(softmax_out, 0.25) as epsilon_insensitive_loss -> use(affine_out)
   -> sigmoid as sigmoid_out_1 -> use(softmax_out)
   -> functions::kl_multinomial(sigmoid_out_1, 1) as kl_multinomial -> use(affine_out)
   -> functions::top_n_error(label, 1, 2) as top_n_error -> use(label) -> functions::one_hot(4) as one_hot
   -> use(affine_out) -> softmax_cross_entropy(label, 1) -> functions::mean([0, 1], false) as mean
   -> (|_: &Tensor| Ok::<_, Error>(vec![
       Tensor::clone(softmax_cross_entropy_out), Tensor::clone(categorical_cross_entropy),
       Tensor::clone(sigmoid_cross_entropy_out), Tensor::clone(binary_cross_entropy),
       Tensor::clone(squared_error_out), Tensor::clone(absolute_error), Tensor::clone(huber_loss),
       Tensor::clone(epsilon_insensitive_loss), Tensor::clone(kl_multinomial), Tensor::clone(top_n_error),
       Tensor::clone(one_hot), Tensor::clone(mean)
   ])) >
}
