//! Declarative neural-network layers on [candle](candle_core) tensors.
//!
//! A layer is a function: it takes tensors and options, creates its parameters in the current *parameter scope* or finds
//! them there again, and returns tensors. The style, the layers, their names and their numbers are those of NNabla's
//! *parametric functions*.
//!
//! ```
//! use layerfn::prelude::*;
//!
//! let x = Tensor::zeros((8, 3, 32, 32), DType::F32, &Device::Cpu)?;
//!
//! // A call: required arguments by position, options by name, `call()` runs it.
//! let y = convolution(&x, 16, (5, 5)).pad((2, 2)).name("c1").call()?;
//! assert_eq!(y.dims(), [8, 16, 32, 32]);
//!
//! // Its parameters, by path.
//! assert_eq!(get_parameters().paths().collect::<Vec<_>>(), ["c1/conv/W", "c1/conv/b"]);
//!
//! // The same layers as a network.
//! let net = network! { < c1: conv(16, (5, 5), pad = (2, 2)) -> bn -> relu -> out: affine(10) > };
//! assert_eq!(net.forward(&x)?.dims(), [8, 10]);
//! # Ok::<(), layerfn::Error>(())
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! | --- | --- |
//! | a start | the [`guide`] |
//! | the layers | [`LAYERS`] and the functions in this page, from [`affine`](fn@affine) to [`lstm`](fn@lstm) |
//! | your own layer | [`parametric_function`], [`testing`] |
//! | networks | [`network!`], with [pictures](guide::networks), and [`Network`] |
//! | networks that own their parameters | [`Model`] |
//! | threads | [`Context`], [`ParameterStore`](ParameterStore#threads) |
//! | functions without parameters | [`functions`] |
//! | parameters and scopes | [`parameter_scope`], [`get_parameters`], [`ParameterStore`] |
//! | initial values | [`Initializer`] |
//! | training and testing | [`test_mode`], [`no_grad`] |
//! | data and batches | [`data`] |
//! | accuracy, logs of a training | [`metrics`], [`monitor`], `report` |
//! | updating parameters | [`solver`] |
//! | accumulation, averages, resuming | [`training`] |
//! | GPUs and half precisions | [`ParameterStore::to_device`], [`full_precision`] |
//! | files | [`save_parameters`], [`load_parameters`] |
//! | NNabla's networks, ONNX | [`nnp`], [`import`], [`export`] |
//! | several processes | [`communicator`], [`training::DataParallel`] |
//! | coming from PyTorch, NNabla, candle-nn or burn | [a chapter](guide::coming_from) |
//!
//! # Whose parameters a network uses
//!
//! Layers and networks keep their parameters in the store that is current, as in NNabla: two networks with equal labels share
//! them. A [`Model`] owns its parameters instead:
//!
//! ```
//! use layerfn::prelude::*;
//!
//! let net = network! { affine(16) -> relu -> out: affine(2) };
//! let (teacher, student) = (net.init((4, 8))?, net.init((4, 8))?);
//! let x = Tensor::ones((4, 8), DType::F32, &Device::Cpu)?;
//! let y = std::thread::scope(|threads| threads.spawn(|| student.forward_t(&x, false)).join().unwrap())?;
//! assert_eq!(y.dims(), [4, 2]);
//! assert_eq!(teacher.parameters().len(), 4);
//! # Ok::<(), layerfn::Error>(())
//! ```
//!
//! A layer creates a parameter that does not exist yet, except in four places: in a model, in a store that is
//! [sealed](ParameterStore::seal), in a scope that was empty when a file was loaded into it, and on a thread that has entered no
//! store, which is every thread but the main one. There, a missing parameter is an error that says what to do. [`Context`] brings the
//! store and the mode to another thread.
//!
//! # For speed
//!
//! - Build with `--release`. AVX2 and AVX-512 are found when a program runs; no compiler flag is needed.
//! - Use [`backward`] in place of candle's `loss.backward()`, and the [`solver`]s.
//! - Give the program an allocator that keeps freed memory for the next step. The system's allocator returns large blocks to the
//!   kernel, which clears every page again; that takes up to a third of a training step:
//!   ```text
//!   #[global_allocator]
//!   static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
//!   ```
//! - Kernels run in the calling thread and in helper threads, together as many as rayon has (`RAYON_NUM_THREADS`). One caller at a
//!   time has the helpers; concurrent calls run in their own thread alone, so a server answers each request on one processor.
//!
//! # Equal bits
//!
//! On one kind of processor, the same program gives the same bits with any number of threads, in debug and release builds. The
//! kinds are: processors with AVX-512, those with AVX2 and FMA, and all others of one architecture. Each kind adds in a different
//! order, so the last bits differ between kinds and on a GPU; after many training steps the difference grows.
//!
//! # Where NNabla's documentation and its behaviour differ
//!
//! The layers follow the documentation of NNabla 1.0. Where NNabla computes something else than its documentation says, they
//! compute what NNabla computes. Where NNabla fails without a reason, they work:
//!
//! | layer | the documentation says | here, as in NNabla unless noted |
//! | --- | --- | --- |
//! | all weights | Glorot limit √(6/(NK+M)) | as the page; NNabla today draws within √(6/(K(N+M))): [`Initializer::xavier_uniform`] |
//! | [`prelu`](fn@prelu) | the slope starts at −1 | as the page; NNabla today starts at 0.25: `.slope_init(0.25)` |
//! | [`batch_normalization`](fn@batch_normalization) | running variance of the batch variance | the *unbiased* variance goes into the running one; with several `axes` the running statistics stay as they are |
//! | [`mean_subtraction`](fn@mean_subtraction) | subtracts the batch mean; `update_running_mean` stops the update | subtracts the *updated running* mean; `update_running_mean` asks for the update |
//! | [`embed`](fn@embed) | – | an index out of range is an error; NNabla reads foreign memory |
//! | [`binary_weight_affine`](fn@binary_weight_affine), [`binary_weight_convolution`](fn@binary_weight_convolution) | α = 1 / ‖w‖₁ | α is the *mean* of \|w\|; no gradient flows through α |
//! | binary and INQ convolutions | have a `group` | `group > 1` works; NNabla refuses it |
//! | [`cpd3_convolution`](fn@cpd3_convolution) | registers `I`, `K`, `O` | the order is `I`, `O`, `K`; λ sits in `O` |
//! | fixed-point and Pow2 layers | register `W`, `b`, `W_q`, `b_q` | the order is `W`, `W_q`, `b`, `b_q`; `W_q` and `b_q` exist only if something is quantized |
//! | [`pow2_quantized_affine`](fn@pow2_quantized_affine), [`pow2_quantized_convolution`](fn@pow2_quantized_convolution) | values between 2^m and 2^−m | between 2^m and 2^(m−2^n'+1), see the formula there |
//! | [`lstm`](fn@lstm), [`lstm_n_step`](fn@lstm_n_step) | `lstm` is one step | as the page; NNabla today calls one step `lstm_cell`, an alias here, and a sequence `lstm`, which is `lstm_n_step` here |
//! | [`rnn`](fn@rnn), [`gru`](fn@gru), [`lstm_n_step`](fn@lstm_n_step) | – | `num_layers` that `h` contradicts is an error, and `dropout` drops; NNabla's CPU ignores both |
//! | [`deformable_convolution`](fn@deformable_convolution) | – | `channel_last` and `fix_parameters` work, a mask without a gradient weights the gradients of the rest, and a `pad` that makes outputs without offsets is an error; NNabla refuses, crashes, forgets the mask, and reads foreign memory |
//! | [`multi_head_attention`](fn@multi_head_attention) | returns the weights, too | the weights go to `output_weights`, and are not computed without it; a query whose keys are all hidden gets 0, in NNabla NaN |
//! | [`transformer`](fn@transformer), [`transformer_encode`](fn@transformer_encode), [`transformer_decode`](fn@transformer_decode) | `fix_parameters` keeps the parameters from being updated, `rng` draws them | `fix_parameters` is not handed down to the layers inside; `rng` is, in NNabla it does nothing |
//! | [`mish`](functions::mish) | – | the gradient is right everywhere; NNabla's is NaN from 22 on |
//! | [`sigmoid_cross_entropy`](functions::sigmoid_cross_entropy) | – | the target is a probability; NNabla cuts it to an integer |
//! | [`pow2`](functions::pow2), [`pow_scalar`](functions::pow_scalar), [`r_pow_scalar`](functions::r_pow_scalar) | – | a power that is constant 0 or 1 has the gradient 0; NNabla's is NaN there |
//! | [`depthwise_convolution`](fn@depthwise_convolution), [`depthwise_deconvolution`](fn@depthwise_deconvolution), [`svd_convolution`](fn@svd_convolution) | N-D | three spatial axes work; NNabla has one and two |
//! | convolutions, pooling and interpolation with `channel_last` | – | work; NNabla's CPU refuses them |
//! | [`functions::global_average_pooling`] | four axes | three and more; of a fifth NNabla averages the wrong elements |
//! | [`functions::norm`], [`functions::norm_normalization`] | `eps` is added below the root | vectors of zeros have the gradient 0 and stay zeros: `eps` is the least that is divided by; NNabla does not use it and gives NaN |
//! | [`functions::one_hot`], [`functions::gather`], [`functions::top_n_error`] | – | an index out of range is an error, a target below 0 no error of the prediction; NNabla reads foreign memory |
//! | [`functions::scatter_nd`] | – | what is overwritten gets no gradient; in NNabla that of what stands in its place |
//! | [`functions::slice`] | – | ends at the first element where a negative step leads over it; NNabla goes on with zeros |
//! | [`functions::sort`] | – | each element gets its own gradient; NNabla hands it to another one |
//! | negative axes | – | `base_axis`, `axes`, `batch_axis`, `channel_axis` and `dim` count from the back everywhere. NNabla wants `pad`, `stride` and `dilation` beside a negative `base_axis`, refuses it in [`svd_convolution`](fn@svd_convolution), [`cpd3_convolution`](fn@cpd3_convolution) and [`fused_batch_normalization`](fn@fused_batch_normalization), and crashes in [`weight_normalization`](fn@weight_normalization) |
//! | [`layer_normalization`](fn@layer_normalization), [`group_normalization`](fn@group_normalization), [`instance_normalization`](fn@instance_normalization) | – | `output_stat` gives the mean and the biased *variance*, where NNabla's documentation says standard deviation |
//! | [`fused_batch_normalization`](fn@fused_batch_normalization) | – | no `nonlinearity`: NNabla has none but ReLU |
//! | [`sync_batch_normalization`](fn@sync_batch_normalization) | – | no argument `comm`: the group is that of [`DataParallel::step_together`](training::DataParallel::step_together) or [`Communicator::enter`](communicator::Communicator::enter) |
//! | [`rms_normalization`](fn@rms_normalization) | – | not in NNabla |
//! | `apply_w`, `apply_b` | – | depthwise layers have them, too; `fix_parameters` of a layer holds for the layers in its functions, in NNabla it does not |
//! | [`spectral_norm`](fn@spectral_norm) | – | has its gradient in test mode, where NNabla's is unusable, and leaves a weight of zeros as it is, which NNabla makes NaN |
//! | [`min_max_quantize`](fn@min_max_quantize) | – | the range of an input without finite elements cannot be measured: an error |

