//! Values whose state can be saved in a file.

use candle_core::{DType, Device, Tensor, Var, WithDType};

use crate::checkpoint::{Checkpoint, Load, NeedGrad};
use crate::data::Position;
use crate::solver::{Rule, RuleSolver, Solver};
use crate::{Error, Parameter, ParameterStore, Parameters, Result, Rng};

/// A part of a training whose state can be saved in a file and restored bit for bit.
///
/// Numbers, strings, tensors, generators, solvers and the types of [`training`](super) are parts. Compose your
/// own of other parts:
///
/// ```
/// use layerfn::{Parameters, Result, Rng, training::{Part, gather, scatter}};
///
/// /// Where a loop over shuffled data stands.
/// struct Position {
///     epoch: u64,
///     index: u64,
///     rng: Rng,
/// }
///
/// impl Part for Position {
///     fn state(&self) -> Result<Parameters> {
///         gather(&[("epoch", &self.epoch), ("index", &self.index), ("rng", &self.rng)])
///     }
///
///     fn set_state(&mut self, state: &Parameters) -> Result<()> {
///         scatter(state, &mut [("epoch", &mut self.epoch), ("index", &mut self.index), ("rng", &mut self.rng)])
///     }
/// }
///
/// let mut position = Position { epoch: 3, index: 7, rng: Rng::new(1) };
/// let state = position.state()?;
/// let drawn = position.rng.uniform();
/// position.set_state(&state)?;
/// assert_eq!(position.rng.uniform(), drawn);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub trait Part {
    /// Returns a copy of the state, under names that the part chooses. A name may have several components, like
    /// a path.
    ///
    /// # Errors
    /// If something cannot be copied.
    fn state(&self) -> Result<Parameters>;

    /// Replaces the state. If it fails, nothing has changed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the state does not belong to such a part.
    fn set_state(&mut self, state: &Parameters) -> Result<()>;
}

/// The states of several parts, each below its name.
///
/// # Errors
/// Those of the parts; [`Error::InvalidArgument`] if two have the same name.
pub fn gather(parts: &[(&str, &dyn Part)]) -> Result<Parameters> {
    let mut states = Vec::new();
    for (i, (name, part)) in parts.iter().enumerate() {
        if name.is_empty() || parts[..i].iter().any(|(other, _)| other == name) {
            return Err(Error::invalid("name", "must not be empty, and must differ between parts", name));
        }
        let state = part.state()?;
        states.extend(state.into_iter().map(|(path, value)| (format!("{name}/{path}"), value)));
    }
    Ok(states.into_iter().collect())
}

/// Gives each part the state below its name. If one rejects it, the states of those before it are restored.
///
/// # Errors
/// Those of the parts; [`Error::InvalidArgument`] if there is a state that no part takes.
pub fn scatter(states: &Parameters, parts: &mut [(&str, &mut dyn Part)]) -> Result<()> {
    let known = |path: &str| parts.iter().any(|(name, _)| below(path, name));
    if let Some(unknown) = states.paths().find(|path| !known(path)) {
        let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
        let reason = format!("must belong to one of the parts {names:?}");
        return Err(Error::invalid("state", reason, unknown));
    }
    let mut before = Vec::new();
    for i in 0..parts.len() {
        let (name, part) = &mut parts[i];
        let result = part.state().and_then(|state| {
            before.push(state);
            part.set_state(&states.under(name)).map_err(|error| within(name, error))
        });
        if let Err(error) = result {
            for ((_, part), state) in parts.iter_mut().zip(&before).take(i) {
                // This cannot fail: the part has just returned this state.
                let _ = part.set_state(state);
            }
            return Err(error);
        }
    }
    Ok(())
}

fn below(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
}

/// The error of the part `name`.
fn within(name: &str, error: Error) -> Error {
    match error {
        Error::InvalidArgument { argument, reason, got } => {
            Error::InvalidArgument { argument, reason: format!("{reason}, in the part `{name}`"), got }
        }
        other => other,
    }
}

const VALUE: &str = "value";

