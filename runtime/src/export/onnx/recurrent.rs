//! Recurrent layers over whole sequences.

use candle_core::{IndexOp, Tensor};

use super::graph::{Call, Written};
use crate::Result;
use crate::onnx;

/// What a kind of cell is in ONNX.
struct Cell {
    op: &'static str,
    n_states: usize,
    /// The gates of ONNX by their places here.
    gates: &'static [usize],
    /// The places of the biases that are added to the inputs' products, and to the states' products; `None` is none.
    of_inputs: &'static [usize],
    of_states: &'static [Option<usize>],
}

const RNN: Cell = Cell { op: "RNN", n_states: 1, gates: &[0], of_inputs: &[0], of_states: &[None] };
const GRU: Cell = Cell {
    op: "GRU",
    n_states: 1,
    gates: &[1, 0, 2],
    of_inputs: &[1, 0, 2],
    of_states: &[None, None, Some(3)],
};
const LSTM: Cell = Cell {
    op: "LSTM",
    n_states: 2,
    gates: &[0, 3, 1, 2],
    of_inputs: &[0, 3, 1, 2],
    of_states: &[None, None, None, None],
};

pub(super) fn write(call: &mut Call<'_, '_>) -> Written {
    let cell = match call.kind() {
        "RNN" => RNN,
        "GRU" => GRU,
        "LSTM" => LSTM,
        _ => return Ok(None),
    };
    layers(call, &cell).map(Some)
}

fn layers(call: &mut Call<'_, '_>, cell: &Cell) -> Result<Vec<String>> {
    let sizes = call.dims(1).to_vec();
    let (n_layers, directions, state) = (sizes[0], sizes[1], sizes[3]);
    let first = 1 + cell.n_states;
    let more = (n_layers > 1).then(|| call.known(first + 1)).transpose()?;
    let place = first + 1 + usize::from(n_layers > 1);
    let bias = (call.n_inputs() > place).then(|| call.known(place)).transpose()?;
    let mut x = call.input(0);
    let mut last: Vec<Vec<String>> = vec![Vec::new(); cell.n_states];
    for layer in 0..n_layers {
        let weights = match (layer, &more) {
            (0, _) | (_, None) => call.known(first)?,
            (_, Some(more)) => more.i(layer - 1)?,
        };
        // A plain cell has no axis of gates.
        let weights = if weights.rank() == 3 { weights.unsqueeze(1)? } else { weights };
        let inmaps = weights.dims()[3] - state;
        let part = |from: usize, size: usize| in_order(&weights.narrow(3, from, size)?, cell.gates);
        let (w, r) = (call.tensor("W", &part(0, inmaps)?), call.tensor("R", &part(inmaps, state)?));
        let b = match &bias {
            Some(bias) => {
                let bias = bias.i(layer)?;
                let bias = if bias.rank() == 2 { bias.unsqueeze(1)? } else { bias };
                call.tensor("B", &biases(&bias, cell)?)
            }
            None => String::new(),
        };
        let mut inputs = vec![x.clone(), w, r, b, String::new()];
        for n in 0..cell.n_states {
            let states = call.input(1 + n);
            let index = call.integers_of(&[], &[layer as i64]);
            inputs.push(call.node("Gather", &[&states, &index], vec![onnx::int("axis", 0)]));
        }
        let mut attributes = vec![onnx::int("hidden_size", state as i64)];
        attributes.push(onnx::text("direction", if directions == 2 { "bidirectional" } else { "forward" }));
        match cell.op {
            "GRU" => attributes.push(onnx::int("linear_before_reset", 1)),
            "RNN" if call.text("nonlinearity") == "relu" => {
                attributes.push(onnx::texts("activations", &vec!["Relu"; directions]));
            }
            _ => {}
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let results = call.nodes(cell.op, &inputs, attributes, 1 + cell.n_states);
        // (steps, directions, batch, state) becomes (steps, batch, directions · state).
        let y = call.node("Transpose", &[&results[0]], vec![onnx::ints("perm", vec![0, 2, 1, 3])]);
        let shape = call.list(&[0, 0, -1]);
        x = call.node("Reshape", &[&y, &shape], Vec::new());
        for (last, state) in last.iter_mut().zip(&results[1..]) {
            let axes = call.list(&[0]);
            last.push(call.node("Unsqueeze", &[state, &axes], Vec::new()));
        }
    }
    let mut results = vec![x];
    for states in last {
        let states: Vec<&str> = states.iter().map(String::as_str).collect();
        results.push(call.node("Concat", &states, vec![onnx::int("axis", 0)]));
    }
    Ok(results)
}

/// `(directions, gates, state, n)` with the gates in another order, those of a direction as one axis.
fn in_order(weights: &Tensor, gates: &[usize]) -> Result<Tensor> {
    let parts = gates.iter().map(|&gate| Ok(weights.narrow(1, gate, 1)?)).collect::<Result<Vec<_>>>()?;
    let (directions, n_gates, state, n) = weights.dims4()?;
    Ok(Tensor::cat(&parts, 1)?.reshape((directions, n_gates, state, n))?.reshape((
        directions,
        n_gates * state,
        n,
    ))?)
}

/// `(directions, gates, state)` as the biases of inputs and of states.
fn biases(bias: &Tensor, cell: &Cell) -> Result<Tensor> {
    let none = bias.narrow(1, 0, 1)?.zeros_like()?;
    let of = |gate: Option<usize>| gate.map_or(Ok(none.clone()), |gate| Ok(bias.narrow(1, gate, 1)?));
    let parts = cell.of_inputs.iter().map(|&gate| Some(gate)).chain(cell.of_states.iter().copied());
    let parts = parts.map(of).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&parts, 1)?.flatten_from(1)?)
}
