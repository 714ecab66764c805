//! The layers of a Transformer, and a whole one.

use std::sync::Arc;

use candle_core::Tensor;

use crate::fusion::{Fuses, is_same_function};
use crate::parameter::unfixed;
use crate::{
    Error, Result, Rng, affine, check, functions, layer_normalization, multi_head_attention,
    parametric_function,
};

/// A function of each element, from any `fn(&Tensor) -> Result<Tensor>` or closure; `relu` by default.
///
/// ```
/// use candle_core::Tensor;
/// use layerfn::{Activation, functions};
/// let gelu = Activation::from(functions::gelu);
/// let leaky = Activation::from(|x: &Tensor| functions::leaky_relu(x, 0.1));
/// ```
#[derive(Clone)]
pub struct Activation(Kind);

#[derive(Clone)]
enum Kind {
    /// ReLU, which an affine layer can apply itself.
    Relu,
    Other(Arc<Function>),
}

type Function = dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync;

impl Default for Activation {
    fn default() -> Self {
        Self(Kind::Relu)
    }
}

impl<F: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static> From<F> for Activation {
    fn from(function: F) -> Self {
        match is_same_function(&function, &functions::relu) {
            true => Self::default(),
            false => Self(Kind::Other(Arc::new(function))),
        }
    }
}

impl Activation {
    /// Applies the function to the output of `layer`.
    fn of(&self, mut layer: crate::Affine) -> Result<Tensor> {
        match &self.0 {
            Kind::Relu => {
                layer.fuse(&functions::relu);
                layer.call()
            }
            Kind::Other(function) => function(&layer.call()?),
        }
    }
}

/// The part of an encoder or decoder layer that is the same for both.
struct Block<'a> {
    /// Prefix of the names of its layers.
    prefix: &'static str,
    embed_dim: usize,
    dim_feedforward: usize,
    dropout: f64,
    activation: &'a Activation,
    num_heads: usize,
    add_attn_bias: bool,
    rng: Option<&'a Rng>,
}

impl Block<'_> {
    /// The normalized sum of the queries and their attention outputs.
    fn attention(
        &self,
        [attention, norm]: [&str; 2],
        [query, memory]: [&Tensor; 2],
        [additive_mask, key_padding_mask]: [Option<&Tensor>; 2],
    ) -> Result<Tensor> {
        let layer = multi_head_attention(query, memory, memory)
            .num_heads(self.num_heads)
            .add_attn_bias(self.add_attn_bias)
            .maybe_additive_mask(additive_mask)
            .maybe_key_padding_mask(key_padding_mask)
            .maybe_rng(self.rng.cloned())
            .name(attention);
        let found = self.dropped(layer.call()?)?;
        self.normalized(&functions::add(query, &found, false)?, norm)
    }

    /// Two affine layers, applied to each position.
    fn feedforward(&self, x: &Tensor, norm: &str) -> Result<Tensor> {
        let affine = |x: &Tensor, outmaps: usize, name: &str| {
            let layer = affine(x, outmaps).base_axis(2).name(format!("{}_{name}", self.prefix));
            match self.rng {
                Some(rng) => layer.rng(rng.clone()),
                None => layer,
            }
        };
        let hidden = self.dropped(self.activation.of(affine(x, self.dim_feedforward, "affine1"))?)?;
        let y = self.dropped(affine(&hidden, self.embed_dim, "affine2").call()?)?;
        self.normalized(&functions::add(x, &y, false)?, norm)
    }

    fn normalized(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        layer_normalization(x).batch_axis((0, 1)).name(format!("{}_{name}", self.prefix)).call()
    }

    fn dropped(&self, x: Tensor) -> Result<Tensor> {
        if self.dropout > 0.0 { crate::dropout(&x).p(self.dropout).call() } else { Ok(x) }
    }
}

/// Checks that a sequence is `(positions, batch, embed_dim)` and that the rate of dropout is valid.
fn check_sequence(argument: &'static str, x: &Tensor, embed_dim: usize, dropout: f64) -> Result<()> {
    check::input(argument, x)?;
    if x.rank() != 3 || x.dims()[2] != embed_dim {
        let reason = format!("must have the shape (positions, batch, embed_dim = {embed_dim})");
        return Err(Error::invalid(argument, reason, x.dims()));
    }
    check::within("dropout", dropout, 0.0..1.0)
}

