//! Parameters with the names and layouts of other libraries.

mod keras;
mod pytorch;
mod recurrent;

use std::collections::{BTreeMap, HashMap, HashSet};

use candle_core::{Tensor, Var};

use super::Checkpoint;
use super::entry::{Entries, Entry, Note};
use crate::{Error, ParameterStore, Result};
use keras::{Images, KERAS};
use pytorch::{CANDLE, PYTORCH};
use recurrent::{Recurrences, Recurrent};

/// A library, as a table of the names and layouts of its layers' parameters.
struct Library {
    name: &'static str,
    pairs: &'static [&'static [Pair]],
    /// Scopes within layers here, and the modules there.
    modules: &'static [(&'static str, &'static str)],
    /// Separator of the components of a name.
    separator: &'static str,
    recurrences: Recurrences,
    /// The key that a name in a file is found by; `None` for names that are not needed here.
    address: fn(&str) -> Option<String>,
    /// Groups of files that number the variables of a layer: in the order of `pairs`, without those that the
    /// layer does not have.
    groups: Option<Groups>,
    /// Whether images have their channels last, and so are flattened in another order.
    has_channels_last: bool,
}

/// The groups of a file that hold the layers of a model and the variables of a layer.
struct Groups {
    layers: &'static str,
    variables: &'static str,
}

/// A parameter of a layer here, and of the corresponding layer there.
struct Pair {
    /// The scope of the layer.
    scope: &'static str,
    ours: &'static str,
    theirs: &'static str,
    layout: Layout,
}

const fn pair(scope: &'static str, ours: &'static str, theirs: &'static str, layout: Layout) -> Pair {
    Pair { scope, ours, theirs, layout }
}

const ATTENTION: &str = "multi_head_attention";

/// The layout of a parameter in a library.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// The same as here.
    Same,
    /// The same as here, except for axes of size 1.
    Sizes,
    /// One number per channel, whatever axes there are here.
    Channel,
    /// The same as here, without the leading axes of size 1.
    LastAxes,
    /// One axis, whatever others of size 1 there are here or there.
    OneAxis,
    /// A matrix that is `(outputs, inputs)`.
    Transposed,
    /// Queries, keys and values of attention are stacked.
    Third { third: usize, is_transposed: bool },
    /// A group for each map: there is an axis for the single input map of the group.
    Grouped,
    /// `(sizes.., inputs, outputs)` for `(outputs, inputs, sizes..)`, and so for a deconvolution.
    ChannelsLast,
    /// `(sizes.., maps, multiplier)` for `(maps × multiplier, sizes..)`.
    Multiplied,
    /// The heads of attention have a separate axis before this one.
    Heads { axis: usize },
}

/// The sizes other than 1: a shape may have more axes of size 1, as that of a normalization has.
fn real(dims: &[usize]) -> Vec<usize> {
    dims.iter().copied().filter(|&size| size != 1).collect()
}

const ONE_AXIS: &str = "only normalizations over one axis can be converted";

impl Layout {
    /// The values in our layout, with the shape `dims`; `None` if they do not match.
    fn converted(self, values: &Tensor, dims: &[usize]) -> Result<Option<Tensor>> {
        let rank = values.rank();
        let values = match self {
            Self::Transposed if rank == 2 => values.t()?,
            Self::Third { third, is_transposed } => {
                let rows = values.dims().first().copied().unwrap_or_default() / 3;
                if rows == 0 || values.dims()[0] != 3 * rows || (is_transposed && rank != 2) {
                    return Ok(None);
                }
                let values = values.narrow(0, third * rows, rows)?;
                if is_transposed { values.t()? } else { values }
            }
            Self::ChannelsLast if rank > 2 => {
                values.permute([rank - 1, rank - 2].into_iter().chain(0..rank - 2).collect::<Vec<_>>())?
            }
            Self::Multiplied if rank > 2 => values
                .permute([rank - 2, rank - 1].into_iter().chain(0..rank - 2).collect::<Vec<_>>())?
                .contiguous()?
                .flatten(0, 1)?,
            Self::Heads { axis } if axis + 1 < rank => values.contiguous()?.flatten(axis, axis + 1)?,
            Self::Transposed | Self::ChannelsLast | Self::Multiplied | Self::Heads { .. } => return Ok(None),
            _ => values.clone(),
        };
        let fits = match self {
            Self::Same | Self::ChannelsLast | Self::Multiplied | Self::Heads { .. } => values.dims() == dims,
            Self::OneAxis => real(values.dims()) == real(dims) && real(dims).len() < 2,
            _ => real(values.dims()) == real(dims),
        };
        Ok(if fits { Some(values.contiguous()?.reshape(dims)?) } else { None })
    }

