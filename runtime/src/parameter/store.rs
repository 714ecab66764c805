//! Where parameters live.

use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor, Var};
use foldhash::quality::RandomState;
use indexmap::IndexMap;

use super::scope;
use crate::{Error, Result, Rng};

/// A registered parameter: its variable and whether it is trained.
#[derive(Clone, Debug)]
pub struct Parameter {
    var: Var,
    /// The variable without a place in the graph: candle makes such a view anew each time.
    detached: Tensor,
    need_grad: bool,
}

impl Parameter {
    /// A parameter over `var`.
    #[must_use]
    pub fn new(var: Var, need_grad: bool) -> Self {
        Self { detached: var.as_detached_tensor(), var, need_grad }
    }

    /// The variable, shared with the store: setting it changes what the layers compute.
    #[must_use]
    pub fn var(&self) -> &Var {
        &self.var
    }

    /// Whether gradients flow to it and optimizers see it.
    #[must_use]
    pub fn need_grad(&self) -> bool {
        self.need_grad
    }

    /// A variable of its own with the same values on `device`.
    fn to_device(&self, path: &str, device: &Device) -> Result<Self> {
        let moved = self
            .var
            .as_detached_tensor()
            .to_device(device)
            .and_then(|value| Var::from_tensor(&value.copy()?));
        let var = moved.map_err(|error| {
            Error::invalid(
                "device",
                format!("must have room for parameter `{path}`: {error}"),
                device.location(),
            )
        })?;
        Ok(Self::new(var, self.need_grad))
    }

    /// The tensor that a computation uses: tracked if `need_grad`, detached otherwise.
    pub(super) fn tensor(&self, need_grad: bool) -> Tensor {
        let tensor = if need_grad { self.var.as_tensor() } else { &self.detached };
        tensor.clone()
    }

    /// Overwrites the values, keeping type and device of the variable.
    pub(super) fn assign(&self, path: &str, value: &Tensor) -> Result<()> {
        if value.dims() != self.var.dims() {
            let reason = format!("for parameter `{path}` must have its shape {:?}", self.var.dims());
            return Err(Error::invalid("value", reason, value.dims()));
        }
        let value = value.detach().to_dtype(self.var.dtype())?.to_device(self.var.device())?;
        // candle refuses a value that shares the variable's memory, as its own tensor does.
        self.var.set(&value).or_else(|_| self.var.set(&value.copy()?))?;
        Ok(())
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

    /// The variables, in order: what candle's optimizers take.
    #[must_use]
    pub fn vars(&self) -> Vec<Var> {
        self.0.values().map(|parameter| parameter.var.clone()).collect()
    }

    /// Those below the scope `path`, by their path in it.
    #[must_use]
    pub fn under(&self, path: &str) -> Self {
        let prefix: String = segments(path).flat_map(|segment| [segment, "/"]).collect();
        self.iter()
            .filter_map(|(path, parameter)| Some((path.strip_prefix(&prefix)?.to_owned(), parameter.clone())))
            .collect()
    }

    /// Copies of them on `device`, with variables of their own.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if one cannot be copied there; it names the parameter.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let copy =
            |(path, parameter): (&str, &Parameter)| Ok((path.to_owned(), parameter.to_device(path, device)?));
        self.iter().map(copy).collect()
    }

