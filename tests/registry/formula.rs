//! Evaluates the shape formulas and conditions of declarations, as a reader of the documentation would.

use std::collections::BTreeMap;

use layerfn::LAYERS;
use layerfn::functions::Inq;
use serde_json::{Map, Value};

use crate::cases::Case;

/// The sizes at `axes`, 1 elsewhere.
fn sizes_at(axes: &[usize], sizes: &[usize]) -> Vec<usize> {
    sizes.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { size } else { 1 }).collect()
}

/// What the names in a formula stand for in one call; worked out here from the call, not by the library.
pub(crate) struct Variables {
    sizes: BTreeMap<&'static str, Vec<usize>>,
    flags: BTreeMap<String, bool>,
}

impl Variables {
    pub(crate) fn of(case: &Case) -> Self {
        let arguments: Map<String, Value> = serde_json::from_str(case.arguments).unwrap();
        let list = |name: &str| -> Option<Vec<usize>> {
            let size = |value: &Value| value.as_u64().map(|size| size as usize);
            let value = arguments.get(name)?;
            value
                .as_array()
                .map(|sizes| sizes.iter().filter_map(size).collect())
                .or_else(|| Some(vec![size(value)?]))
        };
        let one = |name: &str, default: usize| list(name).map_or(default, |sizes| sizes[0]);
        let input = case.inputs[0].1;
        let base_axis = one("base_axis", 1);
        let flat = case.layer.ends_with("affine");
        let channel_last = arguments.get("channel_last") == Some(&Value::Bool(true));
        let inmaps = match (flat, channel_last) {
            (true, _) => input[base_axis..].iter().product(),
            (false, true) => input[input.len() - 1],
            (false, false) => input.get(base_axis).copied().unwrap_or(1),
        };
        let outmaps = match case.layer {
            "weight_normalization" | "spectral_norm" => input[one("dim", 0)],
            _ => one("outmaps", inmaps * one("multiplier", 1)),
        };
        let shape = match case.layer {
            "batch_normalization" | "fused_batch_normalization" | "sync_batch_normalization" => {
                sizes_at(&list("axes").unwrap_or(vec![1]), input)
            }
            "group_normalization" | "instance_normalization" => sizes_at(&[one("channel_axis", 1)], input),
            "layer_normalization" | "rms_normalization" => {
                let samples = list("batch_axis").unwrap_or(vec![0]);
                let axes: Vec<usize> = (0..input.len()).filter(|axis| !samples.contains(axis)).collect();
                sizes_at(&axes, input)
            }
            "prelu" if arguments.get("shared") == Some(&Value::Bool(false)) => vec![input[base_axis]],
            "prelu" => vec![],
            _ => input[base_axis.min(input.len())..].to_vec(),
        };
        let kernel = list("kernel").unwrap_or_default();
        let maps = [if case.layer == "deconvolution" { outmaps } else { inmaps } / one("group", 1)];
        let filter = if channel_last { [&kernel[..], &maps].concat() } else { [&maps, &kernel[..]].concat() };
        let mut sizes = BTreeMap::from([
            ("inmaps", vec![inmaps]),
            ("outmaps", vec![outmaps]),
            ("ones", vec![1; if case.layer == "min_max_quantize" { input.len() } else { kernel.len() }]),
            ("kernel", kernel),
            ("filter", filter),
            ("shape", shape),
            ("Inq::STATE", vec![Inq::STATE]),
        ]);
        for name in ["n_outmaps", "n_inputs", "n_features", "state_size", "r"] {
            sizes.extend(list(name).map(|size| (name, size)));
        }
        if case.layer == "multi_head_attention" {
            let [q, k, v] = [0, 1, 2].map(|index: usize| case.inputs[index].1[2]);
            let (k_embed, v_embed) = (one("k_embed_dim", q), one("v_embed_dim", v));
            sizes.extend([("q_dim", vec![q]), ("k_dim", vec![k]), ("v_dim", vec![v])]);
            sizes.extend([("k_embed_dim", vec![k_embed]), ("v_embed_dim", vec![v_embed])]);
            sizes.insert("out_dim", vec![one("out_dim", v_embed)]);
        }
        if case.layer == "learned_position_embedding" {
            sizes.extend(input.last().map(|&last| ("n_features", vec![last])));
            sizes.extend(list("max_positions").map(|size| ("max_positions", size)));
        }
        for (name, default) in [("group", 1), ("divisor", 1)] {
            sizes.insert(name, vec![one(name, default)]);
        }
        let mut stacked = false;
        if let ("rnn" | "gru" | "lstm_n_step", &[layers, directions, _, state]) =
            (case.layer, case.inputs[case.inputs.len() - 1].1)
        {
            let named =
                [("layers", layers), ("upper", layers - 1), ("directions", directions), ("state", state)];
            sizes.extend(named.map(|(name, size)| (name, vec![size])));
            sizes.extend([("inmaps", vec![input[2]]), ("outputs", vec![directions * state])]);
            stacked = layers > 1;
        }
        // Flags default to what the declaration says.
        let info = LAYERS.iter().find(|info| info.name == case.layer).unwrap();
        let defaults = info
            .arguments
            .iter()
            .filter_map(|argument| Some((argument.name.to_owned(), argument.default?.parse::<bool>().ok()?)));
        let mut flags: BTreeMap<String, bool> = defaults.collect();
        flags.extend(arguments.iter().filter_map(|(name, value)| Some((name.clone(), value.as_bool()?))));
        flags.insert("stacked".to_owned(), stacked);
        Self { sizes, flags }
    }

    /// Whether a condition, flags or their opposites joined by `&&`, holds.
    pub(crate) fn holds(&self, when: Option<&str>) -> bool {
        let flag = |flag: &str| match flag.trim().strip_prefix('!') {
            Some(flag) => !self.flags[flag.trim()],
            None => self.flags[flag.trim()],
        };
        when.is_none_or(|condition| condition.split("&&").all(flag))
    }

    /// A shape such as `(outmaps, inmaps / group, ..kernel)`.
    pub(crate) fn shape(&self, formula: &str) -> Vec<usize> {
        let inside = formula.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap();
        let items = inside.split(',').map(str::trim).filter(|item| !item.is_empty());
        items
            .flat_map(|item| match item.strip_prefix("..") {
                Some(list) => self.sizes[list].clone(),
                None => vec![self.sum(item)],
            })
            .collect()
    }

    fn sum(&self, formula: &str) -> usize {
        formula.split(" + ").map(|term| self.term(term)).sum()
    }

    fn term(&self, term: &str) -> usize {
        let mut words = term.split_whitespace();
        let mut value = self.atom(words.next().unwrap());
        while let Some(operator) = words.next() {
            let next = self.atom(words.next().unwrap());
            value = match operator {
                "*" => value * next,
                "/" => value / next,
                other => panic!("`{other}` in the shape formula `{term}`"),
            };
        }
        value
    }

    fn atom(&self, atom: &str) -> usize {
        atom.parse().unwrap_or_else(|_| match self.sizes.get(atom).map(Vec::as_slice) {
            Some([size]) => *size,
            other => panic!("`{atom}` in a shape formula is {other:?}"),
        })
    }
}
