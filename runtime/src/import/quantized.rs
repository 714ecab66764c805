//! Integers, and what makes numbers of them.

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use super::call::{Call, Function, axis, of_kind, one, shaped};
use super::maps::{broadcast, half_to_even};
use crate::functions;
use crate::{Result, onnx};

pub(super) static OPS: &[(&str, Function)] = &[
    ("DequantizeLinear", |call| {
        let x = of_kind(call.input(0)?, false)?;
        let [scale, zero] = steps(call, &x)?;
        let x = match zero {
            Some(zero) => broadcast(&x, &zero, functions::sub2)?,
            None => x,
        };
        one(broadcast(&x, &scale.unwrap_or(Tensor::ones((), DType::F32, x.device())?), functions::mul2)?)
    }),
    ("QuantizeLinear", |call| {
        let x = call.input(0)?;
        let [scale, zero] = steps(call, x)?;
        let mut y = half_to_even(&broadcast(
            x,
            &scale.unwrap_or(Tensor::ones((), DType::F32, x.device())?),
            functions::div2,
        )?)?;
        if let Some(zero) = zero {
            y = broadcast(&y, &zero, functions::add2)?;
        }
        let (low, high) = range(call)?;
        one(functions::minimum_scalar(&functions::maximum_scalar(&y, low)?, high)?)
    }),
];

/// Writes the type of the place of 0 into the node: that of its results.
pub(super) fn note_type(node: &mut onnx::Node, types: &HashMap<&str, i32>) {
    if node.op_type == "QuantizeLinear" && !node.attribute.iter().any(|attribute| attribute.name == TYPE) {
        let of_zero = node.input.get(2).filter(|name| !name.is_empty());
        let of = of_zero.map_or(2, |name| types.get(name.as_str()).copied().unwrap_or(0));
        node.attribute.push(onnx::int(TYPE, i64::from(of)));
    }
}

/// The attribute that says the type of quantized numbers.
const TYPE: &str = "output_dtype";

fn range(call: &Call<'_>) -> Result<(f64, f64)> {
    Ok(match call.int(TYPE, 0) {
        2 => (0.0, 255.0),
        3 => (-128.0, 127.0),
        4 => (0.0, 65_535.0),
        5 => (-32_768.0, 32_767.0),
        _ => return Err(call.unsupported("y_zero_point", "must be a constant of 8 or 16 bits")),
    })
}

/// The step and the place of 0: one number each, or one for each place on an axis.
fn steps(call: &Call<'_>, x: &Tensor) -> Result<[Option<Tensor>; 2]> {
    let of = |n: usize| {
        let Some(given) = call.get(n) else { return Ok(None) };
        let given = of_kind(given, false)?;
        if given.elem_count() == 1 {
            return Ok(Some(shaped(&given, &vec![1; x.rank()])?));
        }
        let mut dims = vec![1; x.rank()];
        dims[axis(call.int("axis", 1), x.rank())?] = given.elem_count();
        shaped(&given, &dims).map(Some)
    };
    Ok([of(1)?, of(2)?])
}