    /// How many parameters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Elements of all parameters together.
    #[must_use]
    pub fn elem_count(&self) -> usize {
        self.0.values().map(|parameter| parameter.var.elem_count()).sum()
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

/// Parameters by path; a clone is another handle to the same parameters.
///
/// Each thread has a current store, an empty one of its own to begin with. Layers create and find their
/// parameters there. [`enter`](Self::enter) makes a store current while a closure runs; many threads may be inside one
/// store at once.
///
/// ```
/// use layerfn::ParameterStore;
/// let store = ParameterStore::current();
/// std::thread::spawn(move || store.enter(|| { /* the layers here use the parameters of the first thread */ }));
/// ```
#[derive(Clone)]
pub struct ParameterStore {
    tree: Arc<Mutex<Tree>>,
    seed: u64,
    noise: Rng,
}

#[derive(Default)]
struct Tree {
    root: Scope,
    /// How often something has been removed, after which members may stand elsewhere.
    removals: u64,
}

/// Where a scope lies in the tree: as long as nothing is removed, it is found there without a search.
#[derive(Clone, Default)]
pub(super) struct Place {
    /// The number of the member at each step from the root.
    members: Vec<usize>,
    removals: u64,
    /// Bytes of the path that `members` lead along.
    length: usize,
}

impl Place {
    /// How far it leads: [`truncate`](Self::truncate) brings it back here.
    pub(super) fn depth(&self) -> (usize, usize) {
        (self.members.len(), self.length)
    }

    pub(super) fn truncate(&mut self, (n_members, length): (usize, usize)) {
        if self.length > length {
            self.members.truncate(n_members);
            self.length = length;
        }
    }
}

impl Tree {
    /// The scope `path`, made if need be, or none if the path runs through a parameter. `place` may know where the path
    /// begins, and knows where it ends then.
    fn locate(&mut self, path: &str, place: &mut Place) -> Option<&mut Scope> {
        if place.removals != self.removals {
            *place = Place { removals: self.removals, ..Place::default() };
        }
        let mut scope = &mut self.root;
        for &index in &place.members {
            match scope.members.get_index_mut(index)? {
                (_, Node::Scope(members)) => scope = members,
                (_, Node::Leaf(_)) => return None,
            }
        }
        if place.length < path.len() {
            for segment in segments(&path[place.length..]) {
                let index = member(scope, segment);
                match &mut scope.members[index] {
                    Node::Scope(members) => scope = members,
                    Node::Leaf(_) => return None,
                }
                place.members.push(index);
            }
            place.length = path.len();
        }
        Some(scope)
    }
}

/// The members of a scope in the order in which they were first entered or registered.
#[derive(Default)]
struct Scope {
    members: IndexMap<String, Node, RandomState>,
    /// The number of the member that was asked for last: the next in order is mostly the next to be asked for.
    last: usize,
}

impl Scope {
    fn index_of(&mut self, name: &str) -> Option<usize> {
        let next = (self.last + 1) % self.members.len().max(1);
        self.last = match self.members.get_index(next) {
            Some((member, _)) if member == name => next,
            _ => self.members.get_index_of(name)?,
        };
        Some(self.last)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        let index = self.index_of(name)?;
        Some(&mut self.members[index])
    }
}

enum Node {
    Scope(Scope),
    Leaf(Leaf),
}

struct Leaf {
    parameter: Parameter,
    created_at: &'static Location<'static>,
}

/// What a layer asks the store for.
pub(super) struct Request<'a> {
    /// Path of the scope.
    pub(super) scope: &'a str,
    pub(super) name: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) need_grad: bool,
    pub(super) asked_at: &'static Location<'static>,
}

impl Request<'_> {
    pub(super) fn path(&self) -> String {
        scope::join(self.scope, self.name)
    }
}

/// One of many changes that are made together.
pub(crate) struct Update {
    pub(crate) path: String,
    /// What is registered: a new parameter, or the variable that is there.
    pub(crate) parameter: Parameter,
    /// What the variable is set to: a tensor of its own shape, type and device.
    pub(crate) value: Option<Tensor>,
}

impl ParameterStore {
    /// NNabla seeds the generator of its initial values with 313 too.
    const DEFAULT_SEED: u64 = 313;

