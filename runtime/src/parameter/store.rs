//! The store of parameters.

use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor, TensorId, Var};
use foldhash::HashSet;
use foldhash::quality::RandomState;
use indexmap::IndexMap;

use super::path::{is_in, join, segments, split};
use super::values::{Copier, Parameter, Parameters};
use crate::limits;
use crate::nearest::nearest;
use crate::pattern::Pattern;
use crate::{Error, Result, Rng};

/// Parameters by path. A clone is another handle to the same parameters.
///
/// Layers create and find their parameters in the current store of their thread. [`enter`](Self::enter) makes a
/// store current while a closure runs; many threads may be in the same store at once.
///
/// # Threads
/// The main thread starts in the default store of the program. All other threads start without a store: a layer
/// that asks for a parameter there gets [`Error::NoStore`], so that no thread silently uses parameters that
/// were never trained or loaded. [`Context`](crate::Context) brings store, scope and mode to another thread; a
/// [`Model`](crate::Model) has its parameters with it on any thread; tests and libraries can isolate themselves
/// with `ParameterStore::new().enter(..)`. `examples/serve.rs` is a server that shows both ways.
///
/// ```
/// use layerfn::prelude::*;
///
/// let x = Tensor::ones((4, 3), DType::F32, &Device::Cpu)?;
/// let store = ParameterStore::new();
/// std::thread::scope(|threads| {
///     threads.spawn(|| assert!(affine(&x, 2).call().is_err()));
///     threads.spawn(|| store.enter(|| affine(&x, 2).call().unwrap()));
/// });
/// assert_eq!(store.parameters().len(), 2);
/// # Ok::<(), layerfn::Error>(())
/// ```
///
/// The main thread is the one that Rust's runtime names `main`. If there is none, as in a library that is
/// called from C or Python, enter a store on each thread.
#[derive(Clone)]
pub struct ParameterStore(Arc<Inner>);

struct Inner {
    /// Every layer locks it, so it is only held for moments: never while values are computed, copied or set.
    tree: Mutex<Tree>,
    /// Serializes reads and changes of the values of many parameters; layers do not wait for it.
    turn: Mutex<()>,
    seed: u64,
    noise: Rng,
}

#[derive(Default)]
struct Tree {
    root: Scope,
    /// Number of removals; members may have other indices after one.
    removals: u64,
    /// Scopes in which layers create no parameters.
    seals: Vec<Seal>,
    /// Whether any parameter may be frozen.
    has_frozen: bool,
}

#[derive(Clone)]
struct Seal {
    scope: String,
    by: Sealer,
}

/// The reason why a scope is sealed.
#[derive(Clone)]
enum Sealer {
    /// [`ParameterStore::seal`].
    Request,
    /// [`Network::init`](crate::Network::init).
    Model,
    /// A load of this file into the scope, which was empty.
    File(String),
    /// The store of a thread that has not entered one.
    NoStore,
}

/// The place of a scope in the tree: as long as nothing is removed, it is found without a search.
#[derive(Clone, Default)]
pub(crate) struct Place {
    /// The index of the member at each step from the root.
    members: Vec<usize>,
    removals: u64,
    /// Length in bytes of the path that `members` describe.
    length: usize,
}

impl Place {
    /// Its depth: [`truncate`](Self::truncate) returns to it.
    pub(crate) fn depth(&self) -> (usize, usize) {
        (self.members.len(), self.length)
    }

    pub(crate) fn truncate(&mut self, (n_members, length): (usize, usize)) {
        if self.length > length {
            self.members.truncate(n_members);
            self.length = length;
        }
    }
}

impl Tree {
    /// The scope `path`, created if necessary, or `None` if the path leads through a parameter. `place` may
    /// have the place of a prefix of the path, and has that of the whole path afterwards.
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
                let index = match scope.index_of(segment) {
                    Some(index) => index,
                    None => {
                        // A request for a parameter there reports the error.
                        check_name("path", path).ok()?;
                        member(scope, segment)
                    }
                };
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

