//! Recurrent layers over whole sequences: several layers, one direction or both.

use std::array;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use candle_core::Tensor;

use super::activation::dropout;
use super::cell::{Elman, Gru, Layer, Lstm, OnSlices, Recurrent};
use super::composed;
use super::graph::{attach_all, tracked};
use super::node::{Element, Value, compute, for_float, in_type, nothing_like, read, unfilled, widened};
use super::parts;
use super::sum::Gradient;
use crate::device::has_kernels;
use crate::kernels::{Float, Mat, MatMut, Start, Threads, cell, channel_sums, gemm, transpose, zip_in_place};
use crate::told::{Form, listens, told};
use crate::{Error, Result, Rng, check};

/// Function of the pre-activations of an Elman network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nonlinearity {
    /// The hyperbolic tangent.
    #[default]
    Tanh,
    /// The rectifier.
    Relu,
}

impl Nonlinearity {
    fn name(self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::Relu => "relu",
        }
    }
}

impl FromStr for Nonlinearity {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "tanh" => Ok(Self::Tanh),
            "relu" => Ok(Self::Relu),
            other => Err(Error::invalid("nonlinearity", "must be `tanh` or `relu`", other)),
        }
    }
}

/// An Elman network over a sequence: `h_t = f(W x_t + U h_(t−1) + b)`, where `f` is `nonlinearity`. Returns the
/// outputs of the last layer and the last `h` of every layer.
///
/// The outputs of a layer are the inputs of the next; between them, elements are dropped with probability
/// `dropout`, drawn from `rng`. With two directions, the second runs from the last step to the first, and the
/// output of a step concatenates both.
///
/// # Shapes
/// `T` steps, `N` samples, `I` inputs, `L` layers, `D` directions (1 or 2), `H` units:
/// - `x`: `(T, N, I)`; `h`: `(L, D, N, H)`
/// - `weight_l0`: `(D, H, I + H)`, of the first layer: `[W, U]`
/// - `weight`: `(L − 1, D, H, D H + H)`, of the others; none if there is one layer
/// - `bias`: `(L, D, H)`
/// - results: `(T, N, D H)` and `(L, D, N, H)`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes do not match, there are no steps, or `dropout` is not in [0, 1).
///
/// # Source
/// NNabla `F.rnn`; Elman, Finding Structure in Time, 1990.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::Rng;
/// use layerfn::functions::{Nonlinearity, rnn};
/// let x = Tensor::new(&[[[1f32]], [[2.]], [[-9.]]], &Device::Cpu)?;
/// let (h, w) = (Tensor::new(&[[[[0f32]]]], &Device::Cpu)?, Tensor::new(&[[[1f32, 1.]]], &Device::Cpu)?);
/// let (y, h) = rnn(&x, &h, &w, None, None, Nonlinearity::Relu, 0.0, &Rng::new(1))?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[1.]], [[3.]], [[0.]]]);
/// assert_eq!(h.dims(), [1, 1, 1, 1]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[allow(clippy::too_many_arguments)] // as many as NNabla's function has
pub fn rnn(
    x: &Tensor,
    h: &Tensor,
    weight_l0: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    nonlinearity: Nonlinearity,
    dropout: f64,
    rng: &Rng,
) -> Result<(Tensor, Tensor)> {
    let call = Call { name: "rnn", x, states: [h], weight_l0, weight, bias, dropout, rng };
    told(
        || call.form("RNN").with("nonlinearity", nonlinearity.name()),
        || {
            let (y, [h]) = match nonlinearity {
                Nonlinearity::Tanh => call.run(Elman::<false>)?,
                Nonlinearity::Relu => call.run(Elman::<true>)?,
            };
            Ok((y, h))
        },
    )
}

