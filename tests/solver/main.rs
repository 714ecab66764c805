//! Solvers: against their formulas in plain f64 loops, and what they share. `golden/` has what NNabla computes.

mod changes;
mod groups;
mod like_pytorch;
mod muon;
mod refused;
mod rules;
mod shared;
mod states;
mod tied;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use layerfn::solver::Solver;
use layerfn::{Parameter, ParameterStore, Parameters, Result};
use layerfn_tests::values;

/// Parameters of these paths and sizes, with repeatable values.
fn parameters(sizes: &[(&str, usize)], dtype: DType) -> Result<Parameters> {
    let store = ParameterStore::new();
    for (seed, &(path, n)) in sizes.iter().enumerate() {
        let var = Var::from_tensor(&values([n], seed as u64).to_dtype(dtype)?)?;
        store.set(path, Parameter::new(var, true))?;
    }
    Ok(store.parameters())
}

/// `gradients[i]` for the `i`-th parameter; none where it is `None`.
fn gradients(parameters: &Parameters, gradients: &[Option<Vec<f64>>]) -> Result<GradStore> {
    let mut store = Tensor::zeros((), DType::F32, &Device::Cpu)?.backward()?;
    for ((_, parameter), gradient) in parameters.iter().zip(gradients) {
        if let Some(gradient) = gradient {
            let var = parameter.var();
            let gradient = Tensor::new(gradient.as_slice(), &Device::Cpu)?.to_dtype(var.dtype())?;
            store.insert(var, gradient.reshape(var.dims())?);
        }
    }
    Ok(store)
}

/// The gradients of step `t`, another for each parameter.
fn step_gradients(parameters: &Parameters, t: u64) -> Result<Vec<Option<Vec<f64>>>> {
    let sizes = parameters.iter().map(|(_, parameter)| parameter.var().elem_count());
    sizes.zip(1..).map(|(n, i)| Ok(Some(values([n], 1000 * t + i).to_vec1()?))).collect()
}

/// The values of all parameters, in order.
fn flat(parameters: &Parameters) -> Result<Vec<Vec<f64>>> {
    parameters.iter().map(|(_, p)| Ok(p.var().flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)).collect()
}

/// The bits of all parameters, with their paths.
fn bits(parameters: &Parameters) -> Result<Vec<(String, Vec<u64>)>> {
    let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect();
    Ok(parameters.paths().map(str::to_owned).zip(flat(parameters)?.into_iter().map(bits)).collect())
}

/// `n` steps along the gradients of the steps after `from`.
fn run(solver: &mut dyn Solver, parameters: &Parameters, from: u64, n: u64) -> Result<()> {
    for t in from..from + n {
        solver.update(&gradients(parameters, &step_gradients(parameters, t)?)?)?;
    }
    Ok(())
}

#[track_caller]
fn assert_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance * (1.0 + want.abs()), "element {i}: {got}, not {want}");
    }
}
