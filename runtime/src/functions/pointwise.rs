//! Element-wise functions, written once for the kernels, for candle's operations and for CUDA.

use std::array;

use candle_core::Tensor;

use super::composed::{attach as attach_composed, sum_to};
use super::graph::{attach, attach_with_result, tracked};
use super::node::{Element, compute, for_float, in_type, read, widened, without_kernels};
use crate::kernels::{Spread, combine_piece, combine_piece_with, for_each_piece};
use crate::number::{Formula, Number, evaluate};
use crate::{Error, Result, check};

/// Functions of one tensor, each with NNabla's name for it and an example in `f64`; one that NNabla does not have says `from` which
/// of the others it can be made. What the gradient follows from is said by the words before it:
/// `gradient_from_element(x, dy)`, `gradient_from_value(y, dy)`, `constant_gradient(dy)`; `gradient_passes` as it is, and
/// there is `no_gradient`.
macro_rules! unary {
    (@slope gradient_from_value) => { Slope::FromValue };
    (@slope gradient_from_element) => { Slope::FromElements };
    (@slope constant_gradient) => { Slope::Constant };
    (@slope gradient_passes) => { Slope::One };
    (@slope no_gradient) => { Slope::None };
    (@gradient $dy:ident $kept:ident) => {{
        let _ = $kept;
        $dy
    }};
    (@gradient $dy:ident $kept:ident, ($own_dy:ident) = $gradient:expr) => {{
        let ($own_dy, _) = ($dy, $kept);
        $gradient
    }};
    (@gradient $dy:ident $kept:ident, ($own_kept:ident, $own_dy:ident) = $gradient:expr) => {{
        let ($own_dy, [$own_kept]) = ($dy, $kept);
        $gradient
    }};
    (@told $kind:literal, $inp:ident $(, $argument:ident)*; $run:expr) => {
        $crate::told::told(|| $crate::told::Form::new($kind, &[$inp])$(.with(stringify!($argument), $argument))*, $run)
    };
    (@told, $inp:ident $(, $argument:ident)*; $run:expr) => { $run() };
    (@check $argument:ident) => { check::within(stringify!($argument), $argument, ..)? };
    (@check $argument:ident positive) => { check::positive(stringify!($argument), $argument)? };
    (@check $argument:ident not_negative) => { check::within(stringify!($argument), $argument, 0.0..)? };
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident $(: $check:ident)?),*) = $f:ident $(as $kind:literal)? $(from $parts:ident)? {
            example($x:expr $(, $given:expr)*) = $y:expr;
            value($own_x:ident) = $value:expr;
            $slope:ident $(($($bound:ident),+) = $gradient:expr)?;
        }
    )*) => {$(
        #[derive(Clone, Copy)]
        struct $f { $($argument: f64),* }

        impl Pointwise<1> for $f {
            const NAME: &'static str = stringify!($name);
            const SLOPE: Slope = unary!(@slope $slope);

            #[inline(always)]
            fn value<V: Number>(self, [$own_x]: [V; 1]) -> V {
                $(let $argument = self.$argument;)*
                $value
            }

            #[inline(always)]
            fn gradient<V: Number>(self, _: usize, dy: V, kept: [V; 1]) -> V {
                $(#[allow(unused_variables)] let $argument = self.$argument;)*
                unary!(@gradient dy kept $(, ($($bound),+) = $gradient)?)
            }
        }

        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the input does not hold floating-point
        /// numbers or a number is out of range.
        ///
        /// # Example
        #[doc = concat!(
            "```\nuse candle_core::{Device, Tensor};\nlet x = Tensor::new(&", stringify!($x), ", &Device::Cpu)?;\n\
             let y = layerfn::functions::", stringify!($name), "(&x", $(", ", stringify!($given),)* ")?;\n\
             assert_eq!(y.to_vec1::<f64>()?, ", stringify!($y), ");\n# Ok::<(), layerfn::Error>(())\n```"
        )]
        pub fn $name(inp: &Tensor $(, $argument: f64)*) -> Result<Tensor> {
            $(unary!(@check $argument $($check)?);)*
            $(if $crate::told::listens() {
                return $parts(inp);
            })?
            unary!(@told $($kind)?, inp $(, $argument)*; || apply($f { $($argument),* }, [inp]))
        }
    )*};
}
pub(super) use unary;

