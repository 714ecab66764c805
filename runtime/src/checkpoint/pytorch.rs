//! State dicts of PyTorch and the layers of this library.

mod recurrent;

use std::collections::{BTreeMap, HashSet};

use candle_core::{Tensor, Var};

use super::Checkpoint;
use super::entry::{Entries, Entry};
use crate::{Error, ParameterStore, Result};
use recurrent::Recurrent;

/// A parameter of a layer here, and of the module there.
struct Pair {
    /// The scope of the layer.
    scope: &'static str,
    ours: &'static str,
    theirs: &'static str,
    /// Whether PyTorch has it transposed: `Linear` is `(outputs, inputs)`.
    is_transposed: bool,
    /// Which third of the rows there it is.
    third: Option<usize>,
}

const fn pair(scope: &'static str, ours: &'static str, theirs: &'static str) -> Pair {
    Pair { scope, ours, theirs, is_transposed: false, third: None }
}

const fn transposed(scope: &'static str, ours: &'static str, theirs: &'static str) -> Pair {
    Pair { is_transposed: true, ..pair(scope, ours, theirs) }
}

/// Queries, keys and values of attention stand one below the other there.
const fn third(ours: &'static str, theirs: &'static str, third: usize, is_transposed: bool) -> Pair {
    Pair { scope: ATTENTION, ours, theirs, is_transposed, third: Some(third) }
}

const ATTENTION: &str = "multi_head_attention";

const PAIRS: &[Pair] = &[
    transposed("affine", "W", "weight"),
    pair("affine", "b", "bias"),
    pair("conv", "W", "weight"),
    pair("conv", "b", "bias"),
    pair("deconv", "W", "weight"),
    pair("deconv", "b", "bias"),
    pair("depthwise_conv", "W", "weight"),
    pair("depthwise_conv", "b", "bias"),
    pair("bn", "gamma", "weight"),
    pair("bn", "beta", "bias"),
    pair("bn", "mean", "running_mean"),
    pair("bn", "var", "running_var"),
    pair("layer_normalization", "gamma", "weight"),
    pair("layer_normalization", "beta", "bias"),
    pair("group_normalization", "gamma", "weight"),
    pair("group_normalization", "beta", "bias"),
    pair("instance_normalization", "gamma", "weight"),
    pair("instance_normalization", "beta", "bias"),
    pair("embed", "W", "weight"),
    pair("prelu", "slope", "weight"),
    third("q_weight", "in_proj_weight", 0, true),
    third("k_weight", "in_proj_weight", 1, true),
    third("v_weight", "in_proj_weight", 2, true),
    third("q_bias", "in_proj_bias", 0, false),
    third("k_bias", "in_proj_bias", 1, false),
    third("v_bias", "in_proj_bias", 2, false),
    transposed(ATTENTION, "out_weight", "out_proj.weight"),
    pair(ATTENTION, "out_bias", "out_proj.bias"),
    pair(ATTENTION, "attn_bias_k", "bias_k"),
    pair(ATTENTION, "attn_bias_v", "bias_v"),
];

/// Scopes within layers here, and the modules there; the layers of a Transformer have no module of their own.
const MODULES: &[(&str, &str)] = &[
    ("transformer_encode", ""),
    ("src_self_attn", "self_attn"),
    ("enc_affine1", "linear1"),
    ("enc_affine2", "linear2"),
    ("enc_layer_norm1", "norm1"),
    ("enc_layer_norm2", "norm2"),
    ("transformer_decode", ""),
    ("tgt_self_attn", "self_attn"),
    ("tgt_memory_attn", "multihead_attn"),
    ("dec_affine1", "linear1"),
    ("dec_affine2", "linear2"),
    ("dec_layer_norm1", "norm1"),
    ("dec_layer_norm2", "norm2"),
    ("dec_layer_norm3", "norm3"),
];

/// What PyTorch keeps and nobody here needs.
const IGNORED: &str = "num_batches_tracked";