    /// Checks that a layer may create the parameter `path`.
    fn check_open(&mut self, path: &str) -> Result<()> {
        let Some(seal) = self.seals.iter().find(|seal| is_in(path, &seal.scope)) else { return Ok(()) };
        let by = match &seal.by {
            Sealer::NoStore => return Err(Error::NoStore { path: path.to_owned() }),
            Sealer::Request => "by `seal`".to_owned(),
            Sealer::Model => "by `init`, which made what the model asked for then".to_owned(),
            Sealer::File(file) => format!("since `{file}` was loaded into it when it was empty"),
        };
        let scope = seal.scope.clone();
        let known = list_under(&mut self.root, "");
        let nearest = nearest(path, known.paths());
        Err(Error::Sealed { path: path.to_owned(), scope, by, nearest })
    }

    /// Checks that the parameter `path` may be registered at all.
    fn check_entered(&self, path: &str) -> Result<()> {
        match self.seals.first() {
            Some(Seal { by: Sealer::NoStore, .. }) => Err(Error::NoStore { path: path.to_owned() }),
            _ => Ok(()),
        }
    }

    /// Registers `updates` in the scope `path` and returns the values that are to be set, or `None` if the
    /// parameters are no longer those of `before`.
    fn register(
        &mut self,
        path: &str,
        file: &str,
        before: &Parameters,
        mut updates: Vec<Update>,
        created_at: &'static Location<'static>,
    ) -> Result<Option<Vec<Change>>> {
        let now = list_under(&mut self.root, path);
        if now.len() != before.len()
            || updates.iter().any(|update| var_of(&now, update) != var_of(before, update))
        {
            return Ok(None);
        }
        for update in &mut updates {
            update.path = join(path, &update.path);
            self.check_entered(&update.path)?;
            check_place(&self.root, &update.path)?;
        }
        if before.is_empty() {
            self.seals.push(Seal { scope: join("", path), by: Sealer::File(file.to_owned()) });
        }
        let mut changes = Vec::new();
        for Update { path, parameter, value } in updates {
            let (scope, name) = descend(&mut self.root, &path)?;
            if let Some(value) = value {
                changes.push(Change { version: scope.version(), var: parameter.var().clone(), value });
            }
            match scope.get_mut(name) {
                Some(Node::Leaf(leaf)) => leaf.parameter = parameter,
                _ => {
                    drop(scope.members.insert(name.to_owned(), Node::Leaf(Leaf::new(parameter, created_at))))
                }
            }
        }
        self.settle();
        Ok(Some(changes))
    }

    /// Recomputes which scopes are frozen.
    fn settle(&mut self) {
        if self.has_frozen {
            self.has_frozen = self.root.settle().0;
        }
    }
}

/// The members of a scope in the order in which they were first entered or registered.
#[derive(Clone, Default)]
struct Scope {
    members: IndexMap<String, Node, RandomState>,
    /// The index of the last requested member: usually the following one is requested next.
    last: usize,
    /// Whether it has parameters and all of them are frozen.
    frozen: bool,
    /// Locked while the values of the scope's own parameters are set by anyone but a solver; created on first
    /// use.
    version: Option<Version>,
}

/// How often the values of a scope's parameters have been set.
pub(super) type Version = Arc<Mutex<u64>>;

