//! Loads checkpoints into stores: compares everything first, then changes everything.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::Location;

use candle_core::{DType, Device, TensorId, Var};

use super::entry::{Entry, Unusable, check_path};
use super::values::first_change;
use super::{Checkpoint, Fault, Outcome};
use crate::limits::{brief, brief_within};
use crate::nearest::nearest;
use crate::parameter::store::Update;
use crate::pattern::{Pattern, Renames};
use crate::{Error, Parameter, ParameterStore, Parameters, Result, current_parameter_scope};

/// Which `need_grad` counts when an existing parameter is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NeedGrad {
    /// A difference is an error.
    Same,
    /// The file's, as in NNabla.
    FromFile,
    /// The store's.
    Keep,
}

/// Loads a checkpoint with configurable rules.
///
/// By default it is strict: the checkpoint and the scope must have the same parameters, with the same shapes,
/// types and flags, and a single variable in the file must be a single one in the scope.
/// [Unusable](Checkpoint::unusable) members of the file cannot be loaded: a load that selects one fails and
/// says why. With [`create_unknown`](Self::create_unknown) it only fails if the scope has a parameter there;
/// the report names the others.
///
/// ```
/// use layerfn::checkpoint::{Checkpoint, Format, Load};
/// use layerfn::{get_all_parameters, get_parameter_or_create};
///
/// get_parameter_or_create("old/affine/W").shape((3, 2)).call()?;
/// get_parameter_or_create("old/affine/b").shape(2).call()?;
/// let bytes = Checkpoint::from_parameters(&get_all_parameters())?.to_bytes(Format::Safetensors)?;
///
/// let checkpoint = Checkpoint::from_bytes(Format::Safetensors, &bytes)?;
/// let load = Load::new(checkpoint).partial(["**/W"]).rename("old/**", "new/**").create_unknown(true).allow_missing(true);
/// assert_eq!(load.plan()?.report().created(), ["new/affine/W"]);
/// let report = load.apply()?;
/// assert_eq!(report.skipped(), ["old/affine/b"]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is loaded before `.apply()?`"]
pub struct Load {
    checkpoint: Checkpoint,
    only: Option<Vec<Pattern>>,
    renames: Renames,
    create_unknown: bool,
    allow_missing: bool,
    cast: bool,
    need_grad: NeedGrad,
    device: Device,
}

