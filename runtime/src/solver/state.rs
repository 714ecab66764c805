//! The state of one parameter, and one step of it.

use std::cell::{Cell, RefCell};

use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Storage, Tensor, Var};

use super::change::Changed;
use super::{Rule, computed_in, state_path};
use crate::device::{Arguments, fused, has_kernels};
use crate::kernels::cuda::Kernel;
use crate::kernels::{self, Float};
use crate::number::{Composed, Number, fused_map};
use crate::{Error, Parameters, Result, check};

/// The numbers that a rule keeps for the elements of a parameter, and its number of steps.
#[derive(Debug)]
pub(super) struct State {
    t: u32,
    values: Values,
}

#[derive(Debug)]
enum Values {
    /// All zeros; memory is allocated by the first step.
    Zeros(usize),
    F32(Vec<Vec<f32>>),
    F64(Vec<Vec<f64>>),
    /// For devices and types without a kernel.
    Tensors(Vec<Tensor>),
}

impl State {
    pub(super) fn new(n: usize) -> Self {
        Self { t: 0, values: Values::Zeros(n) }
    }

    pub(super) fn steps(&self) -> u32 {
        self.t
    }

    /// Allocates the state of `var`.
    pub(super) fn allocate(&mut self, var: &Var) -> Result<()> {
        self.values.allocate(var)
    }

    /// The norms of the vectors that `measure` computes from the elements.
    pub(super) fn norms<M: Measure<N>, const N: usize>(
        &self,
        measure: &M,
        change: Changed,
        var: &Var,
        gradient: &Tensor,
    ) -> Result<[f64; 2]> {
        norms(measure, change, var, gradient, &self.values)
    }

    /// Updates `var` and the state.
    pub(super) fn step<R: Rule<N>, const N: usize>(
        &mut self,
        rule: &R,
        rates: R::Rates,
        change: Changed,
        var: &Var,
        gradient: &Tensor,
    ) -> Result<()> {
        self.values.allocate(var)?;
        if var.elem_count() == 0 {
            // candle does not write into tensors without elements.
        } else if let Values::Tensors(states) = &mut self.values {
            composed(rule, rates, change, var, gradient, states)?;
        } else {
            let step =
                Step { rule, rates, change, states: RefCell::new(&mut self.values), done: Cell::new(false) };
            match var.inplace_op2(gradient, &step) {
                // candle refuses a gradient that shares the variable's memory.
                Err(_) if !step.done.get() => var.inplace_op2(&gradient.copy()?, &step)?,
                result => result?,
            }
        }
        self.t = self.t.saturating_add(1);
        Ok(())
    }

    /// Copies of the states.
    pub(super) fn tensors(&self, var: &Var) -> Result<Vec<Tensor>> {
        Ok(match &self.values {
            Values::Zeros(n) => {
                let zeros = || Tensor::zeros(var.dims(), computed_in(var.dtype()), var.device());
                (0..*n).map(|_| zeros()).collect::<candle_core::Result<_>>()?
            }
            Values::F32(values) => to_tensors(values, var)?,
            Values::F64(values) => to_tensors(values, var)?,
            Values::Tensors(tensors) => {
                tensors.iter().map(Tensor::copy).collect::<candle_core::Result<_>>()?
            }
        })
    }

    /// Replaces the states; they have the shape of the parameter and the type of the computation.
    pub(super) fn replace(&mut self, states: &[Tensor], var: &Var) -> Result<()> {
        self.values.fill(states, var)
    }

