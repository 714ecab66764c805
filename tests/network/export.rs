//! Networks written for other programs: what they compute then.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use layerfn::export::{Form, told};
use layerfn::functions::{self, gelu_exact, mean};
use layerfn::import::Onnx;
use layerfn::nnp::Nnp;
use layerfn::prelude::*;
use layerfn::{Model, PerAxis, Rng};

use super::architectures as nets;

/// A model, made to be compared: a name, the model as a function, and shapes of what it takes.
struct Case {
    name: &'static str,
    shapes: Vec<Vec<usize>>,
    /// Whether NNabla's shapes have room for batches of any size.
    is_open: bool,
    forward: Box<Forward>,
    export: Box<Export>,
    to_onnx: Box<Export>,
}

type Forward = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>;

type Export = dyn Fn(&Path) -> Result<()>;

/// Gives every parameter other values than the first ones.
pub(super) fn stir<F: ?Sized, const N: usize>(model: &Model<F, N>) -> Result<()> {
    let rng = Rng::new(5);
    for (path, parameter) in model.store().parameters().iter().filter(|(path, _)| !path.contains("/q")) {
        let dims = parameter.var().dims();
        let fan = match dims {
            [_, rest @ ..] if rest.len() > 1 => rest.iter().product(),
            [inputs, ..] => *inputs,
            [] => 1,
        };
        let spread =
            if path.contains("/bn") || path.ends_with("/b") { 0.5 } else { 3.0 / (fan as f64).sqrt() };
        let draw = || (f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5) * spread;
        let n = dims.iter().product();
        let positive = path.ends_with("/var") || path.ends_with("/gamma");
        let values: Vec<f32> = (0..n).map(|_| (draw() + if positive { 1.0 } else { 0.0 }) as f32).collect();
        parameter.var().set(&Tensor::from_vec(values, dims, &Device::Cpu)?)?;
    }
    Ok(())
}

macro_rules! case {
    ($name:literal, $net:expr, $shape:expr, $is_open:literal) => {{
        let net = ParameterStore::with_seed(1).enter(|| $net.init($shape))?;
        stir(&net)?;
        let (one, two, three) = (net.clone(), net.clone(), net);
        Case {
            name: $name,
            shapes: vec![$shape.to_vec()],
            is_open: $is_open,
            forward: Box::new(move |x| one.forward_t(&x[0], false).map(Into::<Outputs>::into).map(|y| y.0)),
            export: Box::new(move |path| two.export_nnp(path, [$shape])),
            to_onnx: Box::new(move |path| three.export_onnx(path, [$shape])),
        }
    }};
}

struct Outputs(Vec<Tensor>);

impl From<Tensor> for Outputs {
    fn from(tensor: Tensor) -> Self {
        Self(vec![tensor])
    }
}

impl From<Vec<Tensor>> for Outputs {
    fn from(tensors: Vec<Tensor>) -> Self {
        Self(tensors)
    }
}

impl From<(Tensor, Tensor)> for Outputs {
    fn from((a, b): (Tensor, Tensor)) -> Self {
        Self(vec![a, b])
    }
}

/// Images `(batch, 1, 28, 28)` as sequences `(28, batch, 28)`.
fn rows(images: &Tensor) -> Result<Tensor> {
    Ok(images.squeeze(1)?.transpose(0, 1)?)
}

/// The first two axes in the other order.
fn swapped(x: &Tensor) -> Result<Tensor> {
    functions::transpose(x, [1, 0, 2])
}

fn state(x: &Tensor, layers: usize, directions: usize) -> Result<Tensor> {
    Ok(Tensor::zeros((layers, directions, x.dim(1)?, 6), DType::F32, &Device::Cpu)?)
}

fn over_gru(x: &Tensor) -> Result<Tensor> {
    Ok(gru(x, &state(x, 2, 2)?).num_layers(2).bidirectional(true).call()?.0)
}

fn over_lstm(x: &Tensor) -> Result<Tensor> {
    Ok(lstm_n_step(x, &state(x, 1, 1)?, &state(x, 1, 1)?).call()?.0)
}