impl Load {
    /// Makes a strict load of `checkpoint`.
    pub fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            only: None,
            renames: Renames::default(),
            create_unknown: false,
            allow_missing: false,
            cast: false,
            need_grad: NeedGrad::Same,
            device: Device::Cpu,
        }
    }

    /// Uses NNabla's rules, like [`load_parameters`](crate::load_parameters).
    pub fn like_nnabla(checkpoint: Checkpoint) -> Self {
        Self::new(checkpoint)
            .create_unknown(true)
            .allow_missing(true)
            .cast(true)
            .need_grad(NeedGrad::FromFile)
    }

    /// Loads only parameters that match one of `patterns`, and ignores the rest of the file and of the scope.
    /// In a pattern, `*` and `?` match characters within a component of a path, `**` any number of components.
    ///
    /// Patterns apply to the paths in the file, before [`rename`](Self::rename). A parameter of the scope takes
    /// part if a path of the file that they select would be renamed to it.
    pub fn partial<P: AsRef<str>>(mut self, patterns: impl IntoIterator<Item = P>) -> Self {
        self.only
            .get_or_insert_default()
            .extend(patterns.into_iter().map(|pattern| Pattern::new(pattern.as_ref())));
        self
    }

    /// Loads parameters that match `from` under the path `to`, in which each wildcard is replaced by the match
    /// of the one at the same position. Of several rules, the first that matches counts.
    pub fn rename(mut self, from: &str, to: &str) -> Self {
        self.renames.push(from, to);
        self
    }

    /// Sets whether parameters that the scope does not have are created. Use it before the first call of the
    /// layers; the scope is sealed afterwards (see [`ParameterStore::seal`]). Parameters that are a single
    /// variable in the file become one in the scope; if the scope already has several for it, these stay
    /// separate, and the report names them. Default: false.
    /// Default: false.
    pub fn create_unknown(mut self, create: bool) -> Self {
        self.create_unknown = create;
        self
    }

    /// Sets whether the scope may have parameters that the file lacks; they are left unchanged. Default: false.
    pub fn allow_missing(mut self, allow: bool) -> Self {
        self.allow_missing = allow;
        self
    }

    /// Sets whether values are converted to the type of the parameter. Floats may be rounded; integers are only
    /// converted exactly. Default: false.
    pub fn cast(mut self, cast: bool) -> Self {
        self.cast = cast;
        self
    }

    /// Sets which `need_grad` counts. Default: [`NeedGrad::Same`].
    pub fn need_grad(mut self, need_grad: NeedGrad) -> Self {
        self.need_grad = need_grad;
        self
    }

    /// Sets the device of created parameters. Default: the CPU.
    pub fn device(mut self, device: &Device) -> Self {
        self.device = device.clone();
        self
    }

    /// Returns what [`apply`](Self::apply) would do to the current scope.
    ///
    /// # Errors
    /// Those of conversions that fail for other reasons than their values.
    pub fn plan(&self) -> Result<Plan> {
        let (plan, _) = self.compare(&crate::parameter::access::parameters_with_state())?;
        Ok(plan)
    }

    /// Loads into the current scope, either all or nothing.
    ///
    /// # Errors
    /// [`Error::Mismatch`] with every difference that the rules do not allow; the store is unchanged then.
    #[track_caller]
    pub fn apply(self) -> Result<LoadReport> {
        self.apply_to(&ParameterStore::current(), &current_parameter_scope())
    }

    /// Loads into `scope` of `store`, either all or nothing.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    #[track_caller]
    pub fn apply_to(self, store: &ParameterStore, scope: &str) -> Result<LoadReport> {
        let caller = Location::caller();
        store.update_under(scope, self.checkpoint.origin(), caller, |parameters| {
            let (plan, updates) = self.compare(parameters)?;
            if plan.problems.is_empty() {
                return Ok((updates, plan.report));
            }
            let differences = plan.problems.iter().map(Difference::to_string).collect();
            Err(Error::Mismatch { file: plan.report.file, differences })
        })
    }

    /// Whether the parameter of the file at `path` takes part.
    fn selects(&self, path: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|pattern| pattern.matches(path)))
    }

    /// Whether the parameter of the scope at `path` is to be loaded; with patterns, only if a path that they
    /// select is renamed to it.
    fn asks_for(&self, path: &str) -> bool {
        self.only.is_none() || self.renames.may_make(path, |origin| self.selects(origin))
    }

    /// Finds the changes and the problems. Values are converted here, so that nothing can fail later.
    fn compare(&self, parameters: &Parameters) -> Result<(Plan, Vec<Update>)> {
        let origin = self.checkpoint.origin();
        let mut comparison = Comparison {
            load: self,
            parameters,
            report: LoadReport { file: origin.to_owned(), ..LoadReport::default() },
            problems: Vec::new(),
            updates: Vec::new(),
            variables: HashMap::new(),
        };
        let targets = comparison.targets();
        comparison.conflicts(&targets);
        let unusable = comparison.unusable();
        let taken: HashSet<&str> =
            targets.iter().map(|(path, _)| path).chain(&unusable).map(String::as_str).collect();
        comparison.untied(&targets);
        for (path, entry) in &targets {
            comparison.parameter(path, entry).map_err(|fault| fault.into_error("load", origin))?;
        }
        comparison.tied().map_err(|fault| fault.into_error("load", origin))?;
        comparison.missing(&taken);
        comparison.suggest(&taken);
        let Comparison { report, problems, updates, .. } = comparison;
        Ok((Plan { report, problems }, updates))
    }
}

