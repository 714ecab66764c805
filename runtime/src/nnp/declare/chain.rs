//! From functions that take and make values to chains: what is made once and taken once is the next stage, and what meets again
//! in a sum, a product or a concatenation is a branch.

use super::function::Gives;
use super::stage::{Join, Stage, Step};
use super::text::value;

/// A part of the network: a chain from one value to others.
pub(super) struct Node {
    pub(super) steps: Vec<Step>,
    /// What goes through the chain.
    pub(super) flow: usize,
    /// What its stages take besides, without what flows.
    pub(super) more: Vec<usize>,
    pub(super) outputs: Vec<usize>,
    pub(super) gives: Gives,
    /// How deep its joins lie in each other.
    pub(super) depth: usize,
    /// If it is a join: of what, in order.
    pub(super) join: Option<(Join, Vec<usize>)>,
}

/// How deep joins may lie in each other. What would lie deeper is given a name.
const DEEPEST: usize = 16;

/// Puts nodes, each of which stands behind those that it needs, together as far as it goes.
pub(super) fn reduce(nodes: Vec<Node>, n_values: usize, outputs: &[usize]) -> Vec<Node> {
    let mut reduction = Reduction {
        maker: vec![None; n_values],
        uses: vec![0; n_values],
        nodes: Vec::with_capacity(nodes.len()),
    };
    outputs.iter().for_each(|&output| reduction.uses[output] += 1);
    for node in &nodes {
        node.taken().for_each(|taken| reduction.uses[taken] += 1);
    }
    for node in nodes {
        reduction.push(node);
    }
    reduction.nodes.into_iter().flatten().collect()
}

impl Node {
    fn taken(&self) -> impl Iterator<Item = usize> {
        let of_join = self.join.iter().flat_map(|(_, inputs)| inputs.iter().copied());
        let own = self.join.is_none().then_some(self.flow);
        own.into_iter().chain(of_join).chain(self.more.iter().copied())
    }
}

struct Reduction {
    /// The node that makes a value and nothing else.
    maker: Vec<Option<usize>>,
    uses: Vec<usize>,
    nodes: Vec<Option<Node>>,
}

impl Reduction {
    /// The chain that makes this value for one who takes it alone.
    fn chain_to(&self, value: usize) -> Option<usize> {
        self.maker[value].filter(|_| self.uses[value] == 1)
    }

    /// The value that the chain to this one begins with, or itself.
    fn source(&self, value: usize) -> usize {
        let chain = self.chain_to(value).and_then(|place| self.nodes[place].as_ref());
        chain.map_or(value, |chain| chain.flow)
    }

    fn push(&mut self, mut node: Node) {
        if let Some((kind, inputs)) = node.join.take() {
            match self.joined(kind, &inputs) {
                Some(joined) => {
                    node.more.extend(joined.more);
                    (node.flow, node.steps, node.depth) = (joined.flow, joined.steps, joined.depth);
                }
                None => (node.steps, node.more) = (vec![loose(kind, &inputs)], inputs[1..].to_vec()),
            }
        }
        if let Some(place) = self.chain_to(node.flow)
            && let Some(before) = self.nodes[place].take()
        {
            let (mut steps, mut more) = (before.steps, before.more);
            steps.append(&mut node.steps);
            more.append(&mut node.more);
            (node.steps, node.more, node.flow) = (steps, more, before.flow);
            node.depth = node.depth.max(before.depth);
        }
        if let ([output], Gives::Tensor) = (&node.outputs[..], node.gives) {
            self.maker[*output] = Some(self.nodes.len());
        }
        self.nodes.push(Some(node));
    }

    /// The join as a stage of what all its branches begin with, if that is one value.
    fn joined(&mut self, kind: Join, inputs: &[usize]) -> Option<Node> {
        let begins_here = |source: usize| {
            let own = |&input: &usize| input == source || self.source(input) == source;
            inputs.iter().all(own) && inputs.iter().any(|&input| input != source)
        };
        let source = [inputs[0], self.source(inputs[0]), self.source(inputs[1])];
        let source = source.into_iter().find(|&source| begins_here(source))?;
        let chains: Vec<_> =
            inputs.iter().map(|&input| self.chain_to(input).filter(|_| input != source)).collect();
        let depths =
            chains.iter().flatten().filter_map(|&place| self.nodes[place].as_ref()).map(|node| node.depth);
        let depth = depths.max().unwrap_or(0) + 1;
        if depth > DEEPEST {
            return None;
        }
        // The join takes its source once, for all its branches.
        self.uses[source] = self.uses[source] + 1 - inputs.len();
        let (mut branches, mut more) = (Vec::with_capacity(inputs.len()), Vec::new());
        for place in chains {
            match place.and_then(|place| self.nodes[place].take()) {
                Some(chain) => {
                    more.extend(chain.more);
                    branches.push(chain.steps);
                }
                None => branches.push(Vec::new()),
            }
        }
        let stage = match (kind, &mut branches[..]) {
            (Join::Add, [branch, empty] | [empty, branch]) if empty.is_empty() => {
                Stage::Join { kind: Join::Residual, branches: vec![std::mem::take(branch)] }
            }
            _ => Stage::Join { kind, branches },
        };
        let steps = vec![Step::new(stage)];
        Some(Node { steps, flow: source, more, outputs: Vec::new(), gives: Gives::Tensor, depth, join: None })
    }
}

/// A join of values that begin nowhere together.
fn loose(kind: Join, inputs: &[usize]) -> Step {
    let taken = inputs[1..].iter().map(|&input| vec![Step::new(Stage::Use(value(input)))]);
    Step::new(Stage::Join { kind, branches: std::iter::once(Vec::new()).chain(taken).collect() })
}