/// Functions of two tensors that are brought to one shape, each with an example in `f64`; otherwise as [`unary`].
macro_rules! binary {
    (@slope gradients) => { Slope::FromElements };
    (@slope constant_gradients) => { Slope::Constant };
    (@slope gradients_pass) => { Slope::One };
    (@slope no_gradients) => { Slope::None };
    (@gradient $index:ident $dy:ident $kept:ident) => {{
        let _ = ($index, $kept);
        $dy
    }};
    (@gradient $index:ident $dy:ident $kept:ident, ($own_dy:ident) = [$first:expr, $second:expr]) => {{
        let ($own_dy, _) = ($dy, $kept);
        if $index == 0 { $first } else { $second }
    }};
    (@gradient $index:ident $dy:ident $kept:ident, ($a:ident, $b:ident, $own_dy:ident) = [$first:expr, $second:expr]) => {{
        let ($own_dy, [$a, $b]) = ($dy, $kept);
        if $index == 0 { $first } else { $second }
    }};
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident $(: $check:ident)?),*) = $f:ident as $kind:literal {
            example($x0:expr, $x1:expr $(, $given:expr)*) = $y:expr;
            value($own_x0:ident, $own_x1:ident) = $value:expr;
            $slope:ident $(($($bound:ident),+) = [$first:expr, $second:expr])?;
        }
    )*) => {$(
        #[derive(Clone, Copy)]
        struct $f { $($argument: f64),* }

        impl Pointwise<2> for $f {
            const NAME: &'static str = stringify!($name);
            const SLOPE: Slope = binary!(@slope $slope);

            #[inline(always)]
            fn value<V: Number>(self, [$own_x0, $own_x1]: [V; 2]) -> V {
                $(let $argument = self.$argument;)*
                $value
            }

            #[inline(always)]
            fn gradient<V: Number>(self, index: usize, dy: V, kept: [V; 2]) -> V {
                $(#[allow(unused_variables)] let $argument = self.$argument;)*
                binary!(@gradient index dy kept $(, ($($bound),+) = [$first, $second])?)
            }
        }

        $(#[$doc])*
        ///
        /// # Shapes
        /// Both inputs have the same shape, or one of them has size 1 on an axis, along which it is broadcast.
        ///
        /// # Errors
        /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the inputs have other shapes, do not
        /// hold floating-point numbers or have different types, or a number is out of range.
        ///
        /// # Example
        #[doc = concat!(
            "```\nuse candle_core::{Device, Tensor};\nlet x0 = Tensor::new(&", stringify!($x0), ", &Device::Cpu)?;\n\
             let x1 = Tensor::new(&", stringify!($x1), ", &Device::Cpu)?;\n\
             let y = layerfn::functions::", stringify!($name), "(&x0, &x1", $(", ", stringify!($given),)* ")?;\n\
             assert_eq!(y.to_vec1::<f64>()?, ", stringify!($y), ");\n# Ok::<(), layerfn::Error>(())\n```"
        )]
        pub fn $name(x0: &Tensor, x1: &Tensor $(, $argument: f64)*) -> Result<Tensor> {
            $(unary!(@check $argument $($check)?);)*
            let form = || $crate::told::Form::new($kind, &[x0, x1])$(.with(stringify!($argument), $argument))*;
            $crate::told::told(form, || apply($f { $($argument),* }, [x0, x1]))
        }
    )*};
}
pub(super) use binary;

/// A function of the elements at one place of `N` tensors, and its slopes.
pub(super) trait Pointwise<const N: usize>: Copy + Send + Sync + 'static {
    const NAME: &'static str;

    const SLOPE: Slope = Slope::FromElements;

    fn value<V: Number>(self, x: [V; N]) -> V;

    /// The gradient of the tensor `index` from the gradient `dy` and what [`SLOPE`](Self::SLOPE) says.
    fn gradient<V: Number>(self, index: usize, dy: V, kept: [V; N]) -> V;
}

/// The values that the gradient of a function needs besides that of its result. They are kept for the backward
/// pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Slope {
    FromElements,
    /// Each of `kept` is the result.
    FromValue,
    /// Nothing: each of `kept` is the gradient itself.
    Constant,
    /// Every input gets the gradient of the result unchanged.
    One,
    /// No input gets a gradient.
    None,
}

struct Value<F>(F);

impl<F: Pointwise<N>, const N: usize> Formula<0, N> for Value<F> {
    fn of<V: Number>(&self, []: [V; 0], x: [V; N]) -> V {
        self.0.value(x)
    }
}

struct Gradient<F>(F, usize);

impl<F: Pointwise<N>, const N: usize> Formula<1, N> for Gradient<F> {
    fn of<V: Number>(&self, [dy]: [V; 1], kept: [V; N]) -> V {
        self.0.gradient(self.1, dy, kept)
    }
}

/// A function over pieces of tensors and over whole ones. Everything except the formula is written over this
/// trait, so it is compiled once, and not for each function.
trait Function<const N: usize>: Loops<f32, N> + Loops<f64, N> {
    fn name(&self) -> &'static str;

    fn slope(&self) -> Slope;

    fn boxed(&self) -> Box<dyn Function<N>>;

    fn composed_value(&self, x: [&Tensor; N]) -> candle_core::Result<Tensor>;

