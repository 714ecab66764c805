//! Metrics of classifiers: accuracy, top-n accuracy, and the confusion matrix.
//!
//! ```
//! use layerfn::metrics::Confusion;
//! use layerfn::prelude::*;
//!
//! let logits = Tensor::new(&[[2f32, 1., 0.], [0., 3., 1.], [1., 0., 0.], [0., 0., 1.]], &Device::Cpu)?;
//! let labels = Tensor::new(&[0u32, 1, 1, 2], &Device::Cpu)?;
//! let mut confusion = Confusion::new(3);
//! confusion.add(&logits, &labels)?;
//! assert_eq!(confusion.accuracy(), 0.75);
//! assert_eq!(confusion.count(1, 0), 1); // a 1 that was taken for a 0
//! assert_eq!((confusion.recall(1), confusion.precision(0)), (0.5, 0.5));
//! # Ok::<(), layerfn::Error>(())
//! ```

use candle_core::{DType, Tensor};

use crate::{Error, Result, check};

/// The fraction of rows whose label has the largest score; of equal scores, the first one counts.
///
/// # Shapes
/// - `scores`: (batch, classes); `labels`: (batch,), integers. Rows with a negative label are ignored.
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes do not match, a label is not below the number of classes, or no row
/// is left.
pub fn accuracy(scores: &Tensor, labels: &Tensor) -> Result<f64> {
    top_n_accuracy(scores, labels, 1)
}

/// The fraction of rows whose label is among the `n` largest scores; of equal scores, earlier ones come first.
///
/// # Shapes
/// As [`accuracy`].
///
/// # Errors
/// As [`accuracy`].
///
/// # Example
/// ```
/// use layerfn::prelude::*;
///
/// let scores = Tensor::new(&[[0.1f32, 0.7, 0.2], [0.5, 0.3, 0.2]], &Device::Cpu)?;
/// let labels = Tensor::new(&[2u32, 0], &Device::Cpu)?;
/// assert_eq!(layerfn::metrics::top_n_accuracy(&scores, &labels, 1)?, 0.5);
/// assert_eq!(layerfn::metrics::top_n_accuracy(&scores, &labels, 2)?, 1.0);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn top_n_accuracy(scores: &Tensor, labels: &Tensor, n: usize) -> Result<f64> {
    let (scores, labels) = rows(scores, labels)?;
    let counted = scores.iter().zip(&labels).filter_map(|(row, &label)| Some((row, label?)));
    let (mut right, mut all) = (0usize, 0usize);
    for (row, label) in counted {
        all += 1;
        right += usize::from(place(row, label) < n);
    }
    match all {
        0 => Err(Error::invalid("labels", "must have one that is at least 0", labels.len())),
        _ => Ok(right as f64 / all as f64),
    }
}

/// A confusion matrix: how often each class was predicted as each class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    n_classes: usize,
    /// In row-major order: the label, then the prediction.
    counts: Vec<u64>,
}

impl Confusion {
    /// An empty matrix for `n_classes` classes.
    #[must_use]
    pub fn new(n_classes: usize) -> Self {
        Self { n_classes, counts: vec![0; n_classes.saturating_mul(n_classes)] }
    }

    /// Counts the predictions for a batch: in each row, the class with the largest score.
    ///
    /// # Shapes
    /// As [`accuracy`], with the number of classes given to [`new`](Self::new).
    ///
    /// # Errors
    /// As [`accuracy`]; nothing is counted then.
    pub fn add(&mut self, scores: &Tensor, labels: &Tensor) -> Result<()> {
        let (scores, labels) = rows(scores, labels)?;
        if let Some(row) = scores.iter().find(|row| row.len() != self.n_classes) {
            return Err(Error::invalid(
                "scores",
                format!("must be for {} classes", self.n_classes),
                row.len(),
            ));
        }
        for (row, label) in scores.iter().zip(labels) {
            if let Some(label) = label {
                self.counts[label * self.n_classes + best(row)] += 1;
            }
        }
        Ok(())
    }

    /// The number of classes.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// How often the class `label` was predicted as the class `answer`; 0 if there are no such classes.
    #[must_use]
    pub fn count(&self, label: usize, answer: usize) -> u64 {
        if label < self.n_classes && answer < self.n_classes {
            self.counts[label * self.n_classes + answer]
        } else {
            0
        }
    }

    /// The number of predictions.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The fraction of correct predictions; NaN if there are none. The other metrics do the same.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        (0..self.n_classes).map(|class| self.count(class, class)).sum::<u64>() as f64 / self.total() as f64
    }

    /// The fraction of the examples of a class that were found.
    #[must_use]
    pub fn recall(&self, class: usize) -> f64 {
        let all: u64 = (0..self.n_classes).map(|answer| self.count(class, answer)).sum();
        self.count(class, class) as f64 / all as f64
    }

    /// The fraction of the predictions of a class that were correct.
    #[must_use]
    pub fn precision(&self, class: usize) -> f64 {
        let all: u64 = (0..self.n_classes).map(|label| self.count(label, class)).sum();
        self.count(class, class) as f64 / all as f64
    }

    /// The harmonic mean of [`precision`](Self::precision) and [`recall`](Self::recall).
    #[must_use]
    pub fn f1(&self, class: usize) -> f64 {
        let missed: u64 =
            (0..self.n_classes).map(|other| self.count(class, other) + self.count(other, class)).sum();
        2.0 * self.count(class, class) as f64 / missed as f64
    }
}

