//! Pictures of a network: Graphviz, Mermaid and SVG, grouped by scope.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use candle_core::TensorId;

use super::record::{Kind, Node};
use super::text::{grouped, shape};
use crate::Family;

/// The stages as they are drawn: in sequence, in boxes, or side by side.
enum Item {
    Stage(usize),
    Group {
        title: String,
        items: Vec<Item>,
    },
    /// Branches and the join below them; a residual's shortcut is an empty branch.
    Split {
        join: usize,
        branches: Vec<Vec<Item>>,
    },
}

fn items(nodes: &[Node], indices: &[usize]) -> Vec<Item> {
    indices.iter().map(|&index| item(nodes, index)).collect()
}

fn item(nodes: &[Node], index: usize) -> Item {
    let node = &nodes[index];
    match node.kind {
        Kind::Call if node.children.is_empty() || !node.taken.is_empty() => Item::Stage(index),
        Kind::Call | Kind::Block | Kind::Branch => {
            let last = node.path.rsplit('/').next().unwrap_or_default();
            let title = match node.kind {
                Kind::Call if last != node.name => format!("{last}: {}", node.name),
                _ => node.name.clone(),
            };
            let title = if node.frozen { format!("{title} (frozen)") } else { title };
            Item::Group { title, items: items(nodes, &node.children) }
        }
        Kind::Join => {
            let mut branches: Vec<_> =
                node.children.iter().map(|&branch| items(nodes, &nodes[branch].children)).collect();
            if node.name == "residual" {
                branches.push(Vec::new());
            }
            Item::Split { join: index, branches }
        }
    }
}

fn roots(nodes: &[Node]) -> Vec<Item> {
    let roots: Vec<_> = (0..nodes.len()).filter(|&index| nodes[index].parent.is_none()).collect();
    items(nodes, &roots)
}

/// The text in the box of a stage: name and label, then arguments and parameters.
fn lines(node: &Node) -> (String, Vec<String>) {
    let name = node.layer_name();
    let mut segments: Vec<&str> = node.path.split('/').collect();
    // The path of a layer ends with its own scope, behind the label.
    let own_scopes =
        node.layer.map_or(0, |info| info.scope.split('/').filter(|part| !part.is_empty()).count());
    segments.truncate(segments.len() - own_scopes.min(segments.len()));
    let label = segments.pop().filter(|_| node.labelled).unwrap_or_default();
    let n: usize = node.taken.iter().map(|taken| taken.parameter.var().elem_count()).sum();
    let first = if label.is_empty() { name } else { format!("{label}: {name}") };
    let frozen = if node.taken.iter().all(|taken| taken.frozen) { ", frozen" } else { "" };
    let arguments = node.arguments.iter().map(|(name, text)| format!("{name} {text}"));
    let arguments = arguments.collect::<Vec<_>>();
    let mut notes: Vec<String> = arguments.chunks(3).map(|some| some.join(", ")).collect();
    if n > 0 {
        notes.push(format!("{} parameters{frozen}", grouped(n as u64)));
    }
    (first, notes)
}

fn output_shape(node: &Node) -> String {
    node.outputs.iter().map(|port| shape(&port.dims)).collect::<Vec<_>>().join(", ")
}

/// Fill and border colours, which show the family of a stage.
fn colours(node: &Node) -> (&'static str, &'static str) {
    match (node.kind, node.layer.map(|info| info.family)) {
        (Kind::Join, _) => ("#eceff1", "#78909c"),
        (_, Some(Family::Normalization | Family::Dropout)) => ("#fff8e1", "#ffb300"),
        (_, Some(Family::Pooling)) => ("#f3e5f5", "#ab47bc"),
        (_, Some(Family::Convolution)) => ("#e3f2fd", "#1e88e5"),
        (_, Some(Family::Affine | Family::Embedding)) => ("#e8f5e9", "#43a047"),
        (_, Some(Family::Recurrent | Family::Attention)) => ("#e0f7fa", "#00acc1"),
        (_, Some(Family::Other)) => ("#f9fbe7", "#9e9d24"),
        // Functions are mostly activations.
        (_, Some(Family::Activation) | None) => ("#fbe9e7", "#ff7043"),
    }
}

