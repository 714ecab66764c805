//! What the tests share: values to test on and the gate that every differentiable function passes.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use layerfn::Result;
use layerfn::functions::affine;

pub mod golden;
pub mod support;

/// Repeatable values in (-1, 1), another sequence for each `seed`; no two of them are equal.
pub fn values(dims: impl Into<Vec<usize>>, seed: u64) -> Tensor {
    let dims = dims.into();
    let n: usize = dims.iter().product();
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let data: Vec<f64> = (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect();
    Tensor::from_vec(data, dims, &Device::Cpu).unwrap()
}

/// All checks of a differentiable function: [`assert_gradients`], [`assert_precisions_agree`],
/// [`assert_threads_agree`], [`assert_memory_does_not_matter`] and [`assert_composed_agrees`].
#[track_caller]
pub fn gate(f: impl Fn(&[Tensor]) -> Result<Tensor> + Sync, inputs: &[Tensor]) {
    assert_gradients(&f, inputs);
    assert_precisions_agree(&f, inputs);
    assert_threads_agree(&f, inputs);
    assert_memory_does_not_matter(&f, inputs);
    assert_composed_agrees(&f, inputs);
}

/// Runs `check` twice: with the kernels, and with what runs on devices without kernels.
pub fn both_paths(check: impl Fn()) {
    check();
    layerfn::__private::composed(check);
}

/// Checks that what runs on devices without kernels gives what the kernels give; see [`assert_device_agrees`].
#[track_caller]
pub fn assert_composed_agrees(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) {
    assert_device_agrees(&Device::Cpu, f, inputs);
}

/// Checks that results and gradients of `f` on `device`, without kernels, are those of the kernels on the CPU, in f64, and
/// that the precisions agree there.
#[track_caller]
pub fn assert_device_agrees(device: &Device, f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) {
    let composed = |inputs: &[Tensor]| layerfn::__private::composed(|| f(inputs));
    let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
    let there: Vec<Tensor> = inputs.iter().map(|x| x.to_device(device).unwrap()).collect();
    let y = f(&inputs).unwrap();
    assert_close(&composed(&there).unwrap(), &y, 1e-9, "result without kernels");
    let upstream = values(y.dims(), 4711);
    let got = gradients(composed, &there, &upstream, |_| true);
    let want = gradients(&f, &inputs, &upstream, |_| true);
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let (got, want) = (got.as_ref().unwrap(), want.as_ref().unwrap());
        assert_close(got, want, 1e-9, &format!("gradient of input {i} without kernels"));
    }
    assert_precisions_agree(composed, &there);
}

/// Compares the gradients of `f` with central differences in f64.
///
/// Also checks that an input's gradient is the same when it alone is tracked, and that inputs which are not
/// contiguous, or start in the middle of their storage, give the same result.
#[track_caller]
pub fn assert_gradients(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) {
    const STEP: f64 = 1e-5;
    const MAX_ELEMENTS: usize = 60;
    let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
    let y = f(&inputs).unwrap();
    let upstream = values(y.dims(), 4711);
    let loss =
        |inputs: &[Tensor]| -> f64 { weighted_sum(&f(inputs).unwrap(), &upstream).to_scalar().unwrap() };
    let all = gradients(&f, &inputs, &upstream, |_| true);
    for (i, input) in inputs.iter().enumerate() {
        let gradient = flat(all[i].as_ref().unwrap_or_else(|| panic!("input {i} has no gradient")));
        let alone = gradients(&f, &inputs, &upstream, |j| j == i);
        assert_eq!(
            flat(alone[i].as_ref().unwrap()),
            gradient,
            "gradient of input {i} when it alone is tracked"
        );
        let data = flat(input);
        let every = data.len().div_ceil(MAX_ELEMENTS).max(1);
        for k in (0..data.len()).step_by(every) {
            let moved = |by: f64| {
                let mut data = data.clone();
                data[k] += by;
                let mut inputs = inputs.clone();
                inputs[i] = Tensor::from_vec(data, input.dims(), &Device::Cpu).unwrap();
                loss(&inputs)
            };
            let want = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let got = gradient[k];
            assert!(
                (got - want).abs() <= 1e-7 + 1e-6 * want.abs().max(got.abs()),
                "input {i}, element {k}: gradient {got}, by differences {want}"
            );
        }
    }
    let y = flat(&y);
    for scattered in [scattered as fn(&Tensor) -> Tensor, offset] {
        let inputs: Vec<Tensor> = inputs.iter().map(scattered).collect();
        assert_eq!(flat(&f(&inputs).unwrap()), y, "result for inputs with other strides");
        let gradients = gradients(&f, &inputs, &upstream, |_| true);
        for (i, (got, want)) in gradients.iter().zip(&all).enumerate() {
            // Not to the bit: a copy to other strides may change the order in which an input's uses are summed.
            let (got, want) = (got.as_ref().unwrap(), want.as_ref().unwrap());
            assert_close(got, want, 1e-13, &format!("gradient of input {i} with other strides"));
        }
    }
}

/// Compares results and gradients in f32, f16 and bf16 with those in f64.
#[track_caller]
pub fn assert_precisions_agree(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) {
    for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::F16, 2e-2), (DType::BF16, 1.5e-1)] {
        // Round first, so that only the function's own errors count.
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(dtype).unwrap()).collect();
        let exact: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
        let (y, y_exact) = (f(&inputs).unwrap(), f(&exact).unwrap());
        assert_eq!(y.dtype(), dtype, "type of the result");
        assert_close(&y, &y_exact, tolerance, &format!("result in {dtype:?}"));
        let upstream = values(y.dims(), 4711).to_dtype(dtype).unwrap();
        let got = gradients(&f, &inputs, &upstream, |_| true);
        let want = gradients(&f, &exact, &upstream.to_dtype(DType::F64).unwrap(), |_| true);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let (got, want) = (got.as_ref().unwrap(), want.as_ref().unwrap());
            assert_eq!(got.dtype(), dtype, "type of the gradient of input {i}");
            assert_close(got, want, tolerance, &format!("gradient of input {i} in {dtype:?}"));
        }
    }
}

