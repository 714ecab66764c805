//! Operators of each element.

use candle_core::{DType, Tensor};

use super::call::{Call, Function, number, of_kind, of_rank, one};
use crate::{Error, Result, functions};

macro_rules! of_one {
    ($op:literal, $function:path) => {
        ($op, (|call| one($function(&of_kind(call.input(0)?, false)?)?)) as Function)
    };
}

macro_rules! of_two {
    ($op:literal, $function:path) => {
        ($op, (|call| one(broadcast(call.input(0)?, call.input(1)?, $function)?)) as Function)
    };
}

/// A comparison of numbers, of which integers are some.
macro_rules! compared {
    ($op:literal, $function:path) => {
        (
            $op,
            (|call| {
                let [a, b] = [of_kind(call.input(0)?, false)?, of_kind(call.input(1)?, false)?];
                one(broadcast(&a, &b, $function)?)
            }) as Function,
        )
    };
}

macro_rules! of_many {
    ($op:literal, $function:path, $whole:ident) => {
        ($op, (|call| many(call, $function, Tensor::$whole)) as Function)
    };
}

macro_rules! arithmetic {
    ($op:literal, $function:path, $whole:ident) => {
        (
            $op,
            (|call| {
                let (a, b) = (call.input(0)?, call.input(1)?);
                one(match a.dtype().is_float() || b.dtype().is_float() {
                    true => broadcast(&of_kind(a, false)?, &of_kind(b, false)?, $function)?,
                    false => a.$whole(b)?,
                })
            }) as Function,
        )
    };
}

pub(super) static OPS: &[(&str, Function)] = &[
    of_one!("Abs", functions::abs),
    of_one!("Acos", functions::acos),
    of_one!("Acosh", functions::acosh),
    arithmetic!("Add", functions::add2, broadcast_add),
    of_two!("And", functions::logical_and),
    of_one!("Asin", functions::asin),
    of_one!("Asinh", functions::asinh),
    of_one!("Atan", functions::atan),
    of_one!("Atanh", functions::atanh),
    ("Cast", cast),
    of_one!("Ceil", functions::ceil),
    ("Clip", clip),
    of_one!("Cos", functions::cos),
    of_one!("Cosh", functions::cosh),
    arithmetic!("Div", functions::div2, broadcast_div),
    ("Dropout", |call| {
        let x = call.input(0)?;
        Ok(vec![x.clone(), Tensor::ones(x.dims(), DType::F32, x.device())?])
    }),
    ("Elu", |call| one(functions::elu(call.input(0)?, call.float("alpha", 1.0))?)),
    compared!("Equal", functions::equal),
    of_one!("Erf", functions::erf),
    of_one!("Exp", functions::exp),
    of_one!("Floor", functions::floor),
    ("Gelu", |call| {
        let x = call.input(0)?;
        one(if call.text("approximate") == "tanh" { functions::gelu(x)? } else { functions::gelu_exact(x)? })
    }),
    compared!("Greater", functions::greater),
    compared!("GreaterOrEqual", functions::greater_equal),
    ("HardSigmoid", |call| {
        one(hard_sigmoid(call.input(0)?, call.float("alpha", 0.2), call.float("beta", 0.5))?)
    }),
    ("HardSwish", |call| {
        let x = call.input(0)?;
        one(functions::mul2(x, &hard_sigmoid(x, 1.0 / 6.0, 0.5)?)?)
    }),
    ("Identity", |call| one(call.input(0)?.clone())),
    of_one!("IsInf", functions::isinf),
    of_one!("IsNaN", functions::isnan),
    ("LeakyRelu", |call| one(functions::leaky_relu(call.input(0)?, call.float("alpha", 0.01))?)),
    compared!("Less", functions::less),
    compared!("LessOrEqual", functions::less_equal),
    of_one!("Log", functions::log),
    of_many!("Max", functions::maximum2, broadcast_maximum),
    ("Mean", |call| {
        let sum = many(call, functions::add2, Tensor::broadcast_add)?;
        one(functions::mul_scalar(&sum[0], 1.0 / call.inputs.len() as f64)?)
    }),
    of_many!("Min", functions::minimum2, broadcast_minimum),
    of_one!("Mish", functions::mish),
    arithmetic!("Mul", functions::mul2, broadcast_mul),
    ("Neg", |call| {
        let x = call.input(0)?;
        one(if x.dtype().is_float() { functions::mul_scalar(x, -1.0)? } else { x.neg()? })
    }),
    of_one!("Not", functions::logical_not),
    of_two!("Or", functions::logical_or),
    ("PRelu", prelu),
    ("Pow", |call| {
        let (x, power) = (of_kind(call.input(0)?, false)?, of_kind(call.input(1)?, false)?);
        one(match power.elem_count() {
            1 if power.rank() <= x.rank() && !power.track_op() => functions::pow_scalar(&x, number(&power)?)?,
            _ => broadcast(&x, &power, functions::pow2)?,
        })
    }),
    ("Reciprocal", |call| one(functions::r_div_scalar(call.input(0)?, 1.0)?)),
    of_one!("Relu", functions::relu),
    ("Round", |call| one(half_to_even(call.input(0)?)?)),
    ("Selu", |call| {
        let (alpha, gamma) = (call.float("alpha", 1.673_263_2), call.float("gamma", 1.050_701));
        one(functions::selu_with(call.input(0)?, gamma, alpha)?)
    }),
    of_one!("Sigmoid", functions::sigmoid),
    ("Sign", |call| one(functions::sign(call.input(0)?, 0.0)?)),
    of_one!("Sin", functions::sin),
    of_one!("Sinh", functions::sinh),
    of_one!("Softplus", functions::softplus),
    of_one!("Softsign", functions::softsign),
    ("Sqrt", |call| one(functions::pow_scalar(call.input(0)?, 0.5)?)),
    arithmetic!("Sub", functions::sub2, broadcast_sub),
    of_many!("Sum", functions::add2, broadcast_add),
    of_one!("Tan", functions::tan),
    of_one!("Tanh", functions::tanh),
    ("Where", |call| {
        let [condition, a, b] = [0, 1, 2].map(|n| call.input(n));
        let (condition, a, b) = (of_kind(condition?, false)?, a?, b?);
        if !a.dtype().is_float() && !b.dtype().is_float() {
            let dims = common(&[&condition, a, b])?;
            let [condition, a, b] = [&condition, a, b].map(|x| x.broadcast_as(&*dims));
            return one(condition?.ne(0.0)?.where_cond(&a?.contiguous()?, &b?.contiguous()?)?);
        }
        let (a, b) = (of_kind(a, false)?, of_kind(b, false)?);
        let dims = common(&[&condition, &a, &b])?;
        let [condition, a, b] = [&condition, &a, &b].map(|x| expanded(x, &dims));
        one(functions::where_cond(&condition?, &a?, &b?)?)
    }),
    of_two!("Xor", functions::logical_xor),
];

