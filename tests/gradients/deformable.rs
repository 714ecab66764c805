use candle_core::{Device, Tensor};
use layerfn::functions::{ConvGeometry, convolution, deformable_convolution};
use layerfn_tests::{assert_close, both_paths, flat, gate, values};

/// Input, outmaps, kernel, pad, stride, dilation, group, deformable group.
type Case = (&'static [usize], usize, [usize; 2], [usize; 2], [usize; 2], [usize; 2], usize, usize);

const CASES: [Case; 7] = [
    (&[2, 2, 4, 5], 3, [3, 3], [1, 1], [1, 1], [1, 1], 1, 1),
    (&[1, 4, 6, 5], 2, [3, 2], [1, 0], [2, 1], [1, 2], 2, 2),
    (&[2, 2, 5, 5], 2, [3, 3], [0, 0], [1, 2], [2, 1], 1, 2),
    (&[1, 1, 3, 3], 1, [1, 1], [0, 0], [1, 1], [1, 1], 1, 1),
    (&[2, 3, 4, 4, 4], 2, [2, 2], [0, 0], [1, 1], [1, 1], 2, 1),
    (&[0, 2, 4, 4], 2, [2, 2], [0, 0], [1, 1], [1, 1], 1, 1),
    (&[1, 6, 20, 30], 5, [3, 3], [1, 1], [1, 1], [1, 1], 1, 3),
];

fn geometry((dims, _, kernel, pad, stride, dilation, group, _): &Case) -> ConvGeometry {
    let axes = [kernel, pad, stride, dilation].map(|axis| (*axis).into());
    ConvGeometry::new(dims, &axes[0], &axes[1], &axes[2], &axes[3], *group, dims.len() - 3).unwrap()
}

/// Image, weights, bias, offsets, mask.
fn inputs(case: &Case) -> [Tensor; 5] {
    let (dims, outmaps, kernel, .., group, deformable_group) = case;
    let (batch, size) = (&dims[..dims.len() - 3], &dims[dims.len() - 2..]);
    let planes = deformable_group * kernel[0] * kernel[1];
    let weights = [*outmaps, dims[dims.len() - 3] / group, kernel[0], kernel[1]];
    let offset = values([batch, &[2 * planes], size].concat(), 4);
    [
        values(*dims, 1),
        values(weights, 2),
        values([*outmaps], 3),
        // Far enough that some samples lie outside.
        (offset * 2.5).unwrap(),
        values([batch, &[planes], size].concat(), 5),
    ]
}

#[test]
fn deformable_convolution_to_all_inputs() {
    for case in &CASES {
        let (geometry, inputs, groups) = (geometry(case), inputs(case), case.7);
        gate(
            |t| deformable_convolution(&t[0], &t[1], Some(&t[2]), &t[3], Some(&t[4]), &geometry, groups),
            &inputs,
        );
        let [x, w, _, offset, _] = inputs;
        gate(|t| deformable_convolution(&t[0], &t[1], None, &t[2], None, &geometry, groups), &[x, w, offset]);
    }
}

/// NNabla computes the gradients of the others as if there were no mask if the mask needs none.
#[test]
fn a_mask_without_gradient_weights_the_others() {
    let case = &CASES[0];
    let (geometry, [x, w, b, offset, mask]) = (geometry(case), inputs(case));
    gate(
        |t| {
            let mask = mask.to_dtype(t[0].dtype())?;
            deformable_convolution(&t[0], &t[1], Some(&t[2]), &t[3], Some(&mask), &geometry, 1)
        },
        &[x, w, b, offset],
    );
}

#[test]
fn without_offsets_it_is_a_convolution() {
    both_paths(|| {
        for case in &CASES {
            let (geometry, [x, w, b, offset, mask]) = (geometry(case), inputs(case));
            let (zeros, ones) = (offset.zeros_like().unwrap(), mask.ones_like().unwrap());
            let y = deformable_convolution(&x, &w, Some(&b), &zeros, Some(&ones), &geometry, case.7).unwrap();
            assert_close(&y, &convolution(&x, &w, Some(&b), &geometry).unwrap(), 1e-12, "convolution");
        }
    });
}

/// On pixels and on the rim the slope is that of the way down, as in NNabla; exactly one pixel outside there is none.
#[test]
fn slopes_on_the_pixels() {
    both_paths(|| {
        let row = |data: &[f64]| Tensor::from_slice(data, (1, 1, data.len(), 1), &Device::Cpu).unwrap();
        let geometry =
            ConvGeometry::new(&[1, 1, 3, 1], &1.into(), &0.into(), &1.into(), &1.into(), 1, 1).unwrap();
        let (x, w) = (row(&[1., 4., 9.]), row(&[1.]));
        for (moved, y, slope) in [
            (0.0, [1., 4., 9.], [3., 5., -9.]),
            (-1.0, [0., 1., 4.], [0., 3., 5.]),
            (1.0, [4., 9., 0.], [5., -9., 0.]),
            (-0.5, [0.5, 2.5, 6.5], [1., 3., 5.]),
            (2.5, [4.5, 0., 0.], [-9., 0., 0.]),
            (f64::NAN, [0.; 3], [0.; 3]),
            (f64::INFINITY, [0.; 3], [0.; 3]),
        ] {
            let down = row(&[moved; 3]);
            let offset = Tensor::cat(&[&down, &row(&[0.0; 3])], 1).unwrap();
            let var = candle_core::Var::from_tensor(&offset).unwrap();
            let out = deformable_convolution(&x, &w, None, &var, None, &geometry, 1).unwrap();
            assert_eq!(flat(&out), y, "{moved}");
            let gradients = out.sum_all().unwrap().backward().unwrap();
            assert_eq!(flat(gradients.get(&var).unwrap())[..3], slope, "{moved}");
        }
        // A sample outside sees a zero, not an infinite pixel times zero.
        let far = Tensor::cat(&[&row(&[9.0; 3]), &row(&[0.0; 3])], 1).unwrap();
        let y =
            deformable_convolution(&row(&[f64::INFINITY; 3]), &w, None, &far, None, &geometry, 1).unwrap();
        assert_eq!(flat(&y), [0.; 3]);
    });
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = &CASES[0];
    let (geometry, [x, w, b, offset, mask]) = (geometry(case), inputs(case));
    let text = |result: layerfn::Result<Tensor>| result.unwrap_err().to_string();
    let run = |w: &Tensor, offset: &Tensor, mask: &Tensor, groups| {
        text(deformable_convolution(&x, w, Some(&b), offset, Some(mask), &geometry, groups))
    };
    assert_eq!(run(&w, &offset, &mask, 3), "`deformable_group` must divide the 2 input channels, got 3");
    assert_eq!(run(&w, &mask, &mask, 1), "`offset` must have shape [2, 18, 4, 5] here, got [2, 9, 4, 5]");
    assert_eq!(run(&w, &offset, &offset, 1), "`mask` must have shape [2, 9, 4, 5] here, got [2, 18, 4, 5]");
    assert!(run(&mask, &offset, &mask, 1).starts_with("`W` must have shape [2, 2, 3, 3] here"));
    let wide = ConvGeometry::new(x.dims(), &1.into(), &2.into(), &1.into(), &1.into(), 1, 1).unwrap();
    assert_eq!(
        text(deformable_convolution(
            &x,
            &values([3, 2, 1, 1], 1),
            None,
            &values([2, 2, 4, 5], 1),
            None,
            &wide,
            1
        )),
        "`pad` must leave outputs that have offsets: those of spatial axis 0 are 8 in steps of 1, the offsets 4, got [2, 2]"
    );
    let line = ConvGeometry::new(&[1, 2, 9], &1.into(), &0.into(), &1.into(), &1.into(), 1, 1).unwrap();
    let result =
        deformable_convolution(&values([1, 2, 9], 1), &values([1, 2, 1], 1), None, &x, None, &line, 1);
    assert_eq!(text(result), "`inp` must have two spatial axes after the channels, got [1, 2, 9]");
}

/// With the channels last it is the transposed computation.
#[test]
fn channels_may_come_last() {
    let last = |x: &Tensor| x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
    let first = |x: &Tensor| x.permute((0, 3, 1, 2));
    for case in &CASES[..3] {
        let (geometry, [x, w, b, offset, mask]) = (geometry(case), inputs(case));
        let want = deformable_convolution(&x, &w, Some(&b), &offset, Some(&mask), &geometry, case.7).unwrap();
        let geometry = geometry.with_channel_last(true);
        let inputs = [last(&x), last(&w), b, last(&offset), last(&mask)];
        let run = |t: &[Tensor]| {
            deformable_convolution(&t[0], &t[1], Some(&t[2]), &t[3], Some(&t[4]), &geometry, case.7)
        };
        assert_close(&first(&run(&inputs).unwrap()).unwrap(), &want, 0.0, "channels last");
        gate(run, &inputs);
        let text = run(&[inputs[0].clone(), inputs[1].clone(), inputs[2].clone(), offset, mask]).unwrap_err();
        assert!(text.to_string().starts_with("`offset` must have shape ["), "{text}");
    }
}
