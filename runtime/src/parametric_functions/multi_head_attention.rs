//! Multi-head attention.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use crate::functions::attention::{Attend, Masking};
use crate::{
    Error, Initializer, ParameterStore, Result, Rng, check, functions, is_training, option_group,
    parametric_function,
};

/// Receives the weights of one [`multi_head_attention`](fn@multi_head_attention) call; gradients flow through them.
///
/// A clone is another handle to the same weights.
#[derive(Clone, Debug, Default)]
pub struct AttentionWeights(Arc<Mutex<Option<Tensor>>>);

impl AttentionWeights {
    /// The weights, `(batch · num_heads, targets, sources)`; in training, after dropout.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if no call has filled it yet.
    pub fn weights(&self) -> Result<Tensor> {
        let weights = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        weights.ok_or_else(|| Error::invalid("output_weights", "must be given to a call first", "no weights"))
    }

    fn set(&self, weights: Tensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(weights);
    }
}

impl From<&AttentionWeights> for AttentionWeights {
    fn from(weights: &AttentionWeights) -> Self {
        weights.clone()
    }
}

option_group! {
    /// Initial values of the projections.
    projections {
        /// Initializer of `q_weight`; Glorot uniform if absent.
        #[opt(into)]
        q_weight_init: Option<Initializer>,
        /// Initializer of `k_weight`; Glorot uniform if absent.
        #[opt(into)]
        k_weight_init: Option<Initializer>,
        /// Initializer of `v_weight`; Glorot uniform if absent.
        #[opt(into)]
        v_weight_init: Option<Initializer>,
        /// Initializer of `out_weight`; Glorot uniform if absent.
        #[opt(into)]
        out_weight_init: Option<Initializer>,
        /// Initializer of `q_bias`.
        #[opt(into, default = 0.0)]
        q_bias_init: Initializer,
        /// Initializer of `k_bias`.
        #[opt(into, default = 0.0)]
        k_bias_init: Initializer,
        /// Initializer of `v_bias`.
        #[opt(into, default = 0.0)]
        v_bias_init: Initializer,
        /// Initializer of `out_bias`.
        #[opt(into, default = 0.0)]
        out_bias_init: Initializer,
        /// Initializer of `attn_bias_k`; Glorot uniform if absent.
        #[opt(into)]
        attn_bias_k_init: Option<Initializer>,
        /// Initializer of `attn_bias_v`; Glorot uniform if absent.
        #[opt(into)]
        attn_bias_v_init: Option<Initializer>,
    }
}

