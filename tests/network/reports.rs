use candle_core::Tensor;
use layerfn::{
    Family, GradientFault, Network, ParameterStore, Result, get_all_parameters, is_training, network,
    parametric_function,
};

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
                ("body/fc1/dense", "dense", 16, Some(60)),
                ("body/relu", "relu", 0, Some(0)),
                ("body/dense", "dense", 16, Some(80)),
                ("body/scaling", "scaling", 4, Some(0)),
                ("body/residual", "residual", 0, Some(0)),
                ("tied/dense", "dense", 20, Some(80)),
                ("tied/dense#2", "dense", 0, Some(80)),
                ("times", "times", 0, Some(0)),
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

/// Two layers inside a layer.
#[parametric_function(scope = "pair")]
fn pair(inp: &Tensor) -> Result<Tensor> {
    let h = dense(inp, 5).name("first").call()?;
    dense(&h, 2).name("second").call()
}

/// Adds a vector, and does not say what that costs.
#[parametric_function(
    scope = "shift",
    params(
        /// What is added.
        b: [features] = 0.5,
    )
)]
fn shift(inp: &Tensor) -> Result<Tensor> {
    let features = inp.dim(1)?;
    Ok(inp.broadcast_add(&param!(b)?)?)
}

#[test]
fn a_layer_of_layers_multiplies_as_those_outside() -> Result<()> {
    let inside = network! { pair }.summary([(7, 3)])?;
    let outside = network! { dense(5) -> dense(2) }.summary([(7, 3)])?;
    assert_eq!(inside.multiply_adds(), 7 * (3 * 5 + 5 * 2));
    assert_eq!(inside.multiply_adds(), outside.multiply_adds());
    assert_eq!(inside.rows()[0].multiply_adds, Some(7 * (3 * 5 + 5 * 2)));
    Ok(())
}

#[test]
fn what_is_not_declared_is_unknown() -> Result<()> {
    let summary = network! { shift -> dense(5) -> n: shift }.summary([(7, 3)])?;
    let counts: Vec<_> = summary.rows().iter().map(|row| row.multiply_adds).collect();
    assert_eq!(counts, [None, Some(7 * 3 * 5), None]);
    let text = summary.to_string();
    let line = "multiply-adds: 105, and those of `shift`, `n/shift`, which are not declared\n";
    assert!(text.contains(line), "{text}");
    Ok(())
}

#[test]
fn layers_of_the_crate_declare_family_and_cost() {
    for layer in layerfn::LAYERS {
        assert!(layer.multiply_adds.is_some(), "{}", layer.name);
        assert_ne!(layer.family, Family::Other, "{}", layer.name);
    }
}

#[test]
fn convolutions_multiply_once_for_each_tap_and_output() -> Result<()> {
    let count = |net: Network| -> Result<u64> { Ok(net.summary([(2, 4, 9, 7)])?.multiply_adds()) };
    let conv = network! { layerfn::conv(6, (3, 2), stride = 2, group = 2) }.boxed();
    assert_eq!(count(conv)?, 2 * 6 * 4 * 3 * (4 / 2) * 6);
    assert_eq!(
        count(network! { layerfn::depthwise_convolution((3, 3), multiplier = 2) }.boxed())?,
        2 * 8 * 7 * 5 * 9
    );
    let deconv = network! { layerfn::deconvolution(6, (2, 2), stride = 2, group = 2) }.boxed();
    assert_eq!(count(deconv)?, 2 * 4 * 9 * 7 * (6 / 2) * 4);
    assert_eq!(
        count(network! { layerfn::depthwise_deconvolution((2, 2), divisor = 2) }.boxed())?,
        2 * 4 * 63 * 4
    );
    // The two parts of a factorized layer: every map by itself, then all of them at each place.
    let svd = network! { layerfn::svd_convolution(6, (3, 3), 2) }.boxed();
    assert_eq!(count(svd)?, 2 * 7 * 5 * (4 * 2 * 9 + 4 * 2 * 6));
    assert_eq!(count(network! { layerfn::svd_affine(5, 3) }.boxed())?, 2 * (4 * 9 * 7 * 3 + 3 * 5));
    let cpd = network! { layerfn::cpd3_convolution(6, (3, 3), 2, max_iter = 1) }.boxed();
    assert_eq!(count(cpd)?, 2 * (4 * 63 * 2 + 35 * 2 * 9 + 35 * 2 * 6));
    Ok(())
}

#[test]
fn rows_have_paths_of_their_own() -> Result<()> {
    let net = network! {
        < residual { a: dense(3) -> relu } -> residual { b: dense(3) -> relu } -> for _ in 0..2 { (|x| x * 1.0) } >
    };
    let summary = net.summary([(2, 3)])?;
    let paths: Vec<_> = summary.rows().iter().map(|row| row.path.as_str()).collect();
    assert_eq!(
        paths,
        ["a/dense", "relu", "residual", "b/dense", "relu_2", "residual#2", "closure", "closure#2"]
    );
    Ok(())
}

