//! Recurrent layers over whole sequences, and one step of a gated recurrent unit.

use candle_core::Tensor;

use crate::functions::{Layers, Nonlinearity};
use crate::options::weights;
use crate::{
    Error, Initializer, ParameterStore, Result, Rng, check, functions, is_training, option_group,
    parametric_function,
};

option_group! {
    /// Options of recurrent layers over sequences.
    sequence {
        /// Initializer of `weight_l0`; if absent, Glorot uniform, separately for the input and the state.
        #[opt(into)]
        w0_init: Option<Initializer>,
        /// Initializer of `weight`; that of `weight_l0` if absent.
        #[opt(into)]
        w_init: Option<Initializer>,
        /// Initializer of `bias`.
        #[opt(into, default = 0.0)]
        b_init: Initializer,
        /// Number of layers, which must be that of the states `h`.
        #[opt(default = h.dims().first().copied().unwrap_or_default())]
        num_layers: usize,
        /// Probability that an element between two layers is dropped, in [0, 1).
        #[opt(default = 0.0)]
        dropout: f64,
        /// Whether each layer also runs backwards.
        #[opt(default = false)]
        bidirectional: bool,
        /// Whether to apply dropout and to keep a graph for gradients; neither happens in test mode.
        #[opt(default = true)]
        training: bool,
        /// Generator that random weights and the dropout draw from; the parameter's own and the store's if absent.
        #[opt(into)]
        rng: Option<Rng>,
        /// Whether to add `bias`.
        #[opt(default = true)]
        with_bias: bool,
    }
}

/// Elman network over a sequence: several layers, one direction or both.
///
/// `h_t = f(W x_t + U h_(t−1) + b)`, where `f` is the hyperbolic tangent or ReLU. The outputs of a layer are
/// the inputs of the next; in training, elements between them are dropped with probability `dropout`. With two
/// directions, the second runs from the last step to the first, and the output of a step concatenates both.
/// Returns the outputs of the last layer, and the last `h` of every layer.
///
/// # Shapes
/// With `T` steps, `N` samples, `I` inputs, `L` layers, `D` directions and `H` units:
/// - `x`: `(T, N, I)`; `h`: `(L, D, N, H)`, which determines the number of layers and units
/// - results: `(T, N, D·H)` and `(L, D, N, H)`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `x` has no steps, if the shape of `h` does not
/// match `x`, `num_layers` and `bidirectional`, or if `dropout` is not in [0, 1).
///
/// # Source
/// NNabla `PF.rnn`; Elman, Finding Structure in Time, Cognitive Science 1990. NNabla's CPU implementation takes
/// `num_layers` from `h` and has no dropout.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::rnn;
///
/// let x = Tensor::zeros((7, 2, 3), DType::F32, &Device::Cpu)?;
/// let h = Tensor::zeros((2, 2, 2, 5), DType::F32, &Device::Cpu)?;
/// let (y, h) = rnn(&x, &h).bidirectional(true).dropout(0.2).call()?;
/// assert_eq!((y.dims(), h.dims()), (&[7, 2, 10][..], &[2, 2, 2, 5][..]));
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "rnn",
    options(sequence),
    family = Recurrent,
    multiply_adds = [rows, directions, state, widths],
    params(
        /// Weights of the first layer: those of the input, then those of the state.
        weight_l0: [directions, state, inmaps + state] =
            w0_init.unwrap_or_else(|| Initializer::glorot_recurrent(inmaps, state)).with_rng(&rng),
        /// Weights of the other layers.
        #[when(stacked)]
        weight: [upper, directions, state, outputs + state] =
            w_init.unwrap_or_else(|| Initializer::glorot_recurrent(outputs, state)).with_rng(&rng),
        /// Biases.
        #[when(with_bias)]
        bias: [layers, directions, state] = b_init,
    )
)]
pub fn rnn(
    /// Input.
    x: &Tensor,
    /// States before the first step.
    h: &Tensor,
    /// Function of the pre-activations.
    #[opt(default = Nonlinearity::Tanh)]
    nonlinearity: Nonlinearity,
) -> Result<(Tensor, Tensor)> {
    let call = Call { x, states: &[("h", h)], num_layers, dropout, bidirectional, training, rng: &rng };
    let Sizes { rows, layers, upper, stacked, directions, inmaps, state, outputs, widths } = call.sizes(1)?;
    let (w0, w, b) = (param!(weight_l0)?, param!(weight)?, param!(bias)?);
    let (dropout, generator) = call.dropping();
    let (y, h) = functions::rnn(x, h, &w0, w.as_ref(), b.as_ref(), nonlinearity, dropout, &generator)?;
    Ok(if call.is_training() { (y, h) } else { (y.detach(), h.detach()) })
}