/// A gated recurrent unit over a sequence. Returns the outputs of the last layer and the last `h` of every layer.
///
/// `r = σ(W_r x + U_r h + b_0)`, `z = σ(W_z x + U_z h + b_1)`, `n = tanh(W_n x + b_2 + r (U_n h + b_3))` and
/// `h' = (1 − z) n + z h`. Layers, directions and dropout are as in [`rnn`].
///
/// # Shapes
/// As for [`rnn`], except:
/// - `weight_l0`: `(D, 3, H, I + H)`, for `r`, `z` and `n`; `weight`: `(L − 1, D, 3, H, D H + H)`
/// - `bias`: `(L, D, 4, H)`
///
/// # Errors
/// As [`rnn`].
///
/// # Source
/// NNabla `F.gru`; Cho et al., [Learning Phrase Representations using RNN
/// Encoder–Decoder](https://arxiv.org/abs/1406.1078).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::Rng;
/// use layerfn::functions::gru;
/// let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu);
/// let h = Tensor::new(&[[[[4f32]]]], &Device::Cpu)?;
/// let (y, _) = gru(&zeros(&[2, 1, 3])?, &h, &zeros(&[1, 3, 1, 4])?, None, None, 0.0, &Rng::new(1))?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[2.]], [[1.]]]); // half of it is kept
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn gru(
    x: &Tensor,
    h: &Tensor,
    weight_l0: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    dropout: f64,
    rng: &Rng,
) -> Result<(Tensor, Tensor)> {
    let call = Call { name: "gru", x, states: [h], weight_l0, weight, bias, dropout, rng };
    told(
        || call.form("GRU"),
        || {
            let (y, [h]) = call.run(Gru)?;
            Ok((y, h))
        },
    )
}

/// A long short-term memory over a sequence. Returns the outputs of the last layer, and the last `h` and the last `c` of
/// every layer.
///
/// With the pre-activations `[i, f, g, o] = W x + U h + b`: `c' = σ(f) c + σ(i) tanh(g)` and `h' = σ(o) tanh(c')`. Layers,
/// directions and dropout are as in [`rnn`].
///
/// # Shapes
/// As for [`rnn`], except:
/// - `c` and the last result: `(L, D, N, H)`
/// - `weight_l0`: `(D, 4, H, I + H)`, for the input gate, the forget gate, the candidate and the output gate; `weight`:
///   `(L − 1, D, 4, H, D H + H)`. The order is not that of [`lstm_cell`](super::lstm_cell).
/// - `bias`: `(L, D, 4, H)`
///
/// # Errors
/// As [`rnn`].
///
/// # Source
/// NNabla `F.lstm`; Hochreiter & Schmidhuber, Long Short-Term Memory, 1997.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::Rng;
/// use layerfn::functions::lstm;
/// let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu);
/// let (h, c) = (zeros(&[1, 1, 1, 1])?, Tensor::new(&[[[[4f32]]]], &Device::Cpu)?);
/// let (y, _, c) = lstm(&zeros(&[2, 1, 3])?, &h, &c, &zeros(&[1, 4, 1, 4])?, None, None, 0.0, &Rng::new(1))?;
/// assert_eq!(y.dims(), [2, 1, 1]);
/// assert_eq!(c.flatten_all()?.to_vec1::<f32>()?, [1.]); // half of it is kept, twice
/// # Ok::<(), layerfn::Error>(())
/// ```
#[allow(clippy::too_many_arguments)] // as many as NNabla's function has
pub fn lstm(
    x: &Tensor,
    h: &Tensor,
    c: &Tensor,
    weight_l0: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    dropout: f64,
    rng: &Rng,
) -> Result<(Tensor, Tensor, Tensor)> {
    let call = Call { name: "lstm", x, states: [h, c], weight_l0, weight, bias, dropout, rng };
    told(
        || call.form("LSTM"),
        || {
            let (y, [h, c]) = call.run(Lstm)?;
            Ok((y, h, c))
        },
    )
}

/// One step of [`gru`]; returns the new `h`.
///
/// # Shapes
/// - `x`: `(N, I)`; `h` and the result: `(N, H)`
/// - `w`: `(3, H, I + H)`, as `weight_l0[0]` of [`gru`]; `b`: `(4, H)`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes do not match.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu);
/// let b = Tensor::new(&[[0f32], [100.], [0.], [0.]], &Device::Cpu)?; // keep all
/// let h = Tensor::new(&[[0.5f32]], &Device::Cpu)?;
/// let h = layerfn::functions::gru_cell(&zeros(&[1, 2])?, &h, &zeros(&[3, 1, 3])?, Some(&b))?;
/// assert_eq!(h.to_vec2::<f32>()?, [[0.5]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn gru_cell(x: &Tensor, h: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (&[samples, inmaps], &[_, state]) = (x.dims(), h.dims()) else {
        let reason = "and `h` must have the shapes (N, inmaps) and (N, state)";
        return Err(Error::invalid("x", reason, (x.dims(), h.dims())));
    };
    check_dims("h", h, &[samples, state])?;
    check_dims("W", w, &[3, state, inmaps.saturating_add(state)])?;
    b.map_or(Ok(()), |b| check_dims("b", b, &[4, state]))?;
    let sizes = Sizes { steps: 1, samples, inmaps, state };
    sizes.check(4, x)?;
    if h.elem_count() == 0 {
        return Ok(h.clone());
    }
    if listens() {
        return parts::gru_cell(x, h, w, b);
    }
    let none = nothing_like(x)?;
    let [x, h, w, b] = widened("gru_cell", [x, h, w, b.unwrap_or(&none)])?;
    let (y, _) = sequence(Gru, sizes, [&x.unsqueeze(0)?, &w, &b], [&h], false)?;
    in_type(y.squeeze(0)?, none.dtype())
}

