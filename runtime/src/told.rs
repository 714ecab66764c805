//! What functions tell of themselves while a run is recorded to be exported: their kind, what they take and give, their arguments.
//!
//! Nobody listens as a rule; then a call costs one look at a flag of the thread.

mod record;
mod view;

use std::cell::{Cell, RefCell};

use candle_core::Tensor;

pub(crate) use record::{Origin, Record, Step};

use crate::Result;

/// What a function is in the terms of NNabla: a type of functions with its inputs and arguments.
///
/// The types and the names of their arguments are those that an `.nnp` file has: `Softmax` with `axis`.
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
    /// A number with a fraction.
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

    /// An input behind the others, if it is there.
    #[must_use]
    pub fn and(mut self, input: Option<&Tensor>) -> Self {
        self.inputs.extend(input.cloned());
        self
    }

    /// An argument.
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

/// What NNabla writes for the end of a slice that is not said.
pub(crate) const UNSAID: isize = 0x7fff_ffff;

/// What a function gives: a tensor or several.
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

/// Whether a run is recorded and what is called now has to tell what it does: a function that has no form of its own then computes
/// itself by functions that have one.
#[inline]
#[must_use]
pub fn listens() -> bool {
    LISTENS.get()
}

/// Runs `run`, a function that is of this form; what it calls is its own business.
///
/// A network that is exported consists of functions of this library, and of whatever is wrapped in this:
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
/// Those of `run`. While a network is exported: [`Error::InvalidArgument`](crate::Error::InvalidArgument) if an input comes from
/// a function that does not say its form.
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

/// Notes that the tensor is the parameter `path`.
pub(crate) fn parameter(tensor: &Tensor, path: impl FnOnce() -> String) {
    if listens() {
        with(|record| record.parameter(tensor, path()));
    }
}

/// Whether it is known how the tensors came about.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if not.
pub(crate) fn check<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
    with(|record| tensors.into_iter().try_for_each(|tensor| record.place(tensor).map(drop))).unwrap_or(Ok(()))
}

/// What `f` gives, with the record of its run.
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
