//! How layers use the store: types, flags, modes, sharing and error texts.

use candle_core::{DType, Device, Tensor, Var};
use layerfn::{
    Error, Parameter, ParameterStore, Result, SelectionAlgorithm, affine, backward, batch_normalization,
    convolution, embed, get_all_parameters, get_parameter, get_parameters, inq_affine, mean_subtraction,
    no_grad, parameter_scope, parametric_function, prelu, set_parameter, test_mode, train_mode,
};
use layerfn_tests::support::compare::{difference, values};

use crate::zeros;

/// Different numbers in (-1, 1).
fn input(shape: &[usize], dtype: DType) -> Tensor {
    layerfn_tests::values(shape, 1).to_dtype(dtype).unwrap()
}

fn fresh<R>(f: impl FnOnce() -> R) -> R {
    ParameterStore::new().enter(f)
}

fn dtypes() -> Vec<(String, DType)> {
    get_all_parameters().iter().map(|(path, parameter)| (path.to_owned(), parameter.var().dtype())).collect()
}

#[test]
fn new_parameters_have_the_type_of_the_input() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        fresh(|| {
            let y = affine(&input(&[2, 3], dtype), 4).call().unwrap();
            assert_eq!(y.dtype(), dtype);
            assert!(dtypes().iter().all(|(_, stored)| *stored == dtype), "{:?}", dtypes());
        });
    }
    fresh(|| {
        embed(&zeros(&[3], DType::U32), 5, 2).call().unwrap();
        assert_eq!(dtypes(), [("embed/W".to_owned(), DType::F32)], "indices say nothing of the type");
    });
}

#[test]
fn statistics_of_half_precisions_are_single() {
    for dtype in [DType::F16, DType::BF16] {
        fresh(|| {
            let x = (input(&[64, 3], dtype) + 300.0).unwrap();
            for _ in 0..300 {
                assert_eq!(batch_normalization(&x).decay_rate(0.99).call().unwrap().dtype(), dtype);
                assert_eq!(mean_subtraction(&x).call().unwrap().dtype(), dtype);
            }
            assert_eq!(test_mode(|| batch_normalization(&x).call()).unwrap().dtype(), dtype);
            let exact = x.to_dtype(DType::F64).unwrap().mean(0).unwrap().to_vec1::<f64>().unwrap();
            let stored = |path: &str| get_parameter(path).unwrap().var().clone();
            for path in ["bn/mean", "mean_subtraction/mean"] {
                assert_eq!(stored(path).dtype(), DType::F32);
                // bf16 has 8 bits: it would stop at about half of it, and count to 256.
                let wanted = if path == "bn/mean" { 1.0 - 0.99f64.powi(300) } else { 1.0 };
                for (got, exact) in values(&stored(path)).iter().zip(&exact) {
                    assert!((got / (exact * wanted) - 1.0).abs() < 1e-4, "{path}: {got}, not {exact}");
                }
            }
            assert_eq!(values(&stored("mean_subtraction/t")), [300.0]);
            assert_eq!(stored("bn/gamma").dtype(), dtype);
        });
    }
}

#[test]
fn initial_values_of_layers_in_both_precisions_agree() {
    let weights = |dtype| {
        fresh(|| {
            affine(&input(&[2, 3], dtype), 4).call().unwrap();
            get_parameter("affine/W").unwrap().var().to_dtype(DType::F32).unwrap()
        })
    };
    assert_eq!(difference(&weights(DType::F64), &weights(DType::F32), None), None);
}

#[test]
fn a_parameter_of_another_precision_takes_part_in_that_of_the_input() {
    fresh(|| {
        let (single, double) = (input(&[2, 3], DType::F32), input(&[2, 3], DType::F64));
        let y32 = affine(&single, 4).call().unwrap();
        let y64 = affine(&double, 4).call().unwrap();
        assert_eq!(y64.dtype(), DType::F64);
        assert!(dtypes().iter().all(|(_, stored)| *stored == DType::F32), "the stored type stays");
        assert!(values(&y32).iter().zip(values(&y64)).all(|(a, b)| (a - b).abs() < 1e-6));
        let gradients = y64.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for (path, parameter) in get_parameters().iter() {
            let gradient = gradients.get(parameter.var()).unwrap_or_else(|| panic!("no gradient of {path}"));
            assert!(values(gradient).iter().any(|&g| g != 0.0), "{path}");
        }
        // Running statistics are written back in their own type.
        batch_normalization(&single).call().unwrap();
        batch_normalization(&double).call().unwrap();
        assert!(dtypes().iter().all(|(_, stored)| *stored == DType::F32));
    });
}

