//! Interpolation, padding and pooling of random sizes as their definitions say.

use candle_core::{Device, Tensor};
use layerfn::PerAxis;
use layerfn::functions::{
    self as f, BorderMode, Interpolation, InterpolationMode, PadMode, average_pooling, max_pooling,
    sum_pooling,
};
use layerfn_tests::{assert_close, both_paths, flat, gradients, values};
use proptest::prelude::*;

/// All places of a tensor of these sizes.
fn places(dims: &[usize]) -> Vec<Vec<usize>> {
    dims.iter().fold(vec![Vec::new()], |places, n| {
        places.iter().flat_map(|place| (0..*n).map(move |i| [&place[..], &[i]].concat())).collect()
    })
}

fn element(x: &[f64], dims: &[usize], place: &[usize]) -> f64 {
    x[place.iter().zip(dims).fold(0, |at, (i, n)| at * n + i)]
}

/// The elements of `x` seen through `terms`, which has for each axis and each place of it what it reads, with weights; and
/// `fill` where an axis reads nothing.
fn naive(x: &Tensor, terms: &[Vec<Vec<(usize, f64)>>], fill: f64) -> Tensor {
    let (dims, elements) = (x.dims(), flat(x));
    let output: Vec<usize> = terms.iter().map(Vec::len).collect();
    let value = |place: &Vec<usize>| {
        let read: Vec<_> = terms.iter().zip(place).map(|(axis, i)| &axis[*i]).collect();
        if read.iter().any(|terms| terms.is_empty()) {
            return fill;
        }
        let sizes: Vec<usize> = read.iter().map(|terms| terms.len()).collect();
        let choices = places(&sizes);
        let product = |choice: &Vec<usize>| {
            let chosen: Vec<_> = read.iter().zip(choice).map(|(terms, k)| terms[*k]).collect();
            let from: Vec<usize> = chosen.iter().map(|(from, _)| *from).collect();
            chosen.iter().map(|(_, weight)| weight).product::<f64>() * element(&elements, dims, &from)
        };
        choices.iter().map(product).sum()
    };
    let all: Vec<f64> = places(&output).iter().map(value).collect();
    Tensor::from_vec(all, output, &Device::Cpu).unwrap()
}

/// Results and gradients: those of a linear function are what its definition makes of single ones.
fn assert_is(
    function: impl Fn(&Tensor) -> layerfn::Result<Tensor>,
    x: &Tensor,
    terms: &[Vec<Vec<(usize, f64)>>],
    fill: f64,
) {
    both_paths(|| {
        let y = function(x).unwrap();
        assert_close(&y, &naive(x, terms, fill), 1e-9, "result");
        let dy = values(y.dims(), 9);
        let got = gradients(|t| function(&t[0]), std::slice::from_ref(x), &dy, |_| true);
        let n = x.elem_count();
        let slopes = (0..n).map(|i| {
            let one: Vec<f64> = (0..n).map(|k| f64::from(u8::from(k == i))).collect();
            let one = Tensor::from_vec(one, x.dims(), &Device::Cpu).unwrap();
            flat(&naive(&one, terms, 0.0)).iter().zip(flat(&dy)).map(|(y, dy)| y * dy).sum()
        });
        let want = Tensor::from_vec(slopes.collect::<Vec<f64>>(), x.dims(), &Device::Cpu).unwrap();
        assert_close(got[0].as_ref().unwrap(), &want, 1e-9, "gradient");
    });
}

/// What place `i` of `len` reads of `n` elements.
fn interpolated(how: Interpolation, n: usize, len: usize, i: usize) -> Vec<(usize, f64)> {
    let ratio = n as f32 / len as f32;
    let last = n - 1;
    if how.mode == InterpolationMode::Nearest && how.half_pixel_for_nn {
        return vec![(((ratio * (i as f32 + 0.5)) as usize).min(last), 1.0)];
    }
    let scale = match len {
        1 => 0.0,
        _ if how.align_corners => last as f32 / (len - 1) as f32,
        _ => ratio,
    };
    let x = if how.half_pixel { (scale * (i as f32 + 0.5) - 0.5).max(0.0) } else { scale * i as f32 };
    let left = (x.floor() as usize).min(last);
    match how.mode {
        InterpolationMode::Nearest => vec![(left, 1.0)],
        InterpolationMode::Linear => {
            let weight = f64::from(x - left as f32);
            vec![(left, 1.0 - weight), ((left + 1).min(last), weight)]
        }
    }
}

/// An axis as it is.
fn all(n: usize) -> Vec<Vec<(usize, f64)>> {
    (0..n).map(|i| vec![(i, 1.0)]).collect()
}