/// One comparison under way.
struct Comparison<'a> {
    load: &'a Load,
    parameters: &'a Parameters,
    report: LoadReport,
    problems: Vec<Difference>,
    updates: Vec<Update>,
    /// The variable of the scope for each variable of the file.
    variables: HashMap<TensorId, Var>,
}

impl<'a> Comparison<'a> {
    /// The entries that take part, with their new paths.
    fn targets(&mut self) -> Vec<(String, &'a Entry)> {
        let load = self.load;
        let mut targets: Vec<(String, &Entry)> = Vec::new();
        let mut seen = HashSet::new();
        for entry in load.checkpoint.entries() {
            let path = entry.path();
            if !load.selects(path) {
                self.report.skipped.push(path.to_owned());
                continue;
            }
            let target = load.renames.target(path);
            if let Err(Fault::Format(reason)) = check_path(&target) {
                self.problems.push(Difference::Path { path: path.to_owned(), reason });
            } else if !seen.insert(target.clone()) {
                let reason = format!("another parameter of the file gets the name `{target}` too");
                self.problems.push(Difference::Path { path: path.to_owned(), reason });
            } else {
                targets.push((target, entry));
            }
        }
        targets
    }

    /// Separates unusable members; returns their new paths.
    fn unusable(&mut self) -> Vec<String> {
        let load = self.load;
        let mut targets = Vec::new();
        for unusable in load.checkpoint.unusable() {
            if !load.selects(unusable.path()) {
                self.report.skipped.push(unusable.path().to_owned());
                continue;
            }
            let path = load.renames.target(unusable.path());
            if load.create_unknown && self.parameters.get(&path).is_none() {
                self.report.unusable.push(unusable.clone());
            } else {
                let reason = unusable.reason().to_owned();
                self.problems.push(Difference::Unusable { path: path.clone(), reason });
            }
            targets.push(path);
        }
        targets
    }

    /// A path cannot be both a parameter and a scope.
    fn conflicts(&mut self, targets: &[(String, &Entry)]) {
        let leaves: HashSet<&str> =
            self.parameters.paths().chain(targets.iter().map(|(path, _)| path.as_str())).collect();
        let mut scopes = HashSet::new();
        for leaf in &leaves {
            scopes.extend(leaf.match_indices('/').map(|(end, _)| &leaf[..end]));
        }
        for (path, _) in targets {
            let through =
                path.match_indices('/').map(|(end, _)| &path[..end]).find(|scope| leaves.contains(scope));
            let reason = match through {
                Some(leaf) => format!("`{leaf}` is a parameter, not a scope"),
                None if scopes.contains(path.as_str()) => "it is a scope, not a parameter".to_owned(),
                None => continue,
            };
            self.problems.push(Difference::Path { path: path.clone(), reason });
        }
    }

    fn parameter(&mut self, path: &str, entry: &Entry) -> Outcome<()> {
        match self.parameters.get(path) {
            Some(parameter) => self.existing(path, entry, parameter),
            None if self.load.create_unknown => {
                let parameter = Parameter::new(self.variable(entry)?, entry.need_grad_or_default());
                self.report.created.push(path.to_owned());
                if entry.need_grad().is_none() {
                    self.report.guessed.push(path.to_owned());
                }
                self.updates.push(Update { path: path.to_owned(), parameter, value: None });
                Ok(())
            }
            None => {
                self.problems.push(Difference::Unexpected { path: path.to_owned(), nearest: None });
                Ok(())
            }
        }
    }

    /// The scope's variable for that of the entry, or else the entry's own if nothing else uses it, or else a
    /// copy.
    fn variable(&mut self, entry: &Entry) -> Outcome<Var> {
        let id = entry.var().id();
        if let Some(var) = self.variables.get(&id) {
            return Ok(var.clone());
        }
        let var = if self.load.checkpoint.is_owned() && self.load.device.is_cpu() {
            entry.var().clone()
        } else {
            Var::from_tensor(&entry.tensor().detach().to_device(&self.load.device)?)?
        };
        self.variables.insert(id, var.clone());
        Ok(var)
    }

