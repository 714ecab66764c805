//! Models: networks that own their parameters.

use std::fmt;
use std::path::Path;

use candle_core::{DType, Device, Module, ModuleT, Tensor};

use crate::check;
use crate::checkpoint::{Checkpoint, Load, LoadReport, NeedGrad};
use crate::context::change;
use crate::export::{QuantizedLayers, Range, Source};
use crate::mode::with_mode;
use crate::network::examine::examine;
use crate::{
    BoxedForward, Diagnosis, Dims, Error, Network, ParameterStore, Parameters, Result, Summary, Value,
};

/// A [`Network`] that owns its parameters, made by [`Network::init`].
///
/// It gives the same outputs in any thread, whatever store that thread has entered. Two models never share
/// parameters, even if they are made from the same network; a clone of a model is another handle to the same
/// parameters, and [`deep_copy`](Self::deep_copy) makes a model with its own. Its store is
/// [sealed](ParameterStore::seal): layers use the parameters that [`init`](Network::init) has made, and make no
/// others.
///
/// ```
/// use layerfn::{Model, prelude::*, solver::Sgd};
///
/// struct Server {
///     model: Model,
/// }
///
/// let net = network! { features: { affine(16) -> bn -> relu } -> head: affine(2) }.boxed();
/// let x = Tensor::ones((4, 8), DType::F32, &Device::Cpu)?;
/// let model = net.init(&x)?;
///
/// model.freeze("features/**")?;
/// let mut solver = Sgd::new(0.1);
/// solver.set_parameters(&model.parameters());
/// solver.update(&backward(&model.forward(&x)?.sqr()?.sum_all()?)?)?;
///
/// let server = Server { model };
/// let y = std::thread::spawn(move || server.model.forward_t(&x, false)).join().unwrap()?;
/// assert_eq!(y.dims(), [4, 2]);
/// # Ok::<(), layerfn::Error>(())
/// ```
///
/// [`forward`](Self::forward) runs in the current mode, which by default is training mode. To serve a model,
/// call [`forward_t`](Self::forward_t), or enter [`test_mode`](crate::test_mode) on the thread.
pub struct Model<F: ?Sized = BoxedForward, const INPUTS: usize = 1> {
    network: Network<F, INPUTS>,
    store: ParameterStore,
    inputs: Vec<Example>,
}

impl<F: ?Sized, const INPUTS: usize> Clone for Model<F, INPUTS> {
    fn clone(&self) -> Self {
        self.with_store(self.store.clone())
    }
}

impl<F: ?Sized, const INPUTS: usize> fmt::Debug for Model<F, INPUTS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("network", &self.network).field("parameters", &self.store).finish()
    }
}

/// An input to make a model with: a tensor, or a shape, which stands for zeros of type `f32`.
#[derive(Clone, Debug)]
pub struct Example {
    dims: Vec<usize>,
    dtype: DType,
    pub(crate) device: Device,
    /// Only present while the model is made.
    pub(crate) tensor: Option<Tensor>,
}

impl Example {
    /// Its shape.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    pub(crate) fn tensor(&self) -> Result<Tensor> {
        match &self.tensor {
            Some(tensor) => Ok(tensor.clone()),
            None => check::zeros("input", &self.dims, self.dtype, &self.device),
        }
    }

    /// Other numbers, with the first axis extended by `more`.
    pub(crate) fn other(&self, more: usize) -> Result<Tensor> {
        let tensor = match &self.tensor {
            Some(tensor) => tensor.clone(),
            None => {
                let n = check::count("input", &self.dims)?;
                let number = |i: usize| (i.wrapping_mul(48_271) % 1021) as f32 / 1021.0;
                let numbers = Tensor::from_iter((0..n).map(number), &Device::Cpu)?;
                numbers.reshape(&*self.dims)?.to_dtype(self.dtype)?.to_device(&self.device)?
            }
        };
        match self.dims.first() {
            Some(&size) if size > 0 && more > 0 => {
                Ok(Tensor::cat(&[&tensor, &tensor.narrow(0, 0, more)?], 0)?)
            }
            _ => Ok(tensor),
        }
    }

    fn without_values(self) -> Self {
        Self { tensor: None, ..self }
    }

    /// An example of this shape and type; integers are kept, since they may be indices.
    pub(crate) fn like(tensor: &Tensor) -> Self {
        let example = Self::from(tensor);
        if tensor.dtype().is_float() { example.without_values() } else { example }
    }
}

