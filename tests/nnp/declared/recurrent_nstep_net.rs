//! The network `net` of the file `recurrent_nstep.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [2, 5, 3] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("recurrent_nstep.nnp")?;
//! let y = net(&x)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives, in this order:
    ///
    /// - `@net/GRU_out_1`
    /// - `@net/RNN_out_1`
    /// - `@net/LSTM_out_1`
    /// - `y`
    /// - `c`
    pub fn net() -> Result<Vec<Tensor>> |x|
    < functions::transpose([1, 0, 2])
   -> (|h: &Tensor| functions::gru(
       h, &functions::constant(0.0, (2, 1, 2, 4), x.device())?,
       &parameter("layer1/gru/weight_l0", &[1, 3, 4, 7])?,
       Some(&parameter("layer1/gru/weight", &[1, 1, 3, 4, 8])?),
       Some(&parameter("layer1/gru/bias", &[2, 1, 4, 4])?), 0.0, &ParameterStore::current().rng()
   )) as gru_out
   -> use(&gru_out.0)
   -> (|h: &Tensor| functions::rnn(
       h, &functions::constant(0.0, (1, 2, 2, 3), x.device())?,
       &parameter("layer2/rnn/weight_l0", &[2, 3, 7])?, None,
       Some(&parameter("layer2/rnn/bias", &[1, 2, 3])?), functions::Nonlinearity::Relu, 0.0,
       &ParameterStore::current().rng()
   )) as rnn_out
   -> use(&rnn_out.0)
   -> (|h: &Tensor| functions::lstm(
       h, &functions::constant(0.0, (1, 1, 2, 4), x.device())?,
       &functions::constant(0.5, (1, 1, 2, 4), x.device())?,
       &parameter("layer3/lstm/weight_l0", &[1, 4, 4, 10])?, None,
       Some(&parameter("layer3/lstm/bias", &[1, 1, 4, 4])?), 0.0, &ParameterStore::current().rng()
   )) as lstm_out
   -> use(&lstm_out.0)
   -> functions::slice(&[Some(4), Some(0), Some(0)], &[Some(5), Some(2), Some(4)], &[1, 1, 1])
   -> functions::reshape(&[2, 4]) -> affine(2) as y
   -> (|_: &Tensor| Ok::<_, Error>(vec![
       Tensor::clone(&gru_out.1), Tensor::clone(&rnn_out.1), Tensor::clone(&lstm_out.1), Tensor::clone(y),
       Tensor::clone(&lstm_out.2)
   ])) >
}

/// A parameter of a function that is not a layer.
fn parameter(path: &str, shape: &[usize]) -> Result<Tensor> {
    let is_trained = layerfn::get_parameter(path).is_none_or(|parameter| parameter.need_grad());
    layerfn::get_parameter_or_create(path).shape(shape).need_grad(is_trained).call()
}