    /// Finds the variable of the scope for each variable of the file, and those for which the scope has
    /// several.
    fn untied(&mut self, targets: &[(String, &Entry)]) {
        let mut first: HashMap<TensorId, &str> = HashMap::new();
        for (path, entry) in targets {
            let (Some(parameter), id) = (self.parameters.get(path), entry.var().id()) else { continue };
            let known = self.variables.entry(id).or_insert_with(|| parameter.var().clone());
            let other = *first.entry(id).or_insert(path);
            if known.id() == parameter.var().id() {
                continue;
            }
            let (path, other) = (path.clone(), other.to_owned());
            if self.load.create_unknown {
                self.report.untied.push((path, other));
            } else {
                self.problems.push(Difference::Untied { path, other });
            }
        }
    }

    fn existing(&mut self, path: &str, entry: &Entry, parameter: &Parameter) -> Outcome<()> {
        let (tensor, var) = (entry.tensor(), parameter.var());
        let path = path.to_owned();
        if tensor.dims() != var.dims() {
            let (file, store) = (tensor.dims().to_vec(), var.dims().to_vec());
            self.problems.push(Difference::Shape { path, file, store });
            return Ok(());
        }
        let need_grad = match (self.load.need_grad, entry.need_grad()) {
            (NeedGrad::FromFile, Some(file)) => file,
            (NeedGrad::Same, Some(file)) if file != parameter.need_grad() => {
                self.problems.push(Difference::NeedGrad { path: path.clone(), file, store: !file });
                file
            }
            _ => parameter.need_grad(),
        };
        let (from, to) = (tensor.dtype(), var.dtype());
        if from != to && !self.load.cast {
            self.problems.push(Difference::Type { path, file: from, store: to });
            return Ok(());
        }
        let mut value = tensor.detach();
        if from != to {
            value = value.to_dtype(to)?;
            if !(from.is_float() && to.is_float())
                && let Some(number) = first_change(tensor, &value)?
            {
                let value = number.to_string();
                self.problems.push(Difference::Value { path, value, store: to });
                return Ok(());
            }
            self.report.converted.push((path.clone(), from, to));
        }
        if !self.load.checkpoint.is_owned() {
            value = value.copy()?;
        }
        let value = value.to_device(var.device())?;
        self.report.updated.push(path.clone());
        let mut parameter = parameter.clone();
        parameter.set_need_grad(need_grad);
        self.updates.push(Update { path, parameter, value: Some(value) });
        Ok(())
    }

    /// If a variable has several paths in the scope, the file's values for them must be equal.
    fn tied(&mut self) -> Outcome<()> {
        let mut first: HashMap<TensorId, &Update> = HashMap::new();
        for update in &self.updates {
            let (Some(value), id) = (&update.value, update.parameter.var().id()) else { continue };
            let Some(other) = first.get(&id) else {
                first.insert(id, update);
                continue;
            };
            let same = match &other.value {
                Some(other) => first_change(value, other)?.is_none(),
                None => true,
            };
            if !same {
                let (path, other) = (update.path.clone(), other.path.clone());
                self.problems.push(Difference::Tied { path, other });
            }
        }
        Ok(())
    }

    fn missing(&mut self, taken: &HashSet<&str>) {
        // A variable with several paths gets its value by one of them.
        let loaded: HashSet<TensorId> =
            self.updates.iter().map(|update| update.parameter.var().id()).collect();
        let is_loaded = |path: &str| {
            let parameter = self.parameters.get(path);
            parameter.is_some_and(|parameter| loaded.contains(&parameter.var().id()))
        };
        for path in self.parameters.paths().filter(|path| !taken.contains(path) && !is_loaded(path)) {
            if self.load.allow_missing || !self.load.asks_for(path) {
                self.report.missing.push(path.to_owned());
            } else {
                self.problems.push(Difference::Missing { path: path.to_owned(), nearest: None });
            }
        }
    }

