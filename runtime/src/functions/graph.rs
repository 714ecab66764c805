//! Results of the kernels as nodes of candle's graph.
//!
//! A function computes its results over slices and then attaches them to its inputs together with a backward rule, so
//! that forward, backward and what they share stand in one place.
//!
//! candle's backward pass keeps a sum for every tensor on its way: zeros first, then an addition in new memory for each
//! use. For activations that costs more than most layers' own gradients, and candle's graph keeps the inputs of every
//! operation alive, needed or not. So what candle sees of our functions is a graph of *tokens*, scalars:
//!
//! ```text
//! y ──> token of y ──┬──> token of x        x is the result of a function of ours
//!                    ├──> w                 a variable, or a result of an operation of candle's
//! ```
//!
//! The gradient of `x` goes straight from the rule of `y` to the [`Node`] of `x`, while candle walks over the tokens and
//! so calls the rules in the right order, each when the gradients of its results are complete. Where `y` is used by an
//! operation of candle's, candle hands its gradient to `y` itself. The gradient of a token counts the gradients
//! that were handed over: what an earlier, failed pass has left behind is noticed.
//!
//! [`backward`] walks over the nodes by itself where they lead to variables only.

use std::array;
use std::cell::RefCell;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, ThreadId};

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Shape, Tensor, TensorId};
use foldhash::{HashMap, HashMapExt, HashSet};

use super::node::{Element, Value};
use super::sum::{Gradient, Sum};
use crate::Result;

/// The gradients of `loss` for all variables, as candle's own `loss.backward()` gives them, in less time.
///
/// candle begins the gradient of each variable with zeros and adds to it, each time in new memory. This function hands the
/// gradients of our functions over as they are. For large affine layers that saves a fifth of a training step. Where
/// nothing but our functions leads from the variables to the loss, candle is not asked at all, which saves as much again
/// for small layers.
///
/// # Errors
/// If candle has no gradient for one of its own operations.
///
/// # Example
/// ```
/// use layerfn::prelude::*;
/// let y = affine(&Tensor::ones((2, 3), DType::F32, &Device::Cpu)?, 4).call()?;
/// let gradients = backward(&y.sum_all()?)?;
/// let b = get_parameters().get("affine/b").unwrap().var().clone();
/// assert_eq!(gradients.get(&b).unwrap().to_vec1::<f32>()?, [2.0; 4]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    struct Restore(Option<HashMap<TensorId, Sum>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OF_VARIABLES.set(self.0.take());
        }
    }
    let restore = Restore(OF_VARIABLES.replace(Some(HashMap::new())));
    let mut gradients = match Origin::of(loss).and_then(|origin| Some((order(&origin.node)?, origin))) {
        Some((order, origin)) => {
            order.iter().for_each(|node| node.forget());
            origin.node.add(origin.index, loss.ones_like()?.into())?;
            for node in order.iter().rev() {
                node.run(node.take_pass())?;
            }
            GradStore::default()
        }
        None => loss.backward()?,
    };
    let of_variables = OF_VARIABLES.take().unwrap_or_default();
    drop(restore);
    for (id, sum) in of_variables {
        if let Some(gradient) = sum.into_tensor()? {
            let gradient = match gradients.get_id(id) {
                Some(other) => (other + gradient)?,
                None => gradient,
            };
            gradients.insert_id(id, gradient);
        }
    }
    Ok(gradients)
}

/// The nodes that lead to `last`, each behind those whose results it uses; none if candle's operations are among them.
fn order(last: &Arc<Node>) -> Option<Vec<Arc<Node>>> {
    let mut order = Vec::new();
    let mut seen = HashSet::default();
    // Nodes on the way, and how many of their inputs have been looked at: a network may be too deep for recursion.
    let mut path = vec![(last.clone(), 0)];
    while let Some((node, n_seen)) = path.last_mut() {
        let Some(input) = node.inputs.get(*n_seen) else {
            order.extend(path.pop().map(|(node, _)| node));
            continue;
        };
        *n_seen += 1;
        match input {
            Input::Function(origin) if seen.insert(Arc::as_ptr(&origin.node)) => {
                let node = origin.node.clone();
                path.push((node, 0));
            }
            Input::Candle(tensor) if !tensor.is_variable() => return None,
            Input::Function(_) | Input::Candle(_) | Input::Constant => {}
        }
    }
    Some(order)
}

