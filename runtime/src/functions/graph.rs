//! Results of the kernels as nodes of candle's graph.
//!
//! A function computes its results over slices and then attaches them to its inputs together with a backward
//! rule, so that the forward and the backward pass, and the values they share, are in one place.
//!
//! For every tensor, candle's backward pass keeps a sum of gradients: it starts with zeros, and allocates new
//! memory for each addition. For activations, that costs more than the gradients of most layers, and candle's
//! graph keeps the inputs of every operation alive, needed or not. So candle only sees a graph of scalars,
//! called *tokens*, of our functions:
//!
//! ```text
//! y ──> token of y ──┬──> token of x        x is the result of a function of ours
//!                    ├──> w                 a variable, or a result of an operation of candle's
//! ```
//!
//! The gradient of `x` goes directly from the rule of `y` to the [`Node`] of `x`, while candle walks over the
//! tokens and so calls the rules in the right order, each when the gradients of its results are complete. If a
//! candle operation uses `y`, candle passes its gradient to `y`. The gradient of a token counts the gradients
//! that were passed on. If an earlier pass failed in a candle operation and left gradients behind, the next
//! pass of candle on that thread detects that and returns an error; [`backward`] starts by discarding them.
//!
//! If there are only variables before the nodes, [`backward`] walks over the nodes itself.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::{array, mem, ptr};

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Device, Shape, Tensor, TensorId};
use foldhash::{HashMap, HashMapExt};

use super::node::{Element, Value};
use super::operation::{self, MAX_ARGUMENTS, Operation};
use super::sum::{Gradient, Sum};
use crate::Result;

/// Computes the gradients of `loss` for all variables, like candle's `loss.backward()`, but faster.
///
/// candle starts the gradient of each variable with zeros and allocates new memory for each addition. This
/// function passes the gradients of our functions on directly, which saves a fifth of a training step for large
/// affine layers. If there are only our functions between the variables and the loss, candle's pass is not
/// needed at all, which saves as much again for small layers.
///
/// A loss that is passed by value is used up: the values that a function kept for its gradient are freed as
/// soon as its gradient is known, so that activations make room for gradients. Use `backward(loss)` if the loss
/// is not needed again, and `backward(&loss)` if there will be another backward pass through the same
/// functions.
///
/// # Errors
/// If candle has no gradient for one of its own operations, or if the pass reaches a function that an earlier
/// pass has used up.
///
/// # Example
/// ```
/// use layerfn::prelude::*;
/// let y = affine(&Tensor::ones((2, 3), DType::F32, &Device::Cpu)?, 4).call()?;
/// let loss = y.sum_all()?;
/// let gradients = backward(&loss)?;
/// let b = get_parameters().get("affine/b").unwrap().var().clone();
/// assert_eq!(gradients.get(&b).unwrap().to_vec1::<f32>()?, [2.0; 4]);
///
/// backward(loss)?; // the last pass
/// assert!(backward(&y.sum_all()?).unwrap_err().to_string().contains("used up"));
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn backward(loss: impl Loss) -> Result<GradStore> {
    gradients_of(loss.borrow(), loss.is_used_up(), None)
}

/// [`backward`] of a loss that is used up, which passes the gradient of a variable to `is_final` as soon as it
/// is complete. Returns the gradients of the other variables: all of them, if there are candle operations on
/// the way.
pub(crate) fn backward_each(loss: &Tensor, is_final: &mut IsFinal<'_>) -> Result<GradStore> {
    gradients_of(loss, true, Some(is_final))
}

/// Takes the gradient of a variable.
pub(crate) type IsFinal<'a> = dyn FnMut(TensorId, Tensor) -> Result<()> + 'a;

