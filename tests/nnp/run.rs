//! Networks and executors: what goes in, what comes out, and what is refused.

use candle_core::{DType, Device, Tensor};
use layerfn::{ParameterStore, Result};

use super::{AFFINE, EXECUTOR, WEIGHTS, affine, ones, opened, outputs, parameter, refusal, values};

#[test]
fn the_batch_is_that_of_the_inputs() -> Result<()> {
    let model = affine()?.network("n")?.model()?;
    for batch in [1, 4, 9] {
        assert_eq!(model.forward(&[ones(&[batch, 3])])?[0].dims(), [batch, 2]);
    }
    let fixed = affine()?.network("n")?.batch_size(2).model()?;
    assert_eq!(fixed.forward(&[ones(&[2, 3])])?[0].dims(), [2, 2]);
    let error = fixed.forward(&[ones(&[3, 3])]).unwrap_err().to_string();
    assert_eq!(
        error,
        "`inputs` must have the shape [-1, 3] for `x`, -1 being the size 2 of the batch, got [3, 3]"
    );
    let error = model.forward(&[]).unwrap_err().to_string();
    assert_eq!(error, "`inputs` must hold a tensor for each of [\"x\"], the inputs of the network, got 0");
    Ok(())
}

#[test]
fn arguments_that_are_absent_are_zero() -> Result<()> {
    // With `base_axis` 0 all of the input is one row.
    let text = AFFINE.replace("affine_param { base_axis: 1 }", "").replace("dim: 3 dim: 2", "dim: 12 dim: 1");
    let file = opened(&[&text, &*parameter("w", &[12, 1], &[1.0; 12])].concat())?;
    let found = outputs(&file, &[("x", ones(&[4, 3]))])?;
    assert_eq!(values(&found[0].1), [12.0]);
    Ok(())
}

#[test]
fn outputs_are_what_no_function_takes() -> Result<()> {
    let more = "variable { name: \"z\" type: \"Buffer\" }\n function { name: \"g\" type: \"Tanh\" input: \"y\" output: \"z\" }";
    let text = AFFINE.replace("  function", &format!("{more}\n  function")) + EXECUTOR;
    let file = opened(&[&*text, &parameter("w", &[3, 2], &WEIGHTS)].concat())?;
    assert_eq!(file.network("n")?.outputs().collect::<Vec<_>>(), ["z"]);
    // An executor can read any value.
    let executor = file.executor("e")?;
    assert_eq!(executor.outputs().collect::<Vec<_>>(), ["out"]);
    assert_eq!(values(&executor.run(&[ones(&[1, 3])])?[0]), [6.0, 9.0]);
    Ok(())
}

#[test]
fn data_is_reshaped_to_its_variable() -> Result<()> {
    let executor = affine()?.executor("e")?;
    assert_eq!(executor.inputs().collect::<Vec<_>>(), ["in"]);
    assert_eq!(executor.run(&[ones(&[2, 1, 3, 1])])?[0].dims(), [2, 2]);
    let error = affine()?.executor_with_batch_size("e", 3)?.run(&[ones(&[2, 3])]).unwrap_err().to_string();
    assert_eq!(error, "`inputs` must have the size of the shape [3, 3] for `in`, got [2, 3]");
    assert!(executor.run(&[]).is_err());
    Ok(())
}

#[test]
fn one_name_of_data_may_fill_several_variables() -> Result<()> {
    let text = generated("type: \"Constant\"", "data_variable { variable_name: \"noise\" data_name: \"x\" }");
    let executor = opened(&text)?.executor("e")?;
    assert_eq!(executor.inputs().collect::<Vec<_>>(), ["x"]);
    assert_eq!(values(&executor.run(&[ones(&[1, 2])])?[0]), [2.0; 2]);
    Ok(())
}

#[test]
fn integers_are_taken_for_numbers() -> Result<()> {
    let x = Tensor::ones((1, 3), DType::I64, &Device::Cpu)?;
    assert_eq!(values(&outputs(&affine()?, &[("x", x)])?[0].1), [6.0, 9.0]);
    Ok(())
}

