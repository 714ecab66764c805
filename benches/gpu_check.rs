//! Checks the library on the first NVIDIA GPU against the CPU and times it there; without a GPU, checks on the CPU what
//! would run there.
//!
//! Run with `cargo run --release --features layerfn/cuda --bin gpu_check`; `--smoke` runs a part of the fixtures only. The
//! workloads are those of `bench`, which has to be built beside it: `cargo build --release --features layerfn/cuda
//! --bins`. The status is 0 unless a check has failed.

#[cfg(feature = "nccl")]
mod nccl;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};

use candle_core::{D, DType, Device, Tensor, Var};
use layerfn::__private::dropout;
use layerfn::functions::*;
use layerfn::{ParameterStore, PerAxis, Result, Rng};
use layerfn_tests::golden::run_all;
use layerfn_tests::support::elementwise::{Elementwise, FUNCTIONS, OF_ONE_SHAPE};
use layerfn_tests::{assert_device_agrees, values};

fn main() -> ExitCode {
    #[cfg(feature = "nccl")]
    if let Some(passed) = nccl::as_rank() {
        return if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let filters = if smoke { vec!["basic".to_owned()] } else { Vec::new() };
    let passed = match Device::new_cuda(0) {
        Ok(device) => {
            println!("on the GPU {:?}", device.location());
            let fixtures = run_all(", cuda", &device, &filters);
            let functions = check_functions(&device);
            let empty = check_empty_batches(&device);
            #[cfg(feature = "nccl")]
            let empty = nccl::check() && empty;
            fixtures && functions && empty && (smoke || run_workloads())
        }
        Err(error) => {
            println!("no GPU, so on the CPU what would run there, and no workloads: {error}");
            let fixtures = layerfn::__private::composed(|| run_all(", composed", &Device::Cpu, &filters));
            let empty = layerfn::__private::composed(|| check_empty_batches(&Device::Cpu));
            check_functions(&Device::Cpu) && fixtures && empty
        }
    };
    println!("{}", if passed { "passed" } else { "FAILED" });
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Layers in training, given a batch without samples.
fn check_empty_batches(device: &Device) -> bool {
    type Layer = fn(&Tensor) -> Result<Tensor>;
    let layers: [(&str, &[usize], Layer); 12] = [
        ("affine", &[0, 4], |x| layerfn::affine(x, 3).call()),
        ("convolution", &[0, 2, 5, 5], |x| layerfn::convolution(x, 3, (3, 3)).call()),
        ("deconvolution", &[0, 2, 5, 5], |x| layerfn::deconvolution(x, 3, (3, 3)).call()),
        ("depthwise_convolution", &[0, 2, 5, 5], |x| layerfn::depthwise_convolution(x, (3, 3)).call()),
        ("layer_normalization", &[0, 6], |x| layerfn::layer_normalization(x).call()),
        ("group_normalization", &[0, 6, 4], |x| layerfn::group_normalization(x, 2).call()),
        ("prelu", &[0, 6], |x| layerfn::prelu(x).call()),
        ("embed", &[0, 6], |x| {
            layerfn::embed(&Tensor::zeros(x.shape(), DType::U32, x.device())?, 3, 4).call()
        }),
        ("softmax", &[0, 6], |x| softmax(x, 1)),
        ("relu", &[0, 6], relu),
        ("max_pooling", &[0, 2, 6, 6], |x| {
            max_pooling(x, &PerAxis::Every(2), None, true, &PerAxis::Every(0), false)
        }),
        ("average_pooling", &[0, 2, 6, 6], |x| {
            average_pooling(x, &PerAxis::Every(2), None, true, &PerAxis::Every(0), false, true)
        }),
    ];
    let failed = layers.iter().filter(|(name, dims, layer)| {
        let check = || -> Result<()> {
            let x = Var::zeros(*dims, DType::F32, device)?;
            let y = ParameterStore::new().enter(|| layer(x.as_tensor()))?;
            assert!(y.dim(0)? == 0 && y.device().same_device(device), "{y:?}");
            Ok(())
        };
        let result = catch_unwind(AssertUnwindSafe(check));
        if !matches!(result, Ok(Ok(()))) {
            println!("FAILED {name} without samples: {result:?}");
        }
        !matches!(result, Ok(Ok(())))
    });
    let failed = failed.count();
    println!("empty batches: {} passed, {failed} failed", layers.len() - failed);
    failed == 0
}

/// Results and gradients of every function on `device`, in every precision, against the kernels of the CPU.
fn check_functions(device: &Device) -> bool {
    let cases = cases();
    let failed = cases.iter().filter(|(name, f, inputs)| {
        let check = || assert_device_agrees(device, f, inputs);
        let result = catch_unwind(AssertUnwindSafe(check));
        if result.is_err() {
            println!("FAILED {name}: see above");
        }
        result.is_err()
    });
    let failed = failed.count();
    println!("functions: {} passed, {failed} failed", cases.len() - failed);
    failed == 0
}

type Function = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;
type Case = (String, Function, Vec<Tensor>);

fn cases() -> Vec<Case> {
    [
        activations(),
        elementwise(),
        products(),
        sequences(),
        windows(),
        normalizations(),
        losses(),
        transforms(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A case whose inputs have these sizes.
fn case(name: &str, f: impl Fn(&[Tensor]) -> Result<Tensor> + 'static, sizes: &[&[usize]]) -> Case {
    let inputs = sizes.iter().zip(1..).map(|(dims, seed)| values(*dims, seed)).collect();
    (name.to_owned(), Box::new(f), inputs)
}

fn activations() -> Vec<Case> {
    vec![
        case("softmax", |t| softmax(&t[0], 1), &[&[3, 50, 4]]),
        case("log_softmax", |t| log_softmax(&t[0], D::Minus1), &[&[30, 51]]),
        case("prelu", |t| prelu(&t[0], &t[1], 1), &[&[4, 3, 40], &[3]]),
        case("dropout", |t| dropout(&t[0], 0.3, &mut draws()), &[&[40, 50]]),
    ]
}

/// Functions of single elements, of tensors of one shape and of two.
fn elementwise() -> Vec<Case> {
    let case = |function: &Elementwise, shapes: [&[usize]; 3]| -> Case {
        let inputs = function.domains.iter().zip(shapes).zip(1..);
        let inputs = inputs.map(|((domain, dims), seed)| domain.tensor(dims, seed)).collect();
        (function.name.to_owned(), Box::new(function.call), inputs)
    };
    let of_one_shape = FUNCTIONS.iter().chain(OF_ONE_SHAPE).map(|function| case(function, [&[5, 40, 17]; 3]));
    let spread = FUNCTIONS.iter().filter(|function| function.domains.len() > 1);
    let spread = spread.map(|function| case(function, [&[5, 40, 17], &[5, 1, 17], &[1, 40, 1]]));
    of_one_shape.chain(spread).collect()
}

/// A small generator that starts anew for each call.
fn draws() -> impl FnMut() -> u32 {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state
    }
}

fn products() -> Vec<Case> {
    let lstm = |t: &[Tensor]| {
        let (h, c) = lstm_cell(&t[0], &t[1], &t[2], &t[3], &t[4])?;
        Ok(Tensor::cat(&[h, c], 0)?)
    };
    let indices = |x: &Tensor| Tensor::new(&[[3u32, 0, 3], [1, 2, 0]], x.device());
    let mut cases = vec![
        case("affine", |t| affine(&t[0], &t[1], Some(&t[2]), 1), &[&[30, 4, 5], &[20, 7], &[7]]),
        case(
            "scaled_dot_product_attention",
            |t| scaled_dot_product_attention(&t[0], &t[1], &t[2], None, None, true, None),
            &[&[2, 3, 20, 8], &[2, 3, 20, 8], &[2, 3, 20, 12]],
        ),
        case("embed", move |t| embed(&indices(&t[0])?, &t[0]), &[&[4, 6]]),
        case("lstm_cell", lstm, &[&[20, 6], &[20, 30], &[20, 30], &[36, 4, 30], &[4, 30]]),
    ];
    // Sizes, outmaps, kernel, pad, stride, dilation, group.
    type Sizes = (&'static [usize], usize, &'static [usize], usize, usize, usize, usize);
    let convolutions: [Sizes; 8] = [
        (&[2, 3, 7], 4, &[3], 0, 1, 1, 1),
        (&[2, 4, 9], 6, &[3], 2, 2, 2, 2),
        (&[3, 2, 6, 7], 3, &[3, 2], 0, 2, 1, 1),
        (&[2, 3, 28, 28], 8, &[5, 5], 2, 1, 1, 1),
        (&[2, 8, 14, 14], 16, &[1, 1], 0, 1, 1, 1),
        (&[2, 8, 15, 14], 8, &[3, 3], 1, 2, 1, 8),
        (&[2, 4, 7, 6], 6, &[3, 3], 1, 1, 2, 2),
        (&[2, 4, 3, 4, 5], 4, &[2, 1, 3], 1, 1, 1, 1),
    ];
    for (dims, outmaps, kernel, pad, stride, dilation, group) in convolutions {
        let (kernel_axes, per_axis) = (PerAxis::from(kernel.to_vec()), PerAxis::from);
        let (pad, stride, dilation) = (per_axis(pad), per_axis(stride), per_axis(dilation));
        if let Ok(geometry) = ConvGeometry::new(dims, &kernel_axes, &pad, &stride, &dilation, group, 1) {
            let weights = [&[outmaps, dims[1] / group], kernel].concat();
            let moved = deformable(&geometry);
            let f = move |t: &[Tensor]| convolution(&t[0], &t[1], Some(&t[2]), &geometry);
            cases.push(case(&format!("convolution {dims:?}"), f, &[dims, &weights, &[outmaps]]));
            if let (Some(f), &[n, _, height, width]) = (moved, dims) {
                let taps = kernel.iter().product::<usize>();
                let [offset, mask] = [2 * taps, taps].map(|planes| [n, planes, height, width]);
                let sizes = [dims, &weights, &[outmaps], &offset, &mask];
                let (name, f, mut inputs) = case(&format!("deformable_convolution {dims:?}"), f, &sizes);
                if let Ok(offsets) = between_pixels(&inputs[3]) {
                    inputs[3] = offsets;
                }
                cases.push((name, f, inputs));
            }
        }
        if let Ok(geometry) = DeconvGeometry::new(dims, &kernel_axes, &pad, &stride, &dilation, group, 1) {
            let weights = [&[dims[1], outmaps / group], kernel].concat();
            let f = move |t: &[Tensor]| deconvolution(&t[0], &t[1], Some(&t[2]), &geometry);
            cases.push(case(&format!("deconvolution {dims:?}"), f, &[dims, &weights, &[outmaps]]));
        }
    }
    cases
}

/// The deformable convolution of an image of two axes, if it has offsets for all outputs.
fn deformable(geometry: &ConvGeometry) -> Option<impl Fn(&[Tensor]) -> Result<Tensor> + 'static> {
    let spatial = geometry.input_dims().get(2..).filter(|spatial| spatial.len() == 2)?;
    let last =
        geometry.output_spatial().iter().zip(geometry.stride()).map(|(size, stride)| (size - 1) * stride);
    let geometry = spatial.iter().zip(last).all(|(size, last)| last < *size).then(|| geometry.clone())?;
    Some(move |t: &[Tensor]| {
        deformable_convolution(&t[0], &t[1], Some(&t[2]), &t[3], Some(&t[4]), &geometry, 1)
    })
}

/// Offsets of odd sixteenths: exact in every precision, and never at a pixel, where the gradient jumps.
fn between_pixels(values: &Tensor) -> candle_core::Result<Tensor> {
    ((values * 20.0)?.floor()? / 8.0)? + 0.0625
}

fn sequences() -> Vec<Case> {
    fn joined(results: &[Tensor]) -> Result<Tensor> {
        let flat = results.iter().map(Tensor::flatten_all).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&flat, 0)?)
    }
    let elman = |t: &[Tensor]| {
        let (y, h) = rnn(&t[0], &t[1], &t[2], None, None, Nonlinearity::Tanh, 0.0, &Rng::new(1))?;
        joined(&[y, h])
    };
    let gated = |t: &[Tensor]| {
        let (y, h) = gru(&t[0], &t[1], &t[2], None, Some(&t[3]), 0.0, &Rng::new(1))?;
        joined(&[y, h])
    };
    let memory = |t: &[Tensor]| {
        let (y, h, c) = lstm(&t[0], &t[1], &t[2], &t[3], None, Some(&t[4]), 0.0, &Rng::new(1))?;
        joined(&[y, h, c])
    };
    let (x, h): (&[usize], &[usize]) = (&[5, 20, 6], &[1, 2, 20, 30]);
    vec![
        case("rnn", elman, &[x, h, &[2, 30, 36]]),
        case("gru", gated, &[x, h, &[2, 3, 30, 36], &[1, 2, 4, 30]]),
        case("lstm", memory, &[x, h, h, &[2, 4, 30, 36], &[1, 2, 4, 30]]),
    ]
}

fn windows() -> Vec<Case> {
    let mut cases = vec![case("global_average_pooling", |t| global_average_pooling(&t[0]), &[&[3, 4, 7, 5]])];
    for (dims, kernel, stride, pad) in
        [(&[2, 3, 9][..], 2, 2, 0), (&[2, 3, 9, 8], 3, 2, 1), (&[2, 2, 5, 6, 4], 2, 1, 1)]
    {
        let [kernel, stride, pad] = [kernel, stride, pad].map(PerAxis::Every);
        for flag in [true, false] {
            let (k, s, p) = (kernel.clone(), stride.clone(), pad.clone());
            let max = move |t: &[Tensor]| max_pooling(&t[0], &k, Some(&s), flag, &p, false);
            cases.push(case(&format!("max_pooling {dims:?}"), max, &[dims]));
            let (k, s, p) = (kernel.clone(), stride.clone(), pad.clone());
            let average = move |t: &[Tensor]| average_pooling(&t[0], &k, Some(&s), true, &p, false, flag);
            cases.push(case(&format!("average_pooling {dims:?}"), average, &[dims]));
        }
    }
    cases
}

fn normalizations() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dims, axes, of_axes) in [
        (&[9, 4, 7, 5][..], &[1][..], &[1, 4, 1, 1][..]),
        (&[70, 51], &[1], &[1, 51]),
        (&[3, 2, 4, 2], &[1, 3], &[1, 2, 1, 2]),
    ] {
        let by_batch = |t: &[Tensor]| batch_normalization(&t[0], &t[1], &t[2], axes, 1e-2);
        let all = move |t: &[Tensor]| {
            let (y, mean, var) = by_batch(t)?;
            let dtype = y.dtype();
            Ok(y.broadcast_add(&mean.to_dtype(dtype)?)?.broadcast_mul(&var.to_dtype(dtype)?)?)
        };
        cases.push(case("batch_normalization", all, &[dims, of_axes, of_axes]));
        let by_given = |t: &[Tensor]| {
            let var = (t[2].detach().abs()? + 0.5)?;
            batch_normalization_by(&t[0], &t[1], &t[2], &t[1].detach(), &var, axes, 1e-2)
        };
        cases.push(case("batch_normalization_by", by_given, &[dims, of_axes, of_axes]));
    }
    let sizes: [&[usize]; 3] = [&[6, 5, 24], &[1, 5, 24], &[1, 5, 24]];
    let by_layer = |t: &[Tensor]| Ok(layer_normalization(&t[0], Some(&t[1]), Some(&t[2]), &[0], 1e-2)?.0);
    cases.push(case("layer_normalization", by_layer, &sizes));
    let by_group =
        |t: &[Tensor]| Ok(group_normalization(&t[0], Some(&t[1]), Some(&t[2]), 2, 1, &[0], 1e-2)?.0);
    cases.push(case("group_normalization", by_group, &[&[6, 4, 15], &[1, 4, 1], &[1, 4, 1]]));
    let subtracted = |t: &[Tensor]| subtract_mean(&t[0], &t[0].detach().get(0)?, 0.75);
    cases.push(case("subtract_mean", subtracted, &[&[5, 2, 3]]));
    cases
}

