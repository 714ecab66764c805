//! Faults planted in a layer, of which `layerfn::testing` has to find nearly all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use layerfn::prelude::*;
use layerfn::testing::{Check, Property, Report};
use layerfn::{Parameter, candle_core, get_parameter_or_create, parameter_scope, update_state};

/// What the layer computes: of the input, a square matrix and a vector.
const FORMULAS: usize = 6;
/// The tensors whose gradient may be wrong.
const SPOTS: usize = 3;
/// The ways in which it may.
const CHANGES: usize = 13;
/// Gradients of which a term is missing, by formula.
const MISSING: usize = 8;
/// Everything that is not a gradient.
const FAULTS: usize = 25;

/// `t` with a wrong gradient: the values are those of `t`, and the gradient is that of `wrong`.
fn with_gradient_of(t: &Tensor, wrong: &Tensor) -> Result<Tensor> {
    Ok((t.detach() + (wrong - wrong.detach())?)?)
}

/// One in all places but the first or last of an axis.
fn all_but(t: &Tensor, axis: usize, last: bool) -> Result<Tensor> {
    let (ones, n) = (t.ones_like()?.detach(), t.dim(axis)?);
    let (one, rest) = (ones.narrow(axis, 0, 1)?.zeros_like()?, ones.narrow(axis, 1, n - 1)?);
    Ok(if last { Tensor::cat(&[rest, one], axis)? } else { Tensor::cat(&[one, rest], axis)? })
}

fn changed(t: &Tensor, change: usize) -> Result<Tensor> {
    let last = t.rank() - 1;
    let wrong = match change {
        0 => return Ok(t.detach()),
        1 => t.neg()?,
        2 => (t * 2.0)?,
        3 => (t * 0.5)?,
        4 => (t * 1.01)?,
        5 => (t * 0.25)?,
        6 => (t * 4.0)?,
        7 => (t * all_but(t, last, true)?)?,
        8 => (t * all_but(t, 0, false)?)?,
        9 => Tensor::cat(&[t.narrow(last, 1, 2)?, t.narrow(last, 0, 1)?], last)?,
        10 => (t * 0.999)?,
        // The square in place of the tensor: a gradient with a factor that depends on the values.
        11 => t.sqr()?,
        // Every element gets the mean of what all get.
        _ => t.mean_keepdim(last)?.broadcast_as(t.dims())?,
    };
    with_gradient_of(t, &wrong)
}

/// `x`, or `x` without its gradient if this is the term that is missing.
fn unless(missing: bool, x: &Tensor) -> Tensor {
    if missing { x.detach() } else { x.clone() }
}

/// The layer; `missing` is the number of the term without a gradient.
fn formula(formula: usize, x: &Tensor, w: &Tensor, g: &Tensor, missing: usize) -> Result<Tensor> {
    let h = x.contiguous()?.matmul(w)?;
    match formula {
        0 => Ok(h.broadcast_mul(g)?),
        1 => Ok(h.broadcast_add(g)?),
        2 => Ok((sigmoid(&unless(missing == 1, &h.broadcast_add(g)?))? * unless(missing == 2, x))?),
        3 => Ok(relu(&h)?.broadcast_mul(g)?),
        4 => {
            let centred = h.broadcast_sub(&unless(missing == 3, &h.mean_keepdim(1)?))?;
            let variance = (unless(missing == 4, &centred).sqr()?.mean_keepdim(1)? + 0.1)?;
            Ok(centred.broadcast_div(&unless(missing == 5, &variance.sqrt()?))?.broadcast_mul(g)?)
        }
        _ => {
            let e = unless(missing == 6, &h).exp()?;
            let sum = unless(missing == 7, &e.sum_keepdim(1)?);
            Ok((e.broadcast_div(&sum)?.broadcast_mul(g)? + unless(missing == 8, x))?)
        }
    }
}

/// The formula of each missing term.
const OF_MISSING: [usize; MISSING] = [2, 2, 4, 4, 4, 5, 5, 5];

/// A layer with a fault.
#[parametric_function(
    scope = "planted",
    params(
        /// Matrix.
        W: [3, 3] = Initializer::uniform(-1.0, 1.0),
        /// Vector.
        g: [3] = 1.0,
    )
)]
fn planted(
    /// Input.
    inp: &Tensor,
    /// Which formula.
    kind: usize,
    /// Which tensor has a wrong gradient; none from 3 on.
    spot: usize,
    /// In what way.
    change: usize,
    /// Which term has no gradient; none if 0.
    missing: usize,
) -> Result<Tensor> {
    let mut tensors = [inp.clone(), param!(W)?, param!(g)?];
    if let Some(t) = tensors.get_mut(spot) {
        *t = changed(t, change)?;
    }
    let [x, w, g] = tensors;
    formula(kind, &x, &w, &g, missing)
}

