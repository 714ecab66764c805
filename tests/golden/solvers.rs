//! Trajectories of solvers: parameters, gradients as they are used, states, files of states.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use layerfn::solver::{
    AMSBound, AMSGRAD, AdaBelief, AdaBound, Adadelta, Adagrad, Adam, AdamW, Adamax, Change, Lamb, Lars, Lion,
    Momentum, Nesterov, RMSprop, RMSpropGraves, Sgd, SgdW, Solver,
};
use layerfn::{Parameter, Parameters};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::run::Outcome;
use crate::support::compare::{Tolerance, difference};
use crate::support::fixtures::Tensors;

#[derive(Deserialize)]
struct Case {
    file: String,
    solver: String,
    args: Map<String, Value>,
    weight_decay_is_fused: bool,
    parameters: Vec<Named>,
    steps: Vec<Step>,
    states: BTreeMap<String, States>,
    learning_rate: f64,
    #[serde(default)]
    saved: Vec<String>,
    tolerance: Tolerances,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    shape: Vec<usize>,
}

#[derive(Deserialize)]
struct Step {
    before: Vec<Call>,
    skipped: Vec<String>,
}

#[derive(Deserialize)]
struct Call {
    call: String,
    value: f64,
}

#[derive(Deserialize)]
struct States {
    t: u64,
    names: Vec<String>,
}

#[derive(Deserialize)]
struct Tolerances {
    rtol: f64,
    atol: BTreeMap<String, f64>,
}

type Made = Result<Box<dyn Solver>, String>;
type Failures<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Runs a trajectory.
pub(crate) fn run(dir: &Path, case: Value, device: &Device) -> Outcome {
    let case: Case = match serde_json::from_value(case) {
        Ok(case) => case,
        Err(error) => return Outcome::Failed(vec![format!("the manifest's entry: {error}")]),
    };
    let Some(solver) = made(&case.solver, &case.args) else {
        return Outcome::Skipped(format!("there is no solver `{}`", case.solver));
    };
    let mut failures = Vec::new();
    let result = solver.map_err(Into::into).and_then(|solver| {
        let tensors = Tensors::load(&dir.join(&case.file))?.to_device(device)?;
        Run { case: &case, tensors: &tensors, failures: &mut failures }.all(dir, solver)
    });
    if let Err(error) = result {
        failures.push(error.to_string());
    }
    if failures.is_empty() { Outcome::Passed } else { Outcome::Failed(failures) }
}

struct Run<'a> {
    case: &'a Case,
    tensors: &'a Tensors,
    failures: &'a mut Vec<String>,
}