/// Multi-head attention: each query gets the mean of the values, weighted by how well their keys fit it, in several ways
/// at once.
///
/// `q = query · q_weight + q_bias`, and `k` and `v` likewise; each is split into `num_heads` parts. Each head
/// is `softmax(q kᵀ / √head_dim + additive_mask) v`; the output is the concatenated heads, times `out_weight`,
/// plus `out_bias`. The matrix of all weights is only held in memory with `output_weights`, or with `dropout`
/// in training.
///
/// With `add_attn_bias`, a key and a value that are parameters are appended to every sequence; no mask hides
/// them. A query whose keys are all hidden gets the mean 0.
///
/// # Shapes
/// - `query`: `(targets, batch, q_dim)`; `key`: `(sources, batch, k_dim)`; `value`: `(sources, batch, v_dim)`
/// - `additive_mask`: `(targets, sources)`, or with axes `(batch, num_heads)` in front, each of which may have size 1
/// - `key_padding_mask`: `(batch, sources)`
/// - output: `(targets, batch, out_dim)`
/// - weights: `(batch · num_heads, targets, sources)`; one source more with `add_attn_bias`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `num_heads` does not divide the embedding dimensions, the
/// shapes do not fit together, or `dropout` is not in [0, 1).
///
/// # Source
/// NNabla `PF.multi_head_attention`, which always returns the weights; Vaswani et al., Attention is All You
/// Need, NIPS 2017.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{AttentionWeights, multi_head_attention};
///
/// let (query, memory) = (Tensor::ones((5, 2, 8), DType::F32, &Device::Cpu)?, Tensor::ones((7, 2, 6), DType::F32, &Device::Cpu)?);
/// let y = multi_head_attention(&query, &memory, &memory).num_heads(4).v_embed_dim(8).call()?;
/// assert_eq!(y.dims(), [5, 2, 8]);
/// // The weights, too:
/// let weights = AttentionWeights::default();
/// multi_head_attention(&query, &memory, &memory).num_heads(4).v_embed_dim(8).output_weights(&weights).call()?;
/// assert_eq!(weights.weights()?.dims(), [8, 5, 7]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "multi_head_attention",
    options(projections),
    family = Attention,
    multiply_adds = [n_products],
    params(
        /// Weights of the queries.
        q_weight: [q_dim, k_embed_dim] =
            q_weight_init.unwrap_or_else(|| Initializer::glorot_uniform(q_dim, k_embed_dim, &[])).with_rng(&rng),
        /// Weights of the keys.
        k_weight: [k_dim, k_embed_dim] =
            k_weight_init.unwrap_or_else(|| Initializer::glorot_uniform(k_dim, k_embed_dim, &[])).with_rng(&rng),
        /// Weights of the values.
        v_weight: [v_dim, v_embed_dim] =
            v_weight_init.unwrap_or_else(|| Initializer::glorot_uniform(v_dim, v_embed_dim, &[])).with_rng(&rng),
        /// Weights of the output.
        out_weight: [v_embed_dim, out_dim] =
            out_weight_init.unwrap_or_else(|| Initializer::glorot_uniform(v_embed_dim, out_dim, &[])).with_rng(&rng),
        /// Bias of the queries.
        #[when(with_bias)]
        q_bias: [k_embed_dim] = q_bias_init,
        /// Bias of the keys.
        #[when(with_bias)]
        k_bias: [k_embed_dim] = k_bias_init,
        /// Bias of the values.
        #[when(with_bias)]
        v_bias: [v_embed_dim] = v_bias_init,
        /// Bias of the output.
        #[when(with_bias)]
        out_bias: [out_dim] = out_bias_init,
        /// The key that is appended.
        #[when(add_attn_bias)]
        attn_bias_k: [1, 1, k_embed_dim] =
            attn_bias_k_init.unwrap_or_else(|| Initializer::glorot_uniform(k_embed_dim, 1, &[])).with_rng(&rng),
        /// The value that is appended.
        #[when(add_attn_bias)]
        attn_bias_v: [1, 1, v_embed_dim] =
            attn_bias_v_init.unwrap_or_else(|| Initializer::glorot_uniform(v_embed_dim, 1, &[])).with_rng(&rng),
    )
)]
pub fn multi_head_attention(
    /// Queries.
    query: &Tensor,
    /// Keys.
    key: &Tensor,
    /// Values.
    value: &Tensor,
    /// Number of heads; divides the embedding dimensions.
    #[opt(default = 12)]
    num_heads: usize,
    /// Probability that a weight is dropped in training, in [0, 1).
    #[opt(default = 0.0)]
    dropout: f64,
    /// Embedding dimension of queries and keys; that of `query` if absent.
    #[opt]
    k_embed_dim: Option<usize>,
    /// Embedding dimension of values; that of `value` if absent.
    #[opt]
    v_embed_dim: Option<usize>,
    /// Dimension of the output; `v_embed_dim` if absent.
    #[opt]
    out_dim: Option<usize>,
    /// Generator that a random default draws from; the parameter's own if absent.
    #[opt(into, maybe)]
    rng: Option<Rng>,
    /// Whether to add biases.
    #[opt(default = true)]
    with_bias: bool,
    /// Whether to append a key and a value.
    #[opt(default = false)]
    add_attn_bias: bool,
    /// Added to the scaled products of queries and keys; bytes (`u8`) hide a key from a query where they are not 0.
    #[opt(maybe)]
    additive_mask: Option<&Tensor>,
    /// Hides a key from the queries of its sample where it is not 0.
    #[opt(maybe)]
    key_padding_mask: Option<&Tensor>,
    /// Receives the attention weights.
    #[opt(into)]
    output_weights: Option<AttentionWeights>,
) -> Result<Tensor> {
    let [[targets, batch, q_dim], [sources, _, k_dim], [_, _, v_dim]] = sequences(query, key, value)?;
    let k_embed_dim = embedding("k_embed_dim", k_embed_dim.unwrap_or(q_dim), num_heads)?;
    let v_embed_dim = embedding("v_embed_dim", v_embed_dim.unwrap_or(v_dim), num_heads)?;
    let out_dim = out_dim.unwrap_or(v_embed_dim);
    check::within("dropout", dropout, 0.0..1.0)?;
    let widths = [[q_dim, k_embed_dim], [k_dim, k_embed_dim], [v_dim, v_embed_dim], [v_embed_dim, out_dim]];
    for (positions, [from, to]) in [targets, sources, sources, targets].into_iter().zip(widths) {
        check::tensor("k_embed_dim", &[from, to], query.dtype())?;
        check::tensor("query", &[positions, batch, to], query.dtype())?;
    }
    let (mut mask, mut padding) = (additive_mask.cloned(), key_padding_mask.cloned());
    check_masks(mask.as_ref(), padding.as_ref(), [batch, num_heads, targets, sources])?;
    let of_queries = targets.saturating_mul(q_dim * k_embed_dim + v_embed_dim * out_dim);
    let of_keys = sources.saturating_mul(k_dim * k_embed_dim + v_dim * v_embed_dim);
    let of_scores = targets.saturating_mul(sources).saturating_mul(k_embed_dim + v_embed_dim);
    let n_products = batch.saturating_mul(of_queries.saturating_add(of_keys).saturating_add(of_scores));

    let (q_weight, k_weight) = (param!(q_weight)?, param!(k_weight)?);
    let (v_weight, out_weight) = (param!(v_weight)?, param!(out_weight)?);
    let (q_bias, k_bias) = (param!(q_bias)?, param!(k_bias)?);
    let (v_bias, out_bias) = (param!(v_bias)?, param!(out_bias)?);
    let q = functions::affine(query, &q_weight, q_bias.as_ref(), 2)?;
    let mut k = functions::affine(key, &k_weight, k_bias.as_ref(), 2)?;
    let mut v = functions::affine(value, &v_weight, v_bias.as_ref(), 2)?;
    if let (Some(bias_k), Some(bias_v)) = (param!(attn_bias_k)?, param!(attn_bias_v)?) {
        (k, v) = (appended(&k, &bias_k)?, appended(&v, &bias_v)?);
        let seen = |mask: Tensor| mask.pad_with_zeros(mask.rank() - 1, 0, 1);
        (mask, padding) = (mask.map(seen).transpose()?, padding.map(seen).transpose()?);
    }
    let masking =
        Masking { mask: mask.as_ref(), key_padding_mask: padding.as_ref(), is_causal: false, scale: None };
    let attend = Attend::positions_first([&q, &k, &v], num_heads, &masking)?;
    let drops = dropout > 0.0 && is_training();
    let heads = if drops || output_weights.is_some() {
        let mut weights = attend.weights(&q, &k)?;
        if drops {
            let rng = ParameterStore::current().rng();
            weights = functions::activation::dropout(&weights, dropout, &mut || rng.next_u32())?;
        }
        if let Some(output) = output_weights {
            output.set(weights.flatten(0, 1)?);
        }
        attend.apply(&weights, &v)?
    } else {
        attend.fused(&q, &k, &v)?
    };
    functions::affine(&heads, &out_weight, out_bias.as_ref(), 2)
}