// Graphs of nodes and edges.

/// An arrow; the input of the network has no index.
struct Edge {
    from: Option<usize>,
    to: usize,
}

fn edges(items: &[Item], mut sources: Vec<Option<usize>>, found: &mut Vec<Edge>) -> Vec<Option<usize>> {
    for item in items {
        sources = match item {
            Item::Stage(index) => {
                found.extend(sources.iter().map(|&from| Edge { from, to: *index }));
                vec![Some(*index)]
            }
            Item::Group { items, .. } => edges(items, sources, found),
            Item::Split { join, branches } => {
                for branch in branches {
                    let ends = edges(branch, sources.clone(), found);
                    found.extend(ends.into_iter().map(|from| Edge { from, to: *join }));
                }
                vec![Some(*join)]
            }
        };
    }
    sources
}

fn edge_shape(nodes: &[Node], edge: &Edge) -> String {
    match edge.from {
        Some(from) => output_shape(&nodes[from]),
        None => nodes.first().map(input_shape).unwrap_or_default(),
    }
}

fn input_shape(node: &Node) -> String {
    node.inputs.iter().map(|port| shape(&port.dims)).collect::<Vec<_>>().join(", ")
}

/// Stages that take a tensor from elsewhere: `use(skip)`.
fn skips(nodes: &[Node], flow: &[Edge]) -> Vec<(usize, usize)> {
    let mut makers: HashMap<TensorId, usize> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for port in &node.outputs {
            // A block's last stage comes later in the list and is the one that is drawn.
            if node.children.is_empty() || node.kind == Kind::Join {
                makers.insert(port.id, index);
            }
        }
    }
    let mut found = Vec::new();
    for edge in flow {
        for port in &nodes[edge.to].inputs {
            if let Some(&maker) = makers.get(&port.id)
                && maker != edge.to
                && nodes[edge.to].kind != Kind::Join
                && flow.iter().all(|other| other.to != edge.to || other.from != Some(maker))
            {
                found.push((maker, edge.to));
            }
        }
    }
    found
}

/// A stage for drawings that are made elsewhere, such as in reports.
pub(crate) struct Drawn {
    /// Unique path.
    pub(crate) path: String,
    pub(crate) layer: String,
    pub(crate) arguments: Vec<(String, String)>,
    pub(crate) outputs: Vec<Vec<usize>>,
    /// Indices of the stages before it; `None` is the input of the network.
    pub(crate) inputs: Vec<Option<usize>>,
}

