//! The kernels for CUDA, run as C, against the kernels of the CPU.

use candle_core::{DType, Device, Tensor, Var};

use super::in_c::with_kernels_in_c;
use crate::functions::pooling::max_pooling;
use crate::functions::*;
use crate::solver::*;
use crate::{Parameter, ParameterStore, Result};

/// Different numbers in (-1.5, 1.5).
fn values(dims: &[usize], seed: usize) -> Tensor {
    let n: usize = dims.iter().product();
    let values: Vec<f64> =
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 3001) as f64 / 1000.0 - 1.5).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn flat(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// The result of `f`, and the gradients of its weighted sum.
fn results(f: &dyn Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let vars: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = f(&tensors).unwrap();
    let weights = values(y.dims(), 7).to_dtype(y.dtype()).unwrap();
    let gradients = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = vars.iter().map(|var| flat(gradients.get(var).unwrap()));
    std::iter::once(flat(&y)).chain(gradients).collect()
}

#[track_caller]
fn check(f: impl Fn(&[Tensor]) -> Result<Tensor>, sizes: &[&[usize]]) {
    let inputs: Vec<Tensor> = sizes.iter().enumerate().map(|(i, dims)| values(dims, i)).collect();
    let (want, got) = (results(&f, &inputs), with_kernels_in_c(|| results(&f, &inputs)));
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!((got - want).abs() <= 1e-11 * want.abs().max(1.0), "{got}, not {want}");
    }
}

#[test]
fn batch_normalization_by_channel() {
    for (dims, of_channels, axis) in
        [(&[4, 3, 5][..], &[1, 3, 1][..], 1), (&[6, 2], &[1, 2], 1), (&[3, 4], &[3, 1], 0)]
    {
        check(
            |t| Ok(batch_normalization(&t[0], &t[1], &t[2], &[axis], 1e-2)?.0),
            &[dims, of_channels, of_channels],
        );
        let (mean, var) = (values(of_channels, 4), values(of_channels, 5).sqr().unwrap());
        check(
            |t| batch_normalization_by(&t[0], &t[1], &t[2], &mean, &var, &[axis], 1e-2),
            &[dims, of_channels, of_channels],
        );
    }
}

#[test]
fn activations() {
    let functions: [fn(&Tensor) -> Result<Tensor>; 18] = [
        mish,
        gelu_exact,
        sinc,
        atan,
        |x| log(&abs(x)?),
        |x| pow_scalar(x, 3.0),
        |x| r_pow_scalar(x, 1.5),
        |x| mul2(&floor(x)?, &add2(&ceil(x)?, &round(x)?)?),
        relu,
        |x| leaky_relu(x, 0.1),
        |x| elu(x, 0.7),
        selu,
        gelu,
        silu,
        sigmoid,
        tanh,
        softplus,
        hard_sigmoid,
    ];
    for f in functions {
        check(|t| f(&(&t[0] * 4.0)?), &[&[300]]);
    }
}

#[test]
fn functions_of_two_elements() {
    check(|t| squared_error(&t[0], &t[1]), &[&[5, 7], &[5, 7]]);
    check(|t| sigmoid_cross_entropy(&t[0], &t[1]), &[&[5, 7], &[5, 7]]);
    check(|t| pow2(&abs(&t[0])?, &t[1]), &[&[5, 7], &[5, 7]]);
    check(|t| maximum2(&t[0], &t[1]), &[&[5, 1], &[1, 7]]);
    check(|t| where_cond(&greater(&t[0], &t[1])?, &t[0], &t[1]), &[&[5, 7], &[5, 7]]);
}

#[test]
fn prelu_with_one_slope_and_with_one_per_channel() {
    check(|t| prelu(&t[0], &t[1], 1), &[&[4, 3, 5], &[3]]);
    check(|t| prelu(&t[0], &t[1], 1), &[&[4, 3, 5], &[]]);
}