/// The sizes `(positions, batch, dim)` of the three sequences; the key and the value must have the same length.
fn sequences(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<[[usize; 3]; 3]> {
    let sizes = |name: &'static str, x: &Tensor| {
        check::input(name, x)?;
        if x.dtype() != query.dtype() {
            let reason = format!("must have the element type of `query`, {:?}", query.dtype());
            return Err(Error::invalid(name, reason, x.dtype()));
        }
        <[usize; 3]>::try_from(x.dims())
            .map_err(|_| Error::invalid(name, "must have the shape (positions, batch, dim)", x.dims()))
    };
    let [q, k, v] = [sizes("query", query)?, sizes("key", key)?, sizes("value", value)?];
    if k[1] != q[1] {
        return Err(Error::invalid(
            "key",
            format!("must have the batch of the queries, {}", q[1]),
            key.dims(),
        ));
    }
    if v[..2] != k[..2] {
        let reason = format!("must have the positions and the batch of the keys, {:?}", &k[..2]);
        return Err(Error::invalid("value", reason, value.dims()));
    }
    Ok([q, k, v])
}

fn embedding(argument: &'static str, size: usize, num_heads: usize) -> Result<usize> {
    if num_heads == 0 || size == 0 || !size.is_multiple_of(num_heads) {
        let reason = format!("must be a multiple of `num_heads`, {num_heads}, both above 0");
        return Err(Error::invalid(argument, reason, size));
    }
    Ok(size)
}

fn check_masks(mask: Option<&Tensor>, padding: Option<&Tensor>, scores: [usize; 4]) -> Result<()> {
    let [batch, _, targets, sources] = scores;
    if let Some(mask) = mask {
        check::float_or_bytes("additive_mask", mask)?;
        let dims = mask.dims();
        let fits = dims.ends_with(&[targets, sources])
            && dims.len() <= 4
            && dims.iter().rev().zip(scores.iter().rev()).all(|(&size, &all)| size == 1 || size == all);
        if !fits {
            let reason = format!(
                "must have the shape (targets, sources) = ({targets}, {sources}), or (batch, num_heads) in front of it"
            );
            return Err(Error::invalid("additive_mask", reason, dims));
        }
    }
    match padding {
        Some(padding) if padding.dims() != [batch, sources] => {
            let reason = format!("must have the shape (batch, sources) = ({batch}, {sources})");
            Err(Error::invalid("key_padding_mask", reason, padding.dims()))
        }
        _ => Ok(()),
    }
}

/// The sequences with `bias` appended as one more position.
fn appended(sequences: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (_, batch, dim) = sequences.dims3()?;
    Ok(Tensor::cat(&[sequences, &bias.broadcast_as((1, batch, dim))?.contiguous()?], 0)?)
}
