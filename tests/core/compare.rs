//! The comparison that the other tests rely on.

use candle_core::{Device, Tensor};
use layerfn_tests::support::compare::{Tolerance, difference};

fn tensor(values: [f32; 4]) -> Tensor {
    Tensor::new(&values, &Device::Cpu).unwrap().reshape((2, 2)).unwrap()
}

#[test]
fn the_worst_element_is_shown() {
    let want = tensor([1.0, 2.0, 3.0, -0.0]);
    let tolerance = Some(Tolerance { rtol: 0.0, atol: 0.1 });
    assert_eq!(difference(&tensor([1.05, 2.0, 3.0, 0.0]), &want, tolerance), None);
    let text = difference(&tensor([1.05, 2.5, 4.0, 0.0]), &want, tolerance).unwrap();
    assert!(text.starts_with("differs in 2 of 4 elements, worst at [1, 0]: got 4.0, expected 3.0"), "{text}");
}

#[test]
fn without_a_tolerance_the_bits_count() {
    let want = tensor([1.0, 2.0, 3.0, -0.0]);
    assert_eq!(difference(&want, &want, None), None);
    let text = difference(&tensor([1.0, 2.0, 3.0, 0.0]), &want, None).unwrap();
    assert!(text.contains("worst at [1, 1]: got 0.0, expected -0.0"), "{text}");
}

#[test]
fn not_a_number_never_passes() {
    let nan = tensor([f32::NAN; 4]);
    let tolerance = Some(Tolerance { rtol: 1.0, atol: 1.0 });
    assert!(difference(&nan, &tensor([0.0; 4]), tolerance).is_some());
    assert!(difference(&tensor([0.0; 4]), &nan, tolerance).is_some());
}

#[test]
fn shapes_are_compared_first() {
    let text = difference(&tensor([0.0; 4]), &tensor([0.0; 4]).flatten_all().unwrap(), None).unwrap();
    assert_eq!(text, "has shape [2, 2], expected [4]");
}
