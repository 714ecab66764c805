//! The networks, their solvers and their numbers.

use candle_core::backprop::GradStore;
use layerfn::functions::mean;
use layerfn::prelude::*;
use layerfn::solver::{Adam, Momentum, Sgd};
use layerfn::{LSTMCell, Network, Parameter, get_all_parameters};

use crate::Result;

network! {
    /// LeNet.
    fn lenet()
    < c1: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
   -> c2: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
   -> fc: affine(50) -> relu -> out: affine(10) >

    /// ResNet-20.
    fn resnet20()
    < stem: conv(16, (3, 3), pad = (1, 1), with_bias = false) -> stem_bn: bn -> relu
   -> for (i, &(width, stride, project)) in blocks(16, &[16, 32, 64], 3).iter().enumerate() {
          block[i + 1]: block(width, stride, project)
      }
   -> global_average_pooling -> out: affine(10) >

    /// ResNet-18.
    fn resnet18()
    < stem: conv(64, (7, 7), pad = (3, 3), stride = (2, 2), with_bias = false) -> stem_bn: bn -> relu
   -> max_pool((3, 3), stride = (2, 2), pad = (1, 1))
   -> for (i, &(width, stride, project)) in blocks(64, &[64, 128, 256, 512], 2).iter().enumerate() {
          block[i + 1]: block(width, stride, project)
      }
   -> global_average_pooling -> out: affine(1000) >

    /// A perceptron with two hidden layers.
    fn perceptron() < fc1: affine(1024) -> relu -> fc2: affine(1024) -> relu -> out: affine(10) >

    /// Depthwise-separable convolutions.
    fn separable()
    < for (i, width) in [32, 64, 64, 128, 128, 128].into_iter().enumerate() {
          depthwise[i + 1]: depthwise_convolution((3, 3), pad = (1, 1), with_bias = false)
              -> pointwise[i + 1]: conv(width, (1, 1), with_bias = false) -> norm[i + 1]: bn -> relu
      }
   -> global_average_pooling -> out: affine(10) >

    /// Small layers, one after another.
    fn deep(depth: usize) < for i in 0..depth { fc[i + 1]: affine(64) -> relu } -> out: affine(10) >

    /// An LSTM whose last output is classified.
    fn lstm_classifier() < encoder: last_output(256) -> out: affine(10) >

    /// A Transformer's encoder, whose mean output is classified.
    fn transformer_classifier()
    < for i in 0..4 { encoder[i]: transformer_encode(256, 8, dim_feedforward = 1024, dropout = 0.0) }
   -> mean(0, false) -> out: affine(10) >
}

network! {
    /// Two convolutions beside a shortcut, which is a projection where the shape changes.
    fn block(width: usize, stride: usize, project: bool)
    < add {
        c1: conv(width, (3, 3), pad = (1, 1), stride = (stride, stride), with_bias = false) -> n1: bn -> relu
            -> c2: conv(width, (3, 3), pad = (1, 1), with_bias = false) -> n2: bn,
        if project { side: conv(width, (1, 1), stride = (stride, stride), with_bias = false) -> side_bn: bn },
    } -> relu >
}

/// Width, stride and whether there is a projection, for each block.
fn blocks(input: usize, widths: &[usize], each: usize) -> Vec<(usize, usize, bool)> {
    let mut before = input;
    let mut blocks = Vec::new();
    for (stage, &width) in widths.iter().enumerate() {
        for block in 0..each {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            blocks.push((width, stride, stride != 1 || before != width));
            before = width;
        }
    }
    blocks
}

/// The output of an LSTM after the last of the steps along the first axis.
fn last_output(x: &Tensor, state_size: usize) -> layerfn::Result<Tensor> {
    let (steps, batch_size, _) = x.dims3()?;
    let mut cell = LSTMCell::new(batch_size, state_size);
    let mut h = Tensor::zeros((batch_size, state_size), x.dtype(), x.device())?;
    for step in 0..steps {
        h = cell.step(&x.get(step)?)?;
    }
    Ok(h)
}

/// What a solver does with the gradients of a step.
pub(crate) type Update = Box<dyn FnMut(&GradStore) -> layerfn::Result<()>>;