    fn composed_gradient(&self, index: usize, dy: &Tensor, kept: [&Tensor; N])
    -> candle_core::Result<Tensor>;
}

/// The loops of a function over pieces that are all as long as the result.
pub(super) trait Loops<T, const N: usize>: Send + Sync {
    fn values(&self, x: [&[T]; N], y: &mut [T]);

    fn gradients(&self, index: usize, kept: [&[T]; N], dy: &[T], dx: &mut [T]);
}

impl<T: Element, F: Pointwise<N>, const N: usize> Loops<T, N> for F {
    fn values(&self, x: [&[T]; N], y: &mut [T]) {
        let f = *self; // a copy stays in registers
        combine_piece(x, y, |x| f.value(x));
    }

    fn gradients(&self, index: usize, kept: [&[T]; N], dy: &[T], dx: &mut [T]) {
        let f = *self;
        match index {
            0 => combine_piece_with(kept, dy, dx, |kept, dy| f.gradient(0, dy, kept)), // known when the loop is compiled
            _ => combine_piece_with(kept, dy, dx, |kept, dy| f.gradient(index, dy, kept)),
        }
    }
}

impl<F: Pointwise<N>, const N: usize> Function<N> for F {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn slope(&self) -> Slope {
        F::SLOPE
    }

    fn boxed(&self) -> Box<dyn Function<N>> {
        Box::new(*self)
    }

    fn composed_value(&self, x: [&Tensor; N]) -> candle_core::Result<Tensor> {
        evaluate(&Value(*self), [], x)
    }

    fn composed_gradient(
        &self,
        index: usize,
        dy: &Tensor,
        kept: [&Tensor; N],
    ) -> candle_core::Result<Tensor> {
        evaluate(&Gradient(*self, index), [dy], kept)
    }
}

/// The loops of a function for this type of elements.
trait InType: Element {
    fn loops<const N: usize>(f: &dyn Function<N>) -> &dyn Loops<Self, N>;
}

impl InType for f32 {
    fn loops<const N: usize>(f: &dyn Function<N>) -> &dyn Loops<f32, N> {
        f
    }
}

impl InType for f64 {
    fn loops<const N: usize>(f: &dyn Function<N>) -> &dyn Loops<f64, N> {
        f
    }
}

/// The result for tensors of one shape, or of shapes that [`common_dims`] brings to one.
pub(super) fn apply<F: Pointwise<N>, const N: usize>(f: F, inputs: [&Tensor; N]) -> Result<Tensor> {
    apply_function(&f, inputs)
}

fn apply_function<const N: usize>(f: &dyn Function<N>, inputs: [&Tensor; N]) -> Result<Tensor> {
    let slope = f.slope();
    if slope == Slope::None && inputs.iter().any(|input| input.track_op()) {
        let inputs = inputs.map(Tensor::detach);
        return apply_function(f, inputs.each_ref());
    }
    let dims = common_dims(inputs)?;
    let compose = |t: &[Tensor]| Ok([composed(f, &dims, array::from_fn(|i| &t[i]))?]);
    if let Some([y]) = without_kernels(f.name(), &inputs, compose)? {
        return Ok(y);
    }
    let widened = widened(f.name(), inputs)?;
    let x = widened.each_ref().map(|x| &**x);
    let shapes = Shapes::new(&dims, x);
    let y = for_float!(x[0].dtype(), T => {
        let y = compute::<T, N>(&*dims, x, |x, y| {
            let loops = T::loops(f);
            match &shapes.spread {
                None => for_each_piece(x, y, &|_, x, y| loops.values(x, y)),
                Some(spread) => spread.for_each_piece(x, y, &|_, x, y| loops.values(x, y)),
            }
        })?;
        if !inputs.iter().any(|input| input.track_op()) {
            return in_type(y.into_tensor()?, inputs[0].dtype());
        }
        let (needed, f, name) = (tracked(x), f.boxed(), f.name());
        let gradients = move |dy: &Tensor, kept: [&Tensor; N]| {
            let mut gradients = array::from_fn(|_| None);
            for (i, gradient) in gradients.iter_mut().enumerate().filter(|(i, _)| needed[*i]) {
                *gradient = Some(shapes.gradient_of::<T>(&*f, i, dy, kept)?);
            }
            Ok(gradients)
        };
        match slope {
            Slope::FromValue => attach_with_result(name, x, y, move |y, dy| gradients(dy, [y; N])),
            Slope::FromElements | Slope::None => {
                let kept = x.map(Tensor::clone);
                attach(name, x, y, move |dy| gradients(dy, kept.each_ref()))
            }
            Slope::Constant | Slope::One => attach(name, x, y, move |dy| gradients(dy, [dy; N])),
        }
    })?;
    in_type(y, inputs[0].dtype())
}