#[test]
fn lstm_gates() {
    let cell = |t: &[Tensor]| lstm_cell(&t[0], &t[1], &t[2], &t[3], &t[4]);
    let sizes: [&[usize]; 5] = [&[3, 2], &[3, 5], &[3, 5], &[7, 4, 5], &[4, 5]];
    check(|t| Ok(cell(t)?.0), &sizes);
    check(|t| cell(t).and_then(|(h, c)| Ok(Tensor::cat(&[h, c], 1)?)), &sizes);
}

#[test]
fn steps_of_recurrent_layers() {
    let rng = crate::Rng::new(1);
    let joined = |(y, h): (Tensor, Tensor)| Ok(Tensor::cat(&[y.flatten_all()?, h.flatten_all()?], 0)?);
    let sizes = |gates: &'static [usize]| -> Vec<Vec<usize>> {
        vec![vec![3, 2, 3], vec![1, 2, 2, 4], [&[2], gates, &[4, 7]].concat()]
    };
    for nonlinearity in [Nonlinearity::Tanh, Nonlinearity::Relu] {
        let sizes = sizes(&[]);
        let sizes: Vec<&[usize]> = sizes.iter().map(Vec::as_slice).collect();
        check(|t| joined(rnn(&t[0], &t[1], &t[2], None, None, nonlinearity, 0.0, &rng)?), &sizes);
    }
    let sizes = sizes(&[3]);
    let sizes: Vec<&[usize]> = sizes.iter().map(Vec::as_slice).collect();
    check(|t| joined(gru(&t[0], &t[1], &t[2], None, None, 0.0, &rng)?), &sizes);
}

#[test]
fn places_of_the_largest() {
    for (dims, kernel, stride, pad) in
        [(&[2, 3, 7, 8][..], 3, 2, 1), (&[2, 1, 5], 2, 1, 0), (&[1, 2, 4, 5, 6], 2, 2, 1)]
    {
        for ignore_border in [true, false] {
            let [kernel, stride, pad] = [kernel, stride, pad].map(crate::PerAxis::Every);
            check(|t| max_pooling(&t[0], &kernel, Some(&stride), ignore_border, &pad, false), &[dims]);
        }
    }
}