/// The argument of [`backward`]: a loss that is kept, `&Tensor`, or one that is used up, `Tensor`.
pub trait Loss: Borrow<Tensor> + sealed::Sealed {
    /// Whether the functions that computed the loss are freed.
    #[doc(hidden)]
    fn is_used_up(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for candle_core::Tensor {}
    impl Sealed for &candle_core::Tensor {}
}

impl Loss for Tensor {
    fn is_used_up(&self) -> bool {
        true
    }
}

impl Loss for &Tensor {
    fn is_used_up(&self) -> bool {
        false
    }
}

fn gradients_of(loss: &Tensor, is_used_up: bool, is_final: Option<&mut IsFinal<'_>>) -> Result<GradStore> {
    struct Restore(Option<Variables>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OF_VARIABLES.set(self.0.take());
        }
    }
    let restore = Restore(OF_VARIABLES.replace(Some(Variables { sums: HashMap::new(), is_used_up })));
    forget_passes();
    let origin = Origin::of(loss);
    let walk = origin.as_ref().and_then(|origin| Some((origin, Walk::to(&origin.node)?)));
    let by_candle = walk.is_none();
    let mut gradients = match walk {
        Some((origin, walk)) => {
            walk.run(origin, loss.ones_like()?, is_used_up, is_final)?;
            GradStore::default()
        }
        None => loss.backward()?,
    };
    let of_variables = OF_VARIABLES.take().map(|variables| variables.sums).unwrap_or_default();
    drop(restore);
    for (id, sum) in of_variables {
        if let Some(gradient) = sum.into_tensor()? {
            // After a walk there is nothing, and a lookup costs a slow hash.
            let other = if by_candle { gradients.get_id(id) } else { None };
            let gradient = match other {
                Some(other) => (other + gradient)?,
                None => gradient,
            };
            gradients.insert_id(id, gradient);
        }
    }
    Ok(gradients)
}

/// Nodes with no candle operations between them.
struct Walk<'a> {
    /// The nodes in topological order: each after those whose results it uses.
    order: Vec<&'a Node>,
    /// Index of the first result of a node among those of all.
    places: HashMap<*const Node, usize>,
    n_results: usize,
}

impl<'a> Walk<'a> {
    /// The nodes that lead to `last`; `None` if there are candle operations among them.
    fn to(last: &'a Node) -> Option<Self> {
        let mut walk = Self { order: Vec::new(), places: HashMap::new(), n_results: 0 };
        walk.is_new(last);
        // The nodes of the current path, and how many of their inputs have been visited: a network may be too
        // deep for recursion.
        let mut path = vec![(last, 0)];
        while let Some((node, n_seen)) = path.last_mut() {
            let Some(input) = node.links.inputs.get(*n_seen) else {
                walk.order.extend(path.pop().map(|(node, _)| node));
                continue;
            };
            *n_seen += 1;
            match input {
                Input::Function(origin) if walk.is_new(&origin.node) => path.push((&origin.node, 0)),
                Input::Candle(tensor) if !tensor.is_variable() => return None,
                Input::Function(_) | Input::Candle(_) | Input::Constant => {}
            }
        }
        Some(walk)
    }

    /// Gives the node a place, unless it has one.
    fn is_new(&mut self, node: &Node) -> bool {
        let Entry::Vacant(entry) = self.places.entry(ptr::from_ref(node)) else { return false };
        entry.insert(self.n_results);
        self.n_results += node.n_results;
        true
    }

    /// Calls the rules from the last to the first, starting with the gradient of `last`.
    fn run(
        &self,
        last: &Origin,
        gradient: Tensor,
        is_used_up: bool,
        mut is_final: Option<&mut IsFinal<'_>>,
    ) -> candle_core::Result<()> {
        let place = |node: &Node| self.places[&ptr::from_ref(node)];
        let mut sums = Vec::new();
        sums.resize_with(self.n_results, Sum::default);
        sums[place(&last.node) + last.index].add(gradient.into())?;
        let first_uses = if is_final.is_some() { self.first_uses() } else { HashMap::new() };
        let mut own = Vec::new();
        for (at, &node) in self.order.iter().enumerate().rev() {
            let first = place(node);
            own.extend(sums[first..first + node.n_results].iter_mut().map(mem::take));
            node.run(&mut own, is_used_up, &mut |input, gradient| match (input, gradient) {
                (Input::Function(origin), Some(gradient)) => {
                    sums[place(&origin.node) + origin.index].add(gradient)
                }
                (Input::Candle(variable), Some(gradient)) => keep(variable, gradient).map(drop),
                (Input::Constant, _) | (_, None) => Ok(()),
            })?;
            own.clear();
            let Some(is_final) = &mut is_final else { continue };
            for variable in node.variables().filter(|variable| first_uses.get(variable) == Some(&at)) {
                let sum = OF_VARIABLES.with_borrow_mut(|variables| {
                    variables.as_mut().and_then(|all| all.sums.remove(&variable))
                });
                if let Some(gradient) = sum.map(Sum::into_tensor).transpose()?.flatten() {
                    is_final(variable, gradient)?;
                }
            }
        }
        Ok(())
    }

