//! Functions that move elements or see several of them.

use layerfn::functions as f;

functions! {
    global_average_pooling(x) => f::global_average_pooling(&x);
}