/// Declared with other shapes than the body needs.
#[parametric_function(
    scope = "misshapen",
    params(
        /// Matrix.
        W: [rows, columns] = Initializer::uniform(-1.0, 1.0),
        /// Vector.
        g: [gates] = 1.0,
    )
)]
fn misshapen(
    /// Input.
    inp: &Tensor,
    /// Rows of the matrix.
    rows: usize,
    /// Its columns.
    columns: usize,
    /// Elements of the vector.
    gates: usize,
    /// Whether the vector stands beside the rows of the input.
    beside_rows: bool,
) -> Result<Tensor> {
    let h = inp.contiguous()?.matmul(&param!(W)?)?;
    let g = param!(g)?;
    let g = if beside_rows { g.reshape((gates, 1))? } else { g };
    Ok(h.broadcast_mul(&g)?)
}

/// With state: its declaration or its use may be wrong.
#[parametric_function(
    scope = "stateful",
    params(
        /// Trained.
        g: [3] = 1.0,
        /// Moves in training.
        #[need_grad(false)]
        mean: [1, 3] = 0.0,
    )
)]
fn stateful(
    /// Input.
    inp: &Tensor,
    /// Which fault; none if 0.
    fault: usize,
) -> Result<Tensor> {
    static N_CALLS: AtomicUsize = AtomicUsize::new(0);
    static N_DRAWN: AtomicUsize = AtomicUsize::new(0);
    // The variable itself is set below.
    let mut mean = param!(mean)?.copy()?;
    let g = param!(g)?;
    let n_rows = inp.dim(0)?;
    let batch = if n_rows == 0 && fault != 1 { mean.clone() } else { inp.detach().mean_keepdim(0)? };
    let moves = || update_state(["mean"], |[old]| Ok([((old * 0.5)? + (&batch * 0.5)?)?]));
    if (is_training() || fault == 2)
        && fault != 3
        && let Some([moved]) = moves()?
    {
        mean = if fault == 4 { moved } else { mean };
    }
    if fault == 3 {
        // Past the flags of a frozen layer.
        let now = layerfn::get_parameter("mean").expect("made above");
        now.var().set(&((now.var().as_detached_tensor() * 0.5)? + batch.to_dtype(now.var().dtype())?)?)?;
    }
    let n = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed) as f64;
    let y = inp.broadcast_sub(&mean.detach())?.broadcast_mul(&g)?;
    Ok(match fault {
        5 => (y + n(&N_CALLS))?,
        6 => (y * (1.0 + (n(&N_DRAWN) % 7.0) / 7.0))?,
        // In another type than the input's.
        7 => y.broadcast_add(&Tensor::new(0.5f32, y.device())?)?,
        8 => y.to_dtype(DType::F32)?.to_dtype(inp.dtype())?,
        9 => y.to_dtype(DType::F32)?,
        10 => (y * Tensor::new(2f64, inp.device())?.broadcast_as(inp.dims())?)?,
        // By the values as they lie in memory.
        11 => {
            let (storage, layout) = inp.storage_and_layout();
            let candle_core::Storage::Cpu(memory) = &*storage else { return Ok(y) };
            let first = match memory {
                candle_core::CpuStorage::F64(x) => x.first().copied().unwrap_or(0.0),
                candle_core::CpuStorage::F32(x) => f64::from(x.first().copied().unwrap_or(0.0)),
                _ => 0.0,
            };
            let _ = layout;
            (y + first)?
        }
        12 => (y + if inp.is_contiguous() { 0.0 } else { 1.0 })?,
        13 => {
            assert!(n_rows > 0, "no rows");
            y
        }
        14 => (y.sum_all()? / y.elem_count() as f64)?,
        15 => inp.get(0)?.broadcast_add(&y.get(n_rows - 1)?)?,
        // Depends on which thread runs it.
        16 => (y + f64::from(u8::from(std::thread::current().name().is_none())))?,
        17 => {
            // One parameter for all.
            let store = ParameterStore::current();
            if store.get("common").is_none() {
                let value = Tensor::ones(3, inp.dtype(), inp.device())?;
                store.set("common", Parameter::new(candle_core::Var::from_tensor(&value)?, true))?;
            }
            let common = store.get("common").expect("set above");
            y.broadcast_mul(&common.var().as_tensor().to_dtype(inp.dtype())?)?
        }
        18 => {
            let extra = get_parameter_or_create("extra").shape(3).call()?;
            y.broadcast_add(&extra)?
        }
        19 => y.broadcast_add(&get_parameter_or_create("mean").need_grad(true).as_need_grad(true).call()?)?,
        20 => {
            // Named by the call, so that no file can bring it back.
            let name = format!("s{}", n(&N_CALLS));
            y.broadcast_mul(&parameter_scope(&name, || get_parameter_or_create("h").shape(3).call())?)?
        }
        21 => {
            let unseen = candle_core::Var::from_tensor(&y.ones_like()?)?;
            (y * unseen.as_tensor())?
        }
        22 => {
            let rows = get_parameter_or_create("rows").shape((n_rows, 1)).call()?;
            y.broadcast_add(&rows)?
        }
        23 => (y * g.detach().ones_like()?.mean_all()?.to_scalar::<f64>()?)?,
        24 => {
            (y + inp.to_dtype(DType::F64)?.to_vec2::<f64>()?.iter().map(|row| row[0].powi(9)).sum::<f64>())?
        }
        25 => y.broadcast_mul(&Tensor::rand(0f32, 1f32, 3, inp.device())?.to_dtype(inp.dtype())?)?,
        _ => y,
    })
}