/// The arguments that the layers share.
struct Call<'a, const S: usize> {
    name: &'static str,
    x: &'a Tensor,
    states: [&'a Tensor; S],
    weight_l0: &'a Tensor,
    weight: Option<&'a Tensor>,
    bias: Option<&'a Tensor>,
    dropout: f64,
    rng: &'a Rng,
}

impl<const S: usize> Call<'_, S> {
    fn form(&self, kind: &'static str) -> Form {
        let sizes = self.states[0].dims();
        let mut form = Form::new(kind, &[self.x]);
        for state in self.states {
            form = form.and(Some(state));
        }
        let form = form.and(Some(self.weight_l0)).and(self.weight).and(self.bias);
        let form = form.with("num_layers", sizes.first().copied().unwrap_or_default());
        let form = form.with("dropout", self.dropout).with("bidirectional", sizes.get(1) == Some(&2));
        form.with("training", self.dropout > 0.0)
    }

    /// The outputs, and the last states of every layer.
    fn run<C: Layer<P, S>, const P: usize>(&self, cell: C) -> Result<(Tensor, [Tensor; S])> {
        let Layers { n_layers, n_directions, sizes } = self.checked::<C, P>()?;
        if sizes.samples == 0 {
            let dims = [sizes.steps, 0, n_directions * sizes.state];
            return Ok((
                Tensor::zeros(&dims, self.x.dtype(), self.x.device())?,
                self.states.map(Tensor::clone),
            ));
        }
        let none = nothing_like(self.x)?;
        let [weight, bias] = [self.weight, self.bias].map(|given| given.unwrap_or(&none));
        let other = self.states.get(1).copied().unwrap_or(&none);
        let tensors = [self.x, self.weight_l0, weight, bias, self.states[0], other];
        let [x, w0, w, b, h, c] = widened(self.name, tensors)?;
        let of = |tensor: &Tensor, layer, direction| tensor.get(layer)?.get(direction);
        let mut last = array::from_fn::<_, S, _>(|_| Vec::with_capacity(n_layers * n_directions));
        let mut x = x.into_owned();
        for layer in 0..n_layers {
            if layer > 0 {
                x = dropout(&x, self.dropout, &mut || self.rng.next_u32())?;
            }
            let sizes = Sizes { inmaps: x.dims()[2], ..sizes };
            let mut outputs = Vec::with_capacity(n_directions);
            for direction in 0..n_directions {
                let w = if layer == 0 { w0.get(direction)? } else { of(&w, layer - 1, direction)? };
                let b = if self.bias.is_some() { of(&b, layer, direction)? } else { Tensor::clone(&b) };
                let first = [
                    of(&h, layer, direction)?,
                    if S > 1 { of(&c, layer, direction)? } else { Tensor::clone(&c) },
                ];
                let first = array::from_fn(|s| &first[s]);
                let (y, after) = sequence(cell, sizes, [&x, &w, &b], first, direction == 1)?;
                outputs.push(y);
                last.iter_mut().zip(after).for_each(|(last, after)| last.push(after));
            }
            x = Tensor::cat(&outputs, 2)?;
        }
        let mut states = self.states.map(Tensor::clone);
        for (state, last) in states.iter_mut().zip(&last) {
            *state = in_type(Tensor::stack(last, 0)?.reshape(state.shape())?, self.x.dtype())?;
        }
        Ok((in_type(x, self.x.dtype())?, states))
    }

    /// The sizes, which fit together.
    fn checked<C: Layer<P, S>, const P: usize>(&self) -> Result<Layers> {
        let Self { x, states, weight_l0, weight, bias, dropout, .. } = self;
        let layers = Layers::new(x, states[0])?;
        states.get(1).map_or(Ok(()), |c| check_dims("c", c, states[0].dims()))?;
        check::within("dropout", *dropout, 0.0..1.0)?;
        let [w0, w, b] = layers.parameters(P, C::N_WEIGHTS);
        check_dims("weight_l0", weight_l0, &w0)?;
        match weight {
            Some(weight) => check_dims("weight", weight, &w)?,
            None if layers.n_layers == 1 => {}
            None => return Err(Error::invalid("weight", format!("must have shape {w:?} here"), "none")),
        }
        bias.map_or(Ok(()), |bias| check_dims("bias", bias, &b))?;
        layers.check(P, x)?;
        Ok(layers)
    }
}

