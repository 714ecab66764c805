//! Initializers: the rules for their width, NNabla's samples, distributions, and what values depend on.

use candle_core::{DType, Device, Tensor};
use layerfn::{
    Initializer, ParameterStore, Rng, calc_normal_std_glorot, calc_normal_std_he_backward,
    calc_normal_std_he_forward, calc_normal_std_xavier, calc_uniform_lim_glorot, calc_uniform_lim_xavier,
    get_parameter_or_create, parameter_scope,
};
use layerfn_tests::support::compare::{difference, values};
use layerfn_tests::support::fixtures::{Tensors, folder, given_folder, json};

use crate::refused_calls::sizes;

#[test]
fn calculators_match_nnabla_and_the_documented_formula() {
    let Some(file) = json("initializers.json") else { return };
    let table = file["table"].as_array().expect("table");
    for row in table {
        let count = |key: &str| row[key].as_u64().expect("a count") as usize;
        let (n, m, kernel) = (count("inmaps"), count("outmaps"), sizes(&row["kernel"]));
        let close = |name: &str, got: f64, want: f64| {
            assert!(
                (got - want).abs() <= 1e-15 * want.abs(),
                "{name}({n}, {m}, {kernel:?}) = {got}, expected {want}"
            );
        };
        let recorded = |key: &str| row[key].as_f64().expect("a number");
        let name = "calc_normal_std_he_forward";
        close(name, calc_normal_std_he_forward(n, m, &kernel), recorded(name));
        let name = "calc_normal_std_he_backward";
        close(name, calc_normal_std_he_backward(n, m, &kernel), recorded(name));
        // What NNabla computes today has a name of its own here.
        close(
            "calc_normal_std_xavier",
            calc_normal_std_xavier(n, m, &kernel),
            recorded("calc_normal_std_glorot"),
        );
        let limits = calc_uniform_lim_xavier(n, m, &kernel);
        let want = &row["calc_uniform_lim_glorot"];
        close("calc_uniform_lim_xavier", limits.0, want[0].as_f64().expect("lower"));
        close("calc_uniform_lim_xavier", limits.1, want[1].as_f64().expect("upper"));
        // The documented rule: N K + M under the root.
        let sum = (n * kernel.iter().product::<usize>() + m) as f64;
        close("calc_normal_std_glorot", calc_normal_std_glorot(n, m, &kernel), (2.0 / sum).sqrt());
        let limits = calc_uniform_lim_glorot(n, m, &kernel);
        close("calc_uniform_lim_glorot", limits.1, (6.0 / sum).sqrt());
        assert_eq!(limits.0, -limits.1);
        if kernel.iter().product::<usize>() == 1 {
            assert_eq!(calc_normal_std_glorot(n, m, &kernel), calc_normal_std_xavier(n, m, &kernel));
        }
    }
    assert!(!table.is_empty());
}

#[test]
fn the_documented_glorot_rule_by_hand() {
    // N = 3, M = 4, K = 9: 27 + 4 against 9 (3 + 4).
    assert_eq!(calc_uniform_lim_glorot(3, 4, &[3, 3]).1, (6.0f64 / 31.0).sqrt());
    assert_eq!(calc_uniform_lim_xavier(3, 4, &[3, 3]).1, (6.0f64 / 63.0).sqrt());
    assert_eq!(calc_normal_std_glorot(3, 4, &[3, 3]), (2.0f64 / 31.0).sqrt());
    assert_eq!(calc_normal_std_xavier(3, 4, &[3, 3]), (2.0f64 / 63.0).sqrt());
}

#[test]
fn samples_match_nnabla_bit_for_bit() {
    let Some(file) = json("initializers.json") else { return };
    let path = folder().join("initializer_samples.safetensors");
    if given_folder().is_some() && !path.exists() {
        eprintln!("skipped: no {}", path.display());
        return;
    }
    let tensors = Tensors::load(&path).unwrap();
    for sample in file["samples"].as_array().expect("samples") {
        let number = |key: &str, default: f64| sample[key].as_f64().unwrap_or(default);
        let initializer = match sample["kind"].as_str().expect("kind") {
            "constant" => Initializer::constant(number("value", 0.0)),
            "normal" => Initializer::normal(number("sigma", 1.0)),
            _ => {
                let limit = |i: usize, default| sample["lim"][i].as_f64().unwrap_or(default);
                Initializer::uniform(limit(0, -1.0), limit(1, 1.0))
            }
        };
        let rng = sample["seed"].as_u64().map(|seed| Rng::new(seed as u32));
        let stream = || Rng::new(0);
        let got = initializer
            .with_rng(rng.as_ref())
            .generate(&sizes(&sample["shape"]), DType::F32, &Device::Cpu, stream)
            .unwrap();
        let want = tensors.float(sample["tensor"].as_str().expect("tensor")).unwrap();
        assert_eq!(difference(&got, &want, None), None, "{sample}");
    }
}