fn over_rnn(x: &Tensor) -> Result<Tensor> {
    Ok(rnn(x, &state(x, 1, 1)?).call()?.0)
}

network! {
    fn reader()
    < rows -> embedding: affine(16, base_axis = 2) -> learned_position_embedding(28)
   -> for i in 0..2 { encoder[i]: transformer_encode(16, 4, dim_feedforward = 32, activation = gelu) }
   -> mean(0, false) -> out: affine(10) >

    fn cells()
    < swapped -> over_gru -> over_lstm -> over_rnn -> swapped >

    fn odds()
    < n1: layer_normalization -> n2: group_normalization(2) -> n3: instance_normalization
   -> d: depthwise_convolution((3, 3), pad = 1) -> gelu_exact -> u: depthwise_deconvolution((3, 3))
   -> average_pooling((2, 2), including_pad = false) -> interpolate(output_size = (7, 5)) -> prelu
   -> q: fixed_point_quantized_convolution(4, (3, 3)) -> m: min_max_quantized_convolution(4, (1, 1))
   -> b: binary_weight_convolution(4, (2, 2)) -> w: pow2_quantized_convolution(3, (1, 1)) -> pad((1, 1), mode = layerfn::functions::PadMode::Reflect)
   -> softplus -> flatten -> s: svd_affine(6, 3) -> p: pruned_affine(5) -> log_softmax(1) >
}

/// Many functions of an input `(batch, 4, 6)`, for each of which there is an output.
fn many(x: &Tensor) -> Result<Vec<Tensor>> {
    use layerfn::functions::*;
    let half = slice(x, &[Some(1)], &[Some(-1)], &[2])?;
    let back = slice(x, &[None, Some(-1)], &[None, Some(0)], &[1, -2])?;
    let parts = split(x, 1)?;
    let image = reshape(x, &[-1, 1, 4, 6])?;
    let positive = add_scalar(&abs(x)?, 0.5)?;
    let flag = greater_scalar(x, 0.1)?;
    let two = PerAxis::Each(vec![2, 4]);
    let (by_two, one) = (PerAxis::Every(2), PerAxis::Every(1));
    Ok(vec![
        half,
        back,
        stack(&[&parts[0], &parts[2]], 1)?,
        flip(x, [1, 2])?,
        tile(x, (1, 2, 2))?,
        cumsum(x, 2, true, false)?,
        broadcast(&sum(x, [1, 2], true)?, (x.dim(0)?, 2, 3))?,
        max(x, 2, false)?,
        min(x, [1, 2], true)?,
        prod(x, 1, true)?,
        norm(x, 2.0, 1, false)?,
        sort(x, 1, true)?,
        where_cond(&flag, x, &mul_scalar(x, 2.0)?)?,
        logical_xor(&flag, &less_equal(x, &mul2(x, x)?)?)?,
        add_n(&[&sin(x)?, &cos(x)?, &tan(&mul_scalar(x, 0.5)?)?, &atan(x)?])?,
        add_n(&[&elu(x, 1.5)?, &selu(x)?, &gelu(x)?, &mish(x)?, &silu(x)?, &log_sigmoid(x)?])?,
        add_n(&[&hard_sigmoid(x)?, &hard_tanh(x)?, &relu6(x)?, &tanh_shrink(x)?, &softsign(x)?, &sinc(x)?])?,
        add_n(&[&round(&mul_scalar(x, 3.0)?)?, &floor(x)?, &ceil(x)?, &sign(x, 0.0)?, &binary_tanh(x)?])?,
        add_n(&[
            &pow_scalar(&positive, 1.5)?,
            &r_pow_scalar(x, 2.0)?,
            &r_div_scalar(&positive, 3.0)?,
            &log(&positive)?,
        ])?,
        norm_normalization(x, 2.0, [1, 2], 0.5)?,
        shift(x, &[1, -2], BorderMode::Reflect)?,
        crelu(x, 1)?,
        celu(x, 1.2, 2)?,
        leaky_relu(x, 0.2)?,
        softplus_with(x, 2.0)?,
        batch_matmul(x, x, false, true)?,
        unpooling(&image, &PerAxis::Every(2), false)?,
        max_pooling(&image, &two, Some(&by_two), false, &one, false)?,
        sum_pooling(&image, &two, Some(&by_two), false, &one, false)?,
        average_pooling(&image, &two, Some(&by_two), false, &one, false, true)?,
        average_pooling(&image, &two, Some(&by_two), false, &one, false, false)?,
        rms_normalization(x, None, &[0], 1e-5)?,
        tensor_normalization(x, [0, 1], None, None, 1e-5)?.0,
        FixedPoint { sign: true, n: 8, delta: 0.03, ste_fine_grained: true }.apply(x)?,
    ])
}