/// The validated sizes of recurrent layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers {
    pub(crate) n_layers: usize,
    pub(crate) n_directions: usize,
    /// Those of the first layer.
    sizes: Sizes,
}

impl Layers {
    /// Validates the sizes of the input `(T, N, I)` and the states `(L, D, N, H)`.
    pub(crate) fn new(x: &Tensor, h: &Tensor) -> Result<Self> {
        let &[steps, samples, inmaps] = x.dims() else {
            return Err(Error::invalid("x", "must have the shape (steps, batch, inputs)", x.dims()));
        };
        if steps == 0 {
            return Err(Error::invalid("x", "must have at least one step", x.dims()));
        }
        match *h.dims() {
            [n_layers, n_directions @ 1..=2, n, state] if n_layers > 0 && n == samples && state > 0 => {
                Ok(Self { n_layers, n_directions, sizes: Sizes { steps, samples, inmaps, state } })
            }
            _ => {
                let reason = format!(
                    "must have the shape (layers, 1 or 2 directions, batch, state) with a batch of {samples} as `x` has it"
                );
                Err(Error::invalid("h", reason, h.dims()))
            }
        }
    }

    pub(crate) fn inmaps(&self) -> usize {
        self.sizes.inmaps
    }

    pub(crate) fn state(&self) -> usize {
        self.sizes.state
    }

    /// The shapes of the weights of the first layer, of those of the others, and of the bias, for cells with
    /// this number of `gates` and of blocks of weights.
    fn parameters(&self, gates: usize, blocks: usize) -> [Vec<usize>; 3] {
        let Self { n_layers, n_directions, sizes: Sizes { inmaps, state, .. } } = *self;
        let blocks = if blocks == 1 { vec![state] } else { vec![blocks, state] };
        let gates = if gates == 1 { vec![state] } else { vec![gates, state] };
        let outputs = n_directions.saturating_mul(state);
        let widths = [inmaps, outputs].map(|inmaps| inmaps.saturating_add(state));
        [
            [&[n_directions], &blocks[..], &[widths[0]]].concat(),
            [&[n_layers - 1, n_directions], &blocks[..], &[widths[1]]].concat(),
            [&[n_layers, n_directions], &gates[..]].concat(),
        ]
    }

    /// Checks that there is memory for parameters and results.
    pub(crate) fn check(&self, gates: usize, x: &Tensor) -> Result<()> {
        let [w0, w, b] = self.parameters(gates, gates);
        for dims in [w0, w, b] {
            check::tensor("h", &dims, x.dtype())?;
        }
        let Sizes { steps, samples, state, .. } = self.sizes;
        check::tensor("h", &[steps, samples, self.n_directions, state], x.dtype())?;
        self.sizes.check(gates, x)
    }
}

/// Sizes of one layer.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    steps: usize,
    samples: usize,
    inmaps: usize,
    state: usize,
}

impl Sizes {
    /// Checks that there is memory for the gates, and that a row of the weights can be counted.
    fn check(&self, gates: usize, x: &Tensor) -> Result<()> {
        check::count("x", &[self.inmaps.saturating_add(self.state)])?;
        check::tensor("h", &[self.steps, self.samples, gates, self.state], x.dtype()).map(drop)
    }
}

fn check_dims(argument: &'static str, tensor: &Tensor, wanted: &[usize]) -> Result<()> {
    if tensor.dims() == wanted {
        return Ok(());
    }
    Err(Error::invalid(argument, format!("must have shape {wanted:?} here"), tensor.dims()))
}

