//! Well-known networks, each one declaration.

use layerfn::prelude::*;
use layerfn::recur;

network! {
    /// LeNet for 28×28 digits.
    pub fn lenet()
    < c1: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
   -> c2: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
   -> fc1: affine(50) -> relu -> out: affine(10) >

    /// Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes.
    pub fn basic_block(outmaps: usize, stride: usize)
    |x| < add {
            c1: conv(outmaps, (3, 3), pad = 1, stride = stride, with_bias = false) -> bn1: bn -> relu
                -> c2: conv(outmaps, (3, 3), pad = 1, with_bias = false) -> bn2: bn,
            if stride != 1 || x.dim(1)? != outmaps {
                shortcut: { conv(outmaps, (1, 1), stride = stride, with_bias = false) -> bn }
            },
        } -> relu >

    /// ResNet-20 for 32×32 pictures of ten classes.
    pub fn resnet20()
    < stem: { conv(16, (3, 3), pad = 1, with_bias = false) -> bn } -> relu
   -> for (i, outmaps) in [16, 32, 64].into_iter().enumerate() {
          stage[i + 1]: for j in 0..3 {
              block[j + 1]: basic_block(outmaps, if i > 0 && j == 0 { 2 } else { 1 })
          }
      }
   -> global_average_pooling -> fc: affine(10) >

    /// ResNet-18 for 224×224 pictures of a thousand classes.
    pub fn resnet18()
    < stem: { conv(64, (7, 7), pad = 3, stride = 2, with_bias = false) -> bn } -> relu
   -> max_pool((3, 3), stride = 2, pad = 1)
   -> for (i, outmaps) in [64, 128, 256, 512].into_iter().enumerate() {
          stage[i + 1]: for j in 0..2 {
              block[j + 1]: basic_block(outmaps, if i > 0 && j == 0 { 2 } else { 1 })
          }
      }
   -> global_average_pooling -> fc: affine(1000) >

    /// Depthwise-separable convolutions, as in MobileNet.
    pub fn mobilenet(classes: usize)
    < stem: { conv(32, (3, 3), pad = 1, stride = 2, with_bias = false) -> bn -> relu }
   -> for (i, (outmaps, stride)) in [(64, 1), (128, 2), (128, 1), (256, 2)].into_iter().enumerate() {
          separable[i + 1]: {
              depthwise_convolution((3, 3), pad = 1, stride = stride, with_bias = false) -> bn -> relu
                  -> conv(outmaps, (1, 1), with_bias = false) -> bn -> relu
          }
      }
   -> global_average_pooling -> fc: affine(classes) >

    /// GoogLeNet's inception block.
    pub fn inception(n1: usize, n3: usize, n5: usize, pooled: usize)
    < concat(1) {
          one: { conv(n1, (1, 1)) -> relu },
          three: { reduce: conv(n3 / 2, (1, 1)) -> relu -> conv(n3, (3, 3), pad = 1) -> relu },
          five: { reduce: conv(n5 / 2, (1, 1)) -> relu -> conv(n5, (5, 5), pad = 2) -> relu },
          pool: { max_pool((3, 3), stride = 1, pad = 1) -> conv(pooled, (1, 1)) -> relu },
      } >

    /// Two LSTM layers over (batch, time, features) and a classifier of the last step.
    pub fn lstm_classifier(state_size: usize, classes: usize)
    < lstm1: recur(1, state_size, |x, h, c| lstm(x, h, c, state_size))
   -> lstm2: recur(1, state_size, |x, h, c| lstm(x, h, c, state_size))
   -> (|x: &Tensor| x.get_on_dim(1, x.dim(1)? - 1))
   -> fc: affine(classes) >

    /// Two convolutions of a U-Net.
    pub fn double_conv(outmaps: usize)
    < c1: conv(outmaps, (3, 3), pad = 1) -> relu -> c2: conv(outmaps, (3, 3), pad = 1) -> relu >

    /// A U-Net of three levels: each level is joined with what comes up from below it.
    pub fn unet(maps: usize, classes: usize)
    < down1: double_conv(maps)
   -> concat(1) {
          _,
          level2: {
              max_pool((2, 2)) -> down: double_conv(2 * maps)
                  -> concat(1) {
                      _,
                      level3: { max_pool((2, 2)) -> double_conv(4 * maps) -> up: deconvolution(2 * maps, (2, 2), stride = 2) },
                  }
                  -> double_conv(2 * maps) -> up: deconvolution(maps, (2, 2), stride = 2)
          },
      }
   -> up1: double_conv(maps) -> out: conv(classes, (1, 1)) >

    /// An autoencoder of 784 pixels: the code and the reconstruction.
    pub fn autoencoder(code: usize) -> Result<(Tensor, Tensor)>
    < encoder: { affine(128) -> relu -> affine(code) } as z
   -> decoder: { affine(128) -> relu -> affine(784) -> sigmoid } as y
   -> use((z, y)) >
}
