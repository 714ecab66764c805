//! One step of an LSTM cell.

use candle_core::Tensor;

use super::cell::{LstmCell, OnSlices};
use super::composed;
use super::graph::{attach_all, share, tracked};
use super::node::{Element, Value, compute, for_float, read, unfilled, widened, without_kernels};
use super::parts;
use super::sum::{Gradient, Product};
use crate::kernels::{Mat, MatMut, Start, Threads, cell, gemm};
use crate::told::listens;
use crate::{Error, Result, check};

/// One step of a long short-term memory; returns the new `h` and `c`.
///
/// With the pre-activations `[i, o, f, g] = [x, h] W + b`: `c' = sigmoid(f) c + sigmoid(i) tanh(g)` and
/// `h' = sigmoid(o) tanh(c')`.
///
/// The gradient of `w` is computed once for all steps that it is used in.
///
/// # Shapes
/// - `x`: `(N, inmaps)`
/// - `h`, `c`, both results: `(N, state)`
/// - `w`: `(inmaps + state, 4, state)`, for the input gate, the output gate, the forget gate and the candidate
/// - `b`: `(4, state)`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes do not fit together.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F64, &Device::Cpu);
/// let b = Tensor::new(&[[-100f64], [100.], [100.], [0.]], &Device::Cpu)?; // add nothing, show all, keep all
/// let c = Tensor::new(&[[0.5f64]], &Device::Cpu)?;
/// let (h, c) = layerfn::functions::lstm_cell(&zeros(&[1, 2])?, &zeros(&[1, 1])?, &c, &zeros(&[3, 4, 1])?, &b)?;
/// assert_eq!(c.to_vec2::<f64>()?, [[0.5]]);
/// assert_eq!(h.to_vec2::<f64>()?, [[0.5f64.tanh()]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn lstm_cell(x: &Tensor, h: &Tensor, c: &Tensor, w: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let sizes = CellSizes::new(x, h, c, w, b)?;
    if listens() {
        return parts::lstm_cell(x, h, c, w, b);
    }
    let compose = |t: &[Tensor]| composed::lstm_cell(&t[0], &t[1], &t[2], &t[3], &t[4]);
    if let Some([h, c]) = without_kernels("lstm_cell", &[x, h, c, w, b], compose)? {
        return Ok((h, c));
    }
    let dtype = x.dtype();
    let [x, h, c, w, b] = widened("lstm_cell", [x, h, c, w, b])?;
    let (h, c) = for_float!(x.dtype(), T => step::<T>(sizes, [&x, &h, &c, &w, &b]))?;
    Ok((h.to_dtype(dtype)?, c.to_dtype(dtype)?))
}

#[derive(Clone, Copy)]
struct CellSizes {
    samples: usize,
    inmaps: usize,
    state: usize,
}

impl CellSizes {
    fn new(x: &Tensor, h: &Tensor, c: &Tensor, w: &Tensor, b: &Tensor) -> Result<Self> {
        let (&[samples, inmaps], &[_, state]) = (x.dims(), h.dims()) else {
            let reason = "and `h` must have the shapes (N, inmaps) and (N, state)";
            return Err(Error::invalid("x", reason, (x.dims(), h.dims())));
        };
        let width = inmaps.saturating_add(state);
        check::count("x", &[samples, width, 4])?;
        let wanted = [("h", h, vec![samples, state]), ("c", c, vec![samples, state])];
        let weights = [("W", w, vec![width, 4, state]), ("b", b, vec![4, state])];
        for (argument, tensor, dims) in wanted.into_iter().chain(weights) {
            if tensor.dims() != dims {
                let reason =
                    format!("must have shape {dims:?} for an input {:?} and a state {state}", x.dims());
                return Err(Error::invalid(argument, reason, tensor.dims()));
            }
        }
        check::count("h", &[samples, 4, state])?;
        Ok(Self { samples, inmaps, state })
    }