    /// For each variable, the index of the first function that uses it, which is the last to add to its
    /// gradient.
    fn first_uses(&self) -> HashMap<TensorId, usize> {
        let mut uses = HashMap::new();
        for (at, node) in self.order.iter().enumerate() {
            node.variables().for_each(|variable| {
                uses.entry(variable).or_insert(at);
            });
        }
        uses
    }
}

/// The state of a pass of [`backward`].
struct Variables {
    /// The gradients of the variables.
    sums: HashMap<TensorId, Sum>,
    /// Whether nodes are freed on the way.
    is_used_up: bool,
}

thread_local! {
    /// Set while [`backward`] runs.
    static OF_VARIABLES: RefCell<Option<Variables>> = const { RefCell::new(None) };
}

/// Passes the gradient of a variable to [`backward`], or returns it for candle if that is not running.
pub(super) fn keep(variable: &Tensor, gradient: Gradient) -> candle_core::Result<Option<Tensor>> {
    OF_VARIABLES.with_borrow_mut(|variables| match variables {
        Some(variables) => variables.sums.entry(variable.id()).or_default().add(gradient).map(|()| None),
        None => gradient.into_tensor(),
    })
}

thread_local! {
    /// The number of candle's passes on this thread that are known to have ended early; gradients that nodes
    /// hold from such a pass are ignored.
    static N_FORGOTTEN: Cell<u64> = const { Cell::new(0) };
}

fn forget_passes() {
    N_FORGOTTEN.set(N_FORGOTTEN.get() + 1);
}

/// The result of a backward rule: a gradient for each input, or `None` for an input that needs none.
pub(crate) type Gradients<const N: usize> = candle_core::Result<[Option<Tensor>; N]>;

/// Which of the inputs need a gradient.
pub(crate) fn tracked<const N: usize>(inputs: [&Tensor; N]) -> [bool; N] {
    inputs.map(Tensor::track_op)
}

/// Makes `value` the result of an operation on `inputs`.
///
/// `backward` receives the gradient of the result, which is contiguous. It may capture the inputs and values
/// that the forward pass has computed; everything else is freed. If no input is tracked, it is dropped at once.
pub(crate) fn attach<T, const N: usize, B>(
    name: &'static str,
    inputs: [&Tensor; N],
    value: Value<T>,
    backward: B,
) -> Result<Tensor>
where
    T: Element,
    B: Fn(&Tensor) -> Gradients<N> + Send + Sync + 'static,
{
    if !is_tracked(&inputs) {
        return Ok(value.into_tensor()?);
    }
    let rule = move |gradients: Vec<Option<Tensor>>, hand_on: HandOn<'_>| match &*gradients {
        [Some(gradient)] => {
            let of_inputs = backward(gradient)?;
            drop(gradients);
            hand_on_all(of_inputs, hand_on)
        }
        _ => Ok(()),
    };
    one(attach_boxed(name, &inputs, vec![value.into_storage()], Arc::new(rule))?)
}

fn is_tracked(inputs: &[&Tensor]) -> bool {
    inputs.iter().any(|input| input.track_op())
}

