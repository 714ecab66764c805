//! Products, convolutions and poolings.

use super::super::sizes::Size;
use super::graph::{Call, Written};
use crate::Result;
use crate::onnx::{self, Attribute, INT64};

pub(super) fn write(call: &mut Call<'_, '_>) -> Written {
    Ok(Some(vec![match call.kind() {
        "Affine" => affine(call)?,
        "BatchMatmul" => batch_matmul(call),
        "Embed" => {
            let (mut x, w) = (call.input(0), call.input(1));
            if call.flow(0).tensor.dtype().is_float() {
                x = call.cast(&x, INT64);
            }
            call.node("Gather", &[&w, &x], vec![onnx::int("axis", 0)])
        }
        "Convolution" => convolution(call, "Conv", Vec::new())?,
        "Deconvolution" => {
            let padding = onnx::ints("output_padding", call.integers("output_padding"));
            convolution(call, "ConvTranspose", vec![padding])?
        }
        "DeformableConvolution" => deformable_convolution(call),
        "MaxPooling" => pooling(call, |call, x, windows| {
            let Windows { kernel, stride, pad, more } = windows;
            call.node("MaxPool", &[x], attributes(kernel, stride, [pad.clone(), sum(pad, more)]))
        }),
        "AveragePooling" => pooling(call, average_pooling),
        "SumPooling" => pooling(call, |call, x, windows| {
            let Windows { kernel, stride, pad, more } = windows;
            let mut attributes = attributes(kernel, stride, [pad.clone(), sum(pad, more)]);
            attributes.push(onnx::int("count_include_pad", 1));
            let mean = call.node("AveragePool", &[x], attributes);
            call.with_number("Mul", &mean, kernel.iter().product::<i64>() as f64)
        }),
        "GlobalAveragePooling" => {
            let x = call.input(0);
            call.node("GlobalAveragePool", &[&x], Vec::new())
        }
        _ => return Ok(None),
    }]))
}

/// The axes from `base_axis` on are one; those of the weights behind the first, too.
fn affine(call: &mut Call<'_, '_>) -> Result<String> {
    let base_axis = usize::try_from(call.integer("base_axis")).unwrap_or_default();
    let mut x = call.input(0);
    let outputs: Vec<i64> = call.dims(1)[1..].iter().map(|&size| size as i64).collect();
    let inmaps = call.dims(1)[0] as i64;
    let leading = call.flow(0).sizes[..base_axis].to_vec();
    if base_axis + 1 != call.rank(0) {
        let sizes: Vec<Size> = leading.iter().copied().chain([inmaps]).collect();
        x = call.reshaped(&x, &sizes);
    }
    let mut w = call.weights((outputs.len() == 1).then_some(1))?;
    if let ([_], [_]) = (&outputs[..], &leading[..]) {
        let bias = call.bias(&w)?;
        let inputs: Vec<&str> = [&*x, &*w].into_iter().chain(bias.as_deref()).collect();
        return Ok(call.node("Gemm", &inputs, Vec::new()));
    }
    let bias = (call.n_inputs() > 2).then(|| call.input(2));
    let outmaps = outputs.iter().product();
    if outputs.len() != 1 {
        w = call.reshaped(&w, &[inmaps, outmaps]);
    }
    let mut y = call.node("MatMul", &[&x, &w], Vec::new());
    if let Some(mut bias) = bias {
        if outputs.len() != 1 {
            bias = call.reshaped(&bias, &[outmaps]);
        }
        y = call.node("Add", &[&y, &bias], Vec::new());
    }
    if outputs.len() != 1 {
        let sizes: Vec<Size> = leading.into_iter().chain(outputs).collect();
        y = call.reshaped(&y, &sizes);
    }
    Ok(y)
}

fn batch_matmul(call: &mut Call<'_, '_>) -> String {
    let inputs = [("transpose_a", 0), ("transpose_b", 1)].map(|(transposed, n)| {
        let x = call.input(n);
        if !call.flag(transposed) {
            return x;
        }
        let mut order: Vec<i64> = (0..call.rank(n) as i64).collect();
        let last = order.len() - 1;
        order.swap(last - 1, last);
        call.node("Transpose", &[&x], vec![onnx::ints("perm", order)])
    });
    call.node("MatMul", &[&inputs[0], &inputs[1]], Vec::new())
}

/// Some axes as one, whose size is open if one of theirs is.
fn batch(sizes: &[Size]) -> Size {
    if sizes.iter().all(|&size| size >= 0) { sizes.iter().product() } else { -1 }
}

/// ONNX has one axis before that of the channels; the others become that one.
fn with_one_batch_axis(
    call: &mut Call<'_, '_>,
    n_leading: usize,
    f: impl FnOnce(&mut Call<'_, '_>, &str) -> String,
) -> String {
    let x = call.input(0);
    if n_leading == 1 {
        return f(call, &x);
    }
    let sizes = &call.flow(0).sizes;
    let batch = batch(&sizes[..n_leading]);
    let sizes: Vec<Size> = std::iter::once(batch).chain(sizes[n_leading..].iter().copied()).collect();
    let x = call.reshaped(&x, &sizes);
    let y = f(call, &x);
    let sizes = call.result(0).sizes.clone();
    call.reshaped(&y, &sizes)
}

