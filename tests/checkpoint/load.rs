//! What loading changes, what it refuses, and what it says.

use candle_core::DType;
use layerfn::checkpoint::{Checkpoint, Difference, Format, Load, NeedGrad};
use layerfn::{Error, ParameterStore, load_parameters, parameter_scope};
use proptest::prelude::*;

use crate::{FORMATS, bits_in, put, var, zoo_of_f32};

fn file_of(store: &ParameterStore, format: Format) -> Checkpoint {
    let bytes = Checkpoint::from_parameters(&store.parameters()).unwrap().to_bytes(format).unwrap();
    Checkpoint::from_bytes(format, &bytes).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "it ends chains of calls")]
fn text(error: Error) -> String {
    error.to_string()
}

fn two(path: &str) -> ParameterStore {
    let store = ParameterStore::new();
    put(&store, path, var(vec![1_f32, 2.0], &[2]), true);
    put(&store, "conv/b", var(vec![3_f32], &[1]), false);
    store
}

#[test]
fn unknown_extensions_are_named() {
    let known = Format::extensions().map(|extension| format!(".{extension}")).collect::<Vec<_>>().join(", ");
    for file in ["model.ckpt", "model", ".h5", "model.h5.bak", "folder.h5/model"] {
        let expected = format!("`{file}` has an unknown extension; a checkpoint has one of {known}");
        assert_eq!(text(load_parameters(file).unwrap_err()), expected);
        assert_eq!(text(layerfn::save_parameters(file).unwrap_err()), expected);
    }
    assert_eq!(Format::from_path("MODEL.H5").unwrap(), Format::Hdf5);
}

#[test]
fn a_missing_file_is_named() {
    for extension in Format::extensions() {
        let file = format!("/no/such/model.{extension}");
        let error = text(load_parameters(&file).unwrap_err());
        assert_eq!(error, format!("cannot read `{file}`: No such file or directory (os error 2)"));
    }
}

#[test]
fn another_shape_is_told_with_both() {
    let store = ParameterStore::new();
    put(&store, "net/conv/W", var(vec![0_f32; 2], &[2, 1]), true);
    let load = Load::like_nnabla(file_of(&two("conv/W"), Format::Hdf5));
    let error = store.enter(|| parameter_scope("net", || load.apply())).unwrap_err();
    assert_eq!(
        text(error),
        "`a stream` does not fit, nothing was loaded:\n  `conv/W` has shape [2] in the file, [2, 1] in the store"
    );
}

#[test]
fn the_nearest_names_are_suggested() {
    let store = two("conv/weight");
    let load = Load::new(file_of(&two("conv/Weight"), Format::Protobuf));
    assert_eq!(
        text(store.enter(|| load.apply()).unwrap_err()),
        "`a stream` does not fit, nothing was loaded:\n  \
         `conv/Weight` is not in the store; the nearest is `conv/weight`\n  \
         `conv/weight` is not in the file; the nearest is `conv/Weight`"
    );
}

#[test]
fn a_damaged_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = zoo_of_f32();
    let before = bits_in(&store);
    for extension in Format::extensions() {
        let file = folder.path().join("model").with_extension(extension);
        store.save_parameters(&file).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        // Text ends in a blank that nobody needs.
        std::fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
        let error = text(store.load_parameters(&file).unwrap_err());
        assert!(error.contains("model."), "{error}");
        assert_eq!(bits_in(&store), before);
    }
}

#[test]
fn one_misfit_anywhere_changes_nothing() {
    let count = zoo_of_f32().parameters().len();
    for format in FORMATS {
        for position in 0..count {
            // The store has other values everywhere, and another shape at one place.
            let store = ParameterStore::new();
            for (i, (path, parameter)) in zoo_of_f32().parameters().iter().enumerate() {
                let mut shape = parameter.var().dims().to_vec();
                if i == position {
                    shape.push(2);
                }
                let count = shape.iter().product();
                put(&store, path, var(vec![9_f32; count], &shape), i % 2 == 0);
            }
            let before = bits_in(&store);
            for load in
                [Load::new(file_of(&zoo_of_f32(), format)), Load::like_nnabla(file_of(&zoo_of_f32(), format))]
            {
                let error = store.enter(|| load.apply()).unwrap_err();
                assert!(matches!(error, Error::Mismatch { .. }), "{error}");
                assert_eq!(bits_in(&store), before);
            }
        }
    }
}

