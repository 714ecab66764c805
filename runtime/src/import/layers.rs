//! Products, convolutions, poolings and embeddings.

use candle_core::Tensor;

use super::call::{Call, Function, of_kind, of_rank, one, shaped};
use super::maps::{broadcast, expanded};
use crate::functions::{self, ConvGeometry, DeconvGeometry, PadMode};
use crate::{Error, PerAxis, Result, check};

pub(super) static OPS: &[(&str, Function)] = &[
    ("AveragePool", average_pool),
    ("Conv", conv),
    ("ConvTranspose", conv_transpose),
    ("DeformConv", deform_conv),
    ("Gemm", gemm),
    ("GlobalAveragePool", |call| one(functions::global_average_pooling(call.input(0)?)?)),
    ("GlobalMaxPool", |call| {
        let x = call.input(0)?;
        one(functions::max(x, (2..x.rank()).collect::<Vec<_>>(), true)?)
    }),
    ("MatMul", |call| one(matmul(&of_kind(call.input(0)?, false)?, &of_kind(call.input(1)?, false)?)?)),
    ("MaxPool", max_pool),
];

fn gemm(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let turned = |x: &Tensor, flag: &str| match call.int(flag, 0) {
        0 => Ok(x.clone()),
        _ => functions::transpose(x, [1, 0]),
    };
    let (mut a, b) = (turned(call.input(0)?, "transA")?, turned(call.input(1)?, "transB")?);
    let alpha = call.float("alpha", 1.0);
    if alpha != 1.0 {
        a = functions::mul_scalar(&a, alpha)?;
    }
    let Some(c) = call.get(2) else { return one(functions::affine(&a, &b, None, 1)?) };
    let beta = call.float("beta", 1.0);
    let c = if beta == 1.0 { c.clone() } else { functions::mul_scalar(c, beta)? };
    one(match b.dims().get(1..) {
        Some(outmaps) if c.dims() == outmaps => functions::affine(&a, &b, Some(&c), 1)?,
        _ => broadcast(&functions::affine(&a, &b, None, 1)?, &c, functions::add2)?,
    })
}

/// Products of the last two axes; those in front are repeated to one shape.
fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.rank() == 0 || b.rank() == 0 {
        return Err(Error::invalid("input", "must have at least one axis", (a.dims(), b.dims())));
    }
    if b.rank() == 2 && a.rank() >= 2 {
        return functions::affine(a, b, None, a.rank() - 1);
    }
    let rows = if a.rank() == 1 { of_rank(a, 2)? } else { a.clone() };
    let columns = if b.rank() == 1 { shaped(b, &[b.dims()[0], 1])? } else { b.clone() };
    let rank = rows.rank().max(columns.rank());
    let (rows, columns) = (of_rank(&rows, rank)?, of_rank(&columns, rank)?);
    let mut batch = Vec::new();
    for (&m, &n) in rows.dims()[..rank - 2].iter().zip(&columns.dims()[..rank - 2]) {
        if m != n && m != 1 && n != 1 {
            return Err(Error::invalid(
                "input",
                "must have batches that can be repeated to one",
                (a.dims(), b.dims()),
            ));
        }
        batch.push(if m == 1 { n } else { m });
    }
    let whole = |x: &Tensor| expanded(x, &[&batch[..], &x.dims()[rank - 2..]].concat());
    let y = functions::batch_matmul(&whole(&rows)?, &whole(&columns)?, false, false)?;
    let mut dims = y.dims().to_vec();
    if b.rank() == 1 {
        dims.pop();
    }
    if a.rank() == 1 {
        dims.remove(rank - 2);
    }
    shaped(&y, &dims)
}

/// The padding before and behind each of `n` spatial axes.
fn pads(call: &Call<'_>, sizes: &[usize], kernel: &[usize], stride: &[usize]) -> Result<Vec<[usize; 2]>> {
    let n = kernel.len();
    let same = |from_end: bool| {
        (0..n).map(move |i| {
            let outputs = sizes[i].div_ceil(stride[i].max(1));
            let reach = (outputs.max(1) - 1).saturating_mul(stride[i]).saturating_add(kernel[i]);
            let all = reach.saturating_sub(sizes[i]);
            if from_end { [all / 2, all - all / 2] } else { [all - all / 2, all / 2] }
        })
    };
    match call.text("auto_pad") {
        "" | "NOTSET" => {}
        "VALID" => return Ok(vec![[0, 0]; n]),
        "SAME_UPPER" => return Ok(same(true).collect()),
        "SAME_LOWER" => return Ok(same(false).collect()),
        _ => return Err(call.unsupported("auto_pad", "must be NOTSET, VALID, SAME_UPPER or SAME_LOWER")),
    }
    let Some(pads) = call.counts("pads")? else { return Ok(vec![[0, 0]; n]) };
    if pads.len() != 2 * n {
        return Err(Error::invalid(
            "pads",
            format!("must have {} numbers, two for each spatial axis", 2 * n),
            pads,
        ));
    }
    Ok((0..n).map(|i| [pads[i], pads[n + i]]).collect())
}

