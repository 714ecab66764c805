//! Calls of every layer over a grid of arguments, in JSON; a new layer needs a line here.

/// One call.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) layer: &'static str,
    pub(crate) inputs: &'static [(&'static str, &'static [usize])],
    pub(crate) arguments: &'static str,
}

const fn case(
    layer: &'static str,
    shape: &'static [(&'static str, &'static [usize])],
    arguments: &'static str,
) -> Case {
    Case { layer, inputs: shape, arguments }
}

const ROWS: &[(&str, &[usize])] = &[("inp", &[3, 4])];
const CUBES: &[(&str, &[usize])] = &[("inp", &[2, 3, 2, 2])];
const LINES: &[(&str, &[usize])] = &[("inp", &[2, 4, 7])];
const IMAGES: &[(&str, &[usize])] = &[("inp", &[2, 4, 5, 6])];
const CHANNELS_LAST: &[(&str, &[usize])] = &[("inp", &[2, 5, 6, 4])];
const VOLUMES: &[(&str, &[usize])] = &[("inp", &[1, 2, 4, 3, 4])];
const STACKS: &[(&str, &[usize])] = &[("inp", &[2, 3, 4, 5])];
const SUMS: &[(&str, &[usize])] = &[("inp", &[2, 4, 5, 6]), ("z", &[2, 4, 5, 6])];
const WEIGHTS: &[(&str, &[usize])] = &[("w", &[3, 4, 2])];
const NUMBERS: &[(&str, &[usize])] = &[("x", &[2, 4, 5])];
const INDICES: &[(&str, &[usize])] = &[("inp", &[2, 3])];
const SOURCES: &[(&str, &[usize])] = &[("src", &[4, 2, 6])];
const MASKED_SOURCES: &[(&str, &[usize])] = &[("src", &[4, 2, 6]), ("src_additive_mask", &[4, 4])];
const TARGETS: &[(&str, &[usize])] = &[("tgt", &[3, 2, 6]), ("memory", &[4, 2, 6])];
const PAIRS: &[(&str, &[usize])] = &[("src", &[4, 2, 6]), ("tgt", &[3, 2, 6])];
const QUERIES: &[(&str, &[usize])] = &[("query", &[3, 2, 6]), ("key", &[4, 2, 5]), ("value", &[4, 2, 3])];
const STATES: &[(&str, &[usize])] = &[("x", &[2, 3]), ("h", &[2, 4]), ("c", &[2, 4])];

const SEQUENCES: &[(&str, &[usize])] = &[("x", &[4, 2, 3]), ("h", &[1, 1, 2, 5])];
const BOTH_WAYS: &[(&str, &[usize])] = &[("x", &[3, 2, 3]), ("h", &[3, 2, 2, 4])];
const CELLS: &[(&str, &[usize])] = &[("x", &[4, 2, 3]), ("h", &[1, 1, 2, 5]), ("c", &[1, 1, 2, 5])];
const CELLS_BOTH_WAYS: &[(&str, &[usize])] = &[("x", &[3, 2, 3]), ("h", &[3, 2, 2, 4]), ("c", &[3, 2, 2, 4])];

const MOVED: &[(&str, &[usize])] = &[("inp", &[2, 4, 4, 5]), ("offset", &[2, 24, 4, 5])];
const MASKED: &[(&str, &[usize])] =
    &[("inp", &[2, 4, 5, 2]), ("offset", &[2, 4, 5, 18]), ("mask", &[2, 4, 5, 9])];

