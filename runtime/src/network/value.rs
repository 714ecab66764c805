//! Values that are passed between stages.

use candle_core::Tensor;

use crate::Result;

/// The output of a stage: one tensor or several.
#[diagnostic::on_unimplemented(
    message = "a stage returns tensors, not `{Self}`",
    note = "a tensor, a tuple, a vector, an array or an option of tensors can follow an arrow"
)]
pub trait Value {
    /// Calls `f` for every tensor, in order.
    fn each<'a>(&'a self, f: &mut dyn FnMut(&'a Tensor));

    /// Replaces every tensor.
    ///
    /// # Errors
    /// Those of `f`.
    fn map(self, f: &mut dyn FnMut(Tensor) -> Result<Tensor>) -> Result<Self>
    where
        Self: Sized;
}

impl Value for Tensor {
    fn each<'a>(&'a self, f: &mut dyn FnMut(&'a Tensor)) {
        f(self);
    }

    fn map(self, f: &mut dyn FnMut(Tensor) -> Result<Tensor>) -> Result<Self> {
        f(self)
    }
}

impl<T: Value> Value for Vec<T> {
    fn each<'a>(&'a self, f: &mut dyn FnMut(&'a Tensor)) {
        self.iter().for_each(|value| value.each(f));
    }

    fn map(self, f: &mut dyn FnMut(Tensor) -> Result<Tensor>) -> Result<Self> {
        self.into_iter().map(|value| value.map(f)).collect()
    }
}

impl<T: Value> Value for Option<T> {
    fn each<'a>(&'a self, f: &mut dyn FnMut(&'a Tensor)) {
        self.iter().for_each(|value| value.each(f));
    }

    fn map(self, f: &mut dyn FnMut(Tensor) -> Result<Tensor>) -> Result<Self> {
        self.map(|value| value.map(f)).transpose()
    }
}

/// The argument of `use(..)`: a tensor or a reference to one, or a tuple of them.
#[diagnostic::on_unimplemented(
    message = "`use` takes a tensor or a tuple of tensors, not `{Self}`",
    label = "this is `{Self}`"
)]
pub trait IntoValue {
    /// The input of the next stage.
    type Value;

    /// Returns the tensors themselves; a clone shares its storage.
    fn into_value(self) -> Self::Value;
}

impl IntoValue for Tensor {
    type Value = Self;

    fn into_value(self) -> Self {
        self
    }
}

impl<T: Clone> IntoValue for &T {
    type Value = T;

    fn into_value(self) -> T {
        self.clone()
    }
}

macro_rules! tuples {
    ($($name:ident)+) => {
        impl<$($name: Value),+> Value for ($($name,)+) {
            #[allow(non_snake_case)] // the type parameters name the members
            fn each<'a>(&'a self, f: &mut dyn FnMut(&'a Tensor)) {
                let ($($name,)+) = self;
                $($name.each(f);)+
            }

            #[allow(non_snake_case)]
            fn map(self, f: &mut dyn FnMut(Tensor) -> Result<Tensor>) -> Result<Self> {
                let ($($name,)+) = self;
                Ok(($($name.map(f)?,)+))
            }
        }

        impl<$($name: IntoValue),+> IntoValue for ($($name,)+) {
            type Value = ($($name::Value,)+);

            #[allow(non_snake_case)]
            fn into_value(self) -> Self::Value {
                let ($($name,)+) = self;
                ($($name.into_value(),)+)
            }
        }
    };
}

tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