impl Run<'_> {
    fn all(mut self, dir: &Path, mut solver: Box<dyn Solver>) -> Failures {
        let parameters = self.parameters()?;
        solver.set_parameters(&parameters);
        self.fused(&*solver, &parameters)?;
        for k in 0..self.case.steps.len() {
            self.step(k, &mut *solver, &parameters)?;
        }
        let got = solver.learning_rate();
        if (got - self.case.learning_rate).abs() > 1e-6 * self.case.learning_rate {
            self.failures.push(format!("the learning rate is {got}, expected {}", self.case.learning_rate));
        }
        self.states("after the last step", &solver.get_states()?, false)?;
        for file in &self.case.saved {
            self.file(&dir.join(file), &parameters)?;
        }
        Ok(())
    }

    fn parameters(&self) -> Failures<Parameters> {
        let parameter = |named: &Named| -> Failures<(String, Parameter)> {
            let value = self.tensors.float(&format!("param.{}", named.name))?;
            if value.dims() != named.shape {
                return Err(format!("`{}` has shape {:?}", named.name, value.dims()).into());
            }
            Ok((named.name.clone(), Parameter::new(Var::from_tensor(&value.copy()?)?, true)))
        };
        self.case.parameters.iter().map(parameter).collect()
    }

    fn gradients(&self, k: usize, parameters: &Parameters) -> Failures<GradStore> {
        let mut gradients = Tensor::zeros((), DType::F32, &Device::Cpu)?.backward()?;
        let skipped = &self.case.steps[k].skipped;
        for (name, parameter) in
            parameters.iter().filter(|(name, _)| !skipped.iter().any(|skip| skip == name))
        {
            gradients.insert(parameter.var(), self.row(&format!("grad.{name}"), k)?);
        }
        Ok(gradients)
    }

    fn row(&self, name: &str, k: usize) -> Failures<Tensor> {
        Ok(self.tensors.float(name)?.get(k)?)
    }

    /// Whether weight decay leaves the gradients alone.
    fn fused(&mut self, solver: &dyn Solver, parameters: &Parameters) -> Failures {
        let gradients = self.gradients(0, parameters)?;
        let changed = solver.changed_gradients(&gradients, &[Change::WeightDecay(0.5)])?;
        let fused = parameters.vars().iter().all(|var| match (changed.get(var), gradients.get(var)) {
            (Some(changed), Some(gradient)) => difference(changed, gradient, None).is_none(),
            _ => true,
        });
        if fused != self.case.weight_decay_is_fused {
            self.failures
                .push(format!("weight decay {} the gradient", if fused { "keeps" } else { "changes" }));
        }
        Ok(())
    }

    fn step(&mut self, k: usize, solver: &mut dyn Solver, parameters: &Parameters) -> Failures {
        let gradients = self.gradients(k, parameters)?;
        let (mut changes, mut decay) = (Vec::new(), 0.0);
        for Call { call, value } in &self.case.steps[k].before {
            match call.as_str() {
                "set_learning_rate" => solver.set_learning_rate(*value),
                "weight_decay" => {
                    decay = *value;
                    changes.push(Change::WeightDecay(*value));
                }
                "clip_grad_by_norm" => changes.push(Change::ClipByNorm(*value)),
                "clip_grad_by_value" => changes.push(Change::ClipByValue(*value)),
                "scale_grad" => changes.push(Change::Scale(*value)),
                _ => return Err(format!("nobody knows the call `{call}`").into()),
            }
        }
        let used = solver.changed_gradients(&gradients, &changes)?;
        for (name, parameter) in parameters.iter() {
            let (key, var) = (format!("used.{name}"), parameter.var());
            let Some(used) = used.get(var).filter(|_| self.tensors.find(&key).is_some()) else { continue };
            // NNabla's Lars leaves the gradient with the decay that is a part of its step.
            let used =
                if self.case.solver == "Lars" { (used + (var.as_tensor() * decay)?)? } else { used.clone() };
            let want = self.row(&key, k)?;
            self.compare(&key, &format!("in step {k}"), &used, &want);
        }
        solver.update_with(&gradients, &changes)?;
        for (name, parameter) in parameters.iter() {
            let key = format!("after.{name}");
            let want = self.row(&key, k)?;
            self.compare(&key, &format!("in step {k}"), parameter.var(), &want);
        }
        Ok(())
    }

    fn compare(&mut self, key: &str, when: &str, got: &Tensor, want: &Tensor) {
        let Some(&atol) = self.case.tolerance.atol.get(key) else {
            return self.failures.push(format!("there is no tolerance for `{key}`"));
        };
        let tolerance = Tolerance { rtol: self.case.tolerance.rtol, atol };
        if let Some(text) = difference(got, want, Some(tolerance)) {
            self.failures.push(format!("`{key}` {when} {text}"));
        }
    }

    /// Compares names, counters and values of states, to the bit if they come from NNabla.
    fn states(&mut self, when: &str, states: &Parameters, exact: bool) -> Failures {
        let mut want = Vec::new();
        for (name, States { t, names }) in &self.case.states {
            let counter = format!("{name}/t");
            match states.get(&counter).map(|t| t.var().to_scalar::<i64>()).transpose()? {
                Some(got) if got as u64 == *t => {}
                other => self.failures.push(format!("`{counter}` {when} is {other:?}, expected {t}")),
            }
            want.push(counter);
            for state in names {
                let (path, key) = (format!("{name}/{state}"), format!("state.{name}.{state}"));
                match states.get(&path) {
                    None => self.failures.push(format!("there is no state `{path}` {when}")),
                    Some(got) if exact => {
                        let different = difference(got.var(), &self.tensors.float(&key)?, None);
                        self.failures.extend(different.map(|text| format!("`{key}` {when} {text}")));
                    }
                    Some(got) => self.compare(&key, when, got.var(), &self.tensors.float(&key)?),
                }
                want.push(path);
            }
        }
        let unknown: Vec<_> = states.paths().filter(|path| !want.iter().any(|want| want == path)).collect();
        if !unknown.is_empty() {
            self.failures.push(format!("there are states {unknown:?} {when}"));
        }
        Ok(())
    }

    /// A file of NNabla's, read, written again and read.
    fn file(&mut self, file: &Path, parameters: &Parameters) -> Failures {
        let name = file.file_name().unwrap_or_default();
        let folder = tempfile::tempdir()?;
        for (when, path) in [("as read", file.to_owned()), ("as written", folder.path().join(name))] {
            let mut solver = made(&self.case.solver, &self.case.args).ok_or("the solver is gone")??;
            solver.set_parameters(parameters);
            solver.load_states(&path)?;
            self.states(&format!("{when} in {}", name.display()), &solver.get_states()?, true)?;
            solver.save_states(&folder.path().join(name))?;
        }
        Ok(())
    }
}

