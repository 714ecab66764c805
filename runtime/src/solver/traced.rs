//! A rule as a kernel for CUDA: computing with texts instead of numbers writes the kernel's source.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Sub};
use std::rc::Rc;

use candle_core::{Result, Tensor};

use super::{Change, Number, Rule};
use crate::device::{Arguments, fused};
use crate::kernels::cuda::Kernel;

/// An expression in C. Its constants are arguments of the kernel, so that the next step, with another learning rate, has
/// the same source.
#[derive(Clone)]
struct Traced {
    text: String,
    constants: Rc<RefCell<Vec<f64>>>,
}

impl Traced {
    fn constant(&self, value: f64) -> String {
        let mut constants = self.constants.borrow_mut();
        constants.push(value);
        format!("k{}", constants.len() - 1)
    }

    fn with(self, text: String) -> Self {
        Self { text, ..self }
    }
}

macro_rules! operators {
    ($($Trait:ident $method:ident $sign:literal),+) => {
        $(
            impl $Trait for Traced {
                type Output = Self;

                fn $method(self, other: Self) -> Self {
                    let text = format!(concat!("({} ", $sign, " {})"), self.text, other.text);
                    self.with(text)
                }
            }
        )+
    };
}

operators!(Add add "+", Sub sub "-", Mul mul "*", Div div "/");

impl Number for Traced {
    fn scale(self, factor: f64) -> Self {
        let text = format!("({} * {})", self.text, self.constant(factor));
        self.with(text)
    }

    fn offset(self, term: f64) -> Self {
        let text = format!("({} + {})", self.text, self.constant(term));
        self.with(text)
    }

    fn sqrt(self) -> Self {
        let text = format!("sqrt({})", self.text);
        self.with(text)
    }

    fn limit(self, limit: f64) -> Self {
        let text = format!("limited({}, {})", self.text, self.constant(limit));
        self.with(text)
    }
}

/// The parameter and its states after a step, one upon the other, if kernels for CUDA run here.
pub(super) fn step<R: Rule<N>, const N: usize>(
    rule: &R,
    rates: R::Rates,
    change: Change,
    w: &Tensor,
    gradient: &Tensor,
    states: &[Tensor],
) -> Result<Option<Tensor>> {
    let constants = Rc::<RefCell<Vec<f64>>>::default();
    let variable = |text: String| Traced { text, constants: constants.clone() };
    let value = variable("w[i]".to_owned());
    let changed = match change {
        Change::NONE => variable("g[i]".to_owned()),
        change => change.apply(&value, variable("g[i]".to_owned())),
    };
    let mut index = 0;
    let before = [(); N].map(|()| {
        index += 1;
        variable(format!("s{}[i]", index - 1))
    });
    let (w_after, after) = rule.step(rates, value, changed, before);

    let constants = constants.borrow();
    let numbers: String = (0..constants.len()).map(|k| format!("T k{k}, ")).collect();
    let inputs: String = (0..N).map(|s| format!("const T *s{s}, ")).collect();
    let results = [w_after].into_iter().chain(after).enumerate();
    let results: String = results.map(|(i, value)| format!("out[{i} * n + i] = {};\n", value.text)).collect();
    let source = format!(
        "INLINE T limited(T x, T limit) {{ return x > limit ? limit : x < -limit ? -limit : x; }}\n\
         KERNEL void solver_step(unsigned long long n, {numbers}const T *w, const T *g, {inputs}T *out) {{\n\
         FOR_EACH(i, n) {{\n{results}}}\n}}\n"
    );
    let tensors: Vec<&Tensor> = [w, gradient].into_iter().chain(states).collect();
    let arguments = Arguments { sizes: &[], numbers: &constants, inputs: &tensors };
    let n = w.elem_count();
    let kernel = Kernel { name: "solver_step", source: &source };
    let Some(out) = fused(kernel, n, arguments, (N + 1) * n)? else { return Ok(None) };
    out.reshape([&[N + 1], w.dims()].concat()).map(Some)
}