    /// An empty store with the default seed.
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(Self::DEFAULT_SEED)
    }

    /// An empty store whose initial values follow from `seed`.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        let [low, high] = wide(seed);
        Self { tree: Arc::default(), seed, noise: Rng::from_key(&[low, high]) }
    }

    /// The store in which layers called now on this thread keep their parameters.
    #[must_use]
    pub fn current() -> Self {
        scope::current_store()
    }

    /// Runs `f` with this store current and its root as the scope; what was current before is restored after it,
    /// on a panic too.
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        scope::enter_store(self, f)
    }

    /// The seed that initial values follow from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The generator of what is random in a forward pass, such as dropout: seeded once, by the store's seed.
    #[must_use]
    pub fn rng(&self) -> Rng {
        self.noise.clone()
    }

    /// All parameters: depth first over the scopes, members in the order of registration, a sub-scope where it was
    /// first entered. NNabla lists and saves them in this order. Private state, whose name starts with `_`, is among
    /// them.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.parameters_under("")
    }

    /// The parameter at `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Parameter> {
        let (parent, name) = split(path);
        match find_scope_mut(&mut self.lock().root, parent)?.get_mut(name)? {
            Node::Leaf(leaf) => Some(leaf.parameter.clone()),
            Node::Scope(_) => None,
        }
    }

    /// Registers `parameter` at `path`, in place of the one there.
    ///
    /// # Errors
    /// [`Error::PathConflict`] if `path` or a part of it is taken by a scope or a parameter.
    #[track_caller]
    pub fn set(&self, path: &str, parameter: Parameter) -> Result<()> {
        let created_at = Location::caller();
        let mut tree = self.lock();
        let (scope, name) = descend(&mut tree.root, path)?;
        if let Some(Node::Scope(inner)) = scope.members.get(name)
            && !inner.members.is_empty()
        {
            return Err(conflict(path, "is a scope that holds parameters"));
        }
        scope.members.insert(name.to_owned(), Node::Leaf(Leaf { parameter, created_at }));
        Ok(())
    }

    /// Removes and returns the parameter at `path`.
    #[must_use]
    pub fn pop(&self, path: &str) -> Option<Parameter> {
        let mut tree = self.lock();
        let (scope, name) = descend(&mut tree.root, path).ok()?;
        if !matches!(scope.members.get(name)?, Node::Leaf(_)) {
            return None;
        }
        let removed = scope.members.shift_remove(name)?;
        tree.removals += 1;
        match removed {
            Node::Leaf(leaf) => Some(leaf.parameter),
            Node::Scope(_) => None,
        }
    }

    /// A store with copies of all parameters on `device`: paths, order, flags, seed and generator are the same, the
    /// variables are its own.
    ///
    /// A solver keeps updating the variables it was given: give it those of the copy, and its own states with
    /// [`set_states`](crate::solver::Solver::set_states).
    ///
    /// ```
    /// use layerfn::prelude::*;
    ///
    /// let x = Tensor::zeros((4, 3), DType::F32, &Device::Cpu)?;
    /// affine(&x, 2).name("fc").call()?;
    ///
    /// let device = Device::cuda_if_available(0).unwrap_or(Device::Cpu);
    /// let store = ParameterStore::current().to_device(&device)?;
    /// let y = store.enter(|| affine(&x.to_device(&device)?, 2).name("fc").call())?;
    /// assert!(y.device().same_device(&device));
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a parameter cannot be copied there; it names the parameter.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let root = copied(&self.lock().root, "", device)?;
        let tree = Tree { root, removals: 0 };
        Ok(Self { tree: Arc::new(Mutex::new(tree)), seed: self.seed, noise: self.noise.clone() })
    }

    /// Removes every parameter.
    pub fn clear(&self) {
        self.clear_under("");
    }

    pub(super) fn clear_under(&self, path: &str) {
        let mut tree = self.lock();
        if let Some(scope) = find_scope_mut(&mut tree.root, path) {
            scope.members.clear();
            tree.removals += 1;
        }
    }

    pub(super) fn parameters_under(&self, path: &str) -> Parameters {
        list_under(&mut self.lock().root, path)
    }

    /// Changes many parameters of the scope `path` in one step: `plan` sees what is there and says what to do.
    /// If it fails, or something stands in the way of one change, none is made.
    pub(crate) fn update_under<R>(
        &self,
        path: &str,
        created_at: &'static Location<'static>,
        plan: impl FnOnce(&Parameters) -> Result<(Vec<Update>, R)>,
    ) -> Result<R> {
        let tree = &mut self.lock().root;
        let (mut updates, result) = plan(&list_under(tree, path))?;
        for update in &mut updates {
            update.path = scope::join(path, &update.path);
            check_place(tree, &update.path)?;
        }
        for Update { path, parameter, value } in updates {
            if let Some(value) = value {
                parameter.var.set(&value)?;
            }
            let (scope, name) = descend(tree, &path)?;
            match scope.get_mut(name) {
                Some(Node::Leaf(leaf)) => leaf.parameter = parameter,
                _ => drop(scope.members.insert(name.to_owned(), Node::Leaf(Leaf { parameter, created_at }))),
            }
        }
        Ok(result)
    }

    /// Gives the scope its place in the order; a parameter of that path is reported when a parameter is asked for.
    pub(super) fn claim_scope(&self, path: &str, place: &mut Place) {
        self.lock().locate(path, place);
    }

    /// Registers a new parameter. Another thread may have been faster: its value is the same, and stays shared.
    pub(super) fn insert_new(&self, request: &Request<'_>, value: &Tensor) -> Result<Parameter> {
        let parameter = Parameter::new(Var::from_tensor(value)?, request.need_grad);
        let path = request.path();
        let mut tree = self.lock();
        let (scope, name) = descend(&mut tree.root, &path)?;
        match scope.members.entry(name.to_owned()).or_insert_with(|| {
            Node::Leaf(Leaf { parameter: parameter.clone(), created_at: request.asked_at })
        }) {
            Node::Leaf(leaf) => Ok(leaf.parameter.clone()),
            Node::Scope(_) => Err(conflict(&path, "is a scope, not a parameter")),
        }
    }

    /// The parameter that is asked for, if it exists, after checking its shape and taking over its `need_grad`. `place`
    /// is that of the scope, as in [`Tree::locate`].
    pub(super) fn get_checked<R>(
        &self,
        request: &Request<'_>,
        place: &mut Place,
        look: impl FnOnce(&Parameter) -> R,
    ) -> Result<Option<R>> {
        let mut tree = self.lock();
        // A name of several parts, or a parameter on the way, goes the long way.
        let is_plain = !request.name.is_empty() && !request.name.as_bytes().contains(&b'/');
        let located = if is_plain { tree.locate(request.scope, place) } else { None };
        let leaf = match located {
            Some(scope) => scope.get_mut(request.name),
            None => {
                let path = request.path();
                let (scope, name) = descend(&mut tree.root, &path)?;
                scope.get_mut(name)
            }
        };
        match leaf {
            None => Ok(None),
            Some(Node::Scope(_)) => Err(conflict(&request.path(), "is a scope, not a parameter")),
            Some(Node::Leaf(leaf)) if leaf.parameter.var.dims() != request.shape => {
                Err(Error::ShapeMismatch {
                    path: request.path(),
                    stored: leaf.parameter.var.dims().to_vec(),
                    wanted: request.shape.to_vec(),
                    created_at: leaf.created_at,
                    asked_at: request.asked_at,
                })
            }
            Some(Node::Leaf(leaf)) => {
                leaf.parameter.need_grad = request.need_grad;
                Ok(Some(look(&leaf.parameter)))
            }
        }
    }

    /// The generator of one parameter's initial value. Every part of the key is preceded by its length, so that
    /// `ab/c` and `a/bc` differ. What can be long comes last: the generator reads 624 words.
    pub(super) fn stream(&self, path: &str, shape: &[usize], initializer: [u64; 3]) -> Rng {
        let mut key = wide(self.seed).to_vec();
        key.extend(initializer.into_iter().flat_map(wide));
        key.push(shape.len() as u32);
        key.extend(shape.iter().flat_map(|&size| wide(size as u64)));
        for segment in segments(path) {
            key.push(segment.len() as u32);
            key.extend(
                segment
                    .as_bytes()
                    .chunks(4)
                    .map(|bytes| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))),
            );
        }
        Rng::from_key(&key)
    }

    fn lock(&self) -> MutexGuard<'_, Tree> {
        // A panic while the lock is held leaves whole entries behind: nothing here changes a scope in two steps.
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ParameterStore {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ParameterStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parameters = self.parameters();
        let shapes = parameters.iter().map(|(path, parameter)| (path, parameter.var.dims().to_vec()));
        f.debug_map().entries(shapes).finish()
    }
}