/// Samples at places that follow from the input, with a mask and without, in steps of one and of two.
fn deformed(x: &Tensor) -> Result<Tensor> {
    let offset = conv(x, 2 * 2 * 9, (3, 3)).pad(1).name("offset1").call()?;
    let mask = functions::sigmoid(&conv(x, 2 * 9, (3, 3)).pad(1).name("mask").call()?)?;
    let d1 = layerfn::deformable_convolution(x, 6, (3, 3), &offset).mask(&mask).deformable_group(2).pad(1);
    let y = d1.name("d1").call()?;
    let offset = conv(&y, 2 * 4, (1, 1)).name("offset2").call()?;
    layerfn::deformable_convolution(&y, 3, (2, 2), &offset).stride(2).with_bias(false).name("d2").call()
}

fn cases() -> Result<Vec<Case>> {
    Ok(vec![
        case!("lenet", Network::new(nets::lenet), [2, 1, 28, 28], true),
        case!("resnet20", Network::new(nets::resnet20), [1, 3, 32, 32], true),
        case!("resnet18", Network::new(nets::resnet18), [1, 3, 32, 32], true),
        case!("mobilenet", network! { nets::mobilenet(10) }, [1, 3, 32, 32], true),
        case!("inception", network! { nets::inception(8, 16, 4, 4) }, [1, 12, 14, 14], true),
        case!("lstm", network! { nets::lstm_classifier(8, 5) }, [2, 6, 4], true),
        case!("unet", network! { nets::unet(4, 2) }, [1, 1, 16, 16], true),
        case!("autoencoder", network! { nets::autoencoder(16) }, [3, 784], true),
        case!("transformer", Network::new(reader), [2, 1, 28, 28], false),
        case!("cells", Network::new(cells), [2, 5, 3], false),
        case!("functions", Network::new(many), [2, 4, 6], true),
        case!("deformable", Network::new(deformed), [2, 4, 8, 6], true),
        case!("odds", Network::new(odds), [2, 4, 8, 6], true),
    ])
}

/// Numbers between -1 and 1.
fn numbers(dims: &[usize]) -> Result<Tensor> {
    let rng = Rng::new(11);
    let n = dims.iter().product();
    let values: Vec<f32> =
        (0..n).map(|_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) as f32).collect();
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
}

fn assert_close(name: &str, found: &Tensor, wanted: &Tensor) -> Result<()> {
    assert_eq!(found.dims(), wanted.dims(), "{name}");
    let wanted = wanted.flatten_all()?.to_vec1::<f32>()?;
    for (found, wanted) in found.flatten_all()?.to_vec1::<f32>()?.into_iter().zip(wanted) {
        assert!(
            (found - wanted).abs() <= 1e-5 * wanted.abs().max(1.0),
            "{name}: {found} instead of {wanted}"
        );
    }
    Ok(())
}

/// A folder for the files: one that is kept if `LAYERFN_EXPORTED` names it, for `interop/exported.py`.
pub(super) fn folder() -> (Option<tempfile::TempDir>, PathBuf) {
    match std::env::var_os("LAYERFN_EXPORTED") {
        Some(path) => {
            fs::create_dir_all(&path).unwrap();
            (None, path.into())
        }
        None => {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().to_owned();
            (Some(folder), path)
        }
    }
}

