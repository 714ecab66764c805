//! Functions that NNabla does not have, composed of functions that it has; an exported network consists of
//! these.

use candle_core::Tensor;

use super::{
    add_scalar, add2, affine, batch_matmul, concatenate, erf, mean, mul_scalar, mul2, pow_scalar,
    r_sub_scalar, reshape, sigmoid, slice, softmax, split, sub2, tanh, transpose,
};
use crate::Result;
use crate::kernels::{Attention, Order, Positions, angle};

/// [`gelu_exact`](super::gelu_exact).
pub(super) fn gelu_of_erf(x: &Tensor) -> Result<Tensor> {
    let share = add_scalar(&erf(&mul_scalar(x, std::f64::consts::FRAC_1_SQRT_2)?)?, 1.0)?;
    mul2(&mul_scalar(x, 0.5)?, &share)
}

/// [`lstm_cell`](super::lstm_cell).
pub(super) fn lstm_cell(
    x: &Tensor,
    h: &Tensor,
    c: &Tensor,
    w: &Tensor,
    b: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let gates = split(&affine(&concatenate(&[x, h], 1)?, w, Some(b), 1)?, 1)?;
    let (input, output) = (sigmoid(&gates[0])?, sigmoid(&gates[1])?);
    let c = add2(&mul2(&sigmoid(&gates[2])?, c)?, &mul2(&input, &tanh(&gates[3])?)?)?;
    Ok((mul2(&output, &tanh(&c)?)?, c))
}

/// [`gru_cell`](super::gru_cell).
pub(super) fn gru_cell(x: &Tensor, h: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let weights = split(w, 0)?;
    let biases = b.map(|b| split(b, 0)).transpose()?;
    let bias = |i: usize| biases.as_ref().map(|biases| &biases[i]);
    let product = |x: &Tensor, w: &Tensor, i: usize| affine(x, &transpose(w, [1, 0])?, bias(i), 1);
    let both = concatenate(&[x, h], 1)?;
    let reset = sigmoid(&product(&both, &weights[0], 0)?)?;
    let update = sigmoid(&product(&both, &weights[1], 1)?)?;
    let inmaps = x.dims()[1] as isize;
    let of_x = slice(&weights[2], &[None, None], &[None, Some(inmaps)], &[])?;
    let of_h = slice(&weights[2], &[None, Some(inmaps)], &[None, None], &[])?;
    let new = tanh(&add2(&product(x, &of_x, 2)?, &mul2(&reset, &product(h, &of_h, 3)?)?)?)?;
    add2(&mul2(&r_sub_scalar(&update, 1.0)?, &new)?, &mul2(&update, h)?)
}

/// `x` in another shape.
pub(super) fn shaped(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let dims: Vec<_> = dims.iter().map(|&size| size as isize).collect();
    reshape(x, &dims)
}

/// `x` with axes of size 1 in front, as many as `rank` asks for.
pub(super) fn of_rank(x: &Tensor, rank: usize) -> Result<Tensor> {
    shaped(x, &[&vec![1; rank - x.rank()], x.dims()].concat())
}

/// `(batches · heads, positions, dim)` of queries, keys or values.
fn by_head(attention: &Attention, x: &Tensor, positions: usize, dim: usize) -> Result<Tensor> {
    let &Attention { order, batches, heads, .. } = attention;
    match order {
        Order::HeadsFirst => shaped(x, &[batches * heads, positions, dim]),
        Order::PositionsFirst => transpose(&shaped(x, &[positions, batches * heads, dim])?, [1, 0, 2]),
    }
}

/// The weights of attention, of shape `(batches, heads, targets, sources)`.
pub(super) fn attention_weights(
    attention: &Attention,
    [query, key]: [&Tensor; 2],
    masks: [Option<&Tensor>; 2],
) -> Result<Tensor> {
    let &Attention { batches, heads, targets, sources, dim, scale, causal, .. } = attention;
    let (query, key) = (by_head(attention, query, targets, dim)?, by_head(attention, key, sources, dim)?);
    let scores = mul_scalar(&batch_matmul(&query, &key, false, true)?, scale)?;
    let mut scores = shaped(&scores, &[batches, heads, targets, sources])?;
    for mask in masks.into_iter().flatten() {
        scores = add2(&scores, mask)?;
    }
    if causal {
        let later = super::composed::attention::later(targets, sources, &scores.detach())?;
        scores = add2(&scores, &later.reshape((1, 1, targets, sources))?)?;
    }
    softmax(&scores, 3)
}

