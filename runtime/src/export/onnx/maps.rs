//! Functions of each element.

use super::graph::{Call, Written};
use crate::onnx::{self, BOOL, FLOAT, INT64};

/// Functions that ONNX has with the same meaning.
const SAME: [(&str, &str); 30] = [
    ("ACos", "Acos"),
    ("ACosh", "Acosh"),
    ("ASin", "Asin"),
    ("ASinh", "Asinh"),
    ("ATan", "Atan"),
    ("ATanh", "Atanh"),
    ("Abs", "Abs"),
    ("Add2", "Add"),
    ("AddN", "Sum"),
    ("Ceil", "Ceil"),
    ("Cos", "Cos"),
    ("Cosh", "Cosh"),
    ("Div2", "Div"),
    ("Dropout", "Identity"),
    ("Erf", "Erf"),
    ("Exp", "Exp"),
    ("Floor", "Floor"),
    ("Log", "Log"),
    ("Maximum2", "Max"),
    ("Minimum2", "Min"),
    ("Mish", "Mish"),
    ("Mul2", "Mul"),
    ("Pow2", "Pow"),
    ("ReLU", "Relu"),
    ("Sigmoid", "Sigmoid"),
    ("Sin", "Sin"),
    ("Sinh", "Sinh"),
    ("SoftSign", "Softsign"),
    ("Sub2", "Sub"),
    ("Tan", "Tan"),
];

/// Functions of an element and a number, and whether the number comes first.
const WITH_NUMBER: [(&str, &str, bool); 8] = [
    ("AddScalar", "Add", false),
    ("MaximumScalar", "Max", false),
    ("MinimumScalar", "Min", false),
    ("MulScalar", "Mul", false),
    ("PowScalar", "Pow", false),
    ("RDivScalar", "Div", true),
    ("RPowScalar", "Pow", true),
    ("RSubScalar", "Sub", true),
];

const COMPARED: [(&str, &str); 5] = [
    ("Equal", "Equal"),
    ("Greater", "Greater"),
    ("GreaterEqual", "GreaterOrEqual"),
    ("Less", "Less"),
    ("LessEqual", "LessOrEqual"),
];

const LOGICAL: [(&str, &str); 3] = [("LogicalAnd", "And"), ("LogicalOr", "Or"), ("LogicalXor", "Xor")];

fn named<'a>(list: &[(&str, &'a str)], kind: &str) -> Option<&'a str> {
    list.iter().find(|(name, _)| *name == kind).map(|(_, op)| *op)
}

pub(super) fn write(call: &mut Call<'_, '_>) -> Written {
    let kind = call.kind();
    if let Some(op) = named(&SAME, kind) {
        let inputs: Vec<_> = (0..call.n_inputs()).map(|n| call.input(n)).collect();
        let inputs: Vec<_> = inputs.iter().map(String::as_str).collect();
        return Ok(Some(vec![call.node(op, &inputs, Vec::new())]));
    }
    if let Some((_, op, first)) = WITH_NUMBER.iter().find(|(name, ..)| *name == kind) {
        let (x, number) = (call.input(0), call.scalar(call.number("val")));
        let inputs = if *first { [&*number, &*x] } else { [&*x, &*number] };
        return Ok(Some(vec![call.node(op, &inputs, Vec::new())]));
    }
    if let Some(found) = compared(call, kind) {
        return Ok(Some(vec![found]));
    }
    activation(call, kind)
}

/// Comparisons, whose results are numbers.
fn compared(call: &mut Call<'_, '_>, kind: &str) -> Option<String> {
    let (of, with_number) = match kind.strip_suffix("Scalar") {
        Some(of) => (of, true),
        None => (kind, false),
    };
    let (of, negated) = if of == "NotEqual" { ("Equal", true) } else { (of, false) };
    let mut found = if let Some(op) = named(&COMPARED, of) {
        let x = call.input(0);
        let other = if with_number { call.scalar(call.number("val")) } else { call.input(1) };
        call.node(op, &[&x, &other], Vec::new())
    } else if let Some(op) = named(&LOGICAL, kind) {
        let (a, b) = (call.input(0), call.input(1));
        let (a, b) = (call.cast(&a, BOOL), call.cast(&b, BOOL));
        call.node(op, &[&a, &b], Vec::new())
    } else {
        let op = named(&[("IsInf", "IsInf"), ("IsNaN", "IsNaN"), ("LogicalNot", "Not")], kind)?;
        let mut x = call.input(0);
        if op == "Not" {
            x = call.cast(&x, BOOL);
        }
        call.node(op, &[&x], Vec::new())
    };
    if negated {
        found = call.node("Not", &[&found], Vec::new());
    }
    Some(call.cast(&found, FLOAT))
}

