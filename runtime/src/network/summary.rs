//! A network as a table.

use std::collections::HashSet;
use std::fmt;

use candle_core::TensorId;
use comfy_table::{CellAlignment, Table, presets};

use super::draw;
use super::record::{self, Node};
use super::text::{bytes, grouped, shapes};

/// A description of a network, made by a dry run and printed as a table.
///
/// ```
/// use layerfn::{affine, network};
/// use layerfn::functions::relu;
///
/// let net = network! { fc1: affine(16) -> relu -> fc2: affine(4) };
/// let summary = net.summary([(1, 8)])?;
/// assert_eq!(summary.parameter_count(), 8 * 16 + 16 + 16 * 4 + 4);
/// assert_eq!(summary.multiply_adds(), 8 * 16 + 16 * 4);
/// assert_eq!(summary.rows()[1].path, "relu");
/// println!("{summary}");
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Summary {
    rows: Vec<SummaryRow>,
    pub(super) nodes: Vec<Node>,
}

/// One stage of a [`Summary`].
#[derive(Clone, Debug)]
pub struct SummaryRow {
    /// Scope path of the stage.
    pub path: String,
    /// The layer's or function's name.
    pub layer: String,
    /// Shapes of its inputs.
    pub inputs: Vec<Vec<usize>>,
    /// Shapes of its outputs.
    pub outputs: Vec<Vec<usize>>,
    /// Its parameters, including those that an earlier stage uses as well.
    pub parameters: Vec<SummaryParameter>,
    /// Multiply-adds with the weights, as its layers declare them; zero for a function, `None` if a layer does
    /// not declare them.
    pub multiply_adds: Option<u64>,
    /// Bytes of its outputs.
    pub bytes: u64,
}

/// A parameter of a [`SummaryRow`].
#[derive(Clone, Debug)]
pub struct SummaryParameter {
    /// Full path.
    pub path: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Whether it is trained: not if it is frozen or taken without gradient.
    pub need_grad: bool,
    /// Whether it is frozen: it receives no gradient, and nothing changes it.
    pub frozen: bool,
    /// Whether an earlier stage has taken it, or its variable under another path; it is counted there.
    pub shared: bool,
    /// Bytes.
    pub bytes: u64,
}

impl SummaryParameter {
    /// Number of elements; zero if it is counted at another stage.
    fn own_elem_count(&self) -> usize {
        if self.shared { 0 } else { self.shape.iter().product() }
    }
}

impl SummaryRow {
    /// Whether it has parameters, and all of them are frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        !self.parameters.is_empty() && self.parameters.iter().all(|parameter| parameter.frozen)
    }

    /// Number of elements of the parameters that are counted here, or only of the trained ones if `trained`.
    #[must_use]
    pub fn parameter_count(&self, trained: bool) -> usize {
        let counted = self.parameters.iter().filter(|parameter| parameter.need_grad || !trained);
        counted.map(SummaryParameter::own_elem_count).sum()
    }
}

impl Summary {
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        let mut seen = HashSet::new();
        let rows = record::rows(&nodes).into_iter().map(|(_, node)| row(node, &mut seen)).collect();
        Self { rows, nodes }
    }

    /// The stages in the order in which they ran.
    #[must_use]
    pub fn rows(&self) -> &[SummaryRow] {
        &self.rows
    }

    /// Number of elements of all trained parameters.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.rows.iter().map(|row| row.parameter_count(true)).sum()
    }

    /// Number of elements of all parameters, including running statistics and the like.
    #[must_use]
    pub fn all_parameter_count(&self) -> usize {
        self.rows.iter().map(|row| row.parameter_count(false)).sum()
    }

    /// Number of elements of all frozen parameters.
    #[must_use]
    pub fn frozen_count(&self) -> usize {
        let parameters = self.rows.iter().flat_map(|row| &row.parameters);
        parameters.filter(|parameter| parameter.frozen).map(SummaryParameter::own_elem_count).sum()
    }

    /// Multiply-adds of one forward run, without those of layers that do not declare them.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        self.rows.iter().filter_map(|row| row.multiply_adds).fold(0, u64::saturating_add)
    }

    /// Bytes of all parameters.
    #[must_use]
    pub fn parameter_bytes(&self) -> u64 {
        let parameters = self.rows.iter().flat_map(|row| &row.parameters);
        parameters.filter(|parameter| !parameter.shared).map(|parameter| parameter.bytes).sum()
    }

    /// Bytes of the outputs of all stages, which training keeps until the backward pass.
    #[must_use]
    pub fn activation_bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.bytes).sum()
    }

    /// The network as a graph for Graphviz, grouped by scope.
    #[must_use]
    pub fn to_dot(&self) -> String {
        draw::dot(&self.nodes)
    }

    /// The network as a Mermaid flow chart, grouped by scope.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        draw::mermaid(&self.nodes)
    }

    /// The network as a self-contained SVG picture, grouped by scope.
    #[must_use]
    pub fn to_svg(&self) -> String {
        draw::svg(&self.nodes)
    }

    pub(crate) fn drawn(&self) -> Vec<draw::Drawn> {
        draw::drawn(&self.nodes)
    }
}

