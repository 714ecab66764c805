//! What stands around the step, and trainings that are stopped and go on.

mod around;
mod distributed;
mod killed;
mod naive;
mod state;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use layerfn::{Parameter, Parameters, Result};

fn var(values: &[f64], dtype: DType) -> Result<Var> {
    Ok(Var::from_tensor(&Tensor::new(values, &Device::Cpu)?.to_dtype(dtype)?)?)
}

fn parameters(all: &[(&str, &Var)]) -> Parameters {
    all.iter().map(|(path, var)| ((*path).to_owned(), Parameter::new((*var).clone(), true))).collect()
}

fn gradients(all: &[(&Var, Vec<f64>)]) -> Result<GradStore> {
    let mut store = Tensor::zeros((), DType::F32, &Device::Cpu)?.backward()?;
    for (var, gradient) in all {
        let gradient = Tensor::new(gradient.as_slice(), &Device::Cpu)?.to_dtype(var.dtype())?;
        store.insert(var, gradient.reshape(var.dims())?);
    }
    Ok(store)
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}
