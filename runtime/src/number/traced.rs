//! Formulas as kernels for CUDA: computing with names instead of numbers writes the kernel's source.

use std::array;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::{Add, Div, Mul, Sub};
use std::rc::Rc;

use candle_core::{Result, Tensor};

use super::Number;
use crate::device::{Arguments, fused, has_fused};
use crate::kernels::cuda::Kernel;

/// The value of a statement of the kernel. A clone is the same value: whatever is used often is computed once.
#[derive(Clone)]
pub(crate) struct Traced {
    value: usize,
    program: Rc<RefCell<Program>>,
}

/// Statements in C, each of which gives a value its number. Constants are arguments of the kernel, so that the next step of a
/// solver, with another learning rate, has the same source.
#[derive(Default)]
struct Program {
    text: String,
    n_values: usize,
    constants: Vec<f64>,
}

impl Program {
    fn add(&mut self, expression: std::fmt::Arguments<'_>) -> usize {
        let value = self.n_values;
        self.n_values += 1;
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "T v{value} = {expression};");
        value
    }
}

impl Traced {
    fn new(program: &Rc<RefCell<Program>>, expression: std::fmt::Arguments<'_>) -> Self {
        Self { value: program.borrow_mut().add(expression), program: program.clone() }
    }

    fn and(&self, expression: std::fmt::Arguments<'_>) -> Self {
        Self::new(&self.program, expression)
    }

    /// The name of an argument of the kernel with this value.
    fn argument(&self, value: f64) -> String {
        let constants = &mut self.program.borrow_mut().constants;
        constants.push(value);
        format!("k{}", constants.len() - 1)
    }

    fn call(self, function: &str) -> Self {
        self.and(format_args!("{function}(v{})", self.value))
    }

    fn with_constant(self, operator: &str, value: f64) -> Self {
        let constant = self.argument(value);
        self.and(format_args!("v{} {operator} {constant}", self.value))
    }
}

macro_rules! operators {
    ($($Trait:ident $method:ident $sign:literal),+) => {
        $(
            impl $Trait for Traced {
                type Output = Self;

                fn $method(self, other: Self) -> Self {
                    self.and(format_args!(concat!("v{} ", $sign, " v{}"), self.value, other.value))
                }
            }
        )+
    };
}

operators!(Add add "+", Sub sub "-", Mul mul "*", Div div "/");

impl Number for Traced {
    /// 1 where the comparison holds, else 0.
    type Mask = Self;

    fn constant(&self, value: f64) -> Self {
        let constant = self.argument(value);
        self.and(format_args!("{constant}"))
    }

    fn scale(self, factor: f64) -> Self {
        self.with_constant("*", factor)
    }

    fn offset(self, term: f64) -> Self {
        self.with_constant("+", term)
    }

    fn sqrt(self) -> Self {
        self.call("sqrt")
    }

    fn limit(self, limit: f64) -> Self {
        let (x, limit) = (self.value, self.argument(limit));
        self.and(format_args!("v{x} > {limit} ? {limit} : v{x} < -{limit} ? -{limit} : v{x}"))
    }

    fn abs(self) -> Self {
        self.call("fabs")
    }

    fn exp(self) -> Self {
        self.call("exp")
    }

    fn exp_m1(self) -> Self {
        self.call("expm1")
    }

    fn ln_1p(self) -> Self {
        self.call("log1p")
    }

    fn ln(self) -> Self {
        self.call("log")
    }

    fn tanh(self) -> Self {
        self.call("tanh")
    }

    fn sin(self) -> Self {
        self.call("sin")
    }

    fn cos(self) -> Self {
        self.call("cos")
    }

    fn erf(self) -> Self {
        self.call("erf")
    }

    fn powf(self, exponent: f64) -> Self {
        let exponent = self.argument(exponent);
        self.and(format_args!("pow(v{}, {exponent})", self.value))
    }

    fn pow(self, exponent: Self) -> Self {
        self.and(format_args!("pow(v{}, v{})", self.value, exponent.value))
    }

    fn floor(self) -> Self {
        self.call("floor")
    }

    fn ceil(self) -> Self {
        self.call("ceil")
    }

    fn round(self) -> Self {
        self.call("round")
    }

    fn negative(self) -> Self {
        self.call("-")
    }

    fn above(&self, limit: f64) -> Self {
        self.clone().with_constant(">", limit)
    }

    fn at_least(&self, limit: f64) -> Self {
        self.clone().with_constant(">=", limit)
    }

    fn below(&self, limit: f64) -> Self {
        self.clone().with_constant("<", limit)
    }

    fn at_most(&self, limit: f64) -> Self {
        self.clone().with_constant("<=", limit)
    }

    fn exceeds(&self, other: &Self) -> Self {
        self.and(format_args!("v{} > v{}", self.value, other.value))
    }

    fn reaches(&self, other: &Self) -> Self {
        self.and(format_args!("v{} >= v{}", self.value, other.value))
    }

    fn equals(&self, other: &Self) -> Self {
        self.and(format_args!("v{} == v{}", self.value, other.value))
    }

    fn select(mask: Self, yes: impl FnOnce() -> Self, no: impl FnOnce() -> Self) -> Self {
        mask.and(format_args!("v{} != 0 ? v{} : v{}", mask.value, yes().value, no().value))
    }
}

