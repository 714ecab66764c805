//! A crate that hands layerfn on to others, which do not depend on it themselves.

pub use layerfn;