#[test]
fn a_parameter_in_the_way_of_a_scope_changes_nothing() {
    for (there, coming) in [("a", "a/b"), ("a/b/c", "a/b"), ("a/b", "a/b/c")] {
        let store = ParameterStore::new();
        put(&store, "first", var(vec![0_f32], &[1]), true);
        put(&store, there, var(vec![0_f32], &[1]), true);
        let file = ParameterStore::new();
        put(&file, "first", var(vec![5_f32], &[1]), true);
        put(&file, coming, var(vec![5_f32], &[1]), true);
        let before = bits_in(&store);
        let load = Load::like_nnabla(file_of(&file, Format::Protobuf));
        assert!(text(store.enter(|| load.apply()).unwrap_err()).contains("cannot be loaded"));
        assert_eq!(bits_in(&store), before);
        // The scope itself may run through a parameter.
        let load = Load::like_nnabla(file_of(&file, Format::Protobuf));
        store.enter(|| parameter_scope(there, || load.apply())).unwrap_err();
        assert_eq!(bits_in(&store), before);
    }
}

#[test]
fn an_existing_parameter_keeps_its_variable_and_type() {
    let store = ParameterStore::new();
    put(&store, "conv/W", var(vec![0_f64; 2], &[2]), false);
    put(&store, "conv/b", var(vec![0_i32], &[1]), true);
    put(&store, "other", var(vec![7_f32], &[1]), true);
    let variable = store.get("conv/W").unwrap();
    let load = Load::like_nnabla(file_of(&two("conv/W"), Format::Protobuf));
    let report = store.enter(|| load.apply()).unwrap();
    assert_eq!(variable.var().to_vec1::<f64>().unwrap(), [1.0, 2.0]);
    assert!(store.get("conv/W").unwrap().need_grad());
    assert_eq!(store.get("conv/b").unwrap().var().to_vec1::<i32>().unwrap(), [3]);
    assert_eq!(report.missing(), ["other"]);
    assert_eq!(report.converted()[0], ("conv/W".to_owned(), DType::F32, DType::F64));
    assert_eq!(
        report.to_string(),
        "a stream: 0 created, 2 updated (2 converted); `other` is not in the file"
    );
}

#[test]
fn integers_are_converted_exactly_or_not_at_all() {
    for (value, fits) in [(3.0, true), (3.5, false), (f32::NAN, false), (256.0, false), (-1.0, false)] {
        let file = ParameterStore::new();
        put(&file, "n", var(vec![value], &[1]), true);
        let store = ParameterStore::new();
        put(&store, "n", var(vec![1_u8], &[1]), true);
        let load = Load::like_nnabla(file_of(&file, Format::Hdf5));
        match store.enter(|| load.apply()) {
            Ok(_) => assert!(fits, "{value}"),
            Err(error) => {
                assert!(!fits, "{value}");
                let expected = format!("`n` holds {value:?} in the file, which the store's U8 cannot hold");
                assert!(text(error).contains(&expected));
                assert_eq!(store.get("n").unwrap().var().to_vec1::<u8>().unwrap(), [1]);
            }
        }
    }
    let file = ParameterStore::new();
    put(&file, "n", var(vec![i64::MAX], &[1]), true);
    let store = ParameterStore::new();
    put(&store, "n", var(vec![0_f32], &[1]), true);
    let load = Load::like_nnabla(file_of(&file, Format::Hdf5));
    assert!(text(store.enter(|| load.apply()).unwrap_err()).contains("9223372036854775807"));
}