/// Gated recurrent units (GRU) over a sequence: several layers, one direction or both.
///
/// `r = σ(W_r x + U_r h + b_0)`, `z = σ(W_z x + U_z h + b_1)`, `n = tanh(W_n x + b_2 + r·(U_n h + b_3))` and
/// `h' = (1 − z)·n + z·h`. Layers, directions, dropout and results are those of [`rnn`](fn@rnn). One step is
/// [`gru_cell`](fn@gru_cell).
///
/// # Shapes
/// As [`rnn`](fn@rnn).
///
/// # Errors
/// As [`rnn`](fn@rnn).
///
/// # Source
/// NNabla `PF.gru`; Cho et al., [Learning Phrase Representations using RNN
/// Encoder–Decoder](https://arxiv.org/abs/1406.1078). NNabla's CPU takes `num_layers` from `h` and drops nothing.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::gru;
///
/// let x = Tensor::zeros((7, 2, 3), DType::F32, &Device::Cpu)?;
/// let h = Tensor::zeros((1, 1, 2, 5), DType::F32, &Device::Cpu)?;
/// let (y, h) = gru(&x, &h).call()?;
/// assert_eq!((y.dims(), h.dims()), (&[7, 2, 5][..], &[1, 1, 2, 5][..]));
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "gru",
    options(sequence),
    family = Recurrent,
    multiply_adds = [rows, directions, 3, state, widths],
    params(
        /// Weights of the first layer for reset gate, update gate and candidate: those of the input, then those of the state.
        weight_l0: [directions, 3, state, inmaps + state] =
            w0_init.unwrap_or_else(|| Initializer::glorot_recurrent(inmaps, state)).with_rng(&rng),
        /// Weights of the other layers.
        #[when(stacked)]
        weight: [upper, directions, 3, state, outputs + state] =
            w_init.unwrap_or_else(|| Initializer::glorot_recurrent(outputs, state)).with_rng(&rng),
        /// Biases: reset gate, update gate, the candidate's input and the candidate's state.
        #[when(with_bias)]
        bias: [layers, directions, 4, state] = b_init,
    )
)]
pub fn gru(
    /// Input.
    x: &Tensor,
    /// States before the first step.
    h: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let call = Call { x, states: &[("h", h)], num_layers, dropout, bidirectional, training, rng: &rng };
    let Sizes { rows, layers, upper, stacked, directions, inmaps, state, outputs, widths } = call.sizes(4)?;
    let (w0, w, b) = (param!(weight_l0)?, param!(weight)?, param!(bias)?);
    let (dropout, generator) = call.dropping();
    let (y, h) = functions::gru(x, h, &w0, w.as_ref(), b.as_ref(), dropout, &generator)?;
    Ok(if call.is_training() { (y, h) } else { (y.detach(), h.detach()) })
}

