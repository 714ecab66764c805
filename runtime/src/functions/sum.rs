//! Sums of gradients.

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor, WithDType};

use super::node::{Element, Elements, Value, compute, for_float};
use crate::Result;
use crate::device::has_kernels;
use crate::kernels::{Mat, MatMut, Start, Threads, gemm, zip, zip_in_place};

/// A gradient from a backward rule.
pub(crate) enum Gradient {
    Tensor(Tensor),
    /// Computed when all of them are known: many small products are joined to few large ones.
    Product(Product),
}

/// The gradient of weights `(inmaps, outmaps..)`: `transpose of x * dy`.
pub(crate) struct Product {
    /// `(rows, inmaps)`.
    pub(crate) x: Tensor,
    /// `(rows, outmaps..)`.
    pub(crate) dy: Tensor,
}

impl From<Tensor> for Gradient {
    fn from(gradient: Tensor) -> Self {
        Self::Tensor(gradient)
    }
}

impl Gradient {
    pub(crate) fn into_tensor(self) -> candle_core::Result<Option<Tensor>> {
        let mut sum = Sum::default();
        sum.add(self)?;
        sum.into_tensor()
    }
}

/// The sum of the gradients so far.
#[derive(Default)]
pub(crate) struct Sum {
    tensor: Option<Tensor>,
    /// Whether `tensor` belongs to this sum alone, so that it may be overwritten.
    is_own: bool,
    products: Vec<Product>,
}

impl Sum {
    /// Whether there are no gradients yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.tensor.is_none() && self.products.is_empty()
    }

    pub(crate) fn add(&mut self, gradient: Gradient) -> candle_core::Result<()> {
        let gradient = match gradient {
            Gradient::Tensor(gradient) => gradient.contiguous()?,
            Gradient::Product(product) => {
                self.products.push(product);
                return Ok(());
            }
        };
        let Some(sum) = &self.tensor else {
            self.tensor = Some(gradient);
            return Ok(());
        };
        if !has_kernels(sum.device()) {
            self.tensor = Some((sum + gradient)?);
            return Ok(());
        }
        if self.is_own {
            return sum.inplace_op2(&gradient, &Add);
        }
        self.tensor = Some(plus(sum, &gradient)?);
        self.is_own = true;
        Ok(())
    }

    pub(crate) fn into_tensor(mut self) -> candle_core::Result<Option<Tensor>> {
        let products = std::mem::take(&mut self.products);
        if let Some(first) = products.first() {
            let product = for_float!(first.dy.dtype(), T => Ok(sum_of_products::<T>(&products)?))?;
            self.add(Gradient::Tensor(product))?;
        }
        Ok(self.tensor)
    }
}

/// `a + b` for contiguous tensors of one shape.
fn plus(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    Ok(for_float!(a.dtype(), T => {
        compute::<T, 2>(a.dims(), [a, b], |[a, b], sum| zip(a, b, sum, |a, b| a + b))?.into_tensor().map_err(Into::into)
    })?)
}

/// `a += b` for contiguous tensors of one shape.
struct Add;

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        a: &mut CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<()> {
        fn add<T: Element>(
            (a, a_layout): (&mut [T], &Layout),
            (b, b_layout): (&[T], &Layout),
        ) -> candle_core::Result<()> {
            let (Some((a_start, a_end)), Some((b_start, b_end))) =
                (a_layout.contiguous_offsets(), b_layout.contiguous_offsets())
            else {
                candle_core::bail!("gradients to be added up are not contiguous")
            };
            zip_in_place(&mut a[a_start..a_end], &b[b_start..b_end], |a, b| a + b);
            Ok(())
        }
        match (a, b) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => add((a, a_layout), (b, b_layout)),
            (CpuStorage::F64(a), CpuStorage::F64(b)) => add((a, a_layout), (b, b_layout)),
            _ => candle_core::bail!("gradients of different types do not add up"),
        }
    }
}

/// Number of rows above which a larger product is not much faster.
const ENOUGH_ROWS: usize = 512;

fn sum_of_products<T: Element + WithDType>(products: &[Product]) -> Result<Tensor> {
    let Product { x, dy } = &products[0];
    let (_, inmaps) = x.dims2()?;
    let outmaps = &dy.dims()[1..];
    let n = outmaps.iter().product();
    let mut dw = Value::<T>::unfilled([&[inmaps], outmaps].concat())?;
    let mut start = Start::Zero;
    let mut add = |x: &[T], dy: &[T], rows: usize| {
        let (x, dy) = (Mat::new(x, rows, inmaps, inmaps), Mat::new(dy, rows, n, n));
        gemm(MatMut::new(&mut dw.data, inmaps, n, n), x.t(), dy, start, Threads::All);
        start = Start::Kept;
    };
    // Stacked in memory that serves all of them.
    let (mut xs, mut dys, mut stacked) = (Vec::new(), Vec::new(), 0);
    for (i, Product { x, dy }) in products.iter().enumerate() {
        let (rows, is_last) = (x.dims()[0], i + 1 == products.len());
        let (x, dy) = (Elements::of(x), Elements::of(dy));
        if stacked == 0 && (rows >= ENOUGH_ROWS || is_last) {
            add(x.slice()?, dy.slice()?, rows);
            continue;
        }
        xs.extend_from_slice(x.slice()?);
        dys.extend_from_slice(dy.slice()?);
        stacked += rows;
        if stacked >= ENOUGH_ROWS || is_last {
            add(&xs, &dys, stacked);
            xs.clear();
            dys.clear();
            stacked = 0;
        }
    }
    Ok(dw.into_tensor()?)
}