impl From<&Tensor> for Example {
    fn from(tensor: &Tensor) -> Self {
        Self {
            dims: tensor.dims().to_vec(),
            dtype: tensor.dtype(),
            device: tensor.device().clone(),
            tensor: Some(tensor.clone()),
        }
    }
}

impl<D: Into<Dims>> From<D> for Example {
    fn from(dims: D) -> Self {
        Self { dims: dims.into().to_vec(), dtype: DType::F32, device: Device::Cpu, tensor: None }
    }
}

impl<F: ?Sized, const INPUTS: usize> Model<F, INPUTS> {
    fn with_store(&self, store: ParameterStore) -> Self {
        Self { network: self.network.clone(), store, inputs: self.inputs.clone() }
    }

    /// A model of a network whose parameters are all in `store`.
    pub(crate) fn of_network(
        network: Network<F, INPUTS>,
        store: ParameterStore,
        inputs: Vec<Example>,
    ) -> Self {
        Self { network, store: store.of_model(), inputs }
    }

    fn examples(&self) -> Result<Vec<Tensor>> {
        self.inputs.iter().map(Example::tensor).collect()
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network<F, INPUTS> {
        &self.network
    }

    /// The shapes of the inputs that the model was made with.
    #[must_use]
    pub fn inputs(&self) -> &[Example] {
        &self.inputs
    }

    /// The store of its parameters.
    #[must_use]
    pub fn store(&self) -> &ParameterStore {
        &self.store
    }

    /// The parameters that are trained, in the order of [`get_parameters`](crate::get_parameters). Pass them to
    /// a solver.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.store.enter(crate::get_parameters)
    }

    /// Loads a file that has exactly the parameters of the model, with the same shapes and types: either all or
    /// nothing. Which parameters are trained does not change. For other rules, use [`Load`] with the
    /// [`store`](Self::store).
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) with every difference, and those of [`Checkpoint::open`]; the model is
    /// unchanged then.
    #[track_caller]
    pub fn load(&self, path: impl AsRef<Path>) -> Result<LoadReport> {
        Load::new(Checkpoint::open(path)?).need_grad(NeedGrad::Keep).apply_to(&self.store, "")
    }

    /// Saves all parameters; the extension of `path` selects the format.
    ///
    /// # Errors
    /// As [`Checkpoint::save`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.store.save_parameters(path)
    }

    /// Freezes the parameters whose path matches `pattern`; see [`ParameterStore::freeze`].
    ///
    /// # Errors
    /// [`Error::NoParameter`](crate::Error::NoParameter) if the pattern matches none.
    pub fn freeze(&self, pattern: &str) -> Result<()> {
        self.store.freeze(pattern)
    }

    /// Makes them trainable again; see [`ParameterStore::unfreeze`].
    ///
    /// # Errors
    /// [`Error::NoParameter`](crate::Error::NoParameter) if the pattern matches none.
    pub fn unfreeze(&self, pattern: &str) -> Result<()> {
        self.store.unfreeze(pattern)
    }

    /// A model with copies of the parameters; see [`ParameterStore::deep_copy`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is not enough memory.
    pub fn deep_copy(&self) -> Result<Self> {
        Ok(self.with_store(self.store.deep_copy()?))
    }

    /// A model with copies of the parameters on `device`; see [`ParameterStore::to_device`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a parameter cannot be copied there.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mut model = self.with_store(self.store.to_device(device)?);
        model.inputs.iter_mut().for_each(|input| input.device = device.clone());
        Ok(model)
    }
}

