//! Loops: what they become, and the names of what is inside.

use candle_core::{Device, Tensor};
use layerfn::Result;

use super::{ones, opened, output, outputs, parameter, refusal, values};

/// A product by `w` in each of three rounds.
const LOOP: &str = r#"
network {
  name: "n" batch_size: 2
  repeat_info { id: "R" times: 3 }
  variable { name: "x" type: "Buffer" shape: { dim: -1 dim: 2 } }
  variable { name: "R" type: "Buffer" repeat_id: "R" shape: { dim: -1 dim: 2 } }
  variable { name: "h" type: "Buffer" repeat_id: "R" }
  variable { name: "y" type: "Buffer" }
  variable { name: "w{R}" type: "Parameter" repeat_id: "R" shape: { dim: 2 dim: 2 } }
  function { name: "R" type: "RepeatStart" repeat_id: "R" input: "x" input: "h" output: "R"
             repeat_param { repeat_id: "R" } }
  function { name: "h" type: "Affine" repeat_id: "R" input: "R" input: "w{R}" output: "h"
             affine_param { base_axis: 1 } }
  function { name: "E" type: "RepeatEnd" input: "h" output: "y" repeat_param { repeat_id: "R" times: 7 } }
}
"#;

fn scaled(name: &str, by: f32) -> String {
    parameter(name, &[2, 2], &[by, 0.0, 0.0, by])
}

fn rounds(text: &str, name: impl Fn(usize) -> String) -> String {
    (0..3).fold(text.to_owned(), |text, round| text + &scaled(&name(round), round as f32 + 2.0))
}

#[test]
fn a_parameter_with_braces_exists_once_a_round() -> Result<()> {
    let file = opened(&rounds(LOOP, |round| format!("w[{round}]")))?;
    assert_eq!(output(&file, ones(&[1, 2])), [24.0; 2]);
    Ok(())
}

#[test]
fn a_parameter_without_braces_gets_the_loop_into_its_name() -> Result<()> {
    let file = opened(&rounds(&LOOP.replace("w{R}", "w"), |round| format!("w_R[{round}]")))?;
    assert_eq!(output(&file, ones(&[1, 2])), [24.0; 2]);
    let model = file.network("n")?.model()?;
    assert_eq!(model.parameters().paths().collect::<Vec<_>>(), ["w_R[0]", "w_R[1]", "w_R[2]"]);
    Ok(())
}

#[test]
fn a_parameter_outside_of_the_loop_is_shared() -> Result<()> {
    let text = LOOP.replace("\"w{R}\" type: \"Parameter\" repeat_id: \"R\"", "\"w\" type: \"Parameter\"");
    let file = opened(&[&text.replace("w{R}", "w"), &*scaled("w", 2.0)].concat())?;
    assert_eq!(output(&file, ones(&[1, 2])), [8.0; 2]);
    Ok(())
}

/// `h ← 2 · h + x` inside `h ← 3 · h`, two rounds in each of three.
const NESTED: &str = r#"
network {
  name: "n"
  repeat_info { id: "A" times: 3 } repeat_info { id: "B" times: 2 }
  variable { name: "x" type: "Buffer" shape: { dim: -1 dim: 2 } }
  variable { name: "a" type: "Buffer" repeat_id: "A" }
  variable { name: "b" type: "Buffer" repeat_id: "A" repeat_id: "B" }
  variable { name: "c" type: "Buffer" repeat_id: "A" repeat_id: "B" }
  variable { name: "d" type: "Buffer" repeat_id: "A" repeat_id: "B" }
  variable { name: "e" type: "Buffer" repeat_id: "A" }
  variable { name: "f" type: "Buffer" repeat_id: "A" }
  variable { name: "y" type: "Buffer" }
  variable { name: "two{B}" type: "Parameter" repeat_id: "A" repeat_id: "B" shape: { dim: 2 dim: 2 } }
  variable { name: "three" type: "Parameter" shape: { dim: 2 dim: 2 } }
  function { name: "end" type: "RepeatEnd" input: "f" output: "y" repeat_param { repeat_id: "A" times: 3 } }
  function { name: "f" type: "Affine" repeat_id: "A" input: "e" input: "three" output: "f" affine_param { base_axis: 1 } }
  function { name: "e" type: "RepeatEnd" repeat_id: "A" input: "d" output: "e" repeat_param { repeat_id: "B" times: 2 } }
  function { name: "d" type: "Add2" repeat_id: "A" repeat_id: "B" input: "c" input: "x" output: "d" }
  function { name: "c" type: "Affine" repeat_id: "A" repeat_id: "B" input: "b" input: "two{B}" output: "c"
             affine_param { base_axis: 1 } }
  function { name: "b" type: "RepeatStart" repeat_id: "A" repeat_id: "B" input: "a" input: "d" output: "b"
             repeat_param { repeat_id: "B" } }
  function { name: "a" type: "RepeatStart" repeat_id: "A" input: "x" input: "f" output: "a" repeat_param { repeat_id: "A" } }
}
"#;

