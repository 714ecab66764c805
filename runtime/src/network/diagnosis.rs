//! Problems of a network or its training, in words.

use std::fmt;
use std::mem::discriminant;
use std::panic::Location;

use super::GradientFault;

/// Problems of a model or its training, found by [`Model::check`](crate::Model::check) and
/// [`Doctor`](crate::training::Doctor).
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    findings: Vec<Finding>,
}

/// One problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Path of the parameter or of the stage; `input`, `input 2` or `loss` for those outside the network.
    pub path: String,
    /// The layer or function, if it is known.
    pub layer: Option<String>,
    /// Source location of the stage, if it is known.
    pub at: Option<&'static Location<'static>>,
    /// The problem.
    pub symptom: Symptom,
}

/// Place of a possible problem.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: String,
    pub(crate) layer: Option<String>,
    pub(crate) at: Option<&'static Location<'static>>,
}

impl Place {
    /// A place outside the network.
    pub(crate) fn outside(path: impl Into<String>) -> Self {
        Self { path: path.into(), layer: None, at: None }
    }

    pub(crate) fn finding(self, symptom: Symptom) -> Finding {
        Finding { path: self.path, layer: self.layer, at: self.at, symptom }
    }
}

/// A problem of a parameter, a stage, an input or the loss.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Symptom {
    /// An input holds NaN or infinite numbers.
    InputNotFinite,
    /// An input is far from mean 0 and deviation 1.
    InputNotNormalized {
        /// Mean of its elements.
        mean: f64,
        /// Their standard deviation.
        deviation: f64,
    },
    /// A parameter holds NaN or infinite numbers.
    ParameterNotFinite,
    /// The first stage that makes NaN or infinite numbers of finite ones.
    OutputNotFinite,
    /// The loss is NaN or infinite, though the outputs of the network are not.
    LossNotFinite,
    /// The loss could not be computed, for example because a label is out of range.
    LossFailed {
        /// The error.
        error: String,
    },
    /// Units of an activation that give the same number for every sample and position.
    DeadUnits {
        /// Number of units that do.
        dead: usize,
        /// Number of all units.
        of: usize,
    },
    /// Statistics of a batch that are computed over a single sample each.
    OneSample,
    /// A trained parameter has no gradient, or its gradient is all zeros.
    NoGradient {
        /// Which of the two is the case.
        fault: GradientFault,
        /// Path of the stage that lost it, if there is one.
        lost_in: Option<String>,
    },
    /// The first stage, counted backwards, that makes NaN or infinite gradients from finite ones.
    GradientNotFinite {
        /// The first parameter that has such a gradient.
        parameter: String,
    },
    /// The gradient is large compared to the parameter.
    ExplodingGradient {
        /// Norm of the gradient, divided by that of the parameter.
        ratio: f64,
    },
    /// The gradient, divided by its parameter, is small compared to that of a parameter nearer to the loss.
    VanishingGradient {
        /// The ratio of the two.
        ratio: f64,
    },
    /// A parameter or state that is frozen or fixed has changed.
    FrozenChanged,
    /// One step changes the parameter a lot.
    StepTooLarge {
        /// Norm of the step, divided by that of the parameter.
        ratio: f64,
    },
    /// No step changes the parameter by more than its rounding.
    StepTooSmall {
        /// Norm of the largest step, divided by that of the parameter.
        ratio: f64,
    },
}

impl Diagnosis {
    /// The findings; causes mostly come before their consequences.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Adds a finding, unless there already is one of the same kind for the path.
    pub(crate) fn add(&mut self, finding: Finding) {
        let kind = |finding: &Finding| discriminant(&finding.symptom);
        if !self.findings.iter().any(|other| other.path == finding.path && kind(other) == kind(&finding)) {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Symptom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InputNotFinite => f.write_str("holds NaN or infinite numbers"),
            Self::InputNotNormalized { mean, deviation } => write!(
                f,
                "has the mean {mean:.3} and the deviation {deviation:.3}; bring inputs near mean 0 and deviation 1"
            ),
            Self::ParameterNotFinite => f.write_str("holds NaN or infinite numbers"),
            Self::OutputNotFinite => f.write_str("makes NaN or infinite numbers of finite ones"),
            Self::LossNotFinite => {
                f.write_str("is NaN or infinite, though the outputs of the network are finite")
            }
            Self::LossFailed { error } => write!(f, "cannot be computed: {error}"),
            Self::DeadUnits { dead, of } => {
                write!(f, "gives the same number for the whole batch in {dead} of {of} units")
            }
            Self::OneSample => f.write_str(
                "takes statistics of a batch of one sample; use larger batches, or `batch_stat(false)`",
            ),
            Self::NoGradient { fault, lost_in: Some(stage) } => {
                write!(f, "{fault}; the chain broke in `{stage}`")
            }
            Self::NoGradient { fault, lost_in: None } => {
                write!(f, "{fault}; `Model::check` names the stage that lost it, unless it is the loss")
            }
            Self::GradientNotFinite { parameter } => {
                write!(f, "makes NaN or infinite gradients of finite ones, as for `{parameter}`")
            }
            Self::ExplodingGradient { ratio } => {
                write!(f, "got a gradient {ratio:.1e} times as long as the parameter: gradients explode")
            }
            Self::VanishingGradient { ratio } => write!(
                f,
                "got a gradient {ratio:.1e} times as long as those nearer to the loss, beside its parameter: gradients vanish"
            ),
            Self::FrozenChanged => f.write_str("has changed, though it is frozen or fixed"),
            Self::StepTooLarge { ratio } => {
                write!(f, "changes by {ratio:.2} times its length in a step; lower the learning rate")
            }
            Self::StepTooSmall { ratio } => {
                write!(
                    f,
                    "changes by {ratio:.1e} times its length in a step, at most; raise the learning rate"
                )
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.path)?;
        match (&self.layer, self.at) {
            (Some(layer), Some(at)) => write!(f, " ({layer}, {at})")?,
            (Some(layer), None) => write!(f, " ({layer})")?,
            (None, Some(at)) => write!(f, " ({at})")?,
            (None, None) => {}
        }
        write!(f, " {}", self.symptom)
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("nothing is wrong");
        }
        let lines: Vec<String> = self.findings.iter().map(Finding::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}
