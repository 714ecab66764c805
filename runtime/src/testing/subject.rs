//! The layer under test: random points to run it at, and runs that leave them as they are.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Device, Tensor};

use super::Layer;
use crate::context::change;
use crate::mode::with_mode;
use crate::{Error, Example, Parameter, ParameterStore, Result, Rng};

/// Why a run gave nothing.
#[derive(Debug)]
pub(super) enum Fault {
    Error(Error),
    Panic(String),
}

impl Fault {
    /// Whether candle has no kernel for this type on this device: nothing a layer can change.
    pub(super) fn is_of_candle(&self) -> bool {
        let Self::Error(error) = self else { return false };
        let mut error = match error.root() {
            Error::Tensor(error) => error,
            _ => return false,
        };
        loop {
            error = match error {
                candle_core::Error::WithBacktrace { inner, .. }
                | candle_core::Error::WithPath { inner, .. }
                | candle_core::Error::Context { inner, .. } => inner,
                candle_core::Error::UnsupportedDTypeForOp(..) => return true,
                _ => return false,
            };
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // candle's errors bring a backtrace along.
            Self::Error(error) => {
                let text = error.to_string();
                let lines: Vec<_> = text.lines().take_while(|line| !line.starts_with("   0: ")).collect();
                f.write_str(&lines.join("\n    "))
            }
            Self::Panic(text) => write!(f, "it panics: {text}"),
        }
    }
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Runs `f`; a panic becomes a fault.
pub(super) fn caught<T>(f: impl FnOnce() -> Result<T>) -> Result<T, Fault> {
    let text = |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    };
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| Fault::Panic(text(panic)))?.map_err(Fault::Error)
}

pub(super) fn mode_name(training: bool) -> &'static str {
    if training { "training" } else { "test" }
}

pub(super) struct Subject<'a> {
    layer: &'a Layer<'a>,
    examples: &'a [Example],
    pub(super) dtype: DType,
}

/// Inputs and parameters.
pub(super) struct Point {
    pub(super) inputs: Vec<Tensor>,
    pub(super) store: ParameterStore,
    pub(super) training: bool,
}

impl<'a> Subject<'a> {
    pub(super) fn new(layer: &'a Layer<'a>, examples: &'a [Example], dtype: DType) -> Self {
        Self { layer, examples, dtype }
    }

    /// Inputs of the subject's type; others for each `seed`.
    pub(super) fn inputs(&self, seed: u32) -> Result<Vec<Tensor>> {
        let rng = Rng::new(0x7e57 + seed);
        let input = |example: &Example| {
            let random = uniform(&rng, example.dims())?.to_device(&example.device)?;
            let tensor = match &example.tensor {
                None => random,
                Some(tensor) if !tensor.dtype().is_float() => return Ok(tensor.clone()),
                Some(tensor) if seed == 0 => tensor.clone(),
                // Near by, and of the same sign.
                Some(tensor) => (tensor.to_dtype(DType::F64)? * ((random * 0.2)? + 1.0)?)?,
            };
            Ok(tensor.to_dtype(self.dtype)?)
        };
        self.examples.iter().map(input).collect()
    }

    /// A store with the parameters as they are made.
    pub(super) fn made(&self, inputs: &[Tensor], store: ParameterStore) -> Result<ParameterStore, Fault> {
        for training in [true, false] {
            let _flags = change(|flags| (flags.detached, flags.fixed) = (true, true));
            self.run(&store, inputs, training)?;
        }
        Ok(store)
    }

    /// Random inputs, and parameters that have moved away from their first values.
    pub(super) fn point(&self, seed: u32, training: bool) -> Result<Point, Fault> {
        let inputs = self.inputs(seed)?;
        let store = self.made(&inputs, ParameterStore::with_seed(313 + u64::from(seed)))?;
        // State has moved as well.
        self.run(&store, &inputs, true)?;
        let rng = Rng::new(0xda7a + seed);
        for var in store.parameters().into_iter().filter(|(_, p)| p.need_grad()).map(|(_, p)| p.var().clone())
        {
            if var.dtype().is_float() {
                let moved =
                    (uniform(&rng, var.dims())? * 0.25)?.to_dtype(var.dtype())?.to_device(var.device())?;
                var.set(&(var.as_detached_tensor() + moved)?)?;
            }
        }
        Ok(Point { inputs, store, training })
    }

    /// Calls the layer in what is current.
    pub(super) fn call(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        (self.layer)(inputs)
    }

