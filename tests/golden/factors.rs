//! Layers whose weights are factors: signs and scales are free, so their product is compared.

use crate::support::compare::{difference, values};
use crate::support::fixtures::Tensors;
use candle_core::Tensor;
use layerfn::get_all_parameters;

use super::case::{Case, Check, Origin, first_value, leaf};

/// What is wrong with the factors that the layer has just made.
pub(crate) fn check(case: &Case, tensors: &Tensors) -> Result<Vec<String>, String> {
    let mut failures = Vec::new();
    for parameter in case.parameters.iter().filter(|parameter| parameter.origin == Origin::Preset) {
        let stored = get_all_parameters();
        let Some(stored) = stored.get(&parameter.path) else { continue };
        let text = difference(stored.var(), &first_value(tensors, &parameter.path)?, None);
        failures.extend(text.map(|text| format!("`{}` existed before the call, but {text}", parameter.path)));
    }
    let weight = dense(case)?;
    let expected = tensors.float("expect.weight")?;
    let given = if case.check == Check::Svd { "uv_init" } else { "oik_init" };
    let reproducible = case.args.contains_key(given) || !case.preset.is_empty();
    if reproducible && (case.check == Check::Svd || !case.preset.is_empty()) {
        let text = difference(&weight, &expected, Some(case.tolerance));
        failures.extend(text.map(|text| format!("the product of the factors {text}")));
    }
    if let (Some(recorded), Some(array)) = (case.relative_error, tensors.find(&format!("arg.{given}"))) {
        let error = distance(&weight, array);
        // The iteration may stop one step apart, so the factors need only be as good as NNabla's.
        if error.is_nan() || error > recorded * 1.01 + 1e-5 {
            failures.push(format!("relative error of the factors is {error:.3e}, NNabla's {recorded:.3e}"));
        }
    }
    Ok(failures)
}

/// Norm of the difference over the norm of `want`.
fn distance(got: &Tensor, want: &Tensor) -> f64 {
    let (got, want) = (values(got), values(want));
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(&want).map(|(a, b)| a - b)) / norm(&mut want.iter().copied())
}

/// The weight that the registered factors stand for.
fn dense(case: &Case) -> Result<Tensor, String> {
    let stored = get_all_parameters();
    let factor = |name: &str| {
        let found = stored.iter().find(|(path, _)| leaf(path) == name);
        found
            .map(|(_, parameter)| parameter.var().as_tensor().clone())
            .ok_or_else(|| format!("no factor `{name}`"))
    };
    let product = match case.function.as_str() {
        "svd_affine" => svd_affine(&factor("U")?, &factor("V")?),
        "svd_convolution" => {
            let rank = case.args.get("r").and_then(serde_json::Value::as_u64).unwrap_or(1) as usize;
            svd_convolution(&factor("U")?, &factor("V")?, rank)
        }
        _ => cpd(&factor("O")?, &factor("I")?, &factor("K")?),
    };
    product.map_err(|error| format!("the product of the factors: {error}"))
}

fn svd_affine(u: &Tensor, v: &Tensor) -> candle_core::Result<Tensor> {
    let shape = [&u.dims()[..1], &v.dims()[1..]].concat();
    u.matmul(&v.flatten_from(1)?)?.reshape(shape)
}

fn svd_convolution(u: &Tensor, v: &Tensor, rank: usize) -> candle_core::Result<Tensor> {
    let (outmaps, inmaps) = (v.dim(0)?, u.dim(0)? / rank);
    let shape = [&[outmaps, inmaps], &u.dims()[1..]].concat();
    // (outmaps, rank) x (rank, kernel) for every input map.
    let v = v.reshape((outmaps, inmaps, rank))?.transpose(0, 1)?.contiguous()?;
    v.matmul(&u.reshape((inmaps, rank, ()))?)?.transpose(0, 1)?.reshape(shape)
}

fn cpd(o: &Tensor, i: &Tensor, k: &Tensor) -> candle_core::Result<Tensor> {
    let (outmaps, inmaps, rank) = (o.dim(0)?, i.dim(1)?, k.dim(0)?);
    let shape = [&[outmaps, inmaps], &k.dims()[1..]].concat();
    let i = i.reshape((rank, inmaps))?.t()?.unsqueeze(0)?;
    let oi = o.reshape((outmaps, 1, rank))?.broadcast_mul(&i)?;
    oi.reshape(((), rank))?.matmul(&k.reshape((rank, ()))?)?.reshape(shape)
}
