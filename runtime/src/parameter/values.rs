//! Parameters as values: a single one, and a collection by path.

use candle_core::{Device, Tensor, TensorId, Var};
use foldhash::quality::RandomState;
use foldhash::{HashMap, HashSet};
use indexmap::IndexMap;

use super::path::segments;
use crate::{Error, Result};

/// A registered parameter: its variable and whether it is trained.
#[derive(Clone, Debug)]
pub struct Parameter {
    var: Var,
    /// The variable outside of any graph; cached, since candle would create a new view each time.
    detached: Tensor,
    need_grad: bool,
    frozen: bool,
}

impl Parameter {
    /// Makes a parameter of `var`.
    #[must_use]
    pub fn new(var: Var, need_grad: bool) -> Self {
        Self { detached: var.as_detached_tensor(), var, need_grad, frozen: false }
    }

    /// Returns the variable, which the store shares: setting it changes the results of the layers.
    #[must_use]
    pub fn var(&self) -> &Var {
        &self.var
    }

    /// Whether it receives gradients and solvers see it; false while it is
    /// [frozen](crate::ParameterStore::freeze).
    #[must_use]
    pub fn need_grad(&self) -> bool {
        self.need_grad && !self.frozen
    }

    /// Whether it is frozen: it receives no gradients and no layer changes it.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    pub(crate) fn set_need_grad(&mut self, need_grad: bool) {
        self.need_grad = need_grad;
    }

    pub(super) fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// The tensor that a computation uses: tracked if `need_grad`, detached otherwise.
    pub(super) fn tensor(&self, need_grad: bool) -> Tensor {
        let tensor = if need_grad { self.var.as_tensor() } else { &self.detached };
        tensor.clone()
    }

    /// Converts the value for [`set`](Self::set), to the variable's type and device.
    pub(super) fn prepared(&self, path: &str, value: &Tensor) -> Result<Tensor> {
        if value.dims() != self.var.dims() {
            let reason = format!("for parameter `{path}` must have its shape {:?}", self.var.dims());
            return Err(Error::invalid("value", reason, value.dims()));
        }
        Ok(value.detach().to_dtype(self.var.dtype())?.to_device(self.var.device())?)
    }

    /// Overwrites the values by a prepared one.
    pub(super) fn set(&self, value: &Tensor) -> Result<()> {
        // candle rejects a value that shares the variable's memory, such as its own tensor.
        self.var.set(value).or_else(|_| self.var.set(&value.copy()?))?;
        Ok(())
    }

    /// A copy of the current values.
    pub(super) fn snapshot(&self) -> Result<Tensor> {
        Ok(self.detached.copy()?)
    }
}

/// Makes copies; a variable under two paths remains a single variable.
pub(super) struct Copier<'a> {
    /// The device of the copies; that of the originals if absent.
    device: Option<&'a Device>,
    copies: HashMap<TensorId, Var>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(device: Option<&'a Device>) -> Self {
        Self { device, copies: HashMap::default() }
    }

    /// A parameter with the same values and flags.
    pub(super) fn copy(&mut self, path: &str, parameter: &Parameter) -> Result<Parameter> {
        let var = match self.copies.get(&parameter.var.id()) {
            Some(copy) => copy.clone(),
            None => self.copied(path, &parameter.var)?,
        };
        self.copies.insert(parameter.var.id(), var.clone());
        let Parameter { need_grad, frozen, .. } = *parameter;
        Ok(Parameter { frozen, ..Parameter::new(var, need_grad) })
    }

    fn copied(&self, path: &str, var: &Var) -> Result<Var> {
        let device = self.device.unwrap_or(var.device());
        let moved =
            var.as_detached_tensor().to_device(device).and_then(|value| Var::from_tensor(&value.copy()?));
        moved.map_err(|error| {
            let reason = format!("must have room for parameter `{path}`: {error}");
            Error::invalid("device", reason, device.location())
        })
    }
}

/// Parameters by path, in NNabla's order.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{affine, get_parameters, ParameterStore};
///
/// ParameterStore::new().enter(|| {
///     let x = Tensor::zeros((4, 3), DType::F32, &Device::Cpu)?;
///     affine(&x, 2).name("fc").call()?;
///     let parameters = get_parameters();
///     assert_eq!(parameters.paths().collect::<Vec<_>>(), ["fc/affine/W", "fc/affine/b"]);
///     assert_eq!(parameters.elem_count(), 3 * 2 + 2);
///     # Ok::<(), layerfn::Error>(())
/// })?;
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Parameters(IndexMap<String, Parameter, RandomState>);

impl Parameters {
    /// The parameter at `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Parameter> {
        self.0.get(path)
    }

    /// Paths and parameters, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.0.iter().map(|(path, parameter)| (path.as_str(), parameter))
    }

    /// The paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The variables, in order, as candle's optimizers take them. A variable with several paths is included
    /// once.
    #[must_use]
    pub fn vars(&self) -> Vec<Var> {
        self.variables().cloned().collect()
    }

    /// Each variable once.
    fn variables(&self) -> impl Iterator<Item = &Var> {
        let mut seen = HashSet::default();
        self.0.values().map(|parameter| &parameter.var).filter(move |var| seen.insert(var.id()))
    }

    /// The parameters below the scope `path`, by their path in it.
    #[must_use]
    pub fn under(&self, path: &str) -> Self {
        let prefix: String = segments(path).flat_map(|segment| [segment, "/"]).collect();
        self.iter()
            .filter_map(|(path, parameter)| Some((path.strip_prefix(&prefix)?.to_owned(), parameter.clone())))
            .collect()
    }

    /// Copies the parameters to `device`, into new variables; a variable under two paths remains a single
    /// variable.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if one cannot be copied there; it names the parameter.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mut copier = Copier::new(Some(device));
        self.iter().map(|(path, parameter)| Ok((path.to_owned(), copier.copy(path, parameter)?))).collect()
    }

    /// The number of parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of elements of all parameters; a variable with several paths counts once.
    #[must_use]
    pub fn elem_count(&self) -> usize {
        self.variables().map(|var| var.elem_count()).sum()
    }
}

impl Parameters {
    pub(super) fn insert(&mut self, path: String, parameter: Parameter) {
        self.0.insert(path, parameter);
    }
}

impl FromIterator<(String, Parameter)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (String, Parameter)>>(parameters: I) -> Self {
        Self(parameters.into_iter().collect())
    }
}

impl IntoIterator for Parameters {
    type Item = (String, Parameter);
    type IntoIter = indexmap::map::IntoIter<String, Parameter>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