    /// Copies of the states with their names; none before the first step.
    pub(super) fn vars<const N: usize>(
        &self,
        names: &[&'static str; N],
        var: &Var,
    ) -> Result<Vec<(&'static str, Var)>> {
        if self.t == 0 {
            return Ok(Vec::new());
        }
        let tensors = self.tensors(var)?;
        // NNabla's files have the same type.
        let t = Tensor::new(i64::from(self.t), &Device::Cpu)?;
        let named = names.iter().copied().zip(tensors).chain([("t", t)]);
        named.map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor)?))).collect()
    }

    /// The state of the parameter `path` among `states`.
    pub(super) fn restored<const N: usize>(
        path: &str,
        names: &[&'static str; N],
        states: &Parameters,
        var: &Var,
    ) -> Result<Self> {
        let find = |name: &str, dtype: DType, dims: &[usize]| {
            let path = state_path(path, name);
            let Some(state) = states.get(&path) else {
                return Err(Error::invalid("states", format!("must hold `{path}` too"), "none"));
            };
            let state = state.var();
            // Some file formats have no integers or no scalars.
            let is_number = name == "t" && state.elem_count() == 1 && state.rank() <= 1;
            let fits = is_number || (state.dims() == dims && state.dtype() == dtype);
            if !fits {
                let reason = format!("must hold `{path}` as {dtype:?} of shape {dims:?}");
                return Err(Error::invalid("states", reason, (state.dtype(), state.dims())));
            }
            Ok(state.as_detached_tensor())
        };
        let t = number_of_steps(&state_path(path, "t"), &find("t", DType::I64, &[])?)?;
        let tensors = names.iter().map(|name| find(name, computed_in(var.dtype()), var.dims()));
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let mut values = Values::Zeros(N);
        values.fill(&tensors, var)?;
        Ok(Self { t, values })
    }
}

/// A number of steps as stored in files.
fn number_of_steps(path: &str, t: &Tensor) -> Result<u32> {
    let known = matches!(t.dtype(), DType::U32 | DType::I64 | DType::F32 | DType::F64);
    let value = if known { t.to_dtype(DType::F64)?.reshape(())?.to_scalar()? } else { f64::NAN };
    if value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value) {
        return Ok(value as u32);
    }
    let reason = format!("must hold a number of steps in `{path}`, from 0 to {}", u32::MAX);
    Err(Error::invalid("states", reason, (t.dtype(), value)))
}

impl Values {
    fn fill(&mut self, tensors: &[Tensor], var: &Var) -> Result<()> {
        self.allocate(var)?;
        match self {
            Self::Zeros(_) => {}
            Self::F32(values) => from_tensors(tensors, values)?,
            Self::F64(values) => from_tensors(tensors, values)?,
            Self::Tensors(values) => {
                for (value, tensor) in values.iter_mut().zip(tensors) {
                    *value = tensor.to_device(var.device())?.copy()?;
                }
            }
        }
        Ok(())
    }

    fn allocate(&mut self, var: &Var) -> Result<()> {
        if let Self::Zeros(n) = *self {
            let len = var.elem_count();
            check::tensor("parameters", &[n, len], computed_in(var.dtype()))?;
            let has_kernel = has_kernels(var.device()) && var.is_contiguous();
            *self = match var.dtype() {
                DType::F32 if has_kernel => Self::F32(vec![vec![0.0; len]; n]),
                DType::F64 if has_kernel => Self::F64(vec![vec![0.0; len]; n]),
                dtype => {
                    let zeros = || Tensor::zeros(var.dims(), computed_in(dtype), var.device());
                    Self::Tensors((0..n).map(|_| zeros()).collect::<candle_core::Result<_>>()?)
                }
            };
        }
        Ok(())
    }
}

fn to_tensors<T: candle_core::WithDType>(values: &[Vec<T>], var: &Var) -> candle_core::Result<Vec<Tensor>> {
    values.iter().map(|values| Tensor::from_slice(values, var.dims(), &Device::Cpu)).collect()
}

fn from_tensors<T: candle_core::WithDType>(tensors: &[Tensor], values: &mut [Vec<T>]) -> Result<()> {
    for (tensor, values) in tensors.iter().zip(values) {
        *values = tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
    }
    Ok(())
}