/// A state that is one tensor.
fn one(tensor: &Tensor) -> Result<Parameters> {
    let var = Var::from_tensor(&tensor.copy()?)?;
    Ok([(VALUE.to_owned(), Parameter::new(var, false))].into_iter().collect())
}

/// The elements of such a state.
fn values<T: WithDType>(state: &Parameters, rank: usize) -> Result<Vec<T>> {
    let value = state.get(VALUE).filter(|_| state.len() == 1).map(Parameter::var);
    match value {
        // Some formats have no scalars.
        Some(value) if value.dtype() == T::DTYPE && (value.rank() == rank || value.elem_count() == 1) => {
            Ok(value.flatten_all()?.to_vec1()?)
        }
        other => {
            let reason = format!("must be {:?} with {rank} axes", T::DTYPE);
            let got = other.map(|value| (value.dtype(), value.dims().to_vec()));
            Err(Error::invalid("state", reason, got))
        }
    }
}

fn number<T: WithDType>(state: &Parameters) -> Result<T> {
    match values(state, 0)?.as_slice() {
        [number] => Ok(*number),
        other => Err(Error::invalid("state", "must be one number", other.len())),
    }
}

/// Stored as the 64 bits of an `i64`, since candle has no unsigned ones.
impl Part for u64 {
    fn state(&self) -> Result<Parameters> {
        one(&Tensor::new(self.cast_signed(), &Device::Cpu)?)
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        *self = number::<i64>(state)?.cast_unsigned();
        Ok(())
    }
}

impl Part for usize {
    fn state(&self) -> Result<Parameters> {
        (*self as u64).state()
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        let mut wide = 0u64;
        wide.set_state(state)?;
        *self = Self::try_from(wide)
            .map_err(|_| Error::invalid("state", "must be a number that this machine can count to", wide))?;
        Ok(())
    }
}

impl Part for f64 {
    fn state(&self) -> Result<Parameters> {
        one(&Tensor::new(*self, &Device::Cpu)?)
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        *self = number(state)?;
        Ok(())
    }
}

impl Part for bool {
    fn state(&self) -> Result<Parameters> {
        one(&Tensor::new(u8::from(*self), &Device::Cpu)?)
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        *self = match number::<u8>(state)? {
            0 => false,
            1 => true,
            other => return Err(Error::invalid("state", "must be 0 or 1", other)),
        };
        Ok(())
    }
}

impl Part for String {
    fn state(&self) -> Result<Parameters> {
        one(&Tensor::from_slice(self.as_bytes(), self.len(), &Device::Cpu)?)
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        *self = Self::from_utf8(values(state, 1)?)
            .map_err(|error| Error::invalid("state", "must be text", error.utf8_error()))?;
        Ok(())
    }
}

impl Part for Position {
    fn state(&self) -> Result<Parameters> {
        gather(&[("epoch", &self.epoch), ("batch", &self.batch)])
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        scatter(state, &mut [("epoch", &mut self.epoch), ("batch", &mut self.batch)])
    }
}

/// For example the losses so far.
impl Part for Vec<f64> {
    fn state(&self) -> Result<Parameters> {
        one(&Tensor::from_slice(self, self.len(), &Device::Cpu)?)
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        *self = values(state, 1)?;
        Ok(())
    }
}

/// The shape, type and device must stay the same.
impl Part for Tensor {
    fn state(&self) -> Result<Parameters> {
        one(&self.to_device(&Device::Cpu)?)
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        let value = state.get(VALUE).map(|value| value.var().as_detached_tensor());
        match value.filter(|value| value.dtype() == self.dtype() && value.dims() == self.dims()) {
            Some(value) => {
                *self = value.copy()?.to_device(self.device())?;
                Ok(())
            }
            None => {
                let reason = format!("must be {:?} of shape {:?}", self.dtype(), self.dims());
                Err(Error::invalid("state", reason, state.paths().collect::<Vec<_>>()))
            }
        }
    }
}

const WORDS: &str = "words";
const SPARE: &str = "spare";