fn wide(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// The parts of a path; empty ones do not count, so `/a//b/` is `a/b`.
pub(super) fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// Parent scope and last segment.
fn split(path: &str) -> (&str, &str) {
    path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path.trim_end_matches('/')))
}

/// The scope that holds the last segment of `path`, made if need be, and that segment.
fn descend<'a, 'p>(tree: &'a mut Scope, path: &'p str) -> Result<(&'a mut Scope, &'p str)> {
    let (parent, name) = split(path);
    if name.is_empty() {
        return Err(Error::invalid("path", "must not be empty", path));
    }
    let mut scope = tree;
    for segment in segments(parent) {
        let index = member(scope, segment);
        scope = match &mut scope.members[index] {
            Node::Scope(members) => members,
            Node::Leaf(_) => return Err(conflict(path, "runs through a parameter as if it were a scope")),
        };
    }
    Ok((scope, name))
}

/// The number of the member `name`, a new scope if there is none.
fn member(scope: &mut Scope, name: &str) -> usize {
    match scope.index_of(name) {
        Some(index) => index,
        None => scope.members.insert_full(name.to_owned(), Node::Scope(Scope::default())).0,
    }
}

/// The scope `path` with its parameters on `device`.
fn copied(scope: &Scope, path: &str, device: &Device) -> Result<Scope> {
    let copy = |(name, node): (&String, &Node)| {
        let path = scope::join(path, name);
        let node = match node {
            Node::Scope(members) => Node::Scope(copied(members, &path, device)?),
            Node::Leaf(Leaf { parameter, created_at }) => {
                Node::Leaf(Leaf { parameter: parameter.to_device(&path, device)?, created_at })
            }
        };
        Ok((name.clone(), node))
    };
    Ok(Scope { members: scope.members.iter().map(copy).collect::<Result<_>>()?, last: 0 })
}