fn activation(call: &mut Call<'_, '_>, kind: &str) -> Written {
    let is_known = matches!(
        kind,
        "Identity"
            | "ELU"
            | "SELU"
            | "LeakyReLU"
            | "GELU"
            | "HardSigmoid"
            | "HardTanh"
            | "ReLU6"
            | "SoftPlus"
            | "LogSigmoid"
            | "Swish"
            | "Tanh"
            | "TanhShrink"
            | "BinarySigmoid"
            | "BinaryTanh"
            | "Sign"
            | "Sinc"
            | "Round"
            | "ResetNaN"
            | "ResetInf"
            | "PReLU"
            | "Where"
    );
    if !is_known {
        return Ok(None);
    }
    let x = call.input(0);
    let clipped = |call: &mut Call<'_, '_>, low: f64, high: f64| {
        let (low, high) = (call.scalar(low), call.scalar(high));
        call.node("Clip", &[&x, &low, &high], Vec::new())
    };
    Ok(Some(vec![match kind {
        "Identity" => {
            match (call.flow(0).tensor.dtype().is_float(), call.result(0).tensor.dtype().is_float()) {
                (true, false) => call.cast(&x, INT64),
                (false, true) => call.cast(&x, FLOAT),
                _ => call.node("Identity", &[&x], Vec::new()),
            }
        }
        "ELU" => call.node("Elu", &[&x], vec![onnx::float("alpha", call.number("alpha"))]),
        "SELU" => {
            let (alpha, scale) = (call.number("alpha"), call.number("scale"));
            call.node("Selu", &[&x], vec![onnx::float("alpha", alpha), onnx::float("gamma", scale)])
        }
        "LeakyReLU" => call.node("LeakyRelu", &[&x], vec![onnx::float("alpha", call.number("alpha"))]),
        "GELU" => call.node("Gelu", &[&x], vec![onnx::text("approximate", "tanh")]),
        "HardSigmoid" => {
            call.node("HardSigmoid", &[&x], vec![onnx::float("alpha", 0.2), onnx::float("beta", 0.5)])
        }
        "HardTanh" => clipped(call, -1.0, 1.0),
        "ReLU6" => clipped(call, 0.0, 6.0),
        "SoftPlus" => match call.number("beta") {
            1.0 => call.node("Softplus", &[&x], Vec::new()),
            beta => {
                let scaled = call.with_number("Mul", &x, beta);
                let y = call.node("Softplus", &[&scaled], Vec::new());
                call.with_number("Div", &y, beta)
            }
        },
        "LogSigmoid" => {
            let negative = call.node("Neg", &[&x], Vec::new());
            let y = call.node("Softplus", &[&negative], Vec::new());
            call.node("Neg", &[&y], Vec::new())
        }
        "Swish" => {
            let gate = call.node("Sigmoid", &[&x], Vec::new());
            call.node("Mul", &[&x, &gate], Vec::new())
        }
        "Tanh" => call.node("Tanh", &[&x], Vec::new()),
        "TanhShrink" => {
            let y = call.node("Tanh", &[&x], Vec::new());
            call.node("Sub", &[&x, &y], Vec::new())
        }
        "BinarySigmoid" | "BinaryTanh" => {
            let zero = call.scalar(0.0);
            let positive = call.node("Greater", &[&x, &zero], Vec::new());
            let (one, other) = (call.scalar(1.0), call.scalar(if kind == "BinaryTanh" { -1.0 } else { 0.0 }));
            call.node("Where", &[&positive, &one, &other], Vec::new())
        }
        "Sign" => {
            let zero = call.scalar(0.0);
            let sign = call.node("Sign", &[&x], Vec::new());
            let at_zero = call.node("Equal", &[&x, &zero], Vec::new());
            let alpha = call.scalar(call.number("alpha"));
            call.node("Where", &[&at_zero, &alpha, &sign], Vec::new())
        }
        "Sinc" => {
            let (zero, one) = (call.scalar(0.0), call.scalar(1.0));
            let at_zero = call.node("Equal", &[&x, &zero], Vec::new());
            let sine = call.node("Sin", &[&x], Vec::new());
            let wave = call.node("Div", &[&sine, &x], Vec::new());
            call.node("Where", &[&at_zero, &one, &wave], Vec::new())
        }
        // ONNX rounds halves to even numbers.
        "Round" => {
            let (size, sign) = (call.node("Abs", &[&x], Vec::new()), call.node("Sign", &[&x], Vec::new()));
            let more = call.with_number("Add", &size, 0.5);
            let floor = call.node("Floor", &[&more], Vec::new());
            call.node("Mul", &[&floor, &sign], Vec::new())
        }
        "ResetNaN" | "ResetInf" => {
            let found = call.node(if kind == "ResetNaN" { "IsNaN" } else { "IsInf" }, &[&x], Vec::new());
            let value = call.scalar(call.number("val"));
            call.node("Where", &[&found, &value, &x], Vec::new())
        }
        "PReLU" => {
            let (mut slope, n) = (call.input(1), call.flow(1).tensor.elem_count());
            if n > 1 {
                let behind =
                    call.rank(0).saturating_sub(call.integer("base_axis").unsigned_abs() as usize + 1);
                let sizes: Vec<_> = std::iter::once(n as i64).chain(vec![1; behind]).collect();
                slope = call.reshaped(&slope, &sizes);
            }
            call.node("PRelu", &[&x, &slope], Vec::new())
        }
        _ => {
            let (a, b) = (call.input(1), call.input(2));
            let mut condition = call.cast(&x, BOOL);
            let behind = call.rank(1).saturating_sub(call.rank(0));
            if behind > 0 {
                let axes: Vec<_> = (call.rank(0)..call.rank(1)).map(|axis| axis as i64).collect();
                let axes = call.list(&axes);
                condition = call.node("Unsqueeze", &[&condition, &axes], Vec::new());
            }
            call.node("Where", &[&condition, &a, &b], Vec::new())
        }
    }]))
}
