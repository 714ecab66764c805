//! Convolution and deconvolution against their definition, written as plainly as possible.

use candle_core::{Device, Tensor};
use layerfn::PerAxis;
use layerfn::functions::{ConvGeometry, DeconvGeometry, channels_first, convolution, deconvolution};
use layerfn_tests::{assert_close, flat, gradients, values};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Sizes {
    batch: usize,
    group: usize,
    in_per_group: usize,
    out_per_group: usize,
    /// (size, kernel, pad, stride, dilation) of each spatial axis
    axes: Vec<[usize; 5]>,
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let axis =
        (1..8usize, 1..4usize, 0..4usize, 1..4usize, 1..3usize).prop_map(|(l, k, p, s, d)| [l, k, p, s, d]);
    (1..4usize, 1..4usize, 1..4usize, 1..4usize, prop::collection::vec(axis, 1..4)).prop_map(
        |(batch, group, in_per_group, out_per_group, axes)| Sizes {
            batch,
            group,
            in_per_group,
            out_per_group,
            axes,
        },
    )
}

impl Sizes {
    fn column(&self, i: usize) -> Vec<usize> {
        self.axes.iter().map(|axis| axis[i]).collect()
    }

    fn per_axis(&self, i: usize) -> PerAxis {
        self.column(i).into()
    }

    fn input_dims(&self) -> Vec<usize> {
        [&[self.batch, self.group * self.in_per_group][..], &self.column(0)].concat()
    }
}

/// All index tuples of a shape, in row-major order.
fn indices(dims: &[usize]) -> Vec<Vec<usize>> {
    dims.iter().fold(vec![vec![]], |tuples, &size| {
        tuples.iter().flat_map(|t| (0..size).map(move |i| [&t[..], &[i]].concat())).collect()
    })
}

fn at(dims: &[usize], index: &[usize]) -> usize {
    dims.iter().zip(index).fold(0, |flat, (size, i)| flat * size + i)
}

