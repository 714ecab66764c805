//! Random and extreme arguments.

use std::fmt::Debug;

use candle_core::{DType, Device, Tensor};
use layerfn::functions::{Interpolation, InterpolationMode, PadMode};
use layerfn::{Dims, Initializer, PerAxis, Rng};

/// A source of arguments that remembers what it gave.
pub(crate) struct Draw {
    rng: Rng,
    index: u64,
    name: &'static str,
    given: Vec<String>,
    /// Sizes of the tensor drawn last.
    dims: Vec<usize>,
}

const EXTREME_SIZES: [usize; 12] = [
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 50,
    1 << 62,
    (1 << 62) + 1,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 1,
    usize::MAX / 3,
    usize::MAX - 1,
    usize::MAX,
];

const NUMBERS: [f64; 22] = [
    0.0,
    -0.0,
    0.5,
    0.9,
    0.999,
    1.0,
    1.5,
    -1.0,
    1e-3,
    1e-8,
    1e-60,
    1e-320,
    31.0,
    1e30,
    1e39,
    1e200,
    -1e200,
    f64::MAX,
    f64::MIN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

const TYPES: [DType; 10] = [
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::F8E4M3,
    DType::U8,
    DType::U32,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::F32,
];

impl Draw {
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        // An odd factor spreads neighbouring calls.
        let key = (seed << 40 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Self { rng: Rng::new(key as u32), index, name: "", given: Vec::new(), dims: Vec::new() }
    }

    pub(crate) fn name(&mut self, name: &'static str) {
        self.name = name;
    }

    /// Says what is called now; what ends the process after this was the call.
    pub(crate) fn go(&mut self) {
        crate::driver::say(&format!("call {} {}({})", self.index, self.name, self.given.join(", ")));
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.given.push(text.into());
    }

    fn noted<T: Debug>(&mut self, value: T) -> T {
        self.given.push(format!("{value:?}"));
        value
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.rng.next_u32() as usize % n
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn raw_size(&mut self) -> usize {
        match self.below(6) {
            0 => self.pick(&EXTREME_SIZES),
            1 => 0,
            _ => self.below(8),
        }
    }

    pub(crate) fn raw_number(&mut self) -> f64 {
        if self.once_in(3) { self.rng.uniform() } else { self.pick(&NUMBERS) }
    }

    /// An axis, mostly one of four, from either end.
    pub(crate) fn raw_axis(&mut self) -> i64 {
        match self.below(6) {
            0 => self.pick(&[i64::MAX, i64::MIN, 1 << 40, -100]),
            _ => self.below(9) as i64 - 4,
        }
    }

    pub(crate) fn size(&mut self) -> usize {
        let size = self.raw_size();
        self.noted(size)
    }

    pub(crate) fn number(&mut self) -> f64 {
        let number = self.raw_number();
        self.noted(number)
    }

    /// A number that mostly makes sense as a rate.
    pub(crate) fn rate(&mut self) -> f64 {
        let rate = if self.once_in(4) { self.raw_number() } else { self.rng.uniform() };
        self.noted(rate)
    }

    pub(crate) fn flag(&mut self) -> bool {
        let flag = self.once_in(2);
        self.noted(flag)
    }

    pub(crate) fn int(&mut self) -> i64 {
        let int = self.pick(&[
            0,
            1,
            -1,
            2,
            7,
            -100,
            101,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
            i64::MAX,
            i64::MIN,
        ]);
        self.noted(int)
    }

    fn sizes(&mut self, longest: usize) -> Vec<usize> {
        (0..self.below(longest + 1)).map(|_| self.raw_size()).collect()
    }

    pub(crate) fn dims(&mut self) -> Dims {
        let sizes = self.sizes(4);
        self.noted(Dims::from(sizes))
    }

    pub(crate) fn axes(&mut self) -> Vec<usize> {
        let axes = (0..self.below(4))
            .map(|_| if self.once_in(6) { self.raw_size() } else { self.below(4) })
            .collect();
        self.noted(axes)
    }

    /// Axes that mostly exist, or other small integers.
    pub(crate) fn places(&mut self) -> Vec<isize> {
        let n = self.below(5);
        let distinct = self.once_in(2);
        let place = |draw: &mut Self, i: usize| match draw.below(8) {
            0 => draw.raw_size() as isize,
            1 => -(draw.raw_size() as i64 >> 1) as isize,
            _ if distinct => i as isize,
            _ => draw.below(5) as isize - 2,
        };
        let places = (0..n).map(|i| place(self, i)).collect();
        self.noted(places)
    }

    /// Where slices end, or how they step.
    pub(crate) fn ends(&mut self) -> Vec<Option<isize>> {
        let ends = (0..self.below(3)).map(|_| match self.below(5) {
            0 => Some(self.raw_size() as isize),
            1 => Some((self.raw_size() as isize).wrapping_neg()),
            2 => None,
            _ => Some(self.below(7) as isize - 3),
        });
        let ends = ends.collect();
        self.noted(ends)
    }

    /// Factors.
    pub(crate) fn numbers(&mut self) -> Vec<f64> {
        let numbers = (0..self.below(4))
            .map(|_| if self.once_in(5) { self.raw_number() } else { self.rng.uniform() * 3.0 })
            .collect();
        self.noted(numbers)
    }

    pub(crate) fn interpolation(&mut self) -> Interpolation {
        let mode = self.pick(&[InterpolationMode::Linear, InterpolationMode::Nearest]);
        let mut flag = || self.once_in(3);
        let how = Interpolation {
            mode,
            align_corners: flag(),
            half_pixel: flag(),
            half_pixel_for_nn: flag(),
            channel_last: flag(),
        };
        self.noted(how)
    }

    pub(crate) fn pad_mode(&mut self) -> PadMode {
        let mode = self.pick(&[PadMode::Constant, PadMode::Reflect, PadMode::Repeat]);
        self.noted(mode)
    }

    /// Small integers, mostly.
    pub(crate) fn indices(&mut self) -> Tensor {
        let rank = 1 + self.below(3);
        let dims = (0..rank).map(|_| 1 + self.below(3)).collect::<Vec<_>>();
        let dtype = self.pick(&[DType::U32, DType::I64, DType::U8, DType::I32, DType::F32]);
        self.of_type(&dims, dtype)
    }

    pub(crate) fn counts(&mut self) -> Vec<usize> {
        let sizes = self.sizes(5);
        self.noted(sizes)
    }

    pub(crate) fn per_axis(&mut self) -> PerAxis {
        let value =
            if self.once_in(2) { PerAxis::Every(self.raw_size()) } else { PerAxis::Each(self.sizes(4)) };
        self.noted(value)
    }

    /// Numbers for each axis that mostly fit a small input.
    pub(crate) fn window(&mut self) -> PerAxis {
        let value = match self.below(3) {
            0 => PerAxis::Every(self.raw_size()),
            _ => PerAxis::Every(1 + self.below(3)),
        };
        self.noted(value)
    }

    pub(crate) fn text(&mut self) -> String {
        let text = match self.below(8) {
            0 => String::new(),
            1 => "/".repeat(self.below(5)),
            2 => "a/".repeat(self.below(2000)),
            3 => "ü".repeat(self.below(70_000)),
            4 => "a/../*?[{\0\n".to_owned(),
            _ => ["W", "a/W", "a/b/W", "/a//W/", "_count", "a"][self.below(6)].to_owned(),
        };
        let shown: String = text.chars().take(20).collect();
        self.given.push(format!("{shown:?} of {} bytes", text.len()));
        text
    }

    pub(crate) fn initializer(&mut self) -> Initializer {
        let initializer = match self.below(6) {
            0 => Initializer::constant(self.raw_number()),
            1 => Initializer::normal(self.raw_number()),
            2 => Initializer::uniform(self.raw_number(), self.raw_number()),
            3 => Initializer::xavier_uniform(self.raw_size(), self.raw_size(), &self.sizes(3)),
            4 => Initializer::glorot_normal(self.raw_size(), self.raw_size(), &self.sizes(3)),
            _ => Initializer::from(self.small(DType::F32)),
        };
        self.noted(initializer)
    }

    /// A tensor of up to five axes.
    pub(crate) fn tensor(&mut self) -> Tensor {
        let rank = self.below(6);
        let dims = (0..rank).map(|_| 1 + self.below(4)).collect::<Vec<_>>();
        self.like(&dims)
    }

    /// A matrix.
    pub(crate) fn matrix(&mut self) -> Tensor {
        let dims = [1 + self.below(4), 1 + self.below(4)];
        self.like(&dims)
    }

    /// A batch of images.
    pub(crate) fn image(&mut self) -> Tensor {
        let rank = 3 + self.below(3);
        let dims = (0..rank).map(|_| 1 + self.below(5)).collect::<Vec<_>>();
        self.like(&dims)
    }

    /// A batch of images of two spatial axes.
    pub(crate) fn picture(&mut self) -> Tensor {
        let dims: Vec<_> = (0..4).map(|_| 1 + self.below(5)).collect();
        self.like(&dims)
    }

    /// Steps of two samples.
    pub(crate) fn sequence(&mut self) -> Tensor {
        let dims = [1 + self.below(4), 2, 1 + self.below(3)];
        self.like(&dims)
    }

    /// States of recurrent layers for two samples.
    pub(crate) fn states(&mut self) -> Tensor {
        let dims = [1 + self.below(3), 1 + self.below(2), 2, 1 + self.below(4)];
        self.like(&dims)
    }

    /// Mostly of the shape of the tensor before.
    pub(crate) fn same(&mut self) -> Tensor {
        let dims = self.dims.clone();
        self.like(&dims)
    }

    /// Mostly of these sizes and of type f32.
    pub(crate) fn like(&mut self, dims: &[usize]) -> Tensor {
        let dtype = if self.once_in(5) { self.pick(&TYPES) } else { DType::F32 };
        self.of_type(dims, dtype)
    }

    /// Mostly of these sizes.
    pub(crate) fn of_type(&mut self, dims: &[usize], dtype: DType) -> Tensor {
        let tensor = match self.below(12) {
            0 => self.huge_view(dtype),
            1 => self.empty(dtype),
            2 => self.small(dtype),
            _ => self.filled(dims, dtype),
        };
        self.dims = tensor.dims().to_vec();
        self.given.push(format!("{:?} {:?}", tensor.dtype(), tensor.dims()));
        tensor
    }

    fn filled(&mut self, dims: &[usize], dtype: DType) -> Tensor {
        if dims.iter().product::<usize>() > 1 << 20 {
            return self.huge_view(dtype);
        }
        let wild = self.once_in(5);
        let values = (0..dims.iter().product()).map(|_| {
            if wild && self.once_in(3) { self.raw_number() as f32 } else { self.rng.uniform() as f32 * 2.0 }
        });
        let values: Vec<f32> = values.collect();
        let tensor = Tensor::from_vec(values, dims, &Device::Cpu).and_then(|tensor| tensor.to_dtype(dtype));
        let tensor = tensor.expect("a small tensor");
        if tensor.rank() > 1 && self.once_in(6) { tensor.transpose(0, 1).expect("two axes") } else { tensor }
    }

    fn small(&mut self, dtype: DType) -> Tensor {
        let rank = self.below(5);
        let dims = (0..rank).map(|_| self.below(4)).collect::<Vec<_>>();
        self.filled(&dims, dtype)
    }

    /// More elements than there is memory, all of them one number.
    fn huge_view(&mut self, dtype: DType) -> Tensor {
        let dims: &[usize] = self.pick(&[
            &[1 << 45][..],
            &[1 << 20, 1 << 20],
            &[2, 3, 1 << 40],
            &[1 << 40, 4, 2, 2],
            &[2, 1 << 40, 3, 3],
            &[1, 2, 1 << 20, 1 << 20],
        ]);
        Tensor::zeros(1, dtype, &Device::Cpu).and_then(|zero| zero.broadcast_as(dims)).expect("a view")
    }

    /// No elements, but large sizes.
    fn empty(&mut self, dtype: DType) -> Tensor {
        let dims: &[usize] = self.pick(&[
            &[0][..],
            &[0, 3],
            &[3, 0],
            &[0, 2, 1 << 40],
            &[0, 1 << 40, 3],
            &[1 << 40, 2, 0],
            &[1 << 40, 0, 2, 2],
            &[0, 3, 1 << 31, 1 << 31],
            &[2, 3, 0, 4],
        ]);
        Tensor::zeros(dims, dtype, &Device::Cpu).expect("a tensor without elements")
    }
}
