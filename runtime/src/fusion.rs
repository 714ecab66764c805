//! Stages that apply the function behind them: what `fuses(..)` in the declaration of a layer comes to.

use std::any::Any;

use crate::Error;

/// A stage that can apply some functions to its output itself.
pub trait Fuses {
    /// Makes the stage apply `next`, if that is one of its functions, and says whether it is.
    fn fuse<F>(&mut self, next: &F) -> bool;
}

/// Whether two functions are the same one: each function has a type of its own.
#[must_use]
pub fn is_same_function<F, G>(_: &F, _: &G) -> bool {
    typeid::of::<F>() == typeid::of::<G>()
}

/// Checks, when a layer is compiled, that it can apply the function.
///
/// # Panics
/// Then, if it is a pointer to a function: all of one signature have one type.
pub const fn declared_fusion<O: 'static, F, E>(_: &F)
where
    F: Fn(&O) -> Result<O, E>,
    Error: From<E>,
{
    assert!(size_of::<F>() == 0, "`fuses(..)` takes a function itself, not a pointer to one");
}

/// What a stage has given that was told of the function behind it.
pub enum Ran<Y, Z> {
    /// The function is still to be called, on this.
    Alone(Y),
    /// The function has been applied, too.
    WithNext(Z),
}

/// The identity, if the two types are one.
pub(crate) fn identity<Y: 'static, Z: 'static>() -> Option<fn(Y) -> Z> {
    let identity: fn(Y) -> Y = |value| value;
    (&identity as &dyn Any).downcast_ref::<fn(Y) -> Z>().copied()
}

/// Chooses how to run a stage by what it is: `(&Kind(&stage)).kind()`, with both traits in scope.
pub struct Kind<'a, S>(pub &'a S);

/// The stage does not know of what stands behind it.
pub struct Plain;

/// The stage is to be asked.
pub struct Fusing;

/// For every stage; found last, by one reference more.
pub trait IfPlain {
    /// That it does not fuse.
    fn kind(&self) -> Plain;
}

impl<S> IfPlain for &Kind<'_, S> {
    fn kind(&self) -> Plain {
        Plain
    }
}

/// For stages that fuse.
pub trait IfFusing {
    /// That it does.
    fn kind(&self) -> Fusing;
}

impl<S: Fuses> IfFusing for Kind<'_, S> {
    fn kind(&self) -> Fusing {
        Fusing
    }
}
