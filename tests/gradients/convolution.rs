use candle_core::{DType, Device, Tensor};
use layerfn::functions::{ConvGeometry, DeconvGeometry, convolution, deconvolution};
use layerfn::{PerAxis, Result};
use layerfn_tests::{gate, values};

struct Case {
    dims: Vec<usize>,
    outmaps: usize,
    kernel: PerAxis,
    pad: PerAxis,
    stride: PerAxis,
    dilation: PerAxis,
    group: usize,
    base_axis: usize,
}

impl Case {
    fn new(dims: impl Into<Vec<usize>>, outmaps: usize, kernel: impl Into<PerAxis>) -> Self {
        let dims = dims.into();
        Self {
            dims,
            outmaps,
            kernel: kernel.into(),
            pad: 0.into(),
            stride: 1.into(),
            dilation: 1.into(),
            group: 1,
            base_axis: 1,
        }
    }

    fn pad(mut self, pad: impl Into<PerAxis>) -> Self {
        self.pad = pad.into();
        self
    }

    fn stride(mut self, stride: impl Into<PerAxis>) -> Self {
        self.stride = stride.into();
        self
    }

    fn dilation(mut self, dilation: impl Into<PerAxis>) -> Self {
        self.dilation = dilation.into();
        self
    }

    fn group(mut self, group: usize) -> Self {
        self.group = group;
        self
    }

    fn base_axis(mut self, base_axis: usize) -> Self {
        self.base_axis = base_axis;
        self
    }

    fn convolution(&self) -> Result<ConvGeometry> {
        let Self { dims, kernel, pad, stride, dilation, group, base_axis, .. } = self;
        ConvGeometry::new(dims, kernel, pad, stride, dilation, *group, *base_axis)
    }

    fn deconvolution(&self) -> Result<DeconvGeometry> {
        let Self { dims, kernel, pad, stride, dilation, group, base_axis, .. } = self;
        DeconvGeometry::new(dims, kernel, pad, stride, dilation, *group, *base_axis)
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case::new([2, 3, 7], 4, 3),
        Case::new([2, 4, 9], 6, 3).pad(2).stride(2).dilation(2).group(2),
        Case::new([3, 2, 6, 7], 3, (3, 2)).stride(2),
        Case::new([1, 2, 6, 7], 3, 3).pad((1, 2)).stride((2, 1)).dilation((1, 2)),
        Case::new([2, 3, 5, 4], 2, 1),
        Case::new([2, 3, 5, 4], 2, 1).stride(2),
        Case::new([2, 4, 5, 4], 6, 1).group(2),
        Case::new([2, 4, 7, 6], 6, 3).pad(1).group(2),
        Case::new([2, 3, 5, 6], 3, 3).pad(1).group(3),
        Case::new([2, 3, 7, 6], 6, (2, 3)).pad((0, 4)).stride((3, 2)).dilation((1, 3)).group(3),
        Case::new([2, 2, 1, 5], 2, (1, 3)),
        Case::new([2, 2, 1, 1], 2, 1),
        Case::new([2, 3, 2, 3, 4, 5], 2, 2).pad((0, 1, 0)).stride((1, 2, 1)).base_axis(2),
        Case::new([2, 4, 3, 4, 5], 4, (2, 1, 3)).pad(1).dilation((2, 1, 1)).group(4),
        Case::new([3, 4, 5], 2, 2).base_axis(0),
        Case::new([2, 2, 3], 2, 2).pad(5),
        // Large enough for blocks of pixels and for threads.
        Case::new([1, 3, 40, 41], 5, 5).pad(2),
        Case::new([5, 3, 40, 41], 5, 5).pad(2).stride(2),
        Case::new([1, 8, 3000], 3, 9).pad(4),
        Case::new([3, 8, 40, 40], 16, 3).group(8),
        // Maps and pixels enough for Winograd's tiles, whole and cut off.
        Case::new([9, 12, 5, 4], 13, 3).pad(1),
        Case::new([2, 24, 9, 10], 32, 3).pad((2, 0)).group(2),
    ]
}

#[test]
fn convolution_of_every_kind() {
    for (i, case) in cases().into_iter().enumerate() {
        println!("case {i}");
        let geometry = case.convolution().unwrap();
        let mut weight_dims = vec![case.outmaps, geometry.inmaps() / case.group];
        weight_dims.extend(geometry.kernel());
        let inputs = [values(&*case.dims, 1), values(weight_dims, 2), values([case.outmaps], 3)];
        gate(|t| convolution(&t[0], &t[1], Some(&t[2]), &geometry), &inputs);
        gate(|t| convolution(&t[0], &t[1], None, &geometry), &inputs[..2]);
        let y = convolution(&inputs[0], &inputs[1], None, &geometry).unwrap();
        assert_eq!(y.dims(), geometry.output_dims(case.outmaps));
    }
}

