//! The types of functions that networks are made of, one entry each, by NNabla's names.

mod arguments;
mod layers;
mod maps;
mod normalizations;
mod quantized;
mod recurrent;
mod shapes;

use std::ops::RangeInclusive;

use candle_core::{DType, Device, Tensor};

pub(super) use arguments::Arguments;

use super::Fault;
use crate::parameter::path::join;
use crate::told::{Form, told};
use crate::{Error, Result, nearest, update_state};

/// A type of functions.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// How many inputs it takes.
    inputs: RangeInclusive<usize>,
    outputs: RangeInclusive<usize>,
    /// The inputs that are integers, such as labels; all others are numbers with a fraction.
    integers: &'static [usize],
    /// Reads the arguments.
    pub(super) prepare: fn(&Arguments<'_>) -> Result<Prepared, Fault>,
}

type Apply = Box<dyn Fn(&Call<'_>) -> Result<Vec<Tensor>> + Send + Sync>;

/// A function with its arguments.
pub(super) struct Prepared {
    pub(super) apply: Apply,
    /// The inputs that it writes to.
    pub(super) state: Vec<usize>,
    /// The same with [`relu`](crate::functions::relu) behind it, if it can do that in one.
    pub(super) with_relu: Option<Apply>,
    /// What it keeps in parameters of its own, beside those that it takes.
    pub(super) hidden: Vec<(&'static str, Hidden)>,
}

/// The shape of a parameter that a function keeps for itself; it starts with zeros.
pub(super) enum Hidden {
    LikeInput(usize),
    OfSize(usize),
}

impl Hidden {
    /// The shape, if `of_input` knows that of the input which it follows.
    pub(super) fn dims(&self, of_input: impl Fn(usize) -> Option<Vec<usize>>) -> Option<Vec<usize>> {
        match self {
            Self::LikeInput(place) => of_input(*place),
            Self::OfSize(size) => Some(vec![*size]),
        }
    }
}

impl Prepared {
    /// A function of one output.
    fn one(apply: impl Fn(&Call<'_>) -> Result<Tensor> + Send + Sync + 'static) -> Result<Self, Fault> {
        Self::many(move |call| Ok(vec![apply(call)?]))
    }

    /// A function of one output that can do with or without [`relu`](crate::functions::relu) behind it.
    fn fusing(
        apply: impl Fn(&Call<'_>, bool) -> Result<Vec<Tensor>> + Clone + Send + Sync + 'static,
    ) -> Result<Self, Fault> {
        let with_relu = apply.clone();
        let plain = Self::many(move |call| apply(call, false))?;
        Ok(Self { with_relu: Some(Box::new(move |call| with_relu(call, true))), ..plain })
    }

    fn many(apply: impl Fn(&Call<'_>) -> Result<Vec<Tensor>> + Send + Sync + 'static) -> Result<Self, Fault> {
        Ok(Self { apply: Box::new(apply), state: Vec::new(), with_relu: None, hidden: Vec::new() })
    }
}

/// One call of a function.
pub(super) struct Call<'a> {
    pub(super) inputs: &'a [Tensor],
    /// The paths of those inputs that are parameters.
    pub(super) parameters: &'a [Option<&'a str>],
    /// Where the parameters lie.
    pub(super) path: &'a str,
    /// The size of the batch.
    pub(super) batch: usize,
    /// Where the inputs of the network are.
    pub(super) device: &'a Device,
}

impl Call<'_> {
    /// The input at this place, which the function has.
    fn input(&self, place: usize) -> Result<&Tensor> {
        self.get(place)
            .ok_or_else(|| Error::invalid("input", format!("must have a tensor {place}"), self.inputs.len()))
    }

    fn get(&self, place: usize) -> Option<&Tensor> {
        self.inputs.get(place)
    }

    /// Writes to inputs, as [`update_state`] does; to none that is not a parameter.
    fn update<const N: usize>(
        &self,
        places: [usize; N],
        f: impl Fn([Tensor; N]) -> Result<[Tensor; N]>,
    ) -> Result<()> {
        let paths = places.map(|place| self.parameters.get(place).copied().flatten());
        if paths.iter().any(Option::is_none) {
            return Ok(());
        }
        update_state(paths.map(Option::unwrap_or_default), f).map(drop)
    }

    /// As [`update`](Self::update), with two parameters that the function keeps for itself; the values that were written.
    fn update_with_hidden(
        &self,
        places: [usize; 2],
        hidden: [&str; 2],
        f: impl Fn([Tensor; 4]) -> Result<[Tensor; 4]>,
    ) -> Result<Option<[Tensor; 4]>> {
        let [Some(first), Some(second)] = places.map(|place| self.parameters.get(place).copied().flatten())
        else {
            return Ok(None);
        };
        let [third, fourth] = hidden.map(|name| join(self.path, name));
        update_state([first, second, &third, &fourth], f)
    }
}

impl Kind {
    const fn new(
        name: &'static str,
        inputs: RangeInclusive<usize>,
        prepare: fn(&Arguments<'_>) -> Result<Prepared, Fault>,
    ) -> Self {
        Self { name, inputs, outputs: 1..=1, integers: &[], prepare }
    }

    const fn outputs(mut self, outputs: RangeInclusive<usize>) -> Self {
        self.outputs = outputs;
        self
    }

    const fn integers(mut self, integers: &'static [usize]) -> Self {
        self.integers = integers;
        self
    }

    /// Whether so many inputs and outputs are right.
    pub(super) fn check(&self, n_inputs: usize, n_outputs: usize) -> Result<(), Fault> {
        let text = |range: &RangeInclusive<usize>| match (range.start(), range.end()) {
            (start, &usize::MAX) => format!("at least {start}"),
            (start, end) if start == end => start.to_string(),
            (start, end) => format!("{start} to {end}"),
        };
        if !self.inputs.contains(&n_inputs) {
            return Err(Fault::new(format!("takes {} inputs, got {n_inputs}", text(&self.inputs))));
        }
        if !self.outputs.contains(&n_outputs) {
            return Err(Fault::new(format!(
                "makes {} outputs, but {n_outputs} are named",
                text(&self.outputs)
            )));
        }
        Ok(())
    }

    /// Whether what it takes at this place is an integer, such as a label.
    pub(super) fn takes_integers(&self, place: usize) -> bool {
        self.integers.contains(&place)
    }

    /// The tensor as the function takes it at this place.
    pub(super) fn fit(&self, place: usize, tensor: Tensor) -> Result<Tensor> {
        let is_float = tensor.dtype().is_float();
        let dtype = match (self.takes_integers(place), is_float) {
            (true, true) => DType::I64,
            (false, false) => DType::F32,
            _ => return Ok(tensor),
        };
        told(|| Form::new("Identity", &[&tensor]), || Ok(tensor.to_dtype(dtype)?))
    }
}

/// What the begin and the end of a loop, and its delays, become.
pub(super) fn identity() -> Result<(&'static Kind, Result<Prepared, Fault>), Fault> {
    let kind = find("Identity")?;
    Ok((kind, (kind.prepare)(&Arguments::new(None, 1, 1))))
}

/// What hands out the steps of a loop becomes.
pub(super) fn split(axis: i64) -> (&'static Kind, Result<Prepared, Fault>) {
    (&shapes::RECURRENT_INPUT, shapes::split_along(axis))
}

/// What collects the steps of a loop becomes.
pub(super) fn stack(axis: i64) -> (&'static Kind, Result<Prepared, Fault>) {
    (&shapes::RECURRENT_OUTPUT, shapes::stack_along(axis))
}

/// What stands at the borders of loops and is not a function of its own.
const OF_LOOPS: [&str; 5] = ["Delay", "RecurrentInput", "RecurrentOutput", "RepeatEnd", "RepeatStart"];

/// All of them.
fn all() -> impl Iterator<Item = &'static Kind> {
    [layers::KINDS, maps::KINDS, normalizations::KINDS, quantized::KINDS, recurrent::KINDS, shapes::KINDS]
        .into_iter()
        .flatten()
}

/// The function type `name`.
pub(super) fn find(name: &str) -> Result<&'static Kind, Fault> {
    all().find(|kind| kind.name == name).ok_or_else(|| {
        let mut known: Vec<_> = all().map(|kind| kind.name).chain(OF_LOOPS).collect();
        known.sort_unstable();
        let meant =
            nearest::nearest(name, known.iter().copied()).map(|name| format!(" (did you mean `{name}`?)"));
        Fault::new(format!(
            "is of a type that is not known{}; these are: {}",
            meant.unwrap_or_default(),
            known.join(", ")
        ))
    })
}
