//! Networks, as made by `network!`, and their stages.

pub(crate) mod audit;
pub(crate) mod diagnosis;
mod draw;
pub(crate) mod examine;
pub(crate) mod frame;
pub(crate) mod join;
mod many;
mod profile;
mod record;
mod recurrent;
mod stage;
mod summary;
mod text;
mod value;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Module, ModuleT, Tensor};

use self::record::{Recorder, Watch};
use crate::check;
use crate::context::change;
use crate::mode::with_mode;
use crate::{Dims, Error, ParameterStore, Result, backward, current_parameter_scope, parameter_scope};
pub use audit::{GradientAudit, GradientFault, GradientFinding};
pub use diagnosis::{Diagnosis, Finding, Symptom};
pub(crate) use draw::Drawn;
pub use many::BoxedMany;
pub use profile::{Profile, ProfileRow};
pub use recurrent::{CellOutput, recur, recur_from};
pub use stage::Stage;
pub use summary::{Summary, SummaryParameter, SummaryRow};
pub use value::{IntoValue, Value};

/// The type of a [`boxed`](Network::boxed) network.
pub type BoxedForward = dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync;

/// A model declared with [`network!`](crate::network): a function of tensors whose layers keep their parameters in
/// the current [`ParameterStore`](crate::ParameterStore).
///
/// `F` is the type of a closure, which cannot be named; [`boxed`](Self::boxed) makes a plain `Network` that can
/// be kept in a struct. `INPUTS` is the number of tensors that [`forward`](Self::forward) takes as arguments; 0
/// stands for a slice of any length.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::prelude::*;
///
/// struct Classifier {
///     net: Network,
/// }
///
/// let classifier = Classifier { net: network! { affine(16) -> relu -> affine(10) }.boxed() };
/// let x = Tensor::zeros((4, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(classifier.net.forward(&x)?.dims(), [4, 10]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub struct Network<F: ?Sized = BoxedForward, const INPUTS: usize = 1> {
    forward: Arc<F>,
}

impl<F: ?Sized, const INPUTS: usize> Clone for Network<F, INPUTS> {
    fn clone(&self) -> Self {
        Self { forward: Arc::clone(&self.forward) }
    }
}

impl<F: ?Sized, const INPUTS: usize> fmt::Debug for Network<F, INPUTS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match INPUTS {
            0 => write!(f, "Network(inputs in a slice)"),
            1 => write!(f, "Network(1 input)"),
            n => write!(f, "Network({n} inputs)"),
        }
    }
}

/// Allows `net(&x)`, and a network as a stage of a network.
impl<F: ?Sized, const INPUTS: usize> std::ops::Deref for Network<F, INPUTS> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.forward
    }
}

/// Describes a run of the network in a temporary store.
fn summarized<O: Value>(forward: impl FnOnce() -> Result<O>) -> Result<Summary> {
    let recorder = Recorder::new(Watch::Nothing);
    let (store, scope) = (ParameterStore::current(), current_parameter_scope());
    ParameterStore::with_seed(store.seed()).enter(|| {
        let _frame = frame::outermost_with(&recorder);
        let _flags = change(|flags| (flags.training, flags.detached) = (false, false));
        parameter_scope(scope, forward)
    })?;
    Ok(Summary::new(recorder.nodes_in(&store)))
}

/// Measures the time of each stage in a forward and a backward pass.
fn profiled<O, L>(
    forward: impl FnOnce() -> Result<O>,
    loss: impl Fn(&O) -> Result<Tensor, L>,
) -> Result<Profile>
where
    Error: From<L>,
{
    let recorder = Recorder::new(Watch::Time);
    let began = Instant::now();
    let output = {
        let _frame = frame::outermost_with(&recorder);
        with_mode(true, forward)?
    };
    let forward = began.elapsed();
    let loss = loss(&output)?;
    let began = Instant::now();
    backward(&loss)?;
    Ok(Profile::new(&recorder.nodes(), &recorder.passed(), forward, (began, Instant::now())))
}

/// Audits the gradients of a forward and a backward pass.
fn audited<O, L>(
    forward: impl FnOnce() -> Result<O>,
    loss: impl Fn(&O) -> Result<Tensor, L>,
) -> Result<GradientAudit>
where
    Error: From<L>,
{
    let recorder = Recorder::new(Watch::Gradients);
    let output = {
        let _frame = frame::outermost_with(&recorder);
        with_mode(true, forward)?
    };
    let gradients = backward(&loss(&output)?)?;
    GradientAudit::new(&recorder.nodes(), &recorder.passed(), &gradients)
}