/// The module there with the label that a layer has here.
fn module(label: &str) -> String {
    let module = |part| MODULES.iter().find(|(ours, _)| *ours == part).map_or(part, |(_, theirs)| *theirs);
    label.split('/').map(module).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

impl Pair {
    /// The parameter at a path of ours, and its name there.
    fn of(path: &str) -> Option<(&'static Self, String)> {
        let (scope, name) = path.rsplit_once('/')?;
        let (label, scope) = scope.rsplit_once('/').unwrap_or(("", scope));
        let pair = PAIRS.iter().find(|pair| pair.scope == scope && pair.ours == name)?;
        if label.is_empty() {
            return Some((pair, format!("{scope}.{}", pair.theirs)));
        }
        let names = [module(label), pair.theirs.to_owned()];
        Some((pair, names.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")))
    }

    /// The values in the layout of here, with the shape `dims`; none if they do not fit.
    fn converted(&self, values: &Tensor, dims: &[usize]) -> Result<Option<Tensor>> {
        let mut values = values.clone();
        if let Some(third) = self.third {
            let rows = values.dims().first().copied().unwrap_or_default() / 3;
            if rows == 0 || values.dims()[0] != 3 * rows {
                return Ok(None);
            }
            values = values.narrow(0, third * rows, rows)?;
        }
        if self.is_transposed {
            if values.rank() != 2 {
                return Ok(None);
            }
            values = values.t()?;
        }
        // A shape may have more axes of size 1, as that of a normalization has.
        let real = |dims: &[usize]| dims.iter().copied().filter(|&size| size != 1).collect::<Vec<_>>();
        if real(values.dims()) != real(dims) {
            return Ok(None);
        }
        Ok(Some(values.contiguous()?.reshape(dims)?))
    }

    /// What has been done, for [`Checkpoint::changes`].
    fn told(&self, from: &str, before: &Tensor, to: &str, after: &Tensor) -> String {
        let third = self
            .third
            .map_or("", |third| [", its first third", ", its second third", ", its last third"][third]);
        let transposed = if self.is_transposed { ", transposed" } else { "" };
        format!("`{from}` {:?} becomes `{to}` {:?}{third}{transposed}", before.dims(), after.dims())
    }

    /// The values in the layout of PyTorch; those of a third alone.
    fn back(&self, values: &Tensor) -> Result<Tensor> {
        Ok(match self.scope {
            _ if self.is_transposed => values.t()?.contiguous()?,
            // One number a channel there, whatever axes there are here.
            "bn" | "group_normalization" | "instance_normalization" | "prelu" => values.flatten_all()?,
            "layer_normalization" => {
                let first = values.dims().iter().position(|&size| size != 1).unwrap_or(values.rank() - 1);
                values.reshape(&values.dims()[first..])?
            }
            // A group for each map: one input map of the group.
            "depthwise_conv" if self.ours == "W" => values.unsqueeze(1)?,
            _ => values.copy()?,
        })
    }
}

impl Checkpoint {
    /// A state dict of PyTorch as the parameters of `store`, ready for a strict [`Load`](super::Load).
    ///
    /// The layer with the label `layer1/0` here is the module `layer1.0` there; [`rename`](Self::rename) the file before where names
    /// differ. Each parameter is found by the kind of its layer: the weights of `affine` are transposed, square ones too, and the
    /// parameters of normalizations get our shapes. `multi_head_attention` is an `nn.MultiheadAttention`, `transformer_encode` an
    /// `nn.TransformerEncoderLayer`, `transformer_decode` an `nn.TransformerDecoderLayer`. `rnn`, `gru` and `lstm_n_step` are
    /// `nn.RNN`, `nn.GRU` and `nn.LSTM`, `lstm` and `gru_cell` are `nn.LSTMCell` and `nn.GRUCell`; the two biases that PyTorch
    /// adds up become one. `num_batches_tracked` is left out. What `store` has a layer for and this has no rule for is an error.
    ///
    /// ```
    /// use layerfn::{checkpoint::{Checkpoint, Load}, prelude::*};
    ///
    /// let model = network! { fc: affine(2) }.init((1, 2))?;
    /// # let there = ParameterStore::new();
    /// # there.enter(|| -> layerfn::Result<()> {
    /// #     let set = |name: &str, value| layerfn::set_parameter(name, layerfn::Parameter::new(layerfn::candle_core::Var::from_tensor(&value)?, true));
    /// #     set("fc.weight", Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?)?;
    /// #     set("fc.bias", Tensor::new(&[0f32, 0.], &Device::Cpu)?)
    /// # })?;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("linear.safetensors");
    /// # there.save_parameters(&path)?;
    /// let state = Checkpoint::open(path)?.from_pytorch(model.store())?; // `fc.weight` and `fc.bias` of an `nn.Linear(2, 2)`
    /// Load::new(state).apply_to(model.store(), "")?;
    /// # assert_eq!(model.store().get("fc/affine/W").unwrap().var().to_vec2::<f32>()?, [[1., 3.], [2., 4.]]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mismatch`] with every parameter that is missing, left over, of another shape, or of a layer without a rule.
    #[allow(clippy::wrong_self_convention)] // `from` is where the file comes from
    pub fn from_pytorch(self, store: &ParameterStore) -> Result<Self> {
        let (mut entries, mut differences, mut used) = (Entries::new(), Vec::new(), HashSet::new());
        let mut changes = self.changes.clone();
        for (path, parameter) in store.parameters().iter() {
            if let Some(layer) = Recurrent::of(path, parameter.var().dims()) {
                used.extend(layer.names());
                match layer.converted(path, |name| self.get(name).map(Entry::tensor))? {
                    Ok(values) => {
                        changes.push(layer.told(path, false));
                        let values = Var::from_tensor(&values)?;
                        let entry = Entry::new(path.to_owned(), values, Some(parameter.need_grad()));
                        entries.push(entry).map_err(|fault| fault.into_error("convert", &self.origin))?;
                    }
                    Err(missing) => differences.extend(missing),
                }
                continue;
            }
            let Some((pair, name)) = Pair::of(path) else {
                differences.push(format!("`{path}` is of a layer that has no rule for PyTorch"));
                continue;
            };
            let Some(entry) = self.get(&name) else {
                differences.push(format!("`{name}` is missing, for `{path}`"));
                continue;
            };
            used.insert(name.clone());
            let (wanted, got) = (parameter.var().dims(), entry.tensor());
            match pair.converted(got, wanted)? {
                Some(values) => {
                    changes.push(pair.told(&name, got, path, &values));
                    let entry =
                        Entry::new(path.to_owned(), Var::from_tensor(&values)?, Some(parameter.need_grad()));
                    entries.push(entry).map_err(|fault| fault.into_error("convert", &self.origin))?;
                }
                None => {
                    differences.push(format!("`{name}` has the shape {:?}, `{path}` {wanted:?}", got.dims()))
                }
            }
        }
        for entry in self.entries() {
            let is_ignored = entry.path().rsplit('.').next() == Some(IGNORED);
            if !is_ignored && !used.contains(entry.path()) {
                differences.push(format!("`{}` belongs to no parameter here", entry.path()));
            }
        }
        if !differences.is_empty() {
            return Err(Error::Mismatch { file: self.origin, differences });
        }
        Ok(Self { changes, ..Self::new(self.origin, entries.into(), false) })
    }

    /// The reverse: parameters of ours under the names and in the layout that `load_state_dict` of PyTorch takes. Of the two biases
    /// that recurrent layers add up there, the second is 0.
    ///
    /// # Errors
    /// [`Error::Mismatch`] with every parameter of a layer without a rule.
    pub fn to_pytorch(&self) -> Result<Self> {
        let (mut entries, mut differences) = (Entries::new(), Vec::new());
        let (mut changes, mut thirds) = (self.changes.clone(), BTreeMap::new());
        for entry in self.entries() {
            if let Some(layer) = Recurrent::of(entry.path(), entry.tensor().dims()) {
                changes.push(layer.told(entry.path(), true));
                for (name, values) in layer.back(entry.tensor())? {
                    let entry = Entry::new(name, Var::from_tensor(&values)?, entry.need_grad());
                    entries.push(entry).map_err(|fault| fault.into_error("convert", &self.origin))?;
                }
                continue;
            }
            let Some((pair, name)) = Pair::of(entry.path()) else {
                differences.push(format!("`{}` is of a layer that has no rule for PyTorch", entry.path()));
                continue;
            };
            if pair.is_transposed && entry.tensor().rank() != 2 {
                let dims = entry.tensor().dims();
                differences.push(format!(
                    "`{}` of shape {dims:?} is not a matrix, which a `Linear` of PyTorch needs",
                    entry.path()
                ));
                continue;
            }
            let values = pair.back(entry.tensor())?;
            changes.push(pair.told(entry.path(), entry.tensor(), &name, &values));
            let Some(third) = pair.third else {
                let entry = Entry::new(name, Var::from_tensor(&values)?, entry.need_grad());
                entries.push(entry).map_err(|fault| fault.into_error("convert", &self.origin))?;
                continue;
            };
            let all = thirds.entry(name.clone()).or_insert_with(|| [const { None }; 3]);
            all[third] = Some(values);
            if let [Some(q), Some(k), Some(v)] = all {
                if q.dims() != k.dims() || q.dims() != v.dims() {
                    let reason =
                        format!("`{name}` can't be made: queries, keys and values have different sizes");
                    differences.push(reason);
                    continue;
                }
                let entry =
                    Entry::new(name, Var::from_tensor(&Tensor::cat(&[q, k, v], 0)?)?, entry.need_grad());
                entries.push(entry).map_err(|fault| fault.into_error("convert", &self.origin))?;
            }
        }
        let partial = thirds.iter().filter(|(_, all)| all.iter().any(Option::is_none));
        differences
            .extend(partial.map(|(name, _)| format!("`{name}` lacks a part: queries, keys or values")));
        if !differences.is_empty() {
            return Err(Error::Mismatch { file: self.origin.clone(), differences });
        }
        Ok(Self { changes, ..Self::new(self.origin.clone(), entries.into(), false) })
    }
}