// Generated code names the crate as its users do.
extern crate self as layerfn;

#[doc(hidden)]
pub mod __private;
mod check;
pub mod checkpoint;
pub mod communicator;
mod context;
pub mod data;
mod device;
mod dims;
mod error;
pub mod export;
pub mod functions;
mod fusion;
mod group;
pub mod guide;
pub mod import;
mod initializer;
mod kernels;
mod limits;
pub mod metrics;
mod mode;
mod model;
pub mod monitor;
mod nearest;
mod network;
pub mod nnp;
mod number;
mod onnx;
pub mod options;
mod parameter;
mod parametric_functions;
mod pattern;
pub mod prelude;
#[cfg(feature = "report")]
pub mod report;
mod rng;
mod run;
pub mod solver;
pub mod testing;
mod told;
pub mod training;
mod weight_fn;

/// The crate whose tensors the layers compute with, in the version that they need.
pub use candle_core;
pub use checkpoint::{LoadReport, load_parameters, save_parameters};
pub use context::Context;
pub use dims::{Axes, Axis, Dims, PerAxis};
pub use error::{Error, Result};
pub use functions::graph::{Loss, backward};
#[doc = include_str!("macro_docs/option_group.md")]
pub use layerfn_macros::option_group;
#[doc = include_str!("macro_docs/parametric_function.md")]
pub use layerfn_macros::parametric_function;