#[test]
fn fix_parameters_stops_gradients_and_leaves_the_flags() {
    fresh(|| {
        let x = Var::from_tensor(&input(&[2, 3], DType::F32)).unwrap();
        let free = affine(&x, 4).call().unwrap();
        let fixed = affine(&x, 4).fix_parameters(true).call().unwrap();
        assert_eq!(difference(&fixed, &free, None), None);
        let gradients = fixed.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&x).is_some());
        for (path, parameter) in get_all_parameters().iter() {
            assert!(parameter.need_grad(), "{path}");
            assert!(gradients.get(parameter.var()).is_none(), "{path}");
        }
        assert_eq!(get_parameters().len(), 2);
    });
}

#[test]
fn fixed_parameters_are_registered_as_trainable() {
    fresh(|| {
        affine(&input(&[2, 3], DType::F32), 4).fix_parameters(true).call().unwrap();
        assert_eq!(get_parameters().len(), 2);
    });
}

#[test]
fn no_grad_fixes_every_layer_inside() {
    fresh(|| {
        let y = no_grad(|| affine(&input(&[2, 3], DType::F32), 4).call()).unwrap();
        assert!(!y.track_op());
        assert_eq!(get_parameters().len(), 2);
    });
}

#[test]
fn a_call_leaves_a_flag_that_was_set_by_hand() {
    fresh(|| {
        let x = input(&[2, 3], DType::F32);
        affine(&x, 4).call().unwrap();
        let stored = get_parameter("affine/W").unwrap();
        set_parameter("affine/W", Parameter::new(stored.var().clone(), false)).unwrap();
        assert_eq!(get_parameters().len(), 1);
        let loss = affine(&x, 4).call().unwrap().sum_all().unwrap();
        assert_eq!(get_parameters().len(), 1);
        assert!(backward(&loss).unwrap().get(stored.var()).is_none(), "no gradient flows to it");
        // Its declaration takes the flag away, though: a file may say that a running mean is trained.
        batch_normalization(&x).call().unwrap();
        let mean = get_parameter("bn/mean").unwrap();
        set_parameter("bn/mean", Parameter::new(mean.var().clone(), true)).unwrap();
        batch_normalization(&x).call().unwrap();
        assert!(!get_parameter("bn/mean").unwrap().need_grad());
    });
}

/// Two layers under one.
#[parametric_function(scope = "pair", params())]
fn pair(inp: &Tensor, n_outmaps: usize) -> Result<Tensor> {
    let hidden = affine(inp, n_outmaps).name("one").call()?;
    prelu(&hidden).call()
}

#[test]
fn layers_inside_a_layer_inherit_what_it_fixes() {
    fresh(|| {
        let x = input(&[2, 3], DType::F64);
        let y = pair(&x, 4).name("net").fix_parameters(true).call().unwrap();
        assert!(!y.track_op());
        assert!(pair(&x, 4).name("net").call().unwrap().track_op(), "only that call");
        let paths: Vec<(String, DType)> =
            ["net/pair/one/affine/W", "net/pair/one/affine/b", "net/pair/prelu/slope"]
                .map(|path| (path.to_owned(), DType::F64))
                .into();
        assert_eq!(dtypes(), paths);
    });
}