/// One step as a candle operation on the variable, whose storage is locked only while it runs.
struct Step<'a, R: Rule<N>, const N: usize> {
    rule: &'a R,
    rates: R::Rates,
    change: Changed,
    states: RefCell<&'a mut Values>,
    done: Cell<bool>,
}

impl<R: Rule<N>, const N: usize> InplaceOp2 for Step<'_, R, N> {
    fn name(&self) -> &'static str {
        "solver"
    }

    fn cpu_fwd(
        &self,
        w: &mut CpuStorage,
        w_layout: &Layout,
        g: &CpuStorage,
        g_layout: &Layout,
    ) -> candle_core::Result<()> {
        self.done.set(true);
        match (w, g, &mut **self.states.borrow_mut()) {
            (CpuStorage::F32(w), CpuStorage::F32(g), Values::F32(states)) => {
                self.run(part_mut(w, w_layout)?, part(g, g_layout)?, states);
            }
            (CpuStorage::F64(w), CpuStorage::F64(g), Values::F64(states)) => {
                self.run(part_mut(w, w_layout)?, part(g, g_layout)?, states);
            }
            _ => candle_core::bail!("the types of a parameter, its gradient and its state differ"),
        }
        Ok(())
    }
}

impl<R: Rule<N>, const N: usize> Step<'_, R, N> {
    fn run<T: Float>(&self, w: &mut [T], g: &[T], states: &mut [Vec<T>]) {
        let (rule, rates, change) = (self.rule, self.rates, self.change);
        let states = each_mut(states);
        if change == Changed::NONE {
            kernels::update(w, g, states, |w, g, states| rule.step(rates, w, g, states));
        } else {
            kernels::update(w, g, states, |w, g, states| rule.step(rates, w, change.apply(&w, g), states));
        }
    }
}

fn each_mut<T, const N: usize>(states: &mut [Vec<T>]) -> [&mut [T]; N] {
    let mut states = states.iter_mut();
    [(); N].map(|()| states.next().map(Vec::as_mut_slice).unwrap_or_default())
}

/// The same step, composed of candle's operations.
fn composed<R: Rule<N>, const N: usize>(
    rule: &R,
    rates: R::Rates,
    change: Changed,
    var: &Var,
    gradient: &Tensor,
    states: &mut [Tensor],
) -> Result<()> {
    let w = var.as_detached_tensor().to_dtype(computed_in(var.dtype()))?;
    let lost = || candle_core::Error::msg("a solver has lost one of its states");
    let all: &[Tensor; N] = (&*states).try_into().map_err(|_| lost())?;
    let after = fused_map([&w, gradient], all.each_ref(), &|[w, g], before| {
        let g = if change == Changed::NONE { g } else { change.apply(&w, g) };
        let (w, after) = rule.step(rates, w, g, before);
        std::iter::once(w).chain(after).collect()
    })?;
    if let Some(after) = after {
        var.set(&after.get(0)?.to_dtype(var.dtype())?)?;
        for (i, state) in states.iter_mut().enumerate() {
            *state = after.get(1 + i)?;
        }
        return Ok(());
    }
    let (w, before) = (Composed(Ok(w)), all.each_ref().map(Composed::from));
    let gradient = change.apply(&w, Composed(Ok(gradient.detach())));
    let (w, after) = rule.step(rates, w, gradient, before);
    let w = w.0?.to_dtype(var.dtype())?;
    let after = after.into_iter().map(|state| state.0).collect::<candle_core::Result<Vec<_>>>()?;
    var.set(&w).or_else(|_| var.set(&w.copy()?))?;
    states.clone_from_slice(&after);
    Ok(())
}

fn part<'a, T>(values: &'a [T], layout: &Layout) -> candle_core::Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a solver was given a gradient that is not contiguous")
    };
    values.get(start..end).ok_or_else(|| candle_core::Error::msg("a layout points outside its storage"))
}

fn part_mut<'a, T>(values: &'a mut [T], layout: &Layout) -> candle_core::Result<&'a mut [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a solver was given a variable that is not contiguous")
    };
    values.get_mut(start..end).ok_or_else(|| candle_core::Error::msg("a layout points outside its storage"))
}

