//! Changes of a checkpoint, so that it matches a model that was declared elsewhere.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use candle_core::Tensor;

use super::Checkpoint;
use super::entry::{Entries, Entry, Note};
use crate::pattern::Pattern;
use crate::{Error, Result};

/// A change of the parameters of a [`Checkpoint`], for [`Checkpoint::change`].
///
/// It is written as a function of patterns, in which `*` and `?` match characters within a component of a path
/// and `**` any number of components. In a new path, each wildcard is replaced by the match of the one at the
/// same position.
///
/// | rule | does |
/// |---|---|
/// | `drop(**.num_batches_tracked)` | leaves parameters out |
/// | `rename(layer1.*, block1/*)` | gives parameters another path |
/// | `transpose(fc.weight)` | swaps the two axes of matrices |
/// | `permute(w, 2, 0, 1)` | puts the axes in this order |
/// | `reshape(w, 4, 6)` | gives another shape with as many elements |
/// | `split(*.in_proj_weight, 0, *.q, *.k, *.v)` | cuts along an axis into parts of equal size |
/// | `merge(*.q, *.k, *.v, 0, *.qkv)` | joins along an axis |
/// | `channels_first(fc/kernel, 7, 5)` | sorts the rows of a matrix, which take images of 7 × 5 flattened with the channels last, so that they take them with the channels first |
/// | `channels_last(fc/affine/W, 7, 5)` | the reverse |
/// | `heads(att/*/*, 8)` | gives the number of attention heads, which [`to_keras`](Checkpoint::to_keras) needs |
/// | `multiplier(dw/*/W, 2)` | gives the number of maps that a depthwise convolution makes of each input map, if it is not 1, for `to_keras` |
///
/// ```
/// use layerfn::checkpoint::Rule;
///
/// let rule: Rule = "transpose(fc.weight)".parse()?;
/// assert_eq!(rule.to_string(), "transpose(fc.weight)");
/// assert!("turn(fc.weight)".parse::<Rule>().unwrap_err().to_string().contains("`drop`, `rename`"));
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rule {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Drop(Pattern),
    Rename(Pattern, Pattern),
    Transpose(Pattern),
    Permute(Pattern, Vec<usize>),
    Reshape(Pattern, Vec<usize>),
    Split(Pattern, usize, Vec<Pattern>),
    /// The first name determines the others.
    Merge(Vec<Pattern>, usize, Pattern),
    /// Takes images of these sizes; true if the channels come first afterwards.
    Flattened(Pattern, Vec<usize>, bool),
    Heads(Pattern, NonZeroUsize),
    Multiplier(Pattern, NonZeroUsize),
}

const FORMS: [(&str, &str); 11] = [
    ("drop", "drop(PATTERN)"),
    ("rename", "rename(FROM, TO)"),
    ("transpose", "transpose(PATTERN)"),
    ("permute", "permute(PATTERN, AXIS, AXIS, ..)"),
    ("reshape", "reshape(PATTERN, SIZE, ..)"),
    ("split", "split(FROM, AXIS, TO, TO, ..)"),
    ("merge", "merge(FROM, FROM, .., AXIS, TO)"),
    ("channels_first", "channels_first(PATTERN, SIZE, ..)"),
    ("channels_last", "channels_last(PATTERN, SIZE, ..)"),
    ("heads", "heads(PATTERN, NUMBER)"),
    ("multiplier", "multiplier(PATTERN, NUMBER)"),
];

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let call = text.strip_suffix(')').and_then(|text| text.split_once('('));
        let form = call.and_then(|(name, _)| FORMS.iter().find(|(known, _)| *known == name.trim()));
        let (Some((_, arguments)), Some((name, form))) = (call, form) else {
            let known = FORMS.map(|(name, _)| format!("`{name}`")).join(", ");
            return Err(Error::invalid("rule", format!("must be a call of {known}"), text));
        };
        let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
        let kind = if arguments.contains(&"") { None } else { Kind::of(name, &arguments) };
        match kind {
            Some(kind) => Ok(Self { text: text.to_owned(), kind }),
            None => Err(Error::invalid("rule", format!("must read {form}"), text)),
        }
    }
}

