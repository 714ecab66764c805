//! Functions describe themselves while a run is recorded for an export: their kind, inputs, outputs and
//! arguments.
//!
//! Usually there is no recorder; then a call only checks a flag of the thread.

mod record;
mod view;

use std::cell::{Cell, RefCell};

use candle_core::Tensor;

pub(crate) use record::{Origin, Record, Step};

use crate::Result;

/// A function in NNabla's terms: a type of function with its inputs and arguments.
///
/// The types and the names of their arguments are those of `.nnp` files: `Softmax` with `axis`.
#[derive(Clone, Debug)]
pub struct Form {
    kind: &'static str,
    inputs: Vec<Tensor>,
    arguments: Vec<(&'static str, Argument)>,
}

/// An argument of a [`Form`].
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// True or false.
    Flag(bool),
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Number(f64),
    /// A name, such as that of a mode.
    Text(&'static str),
    /// Integers: axes, or the sizes of a shape.
    Integers(Vec<i64>),
}

impl Form {
    /// A function of this type and these inputs.
    #[must_use]
    pub fn new(kind: &'static str, inputs: &[&Tensor]) -> Self {
        let inputs = inputs.iter().copied().cloned().collect();
        Self { kind, inputs, arguments: Vec::new() }
    }

    /// Adds an optional input after the others.
    #[must_use]
    pub fn and(mut self, input: Option<&Tensor>) -> Self {
        self.inputs.extend(input.cloned());
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Argument>) -> Self {
        self.arguments.push((name, value.into()));
        self
    }
}

macro_rules! argument_from {
    ($($from:ty: $value:ident => $argument:expr;)*) => {$(
        impl From<$from> for Argument {
            fn from($value: $from) -> Self {
                $argument
            }
        }
    )*};
}
argument_from! {
    bool: value => Self::Flag(value);
    f64: value => Self::Number(value);
    i32: value => Self::Integer(i64::from(value));
    i64: value => Self::Integer(value);
    usize: value => Self::Integer(value as i64);
    &'static str: value => Self::Text(value);
    Vec<i64>: values => Self::Integers(values);
    Vec<usize>: values => Self::from(&values[..]);
    &[usize]: values => Self::Integers(values.iter().map(|&value| value as i64).collect());
    &[isize]: values => Self::Integers(values.iter().map(|&value| value as i64).collect());
}

/// The value that NNabla writes for an omitted end of a slice.
pub(crate) const UNSAID: isize = 0x7fff_ffff;

/// The output of a function: one tensor or several.
pub trait Told {
    /// The tensors, in order.
    fn tensors(&self) -> Vec<&Tensor>;
}

impl Told for Tensor {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![self]
    }
}

impl Told for (Tensor, Tensor) {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![&self.0, &self.1]
    }
}

impl Told for (Tensor, Tensor, Tensor) {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![&self.0, &self.1, &self.2]
    }
}

impl Told for Vec<Tensor> {
    fn tensors(&self) -> Vec<&Tensor> {
        self.iter().collect()
    }
}

thread_local! {
    static LISTENS: Cell<bool> = const { Cell::new(false) };
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

/// Whether a run is recorded and functions have to describe themselves; one that has no NNabla equivalent is
/// then computed by functions that have one.
#[inline]
#[must_use]
pub fn listens() -> bool {
    LISTENS.get()
}

/// Runs `run`, a function of this form; functions that it calls are not recorded.
///
/// A network can be exported if it consists of functions of this library and of calls wrapped in this:
///
/// ```
/// use layerfn::export::{Form, told};
/// use layerfn::prelude::*;
///
/// /// `max(x, 0)`, by candle.
/// fn my_relu(x: &Tensor) -> Result<Tensor> {
///     told(|| Form::new("ReLU", &[x]), || Ok(x.relu()?))
/// }
///
/// let model = network! { affine(4) -> my_relu }.init((1, 3))?;
/// let dir = tempfile::tempdir()?;
/// model.export_nnp(dir.path().join("model.nnp"), [(1, 3)])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of `run`. While a network is exported: [`Error::InvalidArgument`](crate::Error::InvalidArgument) if an
/// input comes from a function that is not recorded.
#[inline]
pub fn told<T: Told>(form: impl FnOnce() -> Form, run: impl FnOnce() -> Result<T>) -> Result<T> {
    if listens() { heard(form(), run) } else { run() }
}

#[cold]
fn heard<T: Told>(form: Form, run: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Listening;
    impl Drop for Listening {
        fn drop(&mut self) {
            LISTENS.set(true);
        }
    }
    let inputs = with(|record| form.inputs.iter().map(|input| record.place(input)).collect());
    let inputs: Vec<usize> = inputs.unwrap_or_else(|| Ok(Vec::new()))?;
    let result = {
        LISTENS.set(false);
        let _again = Listening;
        run()?
    };
    with(|record| record.push(form.kind, inputs, &result.tensors(), form.arguments));
    Ok(result)
}

fn with<R>(f: impl FnOnce(&mut Record) -> R) -> Option<R> {
    RECORD.with_borrow_mut(|record| record.as_mut().map(f))
}

/// Records that the tensor is the parameter `path`.
pub(crate) fn parameter(tensor: &Tensor, path: impl FnOnce() -> String) {
    if listens() {
        with(|record| record.parameter(tensor, path()));
    }
}

/// Checks that the origin of the tensors is known.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if it is not.
pub(crate) fn check<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
    with(|record| tensors.into_iter().try_for_each(|tensor| record.place(tensor).map(drop))).unwrap_or(Ok(()))
}

/// Runs `f` and returns its result and the record of the run.
pub(crate) fn listen<R>(record: Record, f: impl FnOnce() -> R) -> (R, Record) {
    struct Before(bool, Option<Record>);
    impl Drop for Before {
        fn drop(&mut self) {
            LISTENS.set(self.0);
            RECORD.set(self.1.take());
        }
    }
    let _before = Before(LISTENS.replace(true), RECORD.replace(Some(record)));
    let result = f();
    let record = RECORD.take().unwrap_or_default();
    (result, record)
}
