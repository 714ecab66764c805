//! Broken trainings, each found at the right path, and sound ones in which nothing is found.

use candle_core::{DType, Device, Tensor};
use layerfn::functions::{mean_softmax_cross_entropy, relu, sigmoid, tanh};
use layerfn::solver::{Adam, Sgd, Solver};
use layerfn::training::Doctor;
use layerfn::{
    Diagnosis, GradientFault, Initializer, Model, Parameter, ParameterStore, Result, Rng, Symptom, affine,
    backward, bn, conv, max_pool, network,
};

use super::architectures::{autoencoder, lenet, lstm_classifier, mobilenet, resnet20, unet};

/// Normal numbers.
fn normal(dims: &[usize]) -> Result<Tensor> {
    let rng = Rng::new(5);
    let n: usize = dims.iter().product();
    let data: Vec<f32> = (0..n).map(|_| (0..12).map(|_| rng.uniform() as f32).sum::<f32>() - 6.0).collect();
    Ok(Tensor::from_vec(data, dims, &Device::Cpu)?)
}

fn labels(n: usize, classes: usize) -> Result<Tensor> {
    let labels: Vec<u32> = (0..n).map(|i| (i % classes) as u32).collect();
    Ok(Tensor::new(labels, &Device::Cpu)?)
}

fn square(y: &Tensor) -> Result<Tensor> {
    Ok(y.sqr()?.mean_all()?)
}

/// Whether `found` is at `path`, of the wanted kind, and says where in this file.
#[track_caller]
fn expect(found: &Diagnosis, path: &str, kind: fn(&Symptom) -> bool) {
    let hit = found.findings().iter().find(|finding| finding.path == path && kind(&finding.symptom));
    let hit = hit.unwrap_or_else(|| panic!("not found at `{path}`:\n{found}"));
    if !path.starts_with("input") && path != "loss" {
        assert!(hit.at.is_some_and(|at| at.file().ends_with("doctor.rs")), "{hit}");
    }
}

/// The first finding, for faults of which nothing else is a consequence.
#[track_caller]
fn expect_only(found: &Diagnosis, path: &str, kind: fn(&Symptom) -> bool) {
    expect(found, path, kind);
    assert_eq!(found.findings().len(), 1, "{found}");
}

