//! Accumulation, groups and clipping together, against plain loops.

use candle_core::DType;
use layerfn::solver::{Change, Momentum, Solver};
use layerfn::training::Accumulator;
use proptest::prelude::*;

use super::{gradients, parameters, values, var};

const PATHS: [&str; 4] = ["c/W", "c/b", "out/W", "out/b"];

#[derive(Clone, Debug)]
struct Case {
    weights: Vec<Vec<f64>>,
    /// For each step and batch: its weight, and a gradient for each parameter.
    steps: Vec<Vec<(f64, Vec<Vec<f64>>)>>,
    clip: f64,
    decay: f64,
    clip_first: bool,
    factor: f64,
    frozen: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let sizes = prop::collection::vec(1usize..6, PATHS.len());
    sizes.prop_flat_map(|sizes| {
        let number = -2.0..2.0f64;
        let vectors: Vec<_> = sizes.iter().map(|&size| prop::collection::vec(number.clone(), size)).collect();
        let batch = (prop::sample::select(vec![1.0, 2.0, 5.0]), vectors.clone());
        let steps = prop::collection::vec(prop::collection::vec(batch, 1..4), 1..4);
        let settings = (0.1..4.0f64, 0.0..0.5f64, any::<bool>(), 0.0..3.0f64, any::<bool>());
        (vectors, steps, settings).prop_map(|(weights, steps, (clip, decay, clip_first, factor, frozen))| {
            Case { weights, steps, clip, decay, clip_first, factor, frozen }
        })
    })
}

/// The same in plain loops.
fn naive(case: &Case) -> Vec<Vec<f64>> {
    let (mut w, mut m) = (case.weights.clone(), case.weights.clone());
    m.iter_mut().flatten().for_each(|m| *m = 0.0);
    let live: Vec<usize> = (0..PATHS.len()).filter(|&i| !(case.frozen && PATHS[i] == "c/b")).collect();
    for batches in &case.steps {
        let total: f64 = batches.iter().map(|(weight, _)| weight).sum();
        let mut g = case.weights.clone();
        for (i, g) in g.iter_mut().enumerate() {
            for (k, g) in g.iter_mut().enumerate() {
                *g = batches.iter().map(|(weight, gradients)| weight * gradients[i][k]).sum::<f64>() / total;
            }
        }
        let decays = |i: usize| if PATHS[i].ends_with("/b") { 0.0 } else { case.decay };
        let decay = |g: &mut Vec<Vec<f64>>| {
            for &i in &live {
                g[i].iter_mut().zip(&w[i]).for_each(|(g, w)| *g += decays(i) * w);
            }
        };
        if !case.clip_first {
            decay(&mut g);
        }
        let norm = live.iter().flat_map(|&i| &g[i]).map(|g| g * g).sum::<f64>().sqrt();
        if norm > case.clip {
            g.iter_mut().flatten().for_each(|g| *g *= case.clip / norm);
        }
        if case.clip_first {
            decay(&mut g);
        }
        for &i in &live {
            let rate = 0.1 * if PATHS[i].starts_with("out/") { case.factor } else { 1.0 };
            for k in 0..w[i].len() {
                m[i][k] = 0.5 * m[i][k] + rate * g[i][k];
                w[i][k] -= m[i][k];
            }
        }
    }
    w
}

fn ours(case: &Case) -> layerfn::Result<Vec<Vec<f64>>> {
    let vars = case.weights.iter().map(|w| var(w, DType::F64)).collect::<layerfn::Result<Vec<_>>>()?;
    let all = parameters(&PATHS.into_iter().zip(&vars).collect::<Vec<_>>());
    let mut solver =
        Momentum::new(0.1, 0.5).learning_rate_factor("out/**", case.factor).decay_rate("**/b", 0.0);
    if case.frozen {
        solver = solver.frozen("c/b");
    }
    solver.set_parameters(&all);
    let (clip, decay) = (Change::ClipByGlobalNorm(case.clip), Change::WeightDecay(case.decay));
    let changes = if case.clip_first { [clip, decay] } else { [decay, clip] };
    let mut sum = Accumulator::new(&all);
    for batches in &case.steps {
        for (weight, of_batch) in batches {
            let pairs: Vec<_> = vars.iter().zip(of_batch.iter().cloned()).collect();
            sum.add(&gradients(&pairs)?, *weight)?;
        }
        solver.update_with(&sum.take()?, &changes)?;
    }
    vars.iter().map(|var| values(var)).collect()
}

proptest! {
    #[test]
    fn accumulation_groups_and_clipping_are_those_of_loops(case in case()) {
        let (got, want) = (ours(&case).unwrap(), naive(&case));
        for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
            prop_assert!((got - want).abs() <= 1e-12 * (1.0 + want.abs()), "{got}, not {want}");
        }
    }
}
