//! Tests for layers: one call runs the same checks as for the crate's own layers.
//!
//! ```
//! use layerfn::{prelude::*, testing};
//!
//! /// Affine layer with a gate on each output.
//! #[parametric_function(
//!     scope = "gated",
//!     params(
//!         /// Weight matrix.
//!         W: [inmaps, outmaps] = Initializer::glorot_uniform(inmaps, outmaps, &[]),
//!         /// Gate of each output.
//!         g: [outmaps] = 1.0,
//!     )
//! )]
//! fn gated(
//!     /// Input, of shape (batch, inmaps).
//!     inp: &Tensor,
//!     /// Number of outputs.
//!     outmaps: usize,
//! ) -> Result<Tensor> {
//!     let inmaps = inp.dim(1)?;
//!     Ok(inp.contiguous()?.matmul(&param!(W)?)?.broadcast_mul(&param!(g)?)?)
//! }
//!
//! // In a test of yours:
//! testing::check(|x| gated(x, 3).call(), (4, 2));
//! ```
//!
//! The chapter [testing a layer of your own](crate::guide::testing_layers) lists the checks and explains
//! failures.

mod gradients;
mod precisions;
mod report;
mod runs;
mod sharing;
mod state;
mod subject;
mod views;

use candle_core::{DType, Tensor};

use crate::{Example, Result, Value};

pub use report::{Failure, Property, Report};
use subject::{Subject, mode_name};

/// Runs all checks of [`Check`] on a layer with one input: in f64, on random values if `input` is a shape.
///
/// The report says what was checked, what was not, and why. For layers with several inputs, and for exceptions,
/// use [`Check`].
///
/// # Panics
/// If a check fails, with all failures.
#[track_caller]
pub fn check<O: Value>(layer: impl Fn(&Tensor) -> Result<O> + Sync, input: impl Into<Example>) -> Report {
    let report = Check::new(
        |inputs: &[Tensor]| match inputs {
            [x] => layer(x),
            _ => Err(crate::Error::invalid("inputs", "must be one tensor", inputs.len())),
        },
        [input],
    )
    .run();
    report.assert_passed();
    report
}

type Layer<'a> = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + Sync + 'a;

/// A check of a layer with any number of inputs, and with exceptions.
///
/// ```
/// use layerfn::{prelude::*, testing::{Check, Property}};
///
/// let report = Check::new(|xs: &[Tensor]| lstm(&xs[0], &xs[1], &xs[2], 3).call(), [[2, 4], [2, 3], [2, 3]])
///     .rows_are_independent()
///     .skip(Property::EmptyBatch, "never called without samples")
///     .run();
/// report.assert_passed();
/// assert!(report.to_string().contains("never called without samples"));
/// ```
#[must_use = "nothing is checked before `run()`"]
pub struct Check<'a> {
    layer: Box<Layer<'a>>,
    inputs: Vec<Example>,
    skipped: Vec<(Property, String)>,
    rows: bool,
}

impl<'a> Check<'a> {
    /// Makes a check of `layer` on `inputs`: shapes, for random values in (-1, 1), or tensors. Integer tensors
    /// are used unchanged.
    pub fn new<O: Value>(
        layer: impl Fn(&[Tensor]) -> Result<O> + Sync + 'a,
        inputs: impl IntoIterator<Item = impl Into<Example>>,
    ) -> Self {
        let layer = move |inputs: &[Tensor]| {
            let mut outputs = Vec::new();
            layer(inputs)?.each(&mut |y| outputs.push(y.clone()));
            Ok(outputs)
        };
        let inputs = inputs.into_iter().map(Into::into).collect();
        Self { layer: Box::new(layer), inputs, skipped: Vec::new(), rows: false }
    }

    /// Skips `property`; the report gives `reason`. A straight-through gradient, for example, is not the
    /// derivative.
    pub fn skip(mut self, property: Property, reason: impl Into<String>) -> Self {
        self.skipped.push((property, reason.into()));
        self
    }

    /// Also checks in test mode that each row of the first axis gives the same result by itself. That is up to
    /// the author of a layer, since the first axis may be time.
    pub fn rows_are_independent(mut self) -> Self {
        self.rows = true;
        self
    }

    /// Runs every check.
    #[must_use]
    pub fn run(self) -> Report {
        let mut report = Report::default();
        let single = Subject::new(&*self.layer, &self.inputs, DType::F32);
        for training in [true, false] {
            if let Err(fault) = single.point(0, training) {
                let mode = mode_name(training);
                report
                    .fail(Property::Forward, format!("the layer fails on its input in {mode} mode: {fault}"));
            }
        }
        if !report.passed() {
            return report;
        }
        report.pass(Property::Forward);
        let double = Subject::new(&*self.layer, &self.inputs, DType::F64);
        let exact = if double.point(0, true).is_ok() { &double } else { &single };
        for &property in Property::AFTER_FORWARD {
            if let Some((_, reason)) = self.skipped.iter().find(|(skipped, _)| *skipped == property) {
                report.skip(property, reason);
            } else if property == Property::IndependentRows && !self.rows {
                report.skip(property, "not claimed; see `Check::rows_are_independent`");
            } else {
                let before = report.len();
                match property {
                    Property::Forward => {}
                    Property::Determinism => runs::determinism(&single, &mut report),
                    Property::Gradients => gradients::gradients(exact, &mut report),
                    Property::Precisions => precisions::precisions(&double, &single, &mut report),
                    Property::Views => views::views(exact, &mut report),
                    Property::EmptyBatch => views::empty_batch(&single, &mut report),
                    Property::IndependentRows => views::rows(exact, &mut report),
                    Property::Threads => runs::threads(&single, &mut report),
                    Property::Files => state::files(&single, &mut report),
                    Property::TestMode => state::test_mode(&single, &mut report),
                    Property::Declaration => sharing::declaration(&single, &mut report),
                    Property::Names => sharing::names(&single, &mut report),
                }
                if report.len() == before {
                    report.pass(property);
                }
            }
        }
        report
    }
}
