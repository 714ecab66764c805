//! Recurrent layers: each parameter here is made of several tensors of another library.

use candle_core::Tensor;

use super::Library;
use crate::Result;

/// How a library names and arranges the parameters of recurrent layers.
pub(super) struct Recurrences {
    /// Those for the input and for the state: a row for each unit of each gate.
    pub(super) weights: [&'static str; 2],
    /// Those for the input and for the state, or one for both.
    pub(super) biases: &'static [&'static str],
    /// The name of a parameter in a module; none if the library has no such layer.
    pub(super) name: fn(module: &str, name: &str, unit: Unit) -> Option<String>,
    /// Whether there is a column for each unit instead.
    pub(super) is_transposed: bool,
    /// Whether the update gate of a GRU comes before the reset gate.
    pub(super) is_update_first: bool,
}

/// A cell, or a layer in one direction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Cell,
    Layer {
        number: usize,
        is_reverse: bool,
        /// Whether its layer has one direction.
        is_only: bool,
    },
}

/// A recurrent layer here, which is `nn.RNN`, `nn.GRU`, `nn.LSTM`, `nn.GRUCell` or `nn.LSTMCell` in PyTorch.
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
    label: String,
    units: Vec<Unit>,
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
            None => vec![Unit::Cell],
            Some((first, counted)) => {
                let n_layers = if counted { next()? } else { 1 };
                let directions = next().filter(|n| (1..=2).contains(n))?;
                let is_only = directions == 1;
                let ways = [false, true].into_iter().take(directions);
                let layers = first..first.checked_add(n_layers)?;
                layers
                    .flat_map(|number| {
                        ways.clone().map(move |is_reverse| Unit::Layer { number, is_reverse, is_only })
                    })
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
        let label = if label.is_empty() { kind.scope.split('/').next()? } else { label }.to_owned();
        (columns >= state).then(|| Self { kind, is_bias, dims: dims.to_vec(), state, columns, label, units })
    }

    /// Whether it is the weight of a GRU, with the path of the bias that it may have.
    pub(super) fn bias_of_gru(&self, path: &str) -> Option<String> {
        let (layer, _) = path.rsplit_once('/')?;
        let is_gru = self.kind.biases > self.kind.gates && !self.is_bias;
        is_gru.then(|| format!("{layer}/{}", if self.kind.is_cell { "b" } else { "bias" }))
    }

    /// The label of the layer, or else its scope.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The names of each layer and direction in a module of the library: two, or one for a bias that serves both.
    /// `None` if the library has no such layer.
    pub(super) fn names(&self, library: &Library, module: &str) -> Option<Vec<Vec<String>>> {
        let names = match self.is_bias {
            true => library.recurrences.biases,
            false => &library.recurrences.weights,
        };
        let named = |unit: &Unit| {
            names.iter().map(|name| (library.recurrences.name)(module, name, *unit)).collect::<Option<_>>()
        };
        self.units.iter().map(named).collect()
    }

    /// Where the first of the variables of a layer stands among them, where a file has them by number.
    pub(super) fn number(&self) -> usize {
        if self.is_bias { 2 } else { 0 }
    }

    /// The shapes there, for the input and for the state, or for both.
    fn shapes(&self, library: &Library) -> Vec<Vec<usize>> {
        let (gates, n, state) = (self.kind.gates, library.recurrences.biases.len(), self.state);
        let rows = gates * state;
        let shapes = [self.columns - state, state].map(|columns| [rows, columns]);
        match (self.is_bias, library.recurrences.is_transposed) {
            (true, _) if n == 1 && self.kind.biases > gates => vec![vec![2, rows]],
            (true, _) => vec![vec![rows]; n],
            (false, false) => shapes.map(|shape| shape.to_vec()).to_vec(),
            (false, true) => shapes.map(|[rows, columns]| vec![columns, rows]).to_vec(),
        }
    }

    /// The values here from those there, which `get` finds by layer and direction and by name; or what is missing or has
    /// another shape.
    pub(super) fn converted<'a>(
        &self,
        path: &str,
        library: &Library,
        names: &[Vec<String>],
        mut get: impl FnMut(usize, usize) -> Option<(&'a str, &'a Tensor)>,
    ) -> Result<Result<Tensor, Vec<String>>> {
        let shapes = self.shapes(library);
        let (mut units, mut differences) = (Vec::new(), Vec::new());
        for (unit, names) in names.iter().enumerate() {
            let mut found = Vec::new();
            for (number, (name, shape)) in names.iter().zip(&shapes).enumerate() {
                match get(unit, number) {
                    Some((_, values)) if values.dims() == shape => {
                        let values = self.transposed(values, library)?;
                        found.push(self.with_gates(values, library)?);
                    }
                    Some((name, values)) => differences.push(format!(
                        "`{name}` has the shape {:?}, `{path}` needs {shape:?}",
                        values.dims()
                    )),
                    None => differences.push(format!("`{name}` is missing, for `{path}`")),
                }
            }
            match &found[..] {
                [of_input, of_state] => units.push(self.joined(of_input, of_state)?),
                [both] if self.is_bias && both.rank() == 2 => {
                    units.push(self.joined(&both.get(0)?, &both.get(1)?)?);
                }
                [both] if self.is_bias && names.len() == 1 => {
                    units.push(self.joined(both, &both.zeros_like()?)?);
                }
                _ => {}
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

    /// The tensor, transposed if the library has a column for each unit and we have a row, or the reverse.
    fn transposed(&self, values: &Tensor, library: &Library) -> Result<Tensor> {
        let is_other = library.recurrences.is_transposed && !self.is_bias;
        Ok(if is_other { values.t()? } else { values.clone() })
    }

    /// The tensor, which has a row for each unit or some rows of biases, with the gates of a GRU in the order of
    /// the other side.
    fn with_gates(&self, values: Tensor, library: &Library) -> Result<Tensor> {
        if !library.recurrences.is_update_first || self.kind.gates != 3 {
            return Ok(values);
        }
        let axis = if self.is_bias { values.rank() - 1 } else { 0 };
        let gate = |number: usize| values.narrow(axis, number * self.state, self.state);
        Ok(Tensor::cat(&[gate(1)?, gate(0)?, gate(2)?], axis)?)
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
    pub(super) fn back(
        &self,
        values: &Tensor,
        library: &Library,
        names: &[Vec<String>],
    ) -> Result<Vec<(String, Tensor)>> {
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
        let mut all = Vec::with_capacity(2 * self.units.len());
        for (unit, names) in names.iter().enumerate() {
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
                match names.len() {
                    1 if self.kind.biases == gates => vec![of_input],
                    1 => vec![Tensor::stack(&[of_input, of_state], 0)?],
                    _ => vec![of_input, of_state],
                }
            } else {
                let inputs = self.columns - state;
                vec![values.narrow(1, 0, inputs)?, values.narrow(1, inputs, state)?]
            };
            for (name, part) in names.iter().zip(parts) {
                let part = self.transposed(&self.with_gates(part, library)?, library)?;
                all.push((name.clone(), part.contiguous()?));
            }
        }
        Ok(all)
    }

    /// The change of order in this direction, as the end of a sentence.
    pub(super) fn told(&self, library: &Library, is_back: bool) -> String {
        let layout = &library.recurrences;
        let transposed = if layout.is_transposed && !self.is_bias { ", transposed" } else { "" };
        let gates = match (layout.is_update_first && self.kind.gates == 3, is_back) {
            (true, false) => ", with the reset gate first",
            (true, true) => ", with the update gate first",
            (false, _) => "",
        };
        format!("{transposed}{gates}")
    }
}

/// The number of a layer's outputs, if this is a parameter of a recurrent layer.
pub(super) fn outputs(path: &str, dims: &[usize]) -> Option<usize> {
    let layer = Recurrent::of(path, dims)?;
    let is_double = layer.units.iter().any(|unit| matches!(unit, Unit::Layer { is_only: false, .. }));
    Some(if is_double { 2 * layer.state } else { layer.state })
}

/// The first axis in another order.
fn by_gate(values: &Tensor, order: [u32; 4]) -> Result<Tensor> {
    Ok(values.index_select(&Tensor::new(&order, values.device())?, 0)?)
}