/// The results of `formula` for each element, stacked on an axis in front of those of the first tensor. Of the
/// other tensors each has the shape of the first, or else one number for each channel and size 1 on the other axes. `None`
/// where kernels for CUDA do not run, and where axes of channels do not stand together.
pub(crate) fn fused_map<const A: usize, const N: usize>(
    first: [&Tensor; A],
    more: [&Tensor; N],
    formula: &dyn Fn([Traced; A], [Traced; N]) -> Vec<Traced>,
) -> Result<Option<Tensor>> {
    let inputs: Vec<&Tensor> = first.into_iter().chain(more).collect();
    let Some(like) = inputs.first().filter(|like| has_fused(like.device()) && like.elem_count() > 0) else {
        return Ok(None);
    };
    let Some([channels, inner]) = channels(like, &inputs) else { return Ok(None) };
    let program = Rc::<RefCell<Program>>::default();
    let mut index = 0;
    let mut value = |input: &Tensor| {
        let place = if input.dims() == like.dims() { "i" } else { "i / inner % channels" };
        index += 1;
        Traced::new(&program, format_args!("a{}[{place}]", index - 1))
    };
    let (first, more) = (first.map(&mut value), more.map(&mut value));
    let results = formula(first, more);
    let n_results = results.len();
    let results = results.into_iter().enumerate().map(|(i, result)| (format!("{i} * n + i"), result));
    let results: Vec<_> = results.collect();
    let Some(out) = launch(&program, &inputs, like.elem_count(), [channels, inner], &results)? else {
        return Ok(None);
    };
    out.reshape([&[n_results], like.dims()].concat()).map(Some)
}

/// [`fused_map`] for a formula of `P` numbers that lie together in a tensor `(N, P, inner)` and of groups of others in
/// tensors `(N, inner)`. Its first list of results becomes such a stack again, the second follows it, stacked; all of it
/// flat.
pub(crate) fn fused_stacked<const P: usize, const S: usize, const M: usize>(
    stack: &Tensor,
    more: [[&Tensor; S]; M],
    formula: impl FnOnce([Traced; P], [[Traced; S]; M]) -> [Vec<Traced>; 2],
) -> Result<Option<Tensor>> {
    if !has_fused(stack.device()) || stack.elem_count() == 0 {
        return Ok(None);
    }
    let inner = stack.dims()[2];
    let place = |part: usize, of: usize| format!("(i / inner * {of} + {part}) * inner + i % inner");
    let program = Rc::<RefCell<Program>>::default();
    let parts = array::from_fn(|part| Traced::new(&program, format_args!("a0[{}]", place(part, P))));
    let other = |index: usize| Traced::new(&program, format_args!("a{}[i]", index + 1));
    let others = array::from_fn(|group| array::from_fn(|s| other(group * S + s)));
    let [stacked, single] = formula(parts, others);
    let n_stacked = stacked.len();
    let stacked = stacked.into_iter().enumerate().map(|(part, result)| (place(part, n_stacked), result));
    let single = single.into_iter().enumerate();
    let single = single.map(|(i, result)| (format!("{} * n + i", n_stacked + i), result));
    let results: Vec<_> = stacked.chain(single).collect();
    let inputs: Vec<&Tensor> = [stack].into_iter().chain(more.into_iter().flatten()).collect();
    launch(&program, &inputs, stack.elem_count() / P, [1, inner], &results)
}

/// Runs the kernel with these statements for `n` items; each result is written to its place. Their sizes are called
/// `channels` and `inner` in the text.
fn launch(
    program: &Rc<RefCell<Program>>,
    inputs: &[&Tensor],
    n: usize,
    sizes: [usize; 2],
    results: &[(String, Traced)],
) -> Result<Option<Tensor>> {
    let program = program.borrow();
    let constants: String = (0..program.constants.len()).map(|k| format!("T k{k}, ")).collect();
    let pointers: String = (0..inputs.len()).map(|i| format!("const T *a{i}, ")).collect();
    let stores: String =
        results.iter().map(|(place, result)| format!("out[{place}] = v{};\n", result.value)).collect();
    let source = format!(
        "typedef unsigned long long size;\n\
         KERNEL void formula(size n, size channels, size inner, {constants}{pointers}T *out) {{\n\
         FOR_EACH(i, n) {{\n{}{stores}}}\n}}\n",
        program.text
    );
    let arguments = Arguments { sizes: &sizes, numbers: &program.constants, inputs };
    fused(Kernel { name: "formula", source: &source }, n, arguments, results.len() * n)
}

/// How many channels there are, and how many elements stand together in one. `None` if other axes stand between theirs.
fn channels(like: &Tensor, inputs: &[&Tensor]) -> Option<[usize; 2]> {
    let dims = like.dims();
    let Some(of_channels) = inputs.iter().find(|input| input.dims() != dims) else { return Some([1, 1]) };
    let kept = || (0..dims.len()).filter(|&axis| of_channels.dims()[axis] != 1);
    let (first, end) = (kept().next().unwrap_or(0), kept().next_back().map_or(0, |last| last + 1));
    (kept().count() == end - first).then(|| [of_channels.elem_count(), dims[end..].iter().product()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_often_is_computed_once() {
        let program = Rc::<RefCell<Program>>::default();
        let x = Traced::new(&program, format_args!("a0[i]"));
        (0..100).fold(x, |x, _| x.clone() * x);
        assert_eq!(program.borrow().n_values, 101);
        assert!(program.borrow().text.len() < 4000);
    }
}
