//! Attention without parameters.

use candle_core::Tensor;

use crate::{Result, functions, parametric_function};

/// Scaled dot-product attention: for each query the mean of the values, weighted by how well their keys fit.
///
/// `y = softmax(scale · q kᵀ + mask) v`. On the CPU, neither the forward nor the backward pass holds the matrix
/// of all scores in memory. The output is zero for a query whose keys are all hidden.
///
/// With `is_causal`, the last query sees all keys, and each query before it sees one key less: query `i` sees
/// the keys up to `i + sources − targets`.
///
/// # Shapes
/// - `query`: `(batch.., heads, targets, dim)`; `batch..` and `heads` may be left out, from the left
/// - `key`: `(batch.., heads, sources, dim)`
/// - `value`: `(batch.., heads, sources, value_dim)`
/// - `mask`: what broadcasts to `(batch.., heads, targets, sources)`. Floats are added to the scaled products, and a
///   gradient flows to them; bytes (`u8`) hide a key from a query where they are not 0
/// - `key_padding_mask`: what broadcasts to `(batch.., sources)`
/// - output: `(batch.., heads, targets, value_dim)`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the shapes do not fit together.
///
/// # Source
/// Vaswani et al., Attention is All You Need, NIPS 2017; Dao et al., FlashAttention, NeurIPS 2022.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::scaled_dot_product_attention;
///
/// let key = Tensor::new(&[[1f32, 0.], [0., 1.]], &Device::Cpu)?;
/// let query = (&key * 1000.)?; // each query fits one key far better than the other
/// let value = Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.]], &Device::Cpu)?;
/// let y = scaled_dot_product_attention(&query, &key, &value).call()?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 2., 3.], [4., 5., 6.]]);
/// // All keys that it sees fit a query alike:
/// let y = scaled_dot_product_attention(&query, &key, &value).scale(0.).is_causal(true).call()?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 2., 3.], [2.5, 3.5, 4.5]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    family = Attention,
    multiply_adds = [query.elem_count() + value.elem_count(), key.dims().iter().rev().nth(1).copied().unwrap_or(1)]
)]
pub fn scaled_dot_product_attention(
    /// Queries.
    query: &Tensor,
    /// Keys.
    key: &Tensor,
    /// Values.
    value: &Tensor,
    /// Added to the scaled products of queries and keys; bytes (`u8`) hide a key from a query where they are not 0.
    #[opt]
    mask: Option<&Tensor>,
    /// Hides a key from all queries where it is not 0.
    #[opt]
    key_padding_mask: Option<&Tensor>,
    /// Whether a query sees the keys up to its own position only.
    #[opt(default = false)]
    is_causal: bool,
    /// Factor of the products; `1 / √dim` if absent.
    #[opt]
    scale: Option<f64>,
) -> Result<Tensor> {
    functions::attention::scaled_dot_product_attention(
        query,
        key,
        value,
        mask,
        key_padding_mask,
        is_causal,
        scale,
    )
}