pub(crate) const CASES: &[Case] = &[
    case("affine", ROWS, r#"{"n_outmaps": 5}"#),
    case("affine", CUBES, r#"{"n_outmaps": [2, 3], "base_axis": 2, "with_bias": false}"#),
    case("convolution", LINES, r#"{"outmaps": 6, "kernel": [3]}"#),
    case(
        "convolution",
        IMAGES,
        r#"{"outmaps": 6, "kernel": [3, 2], "group": 2, "pad": [1, 0], "stride": [2, 1]}"#,
    ),
    case("convolution", VOLUMES, r#"{"outmaps": 3, "kernel": [2, 2, 2], "with_bias": false}"#),
    case("convolution", STACKS, r#"{"outmaps": 2, "kernel": [3], "base_axis": 2, "dilation": [2]}"#),
    case(
        "convolution",
        CHANNELS_LAST,
        r#"{"outmaps": 4, "kernel": [3, 2], "group": 2, "channel_last": true}"#,
    ),
    case("depthwise_convolution", IMAGES, r#"{"kernel": [3, 3], "multiplier": 2}"#),
    case("depthwise_convolution", VOLUMES, r#"{"kernel": [2, 1, 2], "with_bias": false}"#),
    case("deconvolution", IMAGES, r#"{"outmaps": 6, "kernel": [2, 3], "group": 2, "stride": [2, 1]}"#),
    case("deconvolution", LINES, r#"{"outmaps": 3, "kernel": [4], "with_bias": false}"#),
    case(
        "deconvolution",
        IMAGES,
        r#"{"outmaps": 2, "kernel": [2, 2], "stride": [2, 3], "output_padding": [1, 2], "dilation": [2, 1]}"#,
    ),
    case(
        "deconvolution",
        CHANNELS_LAST,
        r#"{"outmaps": 4, "kernel": [2, 3], "group": 2, "stride": [2, 1], "output_padding": [1, 0], "channel_last": true}"#,
    ),
    case("depthwise_deconvolution", IMAGES, r#"{"kernel": [3, 3], "divisor": 2}"#),
    case("depthwise_deconvolution", LINES, r#"{"kernel": [3], "with_bias": false}"#),
    case("batch_normalization", IMAGES, r#"{}"#),
    case("batch_normalization", IMAGES, r#"{"axes": [1, 3], "decay_rate": 0.5}"#),
    case("batch_normalization", IMAGES, r#"{"no_scale": true}"#),
    case("fused_batch_normalization", SUMS, r#"{}"#),
    case("fused_batch_normalization", IMAGES, r#"{"no_bias": true, "axes": [2]}"#),
    case("sync_batch_normalization", IMAGES, r#"{}"#),
    case("layer_normalization", IMAGES, r#"{}"#),
    case("layer_normalization", STACKS, r#"{"batch_axis": [0, 2], "no_bias": true}"#),
    case("group_normalization", IMAGES, r#"{"num_groups": 2}"#),
    case("group_normalization", STACKS, r#"{"num_groups": 5, "channel_axis": 3, "no_scale": true}"#),
    case("instance_normalization", IMAGES, r#"{}"#),
    case("instance_normalization", STACKS, r#"{"channel_axis": 2, "batch_axis": [0, 1]}"#),
    case("rms_normalization", IMAGES, r#"{}"#),
    case("rms_normalization", STACKS, r#"{"batch_axis": [0, 1, 2]}"#),
    case("mean_subtraction", IMAGES, r#"{}"#),
    case("mean_subtraction", STACKS, r#"{"base_axis": 2}"#),
    case("embed", INDICES, r#"{"n_inputs": 4, "n_features": 5}"#),
    case("prelu", IMAGES, r#"{}"#),
    case("prelu", IMAGES, r#"{"shared": false, "base_axis": 2}"#),
    case("svd_affine", ROWS, r#"{"n_outmaps": 5, "r": 2}"#),
    case("svd_affine", CUBES, r#"{"n_outmaps": [2, 3], "r": 3, "with_bias": false}"#),
    case("svd_convolution", IMAGES, r#"{"outmaps": 3, "kernel": [2, 2], "r": 2}"#),
    case("svd_convolution", LINES, r#"{"outmaps": 3, "kernel": [3], "r": 1, "with_bias": false}"#),
    case("cpd3_convolution", IMAGES, r#"{"outmaps": 3, "kernel": [2, 2], "r": 2}"#),
    case("cpd3_convolution", VOLUMES, r#"{"outmaps": 3, "kernel": [2, 2, 1], "r": 3, "with_bias": false}"#),
    case("binary_connect_affine", ROWS, r#"{"n_outmaps": 5}"#),
    case("binary_connect_affine", CUBES, r#"{"n_outmaps": [2, 3], "with_bias": false}"#),
    case("binary_connect_convolution", IMAGES, r#"{"outmaps": 6, "kernel": [3, 2], "group": 2}"#),
    case("binary_weight_affine", ROWS, r#"{"n_outmaps": 5}"#),
    case("binary_weight_affine", CUBES, r#"{"n_outmaps": [2, 3], "base_axis": 3, "with_bias": false}"#),
    case("binary_weight_convolution", IMAGES, r#"{"outmaps": 6, "kernel": [3, 2], "group": 2}"#),
    case(
        "inq_affine",
        ROWS,
        r#"{"n_outmaps": 5, "inq_iterations": [0, 2], "selection_algorithm": "largest_abs"}"#,
    ),
    case(
        "inq_affine",
        ROWS,
        r#"{"n_outmaps": 5, "inq_iterations": [0, 1, 2, 9], "seed": 3, "with_bias": false}"#,
    ),
    case(
        "inq_convolution",
        IMAGES,
        r#"{"outmaps": 6, "kernel": [3, 2], "group": 2, "inq_iterations": [1, 2]}"#,
    ),
    case("fixed_point_quantized_affine", ROWS, r#"{"n_outmaps": 5}"#),
    case(
        "fixed_point_quantized_affine",
        ROWS,
        r#"{"n_outmaps": 5, "quantize_w": false, "with_bias": false}"#,
    ),
    case(
        "fixed_point_quantized_convolution",
        CHANNELS_LAST,
        r#"{"outmaps": 2, "kernel": [3, 2], "channel_last": true}"#,
    ),
    case("fixed_point_quantized_convolution", IMAGES, r#"{"outmaps": 6, "kernel": [3, 2], "group": 2}"#),
    case("pow2_quantized_affine", ROWS, r#"{"n_outmaps": 5}"#),
    case("pow2_quantized_affine", ROWS, r#"{"n_outmaps": 5, "quantize_b": false}"#),
    case("pow2_quantized_convolution", IMAGES, r#"{"outmaps": 6, "kernel": [3, 2], "group": 2}"#),
    case("pruned_affine", ROWS, r#"{"n_outmaps": 5, "rate_w": 0.5}"#),
    case("pruned_affine", ROWS, r#"{"n_outmaps": 5, "prune_w": false, "with_bias": false}"#),
    case("pruned_convolution", CHANNELS_LAST, r#"{"outmaps": 2, "kernel": [3, 2], "channel_last": true}"#),
    case("pruned_convolution", IMAGES, r#"{"outmaps": 6, "kernel": [3, 2], "group": 2, "rate_w": 0.5}"#),
    case("multi_head_attention", QUERIES, r#"{"num_heads": 2, "v_embed_dim": 4, "output_weights": false}"#),
    case(
        "multi_head_attention",
        QUERIES,
        r#"{"num_heads": 3, "k_embed_dim": 9, "out_dim": 5, "with_bias": false, "add_attn_bias": true}"#,
    ),
    case(
        "multi_head_attention",
        &[("query", &[3, 2, 6]), ("key", &[4, 2, 6]), ("value", &[4, 2, 6]), ("additive_mask", &[3, 4])],
        r#"{"num_heads": 2, "dropout": 0.5}"#,
    ),
    case(
        "transformer",
        PAIRS,
        r#"{"embed_dim": 6, "num_heads": 2, "num_encoder_layers": 2, "num_decoder_layers": 1, "dim_feedforward": 5, "dropout": 0.0, "activation": {"function": "gelu"}}"#,
    ),
    case(
        "transformer_encode",
        SOURCES,
        r#"{"embed_dim": 6, "num_heads": 2, "dim_feedforward": 5, "activation": {"function": "gelu"}}"#,
    ),
    case(
        "transformer_encode",
        MASKED_SOURCES,
        r#"{"embed_dim": 6, "num_heads": 1, "dim_feedforward": 5, "dropout": 0.0, "activation": {"function": "tanh"}}"#,
    ),
    case(
        "transformer_decode",
        TARGETS,
        r#"{"embed_dim": 6, "num_heads": 3, "dim_feedforward": 5, "dropout": 0.0, "add_attn_bias": true, "activation": {"function": "tanh"}}"#,
    ),
    case("learned_position_embedding", LINES, r#"{"max_positions": 3}"#),
    case("learned_position_embedding", IMAGES, r#"{"max_positions": 9, "axis": -2}"#),
    case("weight_normalization", WEIGHTS, r#"{}"#),
    case("weight_normalization", WEIGHTS, r#"{"dim": 1, "eps": 0.1}"#),
    case("spectral_norm", WEIGHTS, r#"{"itr": 300}"#),
    case("spectral_norm", WEIGHTS, r#"{"dim": 2, "itr": 300}"#),
    case("min_max_quantize", NUMBERS, r#"{}"#),
    case("min_max_quantize", NUMBERS, r#"{"x_min_max": true, "ql_max": 15}"#),
    case("min_max_quantized_affine", ROWS, r#"{"n_outmaps": 5}"#),
    case(
        "min_max_quantized_affine",
        ROWS,
        r#"{"n_outmaps": 5, "quantize_b": false, "w_min_max": true, "ql_max_w": 15}"#,
    ),
    case("min_max_quantized_convolution", IMAGES, r#"{"outmaps": 6, "kernel": [3, 2], "group": 2}"#),
    case("lstm", STATES, r#"{"state_size": 4}"#),
    case("rnn", SEQUENCES, r#"{}"#),
    case("rnn", BOTH_WAYS, r#"{"bidirectional": true, "nonlinearity": "relu", "num_layers": 3}"#),
    case("gru", SEQUENCES, r#"{"with_bias": false}"#),
    case("gru", BOTH_WAYS, r#"{"bidirectional": true}"#),
    case("lstm_n_step", CELLS, r#"{"num_layers": 1}"#),
    case("lstm_n_step", CELLS_BOTH_WAYS, r#"{"bidirectional": true, "with_bias": false}"#),
    case(
        "deformable_convolution",
        MOVED,
        r#"{"outmaps": 6, "kernel": [3, 2], "group": 2, "deformable_group": 2, "pad": [1, 0], "stride": [2, 1]}"#,
    ),
    case(
        "deformable_convolution",
        MASKED,
        r#"{"outmaps": 3, "kernel": [3, 3], "channel_last": true, "with_bias": false}"#,
    ),
    case("gru_cell", &[("x", &[2, 3]), ("h", &[2, 4])], r#"{"state_size": 4}"#),
];