fn list_under(tree: &mut Scope, path: &str) -> Parameters {
    fn collect(scope: &Scope, prefix: &str, found: &mut Parameters) {
        for (name, node) in &scope.members {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            match node {
                Node::Scope(members) => collect(members, &path, found),
                Node::Leaf(leaf) => drop(found.0.insert(path, leaf.parameter.clone())),
            }
        }
    }
    let mut found = Parameters::default();
    if let Some(scope) = find_scope_mut(tree, path) {
        collect(scope, "", &mut found);
    }
    found
}

/// Fails where [`descend`] or the registration of a parameter would, and changes nothing.
fn check_place(tree: &Scope, path: &str) -> Result<()> {
    let (parent, name) = split(path);
    let mut scope = tree;
    for segment in segments(parent) {
        scope = match scope.members.get(segment) {
            Some(Node::Scope(members)) => members,
            Some(Node::Leaf(_)) => {
                return Err(conflict(path, "runs through a parameter as if it were a scope"));
            }
            None => return Ok(()),
        };
    }
    match scope.members.get(name) {
        Some(Node::Scope(inner)) if !inner.members.is_empty() => {
            Err(conflict(path, "is a scope that holds parameters"))
        }
        _ => Ok(()),
    }
}

fn find_scope_mut<'a>(tree: &'a mut Scope, path: &str) -> Option<&'a mut Scope> {
    segments(path).try_fold(tree, |scope, segment| match scope.get_mut(segment)? {
        Node::Scope(members) => Some(members),
        Node::Leaf(_) => None,
    })
}

fn conflict(path: &str, conflict: &'static str) -> Error {
    Error::PathConflict { path: path.to_owned(), conflict }
}