#[test]
fn a_generator_given_is_drawn_from_in_order() {
    let (one, two) = (Rng::new(7), Rng::new(7));
    let draw = |rng: &Rng, n: usize| {
        let initializer = Initializer::uniform(0.0, 1.0).with_rng(rng);
        values(
            &initializer
                .generate(&[n], DType::F64, &Device::Cpu, || unreachable!("a generator is given"))
                .unwrap(),
        )
    };
    let both = [draw(&one, 3), draw(&one, 2)].concat();
    assert_eq!(both, draw(&two, 5));
    assert_eq!(both, (0..5).scan(Rng::new(7), |rng, _| Some(rng.uniform())).collect::<Vec<_>>());
    // The one given first stays.
    let initializer = Initializer::normal(1.0).with_rng(&Rng::new(1)).with_rng(&Rng::new(2));
    let got = initializer.generate(&[1], DType::F64, &Device::Cpu, || Rng::new(3)).unwrap();
    assert_eq!(values(&got), [Rng::new(1).normal()]);
}

#[test]
fn numbers_tensors_and_closures_are_initializers() {
    let ramp = Tensor::new(&[1f32, 2.0, 3.0], &Device::Cpu).unwrap();
    let generate = |initializer: Initializer, shape: &[usize]| {
        initializer.generate(shape, DType::F32, &Device::Cpu, || Rng::new(0))
    };
    assert_eq!(values(&generate(Initializer::from(0.5), &[2]).unwrap()), [0.5, 0.5]);
    assert_eq!(values(&generate(Initializer::from(&ramp), &[3]).unwrap()), [1.0, 2.0, 3.0]);
    let closure = Initializer::from(|shape: &[usize]| Ok(Tensor::full(2f32, shape, &Device::Cpu)?));
    assert_eq!(values(&generate(closure.clone(), &[2]).unwrap()), [2.0, 2.0]);
    let error = generate(Initializer::from(ramp), &[2]).unwrap_err().to_string();
    assert_eq!(error, "`initializer` must give the parameter's shape [2], got [3]");
    let wrong = Initializer::from(|_: &[usize]| Ok(Tensor::full(2f32, 5, &Device::Cpu)?));
    assert!(generate(wrong, &[2]).unwrap_err().to_string().ends_with("got [5]"));
    for bad in [Initializer::normal(f64::NAN), Initializer::normal(-1.0), Initializer::uniform(1.0, -1.0)] {
        assert!(generate(bad, &[2]).unwrap_err().to_string().contains("finite limits in order"));
    }
}

/// The value of a new parameter at `path` in a store with `seed`.
fn created(seed: u64, path: &str, shape: &[usize], initializer: &Initializer) -> Vec<f64> {
    ParameterStore::with_seed(seed).enter(|| created_here(path, shape, initializer))
}

fn created_here(path: &str, shape: &[usize], initializer: &Initializer) -> Vec<f64> {
    let tensor = get_parameter_or_create(path).shape(shape).initializer(initializer.clone()).call().unwrap();
    values(&tensor)
}

#[test]
fn a_value_does_not_depend_on_the_order_of_creation() {
    let paths = ["a/W", "a/b", "b/W", "ab/c", "a/bc"];
    let uniform = Initializer::uniform(-1.0, 1.0);
    let create = |order: &mut dyn Iterator<Item = &&str>| {
        ParameterStore::with_seed(5).enter(|| {
            for path in order {
                created_here(path, &[4, 3], &uniform);
            }
            paths.map(|path| created_here(path, &[4, 3], &uniform))
        })
    };
    let forward = create(&mut paths.iter());
    assert_eq!(forward, create(&mut paths.iter().rev()));
    assert_eq!(forward, paths.map(|path| created(5, path, &[4, 3], &uniform)));
}

#[test]
fn a_value_does_not_depend_on_threads() {
    let uniform = Initializer::uniform(-1.0, 1.0);
    let store = ParameterStore::with_seed(5);
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let (store, uniform) = (store.clone(), &uniform);
            threads.spawn(move || {
                // Each thread begins elsewhere, so that they meet in different orders.
                let create = |i: usize| created_here(&format!("p{}/W", (i + 4 * thread) % 32), &[7], uniform);
                store.enter(|| (0..32).map(create).for_each(drop));
            });
        }
    });
    for (path, parameter) in store.parameters().iter() {
        assert_eq!(values(parameter.var()), created(5, path, &[7], &uniform), "{path}");
    }
    assert_eq!(store.parameters().len(), 32);
}