/// The input with what its padding has more on one side than on the other, and the padding of both sides.
fn evened(x: &Tensor, pads: &[[usize; 2]], value: f64) -> Result<(Tensor, PerAxis)> {
    let both: Vec<usize> = pads.iter().map(|pad| pad[0].min(pad[1])).collect();
    if pads.iter().all(|pad| pad[0] == pad[1]) {
        return Ok((x.clone(), PerAxis::Each(both)));
    }
    let widths: Vec<usize> = pads.iter().flatten().copied().collect();
    let x = functions::pad(x, &widths, PadMode::Constant, value)?;
    Ok((x, PerAxis::Each(vec![0; pads.len()])))
}

/// The number of spatial axes, and the kernel of the weights.
fn kernel(w: &Tensor) -> Result<Vec<usize>> {
    match w.dims() {
        [_, _, kernel @ ..] if !kernel.is_empty() => Ok(kernel.to_vec()),
        dims => Err(Error::invalid("W", "must have at least three axes", dims)),
    }
}

fn spatial(x: &Tensor, n: usize) -> Result<&[usize]> {
    match x.dims().get(2..) {
        Some(sizes) if sizes.len() == n => Ok(sizes),
        _ => Err(Error::invalid("X", format!("must have {n} spatial axes behind two others"), x.dims())),
    }
}

fn numbers(values: &PerAxis, n: usize) -> Result<Vec<usize>> {
    values.resolve("strides", n)
}

/// The padded input, the kernel and where its windows lie.
fn windows(call: &Call<'_>, x: &Tensor, w: &Tensor) -> Result<(Tensor, ConvGeometry)> {
    let kernel = kernel(w)?;
    let n = kernel.len();
    let (stride, dilation) = (call.per_axis("strides", n, 1)?, call.per_axis("dilations", n, 1)?);
    let reach: Vec<usize> = numbers(&dilation, n)?
        .iter()
        .zip(&kernel)
        .map(|(by, size)| by.saturating_mul(size.saturating_sub(1)).saturating_add(1))
        .collect();
    let (x, pad) = evened(x, &pads(call, spatial(x, n)?, &reach, &numbers(&stride, n)?)?, 0.0)?;
    let group = super::call::counts("group", &[call.int("group", 1)])?[0];
    let geometry = ConvGeometry::new(x.dims(), &PerAxis::Each(kernel), &pad, &stride, &dilation, group, 1)?;
    Ok((x, geometry))
}

fn conv(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (x, geometry) = windows(call, x, w)?;
    one(functions::convolution(&x, w, call.get(2), &geometry)?)
}

/// The offsets of ONNX have the sizes of the output; ours have those of the input, and are taken in steps of the stride.
fn deform_conv(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (x, geometry) = windows(call, x, w)?;
    let groups = super::call::counts("offset_group", &[call.int("offset_group", 1)])?[0];
    let (sizes, stride) = (spatial(&x, 2)?, PerAxis::Each(geometry.stride().to_vec()));
    let apart = |offset: &Tensor| {
        spatial(offset, 2)?;
        let apart = match geometry.stride().iter().all(|&by| by == 1) {
            true => offset.clone(),
            false => functions::unpooling(offset, &stride, false)?,
        };
        let found = &apart.dims()[2..];
        let stop: Vec<_> = sizes.iter().map(|&size| Some(size as isize)).collect();
        let cut = functions::slice(&apart, &[Some(0), Some(0)], &stop, &[])?;
        let missing: Vec<usize> =
            sizes.iter().zip(found).flat_map(|(size, found)| [0, size.saturating_sub(*found)]).collect();
        functions::pad(&cut, &missing, PadMode::Constant, 0.0)
    };
    let offset = apart(call.input(2)?)?;
    let mask = call.get(4).map(apart).transpose()?;
    one(functions::deformable_convolution(&x, w, call.get(3), &offset, mask.as_ref(), &geometry, groups)?)
}

fn conv_transpose(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let kernel = kernel(w)?;
    let n = kernel.len();
    spatial(x, n)?;
    if call.has("output_shape") || !matches!(call.text("auto_pad"), "" | "NOTSET" | "VALID") {
        return Err(call.unsupported("output_shape", "must be said by `pads` and `output_padding`"));
    }
    let pads = pads(call, &x.dims()[2..], &kernel, &vec![1; n])?;
    let (stride, dilation) = (call.per_axis("strides", n, 1)?, call.per_axis("dilations", n, 1)?);
    let group = super::call::counts("group", &[call.int("group", 1)])?[0];
    let both = PerAxis::Each(pads.iter().map(|pad| pad[0].min(pad[1])).collect());
    let geometry =
        DeconvGeometry::new(x.dims(), &PerAxis::Each(kernel), &both, &stride, &dilation, group, 1)?;
    let geometry = geometry.with_output_padding(&call.per_axis("output_padding", n, 0)?)?;
    let y = functions::deconvolution(x, w, call.get(2), &geometry)?;
    // What is padded on one side only is cut off.
    if pads.iter().all(|pad| pad[0] == pad[1]) {
        return one(y);
    }
    let start: Vec<_> = pads.iter().map(|pad| Some((pad[0] - pad[0].min(pad[1])) as isize)).collect();
    let stop: Vec<_> = pads
        .iter()
        .zip(&y.dims()[2..])
        .map(|(pad, &size)| Some(size.saturating_sub(pad[1] - pad[0].min(pad[1])) as isize))
        .collect();
    one(functions::slice(&y, &start, &stop, &[])?)
}