/// One layer of a Transformer's encoder.
///
/// `x = norm(src + attention(src, src, src))`, then `norm(x + affine2(activation(affine1(x))))`, with layer
/// normalization of each position, and dropout of the summands and of the hidden layer.
///
/// As in NNabla, `fix_parameters` is not passed on to the inner layers: their parameters still receive
/// gradients. To freeze them, call the layer in [`no_grad`](crate::no_grad), or as a stage of a network that is
/// `frozen`.
///
/// # Shapes
/// - `src` and output: `(positions, batch, embed_dim)`
/// - `src_additive_mask`: `(positions, positions)`; `src_key_padding_mask`: `(batch, positions)`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) as for
/// [`multi_head_attention`](fn@multi_head_attention), or if `embed_dim` is not the last size of `src`.
///
/// # Source
/// NNabla `PF.transformer_encode`; Vaswani et al., Attention is All You Need, NIPS 2017.
///
/// # Example
/// ```
/// use layerfn::prelude::*;
///
/// let net = network! { < e1: transformer_encode(8, 2, dim_feedforward = 16, activation = gelu) -> e2: transformer_encode(8, 2) > };
/// let x = Tensor::ones((5, 3, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(net.forward(&x)?.dims(), [5, 3, 8]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(scope = "transformer_encode", family = Attention, multiply_adds = [0])]
pub fn transformer_encode(
    /// Sequences.
    src: &Tensor,
    /// Size of a position.
    embed_dim: usize,
    /// Number of heads; divides `embed_dim`.
    num_heads: usize,
    /// Size of the hidden layer.
    #[opt(default = 2048)]
    dim_feedforward: usize,
    /// Probability of a zero in training, in [0, 1).
    #[opt(default = 0.1)]
    dropout: f64,
    /// Function of the hidden layer; `relu` if absent.
    #[opt(into)]
    activation: Activation,
    /// Added to the scores of the attention.
    #[opt(maybe)]
    src_additive_mask: Option<&Tensor>,
    /// Hides a position of its sample where it is not 0.
    #[opt(maybe)]
    src_key_padding_mask: Option<&Tensor>,
    /// Generator that a random default draws from; the parameter's own if absent.
    #[opt(into, maybe)]
    rng: Option<Rng>,
    /// Whether to append a key and a value to the sequences.
    #[opt(default = false)]
    add_attn_bias: bool,
) -> Result<Tensor> {
    check_sequence("src", src, embed_dim, dropout)?;
    let (prefix, activation, rng) = ("enc", &activation, rng.as_ref());
    let block =
        Block { prefix, embed_dim, dim_feedforward, dropout, activation, num_heads, add_attn_bias, rng };
    unfixed(|| {
        let masks = [src_additive_mask, src_key_padding_mask];
        let x = block.attention(["src_self_attn", "layer_norm1"], [src, src], masks)?;
        block.feedforward(&x, "layer_norm2")
    })
}