pub(super) fn drawn(nodes: &[Node]) -> Vec<Drawn> {
    let mut flow = Vec::new();
    let ends = edges(&roots(nodes), vec![None], &mut flow);
    let skips = skips(nodes, &flow);
    let shown = flow.iter().flat_map(|edge| [edge.from, Some(edge.to)]).chain(ends).flatten();
    let shown: BTreeSet<usize> = shown.collect();
    let places: HashMap<usize, usize> =
        shown.iter().enumerate().map(|(place, &index)| (index, place)).collect();
    let mut times: HashMap<&str, usize> = HashMap::new();
    shown
        .iter()
        .map(|&index| {
            let node = &nodes[index];
            let n = times.entry(&node.path).or_default();
            *n += 1;
            let path = if *n == 1 { node.path.clone() } else { format!("{}_{n}", node.path) };
            let before = flow.iter().filter(|edge| edge.to == index).map(|edge| edge.from);
            let skipped = skips.iter().filter(|(_, to)| *to == index).map(|&(from, _)| Some(from));
            let inputs = before.chain(skipped).map(|from| from.and_then(|from| places.get(&from).copied()));
            Drawn {
                path,
                layer: node.layer_name(),
                arguments: node
                    .arguments
                    .iter()
                    .map(|(name, text)| ((*name).to_owned(), text.clone()))
                    .collect(),
                outputs: node.outputs.iter().map(|port| port.dims.clone()).collect(),
                inputs: inputs.collect(),
            }
        })
        .collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(super) fn dot(nodes: &[Node]) -> String {
    fn group(items: &[Item], nodes: &[Node], depth: usize, n_clusters: &mut usize, out: &mut String) {
        let pad = "  ".repeat(depth);
        for item in items {
            match item {
                Item::Stage(index) | Item::Split { join: index, .. } => {
                    if let Item::Split { branches, .. } = item {
                        branches.iter().for_each(|branch| group(branch, nodes, depth, n_clusters, out));
                    }
                    let node = &nodes[*index];
                    let (first, second) = lines(node);
                    let (fill, border) = colours(node);
                    let text = [vec![first], second].concat().join("\\n").replace('"', "\\\"");
                    let _ = writeln!(
                        out,
                        "{pad}n{index} [label=\"{text}\", fillcolor=\"{fill}\", color=\"{border}\"];"
                    );
                }
                Item::Group { title, items } => {
                    *n_clusters += 1;
                    let title = title.replace('"', "\\\"");
                    let _ = writeln!(out, "{pad}subgraph cluster_{n_clusters} {{");
                    let _ = writeln!(out, "{pad}  label=\"{title}\"; style=\"rounded\"; color=\"#b0bec5\";");
                    group(items, nodes, depth + 1, n_clusters, out);
                    let _ = writeln!(out, "{pad}}}");
                }
            }
        }
    }
    let items = roots(nodes);
    let mut flow = Vec::new();
    edges(&items, vec![None], &mut flow);
    let mut out = String::from(
        "digraph network {\n  node [shape=box, style=\"rounded,filled\", fontname=\"Helvetica\", fontsize=11];\n  \
         edge [fontname=\"Helvetica\", fontsize=9, color=\"#607d8b\"];\n  input [label=\"input\", shape=plaintext, style=\"\"];\n",
    );
    group(&items, nodes, 1, &mut 0, &mut out);
    for edge in &flow {
        let from = edge.from.map_or_else(|| "input".to_owned(), |from| format!("n{from}"));
        let _ = writeln!(out, "  {from} -> n{} [label=\"{}\"];", edge.to, edge_shape(nodes, edge));
    }
    for (from, to) in skips(nodes, &flow) {
        let _ = writeln!(out, "  n{from} -> n{to} [style=dashed, constraint=false];");
    }
    out.push_str("}\n");
    out
}

pub(super) fn mermaid(nodes: &[Node]) -> String {
    fn group(items: &[Item], nodes: &[Node], depth: usize, n_groups: &mut usize, out: &mut String) {
        let pad = "  ".repeat(depth);
        for item in items {
            match item {
                Item::Stage(index) | Item::Split { join: index, .. } => {
                    if let Item::Split { branches, .. } = item {
                        branches.iter().for_each(|branch| group(branch, nodes, depth, n_groups, out));
                    }
                    let (first, second) = lines(&nodes[*index]);
                    let (fill, border) = colours(&nodes[*index]);
                    let text = [vec![first], second].concat();
                    let text = text.iter().map(|line| escape(line)).collect::<Vec<_>>().join("<br>");
                    let _ = writeln!(out, "{pad}n{index}[\"{text}\"]");
                    let _ = writeln!(out, "{pad}style n{index} fill:{fill},stroke:{border}");
                }
                Item::Group { title, items } => {
                    *n_groups += 1;
                    let _ = writeln!(out, "{pad}subgraph g{n_groups} [\"{}\"]", escape(title));
                    group(items, nodes, depth + 1, n_groups, out);
                    let _ = writeln!(out, "{pad}end");
                }
            }
        }
    }
    let items = roots(nodes);
    let mut flow = Vec::new();
    edges(&items, vec![None], &mut flow);
    let mut out = String::from("flowchart TD\n  input([\"input\"])\n");
    group(&items, nodes, 1, &mut 0, &mut out);
    for edge in &flow {
        let from = edge.from.map_or_else(|| "input".to_owned(), |from| format!("n{from}"));
        let _ = writeln!(out, "  {from} -->|{}| n{}", edge_shape(nodes, edge), edge.to);
    }
    for (from, to) in skips(nodes, &flow) {
        let _ = writeln!(out, "  n{from} -.-> n{to}");
    }
    out
}

// The SVG: every item knows its size, and is placed on a vertical axis.

/// Height of a box without notes, and of each note.
const BOX_HEIGHT: f64 = 27.0;
const NOTE_HEIGHT: f64 = 13.0;
const GAP: f64 = 30.0;
const SIDE: f64 = 26.0;
const PAD: f64 = 14.0;
const TITLE: f64 = 18.0;
const SHORTCUT: f64 = 60.0;

/// Approximate width of a text of this size; the boxes have a margin.
fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.58
}

