//! Averages of weights.

use candle_core::{DType, Tensor, Var};

use super::part::Part;
use crate::number::Number;
use crate::solver::{At, Rule, RuleSolver, Solver, no_gradients};
use crate::{Error, Parameter, Parameters, Result, check};

/// The exponential moving average of parameters: `a ← a + (1 − decay)·(w − a)` after each step, starting with
/// the current values. Networks often generalize better with it than with the weights of the last step.
///
/// Averages of half precisions are kept in `f32`. A variable under several paths has one average.
///
/// ```
/// use layerfn::{prelude::*, training::WeightAverage};
///
/// let x = Tensor::ones((1, 1), DType::F32, &Device::Cpu)?;
/// let net = network! { affine(1, with_bias = false) };
/// let model = net.init((1, 1))?;
/// let w = model.store().get("affine/W").unwrap().var().clone();
/// w.set(&Tensor::new(&[[8f32]], &Device::Cpu)?)?;
/// let mut average = WeightAverage::new(&model.parameters(), 0.75)?;
/// w.set(&Tensor::new(&[[4f32]], &Device::Cpu)?)?; // a step
/// average.update()?;
/// let y = average.with(|| model.forward(&x))??;
/// assert_eq!(y.to_vec2::<f32>()?, [[7.]]);
/// assert_eq!(w.to_vec2::<f32>()?, [[4.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Debug)]
pub struct WeightAverage {
    weights: Parameters,
    solver: RuleSolver<Average, 0>,
    averages: Parameters,
}

/// The update of the average as a solver rule; the weight takes the place of the gradient.
#[derive(Debug)]
struct Average;

impl Rule<0> for Average {
    const STATES: [&'static str; 0] = [];
    type Rates = f64;

    fn rates(&self, at: &At<'_>) -> f64 {
        at.learning_rate
    }

    fn step<V: Number>(&self, rate: f64, a: V, w: V, []: [V; 0]) -> (V, [V; 0]) {
        (a.clone() + (w - a).scale(rate), [])
    }
}

impl WeightAverage {
    /// Starts the average of `parameters`, with `decay` in [0, 1); 0.999 and 0.9999 are usual.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the decay is out of range, there are no parameters, or one does not hold
    /// floating-point numbers.
    pub fn new(parameters: &Parameters, decay: f64) -> Result<Self> {
        check::within("decay", decay, 0.0..1.0)?;
        let (mut weights, mut averages) = (Vec::new(), Vec::new());
        for var in parameters.vars() {
            check::float("parameters", &var)?;
            let parameter = parameters.iter().find(|(_, parameter)| parameter.var().id() == var.id());
            let Some((path, parameter)) = parameter else { continue };
            weights.push((path.to_owned(), parameter.clone()));
            let dtype = if var.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let average = Var::from_tensor(&var.as_detached_tensor().to_dtype(dtype)?.copy()?)?;
            averages.push((path.to_owned(), Parameter::new(average, false)));
        }
        if weights.is_empty() {
            return Err(Error::invalid("parameters", "must not be empty", "none"));
        }
        let (weights, averages): (Parameters, Parameters) =
            (weights.into_iter().collect(), averages.into_iter().collect());
        let mut solver = RuleSolver::new_with(Average, 1.0 - decay);
        solver.set_parameters(&averages);
        Ok(Self { weights, solver, averages })
    }

    /// Updates the average with the current weights.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a weight is infinite or NaN; nothing is changed then.
    pub fn update(&mut self) -> Result<()> {
        let mut weights = no_gradients()?;
        for (weight, average) in self.pairs() {
            weights.insert(average, weight.as_detached_tensor());
        }
        self.solver.update(&weights)
    }

    /// The averages, by the paths of their parameters.
    #[must_use]
    pub fn averages(&self) -> &Parameters {
        &self.averages
    }

    /// Runs `f` while the parameters have their averages as values, and restores the previous values
    /// afterwards, even on a panic. Other threads see the averages meanwhile.
    ///
    /// # Errors
    /// If candle cannot copy a value.
    pub fn with<R>(&self, f: impl FnOnce() -> R) -> Result<R> {
        struct Restore(Vec<(Var, Tensor)>);
        impl Drop for Restore {
            fn drop(&mut self) {
                for (var, value) in self.0.drain(..) {
                    // Of the variable's shape, type and device: candle has no reason to refuse it.
                    let _ = var.set(&value);
                }
            }
        }
        let mut restore = Restore(Vec::new());
        for (weight, average) in self.pairs() {
            let value = weight.as_detached_tensor().copy()?;
            let average = average.as_detached_tensor().to_dtype(weight.dtype())?;
            restore.0.push((weight.clone(), value));
            if weight.elem_count() > 0 {
                weight.set(&average)?;
            }
        }
        Ok(f())
    }

    fn pairs(&self) -> impl Iterator<Item = (&Var, &Var)> {
        let averages = self.averages.iter().map(|(_, average)| average.var());
        self.weights.iter().map(|(_, weight)| weight.var()).zip(averages)
    }
}

impl Part for WeightAverage {
    fn state(&self) -> Result<Parameters> {
        let copy = |(path, average): (&str, &Parameter)| {
            let copy = Var::from_tensor(&average.var().as_detached_tensor().copy()?)?;
            Ok((path.to_owned(), Parameter::new(copy, false)))
        };
        self.averages.iter().map(copy).collect()
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        let unknown: Vec<_> = state.paths().filter(|path| self.averages.get(path).is_none()).collect();
        if !unknown.is_empty() {
            return Err(Error::invalid("average", "must be of parameters that are averaged", unknown));
        }
        let mut values = Vec::new();
        for (path, average) in self.averages.iter() {
            let value = state.get(path).map(|value| value.var().as_detached_tensor());
            let fits = |value: &Tensor| {
                value.dims() == average.var().dims() && value.dtype() == average.var().dtype()
            };
            match value {
                Some(value) if fits(&value) => {
                    values.push((average.var(), value.to_device(average.var().device())?))
                }
                other => {
                    let reason = format!(
                        "must hold `{path}` as {:?} of shape {:?}",
                        average.var().dtype(),
                        average.var().dims()
                    );
                    return Err(Error::invalid(
                        "average",
                        reason,
                        other.map(|value| (value.dtype(), value.dims().to_vec())),
                    ));
                }
            }
        }
        for (average, value) in values.into_iter().filter(|(average, _)| average.elem_count() > 0) {
            average.set(&value.copy()?)?;
        }
        Ok(())
    }
}