impl Kind {
    fn of(name: &str, arguments: &[&str]) -> Option<Self> {
        let numbers =
            |texts: &[&str]| texts.iter().map(|text| text.parse().ok()).collect::<Option<Vec<usize>>>();
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text)).collect::<Vec<_>>();
        let first = || arguments.first().map(|text| Pattern::new(text));
        match (name, arguments) {
            ("drop", [_]) => Some(Self::Drop(first()?)),
            ("rename", [_, to]) => Some(Self::Rename(first()?, Pattern::new(to))),
            ("transpose", [_]) => Some(Self::Transpose(first()?)),
            ("permute", [_, axes @ ..]) => {
                let axes = numbers(axes)?;
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                sorted.into_iter().eq(0..axes.len()).then_some(Self::Permute(first()?, axes))
            }
            ("reshape", [_, sizes @ ..]) => Some(Self::Reshape(first()?, numbers(sizes)?)),
            ("channels_first" | "channels_last", [_, sizes @ ..]) if !sizes.is_empty() => {
                Some(Self::Flattened(first()?, numbers(sizes)?, name == "channels_first"))
            }
            ("heads", [_, number]) => Some(Self::Heads(first()?, number.parse().ok()?)),
            ("multiplier", [_, number]) => Some(Self::Multiplier(first()?, number.parse().ok()?)),
            ("split", [_, axis, to @ ..]) if to.len() > 1 => {
                Some(Self::Split(first()?, axis.parse().ok()?, patterns(to)))
            }
            ("merge", [from @ .., axis, to]) if from.len() > 1 => {
                Some(Self::Merge(patterns(from), axis.parse().ok()?, Pattern::new(to)))
            }
            _ => None,
        }
    }

    /// Changes the entries in place, and describes each change.
    fn change(&self, entries: Vec<Entry>) -> std::result::Result<(Vec<Entry>, Vec<String>), String> {
        if let Self::Merge(from, axis, to) = self {
            return merged(&entries, from, *axis, to);
        }
        let (mut changed, mut lines) = (Vec::new(), Vec::new());
        for entry in entries {
            let pattern = match self {
                Self::Drop(pattern)
                | Self::Rename(pattern, _)
                | Self::Transpose(pattern)
                | Self::Permute(pattern, _)
                | Self::Reshape(pattern, _)
                | Self::Flattened(pattern, ..)
                | Self::Heads(pattern, _)
                | Self::Multiplier(pattern, _)
                | Self::Split(pattern, ..) => pattern,
                Self::Merge(..) => continue,
            };
            let path = entry.path().to_owned();
            let Some(captures) = pattern.captures(&path) else {
                changed.push(entry);
                continue;
            };
            let (before, fault) = (entry.tensor(), |error: candle_core::Error| format!("`{path}`: {error}"));
            let dims = before.dims().to_vec();
            match self {
                Self::Drop(_) => lines.push(format!("`{path}` {dims:?} is left out")),
                Self::Rename(_, to) => {
                    let to = to.filled(&captures);
                    lines.push(format!("`{path}` is called `{to}`"));
                    changed.push(entry.called(to));
                }
                Self::Split(_, axis, to) => {
                    let size = dims.get(*axis).copied().unwrap_or_default();
                    if size == 0 || !size.is_multiple_of(to.len()) {
                        let n = to.len();
                        return Err(format!(
                            "`{path}` {dims:?} can't be cut into {n} equal parts along axis {axis}"
                        ));
                    }
                    let size = size / to.len();
                    let parts: Vec<String> = to.iter().map(|to| to.filled(&captures)).collect();
                    for (i, part) in parts.iter().enumerate() {
                        let values = before.narrow(*axis, i * size, size).map_err(fault)?;
                        changed.push(entry.holding(part.clone(), &values).map_err(fault)?);
                    }
                    let parts: Vec<String> = parts.iter().map(|part| format!("`{part}`")).collect();
                    lines.push(format!("`{path}` {dims:?} is cut into {}", parts.join(", ")));
                }
                Self::Flattened(_, sizes, is_first) => {
                    let values = flattened(before, sizes, *is_first).ok_or_else(|| {
                        format!(
                            "`{path}` has the shape {dims:?}; it must be a matrix with some rows for each place in {sizes:?}"
                        )
                    })?;
                    let place = if *is_first { "first" } else { "last" };
                    lines.push(format!(
                        "`{path}` {dims:?} takes images of {sizes:?} with the channels {place}"
                    ));
                    let note = Note::Flattened { is_first: *is_first };
                    changed.push(entry.holding(path.clone(), &values).map_err(fault)?.noted(note));
                }
                Self::Heads(_, number) => {
                    lines.push(format!("`{path}` {dims:?} has {number} heads"));
                    changed.push(entry.noted(Note::Heads(*number)));
                }
                Self::Multiplier(_, number) => {
                    lines.push(format!("`{path}` {dims:?} makes {number} maps of each input map"));
                    changed.push(entry.noted(Note::Multiplier(*number)));
                }
                Self::Transpose(_) | Self::Permute(..) | Self::Reshape(..) | Self::Merge(..) => {
                    let values = self.arranged(before).ok_or_else(|| {
                        format!("`{path}` has the shape {dims:?}, which the rule does not fit")
                    })?;
                    lines.push(format!("`{path}` {dims:?} becomes {:?}", values.dims()));
                    changed.push(entry.holding(path.clone(), &values).map_err(fault)?);
                }
            }
        }
        Ok((changed, lines))
    }

    fn arranged(&self, values: &Tensor) -> Option<Tensor> {
        match self {
            Self::Transpose(_) if values.rank() == 2 => values.t().ok(),
            Self::Permute(_, axes) if axes.len() == values.rank() => values.permute(axes.clone()).ok(),
            Self::Reshape(_, dims) => values.reshape(&dims[..]).ok(),
            _ => None,
        }
    }
}