fn box_width(node: &Node) -> f64 {
    let (first, second) = lines(node);
    if node.kind == Kind::Join {
        return text_width(&first, 12.0).max(40.0) + 24.0;
    }
    let widths = second.iter().map(|note| text_width(note, 10.0));
    widths.fold(text_width(&first, 12.0).max(90.0), f64::max) + 24.0
}

fn box_height(node: &Node) -> f64 {
    if node.kind == Kind::Join { 26.0 } else { BOX_HEIGHT + NOTE_HEIGHT * lines(node).1.len() as f64 }
}

fn size(item: &Item, nodes: &[Node]) -> (f64, f64) {
    match item {
        // Room for the shape beside the arrow below.
        Item::Stage(index) => (box_width(&nodes[*index]), box_height(&nodes[*index])),
        Item::Group { title, items } => {
            let (w, h) = column_size(items, nodes);
            (w.max(text_width(title, 11.0)) + 2.0 * PAD, h + 2.0 * PAD + TITLE)
        }
        Item::Split { join, branches } => {
            let (w, h) = branches_size(branches, nodes);
            (w.max(box_width(&nodes[*join])), h + 2.0 * GAP + box_height(&nodes[*join]))
        }
    }
}

fn column_size(items: &[Item], nodes: &[Node]) -> (f64, f64) {
    let sizes: Vec<_> = items.iter().map(|item| size(item, nodes)).collect();
    let height = sizes.iter().map(|size| size.1).sum::<f64>() + GAP * sizes.len().saturating_sub(1) as f64;
    let width = sizes.iter().map(|size| size.0).fold(SHORTCUT, f64::max);
    let shapes = items
        .iter()
        .take(items.len().saturating_sub(1))
        .map(|item| 2.0 * text_width(&last_shape(item, nodes), 9.0) + 20.0);
    (shapes.fold(width, f64::max), height)
}

fn branches_size(branches: &[Vec<Item>], nodes: &[Node]) -> (f64, f64) {
    let sizes: Vec<_> = branches.iter().map(|branch| column_size(branch, nodes)).collect();
    let width = sizes.iter().map(|size| size.0).sum::<f64>() + SIDE * sizes.len().saturating_sub(1) as f64;
    (width, sizes.iter().map(|size| size.1).fold(0.0, f64::max))
}

/// Shape of the output of the item.
fn last_shape(item: &Item, nodes: &[Node]) -> String {
    match item {
        Item::Stage(index) | Item::Split { join: index, .. } => output_shape(&nodes[*index]),
        Item::Group { items, .. } => items.last().map(|item| last_shape(item, nodes)).unwrap_or_default(),
    }
}

struct Picture<'a> {
    nodes: &'a [Node],
    back: String,
    front: String,
    /// Middle of the left side of each box, for dashed arrows.
    places: HashMap<usize, (f64, f64)>,
}