impl Scope {
    fn index_of(&mut self, name: &str) -> Option<usize> {
        let next = if self.last + 1 < self.members.len() { self.last + 1 } else { 0 };
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

    fn version(&mut self) -> Version {
        Arc::clone(self.version.get_or_insert_default())
    }

    /// Copies have their own values, and so their own versions.
    fn forget_versions(&mut self) {
        self.version = None;
        for node in self.members.values_mut() {
            if let Node::Scope(scope) = node {
                scope.forget_versions();
            }
        }
    }

    /// Whether any parameter below is frozen, and whether all are.
    fn settle(&mut self) -> (bool, bool) {
        let (mut any, mut all) = (false, true);
        for node in self.members.values_mut() {
            let (some_frozen, all_frozen) = match node {
                Node::Scope(scope) => scope.settle(),
                Node::Leaf(leaf) => (leaf.parameter.is_frozen(), leaf.parameter.is_frozen()),
            };
            any |= some_frozen;
            all &= all_frozen;
        }
        self.frozen = any && all;
        (any, all)
    }

    /// Calls `f` with every parameter and its path.
    fn each_leaf(&mut self, path: &str, f: &mut impl FnMut(&str, &mut Leaf) -> Result<()>) -> Result<()> {
        for (name, node) in &mut self.members {
            let path = join(path, name);
            match node {
                Node::Scope(members) => members.each_leaf(&path, f)?,
                Node::Leaf(leaf) => f(&path, leaf)?,
            }
        }
        Ok(())
    }
}

#[derive(Clone)]
enum Node {
    Scope(Scope),
    Leaf(Leaf),
}

#[derive(Clone)]
struct Leaf {
    parameter: Parameter,
    /// Whether a layer has declared it as not trained.
    is_state: bool,
    created_at: &'static Location<'static>,
}

impl Leaf {
    fn new(parameter: Parameter, created_at: &'static Location<'static>) -> Self {
        Self { parameter, is_state: false, created_at }
    }
}

/// A layer's request for a parameter.
pub(super) struct Request<'a> {
    /// Path of the scope.
    pub(super) scope: &'a str,
    pub(super) name: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) need_grad: bool,
    /// Whether `need_grad` replaces the flag of an existing parameter. Otherwise it can only clear the flag.
    pub(super) overwrites: bool,
    pub(super) asked_at: &'static Location<'static>,
}

impl Request<'_> {
    pub(super) fn path(&self) -> String {
        join(self.scope, self.name)
    }
}

/// A value that is set after the tree is unlocked.
struct Change {
    version: Version,
    var: Var,
    value: Tensor,
}

/// One of many changes that are made together.
pub(crate) struct Update {
    pub(crate) path: String,
    /// The parameter to register: a new one, or one with the existing variable.
    pub(crate) parameter: Parameter,
    /// The new value of the variable: a tensor of its shape, type and device.
    pub(crate) value: Option<Tensor>,
}

impl ParameterStore {
    /// NNabla also seeds the generator of its initial values with 313.
    const DEFAULT_SEED: u64 = 313;