/// The sum of `x` and what a generator makes.
fn generated(generator: &str, more: &str) -> String {
    format!(
        r#"
        network {{
          name: "n" batch_size: 5
          variable {{ name: "x" type: "Buffer" shape {{ dim: -1 dim: 2 }} }}
          variable {{ name: "noise" type: "Buffer" shape {{ dim: -1 dim: 2 }} }}
          variable {{ name: "y" type: "Buffer" }}
          function {{ name: "f" type: "Add2" input: "x" input: "noise" output: "y" }}
        }}
        executor {{
          name: "e" network_name: "n" {more}
          data_variable {{ variable_name: "x" data_name: "x" }}
          generator_variable {{ variable_name: "noise" {generator} }}
          output_variable {{ variable_name: "y" data_name: "y" }}
        }}"#
    )
}

#[test]
fn generators_fill_the_other_inputs() -> Result<()> {
    let zeros = Tensor::zeros((3, 2), DType::F32, &Device::Cpu)?;
    let run = |generator: &str| -> Result<Vec<f32>> {
        let executor = opened(&generated(generator, ""))?.executor("e")?;
        let found = executor.run(std::slice::from_ref(&zeros))?;
        assert_eq!(found[0].dims(), [3, 2]);
        Ok(values(&found[0]))
    };
    assert_eq!(run("type: \"Constant\" multiplier: 0.25")?, [0.25; 6]);
    assert_eq!(run("type: \"Range\" multiplier: 2")?, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    let uniform = run("type: \"Uniform\" multiplier: 3")?;
    assert!(uniform.iter().all(|value| value.abs() <= 3.0) && uniform.iter().any(|value| value.abs() > 0.5));
    assert!(run("type: \"Normal\" multiplier: 2")?.iter().any(|&value| value != 0.0));
    let error = opened(&generated("type: \"Poisson\"", ""))?.executor("e").unwrap_err().to_string();
    assert!(error.contains("has a generator \"Poisson\""), "{error}");
    Ok(())
}

#[test]
fn several_evaluations_are_put_together() -> Result<()> {
    let zeros = Tensor::zeros((200, 2), DType::F32, &Device::Cpu)?;
    let run = |how: &str| -> Result<Vec<f32>> {
        let more = format!("num_evaluations: 400 repeat_evaluation_type: \"{how}\"");
        let text = generated("type: \"Normal\" multiplier: 2", &more);
        Ok(values(&opened(&text)?.executor("e")?.run(std::slice::from_ref(&zeros))?[0]))
    };
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let spread = |values: &[f32]| mean(&values.iter().map(|value| value * value).collect::<Vec<_>>()).sqrt();
    assert!((spread(&run("mean")?) - 0.1).abs() < 0.02, "2 / √400");
    assert!((spread(&run("last")?) - 2.0).abs() < 0.3);
    assert!((mean(&run("std")?) - 2.0).abs() < 0.1);
    Ok(())
}

#[test]
fn parameters_that_the_file_does_not_have_are_made() -> Result<()> {
    let with = |initializer: &str| {
        opened(&AFFINE.replace("dim: 3 dim: 2 } }", &format!("dim: 3 dim: 2 }} {initializer} }}")))
    };
    assert_eq!(values(&outputs(&with("")?, &[("x", ones(&[1, 3]))])?[0].1), [0.0; 2]);
    let constant = with("initializer { type: \"Constant\" multiplier: 0.5 }")?;
    assert_eq!(values(&outputs(&constant, &[("x", ones(&[1, 3]))])?[0].1), [1.5; 2]);
    let glorot = with("initializer { type: \"UniformAffineGlorot\" multiplier: 1 }")?;
    let weights = |seed| {
        ParameterStore::with_seed(seed).enter(|| {
            Ok::<_, layerfn::Error>(values(glorot.network("n")?.model()?.store().get("w").unwrap().var()))
        })
    };
    assert!(weights(1)?.iter().all(|w| w.abs() <= (6.0f32 / 5.0).sqrt()));
    assert_eq!(weights(1)?, weights(1)?);
    assert_ne!(weights(1)?, weights(2)?);
    let unknown =
        refusal(&AFFINE.replace("dim: 3 dim: 2 } }", "dim: 3 dim: 2 } initializer { type: \"Xavier\" } }"));
    assert!(
        unknown.contains("the variable `w` has the initializer \"Xavier\"; these are known: Constant, "),
        "{unknown}"
    );
    Ok(())
}

#[test]
fn what_is_wrong_with_a_network_is_said() {
    let function = "function { name: \"g\" type: \"Tanh\" input: \"y\" output: \"x\" }\n}";
    for (text, expected) in [
        (
            AFFINE.replace("\"Affine\"", "\"Afine\""),
            "`f` (Afine) is of a type that is not known (did you mean `Affine`?); these are: ",
        ),
        (
            AFFINE.replace("variable { name: \"y\"", "variable { name: \"z\""),
            "`f` (Affine) names `y`, which is not declared",
        ),
        (
            AFFINE.replace("variable { name: \"y\"", "variable { name: \"x\""),
            "the variable `x` is declared twice",
        ),
        (
            AFFINE.replace("\"Parameter\"", "\"Constant\""),
            "the variable `w` is of type \"Constant\"; there are \"Buffer\" and \"Parameter\"",
        ),
        (AFFINE.replace("input: \"x\"", ""), "`f` (Affine) takes 2 to 3 inputs, got 1"),
        (AFFINE.replace("output: \"y\"", ""), "`f` (Affine) makes 1 outputs, but 0 are named"),
        (AFFINE.replace("output: \"y\"", "output: \"w\""), "`f` makes the parameter `w`"),
        (AFFINE.replace("}\n}", &format!("}}\n  {function}")), "2 functions wait for each other in a circle"),
        (
            AFFINE.replace("dim: 3 dim: 2", "dim: 3 dim: -2"),
            "has the shape [3, -2], which no parameter can have",
        ),
        (AFFINE.replace("\"w\"", "\"a/../w\""), "the variable `a/../w` has a part that means a folder"),
        (
            [AFFINE, &parameter("w", &[2, 3], &WEIGHTS)].concat(),
            "must hold `w` with the shape [3, 2] that the network declares",
        ),
    ] {
        let error = refusal(&text);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn names_that_are_not_there_are_listed() -> Result<()> {
    let file = affine()?;
    let error = file.network("m").unwrap_err().to_string();
    assert_eq!(error, "`a stream`: has no network `m`, but [\"n\"]");
    let error = file.executor("runtime").unwrap_err().to_string();
    assert_eq!(error, "`a stream`: has no executor `runtime`, but [\"e\"]");
    let error =
        opened(&[AFFINE, &EXECUTOR.replace("variable_name: \"x\"", "variable_name: \"v\"")].concat())?;
    let error = error.executor("e").unwrap_err().to_string();
    assert!(error.contains("the executor `e`: names `v`, which its network does not have"), "{error}");
    let unfilled = EXECUTOR.replace("data_variable { variable_name: \"x\" data_name: \"in\" }", "");
    let error = opened(&[AFFINE, &unfilled].concat())?.executor("e").unwrap_err().to_string();
    assert!(error.contains("fills `x` neither with data nor by a generator"), "{error}");
    Ok(())
}

#[test]
fn an_error_says_which_function_it_is_of() -> Result<()> {
    let text = AFFINE.replace("dim: -1 dim: 3", "dim: -1 dim: 7");
    let file = opened(&[&*text, &parameter("w", &[3, 2], &WEIGHTS)].concat())?;
    let error = outputs(&file, &[("x", ones(&[2, 7]))]).unwrap_err().to_string();
    assert!(error.starts_with("f: Affine: "), "{error}");
    Ok(())
}