    /// The values in the library's layout, those of a third by themselves; `None` if that is not known.
    fn back(self, values: &Tensor, note: Option<Note>) -> Result<Option<Tensor>> {
        let (dims, rank) = (values.dims(), values.rank());
        Ok(Some(match (self, note) {
            (Self::Transposed | Self::Third { is_transposed: true, .. }, _) if rank == 2 => {
                values.t()?.contiguous()?
            }
            (Self::Channel, _) => values.flatten_all()?,
            (Self::OneAxis, _) if real(dims).len() < 2 => values.flatten_all()?,
            (Self::LastAxes, _) => {
                let first = dims.iter().position(|&size| size != 1).unwrap_or(rank.saturating_sub(1));
                values.reshape(&dims[first..])?
            }
            (Self::Grouped, _) => values.unsqueeze(1)?,
            (Self::ChannelsLast, _) if rank > 2 => {
                values.permute((2..rank).chain([1, 0]).collect::<Vec<_>>())?.contiguous()?
            }
            (Self::Multiplied, note) => {
                let multiplier = if let Some(Note::Multiplier(number)) = note { number.get() } else { 1 };
                let Some(values) = parted(values, 0, multiplier, false)? else { return Ok(None) };
                values.permute((2..=rank).chain([0, 1]).collect::<Vec<_>>())?.contiguous()?
            }
            (Self::Heads { axis }, Some(Note::Heads(number))) => {
                return parted(values, axis, number.get(), true);
            }
            (Self::Same | Self::Sizes | Self::Third { is_transposed: false, .. }, _) => values.copy()?,
            _ => return Ok(None),
        }))
    }

    /// The reason why the parameter at `path` cannot be converted [`back`](Self::back), as the end of a
    /// sentence.
    fn obstacle(self, path: &str, there: &str) -> String {
        match self {
            Self::Heads { .. } => format!(
                "does not say how many heads there are: give their number, which divides it, by the rule `heads({path}, NUMBER)`"
            ),
            Self::OneAxis => format!("has several axes: {ONE_AXIS}"),
            Self::Multiplied => "has a number of maps that its multiplier does not divide".to_owned(),
            Self::ChannelsLast => "has no axis for a kernel".to_owned(),
            _ => format!("is not a matrix, which a `Linear` of {there} needs"),
        }
    }

    /// The conversion in this direction, as the end of a sentence.
    fn told(self, is_back: bool) -> &'static str {
        match self {
            Self::Transposed => ", transposed",
            Self::Third { third, is_transposed } => match (third, is_transposed) {
                (0, false) => ", its first third",
                (1, false) => ", its second third",
                (_, false) => ", its last third",
                (0, true) => ", its first third, transposed",
                (1, true) => ", its second third, transposed",
                (_, true) => ", its last third, transposed",
            },
            Self::ChannelsLast | Self::Multiplied if is_back => ", channels last",
            Self::ChannelsLast | Self::Multiplied => ", channels first",
            Self::Heads { .. } if is_back => ", heads on a separate axis",
            Self::Heads { .. } => ", heads side by side",
            _ => "",
        }
    }
}

