//! Functions of weights.

use layerfn::functions as f;

functions! {
    weight_normalization(w, g; dim: i64 = 0, eps: f64 = 1e-12) => f::weight_normalization(&w, &g, dim, eps);
}
