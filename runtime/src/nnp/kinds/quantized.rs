//! Weights that are rounded, reduced to their signs or cut.

use candle_core::Tensor;

use super::super::Fault;
use super::layers::Windows;
use super::{Arguments, Call, Hidden, Kind, Prepared};
use crate::functions::{self, BinaryWeight, FixedPoint, Inq, Pow2, Prune, SelectionAlgorithm, Transform};
use crate::{Error, ParameterStore, Result};

pub(super) static KINDS: &[Kind] = &[
    Kind::new("BinaryConnectAffine", 3..=4, |arguments| {
        binary_connect(arguments, Product::affine(arguments)?)
    }),
    Kind::new("BinaryConnectConvolution", 3..=4, |arguments| {
        binary_connect(arguments, Product::convolution(arguments)?)
    }),
    Kind::new("BinaryWeightAffine", 4..=5, |arguments| binary_weight(arguments, Product::affine(arguments)?)),
    Kind::new("BinaryWeightConvolution", 4..=5, |arguments| {
        binary_weight(arguments, Product::convolution(arguments)?)
    }),
    Kind::new("FixedPointQuantize", 1..=1, fixed_point),
    Kind::new("INQAffine", 3..=4, |arguments| inq(arguments, Product::affine(arguments)?)),
    Kind::new("INQConvolution", 3..=4, |arguments| inq(arguments, Product::convolution(arguments)?)),
    Kind::new("Pow2Quantize", 1..=1, pow2),
    Kind::new("Prune", 1..=1, prune),
];

/// What is done with the weights.
enum Product {
    Affine { base_axis: i64 },
    Convolution { windows: Windows, group: usize },
}

impl Product {
    fn affine(arguments: &Arguments<'_>) -> Result<Self, Fault> {
        Ok(Self::Affine { base_axis: arguments.integer("base_axis") })
    }

    fn convolution(arguments: &Arguments<'_>) -> Result<Self, Fault> {
        Ok(Self::Convolution { windows: Windows::new(arguments)?, group: arguments.count("group")? })
    }

    /// The product of the input with `w`.
    fn call(&self, inp: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Affine { base_axis } => functions::affine(inp, w, b, *base_axis),
            Self::Convolution { windows, group } => {
                functions::convolution(inp, w, b, &windows.convolution(inp, w, *group)?)
            }
        }
    }

    /// The axes of the weights that each output sums over.
    fn summed(&self, w: &Tensor) -> std::ops::Range<usize> {
        match self {
            Self::Affine { .. } => 0..1,
            Self::Convolution { .. } => 1..w.rank().max(1),
        }
    }
}

fn binary_connect(arguments: &Arguments<'_>, product: Product) -> Result<Prepared, Fault> {
    let zero_to = arguments.number("quantize_zero_to");
    let prepared = Prepared::one(move |call| {
        let (inp, w) = (call.input(0)?, call.input(1)?);
        let wb = functions::binary_connect(w, zero_to)?;
        call.update([2], |_| Ok([wb.detach()]))?;
        product.call(inp, &wb, call.get(3))
    })?;
    Ok(Prepared { state: vec![2], ..prepared })
}

fn binary_weight(arguments: &Arguments<'_>, product: Product) -> Result<Prepared, Fault> {
    let zero_to = arguments.number("quantize_zero_to");
    let prepared = Prepared::one(move |call| {
        let (inp, w) = (call.input(0)?, call.input(1)?);
        let BinaryWeight { output, wb, alpha } = functions::binary_weight(w, product.summed(w), zero_to)?;
        write_binary(call, &wb, &alpha)?;
        product.call(inp, &output, call.get(4))
    })?;
    Ok(Prepared { state: vec![2, 3], ..prepared })
}

fn write_binary(call: &Call<'_>, wb: &Tensor, alpha: &Tensor) -> Result<()> {
    call.update([2, 3], |[_, before]| Ok([wb.clone(), alpha.reshape(before.dims())?]))
}

/// Incremental quantization. NNabla counts the passes inside of the function, so that its files do not say how many there were:
/// a model begins anew, unless the file is one of ours.
fn inq(arguments: &Arguments<'_>, product: Product) -> Result<Prepared, Fault> {
    let selection_algorithm = match arguments.text("selection_algorithm") {
        "largest_abs" => SelectionAlgorithm::LargestAbs,
        "random" => SelectionAlgorithm::Random,
        other => {
            let reason =
                format!("`selection_algorithm` must be \"largest_abs\" or \"random\", got {other:?}");
            return Err(Fault::new(reason));
        }
    };
    let settings = Inq {
        num_bits: arguments.count("num_bits")?,
        inq_iterations: arguments.counts("inq_iterations")?,
        selection_algorithm,
        seed: arguments.integer("seed"),
    };
    let settings = settings.checked().map_err(|error| Fault::new(error.to_string()))?;
    let prepared = Prepared::one(move |call| {
        let (inp, w) = (call.input(0)?, call.input(1)?);
        let rounded = step(&settings, call)?.unwrap_or_else(|| w.detach());
        product.call(inp, &functions::straight_through(w, &rounded)?, call.get(3))
    })?;
    let hidden = vec![(LAST, Hidden::LikeInput(1)), (COUNT, Hidden::OfSize(Inq::STATE))];
    Ok(Prepared { state: vec![2], hidden, ..prepared })
}

/// What the layers of this library keep beside the weights.
const LAST: &str = "_W";
const COUNT: &str = "_count";

/// One pass, if the weights and all that belongs to them are parameters and not frozen.
fn step(settings: &Inq, call: &Call<'_>) -> Result<Option<Tensor>> {
    let rng = ParameterStore::current().rng();
    let moved = call.update_with_hidden([1, 2], [LAST, COUNT], |[w, i, last, count]| {
        let step = settings.step(&w, &i, &last, &count, &rng)?;
        Ok([step.w.clone(), step.i, step.w, step.count])
    })?;
    Ok(moved.map(|[w, ..]| w))
}

fn fixed_point(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (sign, ste_fine_grained) = (arguments.flag("sign"), arguments.flag("ste_fine_grained"));
    transform(FixedPoint {
        sign,
        n: arguments.count("n")?,
        delta: arguments.number("delta"),
        ste_fine_grained,
    })
}

fn pow2(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let m = arguments.integer("m");
    transform(Pow2 {
        sign: arguments.flag("sign"),
        with_zero: arguments.flag("with_zero"),
        n: arguments.count("n")?,
        m: i32::try_from(m).map_err(|_| Fault::new(format!("`m` must be between -100 and 100, got {m}")))?,
        ste_fine_grained: arguments.flag("ste_fine_grained"),
    })
}

fn prune(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    transform(Prune { rate: arguments.number("rate") })
}

fn transform(transform: impl Transform + Send + Sync + 'static) -> Result<Prepared, Fault> {
    let transform = transform.checked().map_err(|error: Error| Fault::new(error.to_string()))?;
    Prepared::one(move |call| transform.apply(call.input(0)?))
}
