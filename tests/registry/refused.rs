//! A call that is refused for its input leaves no parameter behind.

use candle_core::{DType, Device, Tensor};
use layerfn::ParameterStore;
use layerfn_tests::support::fixtures::Tensors;
use layerfn_tests::support::layers::{Arguments, Failure, find};
use serde_json::{Map, Value};

use crate::cases::{CASES, Case};

/// What `case` leaves when its inputs have this type and, if given, this shape.
fn refused(case: &Case, dtype: DType, shape: Option<&[usize]>) -> (String, Vec<String>) {
    let arguments: Map<String, Value> = serde_json::from_str(case.arguments).expect("JSON");
    let inputs = case.inputs.iter().map(|(name, dims)| {
        let zero = Tensor::zeros(1, dtype, &Device::Cpu).expect("a number");
        let view = match shape {
            Some([]) => zero.reshape(()),
            shape => zero.broadcast_as(shape.unwrap_or(dims)),
        };
        let view = view.expect("a view");
        ((*name).to_owned(), if shape.is_none() { view.contiguous().expect("few elements") } else { view })
    });
    let (inputs, tensors) = (inputs.collect(), Tensors::default());
    let call = find(case.layer, &arguments).expect("a layer");
    let store = ParameterStore::new();
    let error = match store.enter(|| call(&mut Arguments::new(inputs, arguments, &tensors))) {
        Ok(outputs) => format!("accepted, {:?}", outputs[0].dims()),
        Err(Failure::Layer(error)) => error.root().to_string(),
        Err(Failure::Description(text)) => panic!("{text}"),
    };
    (error, store.parameters().paths().map(str::to_owned).collect())
}

#[test]
fn refused_inputs_leave_no_parameter() {
    let mut wrong = Vec::new();
    for case in CASES {
        let type_of_another_layer = if case.layer == "embed" { DType::F32 } else { DType::U32 };
        let huge: Vec<usize> = case.inputs[0]
            .1
            .iter()
            .enumerate()
            .map(|(axis, &size)| if axis < 2 { size << 20 } else { size })
            .collect();
        let own = if case.layer == "embed" { DType::U32 } else { DType::F32 };
        for (dtype, shape) in
            [(DType::F8E4M3, None), (type_of_another_layer, None), (own, Some(&[][..])), (own, Some(&huge))]
        {
            let (error, left) = refused(case, dtype, shape);
            // Some layers take a single number.
            let accepted = shape == Some(&[]) && error.starts_with("accepted");
            if accepted {
                continue;
            }
            if !left.is_empty() || !error.starts_with('`') {
                wrong.push(format!("{case:?} on {dtype:?} {shape:?}: {error}; it has left {left:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