/// Long short-term memory (LSTM) over a sequence: several layers, one direction or both.
///
/// With the pre-activations `[i, f, g, o] = W x + U h + b` of the input gate, the forget gate, the candidate and the output gate:
/// `c' = σ(f)·c + σ(i)·tanh(g)` and `h' = σ(o)·tanh(c')`. Layers, directions and dropout are those of [`rnn`](fn@rnn).
/// Returns the outputs of the last layer, and the last `h` and the last `c` of every layer. One step is [`lstm`](fn@crate::lstm), whose
/// gates are in another order.
///
/// # Shapes
/// As [`rnn`](fn@rnn); `c` and the third result are as `h`.
///
/// # Errors
/// As [`rnn`](fn@rnn).
///
/// # Source
/// NNabla `PF.lstm` today; Hochreiter & Schmidhuber, Long Short-Term Memory, Neural Computation 1997. NNabla's CPU takes
/// `num_layers` from `h` and drops nothing.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::lstm_n_step;
///
/// let x = Tensor::zeros((7, 2, 3), DType::F32, &Device::Cpu)?;
/// let h = Tensor::zeros((2, 1, 2, 5), DType::F32, &Device::Cpu)?;
/// let (y, h, c) = lstm_n_step(&x, &h, &h).call()?;
/// assert_eq!((y.dims(), h.dims(), c.dims()), (&[7, 2, 5][..], &[2, 1, 2, 5][..], &[2, 1, 2, 5][..]));
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "lstm",
    options(sequence),
    family = Recurrent,
    multiply_adds = [rows, directions, 4, state, widths],
    params(
        /// Weights of the first layer for input gate, forget gate, candidate and output gate: those of the input, then those of
        /// the state.
        weight_l0: [directions, 4, state, inmaps + state] =
            w0_init.unwrap_or_else(|| Initializer::glorot_recurrent(inmaps, state)).with_rng(&rng),
        /// Weights of the other layers.
        #[when(stacked)]
        weight: [upper, directions, 4, state, outputs + state] =
            w_init.unwrap_or_else(|| Initializer::glorot_recurrent(outputs, state)).with_rng(&rng),
        /// Biases of the gates.
        #[when(with_bias)]
        bias: [layers, directions, 4, state] = b_init,
    )
)]
pub fn lstm_n_step(
    /// Input.
    x: &Tensor,
    /// Outputs before the first step.
    h: &Tensor,
    /// Cell states before the first step.
    c: &Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    let states = [("h", h), ("c", c)];
    let call = Call { x, states: &states, num_layers, dropout, bidirectional, training, rng: &rng };
    let Sizes { rows, layers, upper, stacked, directions, inmaps, state, outputs, widths } = call.sizes(4)?;
    let (w0, w, b) = (param!(weight_l0)?, param!(weight)?, param!(bias)?);
    let (dropout, generator) = call.dropping();
    let (y, h, c) = functions::lstm(x, h, c, &w0, w.as_ref(), b.as_ref(), dropout, &generator)?;
    Ok(if call.is_training() { (y, h, c) } else { (y.detach(), h.detach(), c.detach()) })
}