/// The methods of a network with a fixed number of inputs.
macro_rules! network_of {
    ($inputs:literal, $constructor:ident, $(($x:ident, $tensor:ty)),+) => {
        // One argument for each input.
        #[allow(clippy::too_many_arguments)]
        impl<F, O> Network<F, $inputs>
        where
            F: ?Sized + Fn($(&$tensor),+) -> Result<O>,
        {
            /// Runs the network in the current mode; see [`test_mode`](crate::test_mode).
            ///
            /// # Errors
            /// Those of its stages, which say where they occurred, and
            /// [`Error::SharedByAccident`](crate::Error::SharedByAccident) if two layers have the same path.
            pub fn forward(&self, $($x: &Tensor),+) -> Result<O> {
                let _frame = frame::outermost();
                (self.forward)($($x),+)
            }

            /// Runs the network in training mode or in test mode, whatever the current mode is.
            ///
            /// # Errors
            /// Those of [`forward`](Self::forward).
            pub fn forward_t(&self, $($x: &Tensor,)+ train: bool) -> Result<O> {
                with_mode(train, || self.forward($($x),+))
            }

            /// Describes the network, from a run on zeros of these shapes.
            ///
            /// The run uses test mode and a temporary store, so it has no side effects; parameters that are not
            /// trained in the current store count as such. If the network needs inputs other than zeros of type
            /// `f32`, use [`summary_of`](Self::summary_of).
            ///
            /// # Errors
            /// Those of [`forward`](Self::forward).
            pub fn summary(&self, input_shapes: [impl Into<Dims>; $inputs]) -> Result<Summary>
            where
                O: Value,
            {
                let [$($x),+] = input_shapes;
                self.summary_of($(&check::zeros("input_shapes", &$x.into(), DType::F32, &Device::Cpu)?),+)
            }

            /// Describes the network, from a run on these inputs.
            ///
            /// # Errors
            /// Those of [`forward`](Self::forward).
            pub fn summary_of(&self, $($x: &Tensor),+) -> Result<Summary>
            where
                O: Value,
            {
                summarized(|| (self.forward)($($x),+))
            }

            /// Measures the time and memory of each stage in one forward and backward pass on these inputs, in
            /// training mode.
            ///
            /// `loss` computes a number from the output; its gradient is propagated back. A first run makes the
            /// parameters and warms up.
            ///
            /// # Errors
            /// Those of [`forward`](Self::forward), of the loss and of the backward pass.
            pub fn profile<L>(&self, $($x: &Tensor,)+ loss: impl Fn(&O) -> Result<Tensor, L>) -> Result<Profile>
            where
                O: Value,
                Error: From<L>,
            {
                with_mode(true, || self.forward($($x),+))?;
                profiled(|| (self.forward)($($x),+), loss)
            }

            /// Runs the network and a backward pass in training mode, and reports every trained parameter whose
            /// gradient is missing, zero or not finite, and the stage that lost it.
            ///
            /// # Errors
            /// Those of [`forward`](Self::forward), of the loss and of the backward pass.
            pub fn gradient_audit<L>(
                &self,
                $($x: &Tensor,)+
                loss: impl Fn(&O) -> Result<Tensor, L>,
            ) -> Result<GradientAudit>
            where
                O: Value,
                Error: From<L>,
            {
                audited(|| (self.forward)($($x),+), loss)
            }
        }

        impl<F, O> Network<F, $inputs>
        where
            F: Fn($(&$tensor),+) -> Result<O>,
        {
            /// Boxes the closure, so that the type can be named.
            ///
            /// The network has to own the values it uses: write `network! { move .. }`, and use values in place
            /// of references.
            #[must_use]
            pub fn boxed(self) -> Network<dyn Fn($(&$tensor),+) -> Result<O> + Send + Sync, $inputs>
            where
                F: Send + Sync + 'static,
            {
                Network { forward: self.forward }
            }
        }

        #[doc(hidden)]
        pub fn $constructor<F, O>(forward: F) -> Network<F, $inputs>
        where
            F: Fn($(&$tensor),+) -> Result<O>,
        {
            Network { forward: Arc::new(forward) }
        }
    };
}

network_of!(1, network1, (x, Tensor));
network_of!(2, network2, (x1, Tensor), (x2, Tensor));
network_of!(3, network3, (x1, Tensor), (x2, Tensor), (x3, Tensor));
network_of!(4, network4, (x1, Tensor), (x2, Tensor), (x3, Tensor), (x4, Tensor));
network_of!(5, network5, (x1, Tensor), (x2, Tensor), (x3, Tensor), (x4, Tensor), (x5, Tensor));
network_of!(6, network6, (x1, Tensor), (x2, Tensor), (x3, Tensor), (x4, Tensor), (x5, Tensor), (x6, Tensor));
network_of!(
    7,
    network7,
    (x1, Tensor),
    (x2, Tensor),
    (x3, Tensor),
    (x4, Tensor),
    (x5, Tensor),
    (x6, Tensor),
    (x7, Tensor)
);
network_of!(
    8,
    network8,
    (x1, Tensor),
    (x2, Tensor),
    (x3, Tensor),
    (x4, Tensor),
    (x5, Tensor),
    (x6, Tensor),
    (x7, Tensor),
    (x8, Tensor)
);

impl<F, O> Network<F>
where
    F: Fn(&Tensor) -> Result<O>,
{
    /// Makes a network of any function, such as a named one that `network!` has declared.
    #[must_use]
    pub fn new(forward: F) -> Self {
        Self { forward: Arc::new(forward) }
    }
}

impl<F> Module for Network<F>
where
    F: ?Sized + Fn(&Tensor) -> Result<Tensor>,
{
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(Self::forward(self, x)?)
    }
}

/// A network as a candle `ModuleT`; made by [`Network::module_t`].
#[derive(Clone, Debug)]
pub struct NetworkT<F: ?Sized = BoxedForward>(Network<F>);

impl<F> Network<F>
where
    F: ?Sized + Fn(&Tensor) -> Result<Tensor>,
{
    /// Wraps the network as a candle [`ModuleT`] that respects the argument `train`.
    ///
    /// A network is a candle [`Module`], and candle makes every `Module` a `ModuleT` that ignores `train`. Use
    /// this for code that is generic over `ModuleT`. The method [`forward_t`](Self::forward_t) always respects
    /// `train`.
    #[must_use]
    pub fn module_t(self) -> NetworkT<F> {
        NetworkT(self)
    }
}

impl<F> ModuleT for NetworkT<F>
where
    F: ?Sized + Fn(&Tensor) -> Result<Tensor>,
{
    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        Ok(self.0.forward_t(x, train)?)
    }
}