/// NNabla's solver of this name; none if it is unknown.
fn made(name: &str, args: &Map<String, Value>) -> Option<Made> {
    let mut arguments = Arguments { args: args.clone(), failure: None };
    let a = &mut arguments;
    let solver: Box<dyn Solver> = match name {
        "Sgd" => Box::new(Sgd::new(a.number("lr", 1e-3))),
        "SgdW" => {
            let (lr, momentum) = (a.number("lr", 1e-3), a.number("momentum", 0.9));
            let solver = SgdW::new(lr, momentum);
            Box::new(if a.has("wd") { solver.decay_like_nnabla(a.number("wd", 0.0)) } else { solver })
        }
        "Momentum" => Box::new(Momentum::new(a.number("lr", 1e-3), a.number("momentum", 0.9))),
        "Nesterov" => Box::new(Nesterov::new(a.number("lr", 1e-3), a.number("momentum", 0.9))),
        "Lars" => {
            let mut solver = Lars::new(a.number("lr", 1e-3), a.number("momentum", 0.9));
            solver =
                if a.has("coefficient") { solver.coefficient(a.number("coefficient", 0.0)) } else { solver };
            Box::new(if a.has("eps") { solver.eps(a.number("eps", 0.0)) } else { solver })
        }
        "Lion" => {
            let solver = Lion::new(a.number("lr", 1e-4));
            Box::new(solver.betas(a.number("beta1", 0.9), a.number("beta2", 0.99)))
        }
        "Adagrad" => {
            let solver = Adagrad::new(a.number("lr", 1e-2));
            Box::new(if a.has("eps") { solver.eps(a.number("eps", 0.0)) } else { solver })
        }
        "Adadelta" => {
            let mut solver = Adadelta::new(a.number("lr", 1.0));
            solver = if a.has("decay") { solver.decay(a.number("decay", 0.0)) } else { solver };
            Box::new(if a.has("eps") { solver.eps(a.number("eps", 0.0)) } else { solver })
        }
        "RMSprop" => {
            let mut solver = RMSprop::new(a.number("lr", 1e-3));
            solver = if a.has("decay") { solver.decay(a.number("decay", 0.0)) } else { solver };
            Box::new(if a.has("eps") { solver.eps(a.number("eps", 0.0)) } else { solver })
        }
        "RMSpropGraves" => {
            let mut solver = RMSpropGraves::new(a.number("lr", 1e-4));
            solver = if a.has("decay") { solver.decay(a.number("decay", 0.0)) } else { solver };
            solver = if a.has("momentum") { solver.momentum(a.number("momentum", 0.0)) } else { solver };
            Box::new(if a.has("eps") { solver.eps(a.number("eps", 0.0)) } else { solver })
        }
        _ => return adaptive(name, a).map(|solver| arguments.finish(name, solver)),
    };
    Some(arguments.finish(name, solver))
}