/// Checks that one, two and three threads give the same bits in f32.
#[track_caller]
pub fn assert_threads_agree(f: impl Fn(&[Tensor]) -> Result<Tensor> + Sync, inputs: &[Tensor]) {
    let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F32).unwrap()).collect();
    let bits = |n_threads| layerfn::__private::with_threads(n_threads, || all_bits(&f, &inputs));
    let one = bits(1);
    assert_eq!(one, bits(2), "two threads");
    assert_eq!(one, bits(3), "three threads");
}

/// Checks that results and gradients in f32 are the same bits whatever their memory held before, as in a release build.
#[track_caller]
pub fn assert_memory_does_not_matter(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) {
    let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F32).unwrap()).collect();
    let bits = |seed| layerfn::__private::with_memory_of(seed, || all_bits(&f, &inputs));
    let nan = all_bits(&f, &inputs);
    assert_eq!(nan, bits(0x5eed), "other memory");
    assert_eq!(nan, bits(0xf00d), "yet other memory");
}

/// Of the result and the gradients of all inputs.
fn all_bits(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Vec<Vec<u32>> {
    let y = f(inputs).unwrap();
    let upstream = values(y.dims(), 4711).to_dtype(DType::F32).unwrap();
    let gradients = gradients(&f, inputs, &upstream, |_| true);
    let gradients = gradients.into_iter().map(|gradient| gradient.unwrap());
    std::iter::once(y).chain(gradients).map(|x| bits(&x)).collect()
}

/// Checks that `got` is within `tolerance` of `want`, relative for large elements.
#[track_caller]
pub fn assert_close(got: &Tensor, want: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(got.dims(), want.dims(), "shape of the {what}");
    for (i, (got, want)) in flat(got).into_iter().zip(flat(want)).enumerate() {
        let near = (got - want).abs() <= tolerance * want.abs().max(1.0)
            || (got.is_nan() && want.is_nan())
            || got == want;
        assert!(near, "{what}, element {i}: {got}, expected {want}");
    }
}

/// The gradients of the sum of `f(inputs) * upstream` for the inputs that `is_tracked`, by candle's pass; `backward` must
/// give the same.
#[track_caller]
pub fn gradients(
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    upstream: &Tensor,
    is_tracked: impl Fn(usize) -> bool,
) -> Vec<Option<Tensor>> {
    let mut vars = Vec::new();
    let inputs: Vec<Tensor> = inputs
        .iter()
        .enumerate()
        .map(|(i, input)| {
            if !is_tracked(i) {
                vars.push(None);
                return input.clone();
            }
            let var = Var::from_tensor(&input.contiguous().unwrap()).unwrap();
            let strided = like(var.as_tensor(), input);
            vars.push(Some(var));
            strided
        })
        .collect();
    let y = f(&inputs).unwrap();
    let store = weighted_sum(&y, upstream).backward().unwrap();
    // A loss that is a function, so that nothing of candle's stands at the end of the graph.
    let column = upstream.to_device(y.device()).unwrap().reshape(((), 1)).unwrap();
    let ours = layerfn::backward(affine(&y, &column, None, 0).unwrap()).unwrap();
    vars.iter()
        .map(|var| {
            let var = var.as_ref()?;
            // No path to an output without elements: its gradient is zero.
            let of = |store: &GradStore| store.get(var).cloned().unwrap_or_else(|| var.zeros_like().unwrap());
            // Uses of an input may be summed in another order.
            let tolerance = match var.dtype() {
                DType::F64 => 1e-12,
                DType::F32 => 1e-5,
                DType::F16 => 1e-2,
                _ => 1e-1,
            };
            assert_close(&of(&ours), &of(&store), tolerance, "gradient by `backward`");
            Some(of(&store))
        })
        .collect()
}

/// The elements as f64, row-major.
pub fn flat(x: &Tensor) -> Vec<f64> {
    if x.elem_count() == 0 {
        return Vec::new(); // candle fails on these on a GPU
    }
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn weighted_sum(y: &Tensor, weights: &Tensor) -> Tensor {
    (y * weights.to_device(y.device()).unwrap()).unwrap().sum_all().unwrap()
}

/// The same values with strides as if the axes were stored in reverse order.
fn scattered(x: &Tensor) -> Tensor {
    let reversed: Vec<usize> = (0..x.rank()).rev().collect();
    if x.rank() < 2 {
        let n = x.elem_count();
        let doubled = Tensor::stack(&[x, x], x.rank()).unwrap();
        return doubled.reshape((n, 2)).unwrap().narrow(1, 1, 1).unwrap().reshape(x.dims()).unwrap();
    }
    x.permute(reversed.clone()).unwrap().contiguous().unwrap().permute(reversed).unwrap()
}

/// The same values from the middle of a larger storage on.
fn offset(x: &Tensor) -> Tensor {
    let n = x.elem_count();
    let flat = x.flatten_all().unwrap();
    let doubled = Tensor::cat(&[&flat, &flat], 0).unwrap();
    doubled.narrow(0, n, n).unwrap().reshape(x.dims()).unwrap()
}

/// `x` with strides as `model` has them, by differentiable operations.
fn like(x: &Tensor, model: &Tensor) -> Tensor {
    let offset_of = model.layout().start_offset();
    if !model.is_contiguous() {
        scattered(x)
    } else if offset_of > 0 {
        offset(x)
    } else {
        x.clone()
    }
}
