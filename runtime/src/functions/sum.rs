//! Sums of gradients.

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor, WithDType};

use super::node::{Element, Value, compute, for_float};
use crate::Result;
use crate::kernels::{Mat, MatMut, Threads, gemm, zip, zip_in_place};

/// A gradient as a backward rule gives it.
pub(crate) enum Gradient {
    Tensor(Tensor),
    /// Computed when all of them are known: many small products become few large ones.
    Product(Product),
}

/// The gradient of weights `(inmaps, outmaps..)`: `transpose of [x1, x2, ..] * dy`.
pub(crate) struct Product {
    /// Matrices `(rows, n)` that stand side by side.
    pub(crate) inputs: Vec<Tensor>,
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

/// The sum of what has come in so far.
#[derive(Default)]
pub(crate) struct Sum {
    tensor: Option<Tensor>,
    /// Whether the elements of `tensor` belong to this sum alone, so that it may write to them.
    is_own: bool,
    products: Vec<Product>,
}

impl Sum {
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
pub(crate) fn plus(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    if !a.device().is_cpu() {
        return a + b;
    }
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

/// Rows from which a product is not much faster by being larger.
const ENOUGH_ROWS: usize = 512;

fn sum_of_products<T: Element + WithDType>(products: &[Product]) -> Result<Tensor> {
    let first = &products[0];
    let widths: Vec<usize> = first.inputs.iter().map(|x| x.dims()[1]).collect();
    let outmaps = first.dy.dims()[1..].to_vec();
    let (inmaps, n) = (widths.iter().sum::<usize>(), outmaps.iter().product::<usize>());
    let mut dw = Value::<T>::zeros([&[inmaps], &outmaps[..]].concat())?;
    let rows = first.dy.dims()[0];
    let together = ENOUGH_ROWS.div_ceil(rows.max(1));
    for products in products.chunks(together) {
        let stacked = |tensors: Vec<&Tensor>| -> Result<Tensor> {
            Ok(if let [one] = &tensors[..] { (*one).clone() } else { Tensor::cat(&tensors, 0)? })
        };
        let dy = stacked(products.iter().map(|product| &product.dy).collect())?;
        let mut first_row = 0;
        for (i, &width) in widths.iter().enumerate() {
            let x = stacked(products.iter().map(|product| &product.inputs[i]).collect())?;
            let rows = x.dims()[0];
            compute::<T, 2>([0], [&x, &dy], |[x, dy], _| {
                let (x, dy) = (Mat::new(x, rows, width, width), Mat::new(dy, rows, n, n));
                let dw = MatMut::new(&mut dw.data[first_row * n..], width, n, n);
                gemm(dw, x.t(), dy, true, Threads::All);
            })?;
            first_row += width;
        }
    }
    Ok(dw.into_tensor()?)
}