/// The largest `|x|` of a gradient of type f32 or f64; it is not finite if an element is not.
pub(super) fn largest(gradient: &Tensor) -> Result<f64> {
    Ok(largest_of([gradient])?.swap_remove(0))
}

/// Computes [`largest`] of each, but waits for a GPU only once.
pub(super) fn largest_of<'a>(gradients: impl IntoIterator<Item = &'a Tensor>) -> Result<Vec<f64>> {
    let mut found = Vec::new();
    // Candidates of gradients on the same device and of the same type.
    let mut elsewhere: Vec<Vec<(usize, Tensor)>> = Vec::new();
    for (index, gradient) in gradients.into_iter().enumerate() {
        let by_kernel = if gradient.elem_count() > 0 { by_kernel(gradient)? } else { Some(0.0) };
        found.push(by_kernel.unwrap_or(0.0));
        if by_kernel.is_some() {
            continue;
        }
        let alike = |group: &&mut Vec<(usize, Tensor)>| {
            let like = &group[0].1;
            like.dtype() == gradient.dtype() && like.device().same_device(gradient.device())
        };
        let candidate = (index, candidates(gradient)?);
        match elsewhere.iter_mut().find(alike) {
            Some(group) => group.push(candidate),
            None => elsewhere.push(vec![candidate]),
        }
    }
    for group in elsewhere {
        let all: Vec<&Tensor> = group.iter().map(|(_, candidates)| candidates).collect();
        let all = Tensor::cat(&all, 0)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let mut rest = &*all;
        for (index, candidates) in &group {
            let (own, others) = rest.split_at(candidates.elem_count());
            found[*index] = own.iter().copied().fold(0.0, f64::max);
            rest = others;
        }
    }
    Ok(found)
}

fn by_kernel(gradient: &Tensor) -> Result<Option<f64>> {
    if !has_kernels(gradient.device()) {
        return Ok(None);
    }
    let (storage, layout) = gradient.storage_and_layout();
    Ok(match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => Some(kernels::largest(part(values, layout)?)),
        Storage::Cpu(CpuStorage::F64(values)) => Some(kernels::largest(part(values, layout)?)),
        _ => None,
    })
}

/// A few numbers whose maximum is that of the elements; not all are finite if an element is not.
fn candidates(gradient: &Tensor) -> Result<Tensor> {
    let len = gradient.elem_count();
    let n = len.div_ceil(64).min(1024);
    let arguments = Arguments { sizes: &[len], numbers: &[f64::INFINITY], inputs: &[gradient] };
    if let Some(candidates) = fused(Kernel::named("largest"), n, arguments, n)? {
        return Ok(candidates);
    }
    // 0 · x is 0 for every finite x and NaN for the others; 1 / 0 is infinite then.
    let zero = gradient.affine(0.0, 0.0)?.sum_all()?;
    let is_finite = zero.eq(&zero)?.to_dtype(gradient.dtype())?;
    Ok(Tensor::stack(&[(is_finite.recip()? - 1.0)?, gradient.abs()?.flatten_all()?.max(0)?], 0)?)
}

/// Maps each element of a parameter before a norm is computed.
pub(super) trait Measure<const N: usize>: Sync {
    fn of<V: Number>(&self, w: V, g: V, states: [V; N]) -> [V; 2];
}

/// The gradient after changes that depend on the parameter.
pub(super) struct Gradient;

impl Measure<0> for Gradient {
    fn of<V: Number>(&self, w: V, g: V, []: [V; 0]) -> [V; 2] {
        [w, g]
    }
}

/// The norm of the gradient after `change`.
pub(super) fn changed_norm(change: Changed, var: &Var, gradient: &Tensor) -> Result<f64> {
    let [_, norm] = norms(&Gradient, change, var, gradient, &Values::Zeros(0))?;
    Ok(norm)
}

