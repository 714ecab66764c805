//! Functions without parameters of their own.

use super::super::Fault;
use super::function::{Code, Function, Gives};
use super::text::{axes, list, number, sizes};

/// Functions of this library by NNabla's names, with the numbers that they get behind their inputs. Those of the prelude come
/// without a path.
const PLAIN: &[(&str, &str, &[&str])] = &[
    ("ACos", "functions::acos", &[]),
    ("ACosh", "functions::acosh", &[]),
    ("ASin", "functions::asin", &[]),
    ("ASinh", "functions::asinh", &[]),
    ("ATan", "functions::atan", &[]),
    ("ATan2", "functions::atan2", &[]),
    ("ATanh", "functions::atanh", &[]),
    ("Abs", "functions::abs", &[]),
    ("AbsoluteError", "functions::absolute_error", &[]),
    ("Add2", "functions::add2", &[]),
    ("AddScalar", "functions::add_scalar", &["val"]),
    ("BinaryCrossEntropy", "functions::binary_cross_entropy", &[]),
    ("BinaryError", "functions::binary_error", &[]),
    ("BinarySigmoid", "functions::binary_sigmoid", &[]),
    ("BinaryTanh", "functions::binary_tanh", &[]),
    ("Ceil", "functions::ceil", &[]),
    ("Cos", "functions::cos", &[]),
    ("Cosh", "functions::cosh", &[]),
    ("Div2", "functions::div2", &[]),
    ("ELU", "elu", &["alpha"]),
    ("EpsilonInsensitiveLoss", "functions::epsilon_insensitive_loss", &["epsilon"]),
    ("Equal", "functions::equal", &[]),
    ("EqualScalar", "functions::equal_scalar", &["val"]),
    ("Erf", "functions::erf", &[]),
    ("Exp", "functions::exp", &[]),
    ("Floor", "functions::floor", &[]),
    ("GELU", "gelu", &[]),
    ("GlobalAveragePooling", "global_average_pooling", &[]),
    ("Greater", "functions::greater", &[]),
    ("GreaterEqual", "functions::greater_equal", &[]),
    ("GreaterEqualScalar", "functions::greater_equal_scalar", &["val"]),
    ("GreaterScalar", "functions::greater_scalar", &["val"]),
    ("HardSigmoid", "hard_sigmoid", &[]),
    ("HardTanh", "functions::hard_tanh", &[]),
    ("HuberLoss", "functions::huber_loss", &["delta"]),
    ("IsInf", "functions::isinf", &[]),
    ("IsNaN", "functions::isnan", &[]),
    ("LeakyReLU", "leaky_relu", &["alpha"]),
    ("Less", "functions::less", &[]),
    ("LessEqual", "functions::less_equal", &[]),
    ("LessEqualScalar", "functions::less_equal_scalar", &["val"]),
    ("LessScalar", "functions::less_scalar", &["val"]),
    ("Log", "functions::log", &[]),
    ("LogSigmoid", "functions::log_sigmoid", &[]),
    ("LogicalAnd", "functions::logical_and", &[]),
    ("LogicalNot", "functions::logical_not", &[]),
    ("LogicalOr", "functions::logical_or", &[]),
    ("LogicalXor", "functions::logical_xor", &[]),
    ("Maximum2", "functions::maximum2", &[]),
    ("MaximumScalar", "functions::maximum_scalar", &["val"]),
    ("Minimum2", "functions::minimum2", &[]),
    ("MinimumScalar", "functions::minimum_scalar", &["val"]),
    ("Mish", "functions::mish", &[]),
    ("Mul2", "functions::mul2", &[]),
    ("MulScalar", "functions::mul_scalar", &["val"]),
    ("NotEqual", "functions::not_equal", &[]),
    ("NotEqualScalar", "functions::not_equal_scalar", &["val"]),
    ("Pow2", "functions::pow2", &[]),
    ("PowScalar", "functions::pow_scalar", &["val"]),
    ("RDivScalar", "functions::r_div_scalar", &["val"]),
    ("RPowScalar", "functions::r_pow_scalar", &["val"]),
    ("RSubScalar", "functions::r_sub_scalar", &["val"]),
    ("ReLU", "relu", &[]),
    ("ReLU6", "functions::relu6", &[]),
    ("ResetInf", "functions::reset_inf", &["val"]),
    ("ResetNaN", "functions::reset_nan", &["val"]),
    ("Round", "functions::round", &[]),
    ("SELU", "functions::selu_with", &["scale", "alpha"]),
    ("Sigmoid", "sigmoid", &[]),
    ("SigmoidCrossEntropy", "sigmoid_cross_entropy", &[]),
    ("Sign", "functions::sign", &["alpha"]),
    ("Sin", "functions::sin", &[]),
    ("Sinc", "functions::sinc", &[]),
    ("Sinh", "functions::sinh", &[]),
    ("SoftPlus", "functions::softplus_with", &["beta"]),
    ("SoftSign", "functions::softsign", &[]),
    ("SquaredError", "squared_error", &[]),
    ("Sub2", "functions::sub2", &[]),
    ("Swish", "silu", &[]),
    ("Tan", "functions::tan", &[]),
    ("Tanh", "tanh", &[]),
    ("TanhShrink", "functions::tanh_shrink", &[]),
    ("Where", "functions::where_cond", &[]),
];

