//! Scaled dot-product attention.

use std::borrow::Cow;

use candle_core::{DType, Tensor};

use super::composed;
use super::graph::{attach_all, attach_with_result, tracked};
use super::node::{
    Element, Value, compute, for_float, in_type, nothing_like, read, widened, without_kernels,
};
use super::parts;
use crate::kernels::{Attention, Mask, Masks, Order};
use crate::told::listens;
use crate::{Error, Result, check};

/// Computes the stage [`scaled_dot_product_attention`](fn@crate::scaled_dot_product_attention).
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes do not match.
pub fn scaled_dot_product_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    mask: Option<&Tensor>,
    key_padding_mask: Option<&Tensor>,
    is_causal: bool,
    scale: Option<f64>,
) -> Result<Tensor> {
    let masking = Masking { mask, key_padding_mask, is_causal, scale };
    Attend::heads_first([query, key, value], &masking)?.fused(query, key, value)
}

/// Restrictions on the keys that a query sees.
pub(crate) struct Masking<'a> {
    pub(crate) mask: Option<&'a Tensor>,
    pub(crate) key_padding_mask: Option<&'a Tensor>,
    pub(crate) is_causal: bool,
    pub(crate) scale: Option<f64>,
}

/// A call of attention: validated sizes, and masks with four axes.
pub(crate) struct Attend {
    attention: Attention,
    /// Of queries, keys, values and outputs.
    batch_dims: Vec<usize>,
    /// `(1 or batches, 1 or heads, 1 or targets, sources)`
    mask: Option<Tensor>,
    /// -inf where a key is hidden, else 0: `(batches, 1, 1, sources)`
    padding: Option<Tensor>,
}

impl Attend {
    /// For queries, keys and values of shape `(batch.., heads, positions, dim)`.
    pub(crate) fn heads_first([query, key, value]: [&Tensor; 3], masking: &Masking<'_>) -> Result<Self> {
        for (name, tensor) in [("query", query), ("key", key), ("value", value)] {
            check::input(name, tensor)?;
            if tensor.rank() < 2 || tensor.rank() != query.rank() {
                let reason = "must have the shape (batch.., heads, positions, dim) as the others have";
                return Err(Error::invalid(name, reason, tensor.dims()));
            }
        }
        let (batch_dims, [targets, dim]) = split(query);
        let (key_batch, [sources, key_dim]) = split(key);
        let (value_batch, [n_values, value_dim]) = split(value);
        if key_batch != batch_dims || key_dim != dim {
            let reason =
                format!("must have the batches, the heads and the dimension of a query {:?}", query.dims());
            return Err(Error::invalid("key", reason, key.dims()));
        }
        if value_batch != batch_dims || n_values != sources {
            let reason =
                format!("must have the batches, the heads and the positions of the keys {:?}", key.dims());
            return Err(Error::invalid("value", reason, value.dims()));
        }
        let (heads, batches) = match batch_dims.split_last() {
            Some((&heads, batches)) => (heads, check::count("query", batches)?),
            None => (1, 1),
        };
        let order = Order::HeadsFirst;
        let sizes =
            Attention { order, batches, heads, targets, sources, dim, value_dim, scale: 1.0, causal: false };
        Self::new(sizes, batch_dims.to_vec(), query, masking)
    }

    /// For queries, keys and values of shape `(positions, batch, heads * dim)`, which have been validated.
    pub(crate) fn positions_first(
        [query, key, value]: [&Tensor; 3],
        heads: usize,
        masking: &Masking<'_>,
    ) -> Result<Self> {
        let (targets, batches, width) = query.dims3()?;
        let (sources, _, value_width) = value.dims3()?;
        debug_assert_eq!(key.dims(), [sources, batches, width], "the layer has checked the sizes");
        let (dim, value_dim) = (width / heads, value_width / heads);
        let order = Order::PositionsFirst;
        let sizes =
            Attention { order, batches, heads, targets, sources, dim, value_dim, scale: 1.0, causal: false };
        Self::new(sizes, vec![batches, heads], query, masking)
    }