#[test]
fn columns_of_windows() {
    // Sizes, outmaps, kernel, pad, stride, dilation, group.
    type Sizes = (&'static [usize], usize, &'static [usize], usize, usize, usize, usize);
    let all: [Sizes; 7] = [
        (&[2, 3, 7], 4, &[3], 1, 2, 1, 1),
        (&[2, 4, 5, 6], 6, &[2, 3], 2, 2, 2, 2),
        (&[2, 2, 5, 4], 2, &[3, 3], 1, 1, 1, 2),
        (&[1, 2, 3, 4, 3], 2, &[2, 1, 3], 1, 2, 1, 1),
        // One map a group.
        (&[2, 3, 7, 5], 6, &[3, 2], 1, 2, 1, 3),
        (&[2, 2, 9], 2, &[3], 2, 1, 2, 2),
        (&[1, 2, 3, 4, 5], 4, &[2, 3, 1], 1, 1, 1, 2),
    ];
    for (dims, outmaps, kernel, pad, stride, dilation, group) in all {
        let [pad, stride, dilation] = [pad, stride, dilation].map(crate::PerAxis::Every);
        let kernel_axes = crate::PerAxis::from(kernel.to_vec());
        let geometry = ConvGeometry::new(dims, &kernel_axes, &pad, &stride, &dilation, group, 1).unwrap();
        let weights = [&[outmaps, dims[1] / group], kernel].concat();
        check(|t| convolution(&t[0], &t[1], Some(&t[2]), &geometry), &[dims, &weights, &[outmaps]]);
        let geometry = DeconvGeometry::new(dims, &kernel_axes, &pad, &stride, &dilation, group, 1).unwrap();
        let weights = [&[dims[1], outmaps / group], kernel].concat();
        check(|t| deconvolution(&t[0], &t[1], Some(&t[2]), &geometry), &[dims, &weights, &[outmaps]]);
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_found() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -7.0] {
        for place in [0, 63, 64, 299] {
            let store = ParameterStore::new();
            let var = Var::zeros(300, DType::F64, &Device::Cpu).unwrap();
            store.set("w", Parameter::new(var.clone(), true)).unwrap();
            let mut solver = Sgd::new(1.0);
            solver.set_parameters(&store.parameters());
            let factors: Vec<f64> = (0..300).map(|i| if i == place { bad } else { 0.5 }).collect();
            let loss =
                (var.as_tensor() * Tensor::new(factors, &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
            let gradients = loss.backward().unwrap();
            let updated = with_kernels_in_c(|| solver.update(&gradients));
            assert_eq!(updated.is_ok(), bad.is_finite(), "{bad} at {place}: {updated:?}");
        }
    }
}

#[test]
fn quantizers() {
    for (sign, with_zero, fine) in [(true, true, true), (false, true, false), (false, false, true)] {
        let fixed = FixedPoint { sign, n: 3, delta: 0.3, ste_fine_grained: fine };
        check(|t| fixed.apply(&t[0]), &[&[300]]);
        let power = Pow2 { sign, with_zero, n: 4, m: 0, ste_fine_grained: fine };
        check(|t| power.apply(&t[0]), &[&[300]]);
    }
    let halves =
        Tensor::new(&[0.499_999_97f32, 0.5, -0.5, 1.5, f32::INFINITY, f32::NAN, -9.0], &Device::Cpu).unwrap();
    let fixed = FixedPoint { sign: true, n: 4, delta: 1.0, ste_fine_grained: true };
    let power = Pow2 { sign: true, with_zero: true, n: 5, m: 1, ste_fine_grained: true };
    let functions: [&dyn Fn() -> Tensor; 2] =
        [&|| fixed.apply(&halves).unwrap(), &|| power.apply(&halves).unwrap()];
    for f in functions {
        let bits = |y: Tensor| flat(&y).into_iter().map(f64::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(with_kernels_in_c(f)), bits(f()));
    }
}

/// The parameter and its states after two steps.
fn steps(mut solver: Box<dyn Solver>, changes: &[Change], dtype: DType) -> Vec<Vec<f64>> {
    let store = ParameterStore::new();
    let var = Var::from_tensor(&values(&[2, 20], 1).to_dtype(dtype).unwrap()).unwrap();
    store.set("w", Parameter::new(var.clone(), true)).unwrap();
    solver.set_parameters(&store.parameters());
    for step in 0..2 {
        let gradient = values(&[2, 20], 5 + step).to_dtype(dtype).unwrap();
        let gradients = (var.as_tensor() * gradient).unwrap().sum_all().unwrap().backward().unwrap();
        solver.update_with(&gradients, changes).unwrap();
    }
    let states = solver.get_states().unwrap();
    std::iter::once(flat(&var)).chain(states.vars().iter().map(|state| flat(state))).collect()
}

#[test]
fn solvers() {
    fn check<S: Solver + 'static>(solver: impl Fn() -> S) {
        let changes = [Change::WeightDecay(0.1), Change::ClipByValue(0.5)];
        for (dtype, tolerance, changes) in [(DType::F64, 1e-13, &changes[..]), (DType::F32, 1e-6, &[])] {
            let steps = || steps(Box::new(solver()), changes, dtype);
            let want = steps().concat();
            let got = with_kernels_in_c(steps).concat();
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{got}, not {want}");
            }
        }
    }
    check(|| Sgd::new(0.1));
    check(|| SgdW::new(0.1, 0.8));
    check(|| Momentum::new(0.1, 0.8));
    check(|| Nesterov::new(0.1, 0.8));
    check(|| Lars::new(0.1, 0.8));
    check(|| Lion::new(0.1));
    check(|| Adagrad::new(0.1));
    check(|| Adadelta::new(0.1));
    check(|| RMSprop::new(0.01));
    check(|| RMSpropGraves::new(0.01));
    check(|| Adam::new(0.01));
    check(|| AdamW::new(0.01));
    check(|| Adamax::new(0.01));
    check(|| AMSGRAD::new(0.01));
    check(|| AdaBound::new(0.01));
    check(|| AMSBound::new(0.01));
    check(|| AdaBelief::new(0.01));
    check(|| AdaBelief::new(0.01).amsgrad().rectify());
    check(|| Lamb::new(0.01));
    check(|| Muon::new(0.01));
}