impl Picture<'_> {
    /// Draws the items downwards from `y` around `x`; returns the lower end.
    fn column(&mut self, items: &[Item], x: f64, mut y: f64) -> f64 {
        for (i, item) in items.iter().enumerate() {
            let (_, height) = size(item, self.nodes);
            self.item(item, x, y);
            y += height;
            if let Some(next) = items.get(i + 1) {
                let text = last_shape(item, self.nodes);
                self.arrow((x, y - exit_inset(item)), (x, y + GAP + entry_inset(next)), !is_split(next));
                self.shape(x, y + GAP / 2.0 + 1.0, &text);
                y += GAP;
            }
        }
        y
    }

    fn item(&mut self, item: &Item, x: f64, y: f64) {
        let (width, height) = size(item, self.nodes);
        match item {
            Item::Stage(index) => self.stage(*index, x, y),
            Item::Group { title, items } => {
                let _ = write!(
                    self.back,
                    "<rect x='{:.1}' y='{y:.1}' width='{width:.1}' height='{height:.1}' rx='10' fill='#607d8b' fill-opacity='.07' \
                     stroke='#b0bec5'/><text x='{:.1}' y='{:.1}' class='title'>{}</text>",
                    x - width / 2.0,
                    x - width / 2.0 + 10.0,
                    y + 16.0,
                    escape(title)
                );
                self.column(items, x, y + PAD + TITLE);
            }
            Item::Split { join, branches } => {
                let (total, tallest) = branches_size(branches, self.nodes);
                let join_y = y + 2.0 * GAP + tallest;
                let mut left = x - total / 2.0;
                for branch in branches {
                    let (width, _) = column_size(branch, self.nodes);
                    let middle = left + width / 2.0;
                    self.branch(branch, x, middle, y, join_y);
                    left += width + SIDE;
                }
                self.stage(*join, x, join_y);
            }
        }
    }

    fn branch(&mut self, branch: &[Item], x: f64, middle: f64, y: f64, join_y: f64) {
        let (Some(first), Some(last)) = (branch.first(), branch.last()) else {
            // A shortcut, drawn beside the other branches.
            let _ = write!(
                self.back,
                "<path d='M {x:.1} {y:.1} C {x:.1} {:.1} {middle:.1} {:.1} {middle:.1} {:.1} L {middle:.1} {:.1} C {middle:.1} \
                 {:.1} {x:.1} {:.1} {x:.1} {:.1}' class='arrow' marker-end='url(#tip)'/>",
                y + GAP * 0.6,
                y + GAP * 0.4,
                y + GAP,
                join_y - GAP,
                join_y - GAP * 0.4,
                join_y - GAP * 0.6,
                join_y - 3.0
            );
            return;
        };
        self.arrow((x, y), (middle, y + GAP + entry_inset(first)), !is_split(first));
        let end = self.column(branch, middle, y + GAP);
        let text = last_shape(last, self.nodes);
        if end - exit_inset(last) + GAP < join_y {
            let _ = write!(
                self.back,
                "<path d='M {middle:.1} {:.1} L {middle:.1} {:.1}' class='arrow'/>",
                end - exit_inset(last),
                join_y - GAP
            );
        }
        let start = (join_y - GAP).max(end - exit_inset(last));
        self.arrow((middle, start), (x, join_y), true);
        self.shape(middle, start + 7.0, &text);
    }

    fn stage(&mut self, index: usize, x: f64, y: f64) {
        let node = &self.nodes[index];
        let (width, height) = (box_width(node), box_height(node));
        let (fill, border) = colours(node);
        let (first, second) = lines(node);
        self.places.insert(index, (x - width / 2.0, y + height / 2.0));
        let radius = if node.kind == Kind::Join { 13.0 } else { 7.0 };
        let first_y = y + 17.0;
        let _ = write!(
            self.front,
            "<g><title>{}</title><rect x='{:.1}' y='{y:.1}' width='{width:.1}' height='{height:.1}' rx='{radius}' fill='{fill}' \
             stroke='{border}' stroke-width='1.4'/><text x='{x:.1}' y='{first_y:.1}' class='name'>{}</text>",
            escape(&node.path),
            x - width / 2.0,
            escape(&first)
        );
        for (i, note) in second.iter().enumerate() {
            let _ = write!(
                self.front,
                "<text x='{x:.1}' y='{:.1}' class='note'>{}</text>",
                first_y + 1.0 + NOTE_HEIGHT * (i + 1) as f64,
                escape(note)
            );
        }
        self.front.push_str("</g>");
    }

    fn arrow(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), tip: bool) {
        let middle = (y1 + y2) / 2.0;
        let (end, tip) = if tip { (y2 - 3.0, " marker-end='url(#tip)'") } else { (y2, "") };
        let _ = write!(
            self.back,
            "<path d='M {x1:.1} {y1:.1} C {x1:.1} {middle:.1} {x2:.1} {middle:.1} {x2:.1} {end:.1}' class='arrow'{tip}/>"
        );
    }

    /// The shape of a tensor, to the right of its arrow.
    fn shape(&mut self, x: f64, y: f64, text: &str) {
        let _ =
            write!(self.front, "<text x='{:.1}' y='{y:.1}' class='shape'>{}</text>", x + 7.0, escape(text));
    }
}