thread_local! {
    /// The gradients of variables, while [`backward`] runs.
    static OF_VARIABLES: RefCell<Option<HashMap<TensorId, Sum>>> = const { RefCell::new(None) };
}

/// Hands the gradient of a variable to [`backward`], or returns it for candle where that does not run.
fn keep(variable: &Tensor, gradient: Gradient) -> candle_core::Result<Option<Tensor>> {
    OF_VARIABLES.with_borrow_mut(|sums| match sums {
        Some(sums) => sums.entry(variable.id()).or_default().add(gradient).map(|()| None),
        None => gradient.into_tensor(),
    })
}

/// What a backward rule returns: a gradient for each input, or none where the input needs none.
pub(crate) type Gradients<const N: usize> = candle_core::Result<[Option<Tensor>; N]>;

/// Which of the inputs a gradient is asked for.
pub(crate) fn tracked<const N: usize>(inputs: [&Tensor; N]) -> [bool; N] {
    inputs.map(Tensor::track_op)
}

/// Makes `value` the result of an operation on `inputs`, of which at most five may be tracked.
///
/// `backward` gets the gradient of the result, contiguous. It may hold on to the inputs and to what the forward pass
/// has computed; all that it does not hold is freed. If no input is tracked it is dropped at once.
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
    if !inputs.iter().any(|input| input.track_op()) {
        return Ok(value.into_tensor()?);
    }
    let [result] = attach_all(name, inputs, [value], move |[gradient]| match gradient {
        Some(gradient) => Ok(backward(gradient)?.map(|gradient| gradient.map(Gradient::Tensor))),
        None => Ok(array::from_fn(|_| None)),
    })?;
    Ok(result)
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
    if !inputs.iter().any(|input| input.track_op()) {
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

/// [`attach`] for an operation with several results; the rule gets a gradient for each that has one, and is not called
/// if none has.
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
    let mut results = Vec::with_capacity(M);
    if inputs.iter().any(|input| input.track_op()) {
        let backward = move |gradients: &[Option<Tensor>]| {
            let gradients = backward(array::from_fn(|i| gradients.get(i).and_then(Option::as_ref)))?;
            Ok(Vec::from(gradients))
        };
        let (node, token) = Node::new(name, &inputs, Box::new(backward))?;
        for (index, value) in values.into_iter().enumerate() {
            let origin =
                Arc::new(Origin { node: node.clone(), index, token: token.clone(), id: OnceLock::new() });
            let storage = (T::to_cpu_storage_owned(value.data), Shape::from(value.dims));
            let result =
                token.apply_op1(Output { origin: origin.clone(), value: Mutex::new(Some(storage)) })?;
            origin.register(result.id());
            results.push(result);
        }
    } else {
        for value in values {
            results.push(value.into_tensor()?);
        }
    }
    results.try_into().map_err(|_| crate::Error::invalid("values", "must each become a result", M))
}

/// Has the gradients of a variable come together before candle gets their sum, as long as the result lives.
///
/// For weights that are used in many steps: candle's sum takes new memory for each, and products cannot be joined there.
pub(crate) fn share(variable: &Tensor) -> Result<Option<Arc<Origin>>> {
    if !variable.is_variable() {
        return Ok(None);
    }
    if let Some(origin) = Origin::of(variable) {
        return Ok(Some(origin));
    }
    let same =
        |sums: &[Option<Tensor>]| Ok(sums.iter().map(|sum| sum.clone().map(Gradient::Tensor)).collect());
    let (node, token) = Node::new("share", &[variable], Box::new(same))?;
    let origin = Arc::new(Origin { node, index: 0, token, id: OnceLock::new() });
    origin.register(variable.id());
    Ok(Some(origin))
}

type Backward = dyn Fn(&[Option<Tensor>]) -> candle_core::Result<Vec<Option<Gradient>>> + Send + Sync;

