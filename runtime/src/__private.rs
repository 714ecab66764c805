//! All that generated code may name; not part of the public interface.

pub use candle_core::Tensor;
pub use layerfn_macros::{layer_with_options, network};

pub use crate::__pf_note_arguments as note_arguments;
pub use crate::device::composed;
// Behind the layer `dropout`; the tests of gradients call it.
pub use crate::functions::activation::dropout;
pub use crate::fusion::{Fuses, IfFusing, IfPlain, Kind, Ran, declared_fusion, is_same_function};
pub use crate::kernels::{level, with_memory_of, with_threads};
pub use crate::network::frame::{
    apply, begin, block, indexed, indexed_block, join, labelled, name, nothing, one_tensor, row, run,
    unlabelled, value,
};
pub use crate::network::join::{add, concat, mul, tuple};
pub use crate::network::{network1, network2, network3, network4, network5, network6, network7, network8};
pub use crate::parameter::layer::{
    LayerCall, assign, assign_at, call_layer, note_multiply_adds, parameter, parameter_at, parameter_when,
    splice, tell_arguments,
};
pub use crate::parameter::shown::{IfNotShown, IfShown, Shown};
pub use crate::{ArgumentInfo, Family, Initializer, LayerInfo, ParameterInfo, ParametricFunction, Result};