impl Library {
    fn pairs(&self) -> impl Iterator<Item = &'static Pair> {
        self.pairs.iter().copied().flatten()
    }

    /// The module there with the label that a layer has here.
    fn module(&self, label: &str) -> String {
        let module =
            |part| self.modules.iter().find(|(ours, _)| *ours == part).map_or(part, |(_, theirs)| *theirs);
        let parts = label.split('/').map(module).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(self.separator)
    }

    /// The parameter at a path of ours, and the module that it is in there.
    fn pair(&self, path: &str) -> Option<(&'static Pair, String)> {
        let (scope, name) = path.rsplit_once('/')?;
        let (label, scope) = scope.rsplit_once('/').unwrap_or(("", scope));
        let pair = self.pairs().find(|pair| pair.scope == scope && pair.ours == name)?;
        Some((pair, if label.is_empty() { scope.to_owned() } else { self.module(label) }))
    }

    /// The name in a module.
    fn name(&self, module: &str, name: &str) -> String {
        let parts = [module, name].into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(self.separator)
    }

    /// The number of the parameter at `path` among those of its layer or sublayer.
    fn number(&self, pair: &Pair, path: &str, has: impl Fn(&str) -> bool) -> usize {
        let sublayer = |pair: &Pair| pair.theirs.rsplit_once('/').map(|(sublayer, _)| sublayer);
        let layer = path.strip_suffix(pair.ours).unwrap_or(path);
        let before = self.pairs().take_while(|other| !std::ptr::eq(*other, pair)).filter(|other| {
            other.scope == pair.scope
                && sublayer(other) == sublayer(pair)
                && has(&format!("{layer}{}", other.ours))
        });
        before.count()
    }

    /// A name that ends in the number of the variable, if files of the library may number variables.
    fn numbered(&self, name: &str, number: usize) -> Option<String> {
        let (groups, separator) = (self.groups.as_ref()?, self.separator);
        let (layer, _) = name.rsplit_once(separator)?;
        Some(format!("{layer}{separator}{}{separator}{number}", groups.variables))
    }

    /// The path of a module in a file that numbers variables.
    fn grouped(&self, module: String) -> String {
        let Some(groups) = &self.groups else { return module };
        let parts = module.split(self.separator).flat_map(|part| [groups.layers, part]);
        parts.collect::<Vec<_>>().join(self.separator)
    }

    /// The names of a recurrent layer in a module there, or the reason why it has none.
    fn names(
        &self,
        path: &str,
        layer: &Recurrent,
        module: &str,
        has: impl Fn(&str) -> bool,
    ) -> std::result::Result<Vec<Vec<String>>, String> {
        // Only the bias distinguishes the two kinds of GRU.
        if self.recurrences.is_update_first && layer.bias_of_gru(path).is_some_and(|bias| !has(&bias)) {
            return Err(format!(
                "`{path}` is of a GRU without biases, which in {} may have `reset_after=False`, and has the same shapes then: \
                 give it biases, of zeros perhaps, here and there",
                self.name
            ));
        }
        layer.names(self, module).ok_or_else(|| {
            format!(
                "`{path}` is of several layers; {} has a name for each, so declare them one by one",
                self.name
            )
        })
    }

    fn has_no_rule(&self, path: &str) -> String {
        format!("`{path}` is of a layer that has no rule for {}", self.name)
    }

    /// Says which rule is missing for a matrix whose rows may take flattened images.
    fn flattened(&self, name: &str, rows: usize, (channels, layer): (usize, String), rule: &str) -> String {
        let (there, each) = (self.name, rows / channels);
        format!(
            "`{name}` has {each} inputs for each of the {channels} channels of `{layer}`: {there} flattens images with the \
             channels last; say their size by the rule `{rule}({name}, HEIGHT, WIDTH)`, or that they are not \
             flattened by `{rule}({name}, 1)`"
        )
    }
}

/// Splits an axis into two, the first or the second of which has the size `parts`; `None` if that does not
/// divide the axis.
fn parted(values: &Tensor, axis: usize, parts: usize, is_first: bool) -> Result<Option<Tensor>> {
    let mut dims = values.dims().to_vec();
    let Some(size) = dims.get(axis).copied().filter(|size| size.is_multiple_of(parts)) else {
        return Ok(None);
    };
    let sizes = if is_first { [parts, size / parts] } else { [size / parts, parts] };
    dims.splice(axis..=axis, sizes);
    Ok(Some(values.copy()?.reshape(dims)?))
}

/// What a file of a library holds.
struct Source<'a> {
    library: &'static Library,
    entries: HashMap<String, &'a Entry>,
    used: HashSet<&'a str>,
    differences: Vec<String>,
}

