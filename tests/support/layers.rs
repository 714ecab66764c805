//! Calls of layers described in JSON: the function's name, its inputs and its arguments.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};
use layerfn::functions::Nonlinearity;
use layerfn::{
    Activation, AttentionWeights, Axes, Axis, BatchStat, Dims, Initializer, LSTMCell, PerAxis,
    SelectionAlgorithm, WeightFn, functions, parameter_scope,
};
use serde_json::{Map, Value};

use super::fixtures::Tensors;

/// Why a call gave no result.
#[derive(Debug)]
pub enum Failure {
    /// The description cannot be turned into a call.
    Description(String),
    /// The layer refused.
    Layer(layerfn::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Description(text) => f.write_str(text),
            Self::Layer(error) => error.fmt(f),
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Description(text)
    }
}

impl From<layerfn::Error> for Failure {
    fn from(error: layerfn::Error) -> Self {
        Self::Layer(error)
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self::Layer(error.into())
    }
}

/// The inputs and arguments of one call. Each must be used: one that the layer does not know is a failure.
pub struct Arguments<'a> {
    inputs: Vec<(String, Tensor)>,
    values: Map<String, Value>,
    tensors: &'a Tensors,
    used: BTreeSet<String>,
    /// What receives the statistics that the call asks for.
    statistics: Vec<BatchStat>,
}

impl<'a> Arguments<'a> {
    /// The arguments `values` with the tensors they refer to, and the inputs by argument name.
    ///
    /// NNabla's `param_init`, first values by parameter, is one argument for each of them here.
    #[must_use]
    pub fn new(inputs: Vec<(String, Tensor)>, mut values: Map<String, Value>, tensors: &'a Tensors) -> Self {
        if let Some(Value::Object(initializers)) = values.remove("param_init") {
            values.extend(initializers.into_iter().map(|(name, value)| (format!("{name}_init"), value)));
        }
        Self { inputs, values, tensors, used: BTreeSet::new(), statistics: Vec::new() }
    }

    pub(super) fn input(&mut self, name: &str) -> Result<Tensor, String> {
        self.optional_input(name).ok_or_else(|| format!("the input `{name}` is missing"))
    }

    pub(super) fn optional_input(&mut self, name: &str) -> Option<Tensor> {
        let (_, tensor) = self.inputs.iter().find(|(input, _)| input == name)?;
        self.used.insert(name.to_owned());
        Some(tensor.clone())
    }

    /// All inputs, in order.
    pub(super) fn all_inputs(&mut self) -> Vec<Tensor> {
        self.used.extend(self.inputs.iter().map(|(name, _)| name.clone()));
        self.inputs.iter().map(|(_, tensor)| tensor.clone()).collect()
    }

    pub(super) fn required<T: Argument>(&mut self, name: &str) -> Result<T, String> {
        self.optional(name)?.ok_or_else(|| format!("the argument `{name}` is missing"))
    }

    pub(super) fn optional<T: Argument>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        self.used.insert(name.to_owned());
        if !T::is_given(value) {
            return Ok(None);
        }
        let read = T::read(value, self.tensors)
            .map_err(|text| format!("the argument `{name}` = {value}: {text}"))?;
        self.statistics.extend(read.statistics());
        Ok(Some(read))
    }

    /// Fails if something was given that no reader asked for.
    pub(super) fn finish(&self) -> Result<(), String> {
        let names = self.inputs.iter().map(|(name, _)| name).chain(self.values.keys());
        match names.into_iter().find(|&name| !self.used.contains(name)) {
            None => Ok(()),
            Some(name) => Err(format!("the argument `{name}` is not known here")),
        }
    }
}

/// A type of arguments, read from JSON.
pub(super) trait Argument: Sized {
    fn read(value: &Value, tensors: &Tensors) -> Result<Self, String>;

    /// Whether `value` is more than the default.
    fn is_given(_value: &Value) -> bool {
        true
    }

    /// Results that the layer hands out through the argument.
    fn statistics(&self) -> Option<BatchStat> {
        None
    }
}

impl Argument for BatchStat {
    fn read(_: &Value, _: &Tensors) -> Result<Self, String> {
        Ok(Self::default())
    }