    /// Adds suggestions to the first unknown paths.
    fn suggest(&mut self, taken: &HashSet<&str>) {
        // Comparing all paths is slow, and more suggestions would not be read.
        const SUGGESTIONS: usize = 20;
        let unexpected: HashMap<String, ()> = self
            .problems
            .iter()
            .filter_map(|problem| match problem {
                Difference::Unexpected { path, .. } => Some((path.clone(), ())),
                _ => None,
            })
            .collect();
        for problem in self.problems.iter_mut().take(SUGGESTIONS) {
            match problem {
                Difference::Unexpected { path, nearest: suggestion } => {
                    let free = self.parameters.paths().filter(|known| !taken.contains(known));
                    *suggestion = nearest(path, free).or_else(|| nearest(path, self.parameters.paths()));
                }
                Difference::Missing { path, nearest: suggestion } => {
                    *suggestion = nearest(path, unexpected.keys().map(String::as_str));
                }
                _ => {}
            }
        }
    }
}

/// The changes that [`Load::apply`] would make, and the problems that prevent them.
#[derive(Clone, Debug)]
pub struct Plan {
    report: LoadReport,
    problems: Vec<Difference>,
}

impl Plan {
    /// The changes that would be made.
    #[must_use]
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// Every difference that the rules do not allow; if there is any, nothing is loaded.
    #[must_use]
    pub fn problems(&self) -> &[Difference] {
        &self.problems
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.fmt(f)?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// A difference between a checkpoint and a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The scope has a parameter that the file lacks.
    Missing {
        /// Path in the scope.
        path: String,
        /// The most similar path of the file.
        nearest: Option<String>,
    },
    /// The file has a parameter that the scope lacks.
    Unexpected {
        /// Path, after renaming.
        path: String,
        /// The most similar path of the scope.
        nearest: Option<String>,
    },
    /// The shapes differ.
    Shape {
        /// Path.
        path: String,
        /// Shape in the file.
        file: Vec<usize>,
        /// Shape in the store.
        store: Vec<usize>,
    },
    /// The types differ.
    Type {
        /// Path.
        path: String,
        /// Type in the file.
        file: DType,
        /// Type in the store.
        store: DType,
    },
    /// A value cannot be represented in the parameter's type.
    Value {
        /// Path.
        path: String,
        /// The first such value.
        value: String,
        /// Type in the store.
        store: DType,
    },
    /// The flags differ.
    NeedGrad {
        /// Path.
        path: String,
        /// `need_grad` in the file.
        file: bool,
        /// `need_grad` in the store.
        store: bool,
    },
    /// The file has two values for one variable of the store.
    Tied {
        /// Path.
        path: String,
        /// The other path of the variable.
        other: String,
    },
    /// The store has two variables for one of the file.
    Untied {
        /// Path.
        path: String,
        /// The other path of the variable.
        other: String,
    },
    /// The file's member at the path is not a parameter, but the load selects it.
    Unusable {
        /// Path, after renaming.
        path: String,
        /// Description of the member.
        reason: String,
    },
    /// The path is not possible in the scope.
    Path {
        /// Path.
        path: String,
        /// The reason.
        reason: String,
    },
}

impl Difference {
    /// The path of the parameter that differs.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Missing { path, .. }
            | Self::Unexpected { path, .. }
            | Self::Shape { path, .. }
            | Self::Type { path, .. }
            | Self::Value { path, .. }
            | Self::NeedGrad { path, .. }
            | Self::Tied { path, .. }
            | Self::Untied { path, .. }
            | Self::Unusable { path, .. }
            | Self::Path { path, .. } => path,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let near = |nearest: &Option<String>| match nearest {
            Some(nearest) => format!("; the nearest is `{}`", brief(nearest)),
            None => String::new(),
        };
        write!(f, "`{}` ", brief(self.path()))?;
        match self {
            Self::Missing { nearest, .. } => write!(f, "is not in the file{}", near(nearest)),
            Self::Unexpected { nearest, .. } => write!(f, "is not in the store{}", near(nearest)),
            Self::Shape { file, store, .. } => {
                write!(f, "has shape {file:?} in the file, {store:?} in the store")
            }
            Self::Type { file, store, .. } => {
                write!(f, "has type {file:?} in the file, {store:?} in the store")
            }
            Self::Value { value, store, .. } => {
                write!(f, "holds {value} in the file, which the store's {store:?} cannot hold")
            }
            Self::NeedGrad { file, store, .. } => {
                write!(f, "has need_grad {file} in the file, {store} in the store")
            }
            Self::Tied { other, .. } => {
                write!(
                    f,
                    "is one variable with `{}` in the store, and has another value in the file",
                    brief(other)
                )
            }
            Self::Untied { other, .. } => {
                write!(
                    f,
                    "is one variable with `{}` in the file and another in the store; before the load, \
                     `ParameterStore::set` the parameter of one path at the other",
                    brief(other)
                )
            }
            Self::Unusable { reason, .. } => {
                write!(f, "cannot be loaded: in the file it {}; `partial` leaves it out", brief(reason))
            }
            Self::Path { reason, .. } => write!(f, "cannot be loaded: {}", brief_within(reason, 600)),
        }
    }
}

