use candle_core::{Device, Tensor};
use layerfn::PerAxis;
use layerfn::functions::{average_pooling, global_average_pooling, max_pooling, sum_pooling};
use layerfn_tests::{both_paths, flat, gate, gradients, values};

/// Input, kernel, stride, ignore_border, pad.
type Case = (Vec<usize>, PerAxis, Option<PerAxis>, bool, PerAxis);

fn cases() -> Vec<Case> {
    vec![
        (vec![2, 3, 7], 2.into(), None, true, 0.into()),
        (vec![2, 3, 7], 2.into(), None, false, 0.into()),
        (vec![2, 3, 6, 7], 2.into(), None, true, 0.into()),
        (vec![2, 3, 6, 7], (3, 2).into(), Some((2, 3).into()), true, (1, 0).into()),
        (vec![2, 3, 6, 7], 3.into(), Some(1.into()), false, 0.into()),
        (vec![2, 3, 6, 7], 3.into(), Some(2.into()), false, 1.into()),
        (vec![1, 1, 1, 5], (1, 3).into(), Some(2.into()), true, (0, 1).into()),
        (vec![3, 5, 5], (2, 2).into(), Some((3, 3).into()), true, 0.into()),
        (vec![5, 4], (2, 2).into(), None, true, 0.into()),
        (vec![2, 2, 3, 4, 5], 2.into(), Some((1, 2, 2).into()), true, (0, 1, 1).into()),
        (vec![0, 3, 6, 7], 2.into(), None, true, 0.into()),
        (vec![3, 8, 40, 40], 3.into(), Some(2.into()), true, 1.into()),
    ]
}

#[test]
fn max_and_average_of_every_kind() {
    for (dims, kernel, stride, ignore_border, pad) in cases() {
        let x = [values(dims, 1)];
        gate(|t| max_pooling(&t[0], &kernel, stride.as_ref(), ignore_border, &pad, false), &x);
        gate(|t| sum_pooling(&t[0], &kernel, stride.as_ref(), ignore_border, &pad, false), &x);
        for including_pad in [false, true] {
            gate(
                |t| {
                    average_pooling(
                        &t[0],
                        &kernel,
                        stride.as_ref(),
                        ignore_border,
                        &pad,
                        false,
                        including_pad,
                    )
                },
                &x,
            );
        }
    }
}

#[test]
fn global_average_of_every_rank() {
    for dims in
        [vec![2, 3, 5], vec![2, 3, 1, 1], vec![2, 3, 2, 3, 4, 2], vec![0, 3, 4, 4], vec![16, 3, 50, 50]]
    {
        gate(|t| global_average_pooling(&t[0]), &[values(dims, 1)]);
    }
    assert!(global_average_pooling(&values([2, 3], 1)).is_err());
    assert!(global_average_pooling(&values([2, 3, 0], 1)).is_err());
}

/// Pooling of a tensor, whose channels come last or not.
type Pooling<'a> = dyn Fn(&Tensor, bool) -> Tensor + 'a;

/// With the channels behind the spatial axes, pooling is that of the other order.
#[test]
fn channels_may_come_last() {
    both_paths(|| {
        let (kernel, stride, pad) = ((3, 2).into(), Some((2, 1).into()), (1, 0).into());
        let stride: Option<&PerAxis> = stride.as_ref();
        for dims in [vec![2, 3, 6, 7], vec![3, 6, 7], vec![2, 2, 3, 6, 7], vec![0, 3, 6, 7]] {
            let first = values(&*dims, 1);
            let at = dims.len() - 3;
            let last = |x: &Tensor| {
                x.permute((0..dims.len()).filter(|i| *i != at).chain([at]).collect::<Vec<_>>()).unwrap()
            };
            let poolings: [&Pooling<'_>; 3] = [
                &|x, last| max_pooling(x, &kernel, stride, false, &pad, last).unwrap(),
                &|x, last| average_pooling(x, &kernel, stride, true, &pad, last, false).unwrap(),
                &|x, last| sum_pooling(x, &kernel, stride, true, &pad, last).unwrap(),
            ];
            for pooling in poolings {
                let (y, want) = (pooling(&last(&first), true), last(&pooling(&first, false)));
                assert_eq!((y.dims(), flat(&y)), (want.dims(), flat(&want)));
            }
        }
    });
    gate(|t| sum_pooling(&t[0], &2.into(), None, true, &0.into(), true), &[values([2, 4, 5, 3], 1)]);
    let error =
        max_pooling(&values([4, 5], 1), &(2, 2).into(), None, true, &0.into(), true).unwrap_err().to_string();
    assert!(error.contains("the channels behind them"), "{error}");
}

/// What nnabla 1.35.1 computes of 1, 2, .., 5.
struct Recorded {
    ignore_border: bool,
    pad: usize,
    kernel: usize,
    stride: usize,
    max: &'static [f64],
    max_gradient: [f64; 5],
    average: &'static [f64],
    average_without_pad: &'static [f64],
}