fn hand_on_all<const N: usize>(
    gradients: [Option<Tensor>; N],
    hand_on: HandOn<'_>,
) -> candle_core::Result<()> {
    for (index, gradient) in gradients.into_iter().enumerate() {
        hand_on(index, gradient.map(Gradient::Tensor))?;
    }
    Ok(())
}

fn one(results: Vec<Tensor>) -> Result<Tensor> {
    let n = results.len();
    results.into_iter().next().ok_or_else(|| crate::Error::invalid("values", "must give one result each", n))
}

/// [`attach`] for a rule that needs the result as well: `backward(result, gradient)`.
pub(crate) fn attach_with_result<T, const N: usize, B>(
    name: &'static str,
    inputs: [&Tensor; N],
    value: Value<T>,
    backward: B,
) -> Result<Tensor>
where
    T: Element,
    B: Fn(&Tensor, &Tensor) -> Gradients<N> + Send + Sync + 'static,
{
    if !is_tracked(&inputs) {
        return Ok(value.into_tensor()?);
    }
    let own = Arc::new(OnceLock::<Tensor>::new());
    let kept = own.clone();
    let result = attach(name, inputs, value, move |gradient| match kept.get() {
        Some(result) => backward(result, gradient),
        None => candle_core::bail!("the result of `{name}` is not known yet"),
    })?;
    own.get_or_init(|| result.detach()); // shares the memory, but holds no place in the graph: no cycle
    Ok(result)
}

/// [`attach`] for an operation with several results. The rule receives a gradient for each result that has one,
/// and is not called if none has.
pub(crate) fn attach_all<T, const N: usize, const M: usize, B>(
    name: &'static str,
    inputs: [&Tensor; N],
    values: [Value<T>; M],
    backward: B,
) -> Result<[Tensor; M]>
where
    T: Element,
    B: Fn([Option<&Tensor>; M]) -> candle_core::Result<[Option<Gradient>; N]> + Send + Sync + 'static,
{
    let backward =
        move |gradients: &[Option<Tensor>]| Ok(backward(array::from_fn(|i| gradients[i].as_ref()))?.into());
    let results = attach_list(name, &inputs, Vec::from(values), backward)?;
    results.try_into().map_err(|_| crate::Error::invalid("values", "must give one result each", M))
}

/// [`attach_all`] for any number of inputs and results.
pub(crate) fn attach_list<T, B>(
    name: &'static str,
    inputs: &[&Tensor],
    values: Vec<Value<T>>,
    backward: B,
) -> Result<Vec<Tensor>>
where
    T: Element,
    B: Fn(&[Option<Tensor>]) -> candle_core::Result<Vec<Option<Gradient>>> + Send + Sync + 'static,
{
    if !is_tracked(inputs) {
        return values.into_iter().map(|value| Ok(value.into_tensor()?)).collect();
    }
    let rule = move |gradients: Vec<Option<Tensor>>, hand_on: HandOn<'_>| {
        let of_inputs = backward(&gradients)?;
        drop(gradients);
        of_inputs.into_iter().enumerate().try_for_each(|(index, gradient)| hand_on(index, gradient))
    };
    attach_boxed(name, inputs, values.into_iter().map(Value::into_storage).collect(), Arc::new(rule))
}

/// The results of a function, some of whose inputs are tracked.
fn attach_boxed(
    name: &'static str,
    inputs: &[&Tensor],
    values: Vec<(CpuStorage, Shape)>,
    rule: Arc<Backward>,
) -> Result<Vec<Tensor>> {
    let (node, token) = Node::new(name, inputs, values.len(), Rule::Once(rule))?;
    let results = values.into_iter().enumerate().map(|(index, storage)| {
        let origin =
            Arc::new(Origin { node: node.clone(), index, token: token.clone(), id: OnceLock::new() });
        let output = Output { origin: origin.clone(), value: Mutex::new(Some(storage)) };
        let result = operation::apply(output, &[&token])?;
        origin.register(result.id());
        Ok(result)
    });
    results.collect()
}