/// The result of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    file: String,
    created: Vec<String>,
    guessed: Vec<String>,
    updated: Vec<String>,
    missing: Vec<String>,
    skipped: Vec<String>,
    unusable: Vec<Unusable>,
    untied: Vec<(String, String)>,
    converted: Vec<(String, DType, DType)>,
}

impl LoadReport {
    /// Where the parameters came from.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Paths of the created parameters.
    #[must_use]
    pub fn created(&self) -> &[String] {
        &self.created
    }

    /// Paths of those created parameters that are trained because the file does not say whether they are.
    #[must_use]
    pub fn guessed(&self) -> &[String] {
        &self.guessed
    }

    /// Paths of the existing parameters that now have the file's values.
    #[must_use]
    pub fn updated(&self) -> &[String] {
        &self.updated
    }

    /// Paths of the parameters that the file does not have; they are unchanged.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Paths in the file that no pattern of [`Load::partial`] matched.
    #[must_use]
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Unusable members of the file; the scope has no parameters at their paths.
    #[must_use]
    pub fn unusable(&self) -> &[Unusable] {
        &self.unusable
    }

    /// Paths that share a variable in the file but not in the scope, each with the path that has the shared
    /// one.
    #[must_use]
    pub fn untied(&self) -> &[(String, String)] {
        &self.untied
    }

    /// Paths whose values were converted, with the type in the file and the type in the store.
    #[must_use]
    pub fn converted(&self) -> &[(String, DType, DType)] {
        &self.converted
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} created", self.file, self.created.len())?;
        if !self.guessed.is_empty() {
            write!(f, " ({} trained, as the file does not say)", self.guessed.len())?;
        }
        write!(f, ", {} updated", self.updated.len())?;
        if !self.converted.is_empty() {
            write!(f, " ({} converted)", self.converted.len())?;
        }
        if !self.skipped.is_empty() {
            write!(f, ", {} left out", self.skipped.len())?;
        }
        for (path, other) in &self.untied {
            write!(f, "; `{}` and `{}` are one variable in the file, not here", brief(path), brief(other))?;
        }
        for unusable in &self.unusable {
            write!(f, "; {unusable}")?;
        }
        match &self.missing[..] {
            [] => Ok(()),
            [first] => write!(f, "; `{}` is not in the file", brief(first)),
            [first, rest @ ..] => {
                write!(f, "; `{}` and {} more are not in the file", brief(first), rest.len())
            }
        }
    }
}