    fn is_given(value: &Value) -> bool {
        value != &Value::Bool(false)
    }

    fn statistics(&self) -> Option<BatchStat> {
        Some(self.clone())
    }
}

macro_rules! plain_arguments {
    ($($ty:ty: $read:expr, $expected:literal;)+) => {$(
        impl Argument for $ty {
            fn read(value: &Value, _: &Tensors) -> Result<Self, String> {
                let read: fn(&Value) -> Option<$ty> = $read;
                read(value).ok_or_else(|| format!("must be {}", $expected))
            }
        }
    )+};
}

plain_arguments! {
    bool: Value::as_bool, "true or false";
    f64: number, "a number";
    i64: Value::as_i64, "an integer";
    usize: size, "a count";
    i32: |value| i32::try_from(value.as_i64()?).ok(), "a small integer";
    String: |value| value.as_str().map(str::to_owned), "a text";
    Vec<usize>: |value| value.as_array()?.iter().map(size).collect(), "a list of counts";
    Dims: |value| sizes(value).map(Dims::from), "a count or a list of them";
    Axis: |value| value.as_i64().map(Axis::from), "an integer";
    Axes: axes, "an integer or a list of them";
    PerAxis: |value| size(value).map(PerAxis::from).or_else(|| sizes(value).map(PerAxis::from)), "a count or a list of them";
}

/// A number; a text where JSON has none, as for NaN.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn size(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

/// A list of counts; a single one is a list of it.
fn sizes(value: &Value) -> Option<Vec<usize>> {
    match value {
        Value::Array(sizes) => sizes.iter().map(size).collect(),
        single => Some(vec![size(single)?]),
    }
}

fn axes(value: &Value) -> Option<Axes> {
    match value {
        Value::Array(axes) => axes.iter().map(Value::as_i64).collect::<Option<Vec<_>>>().map(Axes::from),
        single => single.as_i64().map(Axes::from),
    }
}

impl Argument for Tensor {
    fn read(value: &Value, tensors: &Tensors) -> Result<Self, String> {
        if let Some(key) = value.get("tensor").and_then(Value::as_str) {
            return tensors.float(key);
        }
        let zeros = value.get("zeros").and_then(sizes).ok_or("must be an array")?;
        Tensor::zeros(zeros, DType::F32, &Device::Cpu).map_err(|error| error.to_string())
    }
}

impl Argument for Initializer {
    fn read(value: &Value, tensors: &Tensors) -> Result<Self, String> {
        match value.get("initializer").and_then(Value::as_str) {
            None => Tensor::read(value, tensors).map(Self::from),
            Some("constant") => {
                let number = value.get("value").map_or(Some(0.0), number);
                number.map(Self::constant).ok_or_else(|| "`value` must be a number".to_owned())
            }
            Some(other) => Err(format!("the initializer `{other}` is not known here")),
        }
    }
}

impl Argument for Nonlinearity {
    fn read(value: &Value, _: &Tensors) -> Result<Self, String> {
        let name = value.as_str().ok_or("must be a name")?;
        name.parse().map_err(|error: layerfn::Error| error.to_string())
    }
}

impl Argument for Activation {
    fn read(value: &Value, _: &Tensors) -> Result<Self, String> {
        match value.get("function").and_then(Value::as_str) {
            Some("gelu") => Ok(functions::gelu.into()),
            Some("elu") => Ok((|x: &Tensor| functions::elu(x, 1.0)).into()),
            Some("tanh") => Ok(functions::tanh.into()),
            Some("relu") => Ok(functions::relu.into()),
            other => Err(format!("the function {other:?} is not known here")),
        }
    }
}

impl Argument for SelectionAlgorithm {
    fn read(value: &Value, _: &Tensors) -> Result<Self, String> {
        let name = value.as_str().ok_or("must be a name")?;
        name.parse().map_err(|error: layerfn::Error| error.to_string())
    }
}

