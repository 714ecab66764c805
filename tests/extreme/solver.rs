//! Solvers, with settings, gradients and states of any kind.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use layerfn::solver::*;
use layerfn::{Parameter, Parameters, Result};
use layerfn_tests::support::layers::Failure;

use crate::draw::Draw;
use crate::{Call, Outcome};

pub(crate) const CALLS: &[(&str, Call)] = &[
    ("Sgd", |draw| {
        let lr = draw.rate();
        run(draw, Sgd::new(lr))
    }),
    ("SgdW", |draw| {
        let (lr, momentum, decay) = (draw.rate(), draw.rate(), draw.rate());
        let solver = SgdW::new(lr, momentum);
        let by_rate = draw.once_in(2);
        run(draw, if by_rate { solver.decay_like_pytorch(decay) } else { solver.decay_like_nnabla(decay) })
    }),
    ("Momentum", |draw| {
        let (lr, momentum) = (draw.rate(), draw.rate());
        let solver = Momentum::new(lr, momentum);
        let like_pytorch = draw.once_in(2);
        run(draw, if like_pytorch { solver.momentum_like_pytorch() } else { solver })
    }),
    ("Nesterov", |draw| {
        let (lr, momentum) = (draw.rate(), draw.rate());
        let solver = Nesterov::new(lr, momentum);
        let like_pytorch = draw.once_in(2);
        run(draw, if like_pytorch { solver.momentum_like_pytorch() } else { solver })
    }),
    ("Lars", |draw| {
        let (lr, momentum, coefficient, eps) = (draw.rate(), draw.rate(), draw.rate(), draw.rate());
        run(draw, Lars::new(lr, momentum).coefficient(coefficient).eps(eps))
    }),
    ("Lion", |draw| {
        let (lr, beta1, beta2) = (draw.rate(), draw.rate(), draw.rate());
        run(draw, Lion::new(lr).betas(beta1, beta2))
    }),
    ("Adagrad", |draw| {
        let (lr, eps) = (draw.rate(), draw.rate());
        run(draw, Adagrad::new(lr).eps(eps))
    }),
    ("Adadelta", |draw| {
        let (lr, decay, eps) = (draw.rate(), draw.rate(), draw.rate());
        run(draw, Adadelta::new(lr).decay(decay).eps(eps))
    }),
    ("RMSprop", |draw| {
        let (lr, decay, eps) = (draw.rate(), draw.rate(), draw.rate());
        run(draw, RMSprop::new(lr).decay(decay).eps(eps))
    }),
    ("RMSpropGraves", |draw| {
        let (lr, decay, momentum, eps) = (draw.rate(), draw.rate(), draw.rate(), draw.rate());
        let solver = RMSpropGraves::new(lr).decay(decay).momentum(momentum).eps(eps);
        let like_pytorch = draw.once_in(2);
        run(draw, if like_pytorch { solver.like_pytorch() } else { solver })
    }),
    ("Adam", |draw| {
        let (alpha, beta1, beta2, eps) = (draw.rate(), draw.rate(), draw.rate(), draw.rate());
        let solver = Adam::new(alpha).betas(beta1, beta2).eps(eps);
        let like_pytorch = draw.once_in(2);
        run(draw, if like_pytorch { solver.eps_like_pytorch() } else { solver })
    }),
    ("AdamW", |draw| {
        let (alpha, beta1, beta2, decay) = (draw.rate(), draw.rate(), draw.rate(), draw.rate());
        let later = draw.rate();
        let solver = AdamW::new(alpha).betas(beta1, beta2);
        let by_rate = draw.once_in(2);
        let mut solver =
            if by_rate { solver.decay_like_pytorch(decay) } else { solver.decay_like_nnabla(decay) };
        solver.set_learning_rate(later);
        run(draw, solver)
    }),
    ("Adamax", |draw| {
        let (alpha, beta1, beta2, eps) = (draw.rate(), draw.rate(), draw.rate(), draw.rate());
        run(draw, Adamax::new(alpha).betas(beta1, beta2).eps(eps))
    }),
    ("AMSGRAD", |draw| {
        let (alpha, beta1, beta2, eps) = (draw.rate(), draw.rate(), draw.rate(), draw.rate());
        let corrected = draw.once_in(2);
        run(draw, AMSGRAD::new(alpha).betas(beta1, beta2).eps(eps).bias_correction(corrected))
    }),
    ("AdaBound", |draw| {
        let (alpha, beta1, beta2) = (draw.rate(), draw.rate(), draw.rate());
        let (last, gamma) = (draw.rate(), draw.rate());
        run(draw, AdaBound::new(alpha).betas(beta1, beta2).final_lr(last).gamma(gamma))
    }),
    ("AMSBound", |draw| {
        let (alpha, beta1, beta2) = (draw.rate(), draw.rate(), draw.rate());
        let (last, gamma) = (draw.rate(), draw.rate());
        run(draw, AMSBound::new(alpha).betas(beta1, beta2).final_lr(last).gamma(gamma))
    }),
    ("AdaBelief", |draw| {
        let (alpha, beta1, beta2, eps) = (draw.rate(), draw.rate(), draw.rate(), draw.rate());
        let solver = AdaBelief::new(alpha).betas(beta1, beta2).eps(eps).decoupled_decay(draw.rate());
        let rectified = draw.once_in(2);
        run(draw, if rectified { solver.rectify() } else { solver })
    }),
    ("AdaBelief amsgrad", |draw| {
        let (alpha, beta1, beta2, decay) = (draw.rate(), draw.rate(), draw.rate(), draw.rate());
        run(draw, AdaBelief::new(alpha).amsgrad().betas(beta1, beta2).fixed_decay(decay))
    }),
    ("Muon", |draw| {
        let (lr, momentum) = (draw.rate(), draw.rate());
        run(draw, Muon::new(lr).momentum(momentum))
    }),
    ("Lamb", |draw| {
        let (eta, beta1, beta2) = (draw.rate(), draw.rate(), draw.rate());
        let (least, most) = (draw.rate(), draw.rate());
        run(draw, Lamb::new(eta).betas(beta1, beta2).gammas(least, most))
    }),
];

