//! Finds parameters that a backward pass does not reach, and where it stops.

use std::collections::{HashMap, HashSet};
use std::fmt;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, TensorId};

use super::record::{Kind, Node, Passed, Taken};
use crate::Result;

/// Problems with the gradients of a network, found by
/// [`Network::gradient_audit`](crate::Network::gradient_audit).
///
/// ```
/// use layerfn::prelude::*;
///
/// fn cut(x: &Tensor) -> layerfn::Result<Tensor> {
///     Ok(x.detach())
/// }
///
/// let net = network! { fc1: affine(4) -> cut -> fc2: affine(2) };
/// let x = Tensor::ones((1, 3), DType::F32, &Device::Cpu)?;
/// let audit = net.gradient_audit(&x, |y: &Tensor| y.sqr()?.sum_all())?;
/// assert_eq!(
///     audit.findings()[0].to_string(),
///     "`fc1/affine/W` got no gradient; the chain broke in `cut` (cut)"
/// );
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GradientAudit {
    findings: Vec<GradientFinding>,
    n_parameters: usize,
    n_frozen: usize,
}

/// A trained parameter whose gradient is unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GradientFinding {
    /// Full path of the parameter.
    pub parameter: String,
    /// The problem.
    pub fault: GradientFault,
    /// Path of the stage that lost the gradient: that of its output was still right. `None` if there is no such
    /// stage.
    pub stage: Option<String>,
    /// The name of that stage's layer or function.
    pub layer: Option<String>,
}

/// A problem with a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GradientFault {
    /// The parameter has no gradient.
    Missing,
    /// Every element is zero.
    Zero,
    /// An element is infinite or NaN.
    NotFinite,
}

impl GradientAudit {
    /// The findings, in the order in which the stages took the parameters.
    #[must_use]
    pub fn findings(&self) -> &[GradientFinding] {
        &self.findings
    }

    /// Whether every trained parameter got a gradient that is finite and not all zero.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    pub(super) fn new(nodes: &[Node], passed: &[Passed], gradients: &GradStore) -> Result<Self> {
        let lost = lost(nodes, passed, gradients)?;
        let findings = lost.into_iter().map(|Lost { path, fault, culprit, .. }| GradientFinding {
            parameter: path.to_owned(),
            fault,
            stage: culprit.map(|culprit| culprit.path.clone()),
            layer: culprit.map(Node::layer_name),
        });
        let paths = |is_meant: fn(&Taken) -> bool| {
            let taken = nodes.iter().flat_map(|node| &node.taken);
            taken.filter(|taken| is_meant(taken)).map(|taken| &taken.path).collect::<HashSet<_>>().len()
        };
        Ok(Self {
            findings: findings.collect(),
            n_parameters: paths(|taken| taken.trained),
            n_frozen: paths(|taken| taken.frozen),
        })
    }
}

/// A trained parameter whose gradient is missing, zero or not finite.
pub(super) struct Lost<'a> {
    pub(super) path: &'a str,
    pub(super) fault: GradientFault,
    /// The stage that took the parameter.
    pub(super) node: &'a Node,
    /// The stage that lost the gradient, if there is one.
    pub(super) culprit: Option<&'a Node>,
}

/// In the order in which the stages took the parameters.
pub(super) fn lost<'a>(nodes: &'a [Node], passed: &[Passed], gradients: &GradStore) -> Result<Vec<Lost<'a>>> {
    let mut state = vec![Some(GradientFault::Missing); nodes.len()];
    for event in passed {
        state[event.node] = fault(event.gradient.as_ref())?;
    }
    let flow = Flow::new(nodes);
    let mut seen = HashSet::new();
    let mut lost = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        for taken in &node.taken {
            if !taken.trained || !seen.insert(&taken.path) {
                continue;
            }
            if let Some(fault) = fault(gradients.get(taken.parameter.var()))? {
                let culprit = flow.culprit(index, &state, fault).map(|culprit| &nodes[culprit]);
                lost.push(Lost { path: &taken.path, fault, node, culprit });
            }
        }
    }
    Ok(lost)
}

