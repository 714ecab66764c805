//! The parameter store: scopes, flags, order, threads and error texts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{Device, Tensor, Var};
use layerfn::{
    Parameter, ParameterStore, clear_parameters, current_parameter_scope, get_all_parameters, get_parameter,
    get_parameter_or_create, get_parameters, is_training, no_grad, parameter_scope, pop_parameter,
    set_parameter, test_mode, train_mode,
};
use layerfn_tests::support::compare::values;

fn parameter(values: &[f32]) -> Parameter {
    Parameter::new(Var::new(values, &Device::Cpu).unwrap(), true)
}

/// Registers a parameter of one element.
fn make(name: &str) -> Tensor {
    get_parameter_or_create(name).shape(1).call().unwrap()
}

fn paths() -> Vec<String> {
    get_all_parameters().paths().map(str::to_owned).collect()
}

/// Runs `f` in a store of its own.
fn fresh<R>(f: impl FnOnce() -> R) -> R {
    ParameterStore::new().enter(f)
}

#[test]
fn scopes_nest_and_a_slash_nests_too() {
    fresh(|| {
        parameter_scope("a", || parameter_scope("b", || make("x")));
        parameter_scope("a/b", || make("y"));
        parameter_scope("/a//b/", || assert_eq!(current_parameter_scope(), "a/b"));
        make("a/b/z");
        assert_eq!(paths(), ["a/b/x", "a/b/y", "a/b/z"]);
        parameter_scope("a", || assert_eq!(paths(), ["b/x", "b/y", "b/z"]));
        parameter_scope("", || assert_eq!(current_parameter_scope(), ""));
    });
}

#[test]
fn the_scope_is_restored_on_early_return() {
    fn early() -> layerfn::Result<()> {
        parameter_scope("a", || {
            parameter_scope("b", || get_parameter_or_create("no shape").call().map(drop))?;
            unreachable!("the line before fails")
        })
    }
    fresh(|| {
        parameter_scope("outer", || {
            assert!(early().is_err());
            assert_eq!(current_parameter_scope(), "outer");
        });
        assert_eq!(current_parameter_scope(), "");
    });
}

#[test]
fn everything_is_restored_on_panic() {
    fresh(|| {
        parameter_scope("outer", || {
            let panicking = || {
                ParameterStore::new().enter(|| {
                    parameter_scope("a", || no_grad(|| test_mode(|| -> () { panic!("on purpose") })));
                });
            };
            assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
            assert_eq!(current_parameter_scope(), "outer");
            assert!(is_training());
            assert!(make("x").is_variable(), "no_grad is over");
        });
        assert_eq!(paths(), ["outer/x"]);
    });
}

#[test]
fn a_panic_inside_a_store_leaves_it_usable_by_others() {
    let store = ParameterStore::new();
    let shared = store.clone();
    let thread = std::thread::spawn(move || {
        shared.enter(|| {
            make("before");
            panic!("on purpose")
        })
    });
    assert!(thread.join().is_err());
    store.enter(|| make("after"));
    assert_eq!(store.parameters().paths().collect::<Vec<_>>(), ["before", "after"]);
}

#[test]
fn entering_a_store_starts_at_its_root_and_nests() {
    let (one, two) = (ParameterStore::new(), ParameterStore::new());
    one.enter(|| {
        parameter_scope("s", || {
            two.enter(|| {
                assert_eq!(current_parameter_scope(), "");
                make("in_two");
                one.enter(|| make("again_in_one"));
            });
            make("in_one");
        });
    });
    assert_eq!(one.parameters().paths().collect::<Vec<_>>(), ["s/in_one", "again_in_one"]);
    assert_eq!(two.parameters().paths().collect::<Vec<_>>(), ["in_two"]);
}

