//! The network `bag_of_words` of the file `embedding.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `tokens` | [-1, 6], integers |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("embedding.nnp")?;
//! let y = bag_of_words(&tokens)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn bag_of_words() |tokens|
    < words: embed(12, 5) -> functions::mean(1, false) -> affine(3) -> log_softmax(1) >
}