/// The shape that all can be repeated to.
fn common(tensors: &[&Tensor]) -> Result<Vec<usize>> {
    let rank = tensors.iter().map(|x| x.rank()).max().unwrap_or(0);
    let mut dims = vec![1; rank];
    for x in tensors {
        for (size, &other) in dims[rank - x.rank()..].iter_mut().zip(x.dims()) {
            if *size != other && *size != 1 && other != 1 {
                return Err(Error::invalid(
                    "input",
                    "must have shapes that can be repeated to one",
                    x.dims(),
                ));
            }
            *size = if *size == 1 { other } else { *size };
        }
    }
    Ok(dims)
}

/// Repeated to this shape.
pub(super) fn expanded(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    if x.dims() == dims { Ok(x.clone()) } else { functions::broadcast(x, dims) }
}

pub(super) fn broadcast(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let rank = a.rank().max(b.rank());
    f(&of_rank(a, rank)?, &of_rank(b, rank)?)
}

fn many(
    call: &Call<'_>,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    whole: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let mut found = call.input(0)?.clone();
    for n in 1..call.inputs.len() {
        let other = call.input(n)?;
        found = match found.dtype().is_float() {
            true => broadcast(&found, &of_kind(other, false)?, &f)?,
            false => whole(&found, other)?,
        };
    }
    one(found)
}

fn cast(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    one(match call.int("to", 1) {
        1 | 10 | 11 | 16 => of_kind(x, false)?,
        2..=7 | 12 | 13 => of_kind(x, true)?,
        9 => functions::not_equal_scalar(&of_kind(x, false)?, 0.0)?,
        other => return Err(Error::invalid("to", "must be a number type or bool", other)),
    })
}

fn clip(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let mut x = call.input(0)?.clone();
    let end = |name: &str, n: usize| match call.get(n) {
        Some(tensor) => number(tensor).map(Some),
        None => Ok(call.has(name).then(|| call.float(name, 0.0))),
    };
    // An end beyond all numbers cuts nothing off.
    let is_end = |end: &f64| end.abs() < f64::from(f32::MAX);
    if let Some(low) = end("min", 1)?.filter(is_end) {
        x = functions::maximum_scalar(&x, low)?;
    }
    if let Some(high) = end("max", 2)?.filter(is_end) {
        x = functions::minimum_scalar(&x, high)?;
    }
    one(x)
}

fn hard_sigmoid(x: &Tensor, alpha: f64, beta: f64) -> Result<Tensor> {
    let line = functions::add_scalar(&functions::mul_scalar(x, alpha)?, beta)?;
    functions::minimum_scalar(&functions::maximum_scalar(&line, 0.0)?, 1.0)
}

/// A slope for each channel, or for every element.
fn prelu(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, slope) = (call.input(0)?, call.input(1)?);
    let behind = x.rank().saturating_sub(2);
    let channels = slope.dims().split_first().filter(|(_, rest)| rest.iter().all(|&size| size == 1));
    match channels {
        Some((&n, rest)) if n > 1 && rest.len() == behind => {
            one(functions::prelu(x, &super::call::shaped(slope, &[n])?, 1)?)
        }
        _ if slope.elem_count() == 1 => {
            one(functions::prelu(x, &super::call::shaped(slope, &[1])?, 1.min(x.rank()))?)
        }
        _ => {
            let below = broadcast(&functions::minimum_scalar(x, 0.0)?, slope, functions::mul2)?;
            one(functions::add2(&functions::maximum_scalar(x, 0.0)?, &below)?)
        }
    }
}

/// The nearest integer, the even one of two.
pub(super) fn half_to_even(x: &Tensor) -> Result<Tensor> {
    let floor = functions::floor(x)?;
    let rest = functions::sub2(x, &floor)?;
    let half = functions::mul_scalar(&floor, 0.5)?;
    let is_odd = functions::greater_scalar(&functions::sub2(&half, &functions::floor(&half)?)?, 0.25)?;
    let up = functions::logical_or(
        &functions::greater_scalar(&rest, 0.5)?,
        &functions::logical_and(&functions::equal_scalar(&rest, 0.5)?, &is_odd)?,
    )?;
    functions::add2(&floor, &up)
}
