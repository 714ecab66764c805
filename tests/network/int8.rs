//! Networks of floats that are written as networks of integers.

use candle_core::{DType, Device, Tensor};
use layerfn::export::Range;
use layerfn::import::Onnx;
use layerfn::prelude::*;
use layerfn::{Rng, functions};

use super::architectures as nets;
use super::export::{folder, keep, stir};

fn numbers(dims: &[usize], seed: u32) -> Result<Tensor> {
    let rng = Rng::new(seed);
    let n = dims.iter().product();
    let values: Vec<f32> =
        (0..n).map(|_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) as f32).collect();
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
}

/// Batches of so many examples that their numbers are like those of any other batch.
fn batches(dims: &[usize]) -> Result<Vec<[Tensor; 1]>> {
    let n = (2000 / dims[1..].iter().product::<usize>()).max(dims[0]);
    (0..3).map(|seed| Ok([numbers(&[&[n], &dims[1..]].concat(), seed)?])).collect()
}

/// How far apart the numbers are, as a share of the largest.
fn distance(found: &Tensor, wanted: &Tensor) -> Result<f32> {
    assert_eq!(found.dims(), wanted.dims());
    let largest = wanted.abs()?.max_all()?.to_scalar::<f32>()?;
    Ok((found - wanted)?.abs()?.max_all()?.to_scalar::<f32>()? / largest)
}

fn path(folder: &tempfile::TempDir) -> std::path::PathBuf {
    folder.path().join("a.onnx")
}

/// Groups, branches, batch normalization, transposed convolutions, layers over several axes: each part of the export has a network.
#[test]
fn networks_of_integers_compute_nearly_the_same() -> Result<()> {
    let (_guard, folder) = folder();
    macro_rules! check {
        ($name:literal, $net:expr, $shape:expr, $layers:expr, $limit:expr) => {{
            let path = folder.join(concat!($name, ".int8.onnx"));
            let model = ParameterStore::with_seed(1).enter(|| $net.init($shape))?;
            stir(&model)?;
            let layers = model.export_onnx_int8(&path, batches(&$shape)?, Range::MinMax)?;
            assert_eq!((layers.integers.len(), layers.floats.len()), ($layers, 0), "{}: {layers}", $name);
            let x = numbers(&[&[$shape[0] + 2], &$shape[1..]].concat(), 9)?;
            let wanted = model.forward_t(&x, false)?;
            let imported = Onnx::open(&path)?.model()?;
            // Normalizations are parts of the layers before them, and nothing keeps their numbers.
            assert!(imported.store().parameters().paths().all(|path| !path.contains("/bn/")), "{}", $name);
            let found = imported.forward_t(std::slice::from_ref(&x), false)?;
            let distance = distance(&found[0], &wanted)?;
            assert!(distance > 0.0 && distance < $limit, "{}: {distance}", $name);
            keep(&folder, concat!($name, ".int8"), &[x], &[wanted])?;
        }};
    }
    check!("lenet", Network::new(nets::lenet), [2, 1, 28, 28], 4, 0.05);
    check!("resnet20", Network::new(nets::resnet20), [2, 3, 32, 32], 22, 0.1);
    check!("mobilenet", network! { nets::mobilenet(10) }, [2, 3, 32, 32], 10, 0.1);
    check!("unet", network! { nets::unet(4, 2) }, [2, 1, 16, 16], 13, 0.1);
    let net = network! { affine(6, base_axis = 2) -> tanh -> affine((2, 3), base_axis = 2) };
    check!("rows", net, [2, 3, 4], 2, 0.05);
    let net = network! { deconvolution(4, (2, 2), stride = 2, group = 2) -> deconvolution(3, (2, 2)) -> conv(2, (1, 1)) };
    check!("upwards", net, [2, 4, 3, 3], 3, 0.05);
    let net = network! { affine(8) -> bn1: bn -> sigmoid -> conv1: affine(8, with_bias = false) -> bn2: bn(no_scale = true) -> affine(2, name = "out") };
    check!("normalized", net, [2, 5], 3, 0.05);
    Ok(())
}

/// The integers of a layer of which everything is known.
#[test]
fn steps_follow_from_weights_and_ranges() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let model = network! { one: affine(2) -> relu -> out: affine(1) }.init([1, 2])?;
    let set = |path: &str, values: &[f32], dims: &[usize]| -> Result<()> {
        let parameter = model.store().get(path).expect("the layer has made it");
        Ok(parameter.var().set(&Tensor::from_slice(values, dims, &Device::Cpu)?)?)
    };
    set("one/affine/W", &[1.27, 0.0, -0.5, 0.0], &[2, 2])?;
    set("one/affine/b", &[0.1, 3.0], &[2])?;
    let x = Tensor::new(&[[2.55f32, 0.0], [1.0, 1.0]], &Device::Cpu)?;
    model.export_onnx_int8(path(&folder), [[x]], Range::MinMax)?;
    let imported = Onnx::open(path(&folder))?.model()?;
    let found = |path: &str| imported.store().get(path).unwrap().var().to_vec1::<f32>();
    // A map whose weights are all 0 has any step.
    let close =
        |found: &[f32], wanted: &[f32]| found.iter().zip(wanted).all(|(a, b)| (a / b - 1.0).abs() < 1e-6);
    assert!(close(&found("one/affine/W.scale")?, &[0.01, 1.0]));
    assert!(close(&found("one/affine/b.scale")?, &[0.0001, 0.01]));
    Ok(())
}

