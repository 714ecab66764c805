//! Recurrent layers over whole sequences.

use candle_core::Tensor;

use super::call::{Call, Function, shaped};
use crate::functions::{self, Nonlinearity};
use crate::{Error, ParameterStore, Result};

pub(super) static OPS: &[(&str, Function)] = &[
    ("GRU", |call| {
        if call.int("linear_before_reset", 0) == 0 {
            return Err(call.unsupported("linear_before_reset", "must be 1"));
        }
        let cell = Cell::new(call, 3, &[1, 0, 2], &["Sigmoid", "Tanh"])?;
        let bias = cell.bias.as_ref().map(|[of_inputs, of_states]| {
            let [r, z, n] = [1, 0, 2].map(|gate| gate_of(of_inputs, gate));
            let [hr, hz, hn] = [1, 0, 2].map(|gate| gate_of(of_states, gate));
            let sum = |a: Result<Tensor>, b: Result<Tensor>| functions::add2(&a?, &b?);
            functions::concatenate(&[&sum(r, hr)?, &sum(z, hz)?, &n?, &hn?], 1)
        });
        let bias = bias.transpose()?.map(|bias| cell.of_one_layer(&bias)).transpose()?;
        let rng = ParameterStore::current().rng();
        let (y, h) = functions::gru(&cell.x, &cell.state(0)?, &cell.weights, None, bias.as_ref(), 0.0, &rng)?;
        cell.results(&y, &[h])
    }),
    ("LSTM", |call| {
        if call.get(7).is_some() || call.int("input_forget", 0) != 0 {
            return Err(call
                .unsupported("P", "must be left out, as `input_forget`: cells with peepholes are not read"));
        }
        let cell = Cell::new(call, 4, &[0, 2, 3, 1], &["Sigmoid", "Tanh", "Tanh"])?;
        let bias = cell.sum_of_biases(&[0, 2, 3, 1])?;
        let rng = ParameterStore::current().rng();
        let (h, c) = (cell.state(0)?, cell.state(1)?);
        let (y, h, c) = functions::lstm(&cell.x, &h, &c, &cell.weights, None, bias.as_ref(), 0.0, &rng)?;
        cell.results(&y, &[h, c])
    }),
    ("RNN", |call| {
        let nonlinearity = match call.texts("activations").first() {
            Some(&"Relu") => Nonlinearity::Relu,
            _ => Nonlinearity::Tanh,
        };
        let name = if nonlinearity == Nonlinearity::Relu { "Relu" } else { "Tanh" };
        let cell = Cell::new(call, 1, &[0], &[name])?;
        let bias = cell.sum_of_biases(&[0])?;
        let bias = bias.map(|bias| shaped(&bias, &[1, cell.directions, cell.size])).transpose()?;
        let (inmaps, rng) = (cell.weights.dims()[3], ParameterStore::current().rng());
        let weights = shaped(&cell.weights, &[cell.directions, cell.size, inmaps])?;
        let h = cell.state(0)?;
        let (y, h) = functions::rnn(&cell.x, &h, &weights, None, bias.as_ref(), nonlinearity, 0.0, &rng)?;
        cell.results(&y, &[h])
    }),
];

/// What the layers have in common.
struct Cell<'a> {
    call: &'a Call<'a>,
    x: Tensor,
    /// `(directions, gates, size, inputs + size)`, the gates in the order of this library.
    weights: Tensor,
    /// `(directions, gates, size)` each, the gates in the order of the file.
    bias: Option<[Tensor; 2]>,
    directions: usize,
    size: usize,
}

/// One gate of a bias.
fn gate_of(bias: &Tensor, gate: usize) -> Result<Tensor> {
    let at = gate as isize;
    functions::slice(bias, &[Some(at), None], &[Some(at + 1), None], &[])
}

