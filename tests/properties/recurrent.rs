//! Recurrent layers of random sizes against their definition, written as plainly as possible.

use candle_core::{Device, Tensor};
use layerfn::Rng;
use layerfn::functions::{Nonlinearity, gru, lstm, rnn};
use layerfn_tests::{assert_close, flat, values};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tanh,
    Relu,
    Gru,
    Lstm,
}

impl Kind {
    /// Blocks of the weights and of the bias.
    fn blocks(self) -> [usize; 2] {
        match self {
            Self::Tanh | Self::Relu => [1, 1],
            Self::Gru => [3, 4],
            Self::Lstm => [4, 4],
        }
    }
}

#[derive(Clone, Debug)]
struct Sizes {
    kind: Kind,
    steps: usize,
    batch: usize,
    inputs: usize,
    layers: usize,
    directions: usize,
    units: usize,
    with_bias: bool,
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let kinds = prop::sample::select(vec![Kind::Tanh, Kind::Relu, Kind::Gru, Kind::Lstm]);
    (kinds, 1..7usize, 1..5usize, 1..6usize, 1..4usize, 1..3usize, 1..40usize, any::<bool>()).prop_map(
        |(kind, steps, batch, inputs, layers, directions, units, with_bias)| Sizes {
            kind,
            steps,
            batch,
            inputs,
            layers,
            directions,
            units,
            with_bias,
        },
    )
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// One step of one sample: `w` is `(blocks, units, inputs + units)`, `b` is `(biases, units)`.
fn step(kind: Kind, x: &[f64], h: &[f64], c: &[f64], w: &[f64], b: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (units, width) = (h.len(), x.len() + h.len());
    let product = |block: usize, unit: usize, of: &[f64], first: usize| -> f64 {
        let row = &w[(block * units + unit) * width + first..];
        of.iter().zip(row).map(|(value, weight)| value * weight).sum()
    };
    let unit = |u: usize| {
        let input = |block| product(block, u, x, 0);
        let state = |block| product(block, u, h, x.len());
        let all = |block| input(block) + state(block) + b[block * units + u];
        match kind {
            Kind::Tanh => (all(0).tanh(), 0.0),
            Kind::Relu => (all(0).max(0.0), 0.0),
            Kind::Gru => {
                let (r, z) = (sigmoid(all(0)), sigmoid(all(1)));
                let n = (input(2) + b[2 * units + u] + r * (state(2) + b[3 * units + u])).tanh();
                ((1.0 - z) * n + z * h[u], 0.0)
            }
            Kind::Lstm => {
                let c = sigmoid(all(1)) * c[u] + sigmoid(all(0)) * all(2).tanh();
                (sigmoid(all(3)) * c.tanh(), c)
            }
        }
    };
    (0..units).map(unit).unzip()
}

/// The outputs and the last states.
fn definition(s: &Sizes, [x, h, c, w0, w, b]: [&[f64]; 6]) -> [Vec<f64>; 3] {
    let [blocks, biases] = s.kind.blocks();
    let mut x: Vec<Vec<f64>> = x.chunks(s.inputs).map(<[f64]>::to_vec).collect(); // by step and sample
    let (mut last_h, mut last_c) = (Vec::new(), Vec::new());
    let width = s.directions * s.units;
    for layer in 0..s.layers {
        let mut y = vec![vec![0.0; width]; s.steps * s.batch];
        for direction in 0..s.directions {
            let at = layer * s.directions + direction;
            let w = match layer {
                0 => &w0[direction * blocks * s.units * (s.inputs + s.units)..],
                _ => &w[(at - s.directions) * blocks * s.units * (width + s.units)..],
            };
            for n in 0..s.batch {
                let state = (at * s.batch + n) * s.units..(at * s.batch + n + 1) * s.units;
                let (mut h, mut c) = (h[state.clone()].to_vec(), c[state].to_vec());
                for i in 0..s.steps {
                    let t = if direction == 1 { s.steps - 1 - i } else { i };
                    (h, c) = step(s.kind, &x[t * s.batch + n], &h, &c, w, &b[at * biases * s.units..]);
                    y[t * s.batch + n][direction * s.units..][..s.units].copy_from_slice(&h);
                }
                last_h.extend(h);
                last_c.extend(c);
            }
        }
        x = y;
    }
    [x.concat(), last_h, last_c]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recurrent_layers_are_their_definition(s in sizes()) {
        let [blocks, biases] = s.kind.blocks();
        let block = |n: usize| if n == 1 { vec![s.units] } else { vec![n, s.units] };
        let states = [s.layers, s.directions, s.batch, s.units];
        let width = (s.directions + 1) * s.units;
        let x = values([s.steps, s.batch, s.inputs], 1);
        let (h, c) = (values(states, 2), values(states, 3));
        let w0 = values([&[s.directions], &block(blocks)[..], &[s.inputs + s.units]].concat(), 4);
        let w = values([&[s.layers - 1, s.directions], &block(blocks)[..], &[width]].concat(), 5);
        let b = values([&[s.layers, s.directions], &block(biases)[..]].concat(), 6);
        let b = if s.with_bias { b } else { b.zeros_like().unwrap() };
        // So that states of many ReLU layers do not grow, and rounding with them.
        let [w0, w] = [w0, w].map(|w| (w / (s.units as f64).sqrt()).unwrap());
        let upper = (s.layers > 1).then_some(&w);
        let bias = s.with_bias.then_some(&b);
        let rng = Rng::new(1);
        let elman = |f| rnn(&x, &h, &w0, upper, bias, f, 0.0, &rng).map(|(y, h)| vec![y, h]);
        let run = || match s.kind {
            Kind::Tanh => elman(Nonlinearity::Tanh),
            Kind::Relu => elman(Nonlinearity::Relu),
            Kind::Gru => gru(&x, &h, &w0, upper, bias, 0.0, &rng).map(|(y, h)| vec![y, h]),
            Kind::Lstm => lstm(&x, &h, &c, &w0, upper, bias, 0.0, &rng).map(|(y, h, c)| vec![y, h, c]),
        };
        let inputs = [&x, &h, &c, &w0, &w, &b].map(flat);
        let want = definition(&s, inputs.each_ref().map(Vec::as_slice));
        let y_dims = vec![s.steps, s.batch, s.directions * s.units];
        let dims = [y_dims, states.to_vec(), states.to_vec()];
        let want = want.into_iter().zip(dims).map(|(data, dims)| Tensor::from_vec(data, dims, &Device::Cpu).unwrap());
        let want: Vec<_> = want.collect();
        let (kernels, composed) = (run().unwrap(), layerfn::__private::composed(run).unwrap());
        for (results, how) in [(kernels, "by the kernels"), (composed, "composed")] {
            for (i, (got, want)) in results.iter().zip(&want).enumerate() {
                assert_close(got, want, 1e-12, &format!("result {i} {how}"));
            }
        }
    }
}