    /// Values for an input and a state.
    fn width(self) -> usize {
        self.inmaps + self.state
    }
}

fn step<T: Element>(sizes: CellSizes, inputs: [&Tensor; 5]) -> Result<(Tensor, Tensor)> {
    let CellSizes { samples: n, inmaps, state } = sizes;
    let mut new = Value::<T>::unfilled([n, state])?;
    let mut gates = unfilled::<T>(n * 4 * state)?;
    // Input and state side by side, so that one product has both.
    let (width, mut both) = (sizes.width(), Value::<T>::unfilled([n, sizes.width()])?);
    let h = compute::<T, 5>([n, state], inputs, |[x, h, c, w, b], out| {
        for (i, both) in both.data.chunks_exact_mut(width.max(1)).enumerate() {
            let (of_input, of_state) = both.split_at_mut(inmaps);
            of_input.copy_from_slice(&x[i * inmaps..][..inmaps]);
            of_state.copy_from_slice(&h[i * state..][..state]);
        }
        let (rows, w) = (Mat::new(&both.data, n, width, width), Mat::new(w, width, 4 * state, 4 * state));
        gemm(MatMut::new(&mut gates, n, 4 * state, 4 * state), rows, w, Start::Columns(b), Threads::All);
        cell::forward(OnSlices(LstmCell), state, &mut gates, [h, c], [out, &mut new.data]);
    })?;
    let _shared = share(inputs[3])?;
    let needed = tracked(inputs);
    let both = both.into_tensor()?;
    let (c, w) = (inputs[2].clone(), inputs[3].clone());
    let [h, new] = attach_all("lstm_cell", inputs, [h, new], move |[dh, dnew]| {
        let mut dgates = Value::<T>::unfilled([n, 4, state])?;
        let slopes = |given: Option<&Tensor>| match given {
            Some(given) => read([given], |[given]| Value { data: given.to_vec(), dims: vec![n, state] }),
            None => Value::<T>::zeros([n, state]),
        };
        let (mut dh, mut dc) = (slopes(dh)?, slopes(dnew)?);
        read([&c], |[c]| {
            let slopes = [&mut dh.data[..], &mut dc.data];
            // The formula has no use for `h` itself, which need not be kept.
            cell::backward(OnSlices(LstmCell), state, &gates, [c, c], slopes, &mut dgates.data);
        })?;
        let dgates = dgates.into_tensor()?;
        // The gradient of so many values, whose rows of `w` start at `first`.
        let through = |width: usize, first: usize| -> candle_core::Result<Option<Gradient>> {
            let dx = compute::<T, 2>([n, width], [&dgates, &w], |[dgates, w], dx| {
                let dgates = Mat::new(dgates, n, 4 * state, 4 * state);
                let w = Mat::new(&w[first * 4 * state..], width, 4 * state, 4 * state);
                gemm(MatMut::new(dx, n, width, width), dgates, w.t(), Start::Zero, Threads::All);
            })?;
            Ok(Some(dx.into_tensor()?.into()))
        };
        let dx = if needed[0] { through(inmaps, 0)? } else { None };
        let dh = if needed[1] { through(state, inmaps)? } else { None };
        let dc = if needed[2] { Some(dc.into_tensor()?.into()) } else { None };
        let db = if needed[4] {
            // Sums of columns are the product with a row of ones.
            let ones = vec![T::ONE; n];
            let db = compute::<T, 1>([4, state], [&dgates], |[dgates], db| {
                let (ones, dgates) = (Mat::new(&ones, 1, n, n), Mat::new(dgates, n, 4 * state, 4 * state));
                gemm(MatMut::new(db, 1, 4 * state, 4 * state), ones, dgates, Start::Zero, Threads::All);
            })?;
            Some(db.into_tensor()?.into())
        } else {
            None
        };
        let dw = needed[3].then(|| Gradient::Product(Product { x: both.clone(), dy: dgates }));
        Ok([dx, dh, dc, dw, db])
    })?;
    Ok((h, new))
}