impl<'a> Source<'a> {
    fn new(library: &'static Library, checkpoint: &'a Checkpoint) -> Self {
        let (mut entries, mut differences) = (HashMap::<String, &Entry>::new(), Vec::new());
        for entry in checkpoint.entries() {
            let Some(address) = (library.address)(entry.path()) else { continue };
            if let Some(other) = entries.insert(address, entry) {
                let (one, other) = (other.path(), entry.path());
                differences
                    .push(format!("`{one}` and `{other}` are the same parameter; a rule must drop one"));
            }
        }
        Self { library, entries, used: HashSet::new(), differences }
    }

    /// The entry of a name, or else of a number.
    fn find(&mut self, name: &str, number: Option<&str>) -> Option<&'a Entry> {
        let find = |name: &str| self.entries.get(&(self.library.address)(name)?).copied();
        let entry = find(name).or_else(|| find(number?))?;
        self.used.insert(entry.path());
        Some(entry)
    }

    /// The entry of the parameter at `path`, which is `pair` of `module`.
    fn find_pair(
        &mut self,
        path: &str,
        pair: &Pair,
        module: &str,
        has: impl Fn(&str) -> bool,
    ) -> Option<&'a Entry> {
        let library = self.library;
        let name = library.name(module, pair.theirs);
        let numbered = library.numbered(&name, library.number(pair, path, has));
        self.find(&name, numbered.as_deref())
    }

    /// The values of the parameter at `path`, if there are some that fit, and a line about each thing that was done.
    fn values(
        &mut self,
        path: &str,
        dims: &[usize],
        has: impl Fn(&str) -> bool,
    ) -> Result<Option<(Tensor, String)>> {
        let library = self.library;
        if let Some(layer) = Recurrent::of(path, dims) {
            return self.recurrent(path, &layer, has);
        }
        let Some((pair, module)) = library.pair(path) else {
            self.differences.push(library.has_no_rule(path));
            return Ok(None);
        };
        let Some(entry) = self.find_pair(path, pair, &module, has) else {
            let name = library.name(&module, pair.theirs);
            self.differences.push(format!("`{name}` is missing, for `{path}`"));
            return Ok(None);
        };
        let (name, got) = (entry.path(), entry.tensor());
        let Some(values) = pair.layout.converted(got, dims)? else {
            let reason = match pair.layout {
                Layout::OneAxis if got.elem_count() == dims.iter().product::<usize>() => {
                    format!("; {ONE_AXIS}")
                }
                _ => String::new(),
            };
            let line = format!("`{name}` has the shape {:?}, `{path}` {dims:?}{reason}", got.dims());
            self.differences.push(line);
            return Ok(None);
        };
        let told = pair.layout.told(false);
        Ok(Some((values, format!("`{name}` {:?} becomes `{path}` {dims:?}{told}", got.dims()))))
    }

    fn recurrent(
        &mut self,
        path: &str,
        layer: &Recurrent,
        has: impl Fn(&str) -> bool,
    ) -> Result<Option<(Tensor, String)>> {
        let library = self.library;
        let names = match library.names(path, layer, &library.module(layer.label()), has) {
            Ok(names) => names,
            Err(reason) => {
                self.differences.push(reason);
                return Ok(None);
            }
        };
        let mut told = Vec::new();
        let get = |unit: usize, number: usize| {
            let name = &names[unit][number];
            let entry = self.find(name, library.numbered(name, layer.number() + number).as_deref())?;
            told.push(entry.path());
            Some((entry.path(), entry.tensor()))
        };
        match layer.converted(path, library, &names, get)? {
            Ok(values) => {
                let how = layer.told(library, false);
                let line = match told[..] {
                    [only] => format!("`{only}` becomes `{path}` {:?}{how}", values.dims()),
                    _ => {
                        let (first, last) = (told[0], told[told.len() - 1]);
                        format!("`{first}` to `{last}` become `{path}` {:?}{how}", values.dims())
                    }
                };
                Ok(Some((values, line)))
            }
            Err(differences) => {
                self.differences.extend(differences);
                Ok(None)
            }
        }
    }

    /// Rows of a matrix whose order follows from how images are flattened.
    fn check_flattened(
        &mut self,
        path: &str,
        dims: &[usize],
        images: (usize, String),
        has: impl Fn(&str) -> bool,
    ) {
        let library = self.library;
        let Some((pair, module)) = library.pair(path) else { return };
        let entry = self.find_pair(path, pair, &module, has);
        let said = Some(Note::Flattened { is_first: true });
        if let Some(entry) = entry.filter(|entry| entry.note() != said) {
            self.differences.push(library.flattened(entry.path(), dims[0], images, "channels_first"));
        }
    }
}