/// The position in the sequence of random numbers.
impl Part for Rng {
    fn state(&self) -> Result<Parameters> {
        let (words, spare) = self.position();
        let spare: Vec<f64> = spare.into_iter().collect();
        let words = Tensor::from_slice(&words, words.len(), &Device::Cpu)?;
        let spare = Tensor::from_slice(&spare, spare.len(), &Device::Cpu)?;
        let parameter =
            |tensor: &Tensor| -> Result<Parameter> { Ok(Parameter::new(Var::from_tensor(tensor)?, false)) };
        let states = [(WORDS.to_owned(), parameter(&words)?), (SPARE.to_owned(), parameter(&spare)?)];
        Ok(states.into_iter().collect())
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        restore_rng(self, state)
    }
}

/// All clones of a generator share its position.
pub(super) fn restore_rng(rng: &Rng, state: &Parameters) -> Result<()> {
    let find = |name: &str, dtype: DType| {
        let value =
            state.get(name).map(Parameter::var).filter(|value| value.dtype() == dtype && value.rank() == 1);
        let reason = format!("must hold `{name}` of a generator, as {dtype:?} with one axis");
        value.ok_or_else(|| Error::invalid("state", reason, state.paths().collect::<Vec<_>>()))
    };
    let words = find(WORDS, DType::U32)?.to_vec1::<u32>()?;
    let spare = find(SPARE, DType::F64)?.to_vec1::<f64>()?;
    match (rng.set_position(&words, spare.first().copied()), spare.len()) {
        (true, 0 | 1) => Ok(()),
        _ => Err(Error::invalid("state", "must be 624 words and at most one number", words.len())),
    }
}

const PARAMETERS: &str = "parameters";
const RNG: &str = "rng";

/// All parameters of a store, and its generator.
pub(super) fn store_state(store: &ParameterStore) -> Result<Parameters> {
    let rng = store.rng();
    let mut states: Vec<_> = gather(&[(RNG, &rng)])?.into_iter().collect();
    let parameters = store.parameters();
    let parameters = parameters.iter();
    states.extend(parameters.map(|(path, parameter)| (format!("{PARAMETERS}/{path}"), parameter.clone())));
    Ok(states.into_iter().collect())
}

/// A store that has parameters must have the same ones; an empty store gets them.
pub(super) fn restore_store(store: &ParameterStore, state: &Parameters) -> Result<()> {
    let parameters = Checkpoint::from_parameters(&state.under(PARAMETERS))?;
    let is_empty = store.parameters().is_empty();
    let rng = store.rng();
    let before = rng.state()?;
    restore_rng(&rng, &state.under(RNG))?;
    let loaded = Load::new(parameters)
        .need_grad(NeedGrad::Keep)
        .create_unknown(is_empty)
        .apply_to(store, "")
        .map(drop);
    if loaded.is_err() {
        restore_rng(&rng, &before)?;
    }
    loaded
}

/// The states, the learning rate and the step of the schedule.
fn solver_state(solver: &dyn Solver) -> Result<Parameters> {
    let (rate, n_updates) = (solver.base_learning_rate(), solver.n_updates());
    let mut states: Vec<_> =
        gather(&[("learning_rate", &rate), ("n_updates", &n_updates)])?.into_iter().collect();
    let own = solver.get_states()?.into_iter();
    states.extend(own.map(|(path, state)| (format!("states/{path}"), state)));
    Ok(states.into_iter().collect())
}

fn restore_solver(solver: &mut dyn Solver, state: &Parameters) -> Result<()> {
    let (mut rate, mut n_updates) = (0.0, 0u64);
    rate.set_state(&state.under("learning_rate"))?;
    n_updates.set_state(&state.under("n_updates"))?;
    solver.set_states(&state.under("states"))?;
    solver.set_learning_rate(rate);
    solver.set_n_updates(n_updates);
    Ok(())
}

impl<R: Rule<N>, const N: usize> Part for RuleSolver<R, N> {
    fn state(&self) -> Result<Parameters> {
        solver_state(self)
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        restore_solver(self, state)
    }
}

impl Part for Box<dyn Solver> {
    fn state(&self) -> Result<Parameters> {
        solver_state(&**self)
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        restore_solver(&mut **self, state)
    }
}