/// Collects the gradients of a variable before candle gets their sum, as long as the result is alive.
///
/// For weights that are used in many steps: candle's sum allocates new memory for each, and cannot join
/// products.
pub(crate) fn share(variable: &Tensor) -> Result<Option<Arc<Origin>>> {
    if !variable.is_variable() {
        return Ok(None);
    }
    if let Some(origin) = Origin::of(variable) {
        return Ok(Some(origin));
    }
    let same = |gradients: Vec<Option<Tensor>>, hand_on: HandOn<'_>| {
        gradients.into_iter().try_for_each(|gradient| hand_on(0, gradient.map(Gradient::Tensor)))
    };
    let (node, token) = Node::new("share", &[variable], 1, Rule::Lasting(Arc::new(same)))?;
    let origin = Arc::new(Origin { node, index: 0, token, id: OnceLock::new() });
    origin.register(variable.id());
    Ok(Some(origin))
}

/// Takes the gradients of the results and hands on those of the inputs.
type Backward = dyn Fn(Vec<Option<Tensor>>, HandOn<'_>) -> candle_core::Result<()> + Send + Sync;

/// Takes the gradient of the input with this number.
type HandOn<'a> = &'a mut dyn FnMut(usize, Option<Gradient>) -> candle_core::Result<()>;

/// One call of a function: it collects the gradients of its results and passes on those of its inputs.
struct Node {
    name: &'static str,
    links: Links,
    n_results: usize,
    /// Number of nodes after it on its longest path to a variable.
    depth: usize,
    passes: Mutex<Vec<(ThreadId, Pass)>>,
}

/// What keeps other nodes alive.
struct Links {
    inputs: Vec<Input>,
    rule: Mutex<Rule>,
    shortcuts: Shortcuts,
}

/// The backward rule of a node.
#[derive(Clone)]
enum Rule {
    /// A pass may use it up.
    Once(Arc<Backward>),
    /// It holds nothing, and can be used by several passes.
    Lasting(Arc<Backward>),
    UsedUp,
}

/// How the gradient of an input is passed on.
enum Input {
    /// The input needs no gradient.
    Constant,
    /// Directly to the node that the input comes from.
    Function(Arc<Origin>),
    /// Through candle.
    Candle(Tensor),
}

impl Input {
    fn origin(&self) -> Option<&Arc<Origin>> {
        match self {
            Self::Function(origin) => Some(origin),
            Self::Constant | Self::Candle(_) => None,
        }
    }

    /// The tensor that represents it among the arguments of the token.
    fn argument(&self) -> Option<&Tensor> {
        match self {
            Self::Constant => None,
            Self::Function(origin) => Some(&origin.token),
            Self::Candle(tensor) => Some(tensor),
        }
    }
}

/// The gradients of a node's results that candle's backward pass has found so far.
#[derive(Default)]
struct Pass {
    /// The value of [`N_FORGOTTEN`] when the pass began.
    n_forgotten: u64,
    sums: Vec<Sum>,
    n_terms: usize,
    /// For candle, if the token has more inputs than candle's operations allow.
    rest: Vec<Option<Tensor>>,
}

impl Node {
    /// The node, and its token in candle's graph. Candle operations have at most [`MAX_ARGUMENTS`] arguments,
    /// so a token with more has another token among its arguments.
    fn new(
        name: &'static str,
        inputs: &[&Tensor],
        n_results: usize,
        rule: Rule,
    ) -> candle_core::Result<(Arc<Self>, Tensor)> {
        let inputs = inputs.iter().map(|&input| {
            if !input.track_op() {
                return Input::Constant;
            }
            Origin::of(input).map_or_else(|| Input::Candle(input.clone()), Input::Function)
        });
        let inputs: Vec<_> = inputs.collect();
        let origins = || inputs.iter().filter_map(Input::origin);
        let depth = origins().map(|origin| origin.node.depth + 1).max().unwrap_or_default();
        let deepest = origins().max_by_key(|origin| origin.node.depth);
        let shortcuts = deepest.map_or_else(Shortcuts::default, |origin| Shortcuts::behind(origin, depth));
        let links = Links { inputs, rule: Mutex::new(rule), shortcuts };
        let node = Arc::new(Self { name, links, n_results, depth, passes: Mutex::default() });
        let shortcut = node.links.shortcuts.far.as_ref().map(|origin| &origin.token);
        let arguments: Vec<_> =
            shortcut.into_iter().chain(node.links.inputs.iter().filter_map(Input::argument)).collect();
        let token = Token::apply(&node, &arguments, false)?;
        drop(arguments);
        Ok((node, token))
    }

    /// The variables among its inputs.
    fn variables(&self) -> impl Iterator<Item = TensorId> {
        self.links.inputs.iter().filter_map(|input| match input {
            Input::Candle(tensor) if tensor.is_variable() => Some(tensor.id()),
            _ => None,
        })
    }

    /// Accesses the state of candle's backward pass on this thread; a pass runs on a single thread.
    fn with_pass<R>(&self, f: impl FnOnce(&mut Pass) -> R) -> R {
        let mut passes = lock(&self.passes);
        let thread = thread::current().id();
        let index = passes.iter().position(|(of, _)| *of == thread).unwrap_or_else(|| {
            passes.push((thread, Pass::default()));
            passes.len() - 1
        });
        let (n_forgotten, pass) = (N_FORGOTTEN.get(), &mut passes[index].1);
        if pass.n_forgotten != n_forgotten {
            *pass = Pass { n_forgotten, ..Pass::default() };
        }
        f(pass)
    }

    /// Adds a gradient of a result in candle's pass; returns the amount that the gradient of its token grows
    /// by.
    fn add(&self, index: usize, gradient: Gradient) -> candle_core::Result<Tensor> {
        // The lock is not held during the addition, which may use many threads.
        let mut sum = self.with_pass(|pass| {
            if pass.sums.len() <= index {
                pass.sums.resize_with(index + 1, Sum::default);
            }
            mem::take(&mut pass.sums[index])
        });
        sum.add(gradient)?;
        self.with_pass(|pass| {
            pass.sums[index] = sum;
            pass.n_terms += 1;
        });
        Ok(ONE.clone())
    }

    /// As [`run_of_pass`](Self::run_of_pass), but if it fails, the pass is over.
    fn run_counted(&self, count: &Tensor) -> candle_core::Result<Vec<Option<Tensor>>> {
        self.run_of_pass(count).inspect_err(|_| forget_passes())
    }

    /// [`run`](Self::run) for candle, which has counted the gradients that were passed on; returns the
    /// gradients of the tracked inputs that candle must see.
    fn run_of_pass(&self, count: &Tensor) -> candle_core::Result<Vec<Option<Tensor>>> {
        let mut pass = self.with_pass(mem::take);
        if pass.n_terms as f32 != count.to_scalar::<f32>()? {
            candle_core::bail!(
                "an earlier backward pass through `{}` failed and left gradients behind; compute the loss again",
                self.name
            );
        }
        let mut for_candle: Vec<_> = self.links.shortcuts.far.iter().map(|_| Some(ZERO.clone())).collect();
        let is_used_up = OF_VARIABLES
            .with_borrow(|variables| variables.as_ref().is_some_and(|variables| variables.is_used_up));
        self.run(&mut pass.sums, is_used_up, &mut |input, gradient| {
            for_candle.push(match (input, gradient) {
                (Input::Constant, _) => return Ok(()),
                (Input::Function(origin), Some(gradient)) => Some(origin.node.add(origin.index, gradient)?),
                (Input::Function(_), None) => Some(ZERO.clone()),
                (Input::Candle(input), Some(gradient)) if input.is_variable() => keep(input, gradient)?,
                (Input::Candle(_), Some(gradient)) => gradient.into_tensor()?,
                (Input::Candle(input), None) if input.is_variable() => None,
                (Input::Candle(input), None) => Some(input.zeros_like()?), // candle panics without
            });
            Ok(())
        })?;
        Ok(for_candle)
    }

    /// Calls the rule, if there is a gradient for it, and passes on the gradient of each input.
    fn run(
        &self,
        sums: &mut [Sum],
        is_used_up: bool,
        hand_on: &mut dyn FnMut(&Input, Option<Gradient>) -> candle_core::Result<()>,
    ) -> candle_core::Result<()> {
        // The lock is not held while the rule runs, which may use many threads.
        let rule = {
            let mut rule = lock(&self.links.rule);
            match &*rule {
                Rule::Once(_) if is_used_up => mem::replace(&mut *rule, Rule::UsedUp),
                other => other.clone(),
            }
        };
        if sums.iter().all(Sum::is_empty) {
            return self.links.inputs.iter().try_for_each(|input| hand_on(input, None));
        }
        let (Rule::Once(backward) | Rule::Lasting(backward)) = rule else {
            candle_core::bail!(
                "`{}` was used up by an earlier backward pass; give that one the loss by reference, `backward(&loss)`",
                self.name
            );
        };
        let mut gradients = vec![None; self.n_results]; // one that candle's pass did not come to has no sum
        for (gradient, sum) in gradients.iter_mut().zip(sums) {
            *gradient = mem::take(sum).into_tensor()?;
        }
        backward(gradients, &mut |index, gradient| hand_on(&self.links.inputs[index], gradient))
    }
}

impl Drop for Node {
    /// Dropping the last link to a node drops that node as well, and so on through a graph of any length. To
    /// avoid recursion, links that are dropped meanwhile are left to the outermost call.
    fn drop(&mut self) {
        thread_local! {
            /// Links that remain to be dropped, while a drop is running.
            static LEFT: RefCell<Option<Vec<Links>>> = const { RefCell::new(None) };
        }
        let mut links = Some(mem::replace(&mut self.links, Links::none()));
        // When the thread ends, there is no place to leave them.
        let is_outermost = LEFT.try_with(|left| match &mut *left.borrow_mut() {
            Some(left) => {
                left.extend(links.take());
                false
            }
            left => {
                *left = Some(Vec::new());
                true
            }
        });
        while let Some(dropped) = links.take() {
            drop(dropped);
            if is_outermost == Ok(true) {
                links = LEFT.with_borrow_mut(|left| left.as_mut().and_then(Vec::pop));
            }
        }
        if is_outermost == Ok(true) {
            LEFT.set(None);
        }
    }
}

impl Links {
    fn none() -> Self {
        Self { inputs: Vec::new(), rule: Mutex::new(Rule::UsedUp), shortcuts: Shortcuts::default() }
    }
}

/// Shortcuts to much earlier nodes. candle finds the nodes of a pass by recursion, argument by argument; if
/// every few nodes have a much earlier node as their first argument, the recursion into a chain of any length
/// is at most some hundred calls deep.
#[derive(Default)]
struct Shortcuts {
    /// The nearest earlier node that has a shortcut.
    milestone: Option<Arc<Origin>>,
    /// The target of the shortcut, if this node has one.
    far: Option<Arc<Origin>>,
}

impl Shortcuts {
    /// Difference of depth between two nodes that have shortcuts.
    const STRIDE: usize = 16;

    /// The shortcuts of a node of this depth whose deepest input is `input`.
    fn behind(input: &Arc<Origin>, depth: usize) -> Self {
        let shortcuts = &input.node.links.shortcuts;
        let milestone = if input.node.depth.is_multiple_of(Self::STRIDE) {
            Some(input)
        } else {
            shortcuts.milestone.as_ref()
        };
        let far = if depth.is_multiple_of(Self::STRIDE) { milestone.map(Self::jump) } else { None };
        Self { milestone: milestone.cloned(), far: far.cloned() }
    }

    /// The target of the shortcut of a node with this milestone: beyond two jumps of equal length from there,
    /// or else the milestone itself (Myers, An applicative random-access stack, 1983). So jumps do not cross,
    /// and their lengths double.
    fn jump(milestone: &Arc<Origin>) -> &Arc<Origin> {
        let (middle, end) = (milestone.far(), milestone.far().far());
        let [start, middle, depth] = [milestone, middle, end].map(|origin| origin.node.depth);
        if start - middle == middle - depth { end } else { milestone }
    }
}

/// The amount that a token's gradient grows by for each gradient that was passed on.
static ONE: LazyLock<Tensor> = LazyLock::new(|| scalar(1.0));
static ZERO: LazyLock<Tensor> = LazyLock::new(|| scalar(0.0));

fn scalar(value: f32) -> Tensor {
    Tensor::full(value, (), &Device::Cpu).unwrap_or_else(|error| unreachable!("a scalar on the CPU: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The target of the gradient of a tensor: one of the results of a node.
pub(crate) struct Origin {
    node: Arc<Node>,
    /// Which of the node's results it is.
    index: usize,
    token: Tensor,
    id: OnceLock<TensorId>,
}

/// Live origins, by their tensor. A result holds its origin, which removes itself from this list when dropped.
static ORIGINS: LazyLock<Mutex<HashMap<TensorId, Weak<Origin>>>> = LazyLock::new(Mutex::default);

impl Origin {
    fn of(tensor: &Tensor) -> Option<Arc<Self>> {
        lock(&ORIGINS).get(&tensor.id()).and_then(Weak::upgrade)
    }

    /// The target of the shortcut of its node, if it has one.
    fn far(self: &Arc<Self>) -> &Arc<Self> {
        self.node.links.shortcuts.far.as_ref().unwrap_or(self)
    }

    fn register(self: &Arc<Self>, id: TensorId) {
        self.id.get_or_init(|| id);
        lock(&ORIGINS).insert(id, Arc::downgrade(self));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(id) = self.id.get() {
            let mut origins = lock(&ORIGINS);
            if origins.get(id).is_some_and(|origin| origin.strong_count() == 0) {
                origins.remove(id);
            }
        }
    }
}

/// The operation that makes a result out of its node's token.
struct Output {
    origin: Arc<Origin>,
    value: Mutex<Option<(CpuStorage, Shape)>>,
}

impl Operation for Output {
    fn name(&self) -> &'static str {
        self.origin.node.name
    }

    fn on_cpu(&self) -> candle_core::Result<(CpuStorage, Shape)> {
        lock(&self.value).take().ok_or_else(|| candle_core::Error::msg("a result was asked for twice"))
    }

    fn backward(&self, gradient: &Tensor, _: usize) -> candle_core::Result<operation::Gradients> {
        Ok(vec![Some(self.origin.node.add(self.origin.index, gradient.clone().into())?)])
    }
}

/// The operation that makes a node's token out of those of its inputs.
struct Token {
    node: Arc<Node>,
    /// Whether it is an argument of another token of the node.
    is_rest: bool,
}

impl Token {
    fn apply(node: &Arc<Node>, arguments: &[&Tensor], is_rest: bool) -> candle_core::Result<Tensor> {
        let token = Self { node: node.clone(), is_rest };
        if arguments.len() <= MAX_ARGUMENTS {
            return operation::apply(token, arguments);
        }
        let (first, rest) = arguments.split_at(MAX_ARGUMENTS - 1);
        let rest = Self::apply(node, rest, true)?;
        operation::apply(token, &[first, &[&rest]].concat())
    }
}

impl Operation for Token {
    fn name(&self) -> &'static str {
        self.node.name
    }

    fn on_cpu(&self) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn backward(&self, count: &Tensor, n: usize) -> candle_core::Result<operation::Gradients> {
        let mut gradients = if self.is_rest {
            self.node.with_pass(|pass| mem::take(&mut pass.rest))
        } else {
            self.node.run_counted(count)?
        };
        if gradients.len() > n {
            let rest = gradients.split_off(n - 1);
            self.node.with_pass(|pass| pass.rest = rest);
            gradients.push(Some(ZERO.clone()));
        }
        Ok(gradients)
    }
}