/// Reorders the rows of a matrix, which take flattened images of these sizes; `is_first` says whether the
/// channels come first in it.
fn flattened(values: &Tensor, sizes: &[usize], is_first: bool) -> Option<Tensor> {
    let (rows, columns) = values.dims2().ok()?;
    let places = sizes.iter().try_fold(1usize, |places, &size| places.checked_mul(size))?;
    let channels = rows.checked_div(places).filter(|channels| channels * places == rows)?;
    let before = if is_first { (places, channels, columns) } else { (channels, places, columns) };
    values.reshape(before).ok()?.transpose(0, 1).ok()?.reshape((rows, columns)).ok()
}

fn merged(
    entries: &[Entry],
    from: &[Pattern],
    axis: usize,
    to: &Pattern,
) -> std::result::Result<(Vec<Entry>, Vec<String>), String> {
    let places: HashMap<&str, usize> =
        entries.iter().enumerate().map(|(place, entry)| (entry.path(), place)).collect();
    let (mut made, mut used, mut lines) = (HashMap::new(), HashSet::new(), Vec::new());
    for (place, entry) in entries.iter().enumerate() {
        let path = entry.path();
        let Some(captures) = from[0].captures(path) else { continue };
        let paths: Vec<String> = from.iter().map(|from| from.filled(&captures)).collect();
        let mut parts = Vec::new();
        for path in &paths {
            let place = *places.get(&path[..]).ok_or_else(|| format!("`{path}` is missing"))?;
            used.insert(place);
            parts.push(entries[place].tensor());
        }
        let fault = |error: candle_core::Error| format!("`{path}` can't be joined: {error}");
        let to = to.filled(&captures);
        let values = Tensor::cat(&parts, axis).map_err(fault)?;
        lines.push(format!("`{}` become `{to}` {:?}", paths.join("`, `"), values.dims()));
        made.insert(place, entry.holding(to, &values).map_err(fault)?);
    }
    let kept = |(place, entry): (usize, &Entry)| {
        made.remove(&place).or_else(|| (!used.contains(&place)).then(|| entry.clone()))
    };
    let entries = entries.iter().enumerate().filter_map(kept).collect();
    Ok((entries, lines))
}

impl Checkpoint {
    /// Applies `rules`, each to the result of those before it; [`changes`](Self::changes) describes what they
    /// did.
    ///
    /// ```
    /// use layerfn::checkpoint::{Checkpoint, Rule};
    /// use layerfn::{get_all_parameters, get_parameter_or_create};
    ///
    /// get_parameter_or_create("attn.qkv").shape((6, 2)).call()?;
    /// get_parameter_or_create("bn.num_batches_tracked").shape(1).call()?;
    /// let rules = ["split(*.qkv, 0, *.q, *.k, *.v)", "transpose(*.q)", "drop(**.num_batches_tracked)"];
    /// let rules = rules.iter().map(|rule| rule.parse()).collect::<layerfn::Result<Vec<Rule>>>()?;
    /// let checkpoint = Checkpoint::from_parameters(&get_all_parameters())?.change(&rules)?;
    /// assert_eq!(checkpoint.entries()[0].path(), "attn.q");
    /// assert_eq!(checkpoint.changes()[1], "`attn.q` [2, 2] becomes [2, 2]");
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a rule matches nothing or cannot be applied to a match, or if two parameters
    /// get the same path.
    pub fn change(mut self, rules: &[Rule]) -> Result<Self> {
        for rule in rules {
            let fault = |reason: String| Error::Checkpoint {
                file: self.origin.clone(),
                reason: format!("{rule}: {reason}"),
            };
            let (changed, lines) = rule.kind.change(self.entries.as_slice().to_vec()).map_err(fault)?;
            if lines.is_empty() {
                return Err(fault("no parameter matches".to_owned()));
            }
            let mut entries = Entries::new();
            for entry in changed {
                entries.push(entry).map_err(|fault| fault.into_error("change", &self.origin))?;
            }
            self.entries = entries;
            self.is_renamed |=
                matches!(rule.kind, Kind::Drop(_) | Kind::Rename(..) | Kind::Split(..) | Kind::Merge(..));
            self.changes.extend(lines);
        }
        Ok(self)
    }
}
