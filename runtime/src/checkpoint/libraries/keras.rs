//! Layers of Keras. Its files name variables in several ways, of which one address is made.
//!
//! | file | name |
//! |---|---|
//! | `.weights.h5` | `layers/dense/vars/0`, `layers/lstm/cell/vars/0`, `layers/bidirectional/forward_layer/cell/vars/0` |
//! | `.h5` of Keras 3 | `model_weights/fc/sequential/fc/kernel`, `model_weights/lstm/sequential/lstm/lstm_cell/kernel` |
//! | `.h5` of Keras 2 | `model_weights/fc/fc/kernel:0`; without `model_weights` for weights alone |
//! | others | `fc/kernel`, `fc.kernel` |

use std::collections::HashMap;

use super::recurrent::{Recurrences, Unit, outputs};
use super::{ATTENTION, Groups, Layout, Library, Pair, pair};

/// The parameters of each layer, in the order in which Keras numbers its variables.
const LAYERS: &[Pair] = &[
    pair("affine", "W", "kernel", Layout::Same),
    pair("affine", "b", "bias", Layout::Same),
    pair("conv", "W", "kernel", Layout::ChannelsLast),
    pair("conv", "b", "bias", Layout::Same),
    pair("deconv", "W", "kernel", Layout::ChannelsLast),
    pair("deconv", "b", "bias", Layout::Same),
    pair("depthwise_conv", "W", "kernel", Layout::Multiplied),
    pair("depthwise_conv", "b", "bias", Layout::Same),
    pair("bn", "gamma", "gamma", Layout::OneAxis),
    pair("bn", "beta", "beta", Layout::OneAxis),
    pair("bn", "mean", "moving_mean", Layout::OneAxis),
    pair("bn", "var", "moving_variance", Layout::OneAxis),
    pair("layer_normalization", "gamma", "gamma", Layout::OneAxis),
    pair("layer_normalization", "beta", "beta", Layout::OneAxis),
    pair("group_normalization", "gamma", "gamma", Layout::OneAxis),
    pair("group_normalization", "beta", "beta", Layout::OneAxis),
    pair("embed", "W", "embeddings", Layout::Same),
    pair("prelu", "slope", "alpha", Layout::Sizes),
    pair(ATTENTION, "q_weight", "query_dense/kernel", Layout::Heads { axis: 1 }),
    pair(ATTENTION, "q_bias", "query_dense/bias", Layout::Heads { axis: 0 }),
    pair(ATTENTION, "k_weight", "key_dense/kernel", Layout::Heads { axis: 1 }),
    pair(ATTENTION, "k_bias", "key_dense/bias", Layout::Heads { axis: 0 }),
    pair(ATTENTION, "v_weight", "value_dense/kernel", Layout::Heads { axis: 1 }),
    pair(ATTENTION, "v_bias", "value_dense/bias", Layout::Heads { axis: 0 }),
    pair(ATTENTION, "out_weight", "output_dense/kernel", Layout::Heads { axis: 0 }),
    pair(ATTENTION, "out_bias", "output_dense/bias", Layout::Same),
];

pub(super) const KERAS: Library = Library {
    name: "Keras",
    pairs: &[LAYERS],
    modules: &[],
    separator: "/",
    recurrences: Recurrences {
        weights: ["kernel", "recurrent_kernel"],
        biases: &["bias"],
        name: |module, name, unit| match unit {
            Unit::Cell => Some(format!("{module}/{name}")),
            Unit::Layer { number: 0, is_only: true, .. } => Some(format!("{module}/cell/{name}")),
            Unit::Layer { number: 0, is_reverse: false, .. } => {
                Some(format!("{module}/forward_layer/cell/{name}"))
            }
            Unit::Layer { number: 0, is_reverse: true, .. } => {
                Some(format!("{module}/backward_layer/cell/{name}"))
            }
            Unit::Layer { .. } => None,
        },
        is_transposed: true,
        is_update_first: true,
    },
    address,
    groups: Some(Groups { layers: CONTAINER, variables: VARIABLES }),
    has_channels_last: true,
};

/// Groups in a `.weights.h5`: one has the layers of a model, the other the variables of a layer.
const CONTAINER: &str = "layers";
const VARIABLES: &str = "vars";

/// Groups that no layer is called after.
const CONTAINERS: [&str; 2] = [CONTAINER, "_layer_checkpoint_dependencies"];