fn inputs_of(case: &Case, open: bool) -> Result<Vec<Tensor>> {
    let more = |dims: &Vec<usize>| [&[dims[0] + usize::from(open) * 2], &dims[1..]].concat();
    case.shapes.iter().map(|dims| numbers(&more(dims))).collect()
}

/// Keeps what the network computes beside its file, for programs that check it.
pub(super) fn keep(folder: &Path, name: &str, inputs: &[Tensor], outputs: &[Tensor]) -> Result<()> {
    let named = |kind: &str, tensors: &[Tensor]| -> Vec<(String, Tensor)> {
        tensors
            .iter()
            .enumerate()
            .map(|(n, tensor)| (format!("{kind}{n:02}"), tensor.contiguous().unwrap()))
            .collect()
    };
    let all: std::collections::HashMap<_, _> =
        named("input", inputs).into_iter().chain(named("output", outputs)).collect();
    Ok(candle_core::safetensors::save(&all, folder.join(format!("{name}.safetensors")))?)
}

#[test]
fn nnabla_files_compute_the_same() -> Result<()> {
    let (_guard, folder) = folder();
    for case in cases()? {
        let path = folder.join(format!("{}.nnp", case.name));
        (case.export)(&path).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let executor = Nnp::open(&path)?.executor("runtime")?;
        for open in [false, true] {
            if open && !case.is_open {
                continue;
            }
            let inputs = inputs_of(&case, open)?;
            let wanted = (case.forward)(&inputs)?;
            let found = executor.run(&inputs).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(&wanted) {
                assert_close(case.name, found, wanted)?;
            }
            keep(&folder, case.name, &inputs, &wanted)?;
        }
    }
    Ok(())
}

#[test]
fn what_has_no_form_is_named() -> Result<()> {
    let net = network! { c1: conv(2, (3, 3)) -> odd: (|x: &Tensor| x.sqr()) -> relu };
    let model = net.init([1, 1, 5, 5])?;
    let path = tempfile::tempdir().unwrap().path().join("a.nnp");
    let error = model.export_nnp(&path, [[1, 1, 5, 5]]).unwrap_err().to_string();
    assert!(error.starts_with("odd: closure:") && error.contains("`layerfn::export::told`"), "{error}");
    assert!(!path.exists());

    // A constant that follows the input is none.
    let net = network! { (|x: &Tensor| Ok::<_, layerfn::Error>((x + f64::from(x.mean_all()?.to_scalar::<f32>()?))?)) };
    assert!(net.init([2, 3])?.export_nnp(&path, [[2, 3]]).is_err());
    let net = network! { (|x: &Tensor| functions::add2(x, &x.detach().sqr()?)) };
    let error = net.init([2, 3])?.export_nnp(&path, [[2, 3]]).unwrap_err().to_string();
    assert!(error.contains("on constants that do not depend on them"), "{error}");
    Ok(())
}

#[test]
fn a_function_may_say_its_form() -> Result<()> {
    fn twice(x: &Tensor) -> Result<Tensor> {
        told(|| Form::new("MulScalar", &[x]).with("val", 2.0), || Ok((x * 2.0)?))
    }
    let model = network! { affine(3) -> twice }.init([1, 2])?;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nnp");
    model.export_nnp(&path, [[1, 2]])?;
    let file = Nnp::open(&path)?;
    assert_eq!(
        file.parameters().entries().iter().map(|entry| entry.path()).collect::<Vec<_>>(),
        ["affine/W", "affine/b"]
    );
    let x = numbers(&[4, 2])?;
    assert_close("twice", &file.executor("runtime")?.run(std::slice::from_ref(&x))?[0], &model.forward(&x)?)
}

#[test]
fn onnx_files_compute_the_same() -> Result<()> {
    let (_guard, folder) = folder();
    for case in cases()? {
        let path = folder.join(format!("{}.onnx", case.name));
        (case.to_onnx)(&path).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let model = Onnx::open(&path)?.model()?;
        for open in [false, true] {
            let inputs = inputs_of(&case, open)?;
            let wanted = (case.forward)(&inputs)?;
            let found =
                model.forward_t(&inputs, false).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(&wanted) {
                assert_close(case.name, found, wanted)?;
            }
        }
    }
    Ok(())
}

