//! Every differentiable function against finite differences, in every precision and on several threads.

mod convolution;
