//! Recurrent layers over whole sequences.

use super::super::Fault;
use super::{Arguments, Call, Kind, Prepared};
use crate::functions::{self, Nonlinearity};
use crate::{Error, ParameterStore, Result};
use candle_core::Tensor;

pub(super) static KINDS: &[Kind] = &[
    Kind::new("GRU", 3..=5, gru).outputs(2..=2),
    Kind::new("LSTM", 4..=6, lstm).outputs(3..=3),
    Kind::new("RNN", 3..=5, rnn).outputs(2..=2),
];

/// The weights behind the input and the states.
struct Weights {
    first: usize,
    more: Option<usize>,
    bias: Option<usize>,
    dropout: f64,
}

impl Weights {
    fn new(arguments: &Arguments<'_>, n_states: usize) -> Result<Self, Fault> {
        let first = 1 + n_states;
        let more = (arguments.count("num_layers")? > 1).then_some(first + 1);
        let next = more.unwrap_or(first) + 1;
        let bias = (arguments.n_inputs > next).then_some(next);
        if arguments.n_inputs < next || arguments.n_inputs > next + 1 {
            let reason = format!(
                "takes {next} or {} inputs with this `num_layers`, got {}",
                next + 1,
                arguments.n_inputs
            );
            return Err(Fault::new(reason));
        }
        // Without `training` nothing is dropped.
        let dropout = if arguments.flag("training") { arguments.number("dropout") } else { 0.0 };
        Ok(Self { first, more, bias, dropout })
    }

    fn of<'a>(&self, call: &'a Call<'_>) -> Result<(&'a Tensor, Option<&'a Tensor>, Option<&'a Tensor>)> {
        let optional = |place: Option<usize>| place.and_then(|place| call.get(place));
        Ok((call.input(self.first)?, optional(self.more), optional(self.bias)))
    }
}

fn rnn(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let weights = Weights::new(arguments, 1)?;
    let nonlinearity: Nonlinearity =
        arguments.text("nonlinearity").parse().map_err(|error: Error| Fault::new(error.to_string()))?;
    Prepared::many(move |call| {
        let (first, more, bias) = weights.of(call)?;
        let rng = ParameterStore::current().rng();
        let (x, h) = (call.input(0)?, call.input(1)?);
        let (y, h) = functions::rnn(x, h, first, more, bias, nonlinearity, weights.dropout, &rng)?;
        Ok(vec![y, h])
    })
}

fn gru(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let weights = Weights::new(arguments, 1)?;
    Prepared::many(move |call| {
        let (first, more, bias) = weights.of(call)?;
        let rng = ParameterStore::current().rng();
        let (y, h) =
            functions::gru(call.input(0)?, call.input(1)?, first, more, bias, weights.dropout, &rng)?;
        Ok(vec![y, h])
    })
}

fn lstm(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let weights = Weights::new(arguments, 2)?;
    Prepared::many(move |call| {
        let (first, more, bias) = weights.of(call)?;
        let rng = ParameterStore::current().rng();
        let (x, h, c) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let (y, h, c) = functions::lstm(x, h, c, first, more, bias, weights.dropout, &rng)?;
        Ok(vec![y, h, c])
    })
}
