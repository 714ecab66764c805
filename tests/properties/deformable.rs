//! Deformable convolution of random sizes against its definition, written as plainly as possible.

use candle_core::{Device, Tensor};
use layerfn::functions::{ConvGeometry, deformable_convolution};
use layerfn_tests::{assert_close, flat, values};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Sizes {
    batch: usize,
    group: usize,
    deformable_group: usize,
    /// Channels of the smallest part that both kinds of groups leave.
    part: usize,
    out_per_group: usize,
    /// (size, kernel, pad, stride, dilation) of both spatial axes
    axes: [[usize; 5]; 2],
    masked: bool,
    reach: f64,
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let axis = || {
        (1..8usize, 1..4usize, 0..3usize, 1..4usize, 1..3usize).prop_map(|(l, k, p, s, d)| [l, k, p, s, d])
    };
    let groups = (1..4usize, 1..4usize, 1..3usize, 1..4usize);
    (1..4usize, groups, axis(), axis(), any::<bool>(), 0.1..6.0f64).prop_map(
        |(batch, (group, deformable_group, part, out_per_group), rows, columns, masked, reach)| Sizes {
            batch,
            group,
            deformable_group,
            part,
            out_per_group,
            axes: [rows, columns],
            masked,
            reach,
        },
    )
}

/// The image at a place between its pixels: every pixel less than one away counts.
fn interpolated(plane: &[f64], [height, width]: [usize; 2], [y, x]: [f64; 2]) -> f64 {
    let mut sum = 0.0;
    for row in 0..height {
        for column in 0..width {
            let near = |at: f64, pixel: usize| (1.0 - (at - pixel as f64).abs()).max(0.0);
            sum += plane[row * width + column] * near(y, row) * near(x, column);
        }
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn deformable_convolution_is_its_definition(s in sizes()) {
        let [size, kernel, pad, stride, dilation] = std::array::from_fn(|i| [s.axes[0][i], s.axes[1][i]]);
        let channels = s.group * s.deformable_group * s.part;
        let (outmaps, taps) = (s.group * s.out_per_group, kernel[0] * kernel[1]);
        let x_dims = [s.batch, channels, size[0], size[1]];
        let per_axis = [kernel, pad, stride, dilation].map(Into::into);
        let geometry =
            ConvGeometry::new(&x_dims, &per_axis[0], &per_axis[1], &per_axis[2], &per_axis[3], s.group, 1);
        let Ok(geometry) = geometry else { return Ok(()) };
        let planes = s.deformable_group * taps;
        let x = values(x_dims, 1);
        let w = values([outmaps, channels / s.group, kernel[0], kernel[1]], 2);
        let b = values([outmaps], 3);
        let offset = (values([s.batch, 2 * planes, size[0], size[1]], 4) * s.reach).unwrap();
        let mask = values([s.batch, planes, size[0], size[1]], 5);
        let given = s.masked.then_some(&mask);
        let run = || deformable_convolution(&x, &w, Some(&b), &offset, given, &geometry, s.deformable_group);
        let output = [geometry.output_spatial()[0], geometry.output_spatial()[1]];
        let fits = (0..2).all(|axis| (output[axis] - 1) * stride[axis] < size[axis]);
        prop_assert_eq!(run().is_ok(), fits);
        if !fits { return Ok(()) }

        let (x_data, w_data, b_data) = (flat(&x), flat(&w), flat(&b));
        let (offset_data, mask_data) = (flat(&offset), flat(&mask));
        let pixels = size[0] * size[1];
        let mut want = Vec::new();
        for n in 0..s.batch {
            for o in 0..outmaps {
                for p in 0..output[0] * output[1] {
                    let p = [p / output[1], p % output[1]];
                    let place = p[0] * stride[0] * size[1] + p[1] * stride[1];
                    let mut sum = b_data[o];
                    for c in 0..channels / s.group {
                        let channel = o / s.out_per_group * (channels / s.group) + c;
                        let group = channel / (channels / s.deformable_group);
                        for k in 0..taps {
                            let tap = [k / kernel[1], k % kernel[1]];
                            let plane = (n * s.deformable_group + group) * taps + k;
                            let at = [0, 1].map(|axis| {
                                let start = (p[axis] * stride[axis] + tap[axis] * dilation[axis]) as f64;
                                start - pad[axis] as f64 + offset_data[(2 * plane + axis) * pixels + place]
                            });
                            let image = &x_data[(n * channels + channel) * pixels..][..pixels];
                            let weight = w_data[(o * (channels / s.group) + c) * taps + k];
                            let mask = if s.masked { mask_data[plane * pixels + place] } else { 1.0 };
                            sum += weight * mask * interpolated(image, size, at);
                        }
                    }
                    want.push(sum);
                }
            }
        }
        let want = Tensor::from_vec(want, geometry.output_dims(outmaps), &Device::Cpu).unwrap();
        assert_close(&run().unwrap(), &want, 1e-12, "deformable convolution");
        assert_close(&layerfn::__private::composed(run).unwrap(), &want, 1e-12, "composed deformable convolution");
    }
}