/// Calls `f(x index, w index, y index)` for each product in a convolution from `x_dims` to `y_dims`.
fn for_each_product(
    s: &Sizes,
    x_dims: &[usize],
    w_dims: &[usize],
    y_dims: &[usize],
    mut f: impl FnMut(usize, usize, usize),
) {
    for y in indices(y_dims) {
        for w in indices(&w_dims[1..]) {
            let group = y[1] / (y_dims[1] / s.group);
            let mut x = vec![y[0], group * w_dims[1] + w[0]];
            for (i, [_, _, pad, stride, dilation]) in s.axes.iter().enumerate() {
                let position = y[2 + i] * stride + w[1 + i] * dilation;
                if position < *pad || position - pad >= x_dims[2 + i] {
                    break;
                }
                x.push(position - pad);
            }
            if x.len() == x_dims.len() {
                f(at(x_dims, &x), at(w_dims, &[&[y[1]][..], &w].concat()), at(y_dims, &y));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution_is_its_definition(s in sizes()) {
        let x_dims = s.input_dims();
        let geometry =
            ConvGeometry::new(&x_dims, &s.per_axis(1), &s.per_axis(2), &s.per_axis(3), &s.per_axis(4), s.group, 1);
        let fits = s.axes.iter().all(|[l, k, p, _, d]| d * (k - 1) < l + 2 * p);
        prop_assert_eq!(geometry.is_ok(), fits);
        let Ok(geometry) = geometry else { return Ok(()) };
        let outmaps = s.group * s.out_per_group;
        let w_dims = [&[outmaps, s.in_per_group][..], &s.column(1)].concat();
        let (x, w, b) = (values(&*x_dims, 1), values(&*w_dims, 2), values([outmaps], 3));
        let y = convolution(&x, &w, Some(&b), &geometry).unwrap();
        let composed = layerfn::__private::composed(|| convolution(&x, &w, Some(&b), &geometry)).unwrap();
        assert_close(&composed, &y, 1e-12, "composed convolution");

        let y_dims = geometry.output_dims(outmaps);
        let (x, w, b) = (flat(&x), flat(&w), flat(&b));
        let mut want: Vec<f64> = indices(&y_dims).iter().map(|y| b[y[1]]).collect();
        for_each_product(&s, &x_dims, &w_dims, &y_dims, |i, j, o| want[o] += x[i] * w[j]);
        assert_close(&y, &Tensor::from_vec(want, y_dims, &Device::Cpu).unwrap(), 1e-12, "convolution");
    }

    #[test]
    fn deconvolution_is_the_transpose(s in sizes()) {
        let x_dims = s.input_dims();
        let geometry =
            DeconvGeometry::new(&x_dims, &s.per_axis(1), &s.per_axis(2), &s.per_axis(3), &s.per_axis(4), s.group, 1);
        let fits = s.axes.iter().all(|[l, k, p, s, d]| (l - 1) * s + d * (k - 1) + 1 > 2 * p);
        prop_assert_eq!(geometry.is_ok(), fits);
        let Ok(geometry) = geometry else { return Ok(()) };
        let outmaps = s.group * s.out_per_group;
        let w_dims = [&[x_dims[1], s.out_per_group][..], &s.column(1)].concat();
        let (x, w, b) = (values(&*x_dims, 1), values(&*w_dims, 2), values([outmaps], 3));
        let y = deconvolution(&x, &w, Some(&b), &geometry).unwrap();
        let composed = layerfn::__private::composed(|| deconvolution(&x, &w, Some(&b), &geometry)).unwrap();
        assert_close(&composed, &y, 1e-12, "composed deconvolution");

        let y_dims = geometry.output_dims(outmaps);
        let (x, w, b) = (flat(&x), flat(&w), flat(&b));
        let mut want: Vec<f64> = indices(&y_dims).iter().map(|y| b[y[1]]).collect();
        for_each_product(&s, &y_dims, &w_dims, &x_dims, |o, j, i| want[o] += x[i] * w[j]);
        assert_close(&y, &Tensor::from_vec(want, y_dims, &Device::Cpu).unwrap(), 1e-12, "deconvolution");
    }

    #[test]
    fn outputs_of_a_deconvolution_may_be_padded(s in sizes(), more in prop::collection::vec(0usize..3, 3)) {
        let x_dims = s.input_dims();
        let geometry =
            DeconvGeometry::new(&x_dims, &s.per_axis(1), &s.per_axis(2), &s.per_axis(3), &s.per_axis(4), s.group, 1);
        let Ok(geometry) = geometry else { return Ok(()) };
        let more: Vec<usize> = s.axes.iter().zip(&more).map(|([.., stride, dilation], n)| n % stride.max(dilation)).collect();
        let plain = geometry.output_dims(1);
        let geometry = geometry.with_output_padding(&more.clone().into()).unwrap();
        let outmaps = s.group * s.out_per_group;
        let w_dims = [&[x_dims[1], s.out_per_group][..], &s.column(1)].concat();
        let (x, w) = (values(&*x_dims, 1), values(&*w_dims, 2));
        let y_dims = geometry.output_dims(outmaps);
        for (axis, more) in more.iter().enumerate() {
            prop_assert_eq!(y_dims[2 + axis], plain[2 + axis] + more);
        }
        let y = deconvolution(&x, &w, None, &geometry).unwrap();
        let composed = layerfn::__private::composed(|| deconvolution(&x, &w, None, &geometry)).unwrap();
        assert_close(&composed, &y, 1e-12, "composed deconvolution");
        let (elements, weights) = (flat(&x), flat(&w));
        let mut want = vec![0.0; y.elem_count()];
        for_each_product(&s, &y_dims, &w_dims, &x_dims, |o, j, i| want[o] += elements[i] * weights[j]);
        assert_close(&y, &Tensor::from_vec(want, &*y_dims, &Device::Cpu).unwrap(), 1e-12, "deconvolution");

        // The gradients are sums over the same products.
        let dy = values(&*y_dims, 4);
        let got = gradients(|t| deconvolution(&t[0], &t[1], None, &geometry), &[x, w], &dy, |_| true);
        let (mut dx, mut dw, dy) = (vec![0.0; elements.len()], vec![0.0; weights.len()], flat(&dy));
        for_each_product(&s, &y_dims, &w_dims, &x_dims, |o, j, i| {
            dx[i] += dy[o] * weights[j];
            dw[j] += dy[o] * elements[i];
        });
        let tensor = |data, dims: &[usize]| Tensor::from_vec(data, dims, &Device::Cpu).unwrap();
        assert_close(got[0].as_ref().unwrap(), &tensor(dx, &x_dims), 1e-12, "gradient of the input");
        assert_close(got[1].as_ref().unwrap(), &tensor(dw, &w_dims), 1e-12, "gradient of the weights");
    }

    #[test]
    fn channels_may_come_last(s in sizes()) {
        let dims = s.input_dims();
        let [kernel, pad, stride, dilation] = [1, 2, 3, 4].map(|i| s.per_axis(i));
        let last = |x: &Tensor| {
            let order = [0].into_iter().chain(2..x.rank()).chain([1]).collect::<Vec<_>>();
            x.permute(order).unwrap()
        };
        let x = values(&*dims, 1);
        prop_assert_eq!(channels_first(last(&x).dims(), true, 1), &*dims);
        if let Ok(geometry) = ConvGeometry::new(&dims, &kernel, &pad, &stride, &dilation, s.group, 1) {
            let outmaps = s.group * s.out_per_group;
            let w = values([&[outmaps, s.in_per_group][..], &s.column(1)].concat(), 2);
            let b = values([outmaps], 3);
            let want = last(&convolution(&x, &w, Some(&b), &geometry).unwrap());
            let geometry = geometry.with_channel_last(true);
            let got = convolution(&last(&x), &last(&w), Some(&b), &geometry).unwrap();
            assert_close(&got, &want, 0.0, "convolution");
        }
        if let Ok(geometry) = DeconvGeometry::new(&dims, &kernel, &pad, &stride, &dilation, s.group, 1) {
            let w = values([&[dims[1], s.out_per_group][..], &s.column(1)].concat(), 2);
            let want = last(&deconvolution(&x, &w, None, &geometry).unwrap());
            let geometry = geometry.with_channel_last(true);
            let got = deconvolution(&last(&x), &last(&w), None, &geometry).unwrap();
            assert_close(&got, &want, 0.0, "deconvolution");
        }
    }
}

#[test]
fn outputs_of_a_deconvolution_with_one_tap_may_be_padded() {
    let (one, two) = (PerAxis::Every(1), PerAxis::Every(2));
    let geometry = DeconvGeometry::new(&[1, 1, 3], &one, &PerAxis::Every(0), &one, &two, 1, 1).unwrap();
    let geometry = geometry.with_output_padding(&vec![1].into()).unwrap();
    let x = Tensor::new(&[[[1f64, 2., 3.]]], &Device::Cpu).unwrap();
    let w = Tensor::new(&[[[2f64]]], &Device::Cpu).unwrap();
    assert_eq!(flat(&deconvolution(&x, &w, None, &geometry).unwrap()), [2., 4., 6., 0.]);
}
