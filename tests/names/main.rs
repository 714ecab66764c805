//! Layers of a user's own: every form of argument, awkward names, strict lints.

mod awkward;
mod forms;
mod strict;
