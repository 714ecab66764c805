//! What stands around the step, with weights, rates and gradients of any kind.

use layerfn::solver::{Sgd, Solver};
use layerfn::training::{Accumulator, EarlyStopping, LossScaler, NanGuard, Part, WeightAverage};

use crate::solver::{gradients, parameters};
use crate::{Call, fault};

pub(crate) const CALLS: &[(&str, Call)] = &[
    ("Accumulator", |draw| {
        let all = parameters(draw)?;
        let (first, second) = (gradients(draw, &all)?, gradients(draw, &all)?);
        let (a, b) = (draw.rate(), draw.number());
        draw.go();
        let mut sum = Accumulator::new(&all);
        sum.add(&first, a)?;
        sum.add(&second, b)?;
        let mean = sum.take()?;
        Ok(all.vars().iter().filter_map(|var| mean.get(var).cloned()).collect())
    }),
    ("WeightAverage", |draw| {
        let all = parameters(draw)?;
        let decay = draw.rate();
        draw.go();
        let mut average = WeightAverage::new(&all, decay)?;
        average.update()?;
        average.with(|| ())?;
        let state = average.state()?;
        average.set_state(&state).map_err(|error| fault(format!("its own state is refused: {error}")))?;
        average.set_state(&all).err();
        Ok(state.vars().iter().map(|var| var.as_detached_tensor()).collect())
    }),
    ("LossScaler", |draw| {
        let all = parameters(draw)?;
        let (start, factor, rate, steepness) = (draw.number(), draw.number(), draw.rate(), draw.number());
        draw.go();
        let Some(var) = all.vars().into_iter().find(|var| var.dtype().is_float()) else {
            return Ok(Vec::new());
        };
        let mut solver = Sgd::new(rate);
        solver.set_parameters(&all);
        let mut scaler = LossScaler::new().start(start).scaling_factor(factor);
        let loss = scaler.update(&mut solver, &mut || Ok((var.as_tensor() * steepness)?.sum_all()?))?;
        Ok(vec![loss])
    }),
    ("NanGuard", |draw| {
        let all = parameters(draw)?;
        let gradients = gradients(draw, &all)?;
        let (loss, rate) = (draw.tensor(), draw.rate());
        draw.go();
        let mut solver = Sgd::new(rate);
        solver.set_parameters(&all);
        NanGuard::new(1).update(&mut solver, &loss, &gradients)?;
        Ok(Vec::new())
    }),
    ("EarlyStopping", |draw| {
        let values = [draw.number(), draw.number(), draw.number()];
        let patience = draw.size() as u64;
        draw.go();
        let mut stopping = EarlyStopping::new(patience);
        for value in values {
            stopping.observe(value);
        }
        let state = stopping.state()?;
        stopping.set_state(&state)?;
        Ok(Vec::new())
    }),
];