#[test]
fn rare_numbers_are_clipped_by_a_percentile() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let model = network! { affine(4) -> relu -> affine(3) }.init([1, 5])?;
    let mut batches = batches(&[400, 5])?;
    let rare = Tensor::cat(&[&(numbers(&[1, 5], 8)? * 1000.0)?, &batches[0][0]], 0)?;
    batches[0] = [rare];
    let x = numbers(&[50, 5], 9)?;
    let distance = |range| -> Result<f32> {
        model.export_onnx_int8(path(&folder), batches.clone(), range)?;
        let found = Onnx::open(path(&folder))?.model()?.forward(std::slice::from_ref(&x))?;
        distance(&found[0], &model.forward(&x)?)
    };
    let (all, most) = (distance(Range::MinMax)?, distance(Range::Percentile(99.8))?);
    assert!(all > 0.3 && most < 0.05, "{all} {most}");
    Ok(())
}

#[test]
fn layers_without_integers_are_named() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let net = network! {
        up: affine(6, base_axis = 2) -> norm: layer_normalization -> cells: (|x: &Tensor| {
            let zeros = Tensor::zeros((1, 1, x.dim(1)?, 4), DType::F32, &Device::Cpu)?;
            Ok::<_, layerfn::Error>(gru(x, &zeros).call()?.0)
        }) -> derived: affine(3, base_axis = 2, apply_w = functions::tanh)
            -> own: fixed_point_quantized_affine(2, base_axis = 2) -> down: affine(2, base_axis = 2)
    };
    let model = net.init([2, 3, 5])?;
    let layers = model.export_onnx_int8(path(&folder), batches(&[2, 3, 5])?, Range::MinMax)?;
    assert_eq!(
        layers.to_string(),
        "integers: up/affine, derived/affine, own/fp_quantized_affine, down/affine; floats: cells/gru"
    );
    let x = numbers(&[2, 3, 5], 9)?;
    let found = Onnx::open(path(&folder))?.model()?.forward_t(std::slice::from_ref(&x), false)?;
    let distance = distance(&found[0], &model.forward_t(&x, false)?)?;
    assert!(distance < 0.1, "{distance}");

    let model = network! { embed: embed(10, 4) }.init(&Tensor::zeros((2, 3), DType::U32, &Device::Cpu)?)?;
    let ids = Tensor::new(&[[1u32, 9], [0, 2]], &Device::Cpu)?;
    let error = model.export_onnx_int8(path(&folder), [[ids]], Range::MinMax).unwrap_err().to_string();
    assert!(
        error.contains("must have an affine layer or a convolution") && error.contains("embed/embed"),
        "{error}"
    );
    Ok(())
}

/// What does not depend on the input stays as it is, even where it is an output.
#[test]
fn outputs_may_be_parameters() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let net = Network::new(|x: &Tensor| {
        let scale = layerfn::get_parameter_or_create("scale")
            .shape(3)
            .initializer(layerfn::Initializer::constant(2.0))
            .call()?;
        Ok::<_, layerfn::Error>(vec![affine(x, 3).call()?, functions::mul_scalar(&scale, 2.0)?])
    });
    let model = net.init([1, 2])?;
    model.export_onnx_int8(path(&folder), batches(&[1, 2])?, Range::MinMax)?;
    let found = Onnx::open(path(&folder))?.model()?.forward(&[numbers(&[4, 2], 7)?])?;
    assert_eq!((found[0].dims(), found[1].to_vec1::<f32>()?), (&[4, 3][..], vec![4.0; 3]));
    Ok(())
}

#[test]
fn what_gives_no_range_is_refused() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let net = network! { c1: affine(3) -> exp: (|x: &Tensor| functions::exp(x)) -> c2: affine(2) };
    let model = net.init([1, 2])?;
    let export = |batches: Vec<[Tensor; 1]>, range| {
        model.export_onnx_int8(path(&folder), batches, range).unwrap_err().to_string()
    };
    let x = Tensor::ones((1, 2), DType::F32, &Device::Cpu)?;
    for (batches, range, parts) in [
        (vec![], Range::MinMax, &["`batches` must contain at least one batch"][..]),
        (vec![[x.narrow(0, 0, 0)?]], Range::MinMax, &["must have examples"]),
        (vec![[x.clone()], [x.narrow(0, 0, 0)?]], Range::MinMax, &["batch 1", "[0, 2]"]),
        (
            vec![[x.clone()], [(&x * f64::NAN)?]],
            Range::MinMax,
            &["`batches` must be finite", "batch 1", "NaN"],
        ),
        (vec![[(&x * 1e20)?]], Range::MinMax, &["exp", "`results` must be finite", "batch 0", "inf"]),
        (
            vec![[x.clone()]],
            Range::Percentile(101.0),
            &["must be a percentile above 50 and up to 100, got 101"],
        ),
        (vec![[x.clone()]], Range::Percentile(f64::NAN), &["must be a percentile"]),
        (vec![[Tensor::ones((1, 3), DType::F32, &Device::Cpu)?]], Range::MinMax, &["c1"]),
    ] {
        let error = export(batches, range);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!path(&folder).exists());
    }
    let parameters = model.store().parameters();
    let (_, w) = parameters.iter().find(|(path, _)| *path == "c2/affine/W").unwrap();
    w.var().set(&(w.var().as_tensor() * f64::INFINITY)?)?;
    let error = export(vec![[x]], Range::MinMax);
    assert!(error.starts_with("c2/affine: ") && error.contains("`weights` must be finite"), "{error}");
    Ok(())
}
