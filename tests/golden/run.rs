//! One case: what is registered, then every pass with its outputs, gradients and state.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::compare::difference;
use crate::support::fixtures::Tensors;
use crate::support::layers::{Arguments, Call, Failure, in_scopes};
use crate::support::{functions, layers};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use layerfn::functions::affine;
use layerfn::{ParameterStore, get_all_parameters};

use super::case::{Case, Check, Origin, first_value};
use super::{factors, inq};

pub(crate) enum Outcome {
    Passed,
    Failed(Vec<String>),
    /// The function does not exist here; why.
    Skipped(String),
}

/// What a manifest describes calls of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Layers,
    /// One that does not exist here skips the case.
    Functions,
}

impl Of {
    fn find(self, case: &Case) -> std::result::Result<Call, String> {
        let (kind, call) = match self {
            Self::Layers => ("layer", layers::find(&case.function, &case.args)),
            Self::Functions => ("function", functions::find(&case.function)),
        };
        call.ok_or_else(|| format!("there is no {kind} `{}`", case.function))
    }
}

/// Runs a case with all its tensors on `device`.
pub(crate) fn run(dir: &Path, case: &Case, of: Of, device: &Device) -> Outcome {
    let call = match of.find(case) {
        Ok(call) => call,
        Err(text) => return Outcome::Failed(vec![text]),
    };
    let tensors = match Tensors::load(&dir.join(&case.file)).and_then(|tensors| tensors.to_device(device)) {
        Ok(tensors) => tensors,
        Err(text) => return Outcome::Failed(vec![text]),
    };
    let mut run = Run { case, call, tensors: &tensors, failures: Vec::new() };
    let result = run.registration().and_then(|()| run.passes());
    if let Err(failure) = result {
        run.failures.push(failure.to_string());
    }
    if run.failures.is_empty() { Outcome::Passed } else { Outcome::Failed(run.failures) }
}

struct Run<'a> {
    case: &'a Case,
    call: Call,
    tensors: &'a Tensors,
    failures: Vec<String>,
}