fn losses() -> Vec<Case> {
    let labels = |x: &Tensor| Tensor::new(&[2u32, 0, 1, 2], x.device());
    vec![
        case("softmax_cross_entropy", move |t| softmax_cross_entropy(&t[0], &labels(&t[0])?, 1), &[&[4, 3]]),
        case(
            "mean_softmax_cross_entropy",
            move |t| mean_softmax_cross_entropy(&t[0], &labels(&t[0])?, 1),
            &[&[4, 3]],
        ),
        case("squared_error", |t| squared_error(&t[0], &t[1]), &[&[7, 5], &[7, 5]]),
        case("mean_squared_error", |t| mean_squared_error(&t[0], &t[1]), &[&[7, 5], &[7, 5]]),
        case("sigmoid_cross_entropy", |t| sigmoid_cross_entropy(&t[0], &t[1]), &[&[7, 5], &[7, 5]]),
    ]
}

fn transforms() -> Vec<Case> {
    let fixed = FixedPoint { sign: true, n: 3, delta: 0.25, ste_fine_grained: true };
    let power = Pow2 { sign: true, with_zero: true, n: 4, m: -1, ste_fine_grained: true };
    let sizes: &[&[usize]] = &[&[20, 30]];
    vec![
        case("fixed point", move |t| fixed.apply(&t[0]), sizes),
        case("pow2", move |t| power.apply(&t[0]), sizes),
        case("prune", |t| Prune { rate: 0.4 }.apply(&t[0]), sizes),
        case("binary_connect", |t| binary_connect(&t[0], 1.0), sizes),
        case("binary_weight", |t| Ok(binary_weight(&t[0], 0..1, 1.0)?.output), sizes),
        case("straight_through", |t| straight_through(&t[0], &t[0].detach().neg()?), sizes),
    ]
}

/// The workloads of `bench` on the GPU; it prints a line each.
fn run_workloads() -> bool {
    let bench = std::env::current_exe().map(|program| program.with_file_name("bench"));
    let run = |workload: &str, mode: &str| {
        let arguments = ["--device", "cuda", "--workload", workload, "--mode", mode];
        let status = bench.as_ref().ok().map(|bench| Command::new(bench).args(arguments).status());
        let passed = matches!(&status, Some(Ok(status)) if status.success());
        if !passed {
            println!("FAILED bench --workload {workload} --mode {mode}: {status:?}");
        }
        passed
    };
    let mut passed = run("w6", "infer");
    for workload in ["w1b1", "w1b8", "w1", "w1b512", "w2", "w3", "w4", "w5", "deep"] {
        for mode in ["train", "infer"] {
            passed &= run(workload, mode);
        }
    }
    passed
}
