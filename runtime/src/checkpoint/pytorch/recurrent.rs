//! Recurrent layers: each parameter here is made of several tensors of PyTorch.

use candle_core::Tensor;

use super::module;
use crate::Result;

/// A recurrent layer here, which is `nn.RNN`, `nn.GRU`, `nn.LSTM`, `nn.GRUCell` or `nn.LSTMCell` there.
#[derive(Debug)]
struct Kind {
    scope: &'static str,
    gates: usize,
    /// There is one more in a GRU, whose candidate has one for the input and one for the state.
    biases: usize,
    is_cell: bool,
}

const KINDS: &[Kind] = &[
    Kind { scope: "rnn", gates: 1, biases: 1, is_cell: false },
    Kind { scope: "gru", gates: 3, biases: 4, is_cell: false },
    Kind { scope: "lstm", gates: 4, biases: 4, is_cell: false },
    Kind { scope: "gru_cell", gates: 3, biases: 4, is_cell: true },
    Kind { scope: LSTM_CELL, gates: 4, biases: 4, is_cell: true },
];

/// The weights of this one are `(inputs + state, gates, state)`.
const LSTM_CELL: &str = "lstm/affine";

/// Where its gates, which are input, output, forget and candidate, stand there; and those of there here.
const GATES_THERE: [u32; 4] = [0, 2, 3, 1];
const GATES_HERE: [u32; 4] = [0, 3, 1, 2];

/// A parameter of a recurrent layer.
#[derive(Debug)]
pub(super) struct Recurrent {
    kind: &'static Kind,
    is_bias: bool,
    dims: Vec<usize>,
    state: usize,
    /// The inputs and the state, unless it is a bias.
    columns: usize,
    module: String,
    /// What the names there end with, one for each layer and direction.
    units: Vec<String>,
}

impl Recurrent {
    /// The parameter of ours with this path and shape, if it is of a recurrent layer.
    pub(super) fn of(path: &str, dims: &[usize]) -> Option<Self> {
        let (layer, name) = path.rsplit_once('/')?;
        let label = |kind: &Kind| match layer.strip_suffix(kind.scope)? {
            "" => Some(""),
            label => label.strip_suffix('/'),
        };
        let (kind, label) = KINDS.iter().find_map(|kind| Some((kind, label(kind)?)))?;
        // `None` for a cell, else the first layer, and whether the number of the others is an axis.
        let (is_bias, layers) = match (kind.is_cell, name) {
            (true, "W") => (false, None),
            (true, "b") => (true, None),
            (false, "weight_l0") => (false, Some((0usize, false))),
            (false, "weight") => (false, Some((1, true))),
            (false, "bias") => (true, Some((0, true))),
            _ => return None,
        };
        // So there are no more layers than elements.
        if dims.contains(&0) {
            return None;
        }
        let of_gates = if is_bias { kind.biases } else { kind.gates };
        let mut rest = dims;
        let mut next = || rest.split_off_first().copied();
        let units = match layers {
            None => vec![String::new()],
            Some((first, counted)) => {
                let n_layers = if counted { next()? } else { 1 };
                let directions = ["", "_reverse"].into_iter().take(next().filter(|n| (1..=2).contains(n))?);
                let layers = first..first.checked_add(n_layers)?;
                layers
                    .flat_map(|layer| directions.clone().map(move |way| format!("_l{layer}{way}")))
                    .collect()
            }
        };
        let (state, columns) = match (rest, is_bias) {
            (&[columns, gates, state], false) if kind.scope == LSTM_CELL && gates == of_gates => {
                (state, columns)
            }
            (&[state, columns], false) if of_gates == 1 => (state, columns),
            (&[gates, state, columns], false) if kind.scope != LSTM_CELL && gates == of_gates => {
                (state, columns)
            }
            (&[state], true) if of_gates == 1 => (state, state),
            (&[gates, state], true) if gates == of_gates => (state, state),
            _ => return None,
        };
        let module = if label.is_empty() { kind.scope.split('/').next()?.to_owned() } else { module(label) };
        (columns >= state).then(|| Self { kind, is_bias, dims: dims.to_vec(), state, columns, module, units })
    }

    /// The names there: two for each layer and direction.
    pub(super) fn names(&self) -> Vec<String> {
        let name = if self.is_bias { "bias" } else { "weight" };
        let of = |unit: &String| ["ih", "hh"].map(|of| format!("{}.{name}_{of}{unit}", self.module));
        self.units.iter().flat_map(of).collect()
    }

    /// The shapes there, for the input and for the state.
    fn shapes(&self) -> [Vec<usize>; 2] {
        let rows = self.kind.gates * self.state;
        match self.is_bias {
            true => [vec![rows], vec![rows]],
            false => [vec![rows, self.columns - self.state], vec![rows, self.state]],
        }
    }