/// Those with two averages.
fn adaptive(name: &str, a: &mut Arguments) -> Option<Box<dyn Solver>> {
    macro_rules! adam {
        ($Solver:ident, $rate:literal, $default:literal $(, $flag:ident)*) => {{
            let mut solver = $Solver::new(a.number($rate, $default));
            solver = solver.betas(a.number("beta1", 0.9), a.number("beta2", 0.999));
            solver = if a.has("eps") { solver.eps(a.number("eps", 0.0)) } else { solver };
            $(if a.has(stringify!($flag)) { solver = solver.$flag(a.$flag()); })*
            solver
        }};
    }
    Some(match name {
        "Adam" => Box::new(adam!(Adam, "alpha", 1e-3)),
        "AdamW" => {
            let solver = adam!(AdamW, "alpha", 1e-3);
            Box::new(if a.has("wd") { solver.decay_like_nnabla(a.number("wd", 0.0)) } else { solver })
        }
        "Adamax" => Box::new(adam!(Adamax, "alpha", 2e-3)),
        "AMSGRAD" => Box::new(adam!(AMSGRAD, "alpha", 1e-3, bias_correction)),
        "AdaBound" => Box::new(adam!(AdaBound, "alpha", 1e-3, final_lr, gamma)),
        "AMSBound" => Box::new(adam!(AMSBound, "alpha", 1e-3, final_lr, gamma, bias_correction)),
        "Lamb" => {
            let solver = adam!(Lamb, "eta", 1e-3, bias_correction);
            Box::new(solver.gammas(a.number("gamma_l", 0.0), a.number("gamma_u", 10.0)))
        }
        "AdaBelief" => {
            let mut solver = adam!(AdaBelief, "alpha", 1e-3);
            solver = if a.flag("rectify") { solver.rectify() } else { solver };
            let (decay, fixed) = (a.number("wd", 0.0), a.flag("fixed_decay"));
            solver = match (a.flag("weight_decouple"), fixed) {
                (false, _) => solver,
                (true, false) => solver.decoupled_decay(decay),
                (true, true) => solver.fixed_decay(decay),
            };
            if a.flag("amsgrad") { Box::new(solver.amsgrad()) } else { Box::new(solver) }
        }
        _ => return None,
    })
}

/// Arguments of a solver, each of which must be asked for.
struct Arguments {
    args: Map<String, Value>,
    failure: Option<String>,
}

impl Arguments {
    fn has(&self, name: &str) -> bool {
        self.args.contains_key(name)
    }

    fn number(&mut self, name: &str, default: f64) -> f64 {
        let Some(value) = self.args.remove(name) else { return default };
        value.as_f64().unwrap_or_else(|| {
            self.failure = Some(format!("`{name}` is {value}, not a number"));
            default
        })
    }

    fn flag(&mut self, name: &str) -> bool {
        let Some(value) = self.args.remove(name) else { return false };
        value.as_bool().unwrap_or_else(|| {
            self.failure = Some(format!("`{name}` is {value}, neither true nor false"));
            false
        })
    }

    fn final_lr(&mut self) -> f64 {
        self.number("final_lr", 0.0)
    }

    fn gamma(&mut self) -> f64 {
        self.number("gamma", 0.0)
    }

    fn bias_correction(&mut self) -> bool {
        self.flag("bias_correction")
    }

    fn finish(self, name: &str, solver: Box<dyn Solver>) -> Made {
        match (self.failure, self.args.keys().next()) {
            (Some(failure), _) => Err(failure),
            (None, Some(argument)) => Err(format!("`{name}` has no argument `{argument}` here")),
            (None, None) => Ok(solver),
        }
    }
}