#[test]
fn test_mode_flips_the_default_of_batch_stat_only() {
    fresh(|| {
        let x = input(&[5, 3], DType::F32);
        let state = || -> Vec<f64> {
            ["bn/mean", "bn/var"].iter().flat_map(|path| values(get_parameter(path).unwrap().var())).collect()
        };
        let y = test_mode(|| batch_normalization(&x).eps(0.0).call()).unwrap();
        assert_eq!(difference(&y, &x, None), None, "mean 0 and variance 1 at the start");
        let start = state();
        assert_eq!(start, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        batch_normalization(&x).call().unwrap();
        let trained = state();
        assert_ne!(trained, start);
        let explicit = batch_normalization(&x).batch_stat(false).call().unwrap();
        let default = test_mode(|| batch_normalization(&x).call()).unwrap();
        assert_eq!(difference(&default, &explicit, None), None);
        assert_eq!(state(), trained);
        // What is said outright counts, and so does the innermost mode.
        test_mode(|| batch_normalization(&x).batch_stat(true).call()).unwrap();
        assert_ne!(state(), trained);
        let moved = state();
        test_mode(|| train_mode(|| batch_normalization(&x).call())).unwrap();
        assert_ne!(state(), moved);
    });
}

#[test]
fn test_mode_holds_the_running_mean_of_mean_subtraction() {
    fresh(|| {
        let x = input(&[5, 3], DType::F32);
        test_mode(|| mean_subtraction(&x).call()).unwrap();
        assert_eq!(values(get_parameter("mean_subtraction/t").unwrap().var()), [0.0]);
        mean_subtraction(&x).call().unwrap();
        assert_eq!(values(get_parameter("mean_subtraction/t").unwrap().var()), [1.0]);
    });
}

#[test]
fn calls_under_one_path_share_and_other_shapes_are_refused() {
    fresh(|| {
        let x = input(&[2, 3], DType::F32);
        let first_line = line!() + 1;
        let one = affine(&x, 4).name("fc").call().unwrap();
        let two = parameter_scope("fc", || affine(&x, 4).call()).unwrap();
        assert_eq!(difference(&one, &two, None), None);
        assert_eq!(get_all_parameters().len(), 2);
        let second_line = line!() + 1;
        let error = affine(&input(&[2, 5], DType::F32), 4).name("fc").call().unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("fc/affine: affine: parameter `fc/affine/W` is registered with shape [3, 4]"),
            "{text}"
        );
        // The places are the user's calls, not lines of this library.
        assert!(text.contains(&format!("(at {}:{first_line}:", file!())), "{text}");
        assert!(text.contains(&format!("[5, 4] is asked for (at {}:{second_line}:", file!())), "{text}");
        assert!(matches!(error.root(), Error::ShapeMismatch { .. }));
    });
}

#[test]
fn a_value_that_a_solver_sets_is_used_by_the_next_call() {
    fresh(|| {
        let x = input(&[2, 3], DType::F32);
        affine(&x, 4).call().unwrap();
        for var in get_parameters().vars() {
            var.set(&var.zeros_like().unwrap()).unwrap();
        }
        assert!(values(&affine(&x, 4).call().unwrap()).iter().all(|&y| y == 0.0));
    });
}

#[test]
fn errors_name_the_scope_and_restore_it() {
    fresh(|| {
        let image = input(&[1, 3, 4, 4], DType::F32);
        let error = parameter_scope("net", || convolution(&image, 2, (9, 9)).name("c1").call()).unwrap_err();
        assert!(error.to_string().starts_with("net/c1/conv: convolution: "), "{error}");
        let x = input(&[2, 3], DType::F32);
        pair(&x, 4).call().unwrap();
        let error = pair(&x, 5).call().unwrap_err();
        assert!(error.to_string().starts_with("pair/one/affine: affine: "), "{error}");
        assert_eq!(layerfn::current_parameter_scope(), "");
    });
}

#[test]
fn the_order_and_the_threads_of_layers_do_not_change_their_values() {
    type Build = fn() -> Result<Tensor>;
    let layers: [Build; 4] = [
        || affine(&input(&[2, 3], DType::F32), 4).name("fc").call(),
        || convolution(&input(&[1, 3, 4, 4], DType::F32), 2, (3, 3)).name("c1").call(),
        || convolution(&input(&[1, 3, 4, 4], DType::F32), 2, (3, 3)).name("c2").call(),
        || embed(&zeros(&[3], DType::U32), 5, 2).call(),
    ];
    let snapshot = |store: &ParameterStore| -> std::collections::BTreeMap<String, Vec<f64>> {
        let parameters = store.parameters();
        parameters.iter().map(|(path, parameter)| (path.to_owned(), values(parameter.var()))).collect()
    };
    let forward = ParameterStore::with_seed(3);
    forward.enter(|| layers.iter().for_each(|layer| drop(layer().unwrap())));
    let backward = ParameterStore::with_seed(3);
    backward.enter(|| layers.iter().rev().for_each(|layer| drop(layer().unwrap())));
    let threaded = ParameterStore::with_seed(3);
    std::thread::scope(|threads| {
        for layer in layers {
            let store = threaded.clone();
            threads.spawn(move || store.enter(|| layer().unwrap()));
        }
    });
    assert_eq!(snapshot(&backward), snapshot(&forward));
    assert_eq!(snapshot(&threaded), snapshot(&forward));
    let other = ParameterStore::with_seed(4);
    other.enter(|| layers.iter().for_each(|layer| drop(layer().unwrap())));
    assert_ne!(snapshot(&other), snapshot(&forward));
    assert_ne!(snapshot(&forward)["c1/conv/W"], snapshot(&forward)["c2/conv/W"]);
}