/// One layer in one direction: computes the outputs `(T, N, H)` and the last states `(N, H)` from `x (T, N,
/// I)`, the weights `(.., H, I + H)`, the optional bias `(.., H)`, and the first states.
fn sequence<C: Layer<P, S>, const P: usize, const S: usize>(
    cell: C,
    sizes: Sizes,
    [x, w, b]: [&Tensor; 3],
    first: [&Tensor; S],
    reverse: bool,
) -> Result<(Tensor, [Tensor; S])> {
    if !has_kernels(x.device()) {
        return Ok(composed::recurrent::layer(cell, [x, w, b], first, reverse)?);
    }
    let none = nothing_like(x)?;
    let [h, c] = array::from_fn(|s| *first.get(s).unwrap_or(&&none));
    let steps = Steps { cell, sizes, reverse };
    for_float!(x.dtype(), T => steps.run::<T, P, S>([x, w, b, h, c]))
}

/// The steps of one layer, over slices.
#[derive(Clone, Copy)]
struct Steps<C> {
    cell: C,
    sizes: Sizes,
    reverse: bool,
}

/// Values that the backward pass needs besides the inputs.
struct Kept<T> {
    /// The activations, `(T, N, P, H)`.
    gates: Vec<T>,
    /// The second states, `(T, N, H)`, of a cell that has two.
    cells: Vec<T>,
    /// The outputs, set once they are a tensor.
    y: Arc<OnceLock<Tensor>>,
}

impl<C> Steps<C> {
    /// Elements of a state.
    fn n(&self) -> usize {
        self.sizes.samples * self.sizes.state
    }

    /// The steps in the order of their computation.
    fn order(self) -> impl DoubleEndedIterator<Item = usize> {
        let Self { sizes, reverse, .. } = self;
        (0..sizes.steps).map(move |i| if reverse { sizes.steps - 1 - i } else { i })
    }

    /// The step computed before this one.
    fn previous(self, t: usize) -> Option<usize> {
        if self.reverse { Some(t + 1).filter(|&t| t < self.sizes.steps) } else { t.checked_sub(1) }
    }

