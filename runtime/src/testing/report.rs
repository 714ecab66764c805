//! Results of a check.

use std::fmt;

/// A property that layers are checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Property {
    /// It runs on the input, in training and test mode.
    Forward,
    /// Equal seeds give equal parameters and outputs, and nothing is kept outside of the store.
    Determinism,
    /// The gradients of inputs and parameters are those of central differences, in both modes.
    Gradients,
    /// `f32`, `f16` and `bf16` agree with `f64`.
    Precisions,
    /// Inputs with other strides, offsets and repeated elements give the same results.
    Views,
    /// A batch without samples gives an empty result or an error, and leaves the state finite.
    EmptyBatch,
    /// In test mode, each row of the first axis gives the same result by itself.
    IndependentRows,
    /// Several threads get bitwise equal results.
    Threads,
    /// A layer that was saved and loaded computes the same, in every format.
    Files,
    /// In test mode and when frozen, no parameter changes; under `no_grad` there is no graph.
    TestMode,
    /// Parameters and their flags are as declared, and their shapes do not depend on the batch.
    Declaration,
    /// Calls in two scopes share no parameter.
    Names,
}

impl Property {
    pub(super) const AFTER_FORWARD: &[Self] = &[
        Self::Determinism,
        Self::Gradients,
        Self::Precisions,
        Self::Views,
        Self::EmptyBatch,
        Self::IndependentRows,
        Self::Threads,
        Self::Files,
        Self::TestMode,
        Self::Declaration,
        Self::Names,
    ];

    fn way_out(self) -> &'static str {
        match self {
            Self::Forward => "give the check an input that the layer accepts",
            Self::Determinism => {
                "draw from `ParameterStore::current().rng()`, and keep state in parameters with `#[need_grad(false)]`"
            }
            Self::Gradients => {
                "correct the backward rule; if the gradient differs on purpose, skip `Property::Gradients` and test the rule itself"
            }
            Self::Precisions => {
                "make constants in the input's type, as by `inp.dtype()`, and return that type; a layer that rounds to a grid \
                 skips `Property::Precisions`"
            }
            Self::Views => "index by strides, or start with `inp.contiguous()?`",
            Self::EmptyBatch => "return an empty result, or an error that says what is wrong",
            Self::IndependentRows => {
                "compute over the other axes only, or do not claim `rows_are_independent`"
            }
            Self::Threads => "keep state in parameters and change it by `update_state`",
            Self::Files => "keep all state in parameters of a type and a name that files hold",
            Self::TestMode => {
                "move state only if `is_training()`, by `update_state`; take parameters by `param!`"
            }
            Self::Declaration => {
                "declare each parameter in `params(..)`, with sizes that the batch does not change; a layer whose first axis is not \
                 the batch skips `Property::Declaration`"
            }
            Self::Names => "take parameters by `param!`, inside the scope of the layer",
        }
    }
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The property that does not hold.
    pub property: Property,
    /// A description with places and numbers.
    pub what: String,
}

/// The result of [`Check::run`](super::Check::run). Its `Display` lists failures, skipped checks and properties
/// that hold.
#[derive(Clone, Debug, Default)]
pub struct Report {
    failures: Vec<Failure>,
    skipped: Vec<(Property, String)>,
    passed: Vec<Property>,
}

impl Report {
    /// Whether nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// The failures.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// The checks that were skipped, entirely or in part, and why.
    #[must_use]
    pub fn skipped(&self) -> &[(Property, String)] {
        &self.skipped
    }

    /// Panics with the report if a check failed.
    ///
    /// # Panics
    /// See above.
    #[track_caller]
    pub fn assert_passed(&self) {
        assert!(self.passed(), "{self}");
    }

    pub(super) fn fail(&mut self, property: Property, what: impl Into<String>) {
        let what = what.into();
        // Several points often show the same.
        if !self.failures.iter().any(|failure| failure.property == property && failure.what == what) {
            self.failures.push(Failure { property, what });
        }
    }

    pub(super) fn skip(&mut self, property: Property, reason: impl Into<String>) {
        let reason = reason.into();
        if !self.skipped.iter().any(|(skipped, known)| *skipped == property && *known == reason) {
            self.skipped.push((property, reason));
        }
    }

    pub(super) fn pass(&mut self, property: Property) {
        self.passed.push(property);
    }

    /// Number of failures and of what was left out.
    pub(super) fn len(&self) -> usize {
        self.failures.len() + self.skipped.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for (i, Failure { property, what }) in self.failures.iter().enumerate() {
            if last != Some(property) {
                writeln!(f, "{property:?} failed:")?;
                last = Some(property);
            }
            writeln!(f, "  {what}")?;
            if self.failures.get(i + 1).is_none_or(|next| next.property != *property) {
                writeln!(f, "  way out: {}", property.way_out())?;
            }
        }
        for (property, reason) in &self.skipped {
            writeln!(f, "{property:?} skipped: {reason}")?;
        }
        for property in &self.passed {
            writeln!(f, "{property:?} holds")?;
        }
        Ok(())
    }
}