#[test]
fn a_value_depends_on_the_path_not_on_how_it_is_spelled() {
    let uniform = Initializer::uniform(-1.0, 1.0);
    let plain = created(5, "a/b/W", &[4], &uniform);
    for (scope, name) in [("a", "b/W"), ("a/b", "W"), ("/a//b/", "W"), ("", "/a/b/W")] {
        let nested = ParameterStore::with_seed(5)
            .enter(|| parameter_scope(scope, || created_here(name, &[4], &uniform)));
        assert_eq!(nested, plain, "`{scope}` and `{name}`");
    }
}

#[test]
fn whatever_differs_gives_another_value() {
    let uniform = Initializer::uniform(-1.0, 1.0);
    let variants = [
        ("the base", created(5, "ab/c", &[6], &uniform)),
        ("another seed", created(6, "ab/c", &[6], &uniform)),
        ("a seed that differs in its upper half", created(5 + (1 << 32), "ab/c", &[6], &uniform)),
        ("letters moved across the slash", created(5, "a/bc", &[6], &uniform)),
        ("no slash", created(5, "abc", &[6], &uniform)),
        ("another last letter", created(5, "ab/d", &[6], &uniform)),
        ("a longer name", created(5, "ab/c0", &[6], &uniform)),
        ("a control character more", created(5, "ab/c\u{1}", &[6], &uniform)),
        ("another name far down", created(5, &format!("{}/c", "long/".repeat(40)), &[6], &uniform)),
        ("another letter further down", created(5, &format!("{}/d", "long/".repeat(40)), &[6], &uniform)),
        ("another shape of as many elements", created(5, "ab/c", &[2, 3], &uniform)),
        ("an axis of size 1 more", created(5, "ab/c", &[6, 1], &uniform)),
    ];
    for (i, (what, one)) in variants.iter().enumerate() {
        for (other, two) in &variants[..i] {
            let equal = one.iter().zip(two).filter(|(a, b)| a == b).count();
            assert_eq!(equal, 0, "{what} and {other} share {equal} numbers");
        }
    }
    // Another interval is not the same draw on another scale.
    let wide = created(5, "ab/c", &[6], &Initializer::uniform(-2.0, 2.0));
    assert!(wide.iter().zip(&variants[0].1).all(|(wide, base)| (wide - 2.0 * base).abs() > 1e-6));
}

#[test]
fn single_precision_is_the_rounded_double() {
    for initializer in [Initializer::normal(0.3), Initializer::uniform(-0.1, 0.7), Initializer::constant(0.1)]
    {
        let generate = |dtype| initializer.generate(&[1000], dtype, &Device::Cpu, || Rng::new(9)).unwrap();
        let double = generate(DType::F64);
        let rounded: Vec<f64> = values(&double).into_iter().map(|value| f64::from(value as f32)).collect();
        assert_eq!(values(&generate(DType::F32)), rounded);
    }
}

/// Greatest distance of the empirical distribution of `sample` from `cdf`.
fn kolmogorov_smirnov(mut sample: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    sample.sort_by(f64::total_cmp);
    let n = sample.len() as f64;
    sample.iter().enumerate().fold(0.0, |distance: f64, (i, &x)| {
        let f = cdf(x);
        distance.max(f - i as f64 / n).max((i + 1) as f64 / n - f)
    })
}

/// The distance that a true sample exceeds with probability `alpha` at most (Dvoretzky–Kiefer–Wolfowitz, with
/// Massart's constant: it holds for every n, and is the limit of Kolmogorov's distribution in the tail).
fn critical_distance(n: usize, alpha: f64) -> f64 {
    ((2.0 / alpha).ln() / (2.0 * n as f64)).sqrt()
}

fn normal_cdf(x: f64) -> f64 {
    // P(Z <= x) by Taylor's series of the integral, exact to rounding where samples lie.
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum, mut k) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        k += 2.0;
        term *= x * x / k;
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

const SEEDS: [u64; 5] = [0, 1, 313, 314, 1 << 40];
const PATHS: [&str; 6] = ["W", "net/conv1/conv/W", "net/conv2/conv/W", "ab/c", "a/bc", "x/y/z/0/1/2/W"];
/// One test in ten thousand may fail by chance over everything that a test function looks at.
const ALPHA: f64 = 1e-4;