#[test]
fn the_strict_rules_see_every_kind_of_difference() {
    let store = two("conv/W");
    put(&store, "typed", var(vec![1_f64], &[1]), true);
    put(&store, "shaped", var(vec![1_f32], &[1]), true);
    put(&store, "only_here", var(vec![1_f32], &[1]), true);
    let file = two("conv/W");
    put(&file, "conv/b", var(vec![3_f32], &[1]), true);
    put(&file, "typed", var(vec![1_f32], &[1]), true);
    put(&file, "shaped", var(vec![1_f32], &[]), true);
    put(&file, "there_alone", var(vec![1_f32], &[1]), true);
    let load = Load::new(file_of(&file, Format::Safetensors));
    let plan = store.enter(|| load.plan()).unwrap();
    let kinds: Vec<_> = plan.problems().iter().map(std::mem::discriminant).collect();
    let path = String::new;
    let expected = [
        Difference::NeedGrad { path: path(), file: true, store: false },
        Difference::Type { path: path(), file: DType::F32, store: DType::F64 },
        Difference::Shape { path: path(), file: vec![], store: vec![] },
        Difference::Unexpected { path: path(), nearest: None },
        Difference::Missing { path: path(), nearest: None },
    ];
    assert_eq!(kinds, expected.iter().map(std::mem::discriminant).collect::<Vec<_>>());
    let before = bits_in(&store);
    store.enter(|| load.apply()).unwrap_err();
    assert_eq!(bits_in(&store), before);
}

