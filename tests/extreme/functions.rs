//! Every function.

use candle_core::{DType, Device, Tensor};
use layerfn::__private::dropout;
use layerfn::functions::{self as f, Transform};
use layerfn::{Axis, ParameterStore, Result, Rng};

use crate::Call;

/// A line a function: `name(argument: how it is drawn, ..) => its results`.
macro_rules! calls {
    ($($name:ident($($argument:ident: $kind:ident),* $(,)?) => $results:expr;)*) => {
        pub(crate) const CALLS: &[(&str, Call)] = &[$((stringify!($name), |draw| {
            $(let $argument = draw.$kind();)*
            draw.go();
            let results = || -> Result<_> { Ok($results) };
            Ok(Vec::from(results()?))
        })),*];
    };
}
pub(crate) use calls;

calls! {
    relu(x: tensor) => [f::relu(&x)?];
    leaky_relu(x: tensor, alpha: number) => [f::leaky_relu(&x, alpha)?];
    elu(x: tensor, alpha: number) => [f::elu(&x, alpha)?];
    selu(x: tensor) => [f::selu(&x)?];
    gelu(x: tensor) => [f::gelu(&x)?];
    silu(x: tensor) => [f::silu(&x)?];
    sigmoid(x: tensor) => [f::sigmoid(&x)?];
    hard_sigmoid(x: tensor) => [f::hard_sigmoid(&x)?];
    tanh(x: tensor) => [f::tanh(&x)?];
    softplus(x: tensor) => [f::softplus(&x)?];
    relu6(x: tensor) => [f::relu6(&x)?];
    selu_with(x: tensor, scale: number, alpha: number) => [f::selu_with(&x, scale, alpha)?];
    gelu_exact(x: tensor) => [f::gelu_exact(&x)?];
    mish(x: tensor) => [f::mish(&x)?];
    softplus_with(x: tensor, beta: number) => [f::softplus_with(&x, beta)?];
    softsign(x: tensor) => [f::softsign(&x)?];
    log_sigmoid(x: tensor) => [f::log_sigmoid(&x)?];
    tanh_shrink(x: tensor) => [f::tanh_shrink(&x)?];
    hard_tanh(x: tensor) => [f::hard_tanh(&x)?];
    identity(x: tensor) => [f::identity(&x)?];
    abs(x: tensor) => [f::abs(&x)?];
    exp(x: tensor) => [f::exp(&x)?];
    log(x: tensor) => [f::log(&x)?];
    sin(x: tensor) => [f::sin(&x)?];
    cos(x: tensor) => [f::cos(&x)?];
    tan(x: tensor) => [f::tan(&x)?];
    sinc(x: tensor) => [f::sinc(&x)?];
    asin(x: tensor) => [f::asin(&x)?];
    acos(x: tensor) => [f::acos(&x)?];
    atan(x: tensor) => [f::atan(&x)?];
    sinh(x: tensor) => [f::sinh(&x)?];
    cosh(x: tensor) => [f::cosh(&x)?];
    asinh(x: tensor) => [f::asinh(&x)?];
    acosh(x: tensor) => [f::acosh(&x)?];
    atanh(x: tensor) => [f::atanh(&x)?];
    erf(x: tensor) => [f::erf(&x)?];
    add2(x: tensor, y: same) => [f::add2(&x, &y)?];
    sub2(x: tensor, y: same) => [f::sub2(&x, &y)?];
    mul2(x: tensor, y: same) => [f::mul2(&x, &y)?];
    div2(x: tensor, y: same) => [f::div2(&x, &y)?];
    pow2(x: tensor, y: same) => [f::pow2(&x, &y)?];
    atan2(x: tensor, y: same) => [f::atan2(&x, &y)?];
    maximum2(x: tensor, y: same) => [f::maximum2(&x, &y)?];
    minimum2(x: tensor, y: same) => [f::minimum2(&x, &y)?];
    add_scalar(x: tensor, val: number) => [f::add_scalar(&x, val)?];
    mul_scalar(x: tensor, val: number) => [f::mul_scalar(&x, val)?];
    pow_scalar(x: tensor, val: number) => [f::pow_scalar(&x, val)?];
    r_sub_scalar(x: tensor, val: number) => [f::r_sub_scalar(&x, val)?];
    r_div_scalar(x: tensor, val: number) => [f::r_div_scalar(&x, val)?];
    r_pow_scalar(x: tensor, val: number) => [f::r_pow_scalar(&x, val)?];
    maximum_scalar(x: tensor, val: number) => [f::maximum_scalar(&x, val)?];
    minimum_scalar(x: tensor, val: number) => [f::minimum_scalar(&x, val)?];
    reset_nan(x: tensor, val: number) => [f::reset_nan(&x, val)?];
    reset_inf(x: tensor, val: number) => [f::reset_inf(&x, val)?];
    absolute_error(x: tensor, y: same) => [f::absolute_error(&x, &y)?];
    huber_loss(x: tensor, y: same, delta: number) => [f::huber_loss(&x, &y, delta)?];
    epsilon_insensitive_loss(x: tensor, y: same, epsilon: number) => [f::epsilon_insensitive_loss(&x, &y, epsilon)?];
    binary_sigmoid(x: tensor) => [f::binary_sigmoid(&x)?];
    binary_tanh(x: tensor) => [f::binary_tanh(&x)?];
    round(x: tensor) => [f::round(&x)?];
    ceil(x: tensor) => [f::ceil(&x)?];
    floor(x: tensor) => [f::floor(&x)?];
    sign(x: tensor, alpha: number) => [f::sign(&x, alpha)?];
    equal(x: tensor, y: same) => [f::equal(&x, &y)?];
    not_equal(x: tensor, y: same) => [f::not_equal(&x, &y)?];
    greater(x: tensor, y: same) => [f::greater(&x, &y)?];
    greater_equal(x: tensor, y: same) => [f::greater_equal(&x, &y)?];
    less(x: tensor, y: same) => [f::less(&x, &y)?];
    less_equal(x: tensor, y: same) => [f::less_equal(&x, &y)?];
    logical_and(x: tensor, y: same) => [f::logical_and(&x, &y)?];
    logical_or(x: tensor, y: same) => [f::logical_or(&x, &y)?];
    logical_xor(x: tensor, y: same) => [f::logical_xor(&x, &y)?];
    equal_scalar(x: tensor, val: number) => [f::equal_scalar(&x, val)?];
    not_equal_scalar(x: tensor, val: number) => [f::not_equal_scalar(&x, val)?];
    greater_scalar(x: tensor, val: number) => [f::greater_scalar(&x, val)?];
    greater_equal_scalar(x: tensor, val: number) => [f::greater_equal_scalar(&x, val)?];
    less_scalar(x: tensor, val: number) => [f::less_scalar(&x, val)?];
    less_equal_scalar(x: tensor, val: number) => [f::less_equal_scalar(&x, val)?];
    logical_not(x: tensor) => [f::logical_not(&x)?];
    isnan(x: tensor) => [f::isnan(&x)?];
    isinf(x: tensor) => [f::isinf(&x)?];
    clip_by_value(x: tensor, min: number, max: same) => [f::clip_by_value(&x, min, &max)?];
    clip_grad_by_value(x: tensor, min: same, max: number) => [f::clip_grad_by_value(&x, &min, max)?];
    Limit(x: matrix, min: tensor) => [f::clip_by_value(&x, f::Limit::Tensor(min), f::Limit::Number(1.0))?];
    clip_by_norm(x: tensor, norm: number, axes: axes) => [f::clip_by_norm(&x, norm, &axes[..])?];
    clip_grad_by_norm(x: tensor, norm: number, axes: axes) => [f::clip_grad_by_norm(&x, norm, &axes[..])?];
    crelu(x: tensor, axis: size) => [f::crelu(&x, axis)?];
    celu(x: tensor, alpha: number, axis: size) => [f::celu(&x, alpha, axis)?];
    add_n(x: tensor, y: same, z: same) => [f::add_n(&[&x, &y, &z])?];
    categorical_cross_entropy(x: tensor, labels: same, axis: size) => {
        [f::categorical_cross_entropy(&x, &labels, axis)?]
    };
    kl_multinomial(p: tensor, q: same, axis: size) => [f::kl_multinomial(&p, &q, axis)?];
    where_cond(condition: tensor, x: same, y: same) => [f::where_cond(&condition, &x, &y)?];
    binary_cross_entropy(x: tensor, target: same) => [f::binary_cross_entropy(&x, &target)?];
    binary_error(x: tensor, target: same) => [f::binary_error(&x, &target)?];
    Rng(dims: dims, p: rate, n: size) => {
        let rng = Rng::new(1);
        [rng.rand(&dims)?, rng.randn(&dims)?, rng.bernoulli(p, dims)?, rng.permutation(n)?]
    };
    softmax(x: tensor, axis: size) => [f::softmax(&x, axis)?];
    log_softmax(x: tensor, axis: size) => [f::log_softmax(&x, axis)?];
    prelu(x: tensor, slope: tensor, axis: size) => [f::prelu(&x, &slope, axis)?];
    dropout(x: tensor, p: rate) => {
        let y = dropout(&x, p, &mut || 7)?;
        [layerfn::dropout(&x).p(p).rng(Rng::new(1)).call()?, y]
    };
    scaled_dot_product_attention(x: tensor, k: same, v: same, mask: tensor, hidden: tensor, causal: flag, scale: number, masks: flag) => {
        let masks = [masks.then_some(&mask), masks.then_some(&hidden)];
        let scaled = f::scaled_dot_product_attention(&x, &k, &v, masks[0], masks[1], causal, Some(scale))?;
        [f::scaled_dot_product_attention(&x, &k, &v, masks[1], masks[0], causal, None)?, scaled]
    };
    affine(x: tensor, w: matrix, b: tensor, axis: size, bias: flag) => [f::affine(&x, &w, bias.then_some(&b), axis)?];
    convolution(x: image, kernel: window, pad: window, stride: window, dilation: window, group: window, axis: size) => {
        let (group, axis) = (group.resolve("group", 1)?[0], axis.min(8));
        let geometry = f::ConvGeometry::new(x.dims(), &kernel, &pad, &stride, &dilation, group, axis)?;
        let outmaps = 2 * group;
        geometry.check_outmaps(outmaps)?;
        let w = weights(&[&[outmaps, geometry.inmaps() / group], geometry.kernel()].concat())?;
        [f::convolution(&x, &w, None, &geometry)?]
    };
    deformable_convolution(x: picture, kernel: window, pad: window, stride: window, group: window, axis: size, deformable: size, masked: flag, fits: flag) => {
        let (group, axis) = (group.resolve("group", 1)?[0], if fits { 1 } else { axis.min(8) });
        let geometry = f::ConvGeometry::new(x.dims(), &kernel, &pad, &stride, &1.into(), group, axis)?;
        geometry.check_outmaps(group)?;
        let w = weights(&[&[group, geometry.inmaps() / group], geometry.kernel()].concat())?;
        let taps = geometry.kernel().iter().fold(deformable, |n, &size| n.saturating_mul(size));
        let planes = |n: usize| weights(&[geometry.batch_dims(), &[taps.saturating_mul(n)], &x.dims()[axis + 1..]].concat());
        let (offset, mask) = (planes(2)?.affine(0.7, 0.0)?, planes(1)?);
        [f::deformable_convolution(&x, &w, None, &offset, masked.then_some(&mask), &geometry, deformable)?]
    };
    deconvolution(
        x: image, kernel: window, pad: window, stride: window, dilation: window, group: window, axis: size, more: window,
    ) => {
        let (group, axis) = (group.resolve("group", 1)?[0], axis.min(8));
        let geometry = f::DeconvGeometry::new(x.dims(), &kernel, &pad, &stride, &dilation, group, axis)?;
        geometry.check_outmaps(group)?;
        let w = weights(&[&[geometry.inmaps(), 1], geometry.kernel()].concat())?;
        let y = f::deconvolution(&x, &w, None, &geometry)?;
        [f::deconvolution(&x, &w, None, &geometry.with_output_padding(&more)?)?, y]
    };
    ConvGeometry(dims: dims, kernel: per_axis, pad: per_axis, stride: per_axis, group: size, axis: size, outmaps: size) => {
        let geometry = f::ConvGeometry::new(&dims, &kernel, &pad, &stride, &pad, group, axis)?;
        geometry.check_outmaps(outmaps)?;
        let _ = geometry.output_dims(outmaps);
        f::ConvGeometry::depthwise(&dims, &kernel, &pad, &stride, &stride, axis)?;
        f::ConvGeometry::pointwise(&dims, axis)?;
        []
    };
    DeconvGeometry(dims: dims, kernel: per_axis, pad: per_axis, stride: per_axis, group: size, axis: size, outmaps: size) => {
        let geometry = f::DeconvGeometry::new(&dims, &kernel, &pad, &stride, &stride, group, axis)?;
        geometry.check_outmaps(outmaps)?;
        let _ = geometry.output_dims(outmaps);
        f::DeconvGeometry::depthwise(&dims, group, &kernel, &pad, &stride, &stride, axis)?;
        []
    };
    channels_first(dims: dims, last: flag, axis: size) => {
        let _ = f::channels_first(&dims, last, axis);
        []
    };
    add_position_embedding(x: tensor, w: matrix, axis: size) => [f::add_position_embedding(&x, &w, axis)?];
    rotary_position_embedding(x: tensor, axis: size, base: number) => [f::rotary_position_embedding(&x, axis, base)?];
    embed(x: tensor, w: matrix) => [f::embed(&x, &w)?];
    check_rank(r: size, limit: size) => {
        f::check_rank(r, limit)?;
        []
    };
    svd_factors(w: matrix, r: size) => <[Tensor; 2]>::from(f::svd_factors(&w, r)?);
    svd_factors_by_map(w: image, r: size) => <[Tensor; 2]>::from(f::svd_factors_by_map(&w, r)?);
    cpd3_factors(w: image, r: size, max_iter: size, stop: number, lambda: number) => {
        let options = f::Cpd3Options { r, max_iter, stopping_criterion: stop, lambda_reg: lambda };
        f::cpd3_factors(&w, &options, &Rng::new(1))?
    };
    Cpd3Options(r: size, max_iter: size, stop: rate, lambda: rate) => {
        let options = f::Cpd3Options { r, max_iter, stopping_criterion: stop, lambda_reg: lambda };
        f::cpd3_factors(&weights(&[2, 3, 2])?, &options, &Rng::new(1))?
    };
    Inq(w: tensor, i: same, last: same, count: tensor, bits: size, schedule: counts, seed: int, random: flag) => {
        let algorithm = if random { f::SelectionAlgorithm::Random } else { f::SelectionAlgorithm::LargestAbs };
        let inq = f::Inq { num_bits: bits, inq_iterations: schedule, selection_algorithm: algorithm, seed };
        let step = inq.step(&w, &i, &last, &count, &Rng::new(1))?;
        [step.w, step.i, step.count]
    };
    InqStep(byte: size, draws: size, schedule: counts, seed: int) => {
        let mut bytes = [byte as u64, draws as u64].map(u64::to_le_bytes).concat();
        bytes.truncate(f::Inq::STATE);
        let count = Tensor::from_iter(bytes.into_iter().map(f32::from), &Device::Cpu)?;
        let w = weights(&[2])?;
        let inq = f::Inq {
            num_bits: 4, inq_iterations: schedule, selection_algorithm: f::SelectionAlgorithm::Random, seed,
        };
        let step = inq.step(&w, &w, &w, &count, &Rng::new(1))?;
        [step.w, step.i, step.count]
    };
    SelectionAlgorithm(name: text) => {
        name.parse::<f::SelectionAlgorithm>()?;
        []
    };
    softmax_cross_entropy(x: tensor, labels: same, axis: size) => [f::softmax_cross_entropy(&x, &labels, axis)?];
    mean_softmax_cross_entropy(x: matrix, axis: size) => {
        let mut labels = x.dims().to_vec();
        if axis < labels.len() {
            labels.remove(axis);
        }
        let labels = Tensor::zeros(1, DType::I64, &Device::Cpu)?.broadcast_as(labels)?;
        [f::mean_softmax_cross_entropy(&x, &labels, axis)?]
    };
    squared_error(x: tensor, target: same) => [f::squared_error(&x, &target)?];
    mean_squared_error(x: tensor, target: same) => [f::mean_squared_error(&x, &target)?];
    sigmoid_cross_entropy(x: tensor, target: same) => [f::sigmoid_cross_entropy(&x, &target)?];
    lstm_cell(x: matrix, h: matrix, c: same, w: tensor, b: tensor) => <[Tensor; 2]>::from(f::lstm_cell(&x, &h, &c, &w, &b)?);
    gru_cell(x: matrix, h: matrix, w: tensor, b: tensor, bias: flag) => [f::gru_cell(&x, &h, &w, bias.then_some(&b))?];
    rnn(x: sequence, h: states, w: tensor, b: tensor, bias: flag, p: rate, name: text, fits: flag) => {
        let own = [weights(&fitting(&x, &h, 1))?, weights(&upper(&h, 1))?];
        let [w0, upper] = if fits { [&own[0], &own[1]] } else { [&w, &w] };
        let name = name.parse().unwrap_or(f::Nonlinearity::Tanh);
        <[Tensor; 2]>::from(f::rnn(&x, &h, w0, Some(upper), bias.then_some(&b), name, p, &Rng::new(1))?)
    };
    gru(x: sequence, h: states, w: tensor, b: tensor, bias: flag, p: rate, fits: flag) => {
        let own = [weights(&fitting(&x, &h, 3))?, weights(&upper(&h, 3))?];
        let [w0, upper] = if fits { [&own[0], &own[1]] } else { [&w, &w] };
        <[Tensor; 2]>::from(f::gru(&x, &h, w0, Some(upper), bias.then_some(&b), p, &Rng::new(1))?)
    };
    lstm(x: sequence, h: states, c: same, w: tensor, b: tensor, bias: flag, p: rate, fits: flag) => {
        let own = [weights(&fitting(&x, &h, 4))?, weights(&upper(&h, 4))?];
        let [w0, upper] = if fits { [&own[0], &own[1]] } else { [&w, &w] };
        <[Tensor; 3]>::from(f::lstm(&x, &h, &c, w0, Some(upper), bias.then_some(&b), p, &Rng::new(1))?)
    };
    Nonlinearity(name: text) => {
        name.parse::<f::Nonlinearity>()?;
        []
    };
    batch_normalization(x: tensor, beta: same, gamma: same, axes: axes, eps: rate) => {
        <[Tensor; 3]>::from(f::batch_normalization(&x, &beta, &gamma, &axes, eps)?)
    };
    batch_normalization_by(x: tensor, beta: same, mean: same, axes: axes, eps: rate) => {
        [f::batch_normalization_by(&x, &beta, &beta, &mean, &mean, &axes, eps)?]
    };
    layer_normalization(x: tensor, beta: same, with: flag, axes: axes, eps: rate) => {
        let (beta, gamma) = (with.then_some(&beta), (!with).then_some(&beta));
        <[Tensor; 3]>::from(f::layer_normalization(&x, beta, gamma, &axes, eps)?)
    };
    group_normalization(x: tensor, beta: same, with: flag, groups: size, axis: size, axes: axes, eps: rate) => {
        <[Tensor; 3]>::from(f::group_normalization(&x, with.then_some(&beta), None, groups, axis, &axes, eps)?)
    };
    instance_normalization(x: tensor, gamma: same, with: flag, axis: size, axes: axes, eps: rate) => {
        <[Tensor; 3]>::from(f::instance_normalization(&x, None, with.then_some(&gamma), axis, &axes, eps)?)
    };
    rms_normalization(x: tensor, gamma: same, with: flag, axes: axes, eps: rate) => {
        [f::rms_normalization(&x, with.then_some(&gamma), &axes, eps)?]
    };
    subtract_mean(x: tensor, mean: same, factor: number) => [f::subtract_mean(&x, &mean, factor)?];
    max_pooling(x: image, kernel: window, stride: window, pad: window, whole: flag, last: flag) => {
        let y = f::max_pooling(&x, &kernel, Some(&stride), whole, &pad, last)?;
        [layerfn::max_pooling(&x, kernel).call()?, y]
    };
    average_pooling(x: image, kernel: window, stride: window, pad: window, whole: flag, last: flag, counts: flag) => {
        let y = f::average_pooling(&x, &kernel, Some(&stride), whole, &pad, last, counts)?;
        [layerfn::average_pooling(&x, kernel).call()?, y]
    };
    sum_pooling(x: image, kernel: window, stride: window, pad: window, whole: flag, last: flag) => {
        let y = f::sum_pooling(&x, &kernel, Some(&stride), whole, &pad, last)?;
        [layerfn::sum_pooling(&x, kernel).call()?, y]
    };
    unpooling(x: image, kernel: window, last: flag) => [f::unpooling(&x, &kernel, last)?];
    interpolate(x: image, scale: numbers, sizes: counts, by_scale: flag, how: interpolation) => {
        [f::interpolate(&x, by_scale.then_some(&*scale), (!by_scale).then_some(&*sizes), how)?]
    };
    Interpolation(x: image, how: interpolation) => {
        let size = vec![3; x.rank().saturating_sub(2)];
        [f::interpolate(&x, None, Some(&size), how)?]
    };
    InterpolationMode(name: text) => {
        name.parse::<f::InterpolationMode>()?;
        []
    };
    transpose(x: tensor, axes: places) => [f::transpose(&x, axes)?];
    swapaxes(x: tensor, a: int, b: size) => [f::swapaxes(&x, a, b)?];
    flip(x: tensor, axes: places) => [f::flip(&x, axes)?];
    slice(x: tensor, start: ends, stop: ends, step: ends) => {
        let step = step.into_iter().map(|step| step.unwrap_or(1)).collect::<Vec<_>>();
        [f::slice(&x, &start, &stop, &step)?]
    };
    broadcast(x: tensor, shape: dims) => [f::broadcast(&x, shape)?];
    tile(x: tensor, reps: dims) => [f::tile(&x, reps)?];
    pad(x: tensor, widths: counts, mode: pad_mode, value: number) => [f::pad(&x, &widths, mode, value)?];
    PadMode(name: text) => {
        name.parse::<f::PadMode>()?;
        []
    };
    shift(x: tensor, shifts: places, reflect: flag) => {
        let mode = if reflect { f::BorderMode::Reflect } else { f::BorderMode::Nearest };
        [f::shift(&x, &shifts, mode)?]
    };
    BorderMode(name: text) => {
        name.parse::<f::BorderMode>()?;
        []
    };
    concatenate(x: tensor, y: same, axis: int) => [f::concatenate(&[&x, &y, &x], axis)?];
    stack(x: tensor, y: same, axis: int) => [f::stack(&[&x, &y], axis)?];
    split(x: tensor, axis: size) => f::split(&x, axis)?;
    reshape(x: tensor, shape: places) => [f::reshape(&x, &shape)?];
    flatten(x: tensor, axis: int) => [f::flatten(&x, axis)?, layerfn::flatten(&x).call()?];
    unlink(x: tensor) => [f::unlink(&x)?];
    sum(x: tensor, axes: places, keep: flag) => [f::sum(&x, axes, keep)?];
    mean(x: tensor, axes: places, keep: flag) => [f::mean(&x, axes, keep)?];
    max(x: tensor, axes: places, keep: flag) => [f::max(&x, axes, keep)?];
    min(x: tensor, axes: places, keep: flag) => [f::min(&x, axes, keep)?];
    max_with_index(x: tensor, axes: places, keep: flag) => <[Tensor; 2]>::from(f::max_with_index(&x, axes, keep)?);
    min_with_index(x: tensor, axes: places, keep: flag) => <[Tensor; 2]>::from(f::min_with_index(&x, axes, keep)?);
    prod(x: tensor, axes: places, keep: flag) => [f::prod(&x, axes, keep)?];
    norm(x: tensor, p: number, axes: places, keep: flag) => [f::norm(&x, p, axes, keep)?];
    norm_normalization(x: tensor, p: number, axes: places, eps: rate) => [f::norm_normalization(&x, p, axes, eps)?];
    reduce_sum(x: tensor) => [f::reduce_sum(&x)?];
    reduce_mean(x: tensor) => [f::reduce_mean(&x)?];
    cumsum(x: tensor, axis: int, exclusive: flag, reverse: flag) => [f::cumsum(&x, axis, exclusive, reverse)?];
    sort(x: tensor, axis: int, reverse: flag) => [f::sort(&x, axis, reverse)?];
    sort_with_index(x: tensor, axis: size, reverse: flag) => <[Tensor; 2]>::from(f::sort_with_index(&x, axis, reverse)?);
    gather(x: tensor, indices: indices, axis: size, batch_dims: size) => [f::gather(&x, &indices, axis, batch_dims)?];
    gather_nd(x: tensor, indices: indices) => [f::gather_nd(&x, &indices)?];
    scatter_nd(x: tensor, indices: indices, shape: dims, add: flag) => [f::scatter_nd(&x, &indices, shape, add)?];
    one_hot(x: indices, shape: dims) => [f::one_hot(&x, shape)?];
    top_n_error(x: matrix, target: indices, axis: int, n: size) => [f::top_n_error(&x, &target, axis, n)?];
    batch_matmul(a: image, b: same, of_a: flag, of_b: flag) => [f::batch_matmul(&a, &b, of_a, of_b)?];
    matrix_diag(x: tensor) => [f::matrix_diag(&x)?];
    matrix_diag_part(x: tensor) => [f::matrix_diag_part(&x)?];
    tensor_normalization(x: tensor, axes: places, beta: same, given: flag, eps: rate) => {
        <[Tensor; 3]>::from(f::tensor_normalization(&x, axes, given.then_some(&beta), None, eps)?)
    };
    weight_standardization(w: tensor, axis: int, eps: rate) => {
        <[Tensor; 3]>::from(f::weight_standardization(&w, axis, eps)?)
    };
    constant(value: number, shape: dims) => [f::constant(value, shape, &Device::Cpu)?];
    arange(start: number, stop: number, step: number) => [f::arange(start, stop, step, &Device::Cpu)?];
    global_average_pooling(x: image) => [f::global_average_pooling(&x)?];
    binary_connect(w: tensor, zero: number) => [f::binary_connect(&w, zero)?];
    binary_weight(w: tensor, start: size, end: size, zero: number) => {
        let binary = f::binary_weight(&w, start..end, zero)?;
        [binary.output, binary.wb, binary.alpha]
    };
    BinaryWeight(w: matrix) => [f::binary_weight(&w, 0..1, 1.0)?.alpha];
    straight_through(w: tensor, value: same) => [f::straight_through(&w, &value)?];
    weight_normalization(w: tensor, g: matrix, axis: int, eps: rate) => {
        let n = if let Ok(axis) = Axis::from(axis).resolve("axis", w.dims()) { w.dims()[axis] } else { 1 };
        let ones = weights(&[n])?.to_dtype(w.dtype())?;
        [f::weight_normalization(&w, &ones, axis, eps)?, f::weight_normalization(&w, &g, axis, eps)?]
    };
    spectral_norm(w: tensor, axis: int, itr: size, eps: rate) => {
        let n = if let Ok(axis) = Axis::from(axis).resolve("axis", w.dims()) { w.dims()[axis] } else { 1 };
        let ones = weights(&[n])?.to_dtype(w.dtype())?;
        <[Tensor; 2]>::from(f::spectral_norm(&w, &ones, axis, itr, eps)?)
    };
    MinMax(x: tensor, decay: rate, measured: flag, ema: flag, fine: flag, eps: rate, low: number, high: number) => {
        let quantizer = f::MinMax { decay, x_min_max: measured, ema, ste_fine_grained: fine, eps };
        let number = |x: f64| Tensor::new(&[x], &Device::Cpu);
        let (low, high) = (number(low)?, number(high)?);
        let (one, two) = (number(1.0)?, number(2.0)?);
        [
            quantizer.apply(&x, [&low, &high], [&one, &two])?.output,
            quantizer.checked()?.apply(&x, [&one, &two], [&low, &high])?.output,
        ]
    };
    MinMaxQuantized(x: matrix, range: matrix, levels: tensor) => {
        let quantizer = f::MinMax { decay: 0.5, x_min_max: true, ema: true, ste_fine_grained: true, eps: 0.1 };
        let quantized = quantizer.apply(&x, [&range, &range], [&levels, &levels])?;
        [quantized.output, quantized.range.map_or_else(|| x.clone(), |[low, _]| low)]
    };
    FixedPoint(w: tensor, sign: flag, n: size, delta: rate, fine: flag) => {
        let transform = f::FixedPoint { sign, n, delta, ste_fine_grained: fine };
        [transform.apply(&w)?, transform.checked()?.apply(&w)?]
    };
    Pow2(w: tensor, sign: flag, zero: flag, n: size, m: int, fine: flag) => {
        let transform = f::Pow2 { sign, with_zero: zero, n, m: m as i32, ste_fine_grained: fine };
        [transform.apply(&w)?, transform.checked()?.apply(&w)?]
    };
    Prune(w: tensor, rate: rate) => [f::Prune { rate }.apply(&w)?, f::Prune { rate }.checked()?.apply(&w)?];
    Transform(w: tensor) => [ParameterStore::new().enter(|| f::Prune { rate: 0.5 }.apply(&w))?];
}