/// One call of a function: where its gradients come together and where they go.
struct Node {
    name: &'static str,
    inputs: Vec<Input>,
    backward: Box<Backward>,
    passes: Mutex<Vec<(ThreadId, Pass)>>,
}

/// How the gradient of an input gets there.
enum Input {
    /// It needs none.
    Constant,
    /// Straight to the node that it comes from.
    Function(Arc<Origin>),
    /// By candle.
    Candle(Tensor),
}

/// The gradients of a node's results that a backward pass has found so far.
#[derive(Default)]
struct Pass {
    sums: Vec<Sum>,
    n_terms: usize,
    /// For candle, where the token has more inputs than candle's operations.
    rest: Vec<Option<Tensor>>,
}

impl Node {
    /// The node, and its token in candle's graph.
    fn new(
        name: &'static str,
        inputs: &[&Tensor],
        backward: Box<Backward>,
    ) -> candle_core::Result<(Arc<Self>, Tensor)> {
        let mut arguments = Vec::new();
        let inputs = inputs.iter().map(|&input| {
            if !input.track_op() {
                return Input::Constant;
            }
            match Origin::of(input) {
                Some(origin) => {
                    arguments.push(origin.token.clone());
                    Input::Function(origin)
                }
                None => {
                    arguments.push(input.clone());
                    Input::Candle(input.clone())
                }
            }
        });
        let inputs = inputs.collect();
        let node = Arc::new(Self { name, inputs, backward, passes: Mutex::default() });
        let token = match &arguments[..] {
            [arguments @ .., a, b, c] if arguments.len() <= 2 && !arguments.is_empty() => {
                let rest = Token { node: node.clone(), is_rest: true };
                let rest = a.apply_op3(b, c, rest)?;
                Token { node: node.clone(), is_rest: false }.apply(&[arguments, &[rest]].concat())?
            }
            arguments => Token { node: node.clone(), is_rest: false }.apply(arguments)?,
        };
        Ok((node, token))
    }

    /// What this thread's backward pass has found; a pass is one thread's.
    fn with_pass<R>(&self, f: impl FnOnce(&mut Pass) -> R) -> R {
        let mut passes = lock(&self.passes);
        let thread = thread::current().id();
        let index = passes.iter().position(|(of, _)| *of == thread).unwrap_or_else(|| {
            passes.push((thread, Pass::default()));
            passes.len() - 1
        });
        f(&mut passes[index].1)
    }

    /// What this thread's backward pass has found, to be used now.
    fn take_pass(&self) -> Pass {
        self.with_pass(std::mem::take)
    }

    /// Drops what an earlier pass of this thread, a failed one, has left behind.
    fn forget(&self) {
        let thread = thread::current().id();
        lock(&self.passes).retain(|(of, _)| *of != thread);
    }

    /// Takes a gradient of a result; returns what its token's gradient grows by.
    fn add(&self, index: usize, gradient: Gradient) -> candle_core::Result<Tensor> {
        self.with_pass(|pass| {
            if pass.sums.len() <= index {
                pass.sums.resize_with(index + 1, Sum::default);
            }
            pass.sums[index].add(gradient)?;
            pass.n_terms += 1;
            Ok(ONE.clone())
        })
    }

    /// [`run`](Self::run) for candle, which has counted the gradients handed over.
    fn run_counted(&self, count: &Tensor) -> candle_core::Result<Vec<Option<Tensor>>> {
        let pass = self.take_pass();
        if pass.n_terms as f32 != count.to_scalar::<f32>()? {
            candle_core::bail!(
                "an earlier backward pass through `{}` failed and left gradients behind; compute the loss anew",
                self.name
            );
        }
        self.run(pass)
    }