fn norms<M: Measure<N>, const N: usize>(
    measure: &M,
    change: Changed,
    var: &Var,
    gradient: &Tensor,
    values: &Values,
) -> Result<[f64; 2]> {
    let lost = || candle_core::Error::msg("a solver has lost one of its states");
    let has_kernel = has_kernels(var.device()) && var.is_contiguous();
    let none: (&[Vec<f32>], &[Vec<f64>]) = (&[], &[]);
    let (narrow, wide) = match values {
        Values::F32(states) => (states.as_slice(), none.1),
        Values::F64(states) => (none.0, states.as_slice()),
        _ => none,
    };
    if has_kernel && !matches!(values, Values::Tensors(_)) {
        let ((w, w_layout), (g, g_layout)) = (var.storage_and_layout(), gradient.storage_and_layout());
        match (&*w, &*g) {
            (Storage::Cpu(CpuStorage::F32(w)), Storage::Cpu(CpuStorage::F32(g))) => {
                return measured(measure, change, part(w, w_layout)?, part(g, g_layout)?, narrow)
                    .ok_or_else(|| lost().into());
            }
            (Storage::Cpu(CpuStorage::F64(w)), Storage::Cpu(CpuStorage::F64(g))) => {
                return measured(measure, change, part(w, w_layout)?, part(g, g_layout)?, wide)
                    .ok_or_else(|| lost().into());
            }
            _ => {}
        }
    }
    let states: &[Tensor] = if let Values::Tensors(states) = values { states } else { &[] };
    let all: &[Tensor; N] = states.try_into().map_err(|_| lost())?;
    let w = var.as_detached_tensor().to_dtype(computed_in(var.dtype()))?;
    let (w, g) = (Composed(Ok(w)), Composed(Ok(gradient.detach())));
    let g = change.apply(&w, g);
    let [a, b] =
        measure.of(w, g, all.each_ref().map(Composed::from)).map(|vector| norm(&vector.0?, f64::INFINITY));
    Ok([a?, b?])
}

fn measured<T: Float, M: Measure<N>, const N: usize>(
    measure: &M,
    change: Changed,
    w: &[T],
    g: &[T],
    states: &[Vec<T>],
) -> Option<[f64; 2]> {
    let states: &[Vec<T>; N] = states.try_into().ok()?;
    let states = states.each_ref().map(Vec::as_slice);
    Some(kernels::norms(w, g, states, |w, g, states| measure.of(w, change.apply(&w, g), states)))
}

/// The gradient after `change`.
pub(super) fn changed(change: Changed, var: &Var, gradient: &Tensor) -> Result<Tensor> {
    if change == Changed::NONE {
        return Ok(gradient.clone());
    }
    let w = var.as_detached_tensor().to_dtype(computed_in(var.dtype()))?;
    Ok(change.apply(&Composed(Ok(w)), Composed(Ok(gradient.detach()))).0?)
}

/// The norm of a gradient of type f32 or f64 whose elements are first clipped to `[−limit, limit]`.
pub(super) fn norm(gradient: &Tensor, limit: f64) -> Result<f64> {
    let (storage, layout) = gradient.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => {
            return Ok(kernels::norm(part(values, layout)?, limit));
        }
        Storage::Cpu(CpuStorage::F64(values)) => {
            return Ok(kernels::norm(part(values, layout)?, limit));
        }
        _ => drop(storage),
    }
    let limited = if limit.is_finite() { gradient.clamp(-limit, limit)? } else { gradient.clone() };
    // Divided by the largest first, so that the squares neither overflow nor underflow.
    let wide = limited.to_dtype(DType::F64)?.flatten_all()?;
    let largest = if wide.elem_count() == 0 { 0.0 } else { wide.abs()?.max(0)?.to_scalar::<f64>()? };
    if largest == 0.0 || !largest.is_finite() {
        return Ok(largest);
    }
    let scaled = (wide / largest)?;
    Ok(scaled.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt() * largest)
}