impl Checkpoint {
    /// Converts a PyTorch state dict to the parameters of `store`, for a strict [`Load`](super::Load).
    ///
    /// The layer with the label `layer1/0` here is the module `layer1.0` there; [`rename`](Self::rename) the
    /// file first if names differ. The conversion of each parameter depends on the kind of its layer: the
    /// weights of `affine` are transposed, including square ones, and the parameters of normalizations get our
    /// shapes. `multi_head_attention` is an `nn.MultiheadAttention`, `transformer_encode` an
    /// `nn.TransformerEncoderLayer`, `transformer_decode` an `nn.TransformerDecoderLayer`. `rnn`, `gru` and
    /// `lstm_n_step` are `nn.RNN`, `nn.GRU` and `nn.LSTM`, `lstm` and `gru_cell` are `nn.LSTMCell` and
    /// `nn.GRUCell`; the two biases that PyTorch adds up become one. `num_batches_tracked` is ignored. A layer
    /// of `store` without a rule is an error.
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
    /// [`Error::Mismatch`] with every parameter that is missing, unexpected, of another shape, or of a layer
    /// without a rule.
    #[allow(clippy::wrong_self_convention)] // `from` is where the file comes from
    pub fn from_pytorch(self, store: &ParameterStore) -> Result<Self> {
        self.taken_from(&PYTORCH, store)
    }

    /// The reverse: converts our parameters to the names and the layout of PyTorch's `load_state_dict`. Of the
    /// two biases that recurrent layers add up there, the second is 0.
    ///
    /// # Errors
    /// [`Error::Mismatch`] with every parameter of a layer without a rule.
    pub fn to_pytorch(&self) -> Result<Self> {
        self.to_library(&PYTORCH)
    }

    /// Converts a file saved by candle-nn's `VarMap` to the parameters of `store`, like
    /// [`from_pytorch`](Self::from_pytorch): the layer with the label `block/fc` corresponds to
    /// `vb.pp("block.fc")`. `rms_normalization` is an `RmsNorm`, and an `LSTM` or `GRU` is one layer and
    /// direction of `lstm_n_step` or `gru`, or the cell `lstm` or `gru_cell`.
    ///
    /// # Errors
    /// As [`from_pytorch`](Self::from_pytorch).
    #[allow(clippy::wrong_self_convention)] // `from` is where the file comes from
    pub fn from_candle(self, store: &ParameterStore) -> Result<Self> {
        self.taken_from(&CANDLE, store)
    }

    /// The reverse: converts our parameters to those that a `VarBuilder` of candle-nn expects.
    ///
    /// # Errors
    /// As [`to_pytorch`](Self::to_pytorch).
    pub fn to_candle(&self) -> Result<Self> {
        self.to_library(&CANDLE)
    }