/// The methods that depend on the number of inputs.
macro_rules! model_of {
    ($inputs:literal, $(($x:ident, $tensor:ty)),+) => {
        #[allow(clippy::too_many_arguments)]
        impl<F, O> Network<F, $inputs>
        where
            F: ?Sized + Fn($(&$tensor),+) -> Result<O>,
        {
            /// Makes a model of this network, given tensors, or shapes of zeros, as inputs.
            ///
            /// The model gets the parameters that the layers use in training or in testing. Their initial
            /// values follow from the seed of the current store: `ParameterStore::with_seed(7).enter(||
            /// net.init(&x))`. No running statistics, counters or generators change.
            ///
            /// # Errors
            /// Those of [`forward`](Self::forward).
            pub fn init(&self, $($x: impl Into<Example>),+) -> Result<Model<F, $inputs>> {
                let inputs: [Example; $inputs] = [$($x.into()),+];
                let [$($x),+] = inputs.each_ref().map(Example::tensor);
                $(let $x = $x?;)+
                let inputs = inputs.into_iter().map(Example::without_values).collect();
                let store = ParameterStore::with_seed(ParameterStore::current().seed());
                store.enter(|| {
                    [true, false].into_iter().try_for_each(|training| {
                        let _flags = change(|flags| {
                            (flags.training, flags.detached, flags.fixed) = (training, true, true);
                        });
                        self.forward($(&$x),+).map(drop)
                    })
                })?;
                Ok(Model::of_network(self.clone(), store, inputs))
            }
        }

        #[allow(clippy::too_many_arguments)]
        impl<F, O> Model<F, $inputs>
        where
            F: ?Sized + Fn($(&$tensor),+) -> Result<O>,
        {
            /// Runs the network in the current mode; see [`test_mode`](crate::test_mode).
            ///
            /// # Errors
            /// As [`Network::forward`]; [`Error::Sealed`](crate::Error::Sealed) if a layer asks for a parameter
            /// that the model does not have.
            pub fn forward(&self, $($x: &Tensor),+) -> Result<O> {
                self.store.enter(|| self.network.forward($($x),+))
            }

            /// Runs the network in training mode or in test mode, whatever the current mode is.
            ///
            /// # Errors
            /// Those of [`forward`](Self::forward).
            pub fn forward_t(&self, $($x: &Tensor,)+ train: bool) -> Result<O> {
                with_mode(train, || self.forward($($x),+))
            }

            /// Looks for problems in one forward and backward pass in training mode: parameters without
            /// gradients, dead units, the origin of NaN or infinite numbers, gradients that explode or vanish,
            /// inputs that are not normalized, statistics of a single sample, frozen parts that change, labels
            /// out of range. `loss` computes a number from the output.
            ///
            /// It runs on a copy of the parameters, so the model does not change. To watch a training, use
            /// [`training::Doctor`](crate::training::Doctor).
            ///
            /// ```
            /// use layerfn::prelude::*;
            ///
            /// let net = network! { fc1: affine(8) -> tanh -> out: affine(3) };
            /// let x = (Tensor::arange(0f32, 24., &Device::Cpu)?.reshape((6, 4))? / 24.)?;
            /// let model = net.init(&x)?;
            /// let labels = Tensor::new(&[0u32, 1, 2, 3, 0, 1], &Device::Cpu)?; // of three classes
            /// let diagnosis = model.check(&x, |y| mean_softmax_cross_entropy(y, &labels, 1))?;
            /// assert!(diagnosis.to_string().contains("`loss` cannot be computed"));
            /// # Ok::<(), layerfn::Error>(())
            /// ```
            ///
            /// # Errors
            /// Those of [`forward`](Self::forward) and of the backward pass.
            pub fn check<L>(
                &self,
                $($x: &Tensor,)+
                loss: impl Fn(&O) -> Result<Tensor, L>,
            ) -> Result<Diagnosis>
            where
                O: Value,
                Error: From<L>,
            {
                let copy = self.store.deep_copy()?;
                copy.enter(|| examine(&copy, &[$($x),+], || (*self.network)($($x),+), loss))
            }

            /// Writes the network and its parameters to an `.nnp` (or `.nntxt`) file that NNabla and
            /// [`Nnp`](crate::nnp::Nnp) can run: the network `main` and the executor `runtime`, in test mode.
            /// [`export`](crate::export) says which networks can be exported.
            ///
            /// `inputs` are shapes, or tensors if the network takes something else than floating-point numbers.
            /// The first axis of the inputs is the batch, which may have any size afterwards, if NNabla's
            /// shapes can express that.
            ///
            /// # Errors
            /// [`Error::InLayer`] with the stage that cannot be exported, those of [`forward`](Self::forward),
            /// and those of writing the file.
            pub fn export_nnp(&self, path: impl AsRef<Path>, inputs: [impl Into<Example>; $inputs]) -> Result<()>
            where
                O: Value,
            {
                self.exported(inputs.into_iter().map(Into::into).collect(), |source| source.to_nnp(path.as_ref()))
            }

            /// Writes the network and its parameters to an ONNX file (opset 21), in test mode. Parameters have
            /// their paths as names in the file, quantized ones are integers; inputs, outputs and the batch are
            /// as for [`export_nnp`](Self::export_nnp). An ONNX file must be smaller than 2 GB; if the
            /// parameters would exceed that, they are written to `NAME.onnx.data` beside it.
            /// `NAME.onnx.data` beside it.
            ///
            /// # Errors
            /// As [`export_nnp`](Self::export_nnp).
            pub fn export_onnx(&self, path: impl AsRef<Path>, inputs: [impl Into<Example>; $inputs]) -> Result<()>
            where
                O: Value,
            {
                self.exported(inputs.into_iter().map(Into::into).collect(), |source| source.to_onnx(path.as_ref()))
            }

            /// Writes a network that was trained in floats to an ONNX file of 8-bit integers: `QuantizeLinear`
            /// and `DequantizeLinear` surround the operands of affine layers, convolutions and deconvolutions,
            /// so that a runtime with integer kernels computes them in integers, and any other one gets the
            /// same numbers.
            ///
            /// The network runs on `batches` in test mode, and `range` determines how the observed values
            /// become the range of each activation; a few hundred typical examples are enough. Weights become
            /// symmetric integers from -127 to 127, with a scale for each output map; activations become
            /// integers from 0 to 255 with one scale and zero point. Batch normalization directly after such a
            /// layer is folded into its weights. The outputs of the network stay floats.
            ///
            /// Returns which layers use integers and which stay floats.
            ///
            /// ```
            /// use layerfn::{export::Range, import::Onnx, prelude::*};
            ///
            /// let model = network! { hidden: affine(16) -> relu -> out: affine(4) }.init((1, 8))?;
            /// let batches = (0..4).map(|_| Tensor::randn(0f32, 1.0, (32, 8), &Device::Cpu)).collect::<Result<Vec<_>, _>>()?;
            /// let path = std::env::temp_dir().join("layerfn_int8.onnx");
            /// let layers = model.export_onnx_int8(&path, batches.iter().map(|x| [x.clone()]), Range::MinMax)?;
            /// assert_eq!(layers.to_string(), "integers: hidden/affine, out/affine");
            ///
            /// let (found, wanted) = (Onnx::open(&path)?.model()?.forward(&batches[..1])?, model.forward(&batches[0])?);
            /// let difference = (&found[0] - &wanted)?.abs()?.max_all()?.to_scalar::<f32>()?;
            /// assert!(difference < 0.1, "{difference}");
            /// # Ok::<(), layerfn::Error>(())
            /// ```
            ///
            /// # Errors
            /// As [`export_onnx`](Self::export_onnx). [`Error::InvalidArgument`] if there is no batch or an
            /// empty one, if a number is not finite, or if no layer of the network can use integers;
            /// [`Error::InLayer`] names the layer.
            pub fn export_onnx_int8(
                &self,
                path: impl AsRef<Path>,
                batches: impl IntoIterator<Item = [Tensor; $inputs]>,
                range: Range,
            ) -> Result<QuantizedLayers>
            where
                O: Value,
            {
                let batches = batches.into_iter().map(Vec::from);
                self.exported(Vec::new(), |source| source.to_int8(path.as_ref(), batches, range))
            }

            fn exported<R>(&self, inputs: Vec<Example>, to: impl FnOnce(&Source<'_>) -> Result<R>) -> Result<R>
            where
                O: Value,
            {
                let forward = |inputs: &[Tensor]| {
                    let [$($x),+] = inputs else {
                        return Err(Error::invalid("inputs", "must be as many as the network takes", inputs.len()));
                    };
                    Ok(tensors(&self.network.forward_t($($x,)+ false)?))
                };
                to(&Source { store: &self.store, inputs, forward: &forward })
            }

            /// Describes the model, from a run on zeros of the shapes that it was made with.
            ///
            /// # Errors
            /// Those of [`forward`](Self::forward).
            pub fn summary(&self) -> Result<Summary>
            where
                O: Value,
            {
                let inputs = self.examples()?;
                let [$($x),+] = &inputs[..] else {
                    return Err(Error::invalid("inputs", "must be as many as the network takes", inputs.len()));
                };
                self.store.enter(|| self.network.summary_of($($x),+))
            }
        }
    };
}

model_of!(1, (x, Tensor));
model_of!(2, (x1, Tensor), (x2, Tensor));
model_of!(3, (x1, Tensor), (x2, Tensor), (x3, Tensor));
model_of!(4, (x1, Tensor), (x2, Tensor), (x3, Tensor), (x4, Tensor));
model_of!(5, (x1, Tensor), (x2, Tensor), (x3, Tensor), (x4, Tensor), (x5, Tensor));
model_of!(6, (x1, Tensor), (x2, Tensor), (x3, Tensor), (x4, Tensor), (x5, Tensor), (x6, Tensor));
model_of!(
    7,
    (x1, Tensor),
    (x2, Tensor),
    (x3, Tensor),
    (x4, Tensor),
    (x5, Tensor),
    (x6, Tensor),
    (x7, Tensor)
);
model_of!(
    8,
    (x1, Tensor),
    (x2, Tensor),
    (x3, Tensor),
    (x4, Tensor),
    (x5, Tensor),
    (x6, Tensor),
    (x7, Tensor),
    (x8, Tensor)
);

impl<F, O> Model<F, 0>
where
    F: ?Sized + Fn(&[Tensor]) -> Result<O>,
{
    /// Runs the network in the current mode; see [`test_mode`](crate::test_mode).
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn forward(&self, xs: &[Tensor]) -> Result<O> {
        self.store.enter(|| self.network.forward(xs))
    }

    /// Runs the network in training mode or in test mode, whatever the current mode is.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward).
    pub fn forward_t(&self, xs: &[Tensor], train: bool) -> Result<O> {
        with_mode(train, || self.forward(xs))
    }

    /// Looks for problems in one forward and backward pass in training mode, on a copy of the parameters.
    /// `loss` computes a number from the output.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward) and of the backward pass.
    pub fn check<L>(&self, xs: &[Tensor], loss: impl Fn(&O) -> Result<Tensor, L>) -> Result<Diagnosis>
    where
        O: Value,
        Error: From<L>,
    {
        let copy = self.store.deep_copy()?;
        copy.enter(|| examine(&copy, &xs.iter().collect::<Vec<_>>(), || (*self.network)(xs), loss))
    }

    /// Writes the network to an `.nnp` file, as for a model of one input.
    ///
    /// # Errors
    /// Those of writing the file, and of functions that cannot be exported.
    pub fn export_nnp(
        &self,
        path: impl AsRef<Path>,
        inputs: impl IntoIterator<Item: Into<Example>>,
    ) -> Result<()>
    where
        O: Value,
    {
        self.exported(inputs.into_iter().map(Into::into).collect(), |source| source.to_nnp(path.as_ref()))
    }

    /// Writes the network to an ONNX file, as for a model of one input.
    ///
    /// # Errors
    /// Those of writing the file, and of functions that cannot be exported.
    pub fn export_onnx(
        &self,
        path: impl AsRef<Path>,
        inputs: impl IntoIterator<Item: Into<Example>>,
    ) -> Result<()>
    where
        O: Value,
    {
        self.exported(inputs.into_iter().map(Into::into).collect(), |source| source.to_onnx(path.as_ref()))
    }

    /// Writes the network to an ONNX file of integers, as for a model of one input.
    ///
    /// # Errors
    /// Those of writing the file, of functions that cannot be exported, and of batches that give no range.
    pub fn export_onnx_int8(
        &self,
        path: impl AsRef<Path>,
        batches: impl IntoIterator<Item = Vec<Tensor>>,
        range: Range,
    ) -> Result<QuantizedLayers>
    where
        O: Value,
    {
        self.exported(Vec::new(), |source| source.to_int8(path.as_ref(), batches, range))
    }

    fn exported<R>(&self, inputs: Vec<Example>, to: impl FnOnce(&Source<'_>) -> Result<R>) -> Result<R>
    where
        O: Value,
    {
        let forward = |inputs: &[Tensor]| Ok(tensors(&self.network.forward_t(inputs, false)?));
        to(&Source { store: &self.store, inputs, forward: &forward })
    }

    /// Describes the model, from a run on zeros of the shapes that it was made with.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward).
    pub fn summary(&self) -> Result<Summary>
    where
        O: Value,
    {
        let inputs = self.examples()?;
        self.store.enter(|| self.network.summary_of(&inputs))
    }
}

fn tensors(value: &impl Value) -> Vec<Tensor> {
    let mut tensors = Vec::new();
    value.each(&mut |tensor| tensors.push(tensor.clone()));
    tensors
}

impl<F> Module for Model<F>
where
    F: ?Sized + Fn(&Tensor) -> Result<Tensor>,
{
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(Self::forward(self, x)?)
    }
}

/// A model as a candle `ModuleT`; made by [`Model::module_t`].
#[derive(Debug)]
pub struct ModelT<F: ?Sized = BoxedForward>(Model<F>);

impl<F> Model<F>
where
    F: ?Sized + Fn(&Tensor) -> Result<Tensor>,
{
    /// Wraps the model as a candle [`ModuleT`] that respects the argument `train`, for code that is generic
    /// over `ModuleT`; it shares the parameters. candle makes every [`Module`] a `ModuleT` that ignores
    /// `train`.
    #[must_use]
    pub fn module_t(&self) -> ModelT<F> {
        ModelT(self.clone())
    }
}

impl<F> ModuleT for ModelT<F>
where
    F: ?Sized + Fn(&Tensor) -> Result<Tensor>,
{
    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        Ok(self.0.forward_t(x, train)?)
    }
}
