//! Modules of PyTorch and of candle-nn, which has PyTorch's layouts.

use super::recurrent::{Recurrences, Unit};
use super::{ATTENTION, Layout, Library, Pair, pair};

/// Layers that both have.
const LAYERS: &[Pair] = &[
    pair("affine", "W", "weight", Layout::Transposed),
    pair("affine", "b", "bias", Layout::Sizes),
    pair("conv", "W", "weight", Layout::Sizes),
    pair("conv", "b", "bias", Layout::Sizes),
    pair("deconv", "W", "weight", Layout::Sizes),
    pair("deconv", "b", "bias", Layout::Sizes),
    pair("depthwise_conv", "W", "weight", Layout::Grouped),
    pair("depthwise_conv", "b", "bias", Layout::Sizes),
    pair("bn", "gamma", "weight", Layout::Channel),
    pair("bn", "beta", "bias", Layout::Channel),
    pair("bn", "mean", "running_mean", Layout::Channel),
    pair("bn", "var", "running_var", Layout::Channel),
    pair("layer_normalization", "gamma", "weight", Layout::LastAxes),
    pair("layer_normalization", "beta", "bias", Layout::LastAxes),
    pair("group_normalization", "gamma", "weight", Layout::Channel),
    pair("group_normalization", "beta", "bias", Layout::Channel),
    pair("embed", "W", "weight", Layout::Sizes),
    pair("prelu", "slope", "weight", Layout::Channel),
];

/// What candle-nn does not have.
const MORE_LAYERS: &[Pair] = &[
    pair("instance_normalization", "gamma", "weight", Layout::Channel),
    pair("instance_normalization", "beta", "bias", Layout::Channel),
    pair(ATTENTION, "q_weight", "in_proj_weight", Layout::Third { third: 0, is_transposed: true }),
    pair(ATTENTION, "k_weight", "in_proj_weight", Layout::Third { third: 1, is_transposed: true }),
    pair(ATTENTION, "v_weight", "in_proj_weight", Layout::Third { third: 2, is_transposed: true }),
    pair(ATTENTION, "q_bias", "in_proj_bias", Layout::Third { third: 0, is_transposed: false }),
    pair(ATTENTION, "k_bias", "in_proj_bias", Layout::Third { third: 1, is_transposed: false }),
    pair(ATTENTION, "v_bias", "in_proj_bias", Layout::Third { third: 2, is_transposed: false }),
    pair(ATTENTION, "out_weight", "out_proj.weight", Layout::Transposed),
    pair(ATTENTION, "out_bias", "out_proj.bias", Layout::Sizes),
    pair(ATTENTION, "attn_bias_k", "bias_k", Layout::Sizes),
    pair(ATTENTION, "attn_bias_v", "bias_v", Layout::Sizes),
];

/// Scopes within layers here, and the modules there; the layers of a Transformer have no module of their own.
const MODULES: &[(&str, &str)] = &[
    ("transformer_encode", ""),
    ("src_self_attn", "self_attn"),
    ("enc_affine1", "linear1"),
    ("enc_affine2", "linear2"),
    ("enc_layer_norm1", "norm1"),
    ("enc_layer_norm2", "norm2"),
    ("transformer_decode", ""),
    ("tgt_self_attn", "self_attn"),
    ("tgt_memory_attn", "multihead_attn"),
    ("dec_affine1", "linear1"),
    ("dec_affine2", "linear2"),
    ("dec_layer_norm1", "norm1"),
    ("dec_layer_norm2", "norm2"),
    ("dec_layer_norm3", "norm3"),
];

const RECURRENCES: Recurrences = Recurrences {
    weights: ["weight_ih", "weight_hh"],
    biases: &["bias_ih", "bias_hh"],
    name: |module, name, unit| match unit {
        Unit::Cell => Some(format!("{module}.{name}")),
        Unit::Layer { number, is_reverse, .. } => {
            Some(format!("{module}.{name}_l{number}{}", if is_reverse { "_reverse" } else { "" }))
        }
    },
    is_transposed: false,
    is_update_first: false,
};

pub(super) const PYTORCH: Library = Library {
    name: "PyTorch",
    pairs: &[LAYERS, MORE_LAYERS],
    modules: MODULES,
    separator: ".",
    recurrences: RECURRENCES,
    // What PyTorch keeps and nobody here needs.
    address: |name| (name.rsplit('.').next() != Some("num_batches_tracked")).then(|| name.to_owned()),
    groups: None,
    has_channels_last: false,
};

pub(super) const CANDLE: Library = Library {
    name: "candle-nn",
    pairs: &[LAYERS, &[pair("rms_normalization", "gamma", "weight", Layout::LastAxes)]],
    modules: &[],
    // There are no cells: the layers run step by step.
    recurrences: Recurrences {
        name: |module, name, unit| match unit {
            Unit::Cell => Some(format!("{module}.{name}_l0")),
            Unit::Layer { .. } => (RECURRENCES.name)(module, name, unit),
        },
        ..RECURRENCES
    },
    address: |name| Some(name.to_owned()),
    ..PYTORCH
};