fn adam(lr: f64) -> Update {
    let mut solver = Adam::new(lr);
    solver.set_parameters(&get_parameters());
    Box::new(move |gradients| solver.update(gradients))
}

fn momentum(lr: f64) -> Update {
    let mut solver = Momentum::new(lr, 0.9);
    solver.set_parameters(&get_parameters());
    Box::new(move |gradients| solver.update(gradients))
}

fn sgd(lr: f64) -> Update {
    let mut solver = Sgd::new(lr);
    solver.set_parameters(&get_parameters());
    Box::new(move |gradients| solver.update(gradients))
}

/// A network and the numbers to run it on.
pub(crate) struct Workload {
    /// The first seed.
    base: u64,
    input: Vec<usize>,
    batch: usize,
    /// The network.
    pub(crate) network: Box<Forward>,
    /// Makes the solver for the parameters of the current store, with its learning rate; none if there is no training.
    solver: Option<(MakeSolver, f64)>,
    /// Multiply-adds of what meets the input, which needs no gradient.
    first: u64,
}

/// From the input to the output.
type Forward = dyn Fn(&Tensor) -> layerfn::Result<Tensor>;

/// Makes a solver with a learning rate.
type MakeSolver = fn(f64) -> Update;

/// The workloads, and whether they train too.
pub(crate) const NAMES: [(&str, bool); 12] = [
    ("w1", true),
    ("w1b1", true),
    ("w1b8", true),
    ("w1b512", true),
    ("w2", true),
    ("w3", true),
    ("w4", true),
    ("w5", true),
    ("w6", false),
    ("w7", true),
    ("w7b1", true),
    ("deep", true),
];

impl Workload {
    /// One of [`NAMES`].
    pub(crate) fn named(name: &str) -> Option<Self> {
        let images = |batch: usize, maps: usize, side: usize| vec![batch, maps, side, side];
        Some(match name {
            "w1" => Self::lenet(64),
            "w1b1" => Self::lenet(1),
            "w1b8" => Self::lenet(8),
            "w1b512" => Self::lenet(512),
            "w2" => {
                let first = 64 * 16 * 32 * 32 * 27;
                Self::new(2000, images(64, 3, 32), 64, resnet20, Some((momentum, 1e-2)), first)
            }
            "w3" => Self::new(3000, vec![128, 784], 128, perceptron, Some((adam, 1e-4)), 128 * 784 * 1024),
            "w4" => {
                let first = 64 * 32 * 64 * 1024;
                Self::new(4000, vec![64, 32, 64], 32, lstm_classifier, Some((adam, 1e-3)), first)
            }
            "w5" => {
                let first = 16 * 32 * 56 * 56 * 9;
                Self::new(5000, images(16, 32, 56), 16, separable, Some((sgd, 1e-2)), first)
            }
            "w6" => Self::new(6000, images(1, 3, 224), 1, resnet18, None, 0),
            "w7" => Self::transformer(8),
            "w7b1" => Self::transformer(1),
            "deep" => Self::deep(100),
            _ => return None,
        })
    }

    /// LeNet at a batch size.
    pub(crate) fn lenet(batch: usize) -> Self {
        let first = (batch * 16 * 24 * 24 * 25) as u64;
        Self::new(1000, vec![batch, 1, 28, 28], batch, lenet, Some((adam, 1e-3)), first)
    }

    /// The Transformer at a batch size.
    fn transformer(batch: usize) -> Self {
        let first = (128 * batch * 256 * 3 * 256) as u64;
        let input = vec![128, batch, 256];
        Self::new(8000, input, batch, transformer_classifier, Some((adam, 1e-4)), first)
    }

    /// So many small layers.
    pub(crate) fn deep(depth: usize) -> Self {
        let network = move |x: &Tensor| deep(x, depth);
        Self::new(7000, vec![1, 64], 1, network, Some((sgd, 1e-3)), 64 * 64)
    }

    fn new(
        base: u64,
        input: Vec<usize>,
        batch: usize,
        network: impl Fn(&Tensor) -> layerfn::Result<Tensor> + 'static,
        solver: Option<(MakeSolver, f64)>,
        first: u64,
    ) -> Self {
        Self { base, input, batch, network: Box::new(network), solver, first }
    }