/// One layer of a Transformer's decoder.
///
/// `x = norm(tgt + attention(tgt, tgt, tgt))`, then `x = norm(x + attention(x, memory, memory))`, then
/// `norm(x + affine2(activation(affine1(x))))`, with layer normalization of each position, and dropout of the
/// summands and of the hidden layer.
///
/// `fix_parameters` is not passed on, as in [`transformer_encode`](fn@transformer_encode).
///
/// # Shapes
/// - `tgt` and output: `(targets, batch, embed_dim)`; `memory`: `(sources, batch, embed_dim)`
/// - `tgt_additive_mask`: `(targets, targets)`; `memory_additive_mask`: `(targets, sources)`
/// - `tgt_key_padding_mask`: `(batch, targets)`; `memory_key_padding_mask`: `(batch, sources)`
///
/// # Errors
/// As [`transformer_encode`](fn@transformer_encode).
///
/// # Source
/// NNabla `PF.transformer_decode`; Vaswani et al., Attention is All You Need, NIPS 2017.
///
/// # Example
/// ```
/// use layerfn::prelude::*;
///
/// let memory = Tensor::ones((7, 3, 8), DType::F32, &Device::Cpu)?;
/// let net = network! { < d1: transformer_decode(&memory, 8, 2) -> d2: transformer_decode(&memory, 8, 2) > };
/// let x = Tensor::ones((5, 3, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(net.forward(&x)?.dims(), [5, 3, 8]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(scope = "transformer_decode", family = Attention, multiply_adds = [0])]
pub fn transformer_decode(
    /// Sequences.
    tgt: &Tensor,
    /// Output of the encoder.
    memory: &Tensor,
    /// Size of a position.
    embed_dim: usize,
    /// Number of heads; divides `embed_dim`.
    num_heads: usize,
    /// Size of the hidden layer.
    #[opt(default = 2048)]
    dim_feedforward: usize,
    /// Probability of a zero in training, in [0, 1).
    #[opt(default = 0.1)]
    dropout: f64,
    /// Function of the hidden layer; `relu` if absent.
    #[opt(into)]
    activation: Activation,
    /// Added to the scores of the sequences among themselves.
    #[opt(maybe)]
    tgt_additive_mask: Option<&Tensor>,
    /// Added to the scores of the memory.
    #[opt(maybe)]
    memory_additive_mask: Option<&Tensor>,
    /// Hides a position of the sequences where it is not 0.
    #[opt(maybe)]
    tgt_key_padding_mask: Option<&Tensor>,
    /// Hides a position of the memory where it is not 0.
    #[opt(maybe)]
    memory_key_padding_mask: Option<&Tensor>,
    /// Generator that a random default draws from; the parameter's own if absent.
    #[opt(into, maybe)]
    rng: Option<Rng>,
    /// Whether to append a key and a value to the sequences.
    #[opt(default = false)]
    add_attn_bias: bool,
) -> Result<Tensor> {
    check_sequence("tgt", tgt, embed_dim, dropout)?;
    check_sequence("memory", memory, embed_dim, dropout)?;
    let (prefix, activation, rng) = ("dec", &activation, rng.as_ref());
    let block =
        Block { prefix, embed_dim, dim_feedforward, dropout, activation, num_heads, add_attn_bias, rng };
    unfixed(|| {
        let masks = [tgt_additive_mask, tgt_key_padding_mask];
        let x = block.attention(["tgt_self_attn", "layer_norm1"], [tgt, tgt], masks)?;
        let masks = [memory_additive_mask, memory_key_padding_mask];
        let x = block.attention(["tgt_memory_attn", "layer_norm2"], [&x, memory], masks)?;
        block.feedforward(&x, "layer_norm3")
    })
}