/// The windows of a pooling.
struct Windows {
    kernel: PerAxis,
    stride: PerAxis,
    pads: Vec<[usize; 2]>,
    /// The padding without what `ceil_mode` adds for the last window.
    given: Vec<[usize; 2]>,
    /// How many there are on each axis.
    outputs: Vec<usize>,
    ceil: bool,
}

impl Windows {
    fn new(call: &Call<'_>, x: &Tensor) -> Result<Self> {
        let kernel = call.counts("kernel_shape")?.unwrap_or_default();
        let n = kernel.len();
        let sizes = spatial(x, n)?;
        if call.ints("dilations").is_some_and(|dilations| dilations.iter().any(|&by| by != 1)) {
            return Err(call.unsupported("dilations", "must be 1 for a pooling"));
        }
        let stride = numbers(&call.per_axis("strides", n, 1)?, n)?;
        if kernel.contains(&0) || stride.contains(&0) {
            return Err(Error::invalid("kernel_shape", "and `strides` must be above 0", kernel));
        }
        let mut pads = pads(call, sizes, &kernel, &stride)?;
        let (given, ceil) = (pads.clone(), call.int("ceil_mode", 0) != 0);
        let mut outputs = Vec::with_capacity(n);
        for i in 0..n {
            let padded = sizes[i].saturating_add(pads[i][0]).saturating_add(pads[i][1]);
            let Some(slack) = padded.checked_sub(kernel[i]) else {
                return Err(Error::invalid(
                    "kernel_shape",
                    format!("must fit the {padded} elements there are"),
                    kernel,
                ));
            };
            let mut count = slack / stride[i] + 1;
            // The last window must begin in the input or in the padding before it.
            let begins_inside = count.saturating_mul(stride[i]) < sizes[i].saturating_add(pads[i][0]);
            if ceil && !slack.is_multiple_of(stride[i]) && begins_inside {
                count += 1;
                pads[i][1] = pads[i][1].saturating_add(stride[i] - slack % stride[i]);
            }
            outputs.push(count);
        }
        Ok(Self { kernel: kernel.into(), stride: stride.into(), pads, given, outputs, ceil })
    }
}

fn max_pool(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let Windows { kernel, stride, pads, outputs, .. } = Windows::new(call, x)?;
    let (x, pad) = evened(x, &pads, f64::from(f32::MIN))?;
    let y = functions::max_pooling(&x, &kernel, Some(&stride), true, &pad, false)?;
    debug_assert_eq!(y.dims()[2..], outputs, "windows are counted alike");
    one(y)
}

fn average_pool(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let windows = Windows::new(call, x)?;
    let Windows { kernel, stride, pads, .. } = &windows;
    let including_pad = call.int("count_include_pad", 0) != 0;
    let is_even = pads.iter().all(|pad| pad[0] == pad[1]);
    if is_even && !windows.ceil {
        let pad = PerAxis::Each(pads.iter().map(|pad| pad[0]).collect());
        return one(functions::average_pooling(x, kernel, Some(stride), true, &pad, false, including_pad)?);
    }
    // The sum of each window by the number of elements that count.
    let widths: Vec<usize> = pads.iter().flatten().copied().collect();
    let summed =
        |x: &Tensor| functions::sum_pooling(x, kernel, Some(stride), true, &PerAxis::Every(0), false);
    let sum = summed(&functions::pad(x, &widths, PadMode::Constant, 0.0)?)?;
    let counted: (Vec<usize>, Vec<usize>) = match including_pad {
        true => {
            let padded =
                |(size, pad): (&usize, &[usize; 2])| size.saturating_add(pad[0]).saturating_add(pad[1]);
            let more = pads.iter().zip(&windows.given).flat_map(|(pad, given)| [0, pad[1] - given[1]]);
            (x.dims()[2..].iter().zip(&windows.given).map(padded).collect(), more.collect())
        }
        false => (x.dims()[2..].to_vec(), widths),
    };
    let dims = [&[1, 1], &counted.0[..]].concat();
    check::tensor("pads", &dims, x.dtype())?;
    let ones = Tensor::ones(dims, x.dtype(), x.device())?;
    let counts = summed(&functions::pad(&ones, &counted.1, PadMode::Constant, 0.0)?)?;
    one(functions::div2(&sum, &counts)?)
}
