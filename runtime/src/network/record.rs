//! A run of a network written down: which stages ran, on what, with which parameters, and how long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Layout, Shape, Tensor, TensorId};

use super::Value;
use crate::run::Observer;
use crate::{LayerInfo, Parameter, ParameterStore, Result};

/// What a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A layer, function or closure.
    Call,
    /// Labelled braces.
    Block,
    /// `add { .. }` and its like; its children are branches.
    Join,
    Branch,
}

/// A tensor that went in or out.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) id: TensorId,
    pub(super) dims: Vec<usize>,
    pub(super) dtype: DType,
    /// Whether gradients can flow through it.
    pub(super) tracked: bool,
}

/// A parameter that a stage took.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) path: String,
    pub(super) parameter: Parameter,
    /// Whether the stage took it to be trained: not if it is frozen, or taken without gradient.
    pub(super) trained: bool,
    /// Whether it is frozen: by a label around the stage, or in the store.
    pub(super) frozen: bool,
    /// The layer that took it: the stage's own, or one inside.
    pub(super) layer: &'static str,
    /// How often the stage took it, once a step in a recurrent one.
    pub(super) times: u64,
}

/// A stage that ran.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Scope path of the stage; of its layer, if it is one.
    pub(super) path: String,
    /// The function as written; the label of a block.
    pub(super) name: String,
    /// Whether the last part of the scope is the stage's own name.
    pub(super) labelled: bool,
    /// Whether its own label freezes it.
    pub(super) frozen: bool,
    pub(super) layer: Option<&'static LayerInfo>,
    pub(super) parent: Option<usize>,
    pub(super) children: Vec<usize>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    pub(super) taken: Vec<Taken>,
    /// Time until the stage returned, without what watching it costs.
    pub(super) own: Duration,
}

/// What a probe saw pass backwards.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub(super) node: usize,
    pub(super) at: Instant,
    pub(super) gradient: Option<Tensor>,
}

/// Whether the outputs of stages are watched in the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    Nothing,
    Time,
    Gradients,
}

pub(super) struct Recorder {
    state: Mutex<State>,
    watch: Watch,
    passed: Arc<Mutex<Vec<Passed>>>,
}

#[derive(Default)]
struct State {
    nodes: Vec<Node>,
    open: Vec<(usize, Instant)>,
    layers: Vec<&'static LayerInfo>,
}

impl Recorder {
    pub(super) fn new(watch: Watch) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), watch, passed: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        self.state().nodes.clone()
    }

    /// The nodes; what `store` says is not trained is not, and what it says is frozen is.
    pub(super) fn nodes_in(&self, store: &ParameterStore) -> Vec<Node> {
        let mut nodes = self.nodes();
        for taken in nodes.iter_mut().flat_map(|node| &mut node.taken) {
            if let Some(parameter) = store.get(&taken.path) {
                taken.trained &= parameter.need_grad();
                taken.frozen |= parameter.is_frozen();
            }
        }
        nodes
    }

    pub(super) fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn begin(
        &self,
        kind: Kind,
        path: String,
        name: &str,
        labelled: bool,
        input: Option<&dyn Value>,
    ) -> usize {
        let mut state = self.state();
        let index = state.nodes.len();
        let parent = state.open.last().map(|&(parent, _)| parent);
        if let Some(parent) = parent {
            state.nodes[parent].children.push(index);
        }
        state.nodes.push(Node {
            kind,
            path,
            name: name.to_owned(),
            labelled,
            frozen: false,
            layer: None,
            parent,
            children: Vec::new(),
            inputs: input.map(ports).unwrap_or_default(),
            outputs: Vec::new(),
            taken: Vec::new(),
            own: Duration::ZERO,
        });
        state.open.push((index, Instant::now()));
        index
    }

    /// Notes that the node's label freezes it.
    pub(super) fn freeze(&self, index: usize) {
        self.state().nodes[index].frozen = true;
    }

    /// Ends the node and all that is open inside it, as after an error.
    pub(super) fn end(&self, index: usize) {
        let mut state = self.state();
        while let Some((open, since)) = state.open.pop() {
            if state.nodes[open].own.is_zero() {
                state.nodes[open].own = since.elapsed();
            }
            if open == index {
                break;
            }
        }
    }

    /// Notes what the stage returns, and watches it.
    pub(super) fn returns<V: Value>(&self, index: usize, value: V) -> Result<V> {
        {
            let mut state = self.state();
            let since = state.open.iter().find(|(open, _)| *open == index).map(|&(_, since)| since);
            state.nodes[index].own = since.map(|since| since.elapsed()).unwrap_or_default();
        }
        let value = if self.watch == Watch::Nothing {
            value
        } else {
            value.map(&mut |tensor| self.watched(index, tensor))?
        };
        self.state().nodes[index].outputs = ports(&value);
        Ok(value)
    }

    fn watched(&self, node: usize, tensor: Tensor) -> Result<Tensor> {
        if !tensor.track_op() || !tensor.dtype().is_float() {
            return Ok(tensor);
        }
        let at_start = tensor.layout().is_contiguous() && tensor.layout().start_offset() == 0;
        let tensor = if at_start { tensor } else { tensor.force_contiguous()? };
        let keep = self.watch == Watch::Gradients;
        Ok(tensor.apply_op1(Probe { node, keep, passed: Arc::clone(&self.passed) })?)
    }
}

impl Observer for Recorder {
    fn layer_begins(&self, path: &str, info: &'static LayerInfo, outermost: bool) {
        let mut state = self.state();
        state.layers.push(info);
        if let (true, Some(&(index, _))) = (outermost, state.open.last()) {
            let node = &mut state.nodes[index];
            if node.layer.is_none() && node.kind == Kind::Call {
                node.layer = Some(info);
                if !info.scope.is_empty() {
                    path.clone_into(&mut node.path);
                }
            }
        }
    }

    fn layer_ends(&self) {
        self.state().layers.pop();
    }

    fn takes_parameter(&self, path: &str, parameter: &Parameter, trained: bool) {
        let mut state = self.state();
        let layer = state.layers.last().map_or("", |info| info.name);
        let frozen = parameter.is_frozen() || state.open.iter().any(|&(open, _)| state.nodes[open].frozen);
        if let Some(&(index, _)) = state.open.last() {
            let taken = &mut state.nodes[index].taken;
            match taken.iter_mut().find(|other| other.path == path) {
                Some(again) => {
                    again.times += 1;
                    again.trained |= trained;
                    again.frozen &= frozen;
                }
                None => taken.push(Taken {
                    path: path.to_owned(),
                    parameter: parameter.clone(),
                    trained,
                    frozen,
                    layer,
                    times: 1,
                }),
            }
        }
    }
}

fn ports<V: Value + ?Sized>(value: &V) -> Vec<Port> {
    let mut ports = Vec::new();
    value.each(&mut |tensor| {
        ports.push(Port {
            id: tensor.id(),
            dims: tensor.dims().to_vec(),
            dtype: tensor.dtype(),
            tracked: tensor.track_op(),
        });
    });
    ports
}

/// The identity, which tells when the gradient of a stage's output is known.
struct Probe {
    node: usize,
    keep: bool,
    passed: Arc<Mutex<Vec<Passed>>>,
}

impl CustomOp1 for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let gradient = gradient.clone();
        let kept = self.keep.then(|| gradient.clone());
        let passed = Passed { node: self.node, at: Instant::now(), gradient: kept };
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).push(passed);
        Ok(Some(gradient))
    }
}