/// One step of a gated recurrent unit (GRU).
///
/// `r = σ(W_r x + U_r h + b_0)`, `z = σ(W_z x + U_z h + b_1)`, `n = tanh(W_n x + b_2 + r·(U_n h + b_3))` and
/// `h' = (1 − z)·n + z·h`; returns `h'`. Over a whole sequence, [`gru`](fn@gru) does the same in less time; its
/// `weight_l0[0]` and `bias[0, 0]` are `W` and `b` here.
///
/// # Shapes
/// - `x`: `(batch_size, input_size)`; `h` and the result: `(batch_size, state_size)`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `h` is not `(batch_size, state_size)`.
///
/// # Source
/// NNabla has no such layer. The formula is that of its `PF.gru`; Cho et al., [Learning Phrase Representations using RNN
/// Encoder–Decoder](https://arxiv.org/abs/1406.1078).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{gru_cell, recur};
///
/// let x = Tensor::zeros((4, 3), DType::F32, &Device::Cpu)?;
/// let h = Tensor::zeros((4, 5), DType::F32, &Device::Cpu)?;
/// assert_eq!(gru_cell(&x, &h, 5).call()?.dims(), [4, 5]);
///
/// // Along an axis: there is no second state.
/// let x = Tensor::zeros((4, 7, 3), DType::F32, &Device::Cpu)?;
/// assert_eq!(recur(&x, 1, 5, |x, h, _| gru_cell(x, h, 5))?.dims(), [4, 7, 5]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "gru_cell",
    options(weights),
    family = Recurrent,
    multiply_adds = [x.dims()[0], 3, state_size, inmaps + state_size],
    params(
        /// Weights of reset gate, update gate and candidate: those of the input, then those of the state.
        W: [3, state_size, inmaps + state_size] =
            w_init.unwrap_or_else(|| Initializer::glorot_recurrent(inmaps, state_size)),
        /// Biases: reset gate, update gate, the candidate's input and the candidate's state.
        b: [4, state_size] = b_init,
    )
)]
pub fn gru_cell(
    /// Input.
    x: &Tensor,
    /// Output of the step before.
    h: &Tensor,
    /// Size of the state.
    state_size: usize,
    /// Initializer of `b`.
    #[opt(into, default = 0.0)]
    b_init: Initializer,
) -> Result<Tensor> {
    let inmaps = super::cell_sizes(x, &[("h", h)], state_size)?;
    let h = functions::gru_cell(x, h, &param!(W)?, Some(&param!(b)?))?;
    // A cell that runs forever must not keep the graph of all its steps.
    Ok(if is_training() { h } else { h.detach() })
}

/// The arguments that all layers over sequences share.
struct Call<'a> {
    x: &'a Tensor,
    states: &'a [(&'static str, &'a Tensor)],
    num_layers: usize,
    dropout: f64,
    bidirectional: bool,
    training: bool,
    rng: &'a Option<Rng>,
}

/// The sizes that declarations of parameters name.
struct Sizes {
    /// Steps times samples.
    rows: usize,
    layers: usize,
    /// Layers above the first.
    upper: usize,
    stacked: bool,
    directions: usize,
    inmaps: usize,
    state: usize,
    /// Outputs of all directions of a layer.
    outputs: usize,
    /// Columns of the weights of all layers.
    widths: usize,
}

impl Call<'_> {
    /// Checks everything that can be known before a parameter is made, for cells with this number of `gates`.
    fn sizes(&self, gates: usize) -> Result<Sizes> {
        let (x, (_, h)) = (self.x, self.states[0]);
        let sizes = Layers::new(x, h)?;
        for (argument, state) in self.states {
            if state.dims() != h.dims() {
                return Err(Error::invalid(
                    argument,
                    format!("must have the shape {:?} of `h`", h.dims()),
                    state.dims(),
                ));
            }
        }
        let Layers { n_layers: layers, n_directions: directions, .. } = sizes;
        if self.num_layers != layers {
            let reason = format!("must be {layers}, the size of the first axis of `h`, or be left out");
            return Err(Error::invalid("num_layers", reason, self.num_layers));
        }
        if self.bidirectional != (directions == 2) {
            let reason = format!("must be {} for an `h` of shape {:?}", directions == 2, h.dims());
            return Err(Error::invalid("bidirectional", reason, self.bidirectional));
        }
        check::within("dropout", self.dropout, 0.0..1.0)?;
        super::check_states(x, self.states)?;
        sizes.check(gates, x)?;
        let (inmaps, state) = (sizes.inmaps(), sizes.state());
        let (upper, outputs) = (layers - 1, directions * state);
        let widths = inmaps + state + upper * (outputs + state);
        let rows = x.dims()[0] * x.dims()[1];
        Ok(Sizes { rows, layers, upper, stacked: layers > 1, directions, inmaps, state, outputs, widths })
    }

    fn is_training(&self) -> bool {
        self.training && is_training()
    }

    /// The rate of the dropout, and its generator.
    fn dropping(&self) -> (f64, Rng) {
        let generator = self.rng.clone().unwrap_or_else(|| ParameterStore::current().rng());
        (if self.is_training() { self.dropout } else { 0.0 }, generator)
    }
}
