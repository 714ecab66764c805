//! Every differentiable function against finite differences, in every precision and on several threads.

mod activation;
mod affine;
mod convolution;
mod deformable;
mod graph;
mod loss;
mod normalization;
mod pooling;
mod quantization;
mod recurrent;
mod row_normalization;
mod shapes;