/// A Transformer: an encoder of `src`, and a decoder that looks at what it gives.
///
/// Layers of [`transformer_encode`](fn@transformer_encode) in the scopes `encoder00`, `encoder01`, .., and of
/// [`transformer_decode`](fn@transformer_decode) in the scopes `decoder00`, ..; `fix_parameters` is not passed
/// on to them.
///
/// # Shapes
/// - `src`: `(sources, batch, embed_dim)`; `tgt` and output: `(targets, batch, embed_dim)`
/// - masks: as of the two layers
///
/// # Errors
/// As [`transformer_encode`](fn@transformer_encode).
///
/// # Source
/// NNabla `PF.transformer`; Vaswani et al., Attention is All You Need, NIPS 2017.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{get_parameters, transformer};
///
/// let (src, tgt) = (Tensor::ones((7, 3, 8), DType::F32, &Device::Cpu)?, Tensor::ones((5, 3, 8), DType::F32, &Device::Cpu)?);
/// let layer = transformer(&src, &tgt).embed_dim(8).num_heads(2).dim_feedforward(16);
/// assert_eq!(layer.num_encoder_layers(1).num_decoder_layers(1).call()?.dims(), [5, 3, 8]);
/// assert!(get_parameters().get("transformer/decoder00/transformer_decode/dec_affine1/affine/W").is_some());
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(scope = "transformer", family = Attention, multiply_adds = [0])]
pub fn transformer(
    /// Sequences for the encoder.
    src: &Tensor,
    /// Sequences for the decoder.
    tgt: &Tensor,
    /// Size of a position.
    #[opt(default = 512)]
    embed_dim: usize,
    /// Number of heads; divides `embed_dim`.
    #[opt(default = 8)]
    num_heads: usize,
    /// Layers of the encoder.
    #[opt(default = 6)]
    num_encoder_layers: usize,
    /// Layers of the decoder.
    #[opt(default = 6)]
    num_decoder_layers: usize,
    /// Size of the hidden layers.
    #[opt(default = 2048)]
    dim_feedforward: usize,
    /// Probability of a zero in training, in [0, 1).
    #[opt(default = 0.1)]
    dropout: f64,
    /// Function of the hidden layers; `relu` if absent.
    #[opt(into)]
    activation: Activation,
    /// Added to the scores in the encoder.
    #[opt]
    src_additive_mask: Option<&Tensor>,
    /// Added to the scores in the decoder.
    #[opt]
    tgt_additive_mask: Option<&Tensor>,
    /// Added to the scores of the encoder's output.
    #[opt]
    memory_additive_mask: Option<&Tensor>,
    /// Hides a position from the encoder where it is not 0.
    #[opt]
    src_key_padding_mask: Option<&Tensor>,
    /// Hides a position from the decoder where it is not 0.
    #[opt]
    tgt_key_padding_mask: Option<&Tensor>,
    /// Hides a position of the encoder's output where it is not 0.
    #[opt]
    memory_key_padding_mask: Option<&Tensor>,
    /// Generator that a random default draws from; the parameter's own if absent.
    #[opt(into)]
    rng: Option<Rng>,
    /// Whether to append a key and a value to the sequences.
    #[opt(default = false)]
    add_attn_bias: bool,
) -> Result<Tensor> {
    check_sequence("src", src, embed_dim, dropout)?;
    check_sequence("tgt", tgt, embed_dim, dropout)?;
    if src.dims()[1] != tgt.dims()[1] {
        let reason = format!("must have the batch of `src`, {}", src.dims()[1]);
        return Err(Error::invalid("tgt", reason, tgt.dims()));
    }
    let (attention, feedforward) = (embed_dim.saturating_mul(4), dim_feedforward.saturating_mul(2));
    let of_encoder = attention.saturating_add(feedforward);
    check::tensor("num_encoder_layers", &[num_encoder_layers, embed_dim, of_encoder], src.dtype())?;
    let of_decoder = attention.saturating_add(of_encoder);
    check::tensor("num_decoder_layers", &[num_decoder_layers, embed_dim, of_decoder], src.dtype())?;
    unfixed(|| {
        let mut memory = src.clone();
        for i in 0..num_encoder_layers {
            memory = transformer_encode(&memory, embed_dim, num_heads)
                .dim_feedforward(dim_feedforward)
                .dropout(dropout)
                .activation(activation.clone())
                .maybe_src_additive_mask(src_additive_mask)
                .maybe_src_key_padding_mask(src_key_padding_mask)
                .maybe_rng(rng.clone())
                .add_attn_bias(add_attn_bias)
                .name(format!("encoder{i:02}"))
                .call()?;
        }
        let mut y = tgt.clone();
        for i in 0..num_decoder_layers {
            y = transformer_decode(&y, &memory, embed_dim, num_heads)
                .dim_feedforward(dim_feedforward)
                .dropout(dropout)
                .activation(activation.clone())
                .maybe_tgt_additive_mask(tgt_additive_mask)
                .maybe_memory_additive_mask(memory_additive_mask)
                .maybe_tgt_key_padding_mask(tgt_key_padding_mask)
                .maybe_memory_key_padding_mask(memory_key_padding_mask)
                .maybe_rng(rng.clone())
                .add_attn_bias(add_attn_bias)
                .name(format!("decoder{i:02}"))
                .call()?;
        }
        Ok(y)
    })
}
