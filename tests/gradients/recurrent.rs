use candle_core::Tensor;
use layerfn::functions::{Nonlinearity, gru, gru_cell, lstm, rnn};
use layerfn::{Result, Rng};
use layerfn_tests::{both_paths, flat, gate, values};

/// Steps, samples, inputs, layers, directions, units.
const SIZES: [[usize; 6]; 8] = [
    [3, 2, 3, 1, 1, 4],
    [1, 1, 1, 1, 1, 1],
    [1, 2, 3, 1, 2, 2],
    [4, 2, 3, 2, 1, 3],
    [3, 1, 2, 3, 2, 2],
    [2, 3, 1, 2, 2, 33],
    [3, 40, 20, 1, 1, 60],
    [2, 0, 3, 2, 1, 2],
];

/// `x`, the states, and the parameters for cells of so many gates (blocks of weights) and biases.
fn inputs(
    [t, n, i, layers, directions, units]: [usize; 6],
    blocks: [usize; 2],
    n_states: usize,
) -> Vec<Tensor> {
    let [weights, biases] = blocks.map(|n| if n == 1 { vec![units] } else { vec![n, units] });
    let mut dims = vec![vec![t, n, i]];
    dims.extend(vec![vec![layers, directions, n, units]; n_states]);
    dims.push([&[directions], &weights[..], &[i + units]].concat());
    dims.push([&[layers - 1, directions], &weights[..], &[directions * units + units]].concat());
    dims.push([&[layers, directions], &biases[..]].concat());
    if layers == 1 {
        dims.remove(n_states + 2);
    }
    dims.into_iter().zip(1..).map(|(dims, seed)| values(dims, seed)).collect()
}

/// The weights of the upper layers and the biases, which stand at the end.
fn rest(t: &[Tensor], sizes: [usize; 6], with_bias: bool) -> [Option<&Tensor>; 2] {
    let end = t.len() - usize::from(with_bias);
    [(sizes[3] > 1).then(|| &t[end - 1]), with_bias.then(|| &t[end])]
}

fn joined(results: &[Tensor]) -> Result<Tensor> {
    let flat = results.iter().map(Tensor::flatten_all).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&flat, 0)?)
}

#[test]
fn rnn_in_all_results() {
    for sizes in SIZES {
        let inputs = inputs(sizes, [1, 1], 1);
        for nonlinearity in [Nonlinearity::Tanh, Nonlinearity::Relu] {
            for with_bias in [true, false] {
                let run = |t: &[Tensor]| {
                    let [w, b] = rest(t, sizes, with_bias);
                    let (y, h) = rnn(&t[0], &t[1], &t[2], w, b, nonlinearity, 0.0, &Rng::new(1))?;
                    joined(&[y, h])
                };
                gate(run, &inputs[..inputs.len() - usize::from(!with_bias)]);
            }
        }
    }
}

#[test]
fn gru_in_all_results() {
    for sizes in SIZES {
        let inputs = inputs(sizes, [3, 4], 1);
        for with_bias in [true, false] {
            let run = |t: &[Tensor]| {
                let [w, b] = rest(t, sizes, with_bias);
                let (y, h) = gru(&t[0], &t[1], &t[2], w, b, 0.0, &Rng::new(1))?;
                joined(&[y, h])
            };
            gate(run, &inputs[..inputs.len() - usize::from(!with_bias)]);
        }
    }
}

#[test]
fn lstm_in_all_results() {
    for sizes in SIZES {
        let inputs = inputs(sizes, [4, 4], 2);
        for with_bias in [true, false] {
            let run = |t: &[Tensor]| {
                let [w, b] = rest(t, sizes, with_bias);
                let (y, h, c) = lstm(&t[0], &t[1], &t[2], &t[3], w, b, 0.0, &Rng::new(1))?;
                joined(&[y, h, c])
            };
            gate(run, &inputs[..inputs.len() - usize::from(!with_bias)]);
        }
    }
}

