//! A network as the graph that TensorBoard draws: TensorFlow's `GraphDef`.

use std::collections::BTreeMap;

use prost::Message;

use super::events::{Dim, Shape};
use crate::network::Drawn;

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    op: String,
    /// Names of nodes.
    #[prost(string, repeated, tag = "3")]
    input: Vec<String>,
    #[prost(btree_map = "string, message", tag = "5")]
    attr: BTreeMap<String, Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(message, optional, tag = "1")]
    list: Option<List>,
    #[prost(bytes = "vec", optional, tag = "2")]
    text: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(message, repeated, tag = "7")]
    shape: Vec<Shape>,
}

const INPUT: &str = "input";

/// The message in bytes.
pub(super) fn of(stages: &[Drawn]) -> Vec<u8> {
    let input = Node { name: INPUT.to_owned(), op: "Placeholder".to_owned(), ..Node::default() };
    let name = |stage: &Drawn| if stage.path == INPUT { format!("{INPUT}_") } else { stage.path.clone() };
    let stages = stages.iter().map(|stage| {
        let inputs =
            stage.inputs.iter().map(|from| from.map_or_else(|| INPUT.to_owned(), |from| name(&stages[from])));
        let texts = stage.arguments.iter().map(|(name, text)| {
            (name.clone(), Attribute { text: Some(text.clone().into_bytes()), list: None })
        });
        let shapes = stage
            .outputs
            .iter()
            .map(|dims| Shape { dim: dims.iter().map(|&size| Dim { size: size as i64 }).collect() });
        let shapes = Attribute { list: Some(List { shape: shapes.collect() }), text: None };
        Node {
            name: name(stage),
            op: stage.layer.clone(),
            input: inputs.collect(),
            attr: texts.chain([("_output_shapes".to_owned(), shapes)]).collect(),
        }
    });
    Graph { node: std::iter::once(input).chain(stages).collect() }.encode_to_vec()
}