#[test]
fn many_threads_share_one_store() {
    let store = ParameterStore::new();
    let gate = std::sync::Barrier::new(8);
    let ids = std::thread::scope(|threads| {
        let handles: Vec<_> = (0..8)
            .map(|thread| {
                let (store, gate) = (store.clone(), &gate);
                threads.spawn(move || {
                    gate.wait();
                    store.enter(|| {
                        for i in 0..50 {
                            parameter_scope(format!("own{thread}"), || make(&format!("p{i}")));
                        }
                        let shared = |i| parameter_scope("shared", || make(&format!("p{i}")).id());
                        (0..50).map(shared).collect::<Vec<_>>()
                    })
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect::<Vec<_>>()
    });
    // Whoever came first registered the parameter; all the others got the same variable.
    assert!(ids.iter().all(|other| *other == ids[0]));
    assert_eq!(store.parameters().len(), 9 * 50);
}

#[test]
fn a_shape_mismatch_names_path_shapes_and_both_places() {
    fresh(|| {
        let start = line!();
        parameter_scope("net/fc", || get_parameter_or_create("W").shape((3, 4)).call()).unwrap();
        let between = line!();
        let asked = parameter_scope("net/fc", || get_parameter_or_create("W").shape((5, 4)).call());
        let end = line!();
        let text = asked.unwrap_err().to_string();
        assert!(text.starts_with("parameter `net/fc/W` is registered with shape [3, 4] (at "), "{text}");
        assert!(text.contains("), but [5, 4] is asked for (at "), "{text}");
        assert!(
            text.ends_with("; give one of the two layers another `name`, or `clear_parameters` first"),
            "{text}"
        );
        let line = |place: &str| place.split(':').next().and_then(|line| line.parse::<u32>().ok());
        let file = format!("{}:", file!());
        let lines: Vec<u32> = text.split(&file).skip(1).filter_map(line).collect();
        assert!(
            matches!(lines[..], [created, asked] if (start..between).contains(&created)
            && (between..end).contains(&asked)),
            "{text}"
        );
    });
}

#[test]
fn a_missing_shape_says_what_is_needed() {
    fresh(|| {
        let error = get_parameter_or_create("W").call().unwrap_err().to_string();
        assert_eq!(
            error,
            "`shape` is needed unless the parameter exists or the initializer is a tensor, got \"none\""
        );
        make("W");
        assert_eq!(get_parameter_or_create("W").call().unwrap().dims(), [1]);
    });
}

#[test]
fn a_path_is_either_a_scope_or_a_parameter() {
    fresh(|| {
        make("a/x");
        let error = |result: layerfn::Result<Tensor>| result.unwrap_err().to_string();
        assert_eq!(
            error(get_parameter_or_create("a").shape(1).call()),
            "`a` is a scope, not a parameter; choose another name"
        );
        assert_eq!(
            error(get_parameter_or_create("a/x/y").shape(1).call()),
            "`a/x/y` runs through a parameter as if it were a scope; choose another name"
        );
        assert_eq!(
            error(parameter_scope("a/x", || get_parameter_or_create("y").shape(1).call())),
            "`a/x/y` runs through a parameter as if it were a scope; choose another name"
        );
        assert_eq!(
            set_parameter("a", parameter(&[1.0])).unwrap_err().to_string(),
            "`a` is a scope that holds parameters; choose another name"
        );
        assert!(
            get_parameter_or_create("")
                .shape(1)
                .call()
                .unwrap_err()
                .to_string()
                .starts_with("`path` must not be")
        );
        assert_eq!(paths(), ["a/x"]);
    });
}

#[test]
fn need_grad_is_overwritten_and_the_values_stay() {
    fresh(|| {
        let take =
            |need_grad| get_parameter_or_create("p").initializer(0.5).shape(2).need_grad(need_grad).call();
        assert!(take(true).unwrap().is_variable());
        let detached = take(false).unwrap();
        assert!(!detached.track_op());
        assert!(!get_parameter("p").unwrap().need_grad());
        assert!(get_parameters().is_empty());
        assert_eq!(values(&detached), [0.5, 0.5]);
        assert!(take(true).unwrap().is_variable());
        assert_eq!(get_parameters().len(), 1);
    });
}

#[test]
fn as_need_grad_changes_only_the_tensor_returned() {
    fresh(|| {
        let take = |registered, returned| {
            get_parameter_or_create("p").shape(2).need_grad(registered).as_need_grad(returned).call().unwrap()
        };
        let fixed = take(true, false);
        assert!(!fixed.track_op());
        assert!(get_parameter("p").unwrap().need_grad());
        assert!(take(false, true).is_variable());
        assert!(!get_parameter("p").unwrap().need_grad());
        // The same storage: what a solver sets is seen.
        get_parameter("p").unwrap().var().set(&Tensor::new(&[3f32, 4.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(values(&fixed), [3.0, 4.0]);
    });
}

#[test]
fn no_grad_detaches_and_leaves_the_flags() {
    fresh(|| {
        let inside = no_grad(|| make("p"));
        assert!(!inside.track_op());
        assert!(get_parameter("p").unwrap().need_grad());
        let outside = make("p");
        assert!(outside.is_variable());
        // as_need_grad does not break out of no_grad.
        let asked = no_grad(|| get_parameter_or_create("p").shape(1).as_need_grad(true).call().unwrap());
        assert!(!asked.track_op());
        let other = no_grad(|| std::thread::spawn(|| fresh(|| make("q").is_variable())).join().unwrap());
        assert!(other, "no_grad belongs to its thread");
    });
}

#[test]
fn gradients_reach_tracked_parameters_only() {
    fresh(|| {
        let (a, b) = (make("a"), no_grad(|| make("b")));
        let gradients = ((a + b).unwrap().sum_all().unwrap()).backward().unwrap();
        assert!(gradients.get(get_parameter("a").unwrap().var()).is_some());
        assert!(gradients.get(get_parameter("b").unwrap().var()).is_none());
    });
}

#[test]
fn test_mode_and_train_mode_nest() {
    assert!(is_training());
    test_mode(|| {
        assert!(!is_training());
        assert!(train_mode(is_training));
        assert!(!is_training());
        assert!(std::thread::spawn(is_training).join().unwrap(), "the mode belongs to its thread");
    });
    assert!(is_training());
}

#[test]
fn the_order_is_depth_first_and_a_scope_stands_where_it_was_first_entered() {
    fresh(|| {
        parameter_scope("late", || ());
        make("root");
        parameter_scope("a", || make("x"));
        parameter_scope("b", || make("x"));
        parameter_scope("a", || make("w"));
        parameter_scope("late", || make("x"));
        parameter_scope("a/sub", || make("x"));
        make("a/last");
        assert_eq!(paths(), ["late/x", "root", "a/x", "a/w", "a/sub/x", "a/last", "b/x"]);
    });
}

#[test]
fn set_pop_and_clear() {
    fresh(|| {
        parameter_scope("m", || {
            set_parameter("v", parameter(&[1.0, 2.0])).unwrap();
            set_parameter("n/v", parameter(&[3.0])).unwrap();
            set_parameter("v", parameter(&[5.0])).unwrap();
        });
        assert_eq!(paths(), ["m/v", "m/n/v"], "a value set again keeps its place");
        assert_eq!(values(get_parameter("m/v").unwrap().var()), [5.0]);
        assert!(get_parameter("m").is_none() && get_parameter("m/n/w").is_none());
        parameter_scope("m", || {
            assert_eq!(pop_parameter("v").unwrap().var().dims(), [1]);
            assert!(pop_parameter("v").is_none());
            assert!(pop_parameter("n").is_none(), "a scope is not a parameter");
        });
        make("k/v");
        parameter_scope("m", clear_parameters);
        assert_eq!(paths(), ["k/v"]);
        clear_parameters();
        assert!(paths().is_empty());
        make("k");
        assert_eq!(paths(), ["k"], "a cleared scope's name is free");
    });
}

#[test]
fn parameters_can_be_looked_at_by_scope() {
    fresh(|| {
        for path in ["net/a/W", "net/ab/W", "net/a/b"] {
            make(path);
        }
        let parameters = get_all_parameters();
        assert_eq!(parameters.under("net/a").paths().collect::<Vec<_>>(), ["W", "b"]);
        assert_eq!(parameters.under("").len(), 3);
        assert!(parameters.under("net/nothing").is_empty());
        assert_eq!((parameters.len(), parameters.vars().len(), parameters.elem_count()), (3, 3, 3));
    });
}

#[test]
fn a_store_on_another_device_has_copies() {
    let (store, copy) = fresh(|| {
        parameter_scope("late", || ());
        set_parameter("a/v", parameter(&[1.0, 2.0])).unwrap();
        set_parameter("late/fixed", Parameter::new(Var::new(&[3f64], &Device::Cpu).unwrap(), false)).unwrap();
        parameter_scope("late", || make("w"));
        let store = ParameterStore::current();
        let copy = store.to_device(&Device::Cpu).unwrap();
        (store, copy)
    });
    assert_eq!(copy.seed(), store.seed());
    let (old, new) = (store.parameters(), copy.parameters());
    assert_eq!(new.paths().collect::<Vec<_>>(), ["late/fixed", "late/w", "a/v"]);
    assert_eq!(new.paths().collect::<Vec<_>>(), old.paths().collect::<Vec<_>>());
    for new in [new, old.to_device(&Device::Cpu).unwrap()] {
        for ((path, old), (_, new)) in old.iter().zip(new.iter()) {
            assert_eq!(new.need_grad(), old.need_grad(), "{path}");
            assert_eq!(new.var().dtype(), old.var().dtype(), "{path}");
            assert_eq!(values(new.var()), values(old.var()), "{path}");
            new.var().set(&new.var().zeros_like().unwrap()).unwrap();
        }
    }
    assert_eq!(values(store.get("a/v").unwrap().var()), [1.0, 2.0], "the variables are the copy's own");
}

#[test]
fn no_scope_lies_too_deep() {
    // On the stack that a thread has.
    let deep = std::thread::spawn(|| {
        fresh(|| {
            make(&format!("{}w", "a/".repeat(999)));
            parameter_scope("b/".repeat(999), || make("w"));
            for make in [
                || get_parameter_or_create("a/".repeat(1000) + "w").shape(1).call(),
                || parameter_scope("a/".repeat(1000), || get_parameter_or_create("w").shape(1).call()),
                || parameter_scope("a/".repeat(200_000), || get_parameter_or_create("w").shape(1).call()),
                || get_parameter_or_create("n".repeat(4097)).shape(1).call(),
            ] {
                let error = make().unwrap_err().to_string();
                assert!(error.contains("are allowed") && error.len() < 1000, "{error}");
            }
            set_parameter(&("a/".repeat(1000) + "w"), parameter(&[1.0])).unwrap_err();
            let store = ParameterStore::current();
            assert_eq!(store.parameters().len(), 2);
            assert_eq!(store.to_device(&Device::Cpu).unwrap().parameters().len(), 2);
            clear_parameters();
        });
    });
    deep.join().unwrap();
}