/// Whether the arrow into the item continues into branches, where its tip is drawn.
fn is_split(item: &Item) -> bool {
    match item {
        Item::Stage(_) => false,
        Item::Group { items, .. } => items.first().is_some_and(is_split),
        Item::Split { .. } => true,
    }
}

/// Distance from the upper edge of the item to its first box.
fn entry_inset(item: &Item) -> f64 {
    match item {
        Item::Group { items, .. } => PAD + TITLE + items.first().map_or(0.0, entry_inset),
        Item::Stage(_) | Item::Split { .. } => 0.0,
    }
}

fn exit_inset(item: &Item) -> f64 {
    match item {
        Item::Group { items, .. } => PAD + items.last().map_or(0.0, exit_inset),
        Item::Stage(_) | Item::Split { .. } => 0.0,
    }
}

pub(super) fn svg(nodes: &[Node]) -> String {
    let items = roots(nodes);
    let (width, height) = column_size(&items, nodes);
    let mut flow = Vec::new();
    edges(&items, vec![None], &mut flow);
    let skips = skips(nodes, &flow);
    let margin = if skips.is_empty() { 30.0 } else { 90.0 };
    let (width, height) = (width.max(160.0) + 2.0 * margin, height + 120.0);
    let mut picture = Picture { nodes, back: String::new(), front: String::new(), places: HashMap::new() };
    let x = width / 2.0;
    let input = nodes.first().map(input_shape).unwrap_or_default();
    let inset = items.first().map_or(0.0, entry_inset);
    let _ = write!(picture.front, "<text x='{x:.1}' y='24' class='name'>input</text>");
    picture.arrow((x, 30.0), (x, 60.0 + inset), !items.first().is_some_and(is_split));
    picture.shape(x, 46.0, &input);
    let end = picture.column(&items, x, 60.0);
    let output = items.last().map(|item| last_shape(item, nodes)).unwrap_or_default();
    picture.arrow((x, end - items.last().map_or(0.0, exit_inset)), (x, end + 32.0), true);
    picture.shape(x, end + 16.0, &output);
    let _ = write!(picture.front, "<text x='{x:.1}' y='{:.1}' class='name'>output</text>", end + 46.0);
    for (from, to) in skips {
        if let (Some(&(x1, y1)), Some(&(x2, y2))) = (picture.places.get(&from), picture.places.get(&to)) {
            let left = x1.min(x2) - 40.0;
            let _ = write!(
                picture.back,
                "<path d='M {x1:.1} {y1:.1} C {left:.1} {y1:.1} {left:.1} {y2:.1} {:.1} {y2:.1}' class='skip' \
                 marker-end='url(#tip)'/>",
                x2 - 3.0
            );
        }
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0} {height:.0}' width='{width:.0}' height='{height:.0}' \
         font-family='Helvetica, Arial, sans-serif'><style>.name{{font-size:12px;text-anchor:middle;fill:#263238}}\
         .note{{font-size:10px;text-anchor:middle;fill:#546e7a}}.title{{font-size:11px;font-weight:bold;fill:#546e7a}}\
         .shape{{font-size:9px;fill:#78909c}}.arrow{{fill:none;stroke:#90a4ae;stroke-width:1.3}}\
         .skip{{fill:none;stroke:#90a4ae;stroke-width:1.3;stroke-dasharray:4 3}}</style><defs><marker id='tip' \
         viewBox='0 0 8 8' refX='5' refY='4' markerWidth='6' markerHeight='6' orient='auto'><path d='M 0 0 L 8 4 L 0 8 z' \
         fill='#90a4ae'/></marker></defs><rect width='100%' height='100%' fill='#ffffff'/>{}{}</svg>\n",
        picture.back, picture.front
    )
}
