//! The graph that functions and candle's operations form together.

use std::thread;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, Var};
use layerfn::backward;
use layerfn::functions::{
    affine, batch_normalization, lstm_cell, relu, sigmoid, softmax_cross_entropy, straight_through, tanh,
};
use layerfn_tests::{flat, gate, values};

#[test]
fn operations_of_candle_mix_with_functions() {
    let inputs = [values([4, 3], 1), values([3, 3], 2), values([3], 3)];
    gate(
        |t| {
            let h = affine(&t[0], &t[1], Some(&t[2]), 1)?;
            let branch = (tanh(&h)?.t()?.contiguous()?.t()? * 3.0)?;
            let y = ((sigmoid(&branch)? + &h)? * &t[0])?;
            affine(&y.narrow(0, 1, 2)?, &t[1], None, 1)
        },
        &inputs,
    );
}

#[test]
fn a_tensor_may_be_used_often() {
    gate(
        |t| {
            let h = tanh(&t[0])?;
            let squares = affine(&h, &h, None, 1)?;
            let more = affine(&affine(&squares, &h, None, 1)?, &t[0], None, 1)?;
            Ok(((more + &squares)? + &h)?)
        },
        &[values([3, 3], 1)],
    );
}

#[test]
fn some_of_several_results_are_used() {
    let normalized = |t: &[Tensor]| batch_normalization(&t[0], &t[1], &t[2], &[1], 1e-3);
    let inputs = [values([5, 3], 1), values([1, 3], 2), values([1, 3], 3)];
    gate(|t| Ok(normalized(t)?.0), &inputs);
    gate(|t| Ok(normalized(t)?.1.to_dtype(t[0].dtype())?), &inputs);
    gate(
        |t| {
            let (y, mean, var) = normalized(t)?;
            let [mean, var] = [mean.to_dtype(y.dtype())?, var.to_dtype(y.dtype())?];
            Ok((y.broadcast_mul(&mean)?.broadcast_mul(&var)? + mean.broadcast_as(t[0].shape())?)?)
        },
        &inputs,
    );
}

/// Variables, and two losses that share a part.
fn two_losses() -> ([Var; 2], Tensor, Tensor, Tensor) {
    let x = Var::from_tensor(&values([4, 3], 1)).unwrap();
    let w = Var::from_tensor(&values([3, 3], 2)).unwrap();
    let shared = relu(&affine(&x, &w, None, 1).unwrap()).unwrap();
    let first = affine(&shared, &w, None, 1).unwrap().sum_all().unwrap();
    let second = tanh(&shared).unwrap().sum_all().unwrap();
    ([x, w], shared, first, second)
}

fn gradients_of(loss: &Tensor, vars: &[Var]) -> Vec<Vec<f64>> {
    let gradients = loss.backward().unwrap();
    vars.iter().map(|var| flat(gradients.get(var).unwrap())).collect()
}

#[test]
fn a_graph_may_be_passed_more_than_once() {
    let (vars, _, first, second) = two_losses();
    let once = [gradients_of(&first, &vars), gradients_of(&second, &vars)];
    let again = [gradients_of(&first, &vars), gradients_of(&second, &vars)];
    assert_eq!(once, again);
    let sum = gradients_of(&(&first + &second).unwrap(), &vars);
    for ((sum, first), second) in sum.concat().iter().zip(once[0].concat()).zip(once[1].concat()) {
        assert!((sum - (first + second)).abs() < 1e-12);
    }
}

#[test]
fn passes_in_several_threads_do_not_meet() {
    let (vars, _, first, second) = two_losses();
    let want = [gradients_of(&first, &vars), gradients_of(&second, &vars)];
    thread::scope(|scope| {
        for (loss, want) in [&first, &second, &first, &second].into_iter().zip(want.iter().cycle()) {
            let vars = &vars;
            scope.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(&gradients_of(loss, vars), want);
                }
            });
        }
    });
}

/// An operation whose gradient cannot be computed.
struct Failing;

impl CustomOp1 for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((storage.clone(), layout.shape().clone()))
    }
}

#[test]
fn what_a_failed_pass_left_behind_is_noticed() {
    let (vars, shared, first, second) = two_losses();
    let want = gradients_of(&second, &vars);
    let failing = shared.apply_op1(Failing).unwrap().sum_all().unwrap();
    // The right side comes first: it has handed its gradient to the shared part when the left side fails.
    assert!((failing + first).unwrap().backward().is_err());
    let error = second.backward().unwrap_err().to_string();
    assert!(error.contains("an earlier backward pass through `relu` failed"), "{error}");
    assert_eq!(gradients_of(&second, &vars), want, "what was left behind is gone now");
}

#[test]
fn an_input_without_a_gradient_has_zeros() {
    let x = Var::from_tensor(&values([3], 1)).unwrap();
    let unused = (x.as_tensor() * 2.0).unwrap();
    let value = values([3], 2);
    let y = straight_through(&unused, &value).unwrap();
    let cut = affine(&y.detach().reshape((1, 3)).unwrap(), &values([3, 2], 3), None, 1).unwrap();
    assert!(cut.sum_all().unwrap().backward().unwrap().get(&x).is_none());
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert_eq!(flat(gradients.get(&x).unwrap()), [2.0; 3]);
}