fn set(model: &Model, path: &str, change: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<()> {
    let parameter = model.store().get(path).expect("a parameter");
    Ok(parameter.var().set(&change(parameter.var())?)?)
}

fn mlp() -> Result<Model> {
    let net = network! { fc1: affine(16) -> relu -> fc2: affine(16) -> tanh -> out: affine(3) };
    net.boxed().init((32, 8))
}

fn cross_entropy(y: &Tensor) -> Result<Tensor> {
    mean_softmax_cross_entropy(y, &labels(y.dim(0)?, y.dim(1)?)?, 1)
}

fn detached(x: &Tensor) -> Result<Tensor> {
    Ok(x.detach())
}

fn logarithm(x: &Tensor) -> candle_core::Result<Tensor> {
    x.log()
}

fn overflow(x: &Tensor) -> candle_core::Result<Tensor> {
    (x * 1e30)?.sqr()
}

/// Finite forward; the slope at 0 is infinite.
fn root_of_zero(x: &Tensor) -> candle_core::Result<Tensor> {
    x.sub(x)?.sqrt()
}

fn nothing(x: &Tensor) -> candle_core::Result<Tensor> {
    (x.sqr()? * -1.0)?.relu()
}

fn is_lost(symptom: &Symptom) -> bool {
    matches!(symptom, Symptom::NoGradient { fault: GradientFault::Missing, .. })
}

fn is_zero(symptom: &Symptom) -> bool {
    matches!(symptom, Symptom::NoGradient { fault: GradientFault::Zero, .. })
}

fn is_dead(symptom: &Symptom) -> bool {
    matches!(symptom, Symptom::DeadUnits { .. })
}

#[test]
fn planted_in_one_step() -> Result<()> {
    let x = normal(&[32, 8])?;
    let check = |model: &Model| model.check(&x, cross_entropy);

    // 1 to 3: gradients that are lost.
    let cut = network! { fc1: affine(16) -> relu -> detached -> out: affine(3) }.boxed().init(&x)?;
    let found = check(&cut)?;
    expect(&found, "fc1/affine/W", is_lost);
    expect(&found, "fc1/affine/b", is_lost);
    assert!(found.to_string().contains("`detached`"), "{found}");
    let zero = network! { fc1: affine(16) -> tanh -> fc2: affine(16) -> nothing -> out: affine(3) };
    expect(&check(&zero.boxed().init(&x)?)?, "fc2/affine/W", is_zero);
    let by_loss = mlp()?.check(&x, |y: &Tensor| square(&y.detach()));
    expect(&by_loss?, "out/affine/W", is_lost);

    // 4 to 6: dead units.
    let dead = mlp()?;
    set(&dead, "fc1/affine/b", |b| b - 100.0)?;
    expect(&check(&dead)?, "relu", is_dead);
    let saturated = mlp()?;
    set(&saturated, "fc2/affine/b", |b| b + 100.0)?;
    expect(&check(&saturated)?, "tanh", is_dead);
    let images = normal(&[4, 1, 12, 12])?;
    let maps = network! { c1: conv(8, (3, 3)) -> r1: relu -> max_pool((2, 2)) -> out: affine(3) };
    let maps = maps.boxed().init(&images)?;
    set(&maps, "c1/conv/b", |b| b - 50.0)?;
    expect(&maps.check(&images, cross_entropy)?, "r1", is_dead);

    // 7 to 12: numbers that are not finite.
    let is_output = |symptom: &Symptom| matches!(symptom, Symptom::OutputNotFinite);
    let log = network! { fc1: affine(16) -> logarithm -> out: affine(3) }.boxed().init(&x)?;
    expect_only(&check(&log)?, "logarithm", is_output);
    let large = network! { block: { fc1: affine(16) -> overflow } -> out: affine(3) }.boxed().init(&x)?;
    expect_only(&check(&large)?, "block/overflow", is_output);
    let poisoned = mlp()?;
    set(&poisoned, "fc2/affine/W", |w| w * f64::NAN)?;
    expect_only(&check(&poisoned)?, "fc2/affine/W", |symptom| matches!(symptom, Symptom::ParameterNotFinite));
    let bad_input = mlp()?.check(&(&x / 0.0)?, cross_entropy)?;
    expect_only(&bad_input, "input", |symptom| matches!(symptom, Symptom::InputNotFinite));
    let bad_loss = mlp()?.check(&x, |y: &Tensor| -> Result<Tensor> { Ok((y * 0.0)?.log()?.mean_all()?) });
    expect_only(&bad_loss?, "loss", |symptom| matches!(symptom, Symptom::LossNotFinite));
    let is_backward = |symptom: &Symptom| matches!(symptom, Symptom::GradientNotFinite { .. });
    let root = network! { fc1: affine(16) -> relu -> root_of_zero -> out: affine(3) }.boxed().init(&x)?;
    expect(&check(&root)?, "root_of_zero", is_backward);

    // 13 and 14: gradients that explode or vanish.
    let deep = |std: f64| -> Result<Model> {
        let init = Initializer::normal(std);
        let net = network! { move for i in 0..24 { fc[i]: affine(16, w_init = init.clone()) -> s[i]: sigmoid } -> out: affine(3) };
        net.boxed().init((32, 8))
    };
    let vanishes = |symptom: &Symptom| matches!(symptom, Symptom::VanishingGradient { .. });
    expect(&check(&deep(0.1)?)?, "fc0/affine/W", vanishes);
    let init = Initializer::normal(2.0);
    let linear =
        network! { move for i in 0..12 { fc[i]: affine(16, w_init = init.clone()) } -> out: affine(3) };
    let explodes = |symptom: &Symptom| matches!(symptom, Symptom::ExplodingGradient { .. });
    expect(&linear.boxed().init(&x)?.check(&x, square)?, "fc0/affine/W", explodes);

    // 15 to 17: inputs.
    let is_raw = |symptom: &Symptom| matches!(symptom, Symptom::InputNotNormalized { .. });
    expect(&mlp()?.check(&((&x * 60.0)? + 128.0)?, cross_entropy)?, "input", is_raw);
    expect(&mlp()?.check(&(&x * 1e-5)?, cross_entropy)?, "input", is_raw);
    expect(&mlp()?.check(&((&x * 0.01)? + 5.0)?, cross_entropy)?, "input", is_raw);

    // 18 and 19: labels.
    let failed = |symptom: &Symptom| matches!(symptom, Symptom::LossFailed { .. });
    let wrong = mlp()?.check(&x, |y| mean_softmax_cross_entropy(y, &labels(32, 4)?, 1))?;
    expect_only(&wrong, "loss", failed);
    let ignored = Tensor::full(-1i64, 32, &Device::Cpu)?;
    expect(&mlp()?.check(&x, |y| mean_softmax_cross_entropy(y, &ignored, 1))?, "out/affine/W", is_zero);

    // 20 and 21: one sample, and a part whose parameters are fixed while its statistics move.
    let one = normal(&[1, 8])?;
    let with_bn = network! { fc1: affine(16) -> norm: bn -> relu -> out: affine(3) }.boxed().init(&one)?;
    expect(&with_bn.check(&one, cross_entropy)?, "norm/bn", |symptom| matches!(symptom, Symptom::OneSample));
    let fixed = network! { fc1: affine(16) -> norm: bn(fix_parameters = true) -> relu -> out: affine(3) };
    let changed = |symptom: &Symptom| matches!(symptom, Symptom::FrozenChanged);
    expect(&check(&fixed.boxed().init(&x)?)?, "norm/bn/mean", changed);
    Ok(())
}

/// Some steps, each watched.
fn watched(
    model: &Model,
    solver: &mut dyn Solver,
    loss: impl Fn(&Tensor) -> Result<Tensor>,
    after: impl Fn() -> Result<()>,
) -> Result<Doctor> {
    let x = normal(&[32, 8])?;
    solver.set_parameters(&model.parameters());
    let mut doctor = Doctor::new(model.store()).every(1);
    for _ in 0..4 {
        let loss = loss(&model.forward(&x)?)?;
        let gradients = backward(&loss)?;
        if doctor.watch(&loss, &gradients, || solver.update(&gradients)).is_err() {
            break;
        }
        after()?;
    }
    Ok(doctor)
}

#[test]
fn planted_in_a_training() -> Result<()> {
    let nothing = || Ok(());

    // 22 and 23: the learning rate.
    let model = mlp()?;
    let doctor = watched(&model, &mut Adam::new(3.0), cross_entropy, nothing)?;
    expect(doctor.diagnosis(), "fc1/affine/W", |symptom| matches!(symptom, Symptom::StepTooLarge { .. }));
    let doctor = watched(&mlp()?, &mut Sgd::new(1e-8), cross_entropy, nothing)?;
    expect(doctor.diagnosis(), "fc1/affine/W", |symptom| matches!(symptom, Symptom::StepTooSmall { .. }));

    // 24: somebody moves what is frozen.
    let model = mlp()?;
    model.freeze("fc1/**")?;
    let drift = || set(&model, "fc1/affine/W", |w| w * 0.99);
    let doctor = watched(&model, &mut Sgd::new(0.1), cross_entropy, drift)?;
    expect(doctor.diagnosis(), "fc1/affine/W", |symptom| matches!(symptom, Symptom::FrozenChanged));

    // 25: a part that is cut off.
    let net = network! { fc1: affine(16) -> tanh -> cut: detached -> out: affine(3) };
    let doctor = watched(&net.boxed().init((32, 8))?, &mut Sgd::new(0.1), cross_entropy, nothing)?;
    expect(doctor.diagnosis(), "fc1/affine/b", is_lost);

    // 26: a gradient that is not finite, which the solver refuses.
    let model = mlp()?;
    let bad = |y: &Tensor| -> Result<Tensor> { Ok((y.sqr()?.mean_all()? * f64::INFINITY)?) };
    let doctor = watched(&model, &mut Sgd::new(0.1), bad, nothing)?;
    expect(doctor.diagnosis(), "loss", |symptom| matches!(symptom, Symptom::LossNotFinite));
    expect(doctor.diagnosis(), "fc1/affine/W", |symptom| {
        matches!(symptom, Symptom::GradientNotFinite { .. })
    });

    // Switched off, it says nothing.
    let mut off = Doctor::new(model.store()).every(0);
    let loss = Tensor::new(f32::NAN, &Device::Cpu)?;
    off.watch(&loss, &backward(&loss)?, || Ok(()))?;
    assert!(off.diagnosis().is_clean());
    Ok(())
}

#[test]
fn nothing_is_found_in_sound_networks() -> Result<()> {
    let images = |size: usize, maps: usize| normal(&[8, maps, size, size]);
    let classified = |model: &Model, x: &Tensor| -> Result<()> {
        let before = model.store().deep_copy()?;
        let found = model.check(x, cross_entropy)?;
        assert!(found.is_clean(), "{found}");
        for (path, parameter) in model.store().parameters() {
            let old: Parameter = before.get(&path).expect("the same paths");
            let change =
                (parameter.var().as_tensor() - old.var().as_tensor())?.abs()?.to_dtype(DType::F32)?;
            assert_eq!(change.sum_all()?.to_scalar::<f32>()?, 0.0, "`check` has moved {path}");
        }
        let mut solver = Adam::new(1e-3);
        solver.set_parameters(&model.parameters());
        let mut doctor = Doctor::new(model.store()).every(1);
        for _ in 0..4 {
            let loss = cross_entropy(&model.forward(x)?)?;
            let gradients = backward(&loss)?;
            doctor.watch(&loss, &gradients, || solver.update(&gradients))?;
        }
        assert!(doctor.diagnosis().is_clean(), "{}", doctor.diagnosis());
        Ok(())
    };
    ParameterStore::new().enter(|| {
        let x = images(28, 1)?;
        classified(&network! { lenet() }.boxed().init(&x)?, &x)?;
        let x = images(16, 3)?;
        classified(&network! { resnet20() }.boxed().init(&x)?, &x)?;
        classified(&network! { mobilenet(5) }.boxed().init(&x)?, &x)?;
        let x = normal(&[8, 6, 10])?;
        classified(&network! { lstm_classifier(12, 4) }.boxed().init(&x)?, &x)?;
        let x = images(16, 1)?;
        let model = network! { unet(4, 2) }.boxed().init(&x)?;
        let found = model.check(&x, square)?;
        assert!(found.is_clean(), "{found}");
        let x = normal(&[8, 784])?;
        let model = network! { autoencoder(16) }.init(&x)?;
        let found = model.check(&x, |(_, y)| -> Result<Tensor> { Ok((y - &x)?.sqr()?.mean_all()?) })?;
        assert!(found.is_clean(), "{found}");
        Ok(())
    })
}