#[test]
fn boxes_show_what_the_caller_gave() -> Result<()> {
    let net = network! {
        c: layerfn::conv(6, (3, 2), stride = 2, pad = (1, 0), w_init = 0.5) -> layerfn::max_pool((2, 2)) -> layerfn::affine(4)
    };
    let summary = net.summary([(1, 4, 9, 7)])?;
    for picture in [summary.to_dot(), summary.to_mermaid(), summary.to_svg()] {
        for text in ["outmaps 6, kernel 3×2, pad 1×0", "stride 2", "kernel 2×2", "n_outmaps 4"] {
            assert!(picture.contains(text), "{text} is missing in {picture}");
        }
        assert!(!picture.contains("w_init") && !picture.contains("with_bias"), "{picture}");
    }
    Ok(())
}

#[test]
fn the_family_gives_the_colour() -> Result<()> {
    /// Of a name that says nothing.
    #[parametric_function(family = Pooling)]
    fn convoluted(inp: &Tensor) -> Result<Tensor> {
        Ok(inp.clone())
    }
    let colour = |net: Network| -> Result<String> {
        let dot = net.summary([(1, 2, 8, 8)])?.to_dot();
        Ok(dot.split("fillcolor=").nth(1).unwrap()[..9].to_owned())
    };
    let pooling = colour(network! { layerfn::max_pool((2, 2)) }.boxed())?;
    assert_eq!(colour(network! { convoluted }.boxed())?, pooling);
    assert_ne!(colour(network! { layerfn::conv(2, (3, 3)) }.boxed())?, pooling);
    Ok(())
}

/// The shares in the table of a profile, in tenths of a percent.
fn shares(profile: &layerfn::Profile) -> Vec<u32> {
    let text = profile.to_string();
    let cells = text.lines().flat_map(|line| line.split(['│', '┆'])).map(str::trim);
    let shares = cells.filter_map(|cell| cell.strip_suffix(" %"));
    shares.map(|share| share.replace('.', "").parse().unwrap()).collect()
}

#[test]
fn the_shares_of_a_profile_add_up() -> Result<()> {
    ParameterStore::new().enter(|| {
        let slow = |x: &Tensor| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            x * 1.0
        };
        let net = network! { < dense(3) -> residual { residual { slow -> dense(3) -> pair -> dense(3) } } -> shift > };
        let profile = net.profile(&input(3)?, |y: &Tensor| y.sum_all())?;
        let shares = shares(&profile);
        assert_eq!(shares.len(), profile.rows().len() + 1, "{profile}");
        assert_eq!(shares.iter().sum::<u32>(), 1000, "{profile}");
        let forward: std::time::Duration = profile.rows().iter().map(|row| row.forward).sum();
        assert!(forward <= profile.forward(), "{profile}");
        let paths: Vec<_> = profile.rows().iter().map(|row| row.path.as_str()).collect();
        let inner = ["slow", "dense_2/dense", "pair", "dense_3/dense"];
        assert_eq!(paths, [&["dense"], &inner[..], &["residual", "residual#2", "shift"]].concat());
        Ok(())
    })
}

#[test]
fn running_statistics_are_not_trained() -> Result<()> {
    let summary = network! { layerfn::bn }.summary([(2, 3)])?;
    let counts = (summary.parameter_count(), summary.all_parameter_count());
    assert_eq!(counts, (6, 12));
    assert_eq!((summary.rows()[0].parameter_count(true), summary.rows()[0].parameter_count(false)), (6, 12));
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

#[test]
fn a_variable_of_two_paths_counts_once() -> Result<()> {
    ParameterStore::new().enter(|| {
        let net = network! { a: dense(3) -> b: dense(3) };
        net.forward(&input(3)?)?;
        layerfn::set_parameter("b/dense/W", layerfn::get_parameter("a/dense/W").unwrap())?;
        let summary = net.summary([(2, 3)])?;
        assert_eq!((summary.parameter_count(), summary.parameter_bytes()), (9 + 3 + 3, 4 * 15));
        let shared: Vec<_> = summary.rows()[1].parameters.iter().map(|parameter| parameter.shared).collect();
        assert_eq!(shared, [true, false]);
        Ok(())
    })
}

#[test]
fn stages_on_several_threads_keep_apart() -> Result<()> {
    let both_run = std::sync::Barrier::new(2);
    let meet = |x: &Tensor| {
        both_run.wait();
        Ok::<_, layerfn::Error>(x.clone())
    };
    let a = network! { a: { dense(2) -> (|x: &Tensor| meet(x)) } };
    let b = network! { b: { dense(3) -> (|x: &Tensor| meet(x)) } };
    let net = network! {
        first: dense(4)
            -> (|x: &Tensor| {
                let context = layerfn::Context::current();
                std::thread::scope(|threads| {
                    let other = threads.spawn(|| context.enter(|| b.forward(x)));
                    context.enter(|| a.forward(x))?;
                    other.join().unwrap()
                })
            })
            -> last: dense(1)
    };
    let summary = ParameterStore::new().enter(|| net.summary([(2, 3)]))?;
    let mut rows: Vec<_> =
        summary.rows().iter().map(|row| (row.path.as_str(), row.parameter_count(false))).collect();
    rows.sort_unstable();
    let expected =
        [("a/dense", 4 * 2 + 2), ("b/dense", 4 * 3 + 3), ("first/dense", 3 * 4 + 4), ("last/dense", 3 + 1)];
    assert_eq!(rows.into_iter().filter(|(_, n)| *n > 0).collect::<Vec<_>>(), expected);
    Ok(())
}