    /// Creates an empty store with the default seed.
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(Self::DEFAULT_SEED)
    }

    /// Creates an empty store whose initial values follow from `seed`.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self::with_tree(Tree::default(), seed, noise_of(seed))
    }

    /// The store of a thread that has not entered one: it always is empty.
    pub(crate) fn of_no_thread() -> Self {
        let seals = vec![Seal { scope: String::new(), by: Sealer::NoStore }];
        Self::with_tree(Tree { seals, ..Tree::default() }, Self::DEFAULT_SEED, noise_of(Self::DEFAULT_SEED))
    }

    /// The store of a model with these parameters: sealed, and with a fresh generator.
    pub(crate) fn of_model(self) -> Self {
        let mut tree = std::mem::take(&mut *self.lock());
        tree.seals.push(Seal { scope: String::new(), by: Sealer::Model });
        Self::with_tree(tree, self.0.seed, noise_of(self.0.seed))
    }

    fn with_tree(tree: Tree, seed: u64, noise: Rng) -> Self {
        Self(Arc::new(Inner { tree: Mutex::new(tree), turn: Mutex::default(), seed, noise }))
    }

    /// The seed that initial values follow from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The generator of random numbers in a forward pass, such as those of dropout: seeded once, with the
    /// store's seed.
    #[must_use]
    pub fn rng(&self) -> Rng {
        self.0.noise.clone()
    }

    /// All parameters, depth first: members of a scope are in the order of registration, and a sub-scope is at
    /// the position where it was first entered. NNabla lists and saves them in the same order. Private state,
    /// whose name starts with `_`, is included.
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

    /// The location where the parameter at `path` was registered, which is the call of its layer.
    pub(crate) fn created_at(&self, path: &str) -> Option<&'static Location<'static>> {
        let (parent, name) = split(path);
        match find_scope_mut(&mut self.lock().root, parent)?.get_mut(name)? {
            Node::Leaf(leaf) => Some(leaf.created_at),
            Node::Scope(_) => None,
        }
    }

    /// Registers `parameter` at `path`, replacing an existing one.
    ///
    /// # Errors
    /// [`Error::PathConflict`] if `path` or a prefix of it is taken by a scope or a parameter;
    /// [`Error::InvalidArgument`] if no file could contain `path`.
    #[track_caller]
    pub fn set(&self, path: &str, parameter: Parameter) -> Result<()> {
        let created_at = Location::caller();
        check_name("path", path)?;
        let mut tree = self.lock();
        tree.check_entered(path)?;
        let (scope, name) = descend(&mut tree.root, path)?;
        if let Some(Node::Scope(inner)) = scope.members.get(name)
            && !inner.members.is_empty()
        {
            return Err(conflict(path, "is a scope that holds parameters"));
        }
        scope.members.insert(name.to_owned(), Node::Leaf(Leaf::new(parameter, created_at)));
        tree.settle();
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
        tree.settle();
        match removed {
            Node::Leaf(leaf) => Some(leaf.parameter),
            Node::Scope(_) => None,
        }
    }

    /// A store with copies of all parameters on `device`: paths, order, flags, seed and generator are the same,
    /// but it has its own variables.
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
        self.copied(Some(device), self.rng())
    }

    /// A store with copies of all parameters on the same devices: paths, order, flags, seals and seed are the
    /// same, but it has its own variables and generator. A variable under two paths remains a single variable
    /// in the copy.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no memory for a parameter; it names the parameter.
    pub fn deep_copy(&self) -> Result<Self> {
        self.copied(None, self.0.noise.copied())
    }

    fn copied(&self, device: Option<&Device>, noise: Rng) -> Result<Self> {
        let _turn = lock(&self.0.turn);
        let (mut root, seals, has_frozen) = {
            let tree = self.lock();
            (tree.root.clone(), tree.seals.clone(), tree.has_frozen)
        };
        root.forget_versions();
        let mut copier = Copier::new(device);
        root.each_leaf("", &mut |path, leaf| {
            leaf.parameter = copier.copy(path, &leaf.parameter)?;
            Ok(())
        })?;
        Ok(Self::with_tree(Tree { root, removals: 0, seals, has_frozen }, self.0.seed, noise))
    }

    /// From now on, a layer that asks for a missing parameter gets [`Error::Sealed`], which names the nearest
    /// existing path. Parameters can still be created explicitly, by [`set_parameter`](crate::set_parameter)
    /// and by loads.
    ///
    /// ```
    /// use layerfn::prelude::*;
    ///
    /// let x = Tensor::ones((4, 3), DType::F32, &Device::Cpu)?;
    /// let store = ParameterStore::new();
    /// store.enter(|| affine(&x, 2).name("hidden").call())?;
    /// store.seal();
    /// let error = store.enter(|| affine(&x, 2).name("hiden").call()).unwrap_err();
    /// assert!(error.to_string().contains("`hidden/affine/W`"), "{error}");
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    ///
    /// Loading a file into an empty scope also seals it: a parameter that is missing afterwards was most likely
    /// requested under a wrong name. To load a part of a model and create the rest, create all of it first, or
    /// [`unseal`](Self::unseal) the store after the load.
    pub fn seal(&self) {
        let mut tree = self.lock();
        tree.seals.retain(|seal| !matches!(seal.by, Sealer::Request));
        tree.seals.push(Seal { scope: String::new(), by: Sealer::Request });
    }

    /// Allows layers to create missing parameters again, including in scopes that a load has sealed.
    pub fn unseal(&self) {
        self.lock().seals.retain(|seal| matches!(seal.by, Sealer::NoStore));
    }

    /// Whether the store or one of its scopes is sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        !self.lock().seals.is_empty()
    }

    /// Freezes the parameters whose path matches `pattern`: they receive no gradients, no solver and no layer
    /// changes them, and no forward pass undoes that.
    ///
    /// A layer whose parameters are all frozen runs in [`test_mode`](crate::test_mode): its batch normalization
    /// uses the running statistics and does not change them. A variable under several paths is frozen under all
    /// of them. In a pattern, `*` and `?` match characters within a component of a path, and `**` matches any
    /// number of components. Files store `need_grad`, which is false for frozen parameters, but not that they
    /// are frozen: freeze them again after a load.
    /// ```
    /// use layerfn::prelude::*;
    ///
    /// let x = Tensor::ones((4, 3), DType::F32, &Device::Cpu)?;
    /// let net = network! { features: { affine(8) -> bn -> relu } -> head: affine(2) };
    /// let store = ParameterStore::new();
    /// store.enter(|| net.forward(&x))?;
    /// store.freeze("features/**")?;
    /// let trained = store.enter(|| net.forward(&x).map(|_| get_parameters()))?;
    /// assert_eq!(trained.paths().collect::<Vec<_>>(), ["head/affine/W", "head/affine/b"]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoParameter`] if the pattern matches no parameter.
    pub fn freeze(&self, pattern: &str) -> Result<()> {
        self.each_matching(pattern, |leaf| leaf.parameter.set_frozen(true))
    }

    /// Undoes [`freeze`](Self::freeze) for the parameters whose path matches `pattern`, and makes them
    /// trainable again, unless their layer has declared them as not trained.
    ///
    /// # Errors
    /// [`Error::NoParameter`] if the pattern matches no parameter.
    pub fn unfreeze(&self, pattern: &str) -> Result<()> {
        self.each_matching(pattern, |leaf| {
            leaf.parameter.set_frozen(false);
            leaf.parameter.set_need_grad(!leaf.is_state);
        })
    }

    /// Changes every leaf whose variable has a path that matches.
    fn each_matching(&self, pattern: &str, change: impl Fn(&mut Leaf)) -> Result<()> {
        let matcher = Pattern::new(pattern);
        let mut tree = self.lock();
        let known = list_under(&mut tree.root, "");
        let matching = known.iter().filter(|(path, _)| matcher.matches(path));
        let vars: HashSet<TensorId> = matching.map(|(_, parameter)| parameter.var().id()).collect();
        if vars.is_empty() {
            let nearest = nearest(pattern, known.paths());
            return Err(Error::NoParameter { path: pattern.to_owned(), nearest });
        }
        tree.root.each_leaf("", &mut |_, leaf| {
            if vars.contains(&leaf.parameter.var().id()) {
                change(leaf);
            }
            Ok(())
        })?;
        tree.has_frozen = true;
        tree.settle();
        Ok(())
    }

    /// Removes every parameter, and the seals of the loads that created them.
    pub fn clear(&self) {
        self.clear_under("");
    }

    pub(super) fn clear_under(&self, path: &str) {
        let mut tree = self.lock();
        if let Some(scope) = find_scope_mut(&mut tree.root, path) {
            scope.members.clear();
            tree.removals += 1;
        }
        tree.seals.retain(|seal| !matches!(seal.by, Sealer::File(_)) || !is_in(&seal.scope, &join("", path)));
        tree.settle();
    }

    pub(super) fn parameters_under(&self, path: &str) -> Parameters {
        list_under(&mut self.lock().root, path)
    }

    /// Changes many parameters of the scope `path` in one step: `plan` sees the current ones and returns the
    /// changes; it is called again if another thread was faster. If it fails, or one change is impossible, none
    /// is made. If the scope was empty, it is sealed; `file` is the source of the changes.
    pub(crate) fn update_under<R>(
        &self,
        path: &str,
        file: &str,
        created_at: &'static Location<'static>,
        plan: impl Fn(&Parameters) -> Result<(Vec<Update>, R)>,
    ) -> Result<R> {
        let _turn = lock(&self.0.turn);
        loop {
            let before = self.parameters_under(path);
            let (updates, result) = plan(&before)?;
            let Some(changes) = self.lock().register(path, file, &before, updates, created_at)? else {
                continue;
            };
            for Change { version, var, value } in changes {
                let mut version = lock(&version);
                var.set(&value)?;
                *version += 1;
            }
            return Ok(result);
        }
    }

    /// Registers the scope at its position in the order, and returns whether it is frozen. If there is a
    /// parameter at that path, the next request for a parameter reports it.
    pub(crate) fn claim_scope(&self, path: &str, place: &mut Place) -> bool {
        self.lock().locate(path, place).is_some_and(|scope| scope.frozen)
    }

    /// The lock that is held while values of parameters are set together, and the parameters at these paths in
    /// the scope. The lock is that of the scope of the first parameter.
    pub(super) fn state<const N: usize>(
        &self,
        scope: &str,
        paths: [&str; N],
    ) -> Result<(Version, [Parameter; N])> {
        let missing = |path: &str| Error::NoParameter { path: join(scope, path), nearest: None };
        let mut tree = self.lock();
        let mut found = Vec::with_capacity(N);
        let mut version = None;
        for path in paths {
            // Most are directly in the scope.
            let (members, name) = match path.rsplit_once('/') {
                Some((below, name)) => (find_scope_mut(&mut tree.root, &join(scope, below)), name),
                None => (find_scope_mut(&mut tree.root, scope), path),
            };
            let members = members.ok_or_else(|| missing(path))?;
            match members.get_mut(name) {
                Some(Node::Leaf(leaf)) => found.push(leaf.parameter.clone()),
                _ => return Err(missing(path)),
            }
            version.get_or_insert_with(|| members.version());
        }
        // There are as many as paths.
        let found = found.try_into().map_err(|_| missing(""))?;
        Ok((version.ok_or_else(|| missing(""))?, found))
    }

    /// Registers a new parameter. If another thread was faster, its value is the same, and is used.
    pub(super) fn insert_new(&self, request: &Request<'_>, value: &Tensor) -> Result<Parameter> {
        let path = request.path();
        check_name("name", &path)?;
        let parameter = Parameter::new(Var::from_tensor(value)?, request.need_grad);
        let mut tree = self.lock();
        tree.check_open(&path)?;
        let (scope, name) = descend(&mut tree.root, &path)?;
        let new = || {
            let leaf = Leaf::new(parameter, request.asked_at);
            Node::Leaf(Leaf { is_state: !request.need_grad, ..leaf })
        };
        let parameter = match scope.members.entry(name.to_owned()).or_insert_with(new) {
            Node::Leaf(leaf) => leaf.parameter.clone(),
            Node::Scope(_) => return Err(conflict(&path, "is a scope, not a parameter")),
        };
        tree.settle();
        Ok(parameter)
    }

    /// The requested parameter, if it exists or may be created, after checking its shape and its `need_grad`.
    /// `place` is that of the scope, as in [`Tree::locate`].
    pub(super) fn get_checked<R>(
        &self,
        request: &Request<'_>,
        place: &mut Place,
        look: impl FnOnce(&Parameter) -> R,
    ) -> Result<Option<R>> {
        let mut tree = self.lock();
        // Names with several components, or parameters in the path, take the slow path.
        let is_plain = !request.name.is_empty() && !request.name.as_bytes().contains(&b'/');
        let located = if is_plain { tree.locate(request.scope, place) } else { None };
        let is_located = located.is_some();
        let leaf = match located {
            Some(scope) => scope.get_mut(request.name),
            None => reach(&mut tree.root, request),
        };
        let Some(leaf) = leaf else {
            if !is_located {
                descend(&mut tree.root, &request.path())?;
            }
            if !tree.seals.is_empty() {
                tree.check_open(&request.path())?;
            }
            return Ok(None);
        };
        match leaf {
            Node::Scope(_) => Err(conflict(&request.path(), "is a scope, not a parameter")),
            Node::Leaf(leaf) if leaf.parameter.var().dims() != request.shape => Err(Error::ShapeMismatch {
                path: request.path(),
                stored: leaf.parameter.var().dims().to_vec(),
                wanted: request.shape.to_vec(),
                created_at: leaf.created_at,
                asked_at: request.asked_at,
            }),
            Node::Leaf(leaf) => {
                leaf.is_state |= !request.need_grad && !request.overwrites;
                if request.overwrites || !request.need_grad {
                    leaf.parameter.set_need_grad(request.need_grad);
                }
                Ok(Some(look(&leaf.parameter)))
            }
        }
    }

    /// The generator of one parameter's initial value. Every component of the key is preceded by its length, so
    /// that `ab/c` and `a/bc` differ. Components that can be long come last, since the generator only reads 624
    /// words.
    pub(super) fn stream(&self, path: &str, shape: &[usize], initializer: [u64; 3]) -> Rng {
        let mut key = wide(self.0.seed).to_vec();
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
        // A panic while the lock is held leaves consistent entries behind: no change of a scope takes two
        // steps.
        lock(&self.0.tree)
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
        let shapes = parameters.iter().map(|(path, parameter)| (path, parameter.var().dims().to_vec()));
        f.debug_map().entries(shapes).finish()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn noise_of(seed: u64) -> Rng {
    let [low, high] = wide(seed);
    Rng::from_key(&[low, high])
}

fn wide(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// The scope that holds the last component of `path`, created if necessary, and that component.
fn descend<'a, 'p>(tree: &'a mut Scope, path: &'p str) -> Result<(&'a mut Scope, &'p str)> {
    let (parent, name) = split(path);
    if name.is_empty() {
        return Err(Error::invalid("path", "must not be empty", path));
    }
    check_name("path", path)?;
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

/// The entry at the requested path, if there is one; paths of existing entries need no other check.
fn reach<'a>(tree: &'a mut Scope, request: &Request<'_>) -> Option<&'a mut Node> {
    let (mut scope, mut parts) = (tree, segments(request.scope).chain(segments(request.name)).peekable());
    loop {
        let node = scope.get_mut(parts.next()?)?;
        if parts.peek().is_none() {
            return Some(node);
        }
        let Node::Scope(members) = node else { return None };
        scope = members;
    }
}

/// The index of the member `name`, which is created as a scope if it does not exist.
fn member(scope: &mut Scope, name: &str) -> usize {
    match scope.index_of(name) {
        Some(index) => index,
        None => scope.members.insert_full(name.to_owned(), Node::Scope(Scope::default())).0,
    }
}

fn list_under(tree: &mut Scope, path: &str) -> Parameters {
    fn collect(scope: &Scope, prefix: &str, found: &mut Parameters) {
        for (name, node) in &scope.members {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            match node {
                Node::Scope(members) => collect(members, &path, found),
                Node::Leaf(leaf) => found.insert(path, leaf.parameter.clone()),
            }
        }
    }
    let mut found = Parameters::default();
    if let Some(scope) = find_scope_mut(tree, path) {
        collect(scope, "", &mut found);
    }
    found
}

/// Fails if [`descend`] or the registration of a parameter would fail, without changing anything.
fn check_place(tree: &Scope, path: &str) -> Result<()> {
    check_name("path", path)?;
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

fn var_of(parameters: &Parameters, update: &Update) -> Option<TensorId> {
    parameters.get(&update.path).map(|parameter| parameter.var().id())
}

/// Checks that the path of a new parameter can be saved. Code that walks nested scopes recurses, so none may be
/// too deep.
fn check_name(argument: &'static str, path: &str) -> Result<()> {
    limits::check_path(path).map_err(|fault| {
        let reason = format!("must give a path that can be saved; this one {fault}");
        Error::invalid(argument, reason, limits::brief(path))
    })
}

fn conflict(path: &str, conflict: &'static str) -> Error {
    Error::PathConflict { path: path.to_owned(), conflict }
}
