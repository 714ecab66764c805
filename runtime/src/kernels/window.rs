//! A window sliding over up to three spatial axes, as convolution and pooling have it.

use std::ops::Range;

/// Sizes of a sliding window; spaces of fewer than three axes have leading axes of size 1.
///
/// Position `o` of the output looks at the inputs `o * stride - pad + tap * dilation`, for each `tap` of the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) input: [usize; 3],
    pub(crate) output: [usize; 3],
    pub(crate) kernel: [usize; 3],
    pub(crate) pad: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) dilation: [usize; 3],
}

impl Window {
    pub(crate) fn n_inputs(&self) -> usize {
        self.input.iter().product()
    }

    pub(crate) fn n_outputs(&self) -> usize {
        self.output.iter().product()
    }

    pub(crate) fn n_taps(&self) -> usize {
        self.kernel.iter().fold(1, |n, &size| n.saturating_mul(size))
    }

    /// Whether each output sees exactly the input at its own place.
    pub(crate) fn is_pointwise(&self) -> bool {
        // A deconvolution may have outputs, which are inputs here, behind those that are seen.
        self.kernel == [1; 3] && self.stride == [1; 3] && self.pad == [0; 3] && self.input == self.output
    }

    /// The input position that `tap` of the window at output `o` sees on `axis`, if it is not padding.
    pub(crate) fn source(&self, axis: usize, o: usize, tap: usize) -> Option<usize> {
        let shifted = o * self.stride[axis] + tap * self.dilation[axis];
        shifted.checked_sub(self.pad[axis]).filter(|&position| position < self.input[axis])
    }

    /// The inputs on `axis` that the window at output `o` covers (dilation 1).
    pub(crate) fn inputs_covered(&self, axis: usize, o: usize) -> Range<usize> {
        let start = o * self.stride[axis];
        let end = (start + self.kernel[axis]).saturating_sub(self.pad[axis]).min(self.input[axis]);
        start.saturating_sub(self.pad[axis]).min(end)..end
    }
}