/// Runs `f` on a thread with the stack that threads of a server usually have.
fn on_a_usual_stack(f: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(2 << 20).spawn(f).unwrap().join().unwrap();
}

#[test]
fn a_graph_may_be_of_any_length() {
    on_a_usual_stack(|| {
        let x = Var::from_tensor(&values([2], 1)).unwrap();
        let y = (0..200_000).try_fold(x.as_tensor().clone(), |y, _| relu(&y)).unwrap();
        let want: Vec<f64> = flat(&x).iter().map(|x| if *x > 0.0 { 1.0 } else { 0.0 }).collect();
        assert_eq!(by_both(&y, std::slice::from_ref(&x)).concat(), want);
        assert_eq!(by_both(&y.sum_all().unwrap(), &[x]).concat(), want);
    });
}

#[test]
fn a_graph_is_freed_from_either_end() {
    on_a_usual_stack(|| {
        for from_the_start in [true, false] {
            let x = Var::from_tensor(&values([2], 1)).unwrap();
            let mut all = vec![x.as_tensor().clone()];
            (0..100_000).for_each(|i| all.push(tanh(&all[i]).unwrap()));
            if !from_the_start {
                all.reverse();
            }
            all.into_iter().for_each(drop);
        }
    });
}

#[test]
fn a_graph_with_operations_of_candle_is_freed_at_any_length() {
    on_a_usual_stack(|| {
        let x = Var::from_tensor(&values([2], 1)).unwrap();
        drop((0..50_000).try_fold(x.as_tensor().clone(), |y, _| relu(&y)? * 0.5).unwrap());
    });
}

/// `h` after so many steps of a cell that gets `x` in each.
fn steps(n: usize, [x, h, c, w, b]: [&Tensor; 5]) -> Tensor {
    let state = (h.clone(), c.clone());
    (0..n).try_fold(state, |(h, c), _| lstm_cell(x, &h, &c, w, b)).unwrap().0
}

#[test]
fn a_recurrent_cell_may_take_any_number_of_steps() {
    on_a_usual_stack(|| {
        let sizes: [&[usize]; 5] = [&[2, 2], &[2, 3], &[2, 3], &[5, 4, 3], &[4, 3]];
        let vars: Vec<Var> = sizes
            .iter()
            .zip(1..)
            .map(|(dims, seed)| Var::from_tensor(&values(*dims, seed)).unwrap())
            .collect();
        let h = steps(20_000, [0, 1, 2, 3, 4].map(|i| vars[i].as_tensor()));
        let few = steps(2000, [0, 1, 2, 3, 4].map(|i| vars[i].as_tensor()));
        let (got, want) = (by_both(&h, &vars).concat(), by_both(&few, &vars).concat());
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() < 1e-9, "{got}, not {want}"); // the state has come to rest
        }
    });
}

#[test]
fn nothing_is_kept_where_nothing_is_tracked() {
    let [x, h, c] = [values([2, 2], 1), values([2, 3], 2), values([2, 3], 3)];
    let [w, b] = [values([5, 4, 3], 4), values([4, 3], 5)];
    let h = steps(3, [&x, &h, &c, &w, &b]);
    let y = relu(&affine(&h, &values([3, 4], 6), None, 1).unwrap()).unwrap();
    assert!(!h.track_op() && !y.track_op());
    let loss = softmax_cross_entropy(&y, &Tensor::new(&[1u32, 0], y.device()).unwrap(), 1).unwrap();
    assert!(!loss.track_op());
}

/// The gradients by `backward`, which must be those of candle's own pass.
fn by_both(loss: &Tensor, vars: &[Var]) -> Vec<Vec<f64>> {
    let gradients = backward(loss).unwrap();
    let found: Vec<_> = vars.iter().map(|var| flat(gradients.get(var).unwrap())).collect();
    assert_eq!(found, gradients_of(loss, vars));
    found
}

#[test]
fn backward_is_the_pass_of_candle() {
    let (vars, shared, first, second) = two_losses();
    by_both(&first, &vars); // ends in an operation of candle's
    by_both(&shared, &vars); // functions alone, not a scalar
    let functions = affine(&shared, &vars[1], None, 1).unwrap();
    by_both(&functions, &vars);
    by_both(&(functions.sum_all().unwrap() + second).unwrap(), &vars);
    assert!(backward(shared.detach()).unwrap().get(&vars[0]).is_none());
}

#[test]
fn backward_forgets_what_a_failed_pass_left_behind() {
    let (vars, shared, first, _) = two_losses();
    let want = gradients_of(&shared, &vars);
    let failing = (shared.apply_op1(Failing).unwrap().sum_all().unwrap() + first).unwrap();
    // A loss of functions alone, and one that ends in an operation of candle's.
    for loss in [shared.clone(), shared.sum_all().unwrap()] {
        assert!(backward(&failing).is_err());
        assert!(failing.backward().is_err());
        let gradients = backward(&loss).unwrap();
        assert_eq!(vars.iter().map(|var| flat(gradients.get(var).unwrap())).collect::<Vec<_>>(), want);
    }
}
