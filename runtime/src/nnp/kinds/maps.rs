//! Functions of each element, along an axis, and losses.

use super::super::Fault;
use super::{Arguments, Kind, Prepared};
use crate::{Error, ParameterStore, Result, functions};

/// A function of one tensor and nothing else.
macro_rules! of_one {
    ($name:literal, $function:path) => {
        Kind::new($name, 1..=1, |_| Prepared::one(|call| $function(call.input(0)?)))
    };
}

/// A function of two tensors and nothing else.
macro_rules! of_two {
    ($name:literal, $function:path) => {
        Kind::new($name, 2..=2, |_| Prepared::one(|call| $function(call.input(0)?, call.input(1)?)))
    };
}

/// A function of one tensor and the number `$argument`.
macro_rules! of_one_and {
    ($name:literal, $function:path, $argument:literal) => {
        Kind::new($name, 1..=1, |arguments| {
            let number = arguments.number($argument);
            Prepared::one(move |call| $function(call.input(0)?, number))
        })
    };
}

/// A function of two tensors and the number `$argument`.
macro_rules! of_two_and {
    ($name:literal, $function:path, $argument:literal) => {
        Kind::new($name, 2..=2, |arguments| {
            let number = arguments.number($argument);
            Prepared::one(move |call| $function(call.input(0)?, call.input(1)?, number))
        })
    };
}

/// A function of one tensor along `axis`.
macro_rules! along_axis {
    ($name:literal, $function:path) => {
        Kind::new($name, 1..=1, |arguments| {
            let axis = arguments.integer("axis");
            Prepared::one(move |call| {
                let inp = call.input(0)?;
                $function(inp, axis_of(axis, inp.rank())?)
            })
        })
    };
}