/// The problem with a gradient, if there is one.
pub(crate) fn fault(gradient: Option<&Tensor>) -> Result<Option<GradientFault>> {
    let Some(gradient) = gradient else { return Ok(Some(GradientFault::Missing)) };
    if gradient.elem_count() == 0 {
        return Ok(Some(GradientFault::Zero));
    }
    // The sum alone could cancel out or overflow.
    let values = elements(gradient)?;
    Ok(if values.iter().any(|value| !value.is_finite()) {
        Some(GradientFault::NotFinite)
    } else if values.iter().all(|&value| value == 0.0) {
        Some(GradientFault::Zero)
    } else {
        None
    })
}

/// The elements as `f64`, in row-major order.
pub(crate) fn elements(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// Which stage takes the output of which.
struct Flow<'a> {
    nodes: &'a [Node],
    takers: Vec<Vec<usize>>,
}

impl<'a> Flow<'a> {
    fn new(nodes: &'a [Node]) -> Self {
        let mut makers: HashMap<TensorId, usize> = HashMap::new();
        let mut takers = vec![Vec::new(); nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            for port in &node.outputs {
                makers.insert(port.id, index);
            }
        }
        for (index, node) in nodes.iter().enumerate() {
            // A block passes its input on to its stages, which have their own entries.
            if matches!(node.kind, Kind::Block | Kind::Branch)
                || (!node.children.is_empty() && node.kind == Kind::Call)
            {
                continue;
            }
            for port in &node.inputs {
                if let Some(&maker) = makers.get(&port.id) {
                    takers[maker].push(index);
                }
            }
        }
        // The outputs of branches go into their join, and those of the stages of a function leave the function.
        for (index, node) in nodes.iter().enumerate() {
            let last = |parent: &Node| parent.children.last().copied();
            match node.kind {
                Kind::Join => {
                    for branch in &node.children {
                        if let Some(last) = last(&nodes[*branch]) {
                            takers[last].push(index);
                        }
                    }
                }
                Kind::Call => {
                    if let Some(last) = last(node) {
                        takers[last].push(index);
                    }
                }
                Kind::Block | Kind::Branch => {}
            }
        }
        Self { nodes, takers }
    }

    /// The first stage from `start` on whose output is detached, or has a gradient without the fault: it came up on the way to
    /// its input.
    fn culprit(&self, start: usize, state: &[Option<GradientFault>], fault: GradientFault) -> Option<usize> {
        let mut queue = std::collections::VecDeque::from([start]);
        let mut seen = HashSet::from([start]);
        while let Some(index) = queue.pop_front() {
            let outputs = &self.nodes[index].outputs;
            let detached = !outputs.is_empty() && outputs.iter().all(|port| !port.tracked);
            if detached || state[index] != Some(fault) {
                return Some(index);
            }
            queue.extend(self.takers[index].iter().copied().filter(|&taker| seen.insert(taker)));
        }
        None
    }
}

impl fmt::Display for GradientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "got no gradient",
            Self::Zero => "got a gradient of zeros",
            Self::NotFinite => "got a gradient that is not finite",
        })
    }
}

impl fmt::Display for GradientFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.parameter, self.fault)?;
        match (&self.stage, &self.layer) {
            (Some(stage), Some(layer)) => write!(f, "; the chain broke in `{stage}` ({layer})"),
            _ => write!(f, "; the chain broke behind the last stage that is tracked, or in the loss"),
        }
    }
}

impl fmt::Display for GradientAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frozen = match self.n_frozen {
            0 => String::new(),
            n => format!("; {n} more are frozen"),
        };
        if self.is_clean() {
            return write!(f, "all {} trained parameters got a gradient{frozen}", self.n_parameters);
        }
        writeln!(
            f,
            "{} of {} trained parameters are not trained{frozen}:",
            self.findings.len(),
            self.n_parameters
        )?;
        let lines: Vec<String> = self.findings.iter().map(|finding| format!("  {finding}")).collect();
        f.write_str(&lines.join("\n"))
    }
}
