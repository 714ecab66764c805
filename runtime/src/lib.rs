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
//! | an introduction | the [`guide`] |
//! | the layers | [`LAYERS`] and the functions on this page, from [`affine`](fn@affine) to [`lstm`](fn@lstm) |
//! | your own layer | [`parametric_function`], [`testing`] |
//! | networks | [`network!`], with [pictures](guide::networks), and [`Network`] |
//! | networks that own their parameters | [`Model`] |
//! | threads | [`Context`], [`ParameterStore`](ParameterStore#threads) |
//! | functions without parameters | [`functions`] |
//! | parameters and scopes | [`parameter_scope`], [`get_parameters`], [`ParameterStore`] |
//! | initial values | [`Initializer`] |
//! | training and testing | [`test_mode`], [`no_grad`] |
//! | data and batches | [`data`] |
//! | accuracy, training logs | [`metrics`], [`monitor`], `report` |
//! | updating parameters | [`solver`] |
//! | accumulation, averages, resuming | [`training`] |
//! | GPUs and half precisions | [`ParameterStore::to_device`], [`full_precision`] |
//! | files | [`save_parameters`], [`load_parameters`] |
//! | NNabla's networks, ONNX | [`nnp`], [`import`], [`export`] |
//! | several processes | [`communicator`], [`training::DataParallel`] |
//! | coming from PyTorch, NNabla, Keras, candle-nn or burn | [a chapter](guide::coming_from) |
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
//! # Speed
//!
//! - Build with `--release`. AVX2 and AVX-512 are found when a program runs; no compiler flag is needed.
//! - Use [`backward`] in place of candle's `loss.backward()`, and the [`solver`]s.
//! - Use an allocator that keeps freed memory for the next step. The system's allocator returns large blocks to the kernel, which
//!   clears every page again; that takes up to a third of a training step:
//!   ```text
//!   #[global_allocator]
//!   static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
//!   ```
//! - Kernels run in the calling thread and in helper threads, together as many as rayon has (`RAYON_NUM_THREADS`). One caller at a
//!   time gets the helpers; concurrent calls run in their own threads alone, so a server answers each request on one processor.
//!
//! # Equal bits
//!
//! On one kind of processor, the same program gives the same bits with any number of threads, in debug and release builds. The
//! kinds are: processors with AVX-512, those with AVX2 and FMA, and all others of one architecture. Each kind adds in a different
//! order, so the last bits differ between kinds and on a GPU; after many training steps the difference grows.
//!
//! # Where NNabla's documentation and its behaviour differ
//!
//! The layers follow the documentation of NNabla 1.0. Where NNabla itself computes something different, they compute what NNabla
//! computes. Where NNabla fails on input that makes sense, they work:
//!
//! | layer | the documentation says | here, as in NNabla unless noted |
//! | --- | --- | --- |
//! | all weights | Glorot limit √(6/(NK+M)) | as documented; today's NNabla draws within √(6/(K(N+M))), which is [`Initializer::xavier_uniform`] |
//! | [`prelu`](fn@prelu) | the slope starts at −1 | as documented; today's NNabla starts at 0.25, which is `.slope_init(0.25)` |
//! | [`batch_normalization`](fn@batch_normalization) | the running variance averages the batch variance | it averages the *unbiased* variance; with several `axes`, the running statistics do not change |
//! | [`mean_subtraction`](fn@mean_subtraction) | subtracts the batch mean; `update_running_mean` stops the update | subtracts the *updated running* mean; `update_running_mean` asks for the update |
//! | [`embed`](fn@embed) | – | an index out of range is an error; NNabla reads memory outside the table |
//! | [`binary_weight_affine`](fn@binary_weight_affine), [`binary_weight_convolution`](fn@binary_weight_convolution) | α = 1 / ‖w‖₁ | α is the *mean* of \|w\|; no gradient flows through α |
//! | binary and INQ convolutions | have a `group` | `group > 1` works; NNabla refuses it |
//! | [`cpd3_convolution`](fn@cpd3_convolution) | registers `I`, `K`, `O` | the order is `I`, `O`, `K`; λ is a factor of `O` |
//! | fixed-point and Pow2 layers | register `W`, `b`, `W_q`, `b_q` | the order is `W`, `W_q`, `b`, `b_q`; `W_q` and `b_q` exist only if something is quantized |
//! | [`pow2_quantized_affine`](fn@pow2_quantized_affine), [`pow2_quantized_convolution`](fn@pow2_quantized_convolution) | values between 2^m and 2^−m | between 2^m and 2^(m−2^n'+1), see the formula there |
//! | [`lstm`](fn@lstm), [`lstm_n_step`](fn@lstm_n_step) | `lstm` is one step | as documented; today's NNabla calls one step `lstm_cell`, which is an alias here, and a sequence `lstm`, which is `lstm_n_step` here |
//! | [`rnn`](fn@rnn), [`gru`](fn@gru), [`lstm_n_step`](fn@lstm_n_step) | – | a `num_layers` that does not match `h` is an error, and `dropout` works; NNabla ignores both on the CPU |
//! | [`deformable_convolution`](fn@deformable_convolution) | – | `channel_last` works, where NNabla refuses it; `fix_parameters` works, where NNabla crashes; a mask without a gradient still weights the other gradients, where NNabla ignores it; a `pad` that gives outputs without offsets is an error, where NNabla reads memory outside the offsets |
//! | [`multi_head_attention`](fn@multi_head_attention) | returns the weights, too | the weights are stored in `output_weights`, and computed only if it is given; a query that may see no key gets 0, in NNabla NaN |
//! | [`transformer`](fn@transformer), [`transformer_encode`](fn@transformer_encode), [`transformer_decode`](fn@transformer_decode) | with `fix_parameters` the parameters are not updated; `rng` draws them | `fix_parameters` has no effect on the layers inside; `rng` has, but not in NNabla |
//! | [`mish`](functions::mish) | – | the gradient is right everywhere; NNabla's is NaN from 22 on |
//! | [`sigmoid_cross_entropy`](functions::sigmoid_cross_entropy) | – | the target is a probability; NNabla truncates it to an integer |
//! | [`pow2`](functions::pow2), [`pow_scalar`](functions::pow_scalar), [`r_pow_scalar`](functions::r_pow_scalar) | – | a power that is constant 0 or 1 has the gradient 0; NNabla's is NaN there |
//! | [`depthwise_convolution`](fn@depthwise_convolution), [`depthwise_deconvolution`](fn@depthwise_deconvolution), [`svd_convolution`](fn@svd_convolution) | N-D | three spatial axes work; NNabla supports one and two |
//! | convolutions, pooling and interpolation with `channel_last` | – | work; NNabla refuses them on the CPU |
//! | [`functions::global_average_pooling`] | four axes | three or more; with a fifth, NNabla averages the wrong elements |
//! | [`functions::norm`], [`functions::norm_normalization`] | `eps` is added below the root | `eps` is the smallest divisor, so vectors of zeros stay zeros and have the gradient 0; NNabla ignores `eps` and gives NaN |
//! | [`functions::one_hot`], [`functions::gather`], [`functions::top_n_error`] | – | an index out of range is an error, and a target below 0 does not count as a wrong prediction; NNabla reads memory outside the array |
//! | [`functions::scatter_nd`] | – | a value that another one overwrites gets no gradient; in NNabla it gets the gradient of that other value |
//! | [`functions::slice`] | – | a negative step ends at the first element; NNabla continues with zeros |
//! | [`functions::sort`] | – | each element gets its own gradient; NNabla gives it to another one |
//! | negative axes | – | `base_axis`, `axes`, `batch_axis`, `channel_axis` and `dim` count from the back everywhere. NNabla needs `pad`, `stride` and `dilation` together with a negative `base_axis`, refuses it in [`svd_convolution`](fn@svd_convolution), [`cpd3_convolution`](fn@cpd3_convolution) and [`fused_batch_normalization`](fn@fused_batch_normalization), and crashes in [`weight_normalization`](fn@weight_normalization) |
//! | [`layer_normalization`](fn@layer_normalization), [`group_normalization`](fn@group_normalization), [`instance_normalization`](fn@instance_normalization) | – | `output_stat` gives the mean and the biased *variance*, where NNabla's documentation says standard deviation |
//! | [`fused_batch_normalization`](fn@fused_batch_normalization) | – | no `nonlinearity`: NNabla has none but ReLU |
//! | [`sync_batch_normalization`](fn@sync_batch_normalization) | – | no argument `comm`: the group is that of [`DataParallel::step_together`](training::DataParallel::step_together) or [`Communicator::enter`](communicator::Communicator::enter) |
//! | [`rms_normalization`](fn@rms_normalization) | – | not in NNabla |
//! | `apply_w`, `apply_b` | – | depthwise layers have them, too; `fix_parameters` of a layer also applies to the layers that these functions call, but not in NNabla |
//! | [`spectral_norm`](fn@spectral_norm) | – | has a gradient in test mode, where NNabla's is wrong, and does not change a weight of zeros, which becomes NaN in NNabla |
//! | [`min_max_quantize`](fn@min_max_quantize) | – | an input without finite elements has no range, which is an error |

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