    /// Runs the layer in `store`.
    pub(super) fn run(
        &self,
        store: &ParameterStore,
        inputs: &[Tensor],
        training: bool,
    ) -> Result<Vec<Tensor>, Fault> {
        caught(|| store.enter(|| with_mode(training, || self.call(inputs))))
    }

    /// Runs the layer at `point`, which stays as it is, with other inputs of its kind.
    pub(super) fn run_with(&self, point: &Point, inputs: &[Tensor]) -> Result<Vec<Tensor>, Fault> {
        self.run(&point.store.deep_copy()?, inputs, point.training)
    }

    /// Runs the layer at `point`, which stays as it is.
    pub(super) fn run_at(&self, point: &Point) -> Result<Vec<Tensor>, Fault> {
        self.run_with(point, &point.inputs)
    }
}

impl Point {
    /// The same values, rounded to another type.
    pub(super) fn cast(&self, dtype: DType) -> Result<Self> {
        let cast = |x: &Tensor| if x.dtype().is_float() { x.to_dtype(dtype) } else { Ok(x.clone()) };
        let inputs = self.inputs.iter().map(cast).collect::<candle_core::Result<_>>()?;
        let store = self.store.deep_copy()?;
        for (path, parameter) in store.parameters() {
            let value = cast(parameter.var().as_tensor())?;
            let var = candle_core::Var::from_tensor(&value.detach())?;
            store.set(&path, Parameter::new(var, parameter.need_grad()))?;
        }
        Ok(Self { inputs, store, training: self.training })
    }
}

/// Numbers in (-1, 1), in `f64`.
pub(super) fn uniform(rng: &Rng, dims: &[usize]) -> Result<Tensor> {
    let n = crate::check::count("input", dims)?;
    let numbers: Vec<f64> = (0..n).map(|_| rng.uniform() * 2.0 - 1.0).collect();
    Ok(Tensor::from_vec(numbers, dims, &Device::Cpu)?)
}

/// The elements, row-major.
pub(super) fn flat(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// Where the element with this number stands.
pub(super) fn place(mut index: usize, dims: &[usize]) -> Vec<usize> {
    let mut place = vec![0; dims.len()];
    for (at, &size) in place.iter_mut().zip(dims).rev() {
        *at = index % size.max(1);
        index /= size.max(1);
    }
    place
}

/// How `got` differs from `want` by more than `tolerance` of the largest element; equal bits are wanted if that is 0.
pub(super) fn difference(got: &Tensor, want: &Tensor, tolerance: f64) -> Result<Option<String>> {
    if got.dims() != want.dims() {
        return Ok(Some(format!("shape {:?}, expected {:?}", got.dims(), want.dims())));
    }
    let (numbers, wanted) = (flat(got)?, flat(want)?);
    let largest = wanted.iter().filter(|x| x.is_finite()).fold(0.01_f64, |max, x| max.max(x.abs()));
    let near = |a: f64, b: f64| {
        a.to_bits() == b.to_bits()
            || (tolerance > 0.0
                && (a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * largest))
    };
    Ok(numbers.iter().zip(&wanted).position(|(&a, &b)| !near(a, b)).map(|i| {
        format!("element {:?} is {:e}, expected {:e}", place(i, want.dims()), numbers[i], wanted[i])
    }))
}

/// As [`difference`], of all outputs.
pub(super) fn differences(got: &[Tensor], want: &[Tensor], tolerance: f64) -> Result<Option<String>> {
    if got.len() != want.len() {
        return Ok(Some(format!("{} outputs, expected {}", got.len(), want.len())));
    }
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        if let Some(difference) = difference(got, want, tolerance)? {
            return Ok(Some(format!("output {i}: {difference}")));
        }
    }
    Ok(None)
}

/// How the parameters of one store differ from those of another, to the last bit.
pub(super) fn changed(now: &ParameterStore, before: &ParameterStore) -> Result<Option<String>> {
    let (now, before) = (now.parameters(), before.parameters());
    let paths = |parameters: &crate::Parameters| parameters.paths().map(str::to_owned).collect::<Vec<_>>();
    if paths(&now) != paths(&before) {
        return Ok(Some(format!("the parameters are {:?}, expected {:?}", paths(&now), paths(&before))));
    }
    for ((path, now), (_, before)) in now.iter().zip(before.iter()) {
        if let Some(difference) = difference(now.var(), before.var(), 0.0)? {
            return Ok(Some(format!("parameter `{path}`: {difference}")));
        }
    }
    Ok(None)
}
