//! One step of a long short-term memory.

use candle_core::Tensor;

use crate::options::weights;
use crate::{Initializer, Result, check, functions, is_training, parametric_function};

/// One step of a long short-term memory (LSTM).
///
/// With the pre-activations `[i, o, f, g] = [x, h] W + b` of the input gate, the output gate, the forget gate and the
/// candidate: `c' = σ(f) · c + σ(i) · tanh(g)` and `h' = σ(o) · tanh(c')`. Returns `(h', c')`.
///
/// # Shapes
/// - `x`: `(batch_size, input_size)`; `h`, `c` and the results: `(batch_size, state_size)`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `h` or `c` is not `(batch_size, state_size)`.
///
/// # Source
/// NNabla `PF.lstm` of version 1.0, `PF.lstm_cell` today (`lstm_cell` is an alias here, too); its `PF.lstm` of today is
/// [`lstm_n_step`](fn@crate::lstm_n_step). Hochreiter & Schmidhuber, Long Short-Term Memory, Neural
/// Computation 1997.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::lstm;
///
/// let x = Tensor::zeros((4, 3), DType::F32, &Device::Cpu)?;
/// let (h, c) = (x.zeros_like()?.pad_with_zeros(1, 0, 2)?, Tensor::ones((4, 5), DType::F32, &Device::Cpu)?);
/// let (h, c) = lstm(&x, &h, &c, 5).call()?;
/// assert_eq!((h.dims(), c.dims()), (&[4, 5][..], &[4, 5][..]));
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "lstm/affine",
    options(weights),
    family = Recurrent,
    multiply_adds = [x.dims()[0], inmaps + state_size, 4, state_size],
    params(
        /// Stacked weights of the gates: input, output, forget, candidate.
        W: [inmaps + state_size, 4, state_size] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps + state_size, 4 * state_size, &[])),
        /// Stacked biases of the gates.
        b: [4, state_size] = b_init,
    )
)]
pub fn lstm(
    /// Input.
    x: &Tensor,
    /// Output of the step before.
    h: &Tensor,
    /// Cell state of the step before.
    c: &Tensor,
    /// Size of the state.
    state_size: usize,
    /// Initializer of `b`.
    #[opt(into, default = 0.0)]
    b_init: Initializer,
) -> Result<(Tensor, Tensor)> {
    let inmaps = super::cell_sizes(x, &[("h", h), ("c", c)], state_size)?;
    let (h, c) = functions::lstm_cell(x, h, c, &param!(W)?, &param!(b)?)?;
    // A cell that runs forever must not keep the graph of all its steps.
    Ok(if is_training() { (h, c) } else { (h.detach(), c.detach()) })
}

/// An [`lstm`](fn@lstm) that keeps its state from step to step; all steps share their parameters.
///
/// Gradients flow through all steps since the last [`reset`](Self::reset) or [`detach`](Self::detach).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{LSTMCell, get_parameters};
///
/// let mut cell = LSTMCell::new(4, 5).name("encoder");
/// let x = Tensor::zeros((4, 3), DType::F32, &Device::Cpu)?;
/// for _ in 0..10 {
///     let h = cell.step(&x)?;
///     assert_eq!(h.dims(), [4, 5]);
/// }
/// assert_eq!(get_parameters().len(), 2); // encoder/lstm/affine/W and b
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LSTMCell {
    batch_size: usize,
    state_size: usize,
    name: Option<String>,
    w_init: Option<Initializer>,
    b_init: Option<Initializer>,
    fix_parameters: bool,
    h: Option<Tensor>,
    c: Option<Tensor>,
}

impl LSTMCell {
    /// Makes a cell whose state is zero.
    #[must_use]
    pub fn new(batch_size: usize, state_size: usize) -> Self {
        Self {
            batch_size,
            state_size,
            name: None,
            w_init: None,
            b_init: None,
            fix_parameters: false,
            h: None,
            c: None,
        }
    }

    /// Sets the scope around the cell's parameters.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the initializer of `W`. Default: Glorot uniform.
    #[must_use]
    pub fn w_init(mut self, w_init: impl Into<Initializer>) -> Self {
        self.w_init = Some(w_init.into());
        self
    }

    /// Sets the initializer of `b`. Default: zeros.
    #[must_use]
    pub fn b_init(mut self, b_init: impl Into<Initializer>) -> Self {
        self.b_init = Some(b_init.into());
        self
    }

    /// Sets whether the parameters receive no gradient. Default: false.
    #[must_use]
    pub fn fix_parameters(mut self, fix_parameters: bool) -> Self {
        self.fix_parameters = fix_parameters;
        self
    }

    /// Sets the initial output `h` and cell state `c`, each `(batch_size, state_size)`.
    #[must_use]
    pub fn state(mut self, h: &Tensor, c: &Tensor) -> Self {
        (self.h, self.c) = (Some(h.clone()), Some(c.clone()));
        self
    }

    /// Updates the state with the input `x (batch_size, input_size)` and returns the output `h`.
    ///
    /// # Errors
    /// As [`lstm`](fn@lstm); the state then stays as it was.
    pub fn step(&mut self, x: &Tensor) -> Result<Tensor> {
        let shape = (self.batch_size, self.state_size);
        check::input("x", x)?;
        // Two states.
        check::tensor("state_size", &[2, self.batch_size, self.state_size], x.dtype())?;
        let zeros = || Tensor::zeros(shape, x.dtype(), x.device());
        let h = self.h.clone().map_or_else(zeros, Ok)?;
        let c = self.c.clone().map_or_else(zeros, Ok)?;
        let mut lstm = lstm(x, &h, &c, self.state_size).fix_parameters(self.fix_parameters);
        if let Some(name) = &self.name {
            lstm = lstm.name(name);
        }
        if let Some(init) = &self.w_init {
            lstm = lstm.w_init(init.clone());
        }
        if let Some(init) = &self.b_init {
            lstm = lstm.b_init(init.clone());
        }
        let (h, c) = lstm.call()?;
        (self.h, self.c) = (Some(h.clone()), Some(c));
        Ok(h)
    }

    /// The output of the last step.
    #[must_use]
    pub fn h(&self) -> Option<&Tensor> {
        self.h.as_ref()
    }

    /// The cell state after the last step.
    #[must_use]
    pub fn c(&self) -> Option<&Tensor> {
        self.c.as_ref()
    }

    /// Resets the state to zero, for the next sequence.
    pub fn reset(&mut self) {
        (self.h, self.c) = (None, None);
    }

    /// Keeps the state but cuts the gradient, as truncated backpropagation through time does between segments.
    pub fn detach(&mut self) {
        for state in [&mut self.h, &mut self.c] {
            *state = state.as_ref().map(Tensor::detach);
        }
    }
}