fn padded(mode: PadMode, n: usize, before: usize, behind: usize) -> Vec<Vec<(usize, f64)>> {
    let (n, before) = (n as isize, before as isize);
    let place = |at: isize| match mode {
        PadMode::Constant => (0..n).contains(&at).then_some(at),
        PadMode::Repeat => Some(at.clamp(0, n - 1)),
        PadMode::Reflect => {
            let mut at = at;
            while n > 1 && !(0..n).contains(&at) {
                at = if at < 0 { -at } else { 2 * (n - 1) - at };
            }
            Some(if n == 1 { 0 } else { at })
        }
    };
    (-before..n + behind as isize)
        .map(|at| place(at).map(|at| (at as usize, 1.0)).into_iter().collect())
        .collect()
}

fn shifted(mode: BorderMode, n: usize, by: isize) -> Vec<Vec<(usize, f64)>> {
    let n = n as isize;
    let place = |at: isize| match mode {
        BorderMode::Nearest => at.clamp(0, n - 1),
        BorderMode::Reflect => {
            let mut at = at;
            while !(0..n).contains(&at) {
                at = if at < 0 { -1 - at } else { 2 * n - 1 - at };
            }
            at
        }
    };
    (0..n).map(|i| vec![(place(i - by) as usize, 1.0)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn interpolation_reads_what_its_formula_says(
        axes in prop::collection::vec((1usize..5, 1usize..7), 1..4),
        leading in 1usize..3,
        nearest in any::<bool>(),
        grid in 0..3,
        old in any::<bool>(),
        channel_last in any::<bool>(),
    ) {
        let mode = if nearest { InterpolationMode::Nearest } else { InterpolationMode::Linear };
        let how = Interpolation {
            mode, align_corners: grid == 1, half_pixel: grid == 2, half_pixel_for_nn: old && nearest, channel_last,
        };
        let mut dims = vec![leading];
        let mut terms = vec![all(leading)];
        for (n, len) in &axes {
            dims.push(*n);
            terms.push((0..*len).map(|i| interpolated(how, *n, *len, i)).collect());
        }
        if channel_last {
            dims.push(2);
            terms.push(all(2));
        }
        let sizes: Vec<usize> = axes.iter().map(|(_, len)| *len).collect();
        assert_is(|x| f::interpolate(x, None, Some(&sizes), how), &values(dims, 1), &terms, 0.0);
    }

    #[test]
    fn padding_reads_what_its_mode_says(
        axes in prop::collection::vec((1usize..5, 0usize..8, 0usize..8), 1..4),
        leading in prop::option::of(1usize..3),
        mode in 0usize..3,
    ) {
        let mode = [PadMode::Constant, PadMode::Reflect, PadMode::Repeat][mode];
        let mut dims: Vec<usize> = leading.into_iter().collect();
        let mut terms: Vec<_> = leading.into_iter().map(all).collect();
        for (n, before, behind) in &axes {
            dims.push(*n);
            terms.push(padded(mode, *n, *before, *behind));
        }
        let widths: Vec<usize> = axes.iter().flat_map(|(_, before, behind)| [*before, *behind]).collect();
        assert_is(|x| f::pad(x, &widths, mode, 0.75), &values(dims, 2), &terms, 0.75);
    }

    #[test]
    fn shifts_read_what_their_border_says(
        axes in prop::collection::vec((1usize..6, -13isize..13), 1..4),
        reflect in any::<bool>(),
    ) {
        let mode = if reflect { BorderMode::Reflect } else { BorderMode::Nearest };
        let dims: Vec<usize> = axes.iter().map(|(n, _)| *n).collect();
        let terms: Vec<_> = axes.iter().map(|(n, by)| shifted(mode, *n, *by)).collect();
        let shifts: Vec<isize> = axes.iter().map(|(_, by)| *by).collect();
        assert_is(|x| f::shift(x, &shifts, mode), &values(dims, 3), &terms, 0.0);
    }

    #[test]
    fn any_order_of_axes_and_any_part_of_them(
        dims in prop::collection::vec(1usize..6, 1..5),
        order in Just([0usize, 1, 2, 3]).prop_shuffle(),
        steps in prop::collection::vec((0usize..6, prop::sample::select(vec![-3isize, -2, -1, 1, 2, 3])), 4),
    ) {
        let order: Vec<usize> = order.into_iter().filter(|axis| *axis < dims.len()).collect();
        let x = values(&*dims, 4);
        let start: Vec<_> = steps[..dims.len()].iter().map(|(start, _)| Some(*start as isize)).collect();
        let step: Vec<_> = steps[..dims.len()].iter().map(|(_, step)| *step).collect();
        let terms: Vec<Vec<Vec<(usize, f64)>>> = dims.iter().zip(&start).zip(&step).map(|((n, start), step)| {
            let (n, start) = (*n as isize, start.unwrap());
            let first = if *step > 0 { start } else { start.min(n - 1) };
            (0..n).map(|i| first + i * step).filter(|at| (0..n).contains(at)).map(|at| vec![(at as usize, 1.0)]).collect()
        }).collect();
        assert_is(|x| f::slice(x, &start, &[], &step), &x, &terms, 0.0);
        let y = f::transpose(&f::slice(&x, &start, &[], &step).unwrap(), order.clone()).unwrap();
        assert_close(&y, &naive(&x, &terms, 0.0).permute(order).unwrap(), 0.0, "transposed");
    }

    #[test]
    fn pooling_sees_its_windows(
        axes in prop::collection::vec((1usize..7, 1usize..4, 1usize..4, 0usize..3), 1..4),
        leading in prop::option::of(1usize..3),
        ignore_border in any::<bool>(),
        including_pad in any::<bool>(),
    ) {
        let column = |k: usize| axes.iter().map(|(n, kernel, stride, pad)| [*n, *kernel, *stride, *pad][k]).collect::<Vec<_>>();
        let [sizes, kernel, stride, pad] = [column(0), column(1), column(2), column(3)];
        let fits = axes.iter().all(|(n, kernel, _, pad)| pad < kernel && (!ignore_border || *kernel <= n + 2 * pad));
        let dims: Vec<usize> = leading.into_iter().chain(sizes.iter().copied()).collect();
        let x = values(&*dims, 5);
        let [kernels, strides, pads] = [&kernel, &stride, &pad].map(|list| PerAxis::from(&list[..]));
        let max = |x: &Tensor| max_pooling(x, &kernels, Some(&strides), ignore_border, &pads, false);
        let sum = |x: &Tensor| sum_pooling(x, &kernels, Some(&strides), ignore_border, &pads, false);
        let average = |x: &Tensor| average_pooling(x, &kernels, Some(&strides), ignore_border, &pads, false, including_pad);
        prop_assert_eq!(max(&x).is_ok(), fits);
        if !fits {
            return Ok(());
        }
        // What each output of an axis covers, and how many elements count.
        let windows: Vec<Vec<(Vec<usize>, usize)>> = axes.iter().map(|(n, kernel, stride, pad)| {
            let outputs = if ignore_border { (n + 2 * pad - kernel) / stride + 1 } else { (n + pad - 1) / stride + 1 };
            (0..outputs).map(|o| {
                let seen = (o * stride..o * stride + kernel).filter(|at| *at < n + 2 * pad);
                let inside: Vec<usize> = seen.clone().filter(|at| (*pad..n + pad).contains(at)).map(|at| at - pad).collect();
                let counted = if including_pad { seen.count() } else { inside.len() };
                (inside, counted)
            }).collect()
        }).collect();
        let terms = |weight: &dyn Fn(usize) -> f64| {
            let spatial = windows.iter().map(|axis| {
                axis.iter().map(|(inside, n)| inside.iter().map(|at| (*at, weight(*n))).collect()).collect()
            });
            leading.into_iter().map(all).chain(spatial).collect::<Vec<Vec<Vec<(usize, f64)>>>>()
        };
        assert_is(sum, &x, &terms(&|_| 1.0), 0.0);
        assert_is(average, &x, &terms(&|n| 1.0 / n as f64), 0.0);
        let largest = |place: &Vec<usize>| {
            let read: Vec<Vec<usize>> = leading.map(|_| vec![place[0]]).into_iter()
                .chain(windows.iter().zip(&place[usize::from(leading.is_some())..]).map(|(axis, o)| axis[*o].0.clone()))
                .collect();
            let sizes: Vec<usize> = read.iter().map(Vec::len).collect();
            let at = |choice: &Vec<usize>| read.iter().zip(choice).map(|(seen, k)| seen[*k]).collect::<Vec<_>>();
            places(&sizes).iter().map(|choice| element(&flat(&x), &dims, &at(choice))).fold(f64::NEG_INFINITY, f64::max)
        };
        let outputs: Vec<usize> = leading.into_iter().chain(windows.iter().map(Vec::len)).collect();
        let want: Vec<f64> = places(&outputs).iter().map(largest).collect();
        both_paths(|| assert_close(&max(&x).unwrap(), &Tensor::from_vec(want.clone(), &*outputs, &Device::Cpu).unwrap(), 0.0, "largest"));
    }
}