    fn new(sizes: Attention, batch_dims: Vec<usize>, query: &Tensor, masking: &Masking<'_>) -> Result<Self> {
        let Attention { batches, heads, targets, sources, dim, .. } = sizes;
        let scale = masking.scale.unwrap_or(1.0 / (dim.max(1) as f64).sqrt());
        check::within("scale", scale, ..)?;
        check::count("key", &[batches, heads, targets, sources])?;
        let attention = Attention { scale, causal: masking.is_causal, ..sizes };
        let all = [&batch_dims[..], &[targets, sources]].concat();
        let mask = masking.mask.map(|mask| {
            check::float_or_bytes("mask", mask)?;
            let mask =
                if mask.dtype() == DType::U8 { hidden("mask", mask, query.dtype())? } else { mask.clone() };
            four_axes(&mask, &all, &attention)
        });
        let padding = masking.key_padding_mask.map(|mask| {
            let by_batch = [&batch_dims[..batch_dims.len().saturating_sub(1)], &[sources]].concat();
            let padding =
                broadcast("key_padding_mask", &hidden("key_padding_mask", mask, query.dtype())?, &by_batch)?;
            Ok::<_, Error>(padding.reshape((batches, 1, 1, sources))?.to_device(query.device())?)
        });
        Ok(Self { attention, batch_dims, mask: mask.transpose()?, padding: padding.transpose()? })
    }

    /// The dimensions of a tensor with this number of positions, and values per head.
    fn dims(&self, positions: usize, dim: usize) -> Vec<usize> {
        match self.attention.order {
            Order::HeadsFirst => [&self.batch_dims[..], &[positions, dim]].concat(),
            Order::PositionsFirst => vec![positions, self.attention.batches, self.attention.heads * dim],
        }
    }

    fn output_dims(&self) -> Vec<usize> {
        self.dims(self.attention.targets, self.attention.value_dim)
    }

    /// `(batches, heads, targets, sources)`
    fn score_dims(&self) -> [usize; 4] {
        let Attention { batches, heads, targets, sources, .. } = self.attention;
        [batches, heads, targets, sources]
    }

    /// The outputs, computed without a matrix of weights.
    pub(crate) fn fused(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        const NAME: &str = "scaled_dot_product_attention";
        let none = nothing_like(query)?;
        let mask = self.mask.as_ref().unwrap_or(&none);
        let padding = self.padding.as_ref().unwrap_or(&none);
        if listens() {
            let weights = self.weights(query, key)?;
            return self.apply(&weights, value);
        }
        let inputs = [query, key, value, mask, padding];
        if let Some([y]) = without_kernels(NAME, &inputs, |t| {
            let weights =
                composed::attention::weights(&self.attention, &t[0], &t[1], self.masks_of(&t[3], &t[4]))?;
            Ok([composed::attention::apply(&self.attention, &weights, &t[2])?.reshape(self.output_dims())?])
        })? {
            return Ok(y);
        }
        let inputs = widened(NAME, inputs)?;
        let inputs = inputs.each_ref().map(Cow::as_ref);
        let y = for_float!(inputs[0].dtype(), T => self.fused_with_kernels::<T>(inputs))?;
        in_type(y, query.dtype())
    }

    fn fused_with_kernels<T: Element>(&self, inputs: [&Tensor; 5]) -> Result<Tensor> {
        let attention = self.attention;
        let Attention { batches, heads, targets, .. } = attention;
        let strides = self.mask_strides();
        let mut normalizers = Value::<T>::unfilled([batches, heads, targets])?;
        let y = compute::<T, 5>(self.output_dims(), inputs, |[q, k, v, mask, padding], y| {
            attention.forward([q, k, v], &masks(strides, mask, padding), y, &mut normalizers.data);
        })?;
        let kept = inputs.map(Tensor::detach);
        let (needed, normalizers) = (tracked(inputs), normalizers.data);
        let score_dims = self.score_dims();
        attach_with_result("scaled_dot_product_attention", inputs, y, move |y, dy| {
            let [q, k, v, mask, padding] = kept.each_ref();
            let gradient = |i: usize| needed[i].then(|| Value::<T>::unfilled(kept[i].dims())).transpose();
            let (mut dq, mut dk, mut dv) = (gradient(0)?, gradient(1)?, gradient(2)?);
            let mut dscores = needed[3].then(|| Value::<T>::zeros(score_dims)).transpose()?;
            read([q, k, v, mask, padding, y, dy], |[q, k, v, mask, padding, y, dy]| {
                let wanted = [&mut dq, &mut dk, &mut dv].map(|d| d.as_mut().map(|d| &mut d.data[..]));
                let dscores = dscores.as_mut().map(|d| &mut d.data[..]);
                attention.backward(
                    [q, k, v],
                    &masks(strides, mask, padding),
                    (&normalizers, y, dy),
                    wanted,
                    dscores,
                );
            })?;
            let tensor = |value: Option<Value<T>>| value.map(Value::into_tensor).transpose();
            let dmask = tensor(dscores)?.map(|dscores| sum_to(&dscores, mask.dims())).transpose()?;
            Ok([tensor(dq)?, tensor(dk)?, tensor(dv)?, dmask, None])
        })
    }