#[test]
fn loops_lie_in_loops_and_functions_in_any_order() -> Result<()> {
    let mut text = NESTED.to_owned() + &scaled("three", 3.0);
    let mut wanted = 1.0;
    for a in 0..3 {
        for b in 0..2 {
            text += &scaled(&format!("two[{b}]_A[{a}]"), 2.0);
            wanted = 2.0 * wanted + 1.0;
        }
        wanted *= 3.0;
    }
    let names: Vec<_> =
        opened(&text)?.network("n")?.model()?.store().parameters().paths().map(str::to_owned).collect();
    assert!(names.contains(&"two[1]_A[2]".to_owned()), "{names:?}");
    assert_eq!(output(&opened(&text)?, ones(&[1, 2])), [wanted; 2]);
    Ok(())
}

/// The running sums of the steps of `x`, which has three of them, from an initial value.
const STEPS: &str = r#"
network {
  name: "n" batch_size: 2
  repeat_info { id: "T" times: 3 }
  variable { name: "x" type: "Buffer" shape: { dim: -1 dim: 3 dim: 1 } }
  variable { name: "first" type: "Buffer" shape: { dim: -1 dim: 1 } }
  variable { name: "step" type: "Buffer" repeat_id: "T" }
  variable { name: "before" type: "Buffer" repeat_id: "T" }
  variable { name: "sum" type: "Buffer" repeat_id: "T" }
  variable { name: "y" type: "Buffer" }
  function { name: "in" type: "RecurrentInput" repeat_id: "T" input: "x" output: "step"
             recurrent_param { repeat_id: "T" axis: 1 } }
  function { name: "delay" type: "Delay" repeat_id: "T" input: "sum" input: "first" output: "before"
             recurrent_param { repeat_id: "T" } }
  function { name: "sum" type: "Add2" repeat_id: "T" input: "step" input: "before" output: "sum" }
  function { name: "out" type: "RecurrentOutput" input: "sum" output: "y" recurrent_param { repeat_id: "T" axis: 1 length: 3 } }
}
"#;

#[test]
fn steps_go_in_and_come_out_along_an_axis() -> Result<()> {
    let x = Tensor::new(&[[[1f32], [2.0], [3.0]], [[4.0], [5.0], [6.0]]], &Device::Cpu)?;
    let first = Tensor::new(&[[10f32], [20.0]], &Device::Cpu)?;
    let found = outputs(&opened(STEPS)?, &[("x", x), ("first", first)])?;
    assert_eq!(found[0].1.dims(), [2, 3, 1]);
    assert_eq!(values(&found[0].1), [11.0, 13.0, 16.0, 24.0, 29.0, 35.0]);
    Ok(())
}

#[test]
fn what_is_wrong_with_a_loop_is_said() {
    for (text, expected) in [
        (LOOP.replace("repeat_info { id: \"R\" times: 3 }", ""), "the loop `R` has no `repeat_info`"),
        (LOOP.replace("times: 3", "times: -3"), "`times` is negative"),
        (LOOP.replace("times: 3", "times: 0"), "ends a loop of no rounds"),
        (
            LOOP.replace("type: \"RepeatEnd\"", "type: \"Identity\""),
            "`E` (Identity) is outside of the loop `R` and names `h` inside it",
        ),
        (LOOP.replace("input: \"x\" input: \"h\"", "input: \"x\""), "`R` (RepeatStart) takes two inputs"),
        (STEPS.replace("length: 3", "length: 4"), "collects 4 steps of the loop `T`, which makes 3"),
        (STEPS.replace(" length: 3", ""), "collects 0 steps"),
        (
            STEPS.replace("dim: -1 dim: 3 dim: 1", "dim: -1 dim: 2 dim: 1"),
            "takes 3 steps along axis 1 of `x`",
        ),
        (STEPS.replace("axis: 1 }", "axis: 9 }"), "takes 3 steps along axis 9 of `x`"),
    ] {
        let error = refusal(&text);
        assert!(error.contains(expected), "{error}");
    }
}
