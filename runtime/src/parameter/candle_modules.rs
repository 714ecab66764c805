//! Modules of candle-nn and candle-transformers with their parameters in a store.

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::create::get_parameter_or_create;
use super::store::ParameterStore;
use crate::context::change;
use crate::{Error, Initializer};

impl ParameterStore {
    /// A builder for modules of candle-nn and candle-transformers: they keep their parameters in this store, where solvers, files
    /// and summaries find them. The module's name `encoder.layer.weight` is the path `encoder/layer/weight` here.
    ///
    /// A missing parameter gets candle's kind of initial value, drawn like those of this library: from the seed
    /// of the store and the path. A sealed store creates none.
    ///
    /// ```
    /// use candle_core::{DType, Device, Module, Tensor};
    /// use layerfn::{ParameterStore, backward, solver::{Sgd, Solver}};
    ///
    /// let store = ParameterStore::new();
    /// let vb = store.var_builder(DType::F32, &Device::Cpu);
    /// let linear = candle_nn::linear(3, 2, vb.pp("head"))?;
    /// assert_eq!(store.parameters().paths().collect::<Vec<_>>(), ["head/weight", "head/bias"]);
    ///
    /// let mut solver = Sgd::new(0.1);
    /// solver.set_parameters(&store.parameters());
    /// let loss = linear.forward(&Tensor::ones((4, 3), DType::F32, &Device::Cpu)?)?.sqr()?.mean_all()?;
    /// solver.update(&backward(loss)?)?;
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    #[must_use]
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(Backend(self.clone())), dtype, device.clone())
    }
}

struct Backend(ParameterStore);

impl Backend {
    fn path(name: &str) -> String {
        name.replace('.', "/")
    }
}

impl SimpleBackend for Backend {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let path = Self::path(name);
        if self.0.get(&path).is_none() {
            let (initializer, mean) = initializer(init, &shape);
            self.0.enter(|| {
                let _flags = change(|flags| (flags.dtype, flags.device) = (dtype, device.clone()));
                get_parameter_or_create(&*path).shape(shape.dims()).initializer(initializer).call()
            })?;
            if let Some(parameter) = self.0.get(&path).filter(|_| mean != 0.0) {
                parameter.var().set(&(parameter.var().as_detached_tensor() + mean)?)?;
            }
        }
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            let reason = format!("of parameter `{path}` must be the module's");
            return Err(Error::invalid("shape", reason, (tensor.dims(), shape.dims())).into());
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let path = Self::path(name);
        let Some(parameter) = self.0.get(&path) else {
            return Err(Error::NoParameter { path, nearest: None }.into());
        };
        let tracked = parameter.need_grad() && !parameter.is_frozen();
        let tensor =
            if tracked { parameter.var().as_tensor().clone() } else { parameter.var().as_detached_tensor() };
        tensor.to_device(device)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.get(&Self::path(name)).is_some()
    }
}

/// The initializer that corresponds to candle's, and an offset of the values.
fn initializer(init: Init, shape: &Shape) -> (Initializer, f64) {
    let initializer = match init {
        Init::Const(value) => Initializer::constant(value),
        Init::Randn { mean, stdev } => return (Initializer::normal(stdev), mean),
        Init::Uniform { lo, up } => Initializer::uniform(lo, up),
        Init::Kaiming { dist, fan, non_linearity } => {
            let deviation = non_linearity.gain() / (fan.for_shape(shape).max(1) as f64).sqrt();
            match dist {
                NormalOrUniform::Normal => Initializer::normal(deviation),
                NormalOrUniform::Uniform => {
                    let limit = 3f64.sqrt() * deviation;
                    Initializer::uniform(-limit, limit)
                }
            }
        }
    };
    (initializer, 0.0)
}