pub(super) fn code(of: &Function<'_>) -> Result<(Code, Gives), Fault> {
    if let Some((_, callee, numbers)) = PLAIN.iter().find(|(kind, ..)| *kind == of.kind) {
        let numbers = numbers.iter().map(|name| number(of.arguments.number(name)));
        return Ok((of.function(callee, numbers.collect()), Gives::Tensor));
    }
    if let Some(found) = recurrent(of)? {
        return Ok(found);
    }
    Ok(match of.kind {
        "Split" | "RecurrentInput" => (integer(of, "functions::split", "axis"), Gives::List),
        "Max" | "Min" | "Sort" => with_index(of)?,
        _ => (one(of)?, Gives::Tensor),
    })
}

fn integer(of: &Function<'_>, callee: &str, name: &str) -> Code {
    of.function(callee, vec![of.arguments.integer(name).to_string()])
}

fn listed(of: &Function<'_>) -> String {
    format!("&[{}]", of.inputs.iter().map(|operand| operand.code.as_str()).collect::<Vec<_>>().join(", "))
}

fn one(of: &Function<'_>) -> Result<Code, Fault> {
    let arguments = &of.arguments;
    let flag = |name: &str| arguments.flag(name).to_string();
    let reduction =
        |callee: &str| of.function(callee, vec![axes(&arguments.integers("axes")), flag("keep_dims")]);
    let float = |name: &str| number(arguments.number(name));
    Ok(match of.kind {
        "Identity" => Code::Same,
        "AddN" => Code::Expression(format!("functions::add_n({})", listed(of))),
        "Concatenate" => {
            Code::Expression(format!("functions::concatenate({}, {})", listed(of), arguments.integer("axis")))
        }
        "Stack" | "RecurrentOutput" => {
            Code::Expression(format!("functions::stack({}, {})", listed(of), arguments.integer("axis")))
        }
        "AveragePooling" | "MaxPooling" | "SumPooling" => pooling(of)?,
        "BatchMatmul" => {
            of.function("functions::batch_matmul", vec![flag("transpose_a"), flag("transpose_b")])
        }
        "Broadcast" => of.function("functions::broadcast", vec![shape(of)?]),
        "CELU" => of.function("functions::celu", vec![float("alpha"), arguments.integer("axis").to_string()]),
        "CReLU" => integer(of, "functions::crelu", "axis"),
        "CategoricalCrossEntropy" => along(of, "functions::categorical_cross_entropy"),
        "Constant" => {
            let given = vec![float("val"), shape(of)?, format!("{}.device()", of.input)];
            Code::Function { callee: "functions::constant".to_owned(), given }
        }
        "CumSum" => {
            let axis = arguments.integer("axis").to_string();
            of.function("functions::cumsum", vec![axis, flag("exclusive"), flag("reverse")])
        }
        "DeformableConvolution" => {
            return Err(Fault::new("cannot be declared: no layer says it by these parameters"));
        }
        "Dropout" => {
            let options = of.number("p", 0.5).into_iter().collect();
            return of.layer("dropout", vec![], options, "");
        }
        "FixedPointQuantize" => {
            let (n, delta) = (arguments.count("n")?, float("delta"));
            let more = format!("n: {n}, delta: {delta}, ste_fine_grained: {}", flag("ste_fine_grained"));
            transform(of, &format!("functions::FixedPoint {{ sign: {}, {more} }}", flag("sign")))?
        }
        "Flip" => of.function("functions::flip", vec![axes(&arguments.integers("axes"))]),
        "Interpolate" => interpolate(of)?,
        "KLMultinomial" => integer(of, "functions::kl_multinomial", "base_axis"),
        "LogSoftmax" => along(of, "log_softmax"),
        "Mean" => reduction("functions::mean"),
        "Norm" => {
            let more = vec![float("p"), axes(&arguments.integers("axes")), flag("keep_dims")];
            of.function("functions::norm", more)
        }
        "NormNormalization" => {
            let more = vec![float("p"), axes(&arguments.integers("axes")), float("eps")];
            of.function("functions::norm_normalization", more)
        }
        "OneHot" => of.function("functions::one_hot", vec![shape(of)?]),
        "Pad" => {
            let mode = match arguments.text("mode") {
                "reflect" => Some(("mode", "functions::PadMode::Reflect".to_owned())),
                "repeat" => Some(("mode", "functions::PadMode::Repeat".to_owned())),
                _ => None,
            };
            let options = [mode, of.number("constant_value", 0.0)].into_iter().flatten().collect();
            return of.layer("pad", vec![sizes(&arguments.counts("pad_width")?)], options, "");
        }
        "Pow2Quantize" => {
            let (n, m) = (arguments.count("n")?, arguments.integer("m"));
            let more = format!("n: {n}, m: {m}, ste_fine_grained: {}", flag("ste_fine_grained"));
            let (sign, with_zero) = (flag("sign"), flag("with_zero"));
            transform(of, &format!("functions::Pow2 {{ sign: {sign}, with_zero: {with_zero}, {more} }}"))?
        }
        "Prod" => reduction("functions::prod"),
        "Prune" => transform(of, &format!("functions::Prune {{ rate: {} }}", float("rate")))?,
        "Reshape" => of.function("functions::reshape", vec![format!("&{}", list(&reshaped(of)))]),
        "Shift" => {
            let mode = if arguments.text("border_mode") == "reflect" { "Reflect" } else { "Nearest" };
            let shifts = format!("&{}", list(&arguments.integers("shifts")));
            of.function("functions::shift", vec![shifts, format!("functions::BorderMode::{mode}")])
        }
        "Slice" => slice(of),
        "Softmax" => along(of, "softmax"),
        "SoftmaxCrossEntropy" => {
            // NNabla keeps the axis, which is one of the labels' or none.
            let axis = axis(of);
            let (x, labels) = (of.input(0)?, of.input(1)?);
            let call = format!("softmax_cross_entropy({x}, {labels}, {axis})");
            match (of.inputs[0].sizes.len(), of.inputs[1].sizes.len()) {
                (rank, of_labels) if of_labels < rank => {
                    Code::Expression(format!("{call}?.unsqueeze({axis})"))
                }
                _ => along(of, "softmax_cross_entropy"),
            }
        }
        "Sum" => reduction("functions::sum"),
        "Tile" => of.function("functions::tile", vec![sizes(&arguments.counts("reps")?)]),
        "TopNError" => {
            let more = vec![arguments.integer("axis").to_string(), arguments.integer("n").to_string()];
            of.function("functions::top_n_error", more)
        }
        "Transpose" => of.function("functions::transpose", vec![axes(&arguments.integers("axes"))]),
        "Unpooling" => {
            let channel_last = of.flag("channel_last", false).into_iter().collect();
            return of.layer("unpooling", vec![sizes(&arguments.window("kernel")?)], channel_last, "");
        }
        _ => return Err(Fault::new("cannot be declared")),
    })
}