#[test]
fn patterns_take_parts_and_rules_rename() {
    let store = ParameterStore::new();
    put(&store, "backbone/W", var(vec![0_f32; 2], &[2]), true);
    put(&store, "head/b", var(vec![0_f32], &[1]), true);
    let load = Load::new(file_of(&two("conv/W"), Format::Safetensors))
        .partial(["conv/W"])
        .rename("conv/*", "backbone/*");
    let report = store.enter(|| load.apply()).unwrap();
    assert_eq!(
        (report.updated(), report.skipped()),
        (&["backbone/W".to_owned()][..], &["conv/b".to_owned()][..])
    );
    assert_eq!(report.missing(), ["head/b"]);
    assert_eq!(store.get("backbone/W").unwrap().var().to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    assert_eq!(store.get("head/b").unwrap().var().to_vec1::<f32>().unwrap(), [0.0]);

    let clash = Load::like_nnabla(file_of(&two("conv/W"), Format::Safetensors)).rename("conv/*", "same");
    let error = text(ParameterStore::new().enter(|| clash.apply()).unwrap_err());
    assert!(error.contains("another parameter of the file gets the name `same` too"), "{error}");
    let escape = Load::like_nnabla(file_of(&two("conv/W"), Format::Safetensors)).rename("conv/*", "../*");
    let error = text(ParameterStore::new().enter(|| escape.apply()).unwrap_err());
    assert!(error.contains("has a part that means a folder"), "{error}");
}

#[test]
fn flags_follow_the_rule() {
    for (rule, expected) in [(NeedGrad::FromFile, false), (NeedGrad::Keep, true)] {
        let store = two("conv/W");
        put(&store, "conv/b", var(vec![0_f32], &[1]), true);
        let load = Load::new(file_of(&two("conv/W"), Format::Hdf5)).need_grad(rule);
        store.enter(|| load.apply()).unwrap();
        assert_eq!(store.get("conv/b").unwrap().need_grad(), expected);
    }
}

#[test]
fn a_loaded_store_shares_nothing_with_the_one_it_came_from() {
    let store = two("conv/W");
    let copy = ParameterStore::new();
    let load = Load::like_nnabla(Checkpoint::from_parameters(&store.parameters()).unwrap());
    load.apply_to(&copy, "").unwrap();
    copy.get("conv/b").unwrap().var().set(var(vec![0_f32], &[1]).as_tensor()).unwrap();
    assert_eq!(store.get("conv/b").unwrap().var().to_vec1::<f32>().unwrap(), [3.0]);
    // Onto itself it is nothing at all.
    let load = Load::new(Checkpoint::from_parameters(&store.parameters()).unwrap());
    assert_eq!(load.apply_to(&store, "").unwrap().updated().len(), 2);
}

#[test]
fn what_a_renamed_part_lacks_is_missing() {
    let file = ParameterStore::new();
    put(&file, "body/c1/W", var(vec![1_f32], &[1]), true);
    for (scope, load) in [
        ("body", Load::new(file_of(&file, Format::Safetensors)).partial(["body/**"])),
        (
            "features",
            Load::new(file_of(&file, Format::Safetensors))
                .partial(["body/**"])
                .rename("body/**", "features/**"),
        ),
    ] {
        let store = ParameterStore::new();
        for path in [format!("{scope}/c1/W"), format!("{scope}/c2/W"), "head/W".to_owned()] {
            put(&store, &path, var(vec![0_f32], &[1]), true);
        }
        let plan = store.enter(|| load.plan()).unwrap();
        let missing = Difference::Missing { path: format!("{scope}/c2/W"), nearest: None };
        assert_eq!(plan.problems(), [missing]);
        assert_eq!(plan.report().missing(), ["head/W"]);
        store.enter(|| load.apply()).unwrap_err();
        assert_eq!(store.get(&format!("{scope}/c1/W")).unwrap().var().to_vec1::<f32>().unwrap(), [0.0]);
    }
}

#[test]
fn an_empty_message_loads_as_nothing() {
    for format in [Format::Protobuf, Format::Text] {
        let open = || Checkpoint::from_bytes(format, b"").unwrap();
        ParameterStore::new().enter(|| Load::new(open()).apply()).unwrap();
        let store = two("conv/W");
        let error = text(store.enter(|| Load::new(open()).apply()).unwrap_err());
        assert!(
            error.contains("`conv/W` is not in the file") && error.contains("`conv/b` is not"),
            "{error}"
        );
        let error = store.enter(|| Load::new(open()).partial(["**/b"]).apply()).unwrap_err();
        assert!(text(error).ends_with(":\n  `conv/b` is not in the file"));
        let report = store.enter(|| Load::like_nnabla(open()).apply()).unwrap();
        assert_eq!(report.missing(), ["conv/W", "conv/b"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Whatever the rules are and in whichever order: what is wanted and absent is an error, and nothing else is.
    #[test]
    fn what_is_wanted_and_absent_is_an_error(
        paths in prop::collection::btree_set("(a|b|ab)(/(a|b|ab)){0,3}", 1..8),
        rules in prop::collection::vec((PATTERN, PATTERN), 0..4),
        only in prop::collection::vec(PATTERN, 1..3),
        removed in any::<prop::sample::Index>(),
    ) {
        let load = |file: &ParameterStore| {
            let checkpoint = Checkpoint::from_parameters(&file.parameters()).unwrap();
            rules.iter().fold(Load::new(checkpoint).partial(&only), |load, (from, to)| load.rename(from, to))
        };
        let (file, store) = (ParameterStore::new(), ParameterStore::new());
        // Some would lie in another.
        let put = |path: &String| file.set(path, layerfn::Parameter::new(var(vec![1_f32], &[1]), true)).is_ok();
        let paths: Vec<_> = paths.iter().filter(|path| put(path)).collect();
        let made = load(&file).create_unknown(true).apply_to(&store, "");
        if made.is_err() {
            return Ok(());
        }
        let report = made.unwrap();
        // The scope has what the whole file gives it.
        prop_assert!(store.enter(|| load(&file).plan()).unwrap().problems().is_empty());
        // Without one of them, that one is missing and nothing else.
        let wanted: Vec<_> = paths.into_iter().filter(|path| !report.skipped().contains(path)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let removed = wanted[removed.index(wanted.len())];
        let _ = file.pop(removed);
        let plan = store.enter(|| load(&file).plan()).unwrap();
        prop_assert!(matches!(plan.problems(), [Difference::Missing { .. }]), "{removed}: {plan}");
        prop_assert!(store.enter(|| load(&file).apply()).is_err());
    }
}

/// Patterns of the paths above.
const PATTERN: &str = "(a|b|\\*|\\*\\*|\\?|a\\*|\\*b|a\\*\\*)(/(a|b|\\*|\\*\\*|a\\?)){0,2}";

#[test]
fn a_plan_knows_private_state() {
    let (source, target) = (two("conv/W"), two("conv/W"));
    for store in [&source, &target] {
        put(store, "conv/_count", var(vec![1_f32], &[1]), false);
    }
    let load = || Load::new(file_of(&source, Format::Hdf5));
    let plan = target.enter(|| load().plan()).unwrap();
    assert!(plan.problems().is_empty(), "{plan}");
    assert_eq!(plan.report(), &load().apply_to(&target, "").unwrap());
}

/// A store in which one variable stands under two paths, and one beside them.
fn tied() -> ParameterStore {
    let store = ParameterStore::new();
    put(&store, "encoder/W", var(vec![1_f32, 2.0], &[2]), true);
    let shared = store.get("encoder/W").unwrap();
    store.set("decoder/W", shared).unwrap();
    put(&store, "b", var(vec![3_f32], &[1]), true);
    store
}

#[test]
fn a_tie_stays_and_its_values_must_agree() {
    for format in FORMATS {
        let store = tied();
        Load::new(file_of(&tied(), format)).apply_to(&store, "").unwrap();
        let id = |path: &str| store.get(path).unwrap().var().id();
        assert_eq!(id("encoder/W"), id("decoder/W"));
    }
    let apart = ParameterStore::new();
    put(&apart, "encoder/W", var(vec![5_f32, 6.0], &[2]), true);
    put(&apart, "decoder/W", var(vec![5_f32, 7.0], &[2]), true);
    put(&apart, "b", var(vec![4_f32], &[1]), true);
    for load in [Load::new, Load::like_nnabla] {
        let store = tied();
        let error = text(load(file_of(&apart, Format::Hdf5)).apply_to(&store, "").unwrap_err());
        assert!(
            error.contains(
                "`decoder/W` is one variable with `encoder/W` in the store, and has another value in the file"
            ),
            "{error}"
        );
        assert_eq!(store.get("b").unwrap().var().to_vec1::<f32>().unwrap(), [3.0], "nothing was loaded");
    }
}

#[test]
fn one_path_of_a_tied_variable_is_enough() {
    let file = ParameterStore::new();
    put(&file, "decoder/W", var(vec![5_f32, 6.0], &[2]), true);
    put(&file, "b", var(vec![4_f32], &[1]), true);
    let store = tied();
    let report = Load::new(file_of(&file, Format::Safetensors)).apply_to(&store, "").unwrap();
    assert!(report.missing().is_empty());
    assert_eq!(store.get("encoder/W").unwrap().var().to_vec1::<f32>().unwrap(), [5.0, 6.0]);
    let without = ParameterStore::new();
    put(&without, "b", var(vec![4_f32], &[1]), true);
    let error = text(Load::new(file_of(&without, Format::Safetensors)).apply_to(&store, "").unwrap_err());
    assert!(error.contains("`encoder/W` is not in the file"), "{error}");
}

#[test]
fn what_is_guessed_is_told() {
    // As NumPy writes it: nothing says whether it is trained.
    let npy = crate::damage::npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", &[0; 4]);
    let bytes = crate::damage::zip_of(&[("w.npy", &npy)], false);
    let read = || Checkpoint::from_bytes(Format::Npz, &bytes).unwrap();
    for format in FORMATS {
        let guessed: &[&str] = if matches!(format, Format::Npz | Format::Safetensors) { &[] } else { &["w"] };
        assert_eq!(read().guessed(format), guessed, "{format:?}");
    }
    let store = ParameterStore::new();
    let made = Load::like_nnabla(read()).apply_to(&store, "").unwrap();
    assert_eq!(made.guessed(), ["w"]);
    assert_eq!(made.to_string(), "a stream: 1 created (1 trained, as the file does not say), 0 updated");
    // What is there keeps its own.
    let kept = Load::like_nnabla(read()).apply_to(&store, "").unwrap();
    assert_eq!((kept.guessed(), kept.updated()), (&[][..], &["w".to_owned()][..]));
    let known = ParameterStore::new();
    put(&known, "w", var(vec![1_f32], &[]), false);
    assert!(
        Load::like_nnabla(file_of(&known, Format::Npz))
            .apply_to(&ParameterStore::new(), "")
            .unwrap()
            .guessed()
            .is_empty()
    );
}