/// `{"apply": layer, ..}` with the layer's arguments.
impl Argument for WeightFn {
    fn read(value: &Value, _: &Tensors) -> Result<Self, String> {
        let mut values = value.as_object().ok_or("must be a layer with its arguments")?.clone();
        let name = values.remove("apply").ok_or("must say which layer to `apply`")?;
        let call = name.as_str().and_then(|name| find(name, &values)).ok_or("is not a layer known here")?;
        Ok(Self::from(move |w: &Tensor| {
            let tensors = Tensors::default();
            let mut arguments = Arguments::new(vec![("w".to_owned(), w.clone())], values.clone(), &tensors);
            match call(&mut arguments) {
                Ok(mut outputs) => Ok(outputs.swap_remove(0)),
                Err(Failure::Layer(error)) => Err(error),
                Err(Failure::Description(text)) => {
                    Err(layerfn::Error::invalid("apply", "must be a layer with these arguments", text))
                }
            }
        }))
    }
}

/// What layers and functions return: one tensor or several.
pub(super) trait Outputs {
    fn outputs(self) -> Vec<Tensor>;
}

impl Outputs for Tensor {
    fn outputs(self) -> Vec<Tensor> {
        vec![self]
    }
}

impl Outputs for Vec<Tensor> {
    fn outputs(self) -> Vec<Tensor> {
        self
    }
}

impl Outputs for (Tensor, Tensor) {
    fn outputs(self) -> Vec<Tensor> {
        vec![self.0, self.1]
    }
}

impl Outputs for (Tensor, Tensor, Tensor) {
    fn outputs(self) -> Vec<Tensor> {
        vec![self.0, self.1, self.2]
    }
}