impl Run<'_> {
    /// Calls the layer in an empty store: what it registers, and in which order.
    fn registration(&mut self) -> Result<(), Failure> {
        let case = self.case;
        ParameterStore::new().enter(|| {
            self.register(|parameter| parameter.origin == Origin::Preset)?;
            self.call(&self.inputs(1, None)?)?;
            self.compare_list("after the first call");
            if matches!(case.check, Check::Svd | Check::Cpd) {
                self.failures.extend(factors::check(case, self.tensors)?);
            }
            Ok(())
        })
    }

    /// All passes in one store, from the recorded parameters. Those that the layer can make itself, it makes.
    fn passes(&mut self) -> Result<(), Failure> {
        let case = self.case;
        ParameterStore::new().enter(|| {
            self.register(|parameter| !case.made_by_layer(parameter))?;
            let mut inputs = Vec::new();
            let mut watch = inq::Watch::new(case);
            for pass in 1..=case.passes {
                inputs = self.inputs(pass, Some(inputs))?;
                self.overwrite(pass)?;
                let before = self.state(pass)?;
                let outputs = self.call(&inputs)?;
                let gradients = self.backward(pass, &outputs)?;
                if case.check == Check::InqRandom && !inq::is_seeded(case) {
                    // Which weights are taken is anybody's guess, and all numbers follow from it.
                    self.failures.extend(watch.check(pass, &before));
                    continue;
                }
                self.compare_outputs(pass, &outputs);
                self.compare_state(pass, &before);
                gradients.iter().for_each(|gradients| self.compare_gradients(pass, &inputs, gradients));
            }
            self.compare_set();
            Ok(())
        })
    }

    /// Registers the recorded values of the parameters that `choose` picks.
    fn register(&self, choose: impl Fn(&super::case::Parameter) -> bool) -> Result<(), Failure> {
        for parameter in self.case.parameters.iter().filter(|parameter| choose(parameter)) {
            let var = Var::from_tensor(&first_value(self.tensors, &parameter.path)?)?;
            layerfn::set_parameter(&parameter.path, layerfn::Parameter::new(var, parameter.need_grad))?;
        }
        Ok(())
    }

    /// The inputs of a pass, by name; those not recorded for it stay as they were.
    fn inputs(&self, pass: usize, before: Option<Inputs>) -> Result<Inputs, Failure> {
        let before = before.unwrap_or_default();
        let mut inputs = Vec::new();
        for input in &self.case.inputs {
            let name = format!("{}input.{}", self.case.prefix(pass), input.arg);
            let same = before.iter().find(|(arg, _)| *arg == input.arg);
            let tensor = match (self.tensors.find(&name), same) {
                (None, Some((_, same))) => same.clone(),
                _ => self.tensors.get(&name)?.clone(),
            };
            let tensor = if input.need_grad && !tensor.is_variable() {
                Var::from_tensor(&tensor)?.into_inner()
            } else {
                tensor
            };
            inputs.push((input.arg.clone(), tensor));
        }
        Ok(inputs)
    }

    /// Sets the parameters that change before a pass, as a solver would.
    fn overwrite(&self, pass: usize) -> Result<(), Failure> {
        if self.case.passes == 1 {
            return Ok(());
        }
        for parameter in &self.case.parameters {
            let name = format!("{}param.{}", self.case.prefix(pass), parameter.path);
            if self.tensors.find(&name).is_none() {
                continue;
            }
            let stored = get_all_parameters();
            let stored =
                stored.get(&parameter.path).ok_or_else(|| format!("`{}` is missing", parameter.path))?;
            let value = self.tensors.float(&name)?.to_dtype(stored.var().dtype())?;
            stored.var().set(&value)?;
        }
        Ok(())
    }

    /// The values before a pass; recorded ones for parameters that the first pass will make.
    fn state(&self, pass: usize) -> Result<BTreeMap<String, Tensor>, Failure> {
        let stored = get_all_parameters();
        let mut state = BTreeMap::new();
        for parameter in &self.case.parameters {
            let value = match stored.get(&parameter.path) {
                Some(stored) => stored.var().copy()?,
                None if pass == 1 => first_value(self.tensors, &parameter.path)?,
                None => return Err(format!("`{}` is missing before pass {pass}", parameter.path).into()),
            };
            state.insert(parameter.path.clone(), value);
        }
        Ok(state)
    }

    /// One forward pass: every call of the graph.
    fn call(&self, inputs: &Inputs) -> Result<Vec<Tensor>, Failure> {
        let (case, call) = (self.case, self.call);
        in_scopes(&case.scope, || {
            let Some(calls) = &case.calls else {
                return call(&mut Arguments::new(inputs.clone(), case.args.clone(), self.tensors));
            };
            let mut outputs = Vec::new();
            for one in calls {
                let mut args = case.args.clone();
                args.extend(one.args.clone());
                let mut chosen = Vec::new();
                for (argument, key) in &one.inputs {
                    let input = inputs.iter().find(|(name, _)| Some(name.as_str()) == key.as_str());
                    let (_, tensor) = input.ok_or_else(|| format!("no input {key} for `{argument}`"))?;
                    chosen.push((argument.clone(), tensor.clone()));
                }
                outputs.extend(call(&mut Arguments::new(chosen, args, self.tensors))?);
            }
            Ok(outputs)
        })
    }

    /// The gradients of the sum of outputs times upstream gradients: by candle's pass, and by `backward`, which gets a loss
    /// that is a function of the outputs if there is one output, so that it need not ask candle.
    fn backward(&self, pass: usize, outputs: &[Tensor]) -> Result<[GradStore; 2], Failure> {
        let mut loss: Option<Tensor> = None;
        let mut last = None;
        for (i, output) in outputs.iter().enumerate() {
            let name = self.case.prefix(pass) + &self.case.of_output("grad_output", i);
            let gradient = self.tensors.float(&name)?;
            let term = output.mul(&gradient).and_then(|product| product.sum_all())?;
            loss = Some(match loss {
                None => term,
                Some(loss) => (loss + term)?,
            });
            last = Some(affine(output, &gradient.reshape(((), 1))?, None, 0)?);
        }
        let (Some(loss), Some(last)) = (loss, last) else {
            return Err("the layer returned nothing".to_owned().into());
        };
        let ours = if outputs.len() == 1 { layerfn::backward(&last)? } else { layerfn::backward(&loss)? };
        Ok([loss.backward()?, ours])
    }

    fn compare(&mut self, name: &str, got: &Tensor) {
        match self.tensors.float(name) {
            Ok(want) => {
                let difference = difference(got, &want, self.case.tolerance(name));
                self.failures.extend(difference.map(|text| format!("`{name}` {text}")));
            }
            Err(text) => self.failures.push(text),
        }
    }

    fn compare_outputs(&mut self, pass: usize, outputs: &[Tensor]) {
        let expected = self.case.outputs.len();
        if outputs.len() != expected {
            self.failures.push(format!("{} outputs instead of {expected}", outputs.len()));
        }
        for (i, output) in outputs.iter().enumerate().take(expected) {
            self.compare(&(self.case.prefix(pass) + &self.case.of_output("output", i)), output);
        }
    }

    /// What a pass changed has the recorded value; everything else is as it was.
    fn compare_state(&mut self, pass: usize, before: &BTreeMap<String, Tensor>) {
        let stored = get_all_parameters();
        for parameter in &self.case.parameters {
            let Some(stored) = stored.get(&parameter.path) else { continue };
            let name = format!("{}after.{}", self.case.prefix(pass), parameter.path);
            if self.tensors.find(&name).is_some() {
                self.compare(&name, stored.var());
            } else if let Some(text) = difference(stored.var(), &before[&parameter.path], None) {
                self.failures
                    .push(format!("`{}` must not change in pass {pass}, but {text}", parameter.path));
            }
        }
    }

    fn compare_gradients(&mut self, pass: usize, inputs: &Inputs, gradients: &GradStore) {
        let prefix = self.case.prefix(pass);
        for ((arg, tensor), input) in inputs.iter().zip(&self.case.inputs) {
            if input.need_grad {
                self.compare_gradient(&format!("{prefix}grad_input.{arg}"), gradients.get(tensor));
            }
        }
        let stored = get_all_parameters();
        for parameter in &self.case.parameters {
            let Some(stored) = stored.get(&parameter.path) else { continue };
            let gradient = gradients.get(stored.var());
            if parameter.receives_grad {
                self.compare_gradient(&format!("{prefix}grad_param.{}", parameter.path), gradient);
            } else if gradient.is_some() {
                self.failures.push(format!("a gradient reaches `{}` in pass {pass}", parameter.path));
            }
        }
    }

    fn compare_gradient(&mut self, name: &str, gradient: Option<&Tensor>) {
        match gradient {
            Some(gradient) => self.compare(name, gradient),
            None => self.failures.push(format!("`{name}`: no gradient arrives")),
        }
    }

    /// The registered parameters: paths, order, shapes, flags.
    fn compare_list(&mut self, when: &str) {
        let line = |path: &str, shape: &[usize], need_grad: bool| {
            format!("{path} {shape:?}{}", if need_grad { "" } else { " need_grad=False" })
        };
        let got: Vec<String> = get_all_parameters()
            .iter()
            .map(|(path, parameter)| line(path, parameter.var().dims(), parameter.need_grad()))
            .collect();
        let want: Vec<String> =
            self.case.parameters.iter().map(|p| line(&p.path, &p.shape, p.need_grad)).collect();
        if got != want {
            self.failures.push(format!("registered {when}: {got:?}, expected {want:?}"));
        }
    }

    /// After the last pass nothing came or went and every flag still stands; the order is that of this harness.
    fn compare_set(&mut self) {
        let stored = get_all_parameters();
        for (path, stored) in stored.iter() {
            match self.case.parameters.iter().find(|parameter| parameter.path == path) {
                None => self.failures.push(format!("`{path}` is registered in addition")),
                Some(parameter) if parameter.need_grad != stored.need_grad() => {
                    self.failures.push(format!("need_grad of `{path}` became {}", stored.need_grad()));
                }
                Some(_) => {}
            }
        }
        for parameter in &self.case.parameters {
            if stored.get(&parameter.path).is_none() {
                self.failures.push(format!("`{}` is not registered", parameter.path));
            }
        }
    }
}

/// Tensors by name, in the order of the manifest.
type Inputs = Vec<(String, Tensor)>;