fn row(node: &Node, seen: &mut HashSet<TensorId>) -> SummaryRow {
    let parameters: Vec<SummaryParameter> = node
        .taken
        .iter()
        .map(|taken| {
            let var = taken.parameter.var();
            SummaryParameter {
                path: taken.path.clone(),
                shape: var.dims().to_vec(),
                need_grad: taken.trained,
                frozen: taken.frozen,
                shared: !seen.insert(var.id()),
                bytes: (var.elem_count() * var.dtype().size_in_bytes()) as u64,
            }
        })
        .collect();
    SummaryRow {
        path: node.path.clone(),
        layer: node.layer_name(),
        inputs: node.inputs.iter().map(|port| port.dims.clone()).collect(),
        outputs: node.outputs.iter().map(|port| port.dims.clone()).collect(),
        parameters,
        multiply_adds: (!node.more_multiply_adds).then_some(node.multiply_adds),
        bytes: node.bytes(),
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "path",
            "layer",
            "input",
            "output",
            "parameters",
            "trained",
            "multiply-adds",
            "bytes",
        ]);
        for row in &self.rows {
            let n_all = row.parameter_count(false);
            let parameters = match (n_all, row.parameters.is_empty()) {
                (_, true) => String::new(),
                (0, false) => "shared".to_owned(),
                _ => grouped(n_all as u64),
            };
            let trained = match (row.parameters.is_empty(), row.parameter_count(true)) {
                (true, _) => String::new(),
                _ if row.is_frozen() => "frozen".to_owned(),
                (false, n) if n == n_all => "all".to_owned(),
                (false, 0) => "none".to_owned(),
                (false, n) => grouped(n as u64),
            };
            table.add_row([
                row.path.clone(),
                row.layer.clone(),
                shapes(&row.inputs),
                shapes(&row.outputs),
                parameters,
                trained,
                match row.multiply_adds {
                    Some(0) => String::new(),
                    Some(n) => grouped(n),
                    None => "unknown".to_owned(),
                },
                grouped(row.bytes),
            ]);
        }
        for column in table.column_iter_mut().skip(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        let frozen = match self.frozen_count() {
            0 => String::new(),
            n => format!(", {} frozen", grouped(n as u64)),
        };
        writeln!(
            f,
            "parameters:    {} trained{frozen}, {} in all, {}",
            grouped(self.parameter_count() as u64),
            grouped(self.all_parameter_count() as u64),
            bytes(self.parameter_bytes())
        )?;
        write!(f, "multiply-adds: {}", grouped(self.multiply_adds()))?;
        let unknown = self.rows.iter().filter(|row| row.multiply_adds.is_none());
        let unknown: Vec<_> = unknown.map(|row| format!("`{}`", row.path)).collect();
        if !unknown.is_empty() {
            write!(f, ", and those of {}, which are not declared", unknown.join(", "))?;
        }
        writeln!(f)?;
        write!(f, "activations:   {}", bytes(self.activation_bytes()))
    }
}