pub use initializer::{
    Initializer, calc_normal_std_glorot, calc_normal_std_he_backward, calc_normal_std_he_forward,
    calc_normal_std_xavier, calc_uniform_lim_glorot, calc_uniform_lim_xavier,
};
pub use mode::{is_training, test_mode, train_mode};
pub use model::{Example, Model, ModelT};
pub use network::{
    BoxedForward, BoxedMany, CellOutput, Diagnosis, Finding, GradientAudit, GradientFault, GradientFinding,
    IntoValue, Network, NetworkT, Profile, ProfileRow, Stage, Summary, SummaryParameter, SummaryRow, Symptom,
    Value, recur, recur_from,
};
pub use parameter::{
    ArgumentInfo, Family, GetParameterOrCreate, LayerInfo, Parameter, ParameterInfo, ParameterStore,
    Parameters, ParametricFunction, clear_parameters, current_parameter_scope, full_precision,
    get_all_parameters, get_parameter, get_parameter_or_create, get_parameters, initial_value, no_grad,
    parameter_scope, pop_parameter, set_parameter, update_state,
};
pub use parametric_functions::layers::*;
/// NNabla's name today.
pub use parametric_functions::lstm as lstm_cell;
pub use parametric_functions::{
    Activation, AttentionWeights, AveragePooling, BatchStat, Dropout, Flatten, Interpolate, LAYERS, LSTMCell,
    MaxPooling, Pad, RotaryPositionEmbedding, ScaledDotProductAttention, SelectionAlgorithm, SumPooling,
    Unpooling, average_pooling, dropout, flatten, interpolate, max_pooling, pad, rotary_position_embedding,
    scaled_dot_product_attention, sum_pooling, unpooling,
};
/// Short names for chains.
pub use parametric_functions::{
    average_pooling as avg_pool, batch_normalization as bn, convolution as conv, max_pooling as max_pool,
};
pub use rng::Rng;
pub use weight_fn::WeightFn;

#[doc = include_str!("macro_docs/pictures.md")]
#[doc = include_str!("macro_docs/network.md")]
#[macro_export]
macro_rules! network {
    // `$crate` is this crate, whatever name it has where the network is written.
    ($($network:tt)*) => { $crate::__private::network! { $crate; $($network)* } };
}

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