    /// Converts Keras weights to the parameters of `store`, for a strict [`Load`](super::Load).
    ///
    /// The layer with the label `fc` here is the layer `fc` there. Files are `.weights.h5`, in which Keras calls each layer after its
    /// class (`layers/dense_1/vars/0` is the `kernel` of `dense_1`), `.h5` as older versions write it
    /// (`model_weights/fc/fc/kernel:0`), or others with names such as `fc/kernel` and `fc.kernel`; [`rename`](Self::rename) the file
    /// before where names differ. A `.keras` has a `.weights.h5` in it.
    ///
    /// The conversion of each parameter depends on the kind of its layer: kernels of `Conv2D`,
    /// `Conv2DTranspose`, `DepthwiseConv2D` and the same layers of other ranks get the channels first. `affine`
    /// is a `Dense`, `bn` a `BatchNormalization`, `embed` an `Embedding`, `multi_head_attention` a
    /// `MultiHeadAttention`; `rnn`, `gru` and `lstm_n_step` of one layer are `SimpleRNN`, `GRU` (with
    /// `reset_after`) and `LSTM`, or these in `Bidirectional`; `gru_cell` and `lstm` are one step of these.
    /// States of optimizers, metrics and random generators are ignored. A layer of `store` without a rule is an
    /// error.
    ///
    /// Keras flattens images with the channels last. If the shapes show that a `Dense` follows a `Flatten`,
    /// this is an error unless the [rule](super::Rule) `channels_first` has been applied to its kernel, with
    /// the size of the images.
    ///
    /// ```
    /// use layerfn::{checkpoint::{Checkpoint, Load}, prelude::*};
    ///
    /// let model = network! { fc: affine(3) }.init((1, 2))?;
    /// # let there = ParameterStore::new();
    /// # there.enter(|| -> layerfn::Result<()> {
    /// #     let set = |name: &str, value| layerfn::set_parameter(name, layerfn::Parameter::new(layerfn::candle_core::Var::from_tensor(&value)?, true));
    /// #     set("model_weights/fc/fc/kernel:0", Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.]], &Device::Cpu)?)?;
    /// #     set("model_weights/fc/fc/bias:0", Tensor::new(&[0f32, 0., 0.], &Device::Cpu)?)
    /// # })?;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("model.h5");
    /// # there.save_parameters(&path)?;
    /// let weights = Checkpoint::open(path)?.from_keras(model.store())?; // `fc` is a `Dense(3, name="fc")`
    /// assert_eq!(weights.changes()[1], "`model_weights/fc/fc/bias:0` [3] becomes `fc/affine/b` [3]");
    /// Load::new(weights).apply_to(model.store(), "")?;
    /// # assert_eq!(model.store().get("fc/affine/W").unwrap().var().to_vec2::<f32>()?, [[1., 2., 3.], [4., 5., 6.]]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mismatch`] with every parameter that is missing, unexpected, of another shape, of a layer
    /// without a rule, or whose meaning the file does not determine.
    #[allow(clippy::wrong_self_convention)] // `from` is where the file comes from
    pub fn from_keras(self, store: &ParameterStore) -> Result<Self> {
        self.taken_from(&KERAS, store)
    }