/// An axis counted from the front.
fn axis(of: &Function<'_>) -> String {
    match of.arguments.integer("axis") {
        axis if axis >= 0 => axis.to_string(),
        axis => {
            let x = of.inputs.first().map(|operand| operand.code.as_str()).unwrap_or_default();
            format!("{x}.rank() - {}", axis.unsigned_abs())
        }
    }
}

fn along(of: &Function<'_>, callee: &str) -> Code {
    of.function(callee, vec![axis(of)])
}

fn pooling(of: &Function<'_>) -> Result<Code, Fault> {
    let (kernel, stride, pad) =
        (of.arguments.window("kernel")?, of.arguments.window("stride")?, of.arguments.window("pad")?);
    let stride = (!stride.is_empty() && stride != kernel).then(|| ("stride", sizes(&stride)));
    let pad = pad.iter().any(|&size| size != 0).then(|| ("pad", sizes(&pad)));
    let (callee, including_pad) = match of.kind {
        "MaxPooling" => ("max_pool", None),
        "AveragePooling" => ("avg_pool", of.flag("including_pad", true)),
        _ => ("sum_pooling", None),
    };
    let more = [stride, of.flag("ignore_border", true), pad, of.flag("channel_last", false), including_pad];
    of.layer(callee, vec![sizes(&kernel)], more.into_iter().flatten().collect(), "")
}

