use candle_core::Tensor;
use layerfn::{GradientFault, ParameterStore, Result, get_all_parameters, is_training, network};

use super::layers::{dense, relu, scaling, times};
use super::{input, paths_of};

fn cut(x: &Tensor) -> Result<Tensor> {
    Ok(x.detach())
}

fn dead(x: &Tensor) -> candle_core::Result<Tensor> {
    (x.sqr()? * -1.0)?.relu()
}

#[test]
fn a_summary_counts() -> Result<()> {
    let net = network! {
        body: { fc1: dense(4) -> relu -> residual { dense(4, with_bias = false) -> scaling } }
            -> shared tied: dense(4) -> shared tied: dense(4) -> times(2.0)
    };
    let paths = paths_of(|| {
        let summary = net.summary([(5, 3)])?;
        let rows: Vec<_> = summary
            .rows()
            .iter()
            .map(|row| (row.path.as_str(), row.layer.as_str(), row.parameter_count(false), row.multiply_adds))
            .collect();
        assert_eq!(
            rows,
            [
                ("body/fc1/dense", "dense", 16, 60),
                ("body/relu", "relu", 0, 0),
                ("body/residual", "residual", 0, 0),
                ("body/dense", "dense", 16, 80),
                ("body/scaling", "scaling", 4, 0),
                ("tied/dense", "dense", 20, 80),
                ("tied/dense", "dense", 0, 80),
                ("times", "times", 0, 0),
            ]
        );
        assert_eq!(summary.parameter_count(), 16 + 16 + 4 + 20);
        assert_eq!(summary.rows()[0].inputs, [[5, 3]]);
        assert_eq!(summary.rows()[0].outputs, [[5, 4]]);
        assert_eq!(summary.rows()[0].bytes, 5 * 4 * 4);
        let text = summary.to_string();
        assert!(text.contains("parameters:    56 trained, 56 in all, 224 B"), "{text}");
        assert!(text.contains("shared"), "{text}");
        Ok(())
    })?;
    assert!(paths.is_empty(), "a summary leaves nothing behind: {paths:?}");
    Ok(())
}

#[test]
fn multiply_adds_count_weights_once_for_each_use() -> Result<()> {
    let count = |summary: layerfn::Summary| summary.multiply_adds();
    let steps = network! { recurrent_lstm(6) };
    let per_step = (3 + 6) * 4 * 6;
    assert_eq!(count(steps.summary([(2, 5, 3)])?), 2 * 5 * per_step, "two samples, five steps");
    let tuple = network! { layerfn::affine((2, 4)) };
    assert_eq!(count(tuple.summary([(5, 3)])?), 5 * 3 * 8, "a bias of two axes is added only");
    Ok(())
}

fn recurrent_lstm(x: &Tensor, state_size: usize) -> Result<Tensor> {
    let mut cell = layerfn::LSTMCell::new(x.dim(0)?, state_size);
    let mut h = Tensor::zeros((x.dim(0)?, state_size), x.dtype(), x.device())?;
    for t in 0..x.dim(1)? {
        h = cell.step(&x.get_on_dim(1, t)?)?;
    }
    Ok(h)
}

#[test]
fn pictures_hold_every_stage() -> Result<()> {
    let net = network! {
        |_x, y|
        < body: { fc1: dense(4) -> add { _, dense(4) -> relu } }
       -> add { _, use(y) -> dense(4) } >
    };
    let summary = net.summary([(1, 4), (1, 4)])?;
    for (name, picture) in
        [("dot", summary.to_dot()), ("mermaid", summary.to_mermaid()), ("svg", summary.to_svg())]
    {
        for word in ["body", "fc1: dense", "dense", "relu", "add", "input", "20 parameters"] {
            assert!(picture.contains(word), "{name}: {word} is missing in {picture}");
        }
    }
    assert_eq!(summary.to_svg().matches("<rect").count(), 1 + 1 + 6, "page, block, stages");
    Ok(())
}

#[test]
fn the_audit_finds_the_stage_that_cuts_the_gradient() -> Result<()> {
    ParameterStore::new().enter(|| {
        let x = input(3)?;
        let sum = |y: &Tensor| y.sqr()?.sum_all();
        let net = network! { a: { fc1: dense(4) -> relu } -> cut -> fc2: dense(2) };
        let audit = net.gradient_audit(&x, sum)?;
        let texts: Vec<_> = audit.findings().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "`a/fc1/dense/W` got no gradient; the chain broke in `cut` (cut)",
                "`a/fc1/dense/b` got no gradient; the chain broke in `cut` (cut)",
            ]
        );
        assert!(audit.to_string().starts_with("2 of 4 trained parameters are not trained:"));

        let net = network! { b: { dense(4) -> add { _, times(2.0) } -> dead } -> c: dense(2) };
        let audit = net.gradient_audit(&x, sum)?;
        assert_eq!(audit.findings()[0].fault, GradientFault::Zero);
        assert_eq!(audit.findings()[0].stage.as_deref(), Some("b/dead"));

        let net = network! { d: { dense(4) -> dead -> root: (|x: &Tensor| x.sqrt()) } };
        let audit = net.gradient_audit(&x, sum)?;
        assert_eq!(audit.findings()[0].fault, GradientFault::NotFinite);
        assert_eq!(audit.findings()[0].stage.as_deref(), Some("d/root"));

        let net = network! { e: { dense(4) -> relu -> dense(2) } };
        let audit = net.gradient_audit(&x, sum)?;
        assert!(audit.is_clean(), "{audit}");
        assert_eq!(audit.to_string(), "all 4 trained parameters got a gradient");
        Ok(())
    })
}

#[test]
fn a_profile_times_each_stage() -> Result<()> {
    ParameterStore::new().enter(|| {
        let slow = |x: &Tensor| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            assert!(is_training());
            x * 1.0
        };
        let net = network! { fc: dense(4) -> slow -> relu };
        let profile = net.profile(&input(3)?, |y: &Tensor| y.sum_all())?;
        let rows: Vec<_> = profile.rows().iter().map(|row| row.path.as_str()).collect();
        assert_eq!(rows, ["fc/dense", "slow", "relu"]);
        assert!(profile.rows()[1].forward.as_millis() >= 5);
        assert!(profile.rows().iter().all(|row| !row.backward.is_zero()));
        assert_eq!(profile.activation_bytes(), 3 * 2 * 4 * 4);
        assert!(profile.to_string().contains("forward: "));
        assert_eq!(get_all_parameters().len(), 2);
        Ok(())
    })
}
