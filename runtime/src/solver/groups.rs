//! Settings for the parameters whose path matches a pattern.

use crate::pattern::Pattern;
use crate::{Error, Parameters, Result, check};

/// Patterns with their settings, in the order in which they were given.
#[derive(Debug, Default)]
pub(super) struct Groups {
    factors: Vec<(Matcher, f64)>,
    decays: Vec<(Matcher, f64)>,
    frozen: Vec<(Matcher, f64)>,
}

#[derive(Debug)]
struct Matcher {
    text: String,
    pattern: Pattern,
}

/// The settings of one variable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) factor: f64,
    pub(super) decay: Option<f64>,
    pub(super) frozen: bool,
}

impl Groups {
    pub(super) fn learning_rate_factor(&mut self, pattern: &str, factor: f64) {
        self.factors.push((Matcher::new(pattern), factor));
    }

    pub(super) fn decay_rate(&mut self, pattern: &str, rate: f64) {
        self.decays.push((Matcher::new(pattern), rate));
    }

    pub(super) fn frozen(&mut self, pattern: &str) {
        self.frozen.push((Matcher::new(pattern), 1.0));
    }

    fn all(&self) -> [(&'static str, &[(Matcher, f64)]); 3] {
        [("learning_rate_factor", &self.factors), ("decay_rate", &self.decays), ("frozen", &self.frozen)]
    }

    /// Checks the numbers, and that each pattern matches a parameter.
    pub(super) fn check(&self, parameters: &Parameters) -> Result<()> {
        for (setter, settings) in self.all() {
            for (matcher, number) in settings {
                check::within(setter, *number, 0.0..)?;
                if !parameters.paths().any(|path| matcher.pattern.matches(path)) {
                    let nearest = crate::nearest::nearest(&matcher.text, parameters.paths());
                    let nearest =
                        nearest.map(|path| format!("; the nearest is `{path}`")).unwrap_or_default();
                    let reason =
                        format!("must have a pattern that matches a parameter of the solver{nearest}");
                    return Err(Error::invalid(setter, reason, &matcher.text));
                }
            }
        }
        Ok(())
    }

    /// The settings of the variable that has these paths.
    pub(super) fn settings(&self, paths: &[String]) -> Result<Settings> {
        let [factor, decay, frozen] = self.all().map(|(setter, settings)| of_all(setter, settings, paths));
        Ok(Settings { factor: factor?.unwrap_or(1.0), decay: decay?, frozen: frozen?.is_some() })
    }
}

impl Matcher {
    fn new(pattern: &str) -> Self {
        Self { text: pattern.to_owned(), pattern: Pattern::new(pattern) }
    }
}

/// The setting that all paths of one variable share.
fn of_all(setter: &'static str, settings: &[(Matcher, f64)], paths: &[String]) -> Result<Option<f64>> {
    let of = |path: &str| {
        let last = settings.iter().rev().find(|(matcher, _)| matcher.pattern.matches(path));
        last.map(|(_, number)| *number)
    };
    let Some((first, others)) = paths.split_first().filter(|_| !settings.is_empty()) else { return Ok(None) };
    let setting = of(first);
    match others.iter().find(|other| of(other) != setting) {
        None => Ok(setting),
        Some(other) => {
            let reason = format!("must be the same for `{first}` and `{other}`, which are one variable");
            let shown =
                [setting, of(other)].map(|setting| setting.map_or("none".to_owned(), |n| format!("{n:?}")));
            Err(Error::invalid(setter, reason, shown))
        }
    }
}