    /// The values here from those there; or what is missing or has another shape.
    pub(super) fn converted<'a>(
        &self,
        path: &str,
        get: impl Fn(&str) -> Option<&'a Tensor>,
    ) -> Result<Result<Tensor, Vec<String>>> {
        let (names, shapes) = (self.names(), self.shapes());
        let (mut units, mut differences) = (Vec::new(), Vec::new());
        for pair in names.chunks_exact(2) {
            let mut found = Vec::new();
            for (name, shape) in pair.iter().zip(&shapes) {
                match get(name) {
                    Some(values) if values.dims() == shape => found.push(values),
                    Some(values) => differences.push(format!(
                        "`{name}` has the shape {:?}, `{path}` needs {shape:?}",
                        values.dims()
                    )),
                    None => differences.push(format!("`{name}` is missing, for `{path}`")),
                }
            }
            if let [of_input, of_state] = found[..] {
                units.push(self.joined(of_input, of_state)?);
            }
        }
        if !differences.is_empty() {
            return Ok(Err(differences));
        }
        let values = Tensor::stack(&units, 0)?;
        let values = match (self.kind.scope, self.is_bias) {
            (LSTM_CELL, true) => by_gate(&values.reshape((4, self.state))?, GATES_HERE)?,
            (LSTM_CELL, false) => {
                by_gate(&values.reshape((4, self.state, self.columns))?, GATES_HERE)?.permute((2, 0, 1))?
            }
            _ => values,
        };
        Ok(Ok(values.contiguous()?.reshape(&*self.dims)?))
    }

    /// The numbers of a layer and direction.
    fn joined(&self, of_input: &Tensor, of_state: &Tensor) -> Result<Tensor> {
        if !self.is_bias {
            return Ok(Tensor::cat(&[of_input, of_state], 1)?);
        }
        let sum = (of_input + of_state)?;
        if self.kind.biases == self.kind.gates {
            return Ok(sum);
        }
        // The biases of the candidate stay apart.
        let (added, n) = ((self.kind.gates - 1) * self.state, self.state);
        let parts = [sum.narrow(0, 0, added)?, of_input.narrow(0, added, n)?, of_state.narrow(0, added, n)?];
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The values there, by name. Of two biases that are added up there, the second is 0.
    pub(super) fn back(&self, values: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let (gates, state) = (self.kind.gates, self.state);
        let values = match (self.kind.scope, self.is_bias) {
            (LSTM_CELL, true) => by_gate(values, GATES_THERE)?,
            (LSTM_CELL, false) => by_gate(&values.permute((1, 2, 0))?.contiguous()?, GATES_THERE)?,
            _ => values.clone(),
        };
        let values = match self.is_bias {
            true => values.reshape((self.units.len(), self.kind.biases * state))?,
            false => values.reshape((self.units.len(), gates * state, self.columns))?,
        };
        let mut names = self.names().into_iter();
        let mut all = Vec::with_capacity(2 * self.units.len());
        for unit in 0..self.units.len() {
            let values = values.get(unit)?;
            let parts = if self.is_bias {
                let of_input = values.narrow(0, 0, gates * state)?;
                let zeros = of_input.zeros_like()?;
                let of_state = match self.kind.biases == gates {
                    true => zeros,
                    false => {
                        let apart = values.narrow(0, gates * state, state)?;
                        Tensor::cat(&[zeros.narrow(0, 0, (gates - 1) * state)?, apart], 0)?
                    }
                };
                [of_input, of_state]
            } else {
                let inputs = self.columns - state;
                [values.narrow(1, 0, inputs)?, values.narrow(1, inputs, state)?]
            };
            all.extend(names.by_ref().take(2).zip(parts));
        }
        all.into_iter().map(|(name, part)| Ok((name, part.contiguous()?))).collect()
    }

    /// What has been done, for [`Checkpoint::changes`](crate::checkpoint::Checkpoint::changes).
    pub(super) fn told(&self, path: &str, to_pytorch: bool) -> String {
        let names = self.names();
        let (first, last) = (&names[0], &names[names.len() - 1]);
        match to_pytorch {
            true => format!("`{path}` {:?} becomes `{first}` to `{last}`", self.dims),
            false => format!("`{first}` to `{last}` become `{path}` {:?}", self.dims),
        }
    }
}

/// The first axis in another order.
fn by_gate(values: &Tensor, order: [u32; 4]) -> Result<Tensor> {
    Ok(values.index_select(&Tensor::new(&order, values.device())?, 0)?)
}