/// Each result alone: the others have no gradient then.
#[test]
fn gradients_of_one_result() {
    let sizes = [3, 2, 3, 2, 2, 3];
    let inputs = inputs(sizes, [4, 4], 2);
    for result in 0..3 {
        let run = |t: &[Tensor]| {
            let (y, h, c) = lstm(&t[0], &t[1], &t[2], &t[3], Some(&t[4]), Some(&t[5]), 0.0, &Rng::new(1))?;
            Ok([y, h, c][result].clone())
        };
        gate(run, &inputs);
    }
}

#[test]
fn gru_cell_over_several_steps() {
    for (samples, inmaps, state) in [(2, 3, 4), (1, 1, 1), (3, 0, 2), (0, 3, 2), (2, 3, 0), (40, 20, 60)] {
        let dims =
            [vec![samples, inmaps], vec![samples, state], vec![3, state, inmaps + state], vec![4, state]];
        let inputs: Vec<_> = dims.into_iter().zip(1..).map(|(dims, seed)| values(dims, seed)).collect();
        gate(|t| gru_cell(&t[0], &t[1], &t[2], Some(&t[3])), &inputs);
        let steps = |t: &[Tensor]| (0..3).try_fold(t[1].clone(), |h, _| gru_cell(&t[0], &h, &t[2], None));
        gate(steps, &inputs[..3]);
    }
}

/// The steps of a chain of candle's operations would be as deep a recursion.
#[test]
fn ten_thousand_steps_fit_into_a_small_stack() {
    let run = || {
        both_paths(|| {
            let inputs = inputs([10_000, 1, 1, 1, 1, 2], [3, 4], 1);
            let vars: Vec<_> = inputs.iter().map(|x| candle_core::Var::from_tensor(x).unwrap()).collect();
            let (y, _) = gru(&vars[0], &vars[1], &vars[2], None, Some(&vars[3]), 0.0, &Rng::new(1)).unwrap();
            let gradients = y.sum_all().unwrap().backward().unwrap();
            assert!(flat(gradients.get(&vars[2]).unwrap()).iter().all(|x| x.is_finite()));
        });
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
}

#[test]
fn what_does_not_fit_is_refused() {
    let rng = Rng::new(1);
    let message =
        |x: &[usize], h: &[usize], w0: &[usize], w: Option<&[usize]>, b: Option<&[usize]>, p: f64| {
            let [x, h, w0] = [x, h, w0].map(|dims| values(dims, 1));
            let [w, b] = [w, b].map(|dims| dims.map(|dims| values(dims, 1)));
            gru(&x, &h, &w0, w.as_ref(), b.as_ref(), p, &rng).unwrap_err().to_string()
        };
    let (x, h, w0, w) = (&[4, 2, 3][..], &[2, 1, 2, 5][..], &[1, 3, 5, 8][..], &[1, 1, 3, 5, 10][..]);
    assert_eq!(
        message(&[4, 2], h, w0, None, None, 0.0),
        "`x` must have the shape (steps, batch, inputs), got [4, 2]"
    );
    assert_eq!(message(&[0, 2, 3], h, w0, None, None, 0.0), "`x` must have at least one step, got [0, 2, 3]");
    assert_eq!(
        message(x, &[2, 1, 3, 5], w0, None, None, 0.0),
        "`h` must have the shape (layers, 1 or 2 directions, batch, state) with a batch of 2 as `x` has it, got [2, 1, 3, 5]"
    );
    assert!(
        message(x, &[2, 3, 2, 5], w0, None, None, 0.0).starts_with("`h` must have the shape (layers, 1 or 2")
    );
    assert_eq!(
        message(x, h, &[3, 5, 8], None, None, 0.0),
        "`weight_l0` must have shape [1, 3, 5, 8] here, got [3, 5, 8]"
    );
    assert_eq!(
        message(x, h, w0, None, None, 0.0),
        "`weight` must have shape [1, 1, 3, 5, 10] here, got \"none\""
    );
    assert!(
        message(x, h, w0, Some(w), Some(&[2, 1, 3, 5]), 0.0)
            .starts_with("`bias` must have shape [2, 1, 4, 5] here")
    );
    assert!(message(x, h, w0, Some(w), None, 1.0).starts_with("`dropout` must be in [0, 1)"));
    assert_eq!(
        "sigmoid".parse::<Nonlinearity>().unwrap_err().to_string(),
        "`nonlinearity` must be `tanh` or `relu`, got \"sigmoid\""
    );
}