    /// Some blocks of the recurrent weights, `(blocks H, H)`.
    fn recurrent<'a, T>(&self, w: &'a [T], blocks: &Range<usize>) -> Mat<'a, T> {
        let Sizes { inmaps, state, .. } = self.sizes;
        let width = inmaps + state;
        Mat::new(&w[blocks.start * state * width + inmaps..], blocks.len() * state, state, width)
    }

    fn run<T: Element, const P: usize, const S: usize>(
        self,
        inputs: [&Tensor; 5],
    ) -> Result<(Tensor, [Tensor; S])>
    where
        C: Layer<P, S>,
    {
        let Sizes { steps, samples, state, .. } = self.sizes;
        let mut gates = unfilled::<T>(steps * P * self.n())?;
        let mut cells = unfilled::<T>(if S > 1 { steps * self.n() } else { 0 })?;
        let y = compute::<T, 5>([steps, samples, state], inputs, |inputs, y| {
            self.forward(inputs, &mut gates, [y, &mut cells]);
        })?;
        let end = if self.reverse { 0 } else { (steps - 1) * self.n() };
        let last = |history: &[T]| history.get(end..end + self.n()).unwrap_or_default().to_vec();
        let h = Value { data: last(&y.data), dims: vec![samples, state] };
        let c = Value { data: last(&cells), dims: if S > 1 { vec![samples, state] } else { vec![0] } };
        let own = Arc::new(OnceLock::new());
        let kept = Kept { gates, cells, y: own.clone() };
        let (needed, given) = (tracked(inputs), inputs.map(Tensor::clone));
        let [y, h, c] = attach_all("recurrent layer", inputs, [y, h, c], move |slopes| {
            self.backward(&kept, given.each_ref(), slopes, needed)
        })?;
        own.get_or_init(|| y.detach()); // shares the memory, but holds no place in the graph: no cycle
        let states = [h, c];
        Ok((y, array::from_fn(|s| states[s].clone())))
    }

    fn forward<T: Float, const P: usize, const S: usize>(
        self,
        [x, w, b, h, c]: [&[T]; 5],
        gates: &mut [T],
        histories: [&mut [T]; 2],
    ) where
        C: Layer<P, S>,
    {
        let Sizes { steps, samples, inmaps, state } = self.sizes;
        let (width, n_blocks) = (inmaps + state, C::N_WEIGHTS);
        let bias = |blocks: Range<usize>| match b {
            [] => Start::Zero,
            b => Start::Columns(&b[blocks.start * state..blocks.end * state]),
        };
        // The inputs of all steps at once.
        let of_inputs = MatMut::new(&mut *gates, steps * samples, n_blocks * state, P * state);
        let rows = Mat::new(x, steps * samples, inmaps, inmaps);
        let w_inputs = Mat::new(w, n_blocks * state, inmaps, width).t();
        gemm(of_inputs, rows, w_inputs, bias(0..n_blocks), Threads::All);

        let transposed = if steps > 1 { self.transposed(w) } else { Vec::new() };
        let [y, cells] = histories;
        for t in self.order() {
            let gates = &mut gates[t * P * self.n()..][..P * self.n()];
            let (h, y) = beside(y, h, self.n(), t, self.previous(t));
            for Recurrent { weights, gate } in C::RECURRENT {
                let columns = weights.len() * state;
                let w = match &transposed[..] {
                    [] => self.recurrent(w, weights).t(),
                    all => Mat::new(&all[weights.start * state..], state, columns, n_blocks * state),
                };
                let start = if *gate < n_blocks { Start::Kept } else { bias(*gate..gate + weights.len()) };
                let out = MatMut::new(&mut gates[gate * state..], samples, columns, P * state);
                gemm(out, Mat::new(h, samples, state, state), w, start, Threads::All);
            }
            let (mut before, mut after) = ([h; S], array::from_fn::<&mut [T], S, _>(|_| &mut []));
            after[0] = y;
            if S > 1 {
                (before[1], after[1]) = beside(cells, c, self.n(), t, self.previous(t));
            }
            cell::forward(OnSlices(self.cell), state, gates, before, after);
        }
    }

    /// The recurrent weights as `(H, blocks H)`, copied once, so that not every step has to gather columns.
    fn transposed<T: Float, const P: usize, const S: usize>(&self, w: &[T]) -> Vec<T>
    where
        C: Layer<P, S>,
    {
        let Sizes { inmaps, state, .. } = self.sizes;
        let (rows, width) = (C::N_WEIGHTS * state, inmaps + state);
        let mut transposed = vec![T::ZERO; state * rows];
        transpose(&w[inmaps..], width, rows, state, &mut transposed, rows);
        transposed
    }

    /// The gradients of the inputs from those of the outputs, of the last `h` and of the last `c`.
    fn backward<T: Element, const P: usize, const S: usize>(
        self,
        kept: &Kept<T>,
        [x, w, _, h, c]: [&Tensor; 5],
        slopes: [Option<&Tensor>; 3],
        needed: [bool; 5],
    ) -> candle_core::Result<[Option<Gradient>; 5]>
    where
        C: Layer<P, S>,
    {
        let Some(y) = kept.y.get() else {
            candle_core::bail!("the outputs of a recurrent layer are not known yet")
        };
        let Sizes { steps, samples, inmaps, state } = self.sizes;
        let (rows, n_blocks) = (steps * samples, C::N_WEIGHTS);
        let mut dgates = unfilled::<T>(rows * P * state)?;
        let mut dstates = [Value::<T>::zeros([samples, state])?, Value::zeros([samples, state])?];
        let none = nothing_like(x)?;
        let [dy, dh, dc] = slopes.map(|slope| slope.unwrap_or(&none));
        read([w, h, c, y, dy, dh, dc], |[w, h, c, y, dy, dh, dc]| {
            for (state, slope) in dstates.iter_mut().zip([dh, dc]) {
                state.data[..slope.len()].copy_from_slice(slope);
            }
            self.back(
                kept,
                [w, h, c],
                y,
                dy,
                dstates.each_mut().map(|state| &mut state.data[..]),
                &mut dgates,
            );
        })?;
        let of_gates = Mat::new(&dgates[..], rows, n_blocks * state, P * state);
        let mut gradients = [const { None }; 5];
        if needed[0] {
            let dx = compute::<T, 1>(x.dims(), [w], |[w], dx| {
                let w = Mat::new(w, n_blocks * state, inmaps, inmaps + state);
                gemm(MatMut::new(dx, rows, inmaps, inmaps), of_gates, w, Start::Zero, Threads::All);
            })?;
            gradients[0] = Some(dx.into_tensor()?.into());
        }
        if needed[1] {
            let dw = compute::<T, 3>(w.dims(), [x, h, y], |[x, h, y], dw| {
                let dw_inputs = MatMut::new(&mut *dw, n_blocks * state, inmaps, inmaps + state);
                gemm(dw_inputs, of_gates.t(), Mat::new(x, rows, inmaps, inmaps), Start::Zero, Threads::All);
                self.recurrent_gradient(&dgates, h, y, dw);
            })?;
            gradients[1] = Some(dw.into_tensor()?.into());
        }
        if needed[2] {
            let mut db = Value::<T>::unfilled(if P == 1 { vec![state] } else { vec![P, state] })?;
            channel_sums(&dgates, 1, &mut db.data);
            gradients[2] = Some(db.into_tensor()?.into());
        }
        for (i, state) in dstates.into_iter().enumerate() {
            if needed[3 + i] {
                gradients[3 + i] = Some(state.into_tensor()?.into());
            }
        }
        Ok(gradients)
    }

    /// The gradients of all pre-activations; `dstates` turn from those of the last states into those of the first.
    fn back<T: Float, const P: usize, const S: usize>(
        self,
        kept: &Kept<T>,
        [w, h, c]: [&[T]; 3],
        y: &[T],
        dy: &[T],
        [dh, dc]: [&mut [T]; 2],
        dgates: &mut [T],
    ) where
        C: Layer<P, S>,
    {
        let (n, Sizes { samples, state, .. }) = (self.n(), self.sizes);
        for t in self.order().rev() {
            if let Some(dy) = dy.get(t * n..(t + 1) * n) {
                zip_in_place(dh, dy, |a, b| a + b);
            }
            let (gates, dgates) = (&kept.gates[t * P * n..][..P * n], &mut dgates[t * P * n..][..P * n]);
            let mut before = [previous(y, h, n, self.previous(t)); S];
            let mut slopes = array::from_fn::<&mut [T], S, _>(|_| &mut []);
            slopes[0] = dh;
            if S > 1 {
                before[1] = previous(&kept.cells, c, n, self.previous(t));
                slopes[1] = dc;
            }
            cell::backward(OnSlices(self.cell), state, gates, before, slopes, dgates);
            for Recurrent { weights, gate } in C::RECURRENT {
                let of_gates = Mat::new(&dgates[gate * state..], samples, weights.len() * state, P * state);
                let dh = MatMut::new(&mut *dh, samples, state, state);
                gemm(dh, of_gates, self.recurrent(w, weights), Start::Kept, Threads::All);
            }
        }
    }

    /// The part of the weights' gradient `(blocks H, I + H)` that comes from the outputs of the steps before.
    fn recurrent_gradient<T: Float, const P: usize, const S: usize>(
        self,
        dgates: &[T],
        h: &[T],
        y: &[T],
        dw: &mut [T],
    ) where
        C: Layer<P, S>,
    {
        let Sizes { steps, samples, inmaps, state } = self.sizes;
        let (n, width) = (self.n(), inmaps + state);
        // If the steps run backwards, the first one is the last in memory.
        let (first, others, befores) = if self.reverse { (steps - 1, 0, 1) } else { (0, 1, 0) };
        for Recurrent { weights, gate } in C::RECURRENT {
            let columns = weights.len() * state;
            let mut add = |step: usize, n_steps: usize, before: &[T], start| {
                if n_steps == 0 {
                    return;
                }
                let rows = n_steps * samples;
                let of_gates = Mat::new(&dgates[step * P * n + gate * state..], rows, columns, P * state);
                let out =
                    MatMut::new(&mut dw[weights.start * state * width + inmaps..], columns, state, width);
                gemm(out, of_gates.t(), Mat::new(before, rows, state, state), start, Threads::All);
            };
            add(first, 1, h, Start::Zero);
            add(others, steps - 1, &y[befores * n..], Start::Kept);
        }
    }
}

/// The elements before the step that follows `previous`: those of a history with `n` elements per step, or
/// `first`.
fn previous<'a, T>(history: &'a [T], first: &'a [T], n: usize, previous: Option<usize>) -> &'a [T] {
    previous.map_or(first, |t| &history[t * n..][..n])
}

/// [`previous`], and the place of step `t`.
fn beside<'a, T>(
    history: &'a mut [T],
    first: &'a [T],
    n: usize,
    t: usize,
    previous: Option<usize>,
) -> (&'a [T], &'a mut [T]) {
    let Some(before) = previous else { return (first, &mut history[t * n..][..n]) };
    let (low, high) = history.split_at_mut(t.max(before) * n);
    if before < t { (&low[before * n..][..n], &mut high[..n]) } else { (&high[..n], &mut low[t * n..][..n]) }
}
