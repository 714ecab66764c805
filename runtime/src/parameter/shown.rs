//! Short texts of arguments, for pictures of networks.

use crate::{Axes, Axis, Dims, PerAxis};

/// A type whose values are shown in pictures.
pub trait Show {
    /// The value, such as `5×5`.
    fn show(&self) -> String;
}

macro_rules! as_displayed {
    ($($type:ty)+) => {
        $(impl Show for $type {
            fn show(&self) -> String {
                self.to_string()
            }
        })+
    };
}

as_displayed!(bool u8 u16 u32 u64 usize i8 i16 i32 i64 isize f32 f64 str String Axis Axes);

impl Show for [usize] {
    fn show(&self) -> String {
        self.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
    }
}

impl Show for Vec<usize> {
    fn show(&self) -> String {
        self[..].show()
    }
}

impl Show for Dims {
    fn show(&self) -> String {
        self[..].show()
    }
}

impl Show for PerAxis {
    fn show(&self) -> String {
        match self {
            Self::Every(size) => size.to_string(),
            Self::Each(sizes) => sizes.show(),
        }
    }
}

impl<T: Show> Show for Option<T> {
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), T::show)
    }
}

/// An argument: `(&Shown(&argument)).text()`, with both traits in scope.
pub struct Shown<'a, T: ?Sized>(pub &'a T);

/// For arguments that can be shown.
pub trait IfShown {
    /// The argument's text.
    fn text(&self) -> Option<String>;
}

impl<T: Show + ?Sized> IfShown for Shown<'_, T> {
    fn text(&self) -> Option<String> {
        Some(self.0.show())
    }
}

/// For all arguments; method resolution finds it last, since it needs one more reference.
pub trait IfNotShown {
    /// None.
    fn text(&self) -> Option<String>;
}

impl<T: ?Sized> IfNotShown for &Shown<'_, T> {
    fn text(&self) -> Option<String> {
        None
    }
}

/// Passes the arguments of a layer's caller to the recorder of the run: required ones, and options, which are
/// an `Option`.
#[doc(hidden)]
#[macro_export]
macro_rules! __pf_note_arguments {
    ([$($required:ident)*] [$($optional:ident)*]) => {
        $crate::__private::tell_arguments(|| {
            // An argument uses only one of the two traits.
            #[allow(unused_imports)]
            use $crate::__private::{IfNotShown as _, IfShown as _, Shown};
            [
                $((::core::stringify!($required), (&Shown(&$required)).text()),)*
                $((
                    ::core::stringify!($optional),
                    ::core::option::Option::and_then($optional.as_ref(), |given| (&Shown(given)).text()),
                ),)*
            ]
        })
    };
}