/// The sizes of a result: on each axis those of the inputs, of which some may be 1.
///
/// # Errors
/// If the inputs have another number of axes or other sizes, or there is no memory for the result.
fn common_dims<const N: usize>(inputs: [&Tensor; N]) -> Result<Vec<usize>> {
    let mut dims = inputs[0].dims().to_vec();
    for input in &inputs[1..] {
        let alike = |(a, b): (&usize, &usize)| a == b || *a == 1 || *b == 1;
        if input.rank() != dims.len() || !dims.iter().zip(input.dims()).all(alike) {
            let reason = format!("must have the shape {dims:?} of the other, or size 1 where the two differ");
            return Err(Error::invalid("inp", reason, input.dims()));
        }
        for (size, &other) in dims.iter_mut().zip(input.dims()) {
            *size = if *size == 1 { other } else { *size };
        }
    }
    check::tensor("inp", &dims, inputs[0].dtype())?;
    Ok(dims)
}

/// The shapes of the inputs of one call.
struct Shapes<const N: usize> {
    inputs: [Vec<usize>; N],
    /// If they are not all that of the result.
    spread: Option<Spread<N>>,
}

impl<const N: usize> Shapes<N> {
    fn new(dims: &[usize], inputs: [&Tensor; N]) -> Self {
        let inputs = inputs.map(Tensor::dims);
        let spread = inputs.iter().any(|input| *input != dims).then(|| Spread::new(dims, inputs));
        Self { inputs: inputs.map(<[usize]>::to_vec), spread }
    }

    /// The gradient of the tensor `index`.
    fn gradient_of<T: InType>(
        &self,
        f: &dyn Function<N>,
        index: usize,
        dy: &Tensor,
        kept: [&Tensor; N],
    ) -> candle_core::Result<Tensor> {
        let loops = T::loops(f);
        let whole = match &self.spread {
            _ if f.slope() == Slope::One => dy.clone(),
            Some(spread) if f.slope() == Slope::FromElements => {
                let dims = dy.dims();
                let dx = read([dy], |[dy]| {
                    compute::<T, N>(dims, kept, |kept, dx| {
                        spread.for_each_piece(kept, dx, &|start, kept, dx| {
                            loops.gradients(index, kept, &dy[start..][..dx.len()], dx);
                        });
                    })
                })??;
                dx.into_tensor()?
            }
            _ => gradient_of(loops, index, dy, kept)?,
        };
        let dims = &self.inputs[index];
        match &self.spread {
            Some(spread) if whole.dims() != &**dims => {
                let sum = |[whole]: [&[T]; 1], sums: &mut [T]| spread.sum(index, whole, sums);
                compute::<T, 1>(&**dims, [&whole], sum)?.into_tensor()
            }
            _ => Ok(whole),
        }
    }
}

/// The gradient of the tensor `index`, for tensors of one shape.
pub(super) fn gradient_of<T: Element, const N: usize>(
    loops: &dyn Loops<T, N>,
    index: usize,
    dy: &Tensor,
    kept: [&Tensor; N],
) -> candle_core::Result<Tensor> {
    let dims = dy.dims();
    let dx = read([dy], |[dy]| {
        compute::<T, N>(dims, kept, |kept, dx| {
            for_each_piece(kept, dx, &|start, kept, dx| {
                loops.gradients(index, kept, &dy[start..][..dx.len()], dx);
            });
        })
    })??;
    dx.into_tensor()
}

fn composed<const N: usize>(
    f: &dyn Function<N>,
    dims: &[usize],
    inputs: [&Tensor; N],
) -> candle_core::Result<Tensor> {
    let whole = |input: &Tensor| match input.dims() == dims {
        true => Ok(input.detach()),
        false => input.detach().broadcast_as(dims)?.contiguous(),
    };
    let whole = inputs.iter().map(|input| whole(input)).collect::<candle_core::Result<Vec<_>>>()?;
    let y = f.composed_value(array::from_fn(|i| &whole[i]))?;
    let slope = f.slope();
    let kept = match slope {
        Slope::FromValue => vec![y.clone(); N],
        Slope::FromElements | Slope::None => whole,
        Slope::Constant | Slope::One => Vec::new(),
    };
    let of_inputs = inputs.map(|input| input.dims().to_vec());
    let (f, name) = (f.boxed(), f.name());
    attach_composed(name, &inputs, &y, move |dy, needed| {
        let gradient = |i: usize| {
            let whole = match slope {
                Slope::One => dy.clone(),
                _ => f.composed_gradient(i, dy, array::from_fn(|j| kept.get(j).unwrap_or(dy)))?,
            };
            sum_to(&whole, &of_inputs[i])
        };
        (0..N).map(|i| needed[i].then(|| gradient(i)).transpose()).collect()
    })
}