    /// The attention weights: `softmax(scale · q kᵀ + mask)` of shape `(batches, heads, targets, sources)`.
    pub(crate) fn weights(&self, query: &Tensor, key: &Tensor) -> Result<Tensor> {
        const NAME: &str = "attention_weights";
        let none = nothing_like(query)?;
        let mask = self.mask.as_ref().unwrap_or(&none);
        let padding = self.padding.as_ref().unwrap_or(&none);
        if listens() {
            let masks = [self.mask.as_ref(), self.padding.as_ref()];
            return parts::attention_weights(&self.attention, [query, key], masks);
        }
        let inputs = [query, key, mask, padding];
        if let Some([weights]) = without_kernels(NAME, &inputs, |t| {
            Ok([composed::attention::weights(&self.attention, &t[0], &t[1], self.masks_of(&t[2], &t[3]))?])
        })? {
            return Ok(weights);
        }
        let inputs = widened(NAME, inputs)?;
        let inputs = inputs.each_ref().map(Cow::as_ref);
        let weights = for_float!(inputs[0].dtype(), T => self.weights_with_kernels::<T>(inputs))?;
        in_type(weights, query.dtype())
    }

    fn weights_with_kernels<T: Element>(&self, inputs: [&Tensor; 4]) -> Result<Tensor> {
        let (attention, strides, score_dims) = (self.attention, self.mask_strides(), self.score_dims());
        let weights = compute::<T, 4>(score_dims, inputs, |[q, k, mask, padding], weights| {
            attention.weights([q, k], &masks(strides, mask, padding), weights);
        })?;
        let (kept, needed) = (inputs.map(Tensor::detach), tracked(inputs));
        attach_with_result("attention_weights", inputs, weights, move |weights, dweights| {
            let [q, k, mask, _] = kept.each_ref();
            let gradient = |i: usize| needed[i].then(|| Value::<T>::unfilled(kept[i].dims())).transpose();
            let (mut dq, mut dk) = (gradient(0)?, gradient(1)?);
            let dscores = compute::<T, 4>(
                score_dims,
                [q, k, weights, dweights],
                |[q, k, weights, dweights], dscores| {
                    let wanted = [&mut dq, &mut dk].map(|d| d.as_mut().map(|d| &mut d.data[..]));
                    attention.weights_backward([q, k], (weights, dweights), wanted, dscores);
                },
            )?;
            let tensor = |value: Option<Value<T>>| value.map(Value::into_tensor).transpose();
            let dmask = needed[2].then(|| sum_to(&dscores.into_tensor()?, mask.dims())).transpose()?;
            Ok([tensor(dq)?, tensor(dk)?, dmask, None])
        })
    }

    /// The outputs for these weights.
    pub(crate) fn apply(&self, weights: &Tensor, value: &Tensor) -> Result<Tensor> {
        const NAME: &str = "attention_output";
        if listens() {
            return parts::attention_output(&self.attention, weights, value, &self.output_dims());
        }
        let inputs = [weights, value];
        if let Some([y]) = without_kernels(NAME, &inputs, |t| {
            Ok([composed::attention::apply(&self.attention, &t[0], &t[1])?.reshape(self.output_dims())?])
        })? {
            return Ok(y);
        }
        let inputs = widened(NAME, inputs)?;
        let inputs = inputs.each_ref().map(Cow::as_ref);
        let attention = self.attention;
        let y = for_float!(inputs[0].dtype(), T => {
            let y = compute::<T, 2>(self.output_dims(), inputs, |inputs, y| attention.apply(inputs, y))?;
            let (kept, needed) = (inputs.map(Tensor::detach), tracked(inputs));
            attach_all(NAME, inputs, [y], move |[dy]| {
                let gradient = |i: usize| needed[i].then(|| Value::<T>::unfilled(kept[i].dims())).transpose();
                let (mut dweights, mut dv) = (gradient(0)?, gradient(1)?);
                let Some(dy) = dy else { return Ok([None, None]) };
                read([&kept[0], &kept[1], dy], |[weights, v, dy]| {
                    let [dweights, dv] = [&mut dweights, &mut dv].map(|d| d.as_mut().map(|d| &mut d.data[..]));
                    attention.apply_backward([weights, v], dy, dweights, dv);
                })?;
                let tensor = |value: Option<Value<T>>| value.map(Value::into_tensor).transpose();
                Ok([tensor(dweights)?.map(Into::into), tensor(dv)?.map(Into::into)])
            }).map(|[y]| y)
        })?;
        in_type(y, weights.dtype())
    }