fn interpolate(of: &Function<'_>) -> Result<Code, Fault> {
    let nearest = of.arguments.text("mode") == "nearest";
    let options = [
        Some(("output_size", sizes(&of.arguments.counts("output_size")?))),
        nearest.then(|| ("mode", "functions::InterpolationMode::Nearest".to_owned())),
        of.flag("align_corners", false),
        of.flag("half_pixel", false),
        of.flag("half_pixel_for_nn", false),
        of.flag("channel_last", false),
    ];
    of.layer("interpolate", vec![], options.into_iter().flatten().collect(), "")
}

/// A shape in which -1 at the head is the size of the batch.
fn shape(of: &Function<'_>) -> Result<String, Fault> {
    let shape = of.arguments.sizes("shape");
    let sizes_of = |shape: &[i64]| shape.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(match shape.split_first() {
        Some((&head, rest)) if head < 0 => sizes(&[vec![of.batch.to_owned()], sizes_of(rest)].concat()),
        _ => sizes(&sizes_of(&shape)),
    })
}

/// The shape of a reshape: what follows from the rest is -1.
fn reshaped(of: &Function<'_>) -> Vec<i64> {
    let mut shape = of.arguments.sizes("shape");
    // Neural Network Console leaves the size of the batch out.
    if shape.iter().all(|&size| size >= 0) && of.made.len() == shape.len() + 1 && of.made.ends_with(&shape) {
        shape.insert(0, -1);
    }
    if let Some(head) = shape.first_mut() {
        *head = (*head).max(-1);
    }
    shape
}

fn slice(of: &Function<'_>) -> Code {
    // What NNabla writes for a start, stop or step that was not given.
    const NONE: i64 = 0x7fff_ffff;
    let given = |name: &str| {
        let values = of.arguments.integers(name);
        let some = |&value: &i64| if value == NONE { "None".to_owned() } else { format!("Some({value})") };
        format!("&{}", list(&values.iter().map(some).collect::<Vec<_>>()))
    };
    let step: Vec<i64> =
        of.arguments.integers("step").iter().map(|&step| if step == NONE { 1 } else { step }).collect();
    of.function("functions::slice", vec![given("start"), given("stop"), format!("&{}", list(&step))])
}

fn transform(of: &Function<'_>, transform: &str) -> Result<Code, Fault> {
    Ok(Code::Expression(format!("functions::Transform::apply(&{transform}, {})", of.input(0)?)))
}

fn with_index(of: &Function<'_>) -> Result<(Code, Gives), Fault> {
    let callee = match of.kind {
        "Max" => "functions::max_with_index",
        "Min" => "functions::min_with_index",
        _ => "functions::sort_with_index",
    };
    let more = match of.kind {
        "Sort" => [of.arguments.integer("axis").to_string(), of.arguments.flag("reverse").to_string()],
        _ => [axes(&of.arguments.integers("axes")), of.arguments.flag("keep_dims").to_string()],
    };
    let call = format!("{callee}({}, {})", of.input(0)?, more.join(", "));
    let (with_index, only_index) = (of.arguments.flag("with_index"), of.arguments.flag("only_index"));
    Ok(match (with_index, only_index) {
        (_, true) => (Code::Expression(format!("{call}.map(|(_, index)| index)")), Gives::Tensor),
        (true, false) => (Code::Expression(call), Gives::Tuple),
        (false, false) => (of.function(callee.trim_end_matches("_with_index"), more.to_vec()), Gives::Tensor),
    })
}

fn recurrent(of: &Function<'_>) -> Result<Option<(Code, Gives)>, Fault> {
    let (callee, n_states) = match of.kind {
        "GRU" => ("gru", 1),
        "LSTM" => ("lstm", 2),
        "RNN" => ("rnn", 1),
        _ => return Ok(None),
    };
    let first = 1 + n_states;
    let more = (of.arguments.count("num_layers")? > 1).then_some(first + 1);
    let bias = Some(more.unwrap_or(first) + 1).filter(|&place| place < of.inputs.len());
    let mut given = (0..=first).map(|place| of.input(place)).collect::<Result<Vec<_>, _>>()?;
    given.extend([of.optional(more), of.optional(bias)]);
    if of.kind == "RNN" {
        let relu = of.arguments.text("nonlinearity") == "relu";
        given.push(format!("functions::Nonlinearity::{}", if relu { "Relu" } else { "Tanh" }));
    }
    let dropout = if of.arguments.flag("training") { of.arguments.number("dropout") } else { 0.0 };
    given.extend([number(dropout), "&ParameterStore::current().rng()".to_owned()]);
    Ok(Some((Code::Expression(format!("functions::{callee}({})", given.join(", "))), Gives::Tuple)))
}