/// One pass of an incremental quantization, after a solver moved the weights.
fn inq_pass(pass: usize) -> Vec<f64> {
    if let Some(w) = get_parameter("inq_affine/W") {
        let delta = layerfn_tests::values(w.var().dims(), pass as u64).to_dtype(DType::F32).unwrap();
        w.var().set(&(w.var().as_tensor() + (delta * 0.1).unwrap()).unwrap()).unwrap();
    }
    let x = input(&[2, 6], DType::F32);
    let layer = inq_affine(&x, 5).inq_iterations([0, 2, 3, 5]).seed(7);
    let y = layer.selection_algorithm(SelectionAlgorithm::Random).call().unwrap();
    let state = ["W", "I"].map(|name| values(get_parameter(&format!("inq_affine/{name}")).unwrap().var()));
    [values(&y), state.concat()].concat()
}

#[test]
fn a_resumed_incremental_quantization_continues_its_schedule() {
    let whole: Vec<_> = fresh(|| (0..7).map(inq_pass).collect());
    for cut in 1..6 {
        let (first, second) = (ParameterStore::new(), ParameterStore::new());
        let mut resumed: Vec<_> = first.enter(|| (0..cut).map(inq_pass).collect());
        for (path, parameter) in first.parameters().iter() {
            let copy = Var::from_tensor(&parameter.var().copy().unwrap()).unwrap();
            second.set(path, Parameter::new(copy, parameter.need_grad())).unwrap();
        }
        resumed.extend(second.enter(|| (cut..7).map(inq_pass).collect::<Vec<_>>()));
        assert!(resumed == whole, "cut before pass {cut}");
    }
    let indicators = |pass: usize| whole[pass][40..].iter().sum::<f64>();
    assert_eq!(indicators(6), 30.0, "all are fixed in the end");
    assert!(indicators(0) > 5.0 && indicators(2) < 30.0);
}

#[test]
fn private_state_is_saved_but_not_listed() {
    let store = ParameterStore::new();
    store.enter(|| {
        inq_pass(0);
        assert_eq!(
            get_all_parameters().paths().collect::<Vec<_>>(),
            ["inq_affine/W", "inq_affine/I", "inq_affine/b"]
        );
        assert!(get_parameter("inq_affine/_count").is_some_and(|count| !count.need_grad()));
    });
    let all = store.parameters();
    assert!(all.get("inq_affine/_count").is_some());
    assert!(all.iter().all(|(path, parameter)| !path.contains("/_") || !parameter.need_grad()));
}

#[test]
fn incremental_quantization_rounds_between_two_powers_as_nnabla() {
    // Recorded from NNabla 1.35: logarithms in single precision decide, so 12 becomes 16 and 24 becomes 16.
    let rounded = |weights: &[f32], expected: &[f64]| {
        fresh(|| {
            let w = Tensor::new(weights, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let x = Tensor::ones((1, 1), DType::F32, &Device::Cpu).unwrap();
            let layer = inq_affine(&x, weights.len()).num_bits(6).inq_iterations([0]).with_bias(false);
            assert_eq!(values(&layer.w_init(w).call().unwrap()), expected);
        });
    };
    rounded(
        &[64.0, 1.5, 0.375, 0.75, 3.0, 0.1875, 6.0, 12.0, 24.0, -0.375, -1.5, 0.09375],
        &[64.0, 2.0, 0.5, 1.0, 4.0, 0.25, 8.0, 16.0, 16.0, -0.5, -2.0, 0.125],
    );
    // The largest weight is measured by another rounding of log2(1.5), and bounds the others.
    rounded(&[1.5, 0.75, -1.5, 0.375], &[1.0, 1.0, -1.0, 0.5]);
    rounded(&[0.375, -0.375, 0.1875], &[0.25, -0.25, 0.25]);
}