    /// The strides between batches, heads and queries in the mask and in the padding, if there are any.
    fn mask_strides(&self) -> [Option<[usize; 3]>; 2] {
        [&self.mask, &self.padding].map(|mask| {
            let dims = mask.as_ref()?.dims();
            let step = |axis: usize| if dims[axis] == 1 { 0 } else { dims[axis + 1..].iter().product() };
            Some([step(0), step(1), step(2)])
        })
    }

    /// The masks that are present.
    fn masks_of<'a>(&self, mask: &'a Tensor, padding: &'a Tensor) -> [Option<&'a Tensor>; 2] {
        [self.mask.is_some().then_some(mask), self.padding.is_some().then_some(padding)]
    }
}

fn masks<'a, T>([mask, padding]: [Option<[usize; 3]>; 2], values: &'a [T], hidden: &'a [T]) -> Masks<'a, T> {
    [mask.map(|strides| Mask { values, strides }), padding.map(|strides| Mask { values: hidden, strides })]
}

/// The axes before the last two, and the sizes of these.
fn split(tensor: &Tensor) -> (&[usize], [usize; 2]) {
    match tensor.dims() {
        [batch @ .., positions, dim] => (batch, [*positions, *dim]),
        _ => unreachable!("the rank was checked"),
    }
}

/// -inf where `mask` is not 0, and 0 elsewhere.
fn hidden(name: &'static str, mask: &Tensor, dtype: DType) -> Result<Tensor> {
    check::tensor(name, mask.dims(), DType::F64)?;
    let mask = mask.detach().contiguous()?;
    let zeros = Tensor::zeros(mask.dims(), dtype, mask.device())?;
    Ok(mask
        .ne(&mask.zeros_like()?)?
        .where_cond(&Tensor::full(f64::NEG_INFINITY, mask.dims(), mask.device())?.to_dtype(dtype)?, &zeros)?)
}

/// The mask with four axes: the first three have the sizes of the scores or 1, the last has that of the scores.
fn four_axes(mask: &Tensor, all: &[usize], attention: &Attention) -> Result<Tensor> {
    let Attention { batches, heads, targets, sources, .. } = *attention;
    let mut dims = vec![1; all.len().saturating_sub(mask.rank())];
    dims.extend(mask.dims());
    if let Some(last) = dims.last_mut() {
        *last = sources;
    }
    let batch_axes = all.len().saturating_sub(3);
    let has_batches = dims.iter().take(batch_axes).any(|&size| size != 1);
    for axis in (0..batch_axes).filter(|_| has_batches) {
        dims[axis] = all[axis];
    }
    let fits =
        dims.len() == all.len() && dims.iter().zip(all).all(|(&size, &of_all)| size == 1 || size == of_all);
    if !fits {
        let reason = format!("must broadcast to the scores (batch.., heads, targets, sources) = {all:?}");
        return Err(Error::invalid("mask", reason, mask.dims()));
    }
    let mask = broadcast("mask", mask, &dims)?;
    let size = |axis_from_end: usize| dims.len().checked_sub(axis_from_end).map_or(1, |axis| dims[axis]);
    let of_batches = if has_batches { batches } else { 1 };
    let (of_heads, of_targets) =
        (if size(3) == 1 { 1 } else { heads }, if size(2) == 1 { 1 } else { targets });
    Ok(mask.reshape((of_batches, of_heads, of_targets, sources))?)
}

/// A contiguous copy that is broadcast to these sizes.
fn broadcast(name: &'static str, mask: &Tensor, dims: &[usize]) -> Result<Tensor> {
    if mask.dims() == dims && mask.is_contiguous() {
        return Ok(mask.clone());
    }
    match mask.broadcast_as(dims) {
        Ok(view) => {
            check::tensor(name, dims, mask.dtype())?;
            Ok(view.contiguous()?)
        }
        Err(_) => Err(Error::invalid(name, format!("must broadcast to the shape {dims:?}"), mask.dims())),
    }
}

/// The sum over the axes that have size 1 in `dims`.
fn sum_to(scores: &Tensor, dims: &[usize]) -> candle_core::Result<Tensor> {
    let axes: Vec<usize> = (0..dims.len()).filter(|&axis| dims[axis] != scores.dims()[axis]).collect();
    if axes.is_empty() { Ok(scores.clone()) } else { scores.sum_keepdim(axes) }
}