    /// Calls the rule and hands the gradients on; returns what candle is to know of them, for each tracked input.
    fn run(&self, Pass { sums, n_terms, .. }: Pass) -> candle_core::Result<Vec<Option<Tensor>>> {
        let sums = sums.into_iter().map(Sum::into_tensor).collect::<candle_core::Result<Vec<_>>>()?;
        let gradients = match n_terms {
            0 => self.inputs.iter().map(|_| None).collect(),
            _ => (self.backward)(&sums)?,
        };
        drop(sums);
        let mut for_candle = Vec::with_capacity(gradients.len());
        for (input, gradient) in self.inputs.iter().zip(gradients) {
            for_candle.push(match (input, gradient) {
                (Input::Constant, _) => continue,
                (Input::Function(origin), Some(gradient)) => Some(origin.node.add(origin.index, gradient)?),
                (Input::Function(_), None) => Some(ZERO.clone()),
                (Input::Candle(input), Some(gradient)) if input.is_variable() => keep(input, gradient)?,
                (Input::Candle(_), Some(gradient)) => gradient.into_tensor()?,
                (Input::Candle(input), None) if input.is_variable() => None,
                (Input::Candle(input), None) => Some(input.zeros_like()?), // candle panics without
            });
        }
        Ok(for_candle)
    }
}

/// What a token's gradient grows by for each gradient handed over, and where there is none.
static ONE: LazyLock<Tensor> = LazyLock::new(|| scalar(1.0));
static ZERO: LazyLock<Tensor> = LazyLock::new(|| scalar(0.0));

fn scalar(value: f32) -> Tensor {
    Tensor::full(value, (), &Device::Cpu).unwrap_or_else(|error| unreachable!("a scalar on the CPU: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the gradient of a tensor goes: to one of the results of a node.
pub(crate) struct Origin {
    node: Arc<Node>,
    /// Which of the node's results it is.
    index: usize,
    token: Tensor,
    id: OnceLock<TensorId>,
}

/// Those that are alive, by the tensor. A result holds its origin, which leaves this list with it.
static ORIGINS: LazyLock<Mutex<HashMap<TensorId, Weak<Origin>>>> = LazyLock::new(Mutex::default);

impl Origin {
    fn of(tensor: &Tensor) -> Option<Arc<Self>> {
        lock(&ORIGINS).get(&tensor.id()).and_then(Weak::upgrade)
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

impl CustomOp1 for Output {
    fn name(&self) -> &'static str {
        self.origin.node.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        lock(&self.value).take().ok_or_else(|| candle_core::Error::msg("a result was asked for twice"))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.origin.node.add(self.origin.index, gradient.clone().into()).map(Some)
    }
}

/// The operation that makes a node's token out of those of its inputs.
///
/// candle's operations have at most three arguments, so a token of more has a second one among its arguments.
struct Token {
    node: Arc<Node>,
    /// Whether it is the second one.
    is_rest: bool,
}

impl Token {
    fn apply(self, arguments: &[Tensor]) -> candle_core::Result<Tensor> {
        match arguments {
            [a] => a.apply_op1(self),
            [a, b] => a.apply_op2(b, self),
            [a, b, c] => a.apply_op3(b, c, self),
            _ => candle_core::bail!("`{}` has {} tracked inputs", self.node.name, arguments.len()),
        }
    }

    fn forward() -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    /// What candle adds to the gradients of the arguments.
    fn backward<const N: usize>(&self, count: &Tensor) -> candle_core::Result<[Option<Tensor>; N]> {
        let mut gradients = if self.is_rest {
            self.node.with_pass(|pass| std::mem::take(&mut pass.rest))
        } else {
            self.node.run_counted(count)?
        };
        if gradients.len() > N {
            let rest = gradients.split_off(N - 1);
            self.node.with_pass(|pass| pass.rest = rest);
            gradients.push(Some(ZERO.clone()));
        }
        let mut gradients = gradients.into_iter();
        Ok(array::from_fn(|_| gradients.next().flatten()))
    }
}

impl CustomOp1 for Token {
    fn name(&self) -> &'static str {
        self.node.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Self::forward()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, count: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let [a] = self.backward(count)?;
        Ok(a)
    }
}

impl CustomOp2 for Token {
    fn name(&self) -> &'static str {
        self.node.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Self::forward()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        count: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        Ok(self.backward::<2>(count)?.into())
    }
}

type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl CustomOp3 for Token {
    fn name(&self) -> &'static str {
        self.node.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Self::forward()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        count: &Tensor,
    ) -> candle_core::Result<Three> {
        Ok(self.backward::<3>(count)?.into())
    }
}