    /// Whether it trains.
    pub(crate) fn trains(&self) -> bool {
        self.solver.is_some()
    }

    /// The solver for the parameters of the current store.
    pub(crate) fn solver(&self) -> Result<Update> {
        let (solver, learning_rate) = self.solver.ok_or("the workload is not for training")?;
        Ok(solver(learning_rate))
    }

    /// Floating-point operations of a step in convolutions and matrix products: forward, and in training the gradients of
    /// weights and inputs, but not that of the network's input.
    pub(crate) fn operations(&self, infer: bool) -> Result<f64> {
        let summary = Network::new(|x: &Tensor| (self.network)(x)).summary_of(&self.inputs()?)?;
        let forward = summary.multiply_adds();
        Ok(2.0 * if infer { forward } else { 3 * forward - self.first } as f64)
    }

    /// The batch.
    pub(crate) fn inputs(&self) -> Result<Tensor> {
        let values = values(self.base + 1, self.input.iter().product(), 3f64.sqrt());
        Ok(Tensor::from_vec(values, &*self.input, &Device::Cpu)?)
    }

    /// The axis of its examples.
    pub(crate) fn batch_axis(&self) -> usize {
        self.input.iter().position(|&n| n == self.batch).unwrap_or(0)
    }

    /// Its labels.
    pub(crate) fn labels(&self) -> Result<Tensor> {
        let labels: Vec<u32> = (0..self.batch as u64).map(|i| (bits(self.base + 2, i) % 10) as u32).collect();
        Ok(Tensor::new(labels, &Device::Cpu)?)
    }

    /// Gives every weight its value; the other parameters start with the right ones.
    pub(crate) fn set_weights(&self) -> Result<()> {
        let mut seed = self.base + 10;
        let mut next = |n: usize, bound: f64| {
            seed += 1;
            values(seed - 1, n, bound)
        };
        for (path, parameter) in get_all_parameters() {
            let dims = parameter.var().dims();
            let elements = parameter.var().elem_count();
            let weights = match path.rsplit('/').collect::<Vec<_>>()[..] {
                ["W", "affine", "lstm", ..] => lstm_weights(&parameter, &mut next)?,
                ["W", "affine", ..] | ["q_weight" | "k_weight" | "v_weight" | "out_weight", ..] => {
                    next(elements, (6.0 / dims[0] as f64).sqrt())
                }
                ["W", ..] => next(elements, (6.0 / dims[1..].iter().product::<usize>() as f64).sqrt()),
                _ => continue,
            };
            parameter.var().set(&Tensor::from_vec(weights, dims, parameter.var().device())?)?;
        }
        Ok(())
    }
}

/// Puts two matrices with rows for the gates i, f, g, o, one for the input and one for the state, into one with columns
/// for i, o, f, g.
fn lstm_weights(parameter: &Parameter, next: &mut impl FnMut(usize, f64) -> Vec<f32>) -> Result<Vec<f32>> {
    let (rows, gates, state) = parameter.var().dims3()?;
    let (inputs, bound) = (rows - state, 1.0 / (state as f64).sqrt());
    let (of_input, of_state) = (next(gates * state * inputs, bound), next(gates * state * state, bound));
    let mut weights = Vec::with_capacity(rows * gates * state);
    for row in 0..rows {
        for gate in [0, 3, 1, 2] {
            weights.extend((gate * state..(gate + 1) * state).map(|out| {
                if row < inputs { of_input[out * inputs + row] } else { of_state[out * state + row - inputs] }
            }));
        }
    }
    Ok(weights)
}

/// 24 random bits, the `i`-th of the sequence `seed`.
fn bits(seed: u64, i: u64) -> u64 {
    let mut z =
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add((i + 1).wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) >> 40
}

/// `n` values in `[−bound, bound)`.
fn values(seed: u64, n: usize, bound: f64) -> Vec<f32> {
    (0..n as u64).map(|i| (2.0 * (bits(seed, i) as f32 / 16_777_216.0) - 1.0) * bound as f32).collect()
}
