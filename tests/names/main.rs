//! Layers of a user's own: every form of argument, awkward names, strict lints.

mod forms;