pub(super) static KINDS: &[Kind] = &[
    of_one!("ACos", functions::acos),
    of_one!("ACosh", functions::acosh),
    of_one!("ASin", functions::asin),
    of_one!("ASinh", functions::asinh),
    of_one!("ATan", functions::atan),
    of_two!("ATan2", functions::atan2),
    of_one!("ATanh", functions::atanh),
    of_one!("Abs", functions::abs),
    of_two!("AbsoluteError", functions::absolute_error),
    of_two!("Add2", functions::add2),
    Kind::new("AddN", 1..=usize::MAX, |_| {
        Prepared::one(|call| functions::add_n(&call.inputs.iter().collect::<Vec<_>>()))
    }),
    of_one_and!("AddScalar", functions::add_scalar, "val"),
    of_two!("BinaryCrossEntropy", functions::binary_cross_entropy),
    of_two!("BinaryError", functions::binary_error),
    of_one!("BinarySigmoid", functions::binary_sigmoid),
    of_one!("BinaryTanh", functions::binary_tanh),
    Kind::new("CELU", 1..=1, |arguments| {
        let (alpha, axis) = (arguments.number("alpha"), arguments.integer("axis"));
        Prepared::one(move |call| functions::celu(call.input(0)?, alpha, axis))
    }),
    Kind::new("CReLU", 1..=1, |arguments| {
        let axis = arguments.integer("axis");
        Prepared::one(move |call| functions::crelu(call.input(0)?, axis))
    }),
    Kind::new("CategoricalCrossEntropy", 2..=2, |arguments| {
        let axis = arguments.integer("axis");
        Prepared::one(move |call| {
            let inp = call.input(0)?;
            functions::categorical_cross_entropy(inp, call.input(1)?, axis_of(axis, inp.rank())?)
        })
    })
    .integers(&[1]),
    of_one!("Ceil", functions::ceil),
    of_one!("Cos", functions::cos),
    of_one!("Cosh", functions::cosh),
    of_two!("Div2", functions::div2),
    Kind::new("Dropout", 1..=1, dropout),
    of_one_and!("ELU", functions::elu, "alpha"),
    of_two_and!("EpsilonInsensitiveLoss", functions::epsilon_insensitive_loss, "epsilon"),
    of_two!("Equal", functions::equal),
    of_one_and!("EqualScalar", functions::equal_scalar, "val"),
    of_one!("Erf", functions::erf),
    of_one!("Exp", functions::exp),
    of_one!("Floor", functions::floor),
    of_one!("GELU", functions::gelu),
    of_two!("Greater", functions::greater),
    of_two!("GreaterEqual", functions::greater_equal),
    of_one_and!("GreaterEqualScalar", functions::greater_equal_scalar, "val"),
    of_one_and!("GreaterScalar", functions::greater_scalar, "val"),
    of_one!("HardSigmoid", functions::hard_sigmoid),
    of_one!("HardTanh", functions::hard_tanh),
    of_two_and!("HuberLoss", functions::huber_loss, "delta"),
    of_one!("IsInf", functions::isinf),
    of_one!("IsNaN", functions::isnan),
    Kind::new("KLMultinomial", 2..=2, |arguments| {
        let base_axis = arguments.integer("base_axis");
        Prepared::one(move |call| functions::kl_multinomial(call.input(0)?, call.input(1)?, base_axis))
    }),
    of_one_and!("LeakyReLU", functions::leaky_relu, "alpha"),
    of_two!("Less", functions::less),
    of_two!("LessEqual", functions::less_equal),
    of_one_and!("LessEqualScalar", functions::less_equal_scalar, "val"),
    of_one_and!("LessScalar", functions::less_scalar, "val"),
    of_one!("Log", functions::log),
    of_one!("LogSigmoid", functions::log_sigmoid),
    along_axis!("LogSoftmax", functions::log_softmax),
    of_two!("LogicalAnd", functions::logical_and),
    of_one!("LogicalNot", functions::logical_not),
    of_two!("LogicalOr", functions::logical_or),
    of_two!("LogicalXor", functions::logical_xor),
    of_two!("Maximum2", functions::maximum2),
    of_one_and!("MaximumScalar", functions::maximum_scalar, "val"),
    of_two!("Minimum2", functions::minimum2),
    of_one_and!("MinimumScalar", functions::minimum_scalar, "val"),
    of_one!("Mish", functions::mish),
    of_two!("Mul2", functions::mul2),
    of_one_and!("MulScalar", functions::mul_scalar, "val"),
    of_two!("NotEqual", functions::not_equal),
    of_one_and!("NotEqualScalar", functions::not_equal_scalar, "val"),
    Kind::new("PReLU", 2..=2, prelu),
    of_two!("Pow2", functions::pow2),
    of_one_and!("PowScalar", functions::pow_scalar, "val"),
    of_one_and!("RDivScalar", functions::r_div_scalar, "val"),
    of_one_and!("RPowScalar", functions::r_pow_scalar, "val"),
    of_one_and!("RSubScalar", functions::r_sub_scalar, "val"),
    of_one!("ReLU", functions::relu),
    of_one!("ReLU6", functions::relu6),
    of_one_and!("ResetInf", functions::reset_inf, "val"),
    of_one_and!("ResetNaN", functions::reset_nan, "val"),
    of_one!("Round", functions::round),
    Kind::new("SELU", 1..=1, selu),
    of_one!("Sigmoid", functions::sigmoid),
    of_two!("SigmoidCrossEntropy", functions::sigmoid_cross_entropy),
    of_one_and!("Sign", functions::sign, "alpha"),
    of_one!("Sin", functions::sin),
    of_one!("Sinc", functions::sinc),
    of_one!("Sinh", functions::sinh),
    of_one_and!("SoftPlus", functions::softplus_with, "beta"),
    of_one!("SoftSign", functions::softsign),
    along_axis!("Softmax", functions::softmax),
    Kind::new("SoftmaxCrossEntropy", 2..=2, softmax_cross_entropy).integers(&[1]),
    of_two!("SquaredError", functions::squared_error),
    of_two!("Sub2", functions::sub2),
    of_one!("Swish", functions::silu),
    of_one!("Tan", functions::tan),
    of_one!("Tanh", functions::tanh),
    of_one!("TanhShrink", functions::tanh_shrink),
    Kind::new("Where", 3..=3, |_| {
        Prepared::one(|call| functions::where_cond(call.input(0)?, call.input(1)?, call.input(2)?))
    }),
];

/// An axis that may be counted from the end.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize> {
    let from_start = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_start)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or_else(|| Error::invalid("axis", format!("must be one of the {rank} axes of the input"), axis))
}

fn dropout(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let p = arguments.number("p");
    Prepared::one(move |call| {
        let rng = ParameterStore::current().rng();
        functions::activation::dropout(call.input(0)?, p, &mut || rng.next_u32())
    })
}

fn prelu(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let base_axis = arguments.integer("base_axis");
    Prepared::one(move |call| functions::prelu(call.input(0)?, call.input(1)?, base_axis))
}

fn selu(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (scale, alpha) = (arguments.number("scale"), arguments.number("alpha"));
    Prepared::one(move |call| functions::selu_with(call.input(0)?, scale, alpha))
}

fn softmax_cross_entropy(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let axis = arguments.integer("axis");
    Prepared::one(move |call| {
        let inp = call.input(0)?;
        let axis = axis_of(axis, inp.rank())?;
        let loss = functions::softmax_cross_entropy(inp, call.input(1)?, axis)?;
        // NNabla keeps the axis.
        Ok(if loss.rank() < inp.rank() { loss.unsqueeze(axis)? } else { loss })
    })
}