fn of_gradient(kind: usize, spot: usize, change: usize, missing: usize) -> Report {
    Check::new(|xs: &[Tensor]| planted(&xs[0], kind, spot, change, missing).call(), [(4, 3)]).run()
}

fn of_fault(fault: usize) -> Report {
    Check::new(|xs: &[Tensor]| stateful(&xs[0], fault).call(), [(4, 3)]).run()
}

fn of_shapes((rows, columns, gates, beside_rows): (usize, usize, usize, bool)) -> Report {
    let layer = |xs: &[Tensor]| misshapen(&xs[0], rows, columns, gates, beside_rows).call();
    Check::new(layer, [(4, 3)]).run()
}

#[test]
fn nearly_every_planted_fault_is_found() {
    for kind in 0..FORMULAS {
        let started = Instant::now();
        of_gradient(kind, SPOTS, 0, 0).assert_passed();
        println!("formula {kind} without a fault: {:?}", started.elapsed());
    }
    of_fault(0).assert_passed();
    of_shapes((3, 5, 5, false)).assert_passed();

    let mut reports = Vec::new();
    for kind in 0..FORMULAS {
        for spot in 0..SPOTS {
            for change in 0..CHANGES {
                let report = of_gradient(kind, spot, change, 0);
                reports.push((format!("formula {kind}, gradient of tensor {spot}, change {change}"), report));
            }
        }
        let transposed = Check::new(|xs: &[Tensor]| planted_transposed(&xs[0], kind).call(), [(4, 3)]);
        reports.push((format!("formula {kind}, transposed gradient"), transposed.run()));
    }
    for (i, kind) in OF_MISSING.into_iter().enumerate() {
        reports.push((format!("formula {kind} without term {}", i + 1), of_gradient(kind, SPOTS, 0, i + 1)));
    }
    let shapes = [
        (4, 5, 5, false),
        (2, 5, 5, false),
        (3, 5, 4, false),
        (3, 5, 6, false),
        (5, 3, 5, false),
        (3, 4, 5, false),
        (3, 6, 5, false),
        (3, 5, 4, true),
        (1, 5, 5, false),
        (3, 5, 3, false),
    ];
    for shape in shapes {
        reports.push((format!("shapes {shape:?}"), of_shapes(shape)));
    }
    for fault in 1..=FAULTS {
        reports.push((format!("fault {fault}"), of_fault(fault)));
    }
    let missed: Vec<_> = reports.iter().filter(|(_, report)| report.passed()).map(|(name, _)| name).collect();
    let (n, found) = (reports.len(), reports.len() - missed.len());
    println!("{found} of {n} planted faults are found; missed: {missed:#?}");
    assert!(n >= 200 && found * 100 >= n * 95, "{found} of {n}; missed: {missed:#?}");
    let (_, wrong_factor) = &reports[2];
    let failure = &wrong_factor.failures()[0];
    assert_eq!(failure.property, Property::Gradients);
    assert!(failure.what.starts_with("the gradient of input 0 at [0, 0] is "), "{}", failure.what);
}

/// With the gradient of the matrix transposed.
#[parametric_function(
    scope = "planted",
    params(
        /// Matrix.
        W: [3, 3] = Initializer::uniform(-1.0, 1.0),
        /// Vector.
        g: [3] = 1.0,
    )
)]
fn planted_transposed(
    /// Input.
    inp: &Tensor,
    /// Which formula.
    kind: usize,
) -> Result<Tensor> {
    let w = param!(W)?;
    formula(kind, inp, &with_gradient_of(&w, &w.t()?)?, &param!(g)?, 0)
}
