//! Every differentiable function against finite differences, in every precision and on several threads.

mod activation;
mod affine;
mod attention;
mod convolution;
mod deformable;
mod elementwise;
mod graph;
mod loss;
mod normalization;
mod pooling;
mod position;
mod quantization;
mod recurrent;
mod reparameterization;
mod row_normalization;
mod shapes;