/// Sublayers of attention, which are other groups in the other files.
const SUBLAYERS: [(&str, &str); 4] = [
    ("query_dense", "query"),
    ("key_dense", "key"),
    ("value_dense", "value"),
    ("output_dense", "attention_output"),
];

/// The label and the variable, by name or number; none for the state of an optimizer, a metric or a generator.
fn address(path: &str) -> Option<String> {
    let separator = if path.contains('/') { '/' } else { '.' };
    let mut label: Vec<&str> = path.split(separator).collect();
    if let ["optimizer", VARIABLES, ..] | ["optimizer_weights", _, ..] = label[..] {
        return None;
    }
    let mut variable = label.pop()?;
    let mut is_repeated = label.first() == Some(&"model_weights");
    if is_repeated {
        label.remove(0);
    }
    if is_number(variable) && label.last() == Some(&VARIABLES) {
        label.pop();
    } else if let Some((name, number)) = variable.rsplit_once(':')
        && is_number(number)
    {
        (variable, is_repeated) = (name, true);
    }
    if label.last() == Some(&"seed_generator") || variable == "seed_generator_state" {
        return None;
    }
    // Behind the group of a layer comes the path of the variable, which has the layer again.
    if is_repeated && let Some(last) = label.iter().rposition(|part| *part == label[0]) {
        label.drain(..last);
    }
    let is_alone = label.len() == 1;
    label.retain(|part| is_alone || !CONTAINERS.contains(part));
    if label.len() > 1 && label.last().is_some_and(|part| is_cell(part)) {
        label.pop();
        if let Some(last) = label.last_mut() {
            let ways = ["forward", "backward"];
            let is = |way: &&str| last.strip_prefix(way).is_some_and(|rest| rest.starts_with('_'));
            *last = ways.into_iter().find(is).unwrap_or(last);
        }
    }
    if let Some(last) = label.last_mut() {
        *last = SUBLAYERS.iter().find(|(file, _)| file == last).map_or(last, |(_, name)| name);
    }
    label.push(if variable == "depthwise_kernel" { "kernel" } else { variable });
    Some(label.join("/"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `cell`, or `lstm_cell_1` and its like.
fn is_cell(part: &str) -> bool {
    let name = part.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    ["cell", "lstm_cell", "gru_cell", "simple_rnn_cell"].contains(&name)
}

/// What is known of the layers before an affine layer, by which it shows that it flattens images.
#[derive(Default)]
pub(super) struct Images {
    seen: usize,
    /// Which parameter was the last with so many outputs.
    outputs: HashMap<usize, usize>,
    /// The same for layers that make images, with its path.
    channels: HashMap<usize, (usize, String)>,
}

impl Images {
    /// Takes note of a parameter; for weights of an affine layer that seems to flatten images the number of their channels,
    /// and a parameter of the layer that makes them.
    pub(super) fn flattened(&mut self, path: &str, dims: &[usize]) -> Option<(usize, String)> {
        let mut parts = path.rsplit('/');
        let (name, scope) = (parts.next()?, parts.next()?);
        let found = match dims {
            [inputs, ..] if (scope, name) == ("affine", "W") => self.before(*inputs),
            _ => None,
        };
        let all = || dims.iter().product::<usize>();
        let (outputs, makes_images) = match (scope, name) {
            ("affine", "W") => (dims.iter().skip(1).product(), false),
            ("conv" | "depthwise_conv", "W") => (dims.first().copied()?, true),
            ("deconv", "W") => (dims.get(1).copied()?, true),
            ("conv" | "depthwise_conv" | "deconv", "b") => (all(), true),
            ("embed", "W") | (ATTENTION, "out_weight") => (dims.last().copied()?, false),
            (_, "gamma" | "beta") => (all(), dims.len() > 2 && dims.last() == Some(&1)),
            _ => (outputs(path, dims)?, false),
        };
        self.seen += 1;
        self.outputs.insert(outputs, self.seen);
        if makes_images && outputs > 1 {
            self.channels.insert(outputs, (self.seen, path.to_owned()));
        }
        found
    }

    fn before(&self, inputs: usize) -> Option<(usize, String)> {
        let is_part = |channels: &usize| *channels < inputs && inputs.is_multiple_of(*channels);
        let images = self.channels.iter().filter(|(channels, _)| is_part(channels));
        let (channels, (place, path)) = images.max_by_key(|(_, (place, _))| *place)?;
        let is_nearer = self.outputs.get(&inputs).is_some_and(|exact| exact > place);
        (!is_nearer).then(|| (*channels, path.clone()))
    }
}
