//! Stages that apply the next function themselves, as declared by `fuses(..)` of a layer.

use std::any::Any;

use crate::Error;

/// A stage that can apply some functions to its output itself.
pub trait Fuses {
    /// Makes the stage apply `next`, if that is one of its functions, and returns whether it is.
    fn fuse<F>(&mut self, next: &F) -> bool;
}

/// Whether two functions are the same; each function has its own type.
#[must_use]
pub fn is_same_function<F, G>(_: &F, _: &G) -> bool {
    typeid::of::<F>() == typeid::of::<G>()
}

/// Checks, when a layer is compiled, that it can apply the function.
///
/// # Panics
/// If it is a function pointer, since all functions of one signature have the same pointer type.
pub const fn declared_fusion<O: 'static, F, E>(_: &F)
where
    F: Fn(&O) -> Result<O, E>,
    Error: From<E>,
{
    assert!(size_of::<F>() == 0, "`fuses(..)` takes a function itself, not a pointer to one");
}

/// The result of a stage that was told the function after it.
pub enum Ran<Y, Z> {
    /// The function must still be applied to this.
    Alone(Y),
    /// The function has been applied, too.
    WithNext(Z),
}

/// The identity, if the two types are one.
pub(crate) fn identity<Y: 'static, Z: 'static>() -> Option<fn(Y) -> Z> {
    let identity: fn(Y) -> Y = |value| value;
    (&identity as &dyn Any).downcast_ref::<fn(Y) -> Z>().copied()
}

/// Chooses how to run a stage by its type: `(&Kind(&stage)).kind()`, with both traits in scope.
pub struct Kind<'a, S>(pub &'a S);

/// The stage does not support fusion.
pub struct Plain;

/// The stage may fuse.
pub struct Fusing;

/// For every stage; method resolution finds it last, since it needs one more reference.
pub trait IfPlain {
    /// Returns that it does not fuse.
    fn kind(&self) -> Plain;
}

impl<S> IfPlain for &Kind<'_, S> {
    fn kind(&self) -> Plain {
        Plain
    }
}

/// For stages that fuse.
pub trait IfFusing {
    /// Returns that it does.
    fn kind(&self) -> Fusing;
}

impl<S: Fuses> IfFusing for Kind<'_, S> {
    fn kind(&self) -> Fusing {
        Fusing
    }
}
