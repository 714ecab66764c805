//! Gradients against central differences.

use candle_core::{DType, Device, Tensor, Var};

use super::report::{Property, Report};
use super::subject::{Fault, Point, Subject, caught, flat, mode_name, place, uniform};
use crate::{Parameter, Result, Rng, backward};

/// Elements of each tensor that are moved one by one. All others move together, along random directions.
const N_ELEMENTS: usize = 24;
/// Elements that are looked at to say where a direction is wrong.
const N_SEARCHED: usize = 512;

/// The gradients of a weighted sum of the outputs: of each input, `None` for integers, and of each parameter, by path. Those
/// without a gradient have `None`.
pub(super) struct Slopes {
    pub(super) inputs: Vec<(Tensor, Option<Tensor>)>,
    pub(super) parameters: Vec<(String, Parameter, Option<Tensor>)>,
}

impl Slopes {
    /// Whether nothing has a gradient.
    fn is_empty(&self) -> bool {
        let parameters = self.parameters.iter().map(|(.., gradient)| gradient);
        self.inputs.iter().map(|(_, gradient)| gradient).chain(parameters).all(Option::is_none)
    }
}

/// A sum of the outputs with random weights; `None` if they have no fraction.
fn weighted(outputs: &[Tensor]) -> Result<Option<Tensor>> {
    let rng = Rng::new(4711);
    let mut sum: Option<Tensor> = None;
    for y in outputs.iter().filter(|y| y.dtype().is_float()) {
        let weights = uniform(&rng, y.dims())?.to_dtype(y.dtype())?.to_device(y.device())?;
        let term = (y * weights)?.sum_all()?.to_dtype(DType::F64)?;
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    Ok(sum)
}

/// `None` if the outputs have no fraction.
pub(super) fn slopes(subject: &Subject<'_>, point: &Point) -> Result<Option<Slopes>, Fault> {
    let store = point.store.deep_copy()?;
    let mut inputs = Vec::new();
    for x in &point.inputs {
        let is_tracked = x.dtype().is_float();
        inputs.push(if is_tracked { Var::from_tensor(x)?.as_tensor().clone() } else { x.clone() });
    }
    let outputs = subject.run(&store, &inputs, point.training)?;
    let Some(loss) = weighted(&outputs)? else { return Ok(None) };
    let gradients = if loss.track_op() { Some(caught(|| backward(&loss))?) } else { None };
    let of = |x: &Tensor| gradients.as_ref().and_then(|gradients| gradients.get(x).cloned());
    let inputs = inputs.into_iter().map(|x| (x.detach(), of(&x))).collect();
    let parameters = store.parameters().into_iter();
    let parameters = parameters.map(|(path, p)| (path, p.clone(), of(p.var()))).collect();
    Ok(Some(Slopes { inputs, parameters }))
}

pub(super) fn gradients(subject: &Subject<'_>, report: &mut Report) {
    if subject.dtype != DType::F64 {
        report.skip(Property::Gradients, "only compared to f32's accuracy: the layer does not run in f64");
    }
    for (seed, training) in [(1, true), (2, false), (3, true)] {
        let before = report.failures().len();
        if let Err(fault) = at_point(subject, seed, training, report) {
            report.fail(Property::Gradients, format!("the backward pass fails: {fault}"));
        }
        // One point says enough.
        if report.failures().len() > before {
            return;
        }
    }
}

fn at_point(subject: &Subject<'_>, seed: u32, training: bool, report: &mut Report) -> Result<(), Fault> {
    let point = subject.point(seed, training)?;
    let Some(slopes) = slopes(subject, &point)? else {
        report.skip(Property::Gradients, "no output has numbers with a fraction");
        return Ok(());
    };
    if !training && slopes.is_empty() {
        report.skip(Property::Gradients, "in test mode: the outputs have no graph");
        return Ok(());
    }
    let value = |store: &crate::ParameterStore, inputs: &[Tensor]| -> Result<f64, Fault> {
        let loss = weighted(&subject.run(store, inputs, training)?)?;
        Ok(loss.map_or(Ok(0.0), |loss| loss.to_scalar::<f64>())?)
    };
    for (i, (x, gradient)) in slopes.inputs.iter().enumerate().filter(|(_, (x, _))| x.dtype().is_float()) {
        let at = |moved: Tensor| {
            let mut inputs = point.inputs.clone();
            inputs[i] = moved;
            value(&point.store.deep_copy()?, &inputs)
        };
        let name = format!("input {i}");
        Compared { name, x, gradient: gradient.as_ref(), training, at: &at }.compare(report)?;
    }
    for (path, parameter, gradient) in &slopes.parameters {
        if !parameter.need_grad() {
            if gradient.is_some() {
                report
                    .fail(Property::Gradients, format!("`{path}` gets a gradient, though it is not trained"));
            }
            continue;
        }
        // As it is now: a run in training may have set it.
        let Some(now) = point.store.get(path) else { continue };
        let at = |moved: Tensor| {
            let store = point.store.deep_copy()?;
            if let Some(copy) = store.get(path) {
                copy.var().set(&moved)?;
            }
            value(&store, &point.inputs)
        };
        let x = &now.var().as_detached_tensor();
        let compared =
            Compared { name: format!("`{path}`"), x, gradient: gradient.as_ref(), training, at: &at };
        if compared.compare(report)? && gradient.is_none() {
            let what =
                format!("`{path}` is trained, but in {} mode no output depends on it", mode_name(training));
            report.fail(Property::Gradients, what);
        }
    }
    Ok(())
}

/// One tensor, its gradient, and the weighted sum in dependence of it.
struct Compared<'a> {
    name: String,
    x: &'a Tensor,
    gradient: Option<&'a Tensor>,
    training: bool,
    at: &'a dyn Fn(Tensor) -> Result<f64, Fault>,
}

