//! Normalizations.

use candle_core::Tensor;

use super::call::{Call, Function, one, shaped};
use crate::functions;
use crate::{Error, Result};

pub(super) static OPS: &[(&str, Function)] = &[
    ("BatchNormalization", batch_normalization),
    ("GroupNormalization", |call| {
        let groups = super::call::counts("num_groups", &[call.int("num_groups", 1)])?[0];
        let (x, [scale, bias]) = channels(call)?;
        one(functions::group_normalization(
            x,
            Some(&bias),
            Some(&scale),
            groups,
            1,
            &[0],
            call.float("epsilon", 1e-5),
        )?
        .0)
    }),
    ("InstanceNormalization", |call| {
        let (x, [scale, bias]) = channels(call)?;
        one(functions::instance_normalization(
            x,
            Some(&bias),
            Some(&scale),
            1,
            &[0],
            call.float("epsilon", 1e-5),
        )?
        .0)
    }),
    ("LayerNormalization", |call| {
        let x = call.input(0)?;
        let axis = call.axis(-1, x.rank())?;
        let dims = [&vec![1; axis], &x.dims()[axis..]].concat();
        let coefficient = |n: usize| call.get(n).map(|given| shaped(given, &dims)).transpose();
        let (scale, bias, batch) = (coefficient(1)?, coefficient(2)?, (0..axis).collect::<Vec<_>>());
        let eps = call.float("epsilon", 1e-5);
        one(functions::layer_normalization(x, bias.as_ref(), scale.as_ref(), &batch, eps)?.0)
    }),
];

/// A list with a number for each channel, beside an input.
fn of_channels(x: &Tensor, list: &Tensor) -> Result<Tensor> {
    let Some(&n) = x.dims().get(1) else {
        return Err(Error::invalid("X", "must have an axis of channels", x.dims()));
    };
    let mut dims = vec![1; x.rank()];
    dims[1] = n;
    shaped(list, &dims)
}

/// The input, the scale and the bias.
fn channels<'a>(call: &'a Call<'_>) -> Result<(&'a Tensor, [Tensor; 2])> {
    let x = call.input(0)?;
    Ok((x, [of_channels(x, call.input(1)?)?, of_channels(x, call.input(2)?)?]))
}

fn batch_normalization(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, [scale, bias]) = channels(call)?;
    if call.int("training_mode", 0) != 0 {
        return Err(call.unsupported("training_mode", "must be 0: export the network in test mode"));
    }
    let (mean, var) = (of_channels(x, call.input(3)?)?, of_channels(x, call.input(4)?)?);
    let eps = call.float("epsilon", 1e-5);
    one(functions::batch_normalization_by(x, &bias, &scale, &mean, &var, &[1], eps)?)
}