    /// The reverse: converts our parameters to the names and the layout that Keras 3's `load_weights` expects
    /// in a `.weights.h5`, which is the file to [`save`](Self::save).
    ///
    /// The parameters of the layer `block/fc` become `layers/block/layers/fc/vars/0` and so on. Keras looks for each layer of a
    /// `Sequential` or functional model by its class, as `dense`, `dense_1` in the order of the layers, whatever name it was given, and
    /// for a layer that is an attribute of a model of one's own by the name of the attribute, without `layers/`;
    /// [`rename`](Self::rename) where labels differ.
    ///
    /// Some information must come from [rules](super::Rule). If the shapes show that an affine layer flattens
    /// images, this is an error unless `channels_last` has been applied to its weights, with the size of the
    /// images. `heads` gives the number of attention heads, and `multiplier` the number of maps that a
    /// depthwise convolution makes of each, if it is not 1. Keras's `PReLU` may have more axes of size 1 than a
    /// slope here: `reshape` it. Of the two biases of a GRU that are added up there, the second is 0.
    ///
    /// ```
    /// use layerfn::{checkpoint::Checkpoint, prelude::*};
    ///
    /// let model = network! { conv2d: conv(4, (3, 3)) -> dense: affine(3) }.init((1, 1, 8, 6))?;
    /// let ours = Checkpoint::from_parameters(&model.store().parameters())?;
    /// // The `Conv2D` makes images of 6 × 4, which Keras flattens with the channels last.
    /// let theirs = ours.change(&["channels_last(dense/affine/W, 6, 4)".parse()?])?.to_keras()?;
    /// assert_eq!(theirs.get("layers/conv2d/vars/0").unwrap().tensor().dims(), [3, 3, 1, 4]);
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("model.weights.h5");
    /// theirs.save(path)?; // as `model.weights.h5`
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mismatch`] with every parameter of a layer without a rule, or whose meaning is not determined.
    pub fn to_keras(&self) -> Result<Self> {
        self.to_library(&KERAS)
    }

    fn taken_from(self, library: &'static Library, store: &ParameterStore) -> Result<Self> {
        let parameters = store.parameters();
        let mut source = Source::new(library, &self);
        let (mut entries, mut changes, mut images) =
            (Entries::new(), self.changes.clone(), Images::default());
        for (path, parameter) in parameters.iter() {
            let dims = parameter.var().dims();
            let has = |path: &str| parameters.get(path).is_some();
            if let Some((values, line)) = source.values(path, dims, has)? {
                changes.push(line);
                let entry =
                    Entry::new(path.to_owned(), Var::from_tensor(&values)?, Some(parameter.need_grad()));
                entries.push(entry).map_err(|fault| fault.into_error("convert", &self.origin))?;
            }
            if library.has_channels_last
                && let Some(images) = images.flattened(path, dims)
            {
                source.check_flattened(path, dims, images, has);
            }
        }
        for entry in self.entries() {
            if (library.address)(entry.path()).is_some() && !source.used.contains(entry.path()) {
                source.differences.push(format!("`{}` belongs to no parameter here", entry.path()));
            }
        }
        let differences = source.differences;
        if !differences.is_empty() {
            return Err(Error::Mismatch { file: self.origin, differences });
        }
        Ok(Self { changes, ..Self::new(self.origin, entries.into(), false) })
    }

    fn to_library(&self, library: &'static Library) -> Result<Self> {
        let (mut entries, mut differences) = (Entries::new(), Vec::new());
        let (mut changes, mut thirds) = (self.changes.clone(), BTreeMap::new());
        let mut push = |name, values: &Tensor, need_grad| -> Result<()> {
            let entry = Entry::new(name, Var::from_tensor(values)?, need_grad);
            entries.push(entry).map_err(|fault| fault.into_error("convert", &self.origin))
        };
        let paths: HashSet<&str> = self.entries().iter().map(Entry::path).collect();
        let has = |path: &str| paths.contains(path);
        let written =
            |name: &str, number: usize| library.numbered(name, number).unwrap_or_else(|| name.to_owned());
        let mut images = Images::default();
        for entry in self.entries() {
            let (path, dims) = (entry.path(), entry.tensor().dims());
            if library.has_channels_last
                && let Some(images) = images.flattened(path, dims)
                && entry.note() != Some(Note::Flattened { is_first: false })
            {
                differences.push(library.flattened(path, dims[0], images, "channels_last"));
            }
            if let Some(layer) = Recurrent::of(path, dims) {
                let module = library.grouped(library.module(layer.label()));
                let mut names = match library.names(path, &layer, &module, has) {
                    Ok(names) => names,
                    Err(reason) => {
                        differences.push(reason);
                        continue;
                    }
                };
                for (number, name) in names.iter_mut().flat_map(|names| names.iter_mut().enumerate()) {
                    *name = written(name, layer.number() + number);
                }
                let (values, how) = (layer.back(entry.tensor(), library, &names)?, layer.told(library, true));
                match &values[..] {
                    [(first, _), .., (last, _)] => {
                        changes.push(format!("`{path}` {dims:?} becomes `{first}` to `{last}`{how}"));
                    }
                    [(only, values)] => {
                        changes.push(format!("`{path}` {dims:?} becomes `{only}` {:?}{how}", values.dims()));
                    }
                    [] => {}
                }
                for (name, values) in values {
                    push(name, &values, entry.need_grad())?;
                }
                continue;
            }
            let Some((pair, module)) = library.pair(path) else {
                differences.push(library.has_no_rule(path));
                continue;
            };
            let Some(values) = pair.layout.back(entry.tensor(), entry.note())? else {
                let obstacle = pair.layout.obstacle(path, library.name);
                differences.push(format!("`{path}` of shape {dims:?} {obstacle}"));
                continue;
            };
            let name = library.name(&library.grouped(module), pair.theirs);
            let (name, told) = (written(&name, library.number(pair, path, has)), pair.layout.told(true));
            changes.push(format!("`{path}` {dims:?} becomes `{name}` {:?}{told}", values.dims()));
            let Layout::Third { third, .. } = pair.layout else {
                push(name, &values, entry.need_grad())?;
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
                push(name, &Tensor::cat(&[q, k, v], 0)?, entry.need_grad())?;
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