#[test]
fn deconvolution_of_every_kind() {
    for (i, case) in cases().into_iter().enumerate() {
        println!("case {i}");
        let Ok(geometry) = case.deconvolution() else {
            continue; // all of the output cut off
        };
        let mut weight_dims = vec![geometry.inmaps(), case.outmaps / case.group];
        weight_dims.extend(geometry.kernel());
        let inputs = [values(&*case.dims, 1), values(weight_dims, 2), values([case.outmaps], 3)];
        gate(|t| deconvolution(&t[0], &t[1], Some(&t[2]), &geometry), &inputs);
        gate(|t| deconvolution(&t[0], &t[1], None, &geometry), &inputs[..2]);
    }
}

#[test]
fn an_empty_batch_gives_an_empty_result() {
    let x = values([0, 3, 5, 5], 0);
    let (w, b) = (values([2, 3, 3, 3], 1), values([2], 2));
    let geometry = Case::new([0, 3, 5, 5], 2, 3).convolution().unwrap();
    let f = |t: &[Tensor]| convolution(&t[0], &t[1], Some(&t[2]), &geometry);
    assert_eq!(f(&[x.clone(), w.clone(), b.clone()]).unwrap().dims(), [0, 2, 3, 3]);
    let upstream = values([0, 2, 3, 3], 3);
    let gradients = layerfn_tests::gradients(f, &[x, w, b], &upstream, |_| true);
    assert_eq!(layerfn_tests::flat(gradients[1].as_ref().unwrap()), vec![0.0; 54]);
    let x = values([0, 3, 5], 0);
    let geometry = Case::new([0, 3, 5], 2, 3).group(3).deconvolution().unwrap();
    assert_eq!(deconvolution(&x, &values([3, 1, 3], 1), None, &geometry).unwrap().dims(), [0, 3, 7]);
}

#[test]
fn only_padding_to_see_gives_the_bias() {
    let x = values([2, 2, 0], 0);
    let geometry = Case::new([2, 2, 0], 1, 3).pad(2).convolution().unwrap();
    let b = Tensor::new(&[0.5f64], &Device::Cpu).unwrap();
    let y = convolution(&x, &values([1, 2, 3], 1), Some(&b), &geometry).unwrap();
    assert_eq!(layerfn_tests::flat(&y), [0.5; 4]);
}

#[test]
fn bad_input_is_an_error() {
    let geometry = Case::new([2, 4, 5, 5], 4, 3).group(2).convolution().unwrap();
    let x = values([2, 4, 5, 5], 0);
    let message =
        |x: &Tensor, w: &Tensor, b: Option<&Tensor>| convolution(x, w, b, &geometry).unwrap_err().to_string();
    let w = values([4, 2, 3, 3], 1);
    assert_eq!(
        message(&x, &values([3, 2, 3, 3], 1), None),
        "`outmaps` must be a multiple of `group`, which is 2, got 3"
    );
    assert_eq!(
        message(&x, &values([4, 4, 3, 3], 1), None),
        "`W` must have shape [4, 2, 3, 3] here, got [4, 4, 3, 3]"
    );
    assert_eq!(message(&x, &w, Some(&values([3], 1))), "`b` must have shape [4] here, got [3]");
    assert_eq!(
        message(&values([2, 4, 5, 6], 0), &w, None),
        "`inp` must have shape [2, 4, 5, 5] here, got [2, 4, 5, 6]"
    );
    assert!(message(&x.to_dtype(DType::F32).unwrap(), &w, None).contains("one element type"));
    assert!(message(&x.to_dtype(DType::U8).unwrap(), &w, None).contains("f32, f64, f16 or bf16"));
    let scalar = Tensor::new(1f64, &Device::Cpu).unwrap();
    assert!(convolution(&x, &scalar, None, &geometry).is_err());
    let geometry = Case::new([2, 4, 5], 4, 3).deconvolution().unwrap();
    assert!(deconvolution(&values([2, 4, 5], 0), &values([4], 1), None, &geometry).is_err());
}

#[test]
fn a_result_beyond_the_memory_is_an_error() {
    let pad = 1usize << 61;
    let geometry = Case::new([1, 1, 5], 1, 1).pad(pad).convolution().unwrap();
    assert!(convolution(&values([1, 1, 5], 0), &values([1, 1, 1], 1), None, &geometry).is_err());
    let geometry = Case::new([1, 1, 5, 5], 1, 1).pad(1usize << 40).convolution().unwrap();
    assert!(convolution(&values([1, 1, 5, 5], 0), &values([1, 1, 1, 1], 1), None, &geometry).is_err());
}