/// The outputs of attention for these weights, of shape `dims`.
pub(super) fn attention_output(
    attention: &Attention,
    weights: &Tensor,
    value: &Tensor,
    dims: &[usize],
) -> Result<Tensor> {
    let &Attention { order, batches, heads, targets, sources, value_dim, .. } = attention;
    let weights = shaped(weights, &[batches * heads, targets, sources])?;
    let y = batch_matmul(&weights, &by_head(attention, value, sources, value_dim)?, false, false)?;
    match order {
        Order::HeadsFirst => shaped(&y, dims),
        Order::PositionsFirst => shaped(&transpose(&y, [1, 0, 2])?, dims),
    }
}

/// [`add_position_embedding`](super::add_position_embedding).
pub(super) fn add_positions(x: &Tensor, w: &Tensor, axis: usize) -> Result<Tensor> {
    let n = x.dims()[axis];
    let rows = slice(w, &[None, None], &[Some(n as isize), None], &[])?;
    let mut dims = vec![1; x.rank()];
    (dims[axis], dims[x.rank() - 1]) = (n, w.dims()[1]);
    add2(x, &shaped(&rows, &dims)?)
}

/// [`rotary_position_embedding`](super::rotary_position_embedding).
pub(super) fn rotate(x: &Tensor, positions: Positions, base: f64) -> Result<Tensor> {
    let Positions { n, between, features } = positions;
    let (outer, half) = (x.elem_count().checked_div(n * between * features).unwrap_or(0), features / 2);
    let table = |f: fn(f64) -> f64| -> Result<Tensor> {
        let values = (0..n * half).map(|i| f(angle(i / half, i % half, features, base)));
        Ok(Tensor::from_iter(values, x.device())?.reshape((1, n, 1, half, 1))?.to_dtype(x.dtype())?)
    };
    let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
    let pairs = shaped(x, &[outer, n, between, half, 2])?;
    let (u, v) = (slice(&pairs, &[None], &[Some(1)], &[])?, slice(&pairs, &[Some(1)], &[None], &[])?);
    let first = sub2(&mul2(&u, &cos)?, &mul2(&v, &sin)?)?;
    let second = add2(&mul2(&u, &sin)?, &mul2(&v, &cos)?)?;
    shaped(&concatenate(&[&first, &second], 4)?, x.dims())
}

/// `x / sqrt(square + eps)`, times `gamma`, plus `beta`; all of one rank.
pub(super) fn scaled(
    x: &Tensor,
    square: &Tensor,
    eps: f64,
    [beta, gamma]: [Option<&Tensor>; 2],
) -> Result<Tensor> {
    let mut y = mul2(x, &pow_scalar(&add_scalar(square, eps)?, -0.5)?)?;
    if let Some(gamma) = gamma {
        y = mul2(&y, gamma)?;
    }
    match beta {
        Some(beta) => add2(&y, beta),
        None => Ok(y),
    }
}

/// Normalization by the mean and the variance over these axes; with both.
pub(super) fn normalized(
    x: &Tensor,
    over: &[usize],
    eps: f64,
    coefficients: [Option<&Tensor>; 2],
) -> Result<(Tensor, Tensor, Tensor)> {
    let center = mean(x, over, true)?;
    let difference = sub2(x, &center)?;
    let var = mean(&mul2(&difference, &difference)?, over, true)?;
    Ok((scaled(&difference, &var, eps, coefficients)?, center, var))
}

/// Normalization by the root of the mean square over these axes.
pub(super) fn by_root_mean_square(
    x: &Tensor,
    over: &[usize],
    eps: f64,
    gamma: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let square = mean(&mul2(x, x)?, over, true)?;
    Ok((scaled(x, &square, eps, [None, gamma])?, square))
}