#[test]
fn distributions_pass_kolmogorov_smirnov() {
    let n = 4000;
    let sigma = 0.05;
    let (low, high) = (-0.3, 0.5);
    type Cdf = Box<dyn Fn(f64) -> f64>;
    let kinds: [(Initializer, Cdf); 2] = [
        (Initializer::normal(sigma), Box::new(move |x| normal_cdf(x / sigma))),
        (Initializer::uniform(low, high), Box::new(move |x| ((x - low) / (high - low)).clamp(0.0, 1.0))),
    ];
    let alpha = ALPHA / (2 * (SEEDS.len() * PATHS.len() + 1)) as f64;
    for (initializer, cdf) in &kinds {
        let mut pooled = Vec::new();
        for seed in SEEDS {
            for path in PATHS {
                let sample = created(seed, path, &[n / 40, 40], initializer);
                pooled.extend_from_slice(&sample);
                let (distance, critical) = (kolmogorov_smirnov(sample, cdf), critical_distance(n, alpha));
                assert!(
                    distance < critical,
                    "{initializer:?} at {path}, seed {seed}: {distance} >= {critical}"
                );
            }
        }
        // Together they show what is small in each: a bias, or values that repeat.
        let critical = critical_distance(pooled.len(), alpha);
        let distance = kolmogorov_smirnov(pooled, cdf);
        assert!(distance < critical, "{initializer:?}, all together: {distance} >= {critical}");
    }
}

#[test]
fn the_test_of_distributions_can_fail() {
    let n = 4000;
    let sample = created(0, "W", &[n], &Initializer::normal(1.0));
    assert!((normal_cdf(1.0) - 0.841_344_746_068_542_9).abs() < 1e-14);
    assert!((normal_cdf(-3.0) - 0.001_349_898_031_630_094_6).abs() < 1e-14);
    let critical = critical_distance(n, ALPHA);
    for (what, distance) in [
        ("a fifth narrower", kolmogorov_smirnov(sample.clone(), |x| normal_cdf(x / 1.25))),
        ("shifted", kolmogorov_smirnov(sample.clone(), |x| normal_cdf(x - 0.15))),
        ("uniform of the same variance", {
            let limit = 3f64.sqrt();
            kolmogorov_smirnov(sample, |x| ((x + limit) / (2.0 * limit)).clamp(0.0, 1.0))
        }),
    ] {
        assert!(distance > critical, "{what}: {distance} <= {critical}");
    }
}

#[test]
fn neighbouring_parameters_are_uncorrelated() {
    let n = 4000;
    let initializer = Initializer::normal(1.0);
    let correlation = |a: &[f64], b: &[f64]| {
        let moment = |f: &dyn Fn(usize) -> f64| (0..a.len().min(b.len())).map(f).sum::<f64>();
        let product = moment(&|i| a[i] * b[i]);
        product / (moment(&|i| a[i] * a[i]) * moment(&|i| b[i] * b[i])).sqrt()
    };
    let mut pairs = Vec::new();
    for i in 0..20 {
        let here = created(1, &format!("layer{i}/W"), &[n], &initializer);
        pairs.push((
            format!("next layer {i}"),
            here.clone(),
            created(1, &format!("layer{}/W", i + 1), &[n], &initializer),
        ));
        pairs.push((
            format!("next seed {i}"),
            here.clone(),
            created(2, &format!("layer{i}/W"), &[n], &initializer),
        ));
        pairs.push((
            format!("next name {i}"),
            here.clone(),
            created(1, &format!("layer{i}/X"), &[n], &initializer),
        ));
        pairs.push((format!("next element {i}"), here[1..].to_vec(), here));
    }
    // Far out, r sqrt(n) is a standard normal; two-sided, over all pairs.
    let alpha = ALPHA / pairs.len() as f64;
    let critical = (2.0 * (1.0 / alpha).ln()).sqrt();
    assert!(2.0 * (1.0 - normal_cdf(critical)) < alpha);
    for (what, a, b) in pairs {
        let z = correlation(&a, &b) * (n as f64).sqrt();
        assert!(z.abs() < critical, "{what}: {z} standard deviations, {critical} allowed");
    }
}

#[test]
fn constants_and_samples_say_what_they_are() {
    assert_eq!(format!("{:?}", Initializer::normal(0.5)), "normal(0.5)");
    assert_eq!(format!("{:?}", Initializer::uniform(-1.0, 1.0)), "uniform(-1, 1)");
    assert_eq!(format!("{:?}", Initializer::from(0.25)), "constant(0.25)");
}
