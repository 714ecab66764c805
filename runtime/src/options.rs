//! Arguments that layers share, to be named in `options(..)` of a
//! [`#[parametric_function]`](crate::parametric_function); [`option_group!`](crate::option_group!) declares more of them.
//!
//! A layer that names a group has its arguments as if they were in its own signature, and callers see them as
//! methods like all others:
//!
//! ```
//! use layerfn::functions::{self, ConvGeometry};
//! use layerfn::prelude::*;
//!
//! /// Convolution with a learned scale.
//! #[parametric_function(
//!     scope = "scaled_conv",
//!     options(window),
//!     params(
//!         /// Filter weights.
//!         W: [outmaps, inmaps, ..kernel] = Initializer::normal(0.1),
//!         /// Scale.
//!         s: [1] = 1.0,
//!     )
//! )]
//! fn scaled_convolution(
//!     /// Input.
//!     inp: &Tensor,
//!     /// Number of output maps.
//!     outmaps: usize,
//!     /// Size of the filter on each spatial axis.
//!     #[into]
//!     kernel: PerAxis,
//! ) -> Result<Tensor> {
//!     let conv = ConvGeometry::new(inp.dims(), &kernel, &pad, &stride, &dilation, 1, 1)?;
//!     let (inmaps, kernel) = (conv.inmaps(), conv.kernel());
//!     Ok(functions::convolution(inp, &param!(W)?, None, &conv)?.broadcast_mul(&param!(s)?)?)
//! }
//! # use layerfn::options::window;
//!
//! let x = Tensor::zeros((1, 3, 8, 8), DType::F32, &Device::Cpu)?;
//! let y = scaled_convolution(&x, 4, (3, 3)).pad((1, 1)).stride((2, 2)).call()?;
//! assert_eq!(y.dims(), [1, 4, 4, 4]);
//! # Ok::<(), layerfn::Error>(())
//! ```
//!
//! The types in a group are resolved where it is used; those of the groups here are in the
//! [`prelude`](crate::prelude).

use crate::option_group;

option_group! {
    /// Window of a convolution, over its input.
    pub window {
        /// Zeros added on both sides of each spatial axis.
        #[opt(into, default = 0)]
        pad: PerAxis,
        /// Step of the filter on each spatial axis.
        #[opt(into, default = 1)]
        stride: PerAxis,
        /// Distance of the filter's taps on each spatial axis.
        #[opt(into, default = 1)]
        dilation: PerAxis,
    }

    /// Window of a transposed convolution, over its output.
    pub transposed_window {
        /// Elements cut off on both sides of each spatial axis of the output.
        #[opt(into, default = 0)]
        pad: PerAxis,
        /// Step of the filter on each spatial axis of the output.
        #[opt(into, default = 1)]
        stride: PerAxis,
        /// Distance of the filter's taps on each spatial axis.
        #[opt(into, default = 1)]
        dilation: PerAxis,
    }

    /// The order of the axes.
    pub layout {
        /// Whether the axis of the channels comes after the spatial ones, in the weights as well.
        #[opt(default = false)]
        channel_last: bool,
    }

    /// Groups of maps.
    pub grouped {
        /// Number of groups of maps that are not connected with each other.
        #[opt(default = 1)]
        group: usize,
    }

    /// Initial value of the weights.
    pub weights {
        /// Initializer of `W`; Glorot uniform if absent.
        #[opt(into)]
        w_init: Option<Initializer>,
    }

    /// The scale and the bias of a normalization.
    pub scale_and_bias {
        /// Initializer of `beta`.
        #[opt(into, default = 0.0)]
        beta_init: Initializer,
        /// Initializer of `gamma`.
        #[opt(into, default = 1.0)]
        gamma_init: Initializer,
        /// Whether to leave `gamma` out.
        #[opt(default = false)]
        no_scale: bool,
        /// Whether to leave `beta` out.
        #[opt(default = false)]
        no_bias: bool,
    }

    /// Functions of the weights and of the bias.
    pub reparameterized {
        /// Function that makes the weights to compute with from `W`, such as
        /// [`weight_normalization`](fn@crate::weight_normalization); its parameters are in scopes below the
        /// layer's.
        #[opt(into)]
        apply_w: Option<WeightFn>,
        /// Function that makes the bias to compute with from `b`.
        #[opt(into)]
        apply_b: Option<WeightFn>,
    }

    /// Options of layers with samples and a bias.
    pub bias {
        /// Initializer of `b`.
        #[opt(into, default = 0.0)]
        b_init: Initializer,
        /// Number of leading axes that are samples; if negative, the first axis after them, counted from the
        /// back.
        #[opt(into, default = 1)]
        base_axis: Axis,
        /// Generator that a random default draws from; the parameter's own if absent.
        #[opt(into)]
        rng: Option<Rng>,
        /// Whether to add `b`.
        #[opt(default = true)]
        with_bias: bool,
    }
}