fn schedule(draw: &mut Draw) -> Schedule {
    let (n, gamma) = (draw.below(5) as u64, draw.rate());
    let schedule = match draw.below(6) {
        0 => schedule::polynomial(n, gamma),
        1 => schedule::cosine(n),
        2 => schedule::exponential(gamma, n),
        3 => schedule::steps(gamma, &[n, 1]),
        4 => schedule::linear(n, gamma),
        _ => schedule::one_cycle(n),
    };
    if draw.once_in(2) { schedule.warmup(n) } else { schedule.then(n, schedule::warmup(n)) }
}

fn changes(draw: &mut Draw) -> Vec<Change> {
    let mut change = |kind: usize| match kind {
        0 => Change::WeightDecay(draw.rate()),
        1 => Change::ClipByValue(draw.number()),
        2 => Change::ClipByNorm(draw.number()),
        3 => Change::ClipByGlobalNorm(draw.number()),
        _ => Change::Scale(draw.number()),
    };
    let first = [change(0), change(3)];
    let mut changes = first.to_vec();
    changes.extend([change(1), change(2), change(4)]);
    while draw.once_in(2) {
        changes.swap_remove(draw.below(changes.len()));
        if changes.is_empty() {
            break;
        }
    }
    changes
}

fn run<R: Rule<N>, const N: usize>(draw: &mut Draw, mut solver: RuleSolver<R, N>) -> Outcome {
    if draw.once_in(3) {
        solver = solver.schedule(schedule(draw));
    }
    for _ in 0..draw.below(2) {
        let (pattern, number) = (draw.text(), draw.rate());
        // Long patterns are matched elsewhere.
        let pattern = pattern.get(..20).unwrap_or(&pattern);
        let pattern = if draw.once_in(2) { "**" } else { pattern };
        solver = match draw.below(3) {
            0 => solver.learning_rate_factor(pattern, number),
            1 => solver.decay_rate(pattern, number),
            _ => solver.frozen(pattern),
        };
    }
    let changes = changes(draw);
    let parameters = parameters(draw)?;
    let gradients = gradients(draw, &parameters)?;
    let foreign = Parameters::from_iter([(draw.text(), Parameter::new(var(draw)?, false))]);
    draw.go();
    solver.set_parameters(&parameters);
    let before = values(&parameters)?;
    if let Err(error) = solver.update_with(&gradients, &changes) {
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
    solver.changed_gradients(&gradients, &changes)?;
    solver.update_with(&gradients, &changes)?;
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

pub(crate) fn parameters(draw: &mut Draw) -> Result<Parameters> {
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

pub(crate) fn gradients(draw: &mut Draw, parameters: &Parameters) -> Result<GradStore> {
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
