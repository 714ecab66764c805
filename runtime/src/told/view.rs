//! Views of tensors: what candle's `narrow`, `transpose`, `reshape` and their like make without a copy.

use candle_core::{Layout, Tensor};

use super::{Argument, UNSAID};
use crate::Result;

/// The memory that a tensor lies in.
pub(super) fn storage(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref(&*storage).addr()
}

/// A part of a tensor, its axes in another order, in another shape.
pub(super) struct View {
    /// Start and length on each axis.
    ranges: Vec<(usize, usize)>,
    /// The axes of more than one element, as the view has them.
    order: Vec<usize>,
}

/// A function that makes something of the value before it.
type Made = (&'static str, Vec<(&'static str, Argument)>, Tensor);

impl View {
    /// How `view` looks at the memory of `whole`, if it is one of these.
    pub(super) fn of(whole: &Layout, view: &Layout) -> Option<Self> {
        let (sizes, strides) = (whole.dims(), whole.stride());
        let mut left = view.start_offset().checked_sub(whole.start_offset())?;
        let all = || sizes.iter().map(|&size| (0, size)).collect();
        if left == 0 && sizes == view.dims() && strides == view.stride() {
            return Some(Self { ranges: all(), order: (0..sizes.len()).collect() });
        }
        if !whole.is_contiguous() {
            return None;
        }
        let count = |layout: &Layout| layout.shape().elem_count();
        if left == 0 && view.is_contiguous() && count(view) == count(whole) {
            return Some(Self { ranges: all(), order: (0..sizes.len()).collect() });
        }
        let start = |&stride: &usize| {
            let start = left / stride.max(1);
            left %= stride.max(1);
            start
        };
        let mut ranges: Vec<_> = strides.iter().map(start).map(|start| (start, 1)).collect();
        let mut order = Vec::new();
        for (&size, &stride) in view.dims().iter().zip(view.stride()).filter(|(size, _)| **size != 1) {
            let axis = (0..sizes.len())
                .find(|&axis| sizes[axis] > 1 && strides[axis] == stride && !order.contains(&axis))?;
            ranges[axis].1 = size;
            order.push(axis);
        }
        let fits = ranges.iter().zip(sizes).all(|((start, length), size)| start + length <= *size);
        (fits && left == 0).then_some(Self { ranges, order })
    }

    /// The functions that make the view of the whole.
    pub(super) fn steps(&self, whole: &Tensor, view: &Tensor) -> Result<Vec<Made>> {
        let mut steps: Vec<Made> = Vec::new();
        let mut now = whole.clone();
        let is_whole = |(range, size): (&(usize, usize), &usize)| *range == (0, *size);
        if !self.ranges.iter().zip(whole.dims()).all(is_whole) {
            let stop = |(&(start, length), &size): (&(usize, usize), &usize)| match start + length == size {
                true => UNSAID as i64,
                false => (start + length) as i64,
            };
            let starts: Vec<usize> = self.ranges.iter().map(|range| range.0).collect();
            let stops: Vec<i64> = self.ranges.iter().zip(whole.dims()).map(stop).collect();
            for (axis, &(start, length)) in self.ranges.iter().enumerate() {
                now = now.narrow(axis, start, length)?;
            }
            let steps_of = vec![1usize; starts.len()];
            let arguments = vec![("start", starts.into()), ("stop", stops.into()), ("step", steps_of.into())];
            steps.push(("Slice", arguments, now.clone()));
        }
        if !self.order.is_sorted() {
            let rest = (0..whole.rank()).filter(|axis| !self.order.contains(axis));
            let order: Vec<_> = rest.chain(self.order.iter().copied()).collect();
            now = now.permute(&*order)?;
            steps.push(("Transpose", vec![("axes", order.into())], now.clone()));
        }
        if now.dims() != view.dims() {
            steps.push(("Reshape", vec![("shape", view.dims().into())], view.clone()));
        }
        Ok(steps)
    }
}