impl Compared<'_> {
    /// Whether the gradient is right.
    fn compare(&self, report: &mut Report) -> Result<bool, Fault> {
        let data = flat(self.x)?;
        let gradient = match self.gradient {
            Some(gradient) if gradient.dims() != self.x.dims() => {
                let (got, want) = (gradient.dims(), self.x.dims());
                let what = format!("the gradient of {} has shape {got:?}, expected {want:?}", self.name);
                report.fail(Property::Gradients, what);
                return Ok(false);
            }
            Some(gradient) => flat(gradient)?,
            None => vec![0.0; data.len()],
        };
        // A mask may hold infinite numbers.
        let movable: Vec<usize> = (0..data.len()).filter(|&i| data[i].is_finite()).collect();
        let step = movable.len().div_ceil(N_ELEMENTS).max(1);
        let mut wrong = Vec::new();
        for &i in movable.iter().step_by(step) {
            wrong.extend(self.wrong_element(&data, &gradient, i)?);
        }
        let rng = Rng::new(99);
        let mut direction_is_wrong = false;
        for _ in 0..if wrong.is_empty() && step > 1 { 2 } else { 0 } {
            let mut direction = vec![0.0; data.len()];
            movable.iter().for_each(|&i| direction[i] = rng.uniform() * 2.0 - 1.0);
            direction_is_wrong |= self.wrong(&data, &gradient, &direction)?.is_some();
        }
        if direction_is_wrong {
            for &i in movable.iter().take(N_SEARCHED) {
                wrong.extend(self.wrong_element(&data, &gradient, i)?);
                if !wrong.is_empty() {
                    break;
                }
            }
        }
        let mode = mode_name(self.training);
        if let Some((i, got, want)) = wrong.first() {
            let element = place(*i, self.x.dims());
            let got = if self.gradient.is_some() { format!("{got:e}") } else { "missing".to_owned() };
            report.fail(
                Property::Gradients,
                format!(
                    "the gradient of {} at {element:?} is {got}, by differences {want:e} (in {mode} mode; \
                     {} elements are wrong of those compared)",
                    self.name,
                    wrong.len()
                ),
            );
        } else if direction_is_wrong {
            let what =
                format!("the gradient of {} is wrong along a random direction (in {mode} mode)", self.name);
            report.fail(Property::Gradients, what);
        }
        Ok(wrong.is_empty() && !direction_is_wrong)
    }

    fn wrong_element(
        &self,
        data: &[f64],
        gradient: &[f64],
        i: usize,
    ) -> Result<Option<(usize, f64, f64)>, Fault> {
        let mut direction = vec![0.0; data.len()];
        direction[i] = 1.0;
        Ok(self.wrong(data, gradient, &direction)?.map(|(got, want)| (i, got, want)))
    }

    /// The slope along `direction` by the gradient and by differences, if they differ. Smaller steps make sure that no kink lies
    /// between.
    fn wrong(&self, data: &[f64], gradient: &[f64], direction: &[f64]) -> Result<Option<(f64, f64)>, Fault> {
        let steps: &[(f64, f64)] = match self.x.dtype() {
            DType::F64 => &[(1e-5, 1e-6), (1e-6, 1e-5), (1e-7, 1e-4)],
            _ => &[(1e-2, 2e-2), (3e-3, 5e-2)],
        };
        let terms = gradient.iter().zip(direction).filter(|(_, d)| **d != 0.0);
        let (got, size) = terms.fold((0.0, 0.0), |(sum, size), (g, d)| (sum + g * d, size + (g * d).abs()));
        let mut found = None;
        for &(step, tolerance) in steps {
            let moved = |sign: f64| {
                let numbers: Vec<f64> =
                    data.iter().zip(direction).map(|(x, d)| x + sign * step * d).collect();
                let moved = Tensor::from_vec(numbers, self.x.dims(), &Device::Cpu)?;
                (self.at)(moved.to_dtype(self.x.dtype())?.to_device(self.x.device())?)
            };
            let (above, below) = (moved(1.0)?, moved(-1.0)?);
            let want = (above - below) / (2.0 * step);
            // Each of the two values is rounded.
            let rounding = 1e-15 * above.abs().max(below.abs()) / step;
            if (got - want).abs() <= tolerance * (0.1 + size.max(want.abs())) + rounding {
                return Ok(None);
            }
            found.get_or_insert((got, want));
        }
        Ok(found)
    }
}
