//! What stands between arrows.

use super::text::paths;

/// A stage with what may stand around it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) stage: Stage,
    /// The labels around it and its own, outermost first.
    pub(super) scope: Vec<String>,
    /// Whether its parameters are used elsewhere, too.
    pub(super) shared: bool,
    /// The value that gets a name here.
    pub(super) bind: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    /// A layer or a function; whether it has parameters that its label is a part of the path of.
    Call {
        callee: String,
        given: Vec<String>,
        options: Vec<(&'static str, String)>,
        is_layer: bool,
    },
    Closure(String),
    Use(String),
    Join {
        kind: Join,
        branches: Vec<Vec<Step>>,
    },
    Block(Vec<Step>),
    For {
        first: usize,
        end: usize,
        body: Vec<Step>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    Residual,
    Add,
    Mul,
    Concat(i64),
}

impl Step {
    pub(super) fn new(stage: Stage) -> Self {
        Self { stage, scope: Vec::new(), shared: false, bind: None }
    }
}

impl Stage {
    /// The chains inside.
    pub(super) fn chains_mut(&mut self) -> Vec<&mut Vec<Step>> {
        match self {
            Self::Join { branches, .. } => branches.iter_mut().collect(),
            Self::Block(steps) | Self::For { body: steps, .. } => vec![steps],
            Self::Call { .. } | Self::Closure(_) | Self::Use(_) => Vec::new(),
        }
    }

    pub(super) fn chains(&self) -> Vec<&Vec<Step>> {
        match self {
            Self::Join { branches, .. } => branches.iter().collect(),
            Self::Block(steps) | Self::For { body: steps, .. } => vec![steps],
            Self::Call { .. } | Self::Closure(_) | Self::Use(_) => Vec::new(),
        }
    }

    /// Whether it asks for parameters by their whole path.
    pub(super) fn names_paths(&self) -> bool {
        match self {
            Self::Call { given, options, .. } => given
                .iter()
                .chain(options.iter().map(|(_, value)| value))
                .any(|text| paths(text).next().is_some()),
            Self::Closure(text) => paths(text).next().is_some(),
            Self::Use(_) => false,
            _ => self.chains().into_iter().flatten().any(|step| step.stage.names_paths()),
        }
    }
}
