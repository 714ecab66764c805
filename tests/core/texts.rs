//! The texts of errors are part of the interface: they name the place, what came in and the way out.

use candle_core::{DType, Tensor};
use layerfn::Error;
use layerfn::prelude::*;

use crate::zeros;

fn text<T>(call: impl FnOnce() -> Result<T, Error>) -> String {
    ParameterStore::new().enter(|| parameter_scope("net", call)).err().expect("an error").to_string()
}

fn image(dims: &[usize]) -> Tensor {
    zeros(dims, DType::F32)
}

#[test]
fn geometry() {
    assert_eq!(
        text(|| convolution(&image(&[2, 4]), 3, (3, 3)).name("c1").call()),
        "net/c1/conv: convolution: `inp` must have one to three spatial axes after the channels, which are axis 1 (`base_axis`), got [2, 4]"
    );
    assert_eq!(
        text(|| convolution(&image(&[2, 4, 5, 5]), 3, (0, 3)).call()),
        "net/conv: convolution: `kernel` must not contain 0, got [0, 3]"
    );
    assert_eq!(
        text(|| convolution(&image(&[2, 4, 5, 5]), 6, (3, 3)).group(3).call()),
        "net/conv: convolution: `group` must divide the 4 input channels, got 3"
    );
    assert_eq!(
        text(|| convolution(&image(&[2, 4, 5, 5]), 3, (3, 3)).group(2).call()),
        "net/conv: convolution: `outmaps` must be a multiple of `group`, which is 2, got 3"
    );
    assert_eq!(
        text(|| convolution(&image(&[2, 4, 5, 5]), 3, (3, 3)).pad([1]).call()),
        "net/conv: convolution: `pad` must be one integer or have one entry for each of the 2 spatial axes, got [1]"
    );
    assert_eq!(
        text(|| affine(&image(&[2, 4]), 3).base_axis(3).call()),
        "net/affine: affine: `base_axis` must be at most the rank of the input [2, 4], got 3"
    );
    assert_eq!(
        text(|| affine(&image(&[2, 4]), 3).base_axis(-3).call()),
        "net/affine: affine: `base_axis` must be at least -2 for the input [2, 4], got -3"
    );
    assert_eq!(
        text(|| group_normalization(&image(&[2, 4]), 2).channel_axis(-3).call()),
        "net/group_normalization: group_normalization: `channel_axis` must be an axis of [2, 4], -2 to 1, got -3"
    );
    assert_eq!(
        text(|| batch_normalization(&image(&[2, 4])).axes([2]).call()),
        "net/bn: batch_normalization: `axes` must be different axes of the input [2, 4], got [2]"
    );
    assert_eq!(
        text(|| max_pooling(&image(&[1, 1, 4, 4]), (5, 5)).call()),
        "net: max_pooling: `kernel` must be at most 4 on spatial axis 0 (input 4 plus padding), got 5"
    );
}

#[test]
fn values() {
    let words = Tensor::new(&[0u32, 7], &candle_core::Device::Cpu).expect("indices");
    assert_eq!(
        text(|| embed(&words, 5, 2).name("words").call()),
        "net/words/embed: embed: `inp` must hold indices from 0 to 4 (`n_inputs` is 5), got 7"
    );
    assert_eq!(
        text(|| embed(&image(&[2]), 5, 2).call()),
        "net/embed: embed: `inp` must hold integers, got F32"
    );
    assert_eq!(text(|| dropout(&image(&[2])).p(1.0).call()), "net: dropout: `p` must be in [0, 1), got 1.0");
    assert_eq!(
        text(|| affine(&image(&[2, 4]), 3).w_init(image(&[3, 4])).call()),
        "net/affine: affine: `initializer` of `net/affine/W` must give the parameter's shape [4, 3], got [3, 4]"
    );
}

#[test]
fn a_parameter_of_another_shape_names_both_calls() {
    let text = text(|| {
        affine(&image(&[2, 4]), 3).name("fc").call()?;
        affine(&image(&[2, 5]), 3).name("fc").call()
    });
    let (start, rest) = text.split_once(" (at ").expect("the first call");
    assert_eq!(start, "net/fc/affine: affine: parameter `net/fc/affine/W` is registered with shape [4, 3]");
    let (first, rest) = rest.split_once("), but ").expect("the first call");
    let (wanted, second) = rest.split_once(" (at ").expect("the second call");
    assert_eq!(wanted, "[5, 3] is asked for");
    let (second, way_out) = second.split_once("); ").expect("the second call");
    assert!(first.contains("texts.rs") && second.contains("texts.rs") && first != second, "{text}");
    assert_eq!(way_out, "give one of the two layers another `name`, or `clear_parameters` first");
}
