//! The states of a solver in files, as NNabla's `Solver.save_states` writes them.
//!
//! In `.h5` they are stored like parameters: a group for each parameter, with a dataset for each state, and
//! `t`. In `.protobuf` they are a separate message. The other formats store them as parameters.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use prost::Message;
use prost::bytes::Bytes;

use super::entry::Entry;
use super::generated::Shape;
use super::values::{Stored, variable, with_bytes};
use super::{Checkpoint, Fault, Format, Load, Outcome, SaveOptions, file, protobuf};
use crate::{Parameter, ParameterStore, Parameters, Result};

/// The part of the message `Optimizer` that holds states.
#[derive(Clone, PartialEq, Message)]
struct Optimizer {
    #[prost(message, optional, tag = "30")]
    solver: Option<Solver>,
}

#[derive(Clone, PartialEq, Message)]
struct Solver {
    #[prost(btree_map = "string, message", tag = "40")]
    states: BTreeMap<String, State>,
}

/// Those of one parameter.
#[derive(Clone, PartialEq, Message)]
struct State {
    #[prost(uint32, tag = "1")]
    t: u32,
    #[prost(btree_map = "string, message", tag = "2")]
    state_parameter: BTreeMap<String, Values>,
}

/// Row-major values, whose packed form is this field filled with little-endian floats.
#[derive(Clone, PartialEq, Message)]
struct Values {
    #[prost(message, optional, tag = "20")]
    shape: Option<Shape>,
    #[prost(bytes = "bytes", tag = "100")]
    data: Bytes,
}

/// Writes `states`, each at the path of its parameter and its own name.
pub(crate) fn save_states(states: &Parameters, path: &Path) -> Result<()> {
    if Format::from_path(path)? != Format::Protobuf {
        return Checkpoint::from_parameters(states)?.save(path);
    }
    let written = message(states).and_then(|message| {
        file::replace(path, |file| Ok(file.as_file_mut().write_all(&message.encode_to_vec())?))
    });
    written.map_err(|fault| fault.into_error("write", &path.display().to_string()))
}

/// Reads what [`save_states`] or NNabla has written.
pub(crate) fn load_states(path: &Path) -> Result<Parameters> {
    if Format::from_path(path)? == Format::Protobuf {
        return read(path).map_err(|fault| fault.into_error("read", &path.display().to_string()));
    }
    read_parameters(path)
}

/// The parameters of a file, in its order.
pub(crate) fn read_parameters(path: &Path) -> Result<Parameters> {
    let store = ParameterStore::new();
    Load::like_nnabla(Checkpoint::open(path)?).apply_to(&store, "")?;
    Ok(store.parameters())
}

fn message(states: &Parameters) -> Outcome<Optimizer> {
    let mut solver = Solver::default();
    for (path, state) in states.iter() {
        let (parameter, name) = path.rsplit_once('/').unwrap_or(("", path));
        let of_parameter = solver.states.entry(parameter.to_owned()).or_default();
        let tensor = state.var().as_tensor();
        if name == "t" {
            let t = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
            of_parameter.t = t.first().copied().unwrap_or_default() as u32;
            continue;
        }
        let entry = Entry::new(path.to_owned(), state.var().clone(), Some(false));
        let narrow = protobuf::narrow(&entry, SaveOptions::default())?;
        let data = with_bytes(&narrow, |bytes| Ok(Bytes::copy_from_slice(bytes)))?;
        let dim = tensor.dims().iter().map(|&size| size as i64).collect();
        of_parameter.state_parameter.insert(name.to_owned(), Values { shape: Some(Shape { dim }), data });
    }
    Ok(Optimizer { solver: Some(solver) })
}

fn read(path: &Path) -> Outcome<Parameters> {
    let mut bytes = Vec::new();
    file::open(path)?.read_to_end(&mut bytes)?;
    let message = Optimizer::decode(bytes.as_slice()).map_err(|error| Fault::format(error.to_string()))?;
    let solver = message.solver.ok_or_else(|| Fault::format("holds no states of a solver"))?;
    let mut states = Vec::new();
    for (parameter, State { t, state_parameter }) in solver.states {
        for (name, values) in state_parameter {
            let path = format!("{parameter}/{name}");
            let var = values.variable().map_err(|fault| fault.within(&format!("`{path}`")))?;
            states.push((path, Parameter::new(var, false)));
        }
        let t = Var::from_tensor(&Tensor::new(i64::from(t), &Device::Cpu)?)?;
        states.push((format!("{parameter}/t"), Parameter::new(t, false)));
    }
    Ok(states.into_iter().collect())
}

impl Values {
    fn variable(&self) -> Outcome<Var> {
        let dims = self.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
        let sizes = dims.iter().map(|&size| usize::try_from(size));
        let sizes = sizes.collect::<std::result::Result<Vec<_>, _>>();
        let sizes = sizes.map_err(|_| Fault::format("has a size below 0"))?;
        let (words, rest) = self.data.as_chunks::<4>();
        if !rest.is_empty() || Stored::F32.count(&sizes)? != words.len() {
            return Err(Fault::format(format!("has the shape {sizes:?} and {} bytes", self.data.len())));
        }
        variable(words.iter().map(|word| f32::from_le_bytes(*word)).collect(), &sizes)
    }
}