/// Weights of ones, if they are few; the layers check sizes of their own.
fn weights(dims: &[usize]) -> Result<Tensor> {
    let n = dims.iter().try_fold(1usize, |n, &size| n.checked_mul(size.max(1))).filter(|&n| n < 1 << 20);
    match n {
        Some(_) => Ok(Tensor::ones(dims, DType::F32, &Device::Cpu)?),
        None => Err(layerfn::Error::invalid("dims", "must be small", dims)),
    }
}

/// The shape of a first layer's weights for sequences and states that may be of any shape.
fn fitting(x: &Tensor, h: &Tensor, blocks: usize) -> Vec<usize> {
    let at = |tensor: &Tensor, axis: usize| tensor.dims().get(axis).copied().unwrap_or(1);
    let (directions, state) = (at(h, 1), at(h, 3));
    let blocks = if blocks == 1 { vec![] } else { vec![blocks] };
    [&[directions], &blocks[..], &[state, at(x, 2).saturating_add(state)]].concat()
}

/// Those of the layers above it.
fn upper(h: &Tensor, blocks: usize) -> Vec<usize> {
    let at = |axis: usize| h.dims().get(axis).copied().unwrap_or(1);
    let blocks = if blocks == 1 { vec![] } else { vec![blocks] };
    let (layers, state) = (at(0).saturating_sub(1), at(3));
    let width = at(1).saturating_mul(state).saturating_add(state);
    [&[layers, at(1)], &blocks[..], &[state, width]].concat()
}

/// Whether everything that the module exports has its line.
pub(crate) fn assert_complete() {
    let source = include_str!("../../runtime/src/functions/mod.rs");
    for exports in source.split("\npub use ").skip(1).filter_map(|rest| rest.split(';').next()) {
        let names = exports.rsplit("::").next().unwrap_or_default();
        for name in names.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty()) {
            assert!(CALLS.iter().any(|(call, _)| *call == name), "`{name}` has no line among the calls");
        }
    }
}