/// Formats a table with a row for each class: its predictions, recall and precision in percent.
impl std::fmt::Display for Confusion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.counts.iter().max().map_or(1, |most| most.to_string().len()).max(3);
        write!(f, "{:>6}", "")?;
        for answer in 0..self.n_classes {
            write!(f, " {answer:>width$}")?;
        }
        writeln!(f, "  recall  precision")?;
        for label in 0..self.n_classes {
            write!(f, "{label:>6}")?;
            for answer in 0..self.n_classes {
                write!(f, " {:>width$}", self.count(label, answer))?;
            }
            let (recall, precision) = (100.0 * self.recall(label), 100.0 * self.precision(label));
            writeln!(f, "  {recall:>5.1}%     {precision:>5.1}%")?;
        }
        Ok(())
    }
}

/// The label of each row of scores, if it counts.
type Labels = Vec<Option<usize>>;

/// Rows of scores, and their labels.
fn rows(scores: &Tensor, labels: &Tensor) -> Result<(Vec<Vec<f64>>, Labels)> {
    check::float("scores", scores)?;
    let (batch, n_classes) = match *scores.dims() {
        [batch, n_classes] if n_classes > 0 => (batch, n_classes),
        _ => return Err(Error::invalid("scores", "must be of shape (batch, classes)", scores.dims())),
    };
    if labels.elem_count() != batch || !labels.dtype().is_int() {
        let reason = format!("must be {batch} whole numbers, as there are {batch} rows of scores");
        return Err(Error::invalid("labels", reason, (labels.dims(), labels.dtype())));
    }
    let labels = labels.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    if let Some(label) = labels.iter().find(|&&label| label >= n_classes as i64) {
        return Err(Error::invalid(
            "labels",
            format!("must be below {n_classes}, the number of classes"),
            label,
        ));
    }
    let labels = labels.into_iter().map(|label| usize::try_from(label).ok()).collect();
    Ok((scores.to_dtype(DType::F64)?.to_vec2()?, labels))
}

/// The number of scores that rank before that of `label`.
fn place(row: &[f64], label: usize) -> usize {
    let own = row[label];
    row.iter()
        .enumerate()
        .filter(|&(n, &score)| score > own || (score == own && n < label) || own.is_nan())
        .count()
}

/// The first of the largest scores.
fn best(row: &[f64]) -> usize {
    row.iter().enumerate().fold(0, |best, (n, &score)| if score > row[best] { n } else { best })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tensors<const N: usize>(scores: [[f32; 3]; N], labels: &[i64]) -> (Tensor, Tensor) {
        (Tensor::new(&scores, &Device::Cpu).unwrap(), Tensor::new(labels, &Device::Cpu).unwrap())
    }

    #[test]
    fn ties_ignored_labels_and_nan() {
        let (scores, labels) = tensors([[1., 1., 0.], [1., 1., 0.], [0., 0., 5.]], &[0, 1, -1]);
        assert_eq!(accuracy(&scores, &labels).unwrap(), 0.5);
        assert_eq!(top_n_accuracy(&scores, &labels, 2).unwrap(), 1.0);
        let (scores, labels) = tensors([[f32::NAN; 3]], &[1]);
        assert_eq!(accuracy(&scores, &labels).unwrap(), 0.0);
        let (_, none) = tensors([[0.0; 3]], &[-1]);
        assert!(accuracy(&scores, &none).unwrap_err().to_string().contains("at least 0"));
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_nothing_is_counted() {
        let (scores, labels) = tensors([[1., 0., 0.], [0., 1., 0.]], &[0, 3]);
        let mut confusion = Confusion::new(3);
        let error = confusion.add(&scores, &labels).unwrap_err().to_string();
        assert_eq!(error, "`labels` must be below 3, the number of classes, got 3");
        assert_eq!(confusion.total(), 0);
        assert!(Confusion::new(4).add(&scores, &Tensor::new(&[0u32, 1], &Device::Cpu).unwrap()).is_err());
        assert!(accuracy(&scores, &Tensor::new(&[0u32], &Device::Cpu).unwrap()).is_err());
        assert!(accuracy(&scores, &Tensor::new(&[0f32, 1.], &Device::Cpu).unwrap()).is_err());
    }

    #[test]
    fn the_table_has_a_row_for_each_class() {
        let (scores, labels) = tensors([[1., 0., 0.], [1., 0., 0.], [0., 0., 1.]], &[0, 1, 2]);
        let mut confusion = Confusion::new(3);
        confusion.add(&scores, &labels).unwrap();
        assert_eq!(confusion.f1(0), 2.0 / 3.0);
        let text = confusion.to_string();
        assert_eq!(text.lines().count(), 4);
        assert_eq!(text.lines().nth(2).unwrap(), "     1   1   0   0    0.0%       NaN%");
    }
}