fn convolution(call: &mut Call<'_, '_>, op: &str, more: Vec<Attribute>) -> Result<String> {
    let base_axis = usize::try_from(call.integer("base_axis")).unwrap_or_default();
    let maps = match (op, call.integer("group")) {
        ("Conv", _) => Some(0),
        (_, 1) => Some(1),
        _ => None,
    };
    let w = call.weights(maps)?;
    let bias = call.bias(&w)?;
    Ok(with_one_batch_axis(call, base_axis, |call, x| {
        let inputs: Vec<&str> = [x, &*w].into_iter().chain(bias.as_deref()).collect();
        let kernel: Vec<i64> = call.dims(1)[2..].iter().map(|&size| size as i64).collect();
        let pad = call.integers("pad");
        let mut attributes = attributes(&kernel, &call.integers("stride"), [pad.clone(), pad]);
        attributes.push(onnx::ints("dilations", call.integers("dilation")));
        attributes.push(onnx::int("group", call.integer("group")));
        attributes.extend(more);
        call.node(op, &inputs, attributes)
    }))
}

/// The offsets of ONNX have the sizes of the output, ours those of the input, of which some are taken.
fn deformable_convolution(call: &mut Call<'_, '_>) -> String {
    let base_axis = usize::try_from(call.integer("base_axis")).unwrap_or_default();
    let (stride, outputs) = (call.integers("stride"), call.result(0).tensor.dims()[base_axis + 1..].to_vec());
    let ends: Vec<i64> = outputs.iter().zip(&stride).map(|(&n, by)| (n as i64 - 1) * by + 1).collect();
    // The mask has more axes than the bias.
    let has_mask = call.n_inputs() > 3 && call.rank(3) > 1;
    let taken = |call: &mut Call<'_, '_>, n: usize| {
        let mut x = call.input(n);
        if base_axis != 1 {
            let planes = call.flow(n).sizes[base_axis..].to_vec();
            let sizes: Vec<Size> =
                std::iter::once(batch(&call.flow(n).sizes[..base_axis])).chain(planes).collect();
            x = call.reshaped(&x, &sizes);
        }
        let lists = [vec![0; 2], ends.clone(), vec![2, 3], stride.clone()].map(|list| call.list(&list));
        let inputs: Vec<&str> = std::iter::once(&*x).chain(lists.iter().map(String::as_str)).collect();
        call.node("Slice", &inputs, Vec::new())
    };
    let offset = taken(call, 2);
    let mask = if has_mask { taken(call, 3) } else { String::new() };
    with_one_batch_axis(call, base_axis, |call, x| {
        let w = call.input(1);
        let bias_at = if has_mask { 4 } else { 3 };
        let bias = if call.n_inputs() > bias_at { call.input(bias_at) } else { String::new() };
        let kernel: Vec<i64> = call.dims(1)[2..].iter().map(|&size| size as i64).collect();
        let pad = call.integers("pad");
        let mut attributes = attributes(&kernel, &stride, [pad.clone(), pad]);
        attributes.push(onnx::ints("dilations", call.integers("dilation")));
        attributes.push(onnx::int("group", call.integer("group")));
        attributes.push(onnx::int("offset_group", call.integer("deformable_group")));
        call.node("DeformConv", &[x, &w, &offset, &bias, &mask], attributes)
    })
}

fn attributes(kernel: &[i64], stride: &[i64], [before, behind]: [Vec<i64>; 2]) -> Vec<Attribute> {
    vec![
        onnx::ints("kernel_shape", kernel.to_vec()),
        onnx::ints("strides", stride.to_vec()),
        onnx::ints("pads", [before, behind].concat()),
    ]
}

fn sum(a: &[i64], b: &[i64]) -> Vec<i64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// The windows of a pooling on the last axes.
struct Windows {
    kernel: Vec<i64>,
    stride: Vec<i64>,
    pad: Vec<i64>,
    /// How much more there is behind for the last window, which may be cut off.
    more: Vec<i64>,
}

fn pooling(call: &mut Call<'_, '_>, f: impl FnOnce(&mut Call<'_, '_>, &str, &Windows) -> String) -> String {
    let (kernel, stride, pad) = (call.integers("kernel"), call.integers("stride"), call.integers("pad"));
    let n = kernel.len();
    let last =
        |dims: &[usize]| -> Vec<i64> { dims[dims.len() - n..].iter().map(|&size| size as i64).collect() };
    let (inputs, outputs) = (last(call.dims(0)), last(call.result(0).tensor.dims()));
    let more = |i: usize| ((outputs[i] - 1) * stride[i] + kernel[i] - inputs[i] - 2 * pad[i]).max(0);
    let windows = Windows { more: (0..n).map(more).collect(), kernel, stride, pad };
    let n_leading = call.rank(0) - n;
    // The axis of the channels may be any.
    if n_leading == 1 {
        let x = call.input(0);
        let axes = call.list(&[0]);
        let x = call.node("Unsqueeze", &[&x, &axes], Vec::new());
        let y = f(call, &x, &windows);
        return call.node("Squeeze", &[&y, &axes], Vec::new());
    }
    with_one_batch_axis(call, n_leading.saturating_sub(1), |call, x| f(call, x, &windows))
}

fn average_pooling(call: &mut Call<'_, '_>, x: &str, windows: &Windows) -> String {
    let Windows { kernel, stride, pad, more } = windows;
    let including_pad = call.flag("including_pad");
    let is_cut = more.iter().any(|&more| more > 0);
    if !including_pad || !is_cut {
        let mut attributes = attributes(kernel, stride, [pad.clone(), sum(pad, more)]);
        attributes.push(onnx::int("count_include_pad", i64::from(including_pad)));
        return call.node("AveragePool", &[x], attributes);
    }
    // The padding counts, what is behind it does not.
    let none = vec![0; 2];
    let pads = call.list(&[&none[..], pad, &none, pad].concat());
    let x = call.node("Pad", &[x, &pads], Vec::new());
    let mut attributes = attributes(kernel, stride, [vec![0; pad.len()], more.clone()]);
    attributes.push(onnx::int("count_include_pad", 0));
    call.node("AveragePool", &[&x], attributes)
}