impl<'a> Cell<'a> {
    fn new(call: &'a Call<'a>, n_gates: usize, order: &[usize], activations: &[&str]) -> Result<Self> {
        let directions = match call.text("direction") {
            "" | "forward" => 1,
            "bidirectional" => 2,
            _ => return Err(call.unsupported("direction", "must be forward or bidirectional")),
        };
        if call.int("layout", 0) != 0 {
            return Err(call.unsupported("layout", "must be 0"));
        }
        if call.get(4).is_some() || call.has("clip") {
            return Err(call.unsupported("sequence_lens", "must be left out, as `clip`"));
        }
        let given = call.texts("activations");
        if !given.is_empty() && !given.chunks(activations.len()).all(|of_one| of_one == activations) {
            return Err(call.unsupported("activations", "must be the usual ones"));
        }
        let (x, w, r) = (call.input(0)?.clone(), call.input(1)?, call.input(2)?);
        let fits = |dims: &[usize]| matches!(dims, [d, gates, _] if *d == directions && gates.is_multiple_of(n_gates));
        let (&[_, _, inmaps], &[_, gates, size]) = (w.dims(), r.dims()) else {
            return Err(Error::invalid("W", "and `R` must have three axes", (w.dims(), r.dims())));
        };
        if !fits(w.dims()) || !fits(r.dims()) || w.dims()[1] != gates || gates != n_gates * size {
            let reason = format!("and `R` must have the shapes ({directions}, {n_gates} · size, ..)");
            return Err(Error::invalid("W", reason, (w.dims(), r.dims())));
        }
        let w = shaped(w, &[directions, n_gates, size, inmaps])?;
        let r = shaped(r, &[directions, n_gates, size, size])?;
        let both = functions::concatenate(&[&w, &r], 3)?;
        let part = |gate: usize| {
            let at = gate as isize;
            functions::slice(&both, &[Some(at), None, None], &[Some(at + 1), None, None], &[])
        };
        let parts = order.iter().map(|&gate| part(gate)).collect::<Result<Vec<_>>>()?;
        let weights = functions::concatenate(&parts.iter().collect::<Vec<_>>(), 1)?;
        let bias = call.get(3).map(|bias| {
            let all = shaped(bias, &[directions, 2 * n_gates, size])?;
            let half = n_gates as isize;
            let of_inputs = functions::slice(&all, &[None, None], &[Some(half), None], &[])?;
            Ok::<_, Error>([of_inputs, functions::slice(&all, &[Some(half), None], &[None, None], &[])?])
        });
        Ok(Self { call, x, weights, bias: bias.transpose()?, directions, size })
    }

    /// `(directions, gates, size)` with an axis for the layer in front.
    fn of_one_layer(&self, bias: &Tensor) -> Result<Tensor> {
        shaped(bias, &[&[1], bias.dims()].concat())
    }

    /// The biases of inputs and states as one, with the gates in this order.
    fn sum_of_biases(&self, order: &[usize]) -> Result<Option<Tensor>> {
        let Some([of_inputs, of_states]) = &self.bias else { return Ok(None) };
        let sum = functions::add2(of_inputs, of_states)?;
        let parts = order.iter().map(|&gate| gate_of(&sum, gate)).collect::<Result<Vec<_>>>()?;
        self.of_one_layer(&functions::concatenate(&parts.iter().collect::<Vec<_>>(), 1)?).map(Some)
    }

    /// The first state, as the functions take it.
    fn state(&self, n: usize) -> Result<Tensor> {
        let batch = self.x.dims().get(1).copied().unwrap_or(0);
        let dims = [1, self.directions, batch, self.size];
        match self.call.get(5 + n) {
            Some(state) => shaped(state, &dims),
            None => functions::constant(0.0, dims, self.x.device()),
        }
    }

    /// The outputs of each direction, and the last states.
    fn results(&self, y: &Tensor, states: &[Tensor]) -> Result<Vec<Tensor>> {
        let (steps, batch) = (y.dims()[0], y.dims()[1]);
        let y = shaped(y, &[steps, batch, self.directions, self.size])?;
        let mut results = vec![functions::transpose(&y, [0, 2, 1, 3])?];
        for state in states {
            results.push(shaped(state, &[self.directions, batch, self.size])?);
        }
        Ok(results)
    }
}