const RECORDED: &[Recorded] = &[
    Recorded {
        ignore_border: true,
        pad: 0,
        kernel: 2,
        stride: 2,
        max: &[2., 4.],
        max_gradient: [0., 1., 0., 1., 0.],
        average: &[1.5, 3.5],
        average_without_pad: &[1.5, 3.5],
    },
    Recorded {
        ignore_border: false,
        pad: 0,
        kernel: 2,
        stride: 2,
        max: &[2., 4., 5.],
        max_gradient: [0., 1., 0., 1., 1.],
        average: &[1.5, 3.5, 5.],
        average_without_pad: &[1.5, 3.5, 5.],
    },
    Recorded {
        ignore_border: false,
        pad: 0,
        kernel: 3,
        stride: 1,
        max: &[3., 4., 5., 5., 5.],
        max_gradient: [0., 0., 1., 1., 3.],
        average: &[2., 3., 4., 4.5, 5.],
        average_without_pad: &[2., 3., 4., 4.5, 5.],
    },
    Recorded {
        ignore_border: false,
        pad: 1,
        kernel: 2,
        stride: 1,
        max: &[1., 2., 3., 4., 5., 5.],
        max_gradient: [1., 1., 1., 1., 2.],
        average: &[0.5, 1.5, 2.5, 3.5, 4.5, 2.5],
        average_without_pad: &[1., 1.5, 2.5, 3.5, 4.5, 5.],
    },
    Recorded {
        ignore_border: false,
        pad: 1,
        kernel: 3,
        stride: 2,
        max: &[2., 4., 5.],
        max_gradient: [0., 1., 0., 1., 1.],
        average: &[1., 3., 3.],
        average_without_pad: &[1.5, 3., 4.5],
    },
    Recorded {
        ignore_border: true,
        pad: 1,
        kernel: 3,
        stride: 2,
        max: &[2., 4., 5.],
        max_gradient: [0., 1., 0., 1., 1.],
        average: &[1., 3., 3.],
        average_without_pad: &[1.5, 3., 4.5],
    },
    Recorded {
        ignore_border: false,
        pad: 1,
        kernel: 2,
        stride: 2,
        max: &[1., 3., 5.],
        max_gradient: [1., 0., 1., 0., 1.],
        average: &[0.5, 2.5, 4.5],
        average_without_pad: &[1., 2.5, 4.5],
    },
    Recorded {
        ignore_border: false,
        pad: 2,
        kernel: 3,
        stride: 2,
        max: &[1., 3., 5., 5.],
        max_gradient: [1., 0., 1., 0., 2.],
        average: &[1. / 3., 2., 4., 5. / 3.],
        average_without_pad: &[1., 2., 4., 5.],
    },
];

#[test]
fn sizes_and_values_are_those_of_nnabla() {
    let x = Tensor::new(&[[[1f64, 2., 3., 4., 5.]]], &Device::Cpu).unwrap();
    for r in RECORDED {
        let (kernel, stride, pad) = (r.kernel.into(), r.stride.into(), r.pad.into());
        let max = |t: &[Tensor]| max_pooling(&t[0], &kernel, Some(&stride), r.ignore_border, &pad, false);
        let y = max(std::slice::from_ref(&x)).unwrap();
        assert_eq!(flat(&y), r.max);
        let got = gradients(max, std::slice::from_ref(&x), &y.ones_like().unwrap(), |_| true);
        assert_eq!(flat(got[0].as_ref().unwrap()), r.max_gradient);
        for (including_pad, want) in [(true, r.average), (false, r.average_without_pad)] {
            let y = average_pooling(&x, &kernel, Some(&stride), r.ignore_border, &pad, false, including_pad)
                .unwrap();
            assert_eq!(flat(&y), want);
        }
    }
}

#[test]
fn of_equal_values_the_first_gets_the_gradient() {
    both_paths(|| {
        let x = Tensor::full(-1f64, (1, 1, 4, 4), &Device::Cpu).unwrap();
        let f = |t: &[Tensor]| max_pooling(&t[0], &2.into(), None, true, &1.into(), false);
        let y = f(std::slice::from_ref(&x)).unwrap();
        assert_eq!(flat(&y), [-1.0; 9], "padding does not win");
        let got = gradients(f, &[x], &y.ones_like().unwrap(), |_| true);
        assert_eq!(
            flat(got[0].as_ref().unwrap()),
            [1., 1., 0., 1., 1., 1., 0., 1., 0., 0., 0., 0., 1., 1., 0., 1.]
        );
    });
}

#[test]
fn bad_sizes_are_errors() {
    let pool =
        |dims: &[usize], kernel: PerAxis, stride: Option<PerAxis>, ignore_border: bool, pad: PerAxis| {
            let x = values(dims, 1);
            average_pooling(&x, &kernel, stride.as_ref(), ignore_border, &pad, false, true).unwrap_err();
            max_pooling(&x, &kernel, stride.as_ref(), ignore_border, &pad, false).unwrap_err().to_string()
        };
    assert_eq!(
        pool(&[1, 1, 3], 4.into(), None, true, 0.into()),
        "`kernel` must be at most 3 on spatial axis 0 (input 3 plus padding), got 4"
    );
    assert!(pool(&[1, 1, 3], 0.into(), None, true, 0.into()).contains("`kernel` must not contain 0"));
    assert!(
        pool(&[1, 1, 3], 2.into(), Some(0.into()), true, 0.into()).contains("`stride` must not contain 0")
    );
    assert!(pool(&[1, 1, 3], 2.into(), None, true, 2.into()).contains("smaller than the kernel"));
    assert!(pool(&[1, 1, 4], 2.into(), Some(1.into()), false, 3.into()).contains("smaller than the kernel"));
    assert!(pool(&[1, 1, 0], 1.into(), None, true, 0.into()).contains("size 0"));
    assert!(pool(&[3], 1.into(), None, true, 0.into()).contains("one to three spatial axes"));
    assert!(pool(&[3], (1, 1).into(), None, true, 0.into()).contains("one to three spatial axes"));
    assert!(pool(&[1, 1, 3], 2.into(), None, true, usize::MAX.into()).contains("too large to count"));
}