/// Calls a layer with arguments.
pub type Call = fn(&mut Arguments<'_>) -> Result<Vec<Tensor>, Failure>;

/// Gives a layer the options that the call names.
macro_rules! options {
    ($arguments:ident, $layer:ident { $($option:ident: $ty:ty),* $(,)? }) => {
        $(if let Some(value) = $arguments.optional::<$ty>(stringify!($option))? {
            $layer = $layer.$option(value);
        })*
    };
}

/// A line an argument: `function(inputs; required arguments) [inputs that may be absent] { options }`; `name` and
/// `fix_parameters` go without saying.
macro_rules! layers {
    ($($function:ident($($input:ident),+ $(; $($required:ident: $required_ty:ty),+)?)
        $([$($absent:ident),+])? { $($options:tt)* })*) => {
        fn plain(function: &str) -> Option<Call> {
            match function {
                $(stringify!($function) => Some(|arguments| {
                    let mut layer = layerfn::$function(
                        $(&arguments.input(stringify!($input))?,)+
                        $($(arguments.required::<$required_ty>(stringify!($required))?,)+)?
                    );
                    $($(if let Some(input) = arguments.optional_input(stringify!($absent)) {
                        layer = layer.$absent(&input);
                    })+)?
                    options!(arguments, layer { $($options)* });
                    options!(arguments, layer { name: String, fix_parameters: bool });
                    arguments.finish()?;
                    let mut outputs = layer.call()?.outputs();
                    for stat in &arguments.statistics {
                        outputs.extend([stat.mean()?, stat.var()?]);
                    }
                    Ok(outputs)
                }),)*
                _ => None,
            }
        }
    };
}

layers! {
    affine(inp; n_outmaps: Dims) {
        apply_w: WeightFn,
        apply_b: WeightFn,
        base_axis: Axis,
        w_init: Initializer,
        b_init: Initializer,
        with_bias: bool,
    }
    convolution(inp; outmaps: usize, kernel: PerAxis) {
        apply_w: WeightFn,
        apply_b: WeightFn,
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        group: usize,
        channel_last: bool,
        w_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
    }
    depthwise_convolution(inp; kernel: PerAxis) {
        apply_w: WeightFn,
        apply_b: WeightFn,
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        multiplier: usize,
        w_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
    }
    deconvolution(inp; outmaps: usize, kernel: PerAxis) {
        apply_w: WeightFn,
        apply_b: WeightFn,
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        group: usize,
        channel_last: bool,
        output_padding: PerAxis,
        w_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
    }
    depthwise_deconvolution(inp; kernel: PerAxis) {
        apply_w: WeightFn,
        apply_b: WeightFn,
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        divisor: usize,
        w_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
    }
    batch_normalization(inp) {
        axes: Axes,
        decay_rate: f64,
        eps: f64,
        batch_stat: bool,
        output_stat: BatchStat,
        beta_init: Initializer,
        gamma_init: Initializer,
        mean_init: Initializer,
        var_init: Initializer,
        no_scale: bool,
        no_bias: bool,
    }
    fused_batch_normalization(inp) [z] {
        axes: Axes,
        decay_rate: f64,
        eps: f64,
        batch_stat: bool,
        output_stat: BatchStat,
        beta_init: Initializer,
        gamma_init: Initializer,
        mean_init: Initializer,
        var_init: Initializer,
        no_scale: bool,
        no_bias: bool,
    }
    sync_batch_normalization(inp) {
        axes: Axes,
        decay_rate: f64,
        eps: f64,
        batch_stat: bool,
        output_stat: BatchStat,
        beta_init: Initializer,
        gamma_init: Initializer,
        mean_init: Initializer,
        var_init: Initializer,
        no_scale: bool,
        no_bias: bool,
    }
    layer_normalization(inp) {
        batch_axis: Axes,
        eps: f64,
        output_stat: BatchStat,
        beta_init: Initializer,
        gamma_init: Initializer,
        no_scale: bool,
        no_bias: bool,
    }
    group_normalization(inp; num_groups: usize) {
        channel_axis: Axis,
        batch_axis: Axes,
        eps: f64,
        output_stat: BatchStat,
        beta_init: Initializer,
        gamma_init: Initializer,
        no_scale: bool,
        no_bias: bool,
    }
    instance_normalization(inp) {
        channel_axis: Axis,
        batch_axis: Axes,
        eps: f64,
        output_stat: BatchStat,
        beta_init: Initializer,
        gamma_init: Initializer,
        no_scale: bool,
        no_bias: bool,
    }
    rms_normalization(inp) {
        batch_axis: Axes,
        eps: f64,
        gamma_init: Initializer,
        no_scale: bool,
    }
    mean_subtraction(inp) {
        base_axis: Axis,
        update_running_mean: bool,
    }
    embed(inp; n_inputs: usize, n_features: usize) {
        initializer: Initializer,
        apply_w: WeightFn,
    }
    prelu(inp) {
        base_axis: Axis,
        shared: bool,
        slope_init: Initializer,
    }
    svd_affine(inp; n_outmaps: Dims, r: usize) {
        base_axis: Axis,
        uv_init: Initializer,
        b_init: Initializer,
        with_bias: bool,
    }
    svd_convolution(inp; outmaps: usize, kernel: PerAxis, r: usize) {
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        uv_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
    }
    cpd3_convolution(inp; outmaps: usize, kernel: PerAxis, r: usize) {
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        oik_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
        max_iter: usize,
        stopping_criterion: f64,
        lambda_reg: f64,
    }
    binary_connect_affine(inp; n_outmaps: Dims) {
        quantize_zero_to: f64,
        base_axis: Axis,
        w_init: Initializer,
        wb_init: Initializer,
        b_init: Initializer,
        with_bias: bool,
    }
    binary_connect_convolution(inp; outmaps: usize, kernel: PerAxis) {
        quantize_zero_to: f64,
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        group: usize,
        w_init: Initializer,
        wb_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
    }
    binary_weight_affine(inp; n_outmaps: Dims) {
        quantize_zero_to: f64,
        base_axis: Axis,
        w_init: Initializer,
        wb_init: Initializer,
        b_init: Initializer,
        with_bias: bool,
    }
    binary_weight_convolution(inp; outmaps: usize, kernel: PerAxis) {
        quantize_zero_to: f64,
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        group: usize,
        w_init: Initializer,
        wb_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
    }
    inq_affine(inp; n_outmaps: Dims) {
        base_axis: Axis,
        num_bits: usize,
        inq_iterations: Vec<usize>,
        selection_algorithm: SelectionAlgorithm,
        seed: i64,
        w_init: Initializer,
        i_init: Initializer,
        b_init: Initializer,
        with_bias: bool,
    }
    inq_convolution(inp; outmaps: usize, kernel: PerAxis) {
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        group: usize,
        num_bits: usize,
        inq_iterations: Vec<usize>,
        selection_algorithm: SelectionAlgorithm,
        seed: i64,
        w_init: Initializer,
        i_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
    }
    fixed_point_quantized_affine(inp; n_outmaps: Dims) {
        base_axis: Axis,
        w_init: Initializer,
        b_init: Initializer,
        with_bias: bool,
        quantize_w: bool,
        sign_w: bool,
        n_w: usize,
        delta_w: f64,
        ste_fine_grained_w: bool,
        quantize_b: bool,
        sign_b: bool,
        n_b: usize,
        delta_b: f64,
        ste_fine_grained_b: bool,
    }
    fixed_point_quantized_convolution(inp; outmaps: usize, kernel: PerAxis) {
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        group: usize,
        channel_last: bool,
        w_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
        quantize_w: bool,
        sign_w: bool,
        n_w: usize,
        delta_w: f64,
        ste_fine_grained_w: bool,
        quantize_b: bool,
        sign_b: bool,
        n_b: usize,
        delta_b: f64,
        ste_fine_grained_b: bool,
    }
    pow2_quantized_affine(inp; n_outmaps: Dims) {
        base_axis: Axis,
        w_init: Initializer,
        b_init: Initializer,
        with_bias: bool,
        quantize_w: bool,
        sign_w: bool,
        with_zero_w: bool,
        n_w: usize,
        m_w: i32,
        ste_fine_grained_w: bool,
        quantize_b: bool,
        sign_b: bool,
        with_zero_b: bool,
        n_b: usize,
        m_b: i32,
        ste_fine_grained_b: bool,
    }
    pow2_quantized_convolution(inp; outmaps: usize, kernel: PerAxis) {
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        group: usize,
        w_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
        quantize_w: bool,
        sign_w: bool,
        with_zero_w: bool,
        n_w: usize,
        m_w: i32,
        ste_fine_grained_w: bool,
        quantize_b: bool,
        sign_b: bool,
        with_zero_b: bool,
        n_b: usize,
        m_b: i32,
        ste_fine_grained_b: bool,
    }
    pruned_affine(inp; n_outmaps: Dims) {
        base_axis: Axis,
        w_init: Initializer,
        b_init: Initializer,
        with_bias: bool,
        prune_w: bool,
        rate_w: f64,
        prune_b: bool,
        rate_b: f64,
    }
    pruned_convolution(inp; outmaps: usize, kernel: PerAxis) {
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        group: usize,
        channel_last: bool,
        w_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
        prune_w: bool,
        rate_w: f64,
        prune_b: bool,
        rate_b: f64,
    }
    transformer_encode(src; embed_dim: usize, num_heads: usize) [src_additive_mask, src_key_padding_mask] {
        dim_feedforward: usize,
        dropout: f64,
        activation: Activation,
        add_attn_bias: bool,
    }
    transformer_decode(tgt, memory; embed_dim: usize, num_heads: usize)
        [tgt_additive_mask, memory_additive_mask, tgt_key_padding_mask, memory_key_padding_mask] {
        dim_feedforward: usize,
        dropout: f64,
        activation: Activation,
        add_attn_bias: bool,
    }
    transformer(src, tgt)
        [src_additive_mask, tgt_additive_mask, memory_additive_mask, src_key_padding_mask,
         tgt_key_padding_mask, memory_key_padding_mask] {
        embed_dim: usize,
        num_heads: usize,
        num_encoder_layers: usize,
        num_decoder_layers: usize,
        dim_feedforward: usize,
        dropout: f64,
        activation: Activation,
        add_attn_bias: bool,
    }
    learned_position_embedding(inp; max_positions: usize) {
        axis: Axis,
        w_init: Initializer,
    }
    weight_normalization(w) {
        dim: Axis,
        eps: f64,
        g_init: Initializer,
    }
    spectral_norm(w) {
        dim: Axis,
        itr: usize,
        eps: f64,
        test: bool,
        u_init: Initializer,
    }
    min_max_quantize(x) {
        ql_min: f64,
        ql_max: f64,
        decay: f64,
        x_min_max: bool,
        ema: bool,
        ste_fine_grained: bool,
        eps: f64,
        qr_min_init: Initializer,
        qr_max_init: Initializer,
    }
    min_max_quantized_affine(inp; n_outmaps: Dims) {
        base_axis: Axis,
        w_init: Initializer,
        b_init: Initializer,
        with_bias: bool,
        quantize_w: bool,
        ql_min_w: f64,
        ql_max_w: f64,
        w_min_max: bool,
        qr_min_w_init: Initializer,
        qr_max_w_init: Initializer,
        ste_fine_grained_w: bool,
        quantize_b: bool,
        ql_min_b: f64,
        ql_max_b: f64,
        b_min_max: bool,
        qr_min_b_init: Initializer,
        qr_max_b_init: Initializer,
        ste_fine_grained_b: bool,
        eps: f64,
    }
    min_max_quantized_convolution(inp; outmaps: usize, kernel: PerAxis) {
        pad: PerAxis,
        stride: PerAxis,
        dilation: PerAxis,
        group: usize,
        channel_last: bool,
        w_init: Initializer,
        b_init: Initializer,
        base_axis: Axis,
        with_bias: bool,
        quantize_w: bool,
        ql_min_w: f64,
        ql_max_w: f64,
        w_min_max: bool,
        qr_min_w_init: Initializer,
        qr_max_w_init: Initializer,
        ste_fine_grained_w: bool,
        quantize_b: bool,
        ql_min_b: f64,
        ql_max_b: f64,
        b_min_max: bool,
        qr_min_b_init: Initializer,
        qr_max_b_init: Initializer,
        ste_fine_grained_b: bool,
        eps: f64,
    }
    lstm(x, h, c; state_size: usize) {
        w_init: Initializer,
        b_init: Initializer,
    }
    gru_cell(x, h; state_size: usize) {
        w_init: Initializer,
        b_init: Initializer,
    }
    rnn(x, h) {
        nonlinearity: Nonlinearity,
        w0_init: Initializer,
        w_init: Initializer,
        b_init: Initializer,
        num_layers: usize,
        dropout: f64,
        bidirectional: bool,
        training: bool,
        with_bias: bool,
    }
    gru(x, h) {
        w0_init: Initializer,
        w_init: Initializer,
        b_init: Initializer,
        num_layers: usize,
        dropout: f64,
        bidirectional: bool,
        training: bool,
        with_bias: bool,
    }
    lstm_n_step(x, h, c) {
        w0_init: Initializer,
        w_init: Initializer,
        b_init: Initializer,
        num_layers: usize,
        dropout: f64,
        bidirectional: bool,
        training: bool,
        with_bias: bool,
    }
}

fn deformable_convolution(arguments: &mut Arguments<'_>) -> Result<Vec<Tensor>, Failure> {
    let (inp, offset) = (arguments.input("inp")?, arguments.input("offset")?);
    let (outmaps, kernel) =
        (arguments.required::<usize>("outmaps")?, arguments.required::<PerAxis>("kernel")?);
    let mut layer = layerfn::deformable_convolution(&inp, outmaps, kernel, &offset);
    if let Some(mask) = arguments.optional_input("mask") {
        layer = layer.mask(&mask);
    }
    options!(arguments, layer { pad: PerAxis, stride: PerAxis, dilation: PerAxis, group: usize });
    options!(
        arguments,
        layer { deformable_group: usize, channel_last: bool, base_axis: Axis, with_bias: bool }
    );
    options!(
        arguments,
        layer { w_init: Initializer, b_init: Initializer, name: String, fix_parameters: bool }
    );
    arguments.finish()?;
    Ok(vec![layer.call()?])
}

/// The output, and the weights unless they are not asked for.
fn multi_head_attention(arguments: &mut Arguments<'_>) -> Result<Vec<Tensor>, Failure> {
    let [query, key, value] = ["query", "key", "value"].map(|name| arguments.input(name));
    let mut layer = layerfn::multi_head_attention(&query?, &key?, &value?);
    options!(
        arguments,
        layer {
            num_heads: usize,
            dropout: f64,
            k_embed_dim: usize,
            v_embed_dim: usize,
            out_dim: usize,
            with_bias: bool,
            add_attn_bias: bool,
            q_weight_init: Initializer,
            k_weight_init: Initializer,
            v_weight_init: Initializer,
            out_weight_init: Initializer,
            q_bias_init: Initializer,
            k_bias_init: Initializer,
            v_bias_init: Initializer,
            out_bias_init: Initializer,
            attn_bias_k_init: Initializer,
            attn_bias_v_init: Initializer,
            name: String,
            fix_parameters: bool,
        }
    );
    layer = layer.maybe_additive_mask(arguments.optional_input("additive_mask").as_ref());
    layer = layer.maybe_key_padding_mask(arguments.optional_input("key_padding_mask").as_ref());
    let weights = AttentionWeights::default();
    let are_asked_for = arguments.optional::<bool>("output_weights")?.unwrap_or(true);
    if are_asked_for {
        layer = layer.output_weights(&weights);
    }
    arguments.finish()?;
    let output = layer.call()?;
    Ok(if are_asked_for { vec![output, weights.weights()?] } else { vec![output] })
}

/// All steps of one sequence: inputs `x0`, `x1`, ..; the outputs of the steps, then the last cell state.
fn lstm_cell_class(arguments: &mut Arguments<'_>) -> Result<Vec<Tensor>, Failure> {
    let shape = (arguments.required::<usize>("batch_size")?, arguments.required::<usize>("state_size")?);
    let mut cell = LSTMCell::new(shape.0, shape.1);
    options!(
        arguments,
        cell { w_init: Initializer, b_init: Initializer, name: String, fix_parameters: bool }
    );
    let (h, c) = (arguments.optional_input("h"), arguments.optional_input("c"));
    if h.is_some() || c.is_some() {
        let zeros = Tensor::zeros(shape, DType::F32, &Device::Cpu)?;
        cell = cell.state(h.as_ref().unwrap_or(&zeros), c.as_ref().unwrap_or(&zeros));
    }
    let steps: Vec<String> =
        arguments.inputs.iter().map(|(name, _)| name.clone()).filter(|name| name.starts_with('x')).collect();
    let steps = steps.iter().map(|name| arguments.input(name)).collect::<Result<Vec<_>, _>>()?;
    arguments.finish()?;
    let mut outputs = steps.iter().map(|x| cell.step(x)).collect::<layerfn::Result<Vec<_>>>()?;
    outputs.extend(cell.c().cloned());
    Ok(outputs)
}

/// The call of `function`, NNabla's name for it; `None` if there is no such layer.
///
/// NNabla's `lstm` was one step when its `state_size` was an argument, and is called `lstm_cell` since; without one it is the
/// layer over a sequence.
#[must_use]
pub fn find(function: &str, arguments: &Map<String, Value>) -> Option<Call> {
    match function {
        "lstm_cell" => plain("lstm"),
        "lstm" if !arguments.contains_key("state_size") => plain("lstm_n_step"),
        "deformable_convolution" => Some(deformable_convolution),
        "fused_batch_normalization" => Some(fused_batch_normalization),
        "multi_head_attention" => Some(multi_head_attention),
        "LSTMCell" => Some(lstm_cell_class),
        other => plain(other),
    }
}

/// NNabla names the function, of which there is one.
fn fused_batch_normalization(arguments: &mut Arguments<'_>) -> Result<Vec<Tensor>, Failure> {
    if arguments.values.get("nonlinearity").is_some_and(|name| name == "relu") {
        arguments.values.remove("nonlinearity");
    }
    match plain("fused_batch_normalization") {
        Some(call) => call(arguments),
        None => Err("the layer is gone".to_owned().into()),
    }
}

/// Runs `f` inside the scopes, outermost first, as many calls of `parameter_scope`.
pub fn in_scopes<R>(scopes: &[impl AsRef<str>], f: impl FnOnce() -> R) -> R {
    fn nest(scopes: &[impl AsRef<str>], f: &mut dyn FnMut()) {
        match scopes {
            [] => f(),
            [first, rest @ ..] => parameter_scope(first, || nest(rest, f)),
        }
    }
    let (mut f, mut result) = (Some(f), None);
    nest(scopes, &mut || result = f.take().map(|f| f()));
    result.expect("the innermost scope runs once")
}