/// Every loss, of classes behind the batch and of single numbers.
fn losses(x: &Tensor, labels: &Tensor) -> Result<Vec<Tensor>> {
    use layerfn::functions::*;
    let (p, t) = (sigmoid(x)?, sigmoid(&mul_scalar(x, -2.0)?)?);
    Ok(vec![
        softmax_cross_entropy(x, labels, 1)?,
        categorical_cross_entropy(&softmax(x, 1)?, labels, 1)?,
        mean_softmax_cross_entropy(x, labels, 1)?,
        squared_error(x, &t)?,
        absolute_error(x, &t)?,
        huber_loss(x, &t, 0.5)?,
        epsilon_insensitive_loss(x, &t, 0.3)?,
        sigmoid_cross_entropy(x, &t)?,
        binary_cross_entropy(&p, &t)?,
        binary_error(&p, &t)?,
        kl_multinomial(&p, &t, 1)?,
    ])
}

#[test]
fn losses_compute_the_same() -> Result<()> {
    let (_guard, folder) = folder();
    let [nnp, onnx] = ["losses.nnp", "losses.onnx"].map(|name| folder.join(name));
    let x = (numbers(&[3, 4, 5])? * 4.0)?;
    // A sample whose label is below 0 is not counted.
    let labels =
        Tensor::from_iter((0..15).map(|i| i % 5 - 1), &Device::Cpu)?.reshape((3, 5))?.to_dtype(DType::I64)?;
    let model = network! { |x, labels| losses(labels) }.init(&x, &labels)?;
    model.export_nnp(&nnp, [&x, &labels])?;
    model.export_onnx(&onnx, [&x, &labels])?;
    let more = Tensor::cat(&[&x, &(&x * 0.3)?], 0)?;
    let inputs = [more, Tensor::cat(&[&labels, &labels], 0)?];
    let wanted = model.forward_t(&inputs[0], &inputs[1], false)?;
    let by_nnp = Nnp::open(&nnp)?.executor("runtime")?.run(&inputs)?;
    let by_onnx = Onnx::open(&onnx)?.model()?.forward_t(&inputs, false)?;
    assert_eq!((by_nnp.len(), by_onnx.len()), (wanted.len(), wanted.len()));
    for (n, wanted) in wanted.iter().enumerate() {
        assert_close(&format!("nnp, loss {n}"), &by_nnp[n], wanted)?;
        assert_close(&format!("onnx, loss {n}"), &by_onnx[n], wanted)?;
    }
    keep(&folder, "losses", &inputs, &wanted)
}

#[test]
fn imported_networks_are_models() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = ["a.onnx", "b.nnp", "c.onnx"].map(|name| folder.path().join(name));
    let model = Network::new(nets::lenet).init([2, 1, 28, 28])?;
    model.export_onnx(&first, [[2, 1, 28, 28]])?;
    let imported = Onnx::open(&first)?.model()?;
    // The same parameters under the same paths, trained as others are.
    let paths = |store: &ParameterStore| {
        store.parameters().paths().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(paths(imported.store()), paths(model.store()));
    let x = numbers(&[3, 1, 28, 28])?;
    let gradients = backward(&imported.forward(std::slice::from_ref(&x))?[0].sqr()?.sum_all()?)?;
    assert!(imported.parameters().iter().all(|(_, parameter)| gradients.get(parameter.var()).is_some()));

    // On to NNabla, and back from there.
    imported.export_nnp(&second, [[2, 1, 28, 28]])?;
    let model_of_nnp = Nnp::open(&second)?.network("main")?.model()?;
    model_of_nnp.export_onnx(&third, [[2, 1, 28, 28]])?;
    let wanted = model.forward_t(&x, false)?;
    assert_close("nnp", &model_of_nnp.forward_t(std::slice::from_ref(&x), false)?[0], &wanted)?;
    assert_close(
        "onnx",
        &Onnx::open(&third)?.model()?.forward_t(std::slice::from_ref(&x), false)?[0],
        &wanted,
    )
}
