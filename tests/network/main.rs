//! `network!`: what it computes, which paths it gives, and what it says when something is wrong.

#[path = "../../examples/support/architectures.rs"]
mod architectures;
mod composition;
mod doctor;
mod export;
mod frozen;
mod grammar;
mod import;
mod int8;
mod joined;
mod layers;
mod models;
mod paths;
mod recurrent;
mod reports;
mod values;

use candle_core::{DType, Device, Tensor};
use layerfn::{ParameterStore, Result, get_all_parameters};

/// Runs `f` in an empty store and returns the paths of the parameters it made.
fn paths_of(f: impl FnOnce() -> Result<()>) -> Result<Vec<String>> {
    ParameterStore::new().enter(|| {
        f()?;
        Ok(get_all_parameters().paths().map(str::to_owned).collect())
    })
}

/// The error of `f` in an empty store.
fn error_of<T>(f: impl FnOnce() -> Result<T>) -> String {
    match ParameterStore::new().enter(f) {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    }
}

fn input(n: usize) -> Result<Tensor> {
    Ok(Tensor::arange(0f32, 2.0 * n as f32, &Device::Cpu)?.reshape((2, n))?.to_dtype(DType::F32)?)
}

/// Numbers of both signs.
fn noise(dims: &[usize]) -> Result<Tensor> {
    let n = dims.iter().product::<usize>();
    let values = Tensor::arange(0f32, n as f32, &Device::Cpu)?;
    Ok((values * 0.7)?.sin()?.reshape(dims)?.to_dtype(DType::F32)?)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}
