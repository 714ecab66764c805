//! Solvers, with settings, gradients and states of any kind.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use layerfn::solver::{Adam, AdamW, Momentum, Nesterov, RMSprop, Rule, Sgd, Solver};
use layerfn::{Parameter, Parameters, Result};
use layerfn_tests::support::layers::Failure;

use crate::draw::Draw;
use crate::{Call, Outcome};

pub(crate) const CALLS: &[(&str, Call)] = &[
    ("Sgd", |draw| {
        let lr = draw.rate();
        run(draw, Sgd::new(lr))
    }),
    ("Momentum", |draw| {
        let (lr, momentum) = (draw.rate(), draw.rate());
        run(draw, Momentum::new(lr, momentum))
    }),
    ("Nesterov", |draw| {
        let (lr, momentum) = (draw.rate(), draw.rate());
        run(draw, Nesterov::new(lr, momentum))
    }),
    ("Adam", |draw| {
        let (alpha, beta1, beta2, eps) = (draw.rate(), draw.rate(), draw.rate(), draw.rate());
        run(draw, Adam::new(alpha).betas(beta1, beta2).eps(eps))
    }),
    ("AdamW", |draw| {
        let (alpha, beta1, beta2, wd) = (draw.rate(), draw.rate(), draw.rate(), draw.rate());
        let later = draw.rate();
        let mut solver = AdamW::new(alpha).betas(beta1, beta2).wd(wd);
        solver.set_learning_rate(later);
        run(draw, solver)
    }),
    ("RMSprop", |draw| {
        let (lr, decay, eps) = (draw.rate(), draw.rate(), draw.rate());
        run(draw, RMSprop::new(lr).decay(decay).eps(eps))
    }),
];

fn run<R: Rule<N>, const N: usize>(draw: &mut Draw, mut solver: Solver<R, N>) -> Outcome {
    if draw.once_in(3) {
        solver = solver.weight_decay(draw.rate());
    }
    if draw.once_in(3) {
        solver = solver.clip_grad_by_value(draw.number());
    }
    if draw.once_in(3) {
        solver = solver.clip_grad_by_norm(draw.number());
    }
    if draw.once_in(3) {
        solver = solver.clip_grad_by_global_norm(draw.number());
    }
    if draw.once_in(3) {
        let (pattern, factor) = (draw.text(), draw.rate());
        // Long patterns are matched elsewhere.
        solver = solver.learning_rate_factor(pattern.get(..20).unwrap_or(&pattern), factor);
    }
    let parameters = parameters(draw)?;
    let gradients = gradients(draw, &parameters)?;
    let foreign = Parameters::from_iter([(draw.text(), Parameter::new(var(draw)?, false))]);
    draw.go();
    solver.set_parameters(&parameters);
    let before = values(&parameters)?;
    if let Err(error) = solver.update(&gradients) {
        return match before == values(&parameters)? && solver.get_states()?.is_empty() {
            true => Err(error.into()),
            false => Err(Failure::Description(format!("fault: {error}; but something has changed"))),
        };
    }
    let states = solver.get_states()?;
    if let Err(error) = solver.set_states(&states) {
        return Err(Failure::Description(format!("fault: its own states are refused: {error}")));
    }
    solver.set_states(&foreign).err();
    solver.update(&gradients)?;
    solver.set_parameters(&foreign);
    solver.update(&gradients).err();
    Ok(parameters.vars().iter().map(|var| var.as_detached_tensor()).collect())
}

fn var(draw: &mut Draw) -> Result<Var> {
    let tensor = draw.tensor();
    // A variable has memory for each element.
    let tensor =
        if tensor.elem_count() > 1 << 20 { Tensor::zeros(1, tensor.dtype(), &Device::Cpu)? } else { tensor };
    Ok(Var::from_tensor(&tensor.copy()?)?)
}

fn parameters(draw: &mut Draw) -> Result<Parameters> {
    let mut parameters = Vec::new();
    for _ in 0..draw.below(4) {
        let path = draw.text();
        let parameter = Parameter::new(var(draw)?, true);
        if draw.once_in(4) {
            parameters.push((draw.text(), parameter.clone()));
        }
        parameters.push((path, parameter));
    }
    Ok(parameters.into_iter().collect())
}

fn gradients(draw: &mut Draw, parameters: &Parameters) -> Result<GradStore> {
    let mut gradients = Tensor::zeros((), DType::F32, &Device::Cpu)?.backward()?;
    for var in parameters.vars() {
        if draw.once_in(6) {
            continue;
        }
        let gradient = draw.of_type(var.dims(), var.dtype());
        gradients.insert(&var, gradient);
    }
    Ok(gradients)
}

/// All bits of the variables.
fn values(parameters: &Parameters) -> Result<Vec<Vec<u8>>> {
    let bytes = |var: Var| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        var.as_detached_tensor().write_bytes(&mut bytes)?;
        Ok(bytes)
    };
    parameters.vars().into_iter().map(bytes).collect()
}
