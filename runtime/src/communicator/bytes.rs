//! Tensors as messages.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use crate::{Error, Result, check};

/// Bytes before the sizes: the type and the number of axes.
const HEADER: usize = 2;

/// The type, the sizes and the elements of a tensor, in the byte order of this machine.
pub(super) fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let (code, elements) = elements(tensor)?;
    let rank = u8::try_from(tensor.rank())
        .map_err(|_| Error::invalid("tensor", "must have fewer axes to be sent", tensor.rank()))?;
    let mut bytes = Vec::with_capacity(HEADER + 8 * tensor.rank() + elements.len());
    bytes.extend([code, rank]);
    tensor.dims().iter().for_each(|&size| bytes.extend((size as u64).to_ne_bytes()));
    bytes.extend(elements);
    Ok(bytes)
}

/// The reverse of [`to_bytes`]; none if the bytes are no tensor.
pub(super) fn from_bytes(bytes: &[u8], device: &Device) -> Result<Option<Tensor>> {
    let Some((&[code, rank], rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let Some((sizes, elements)) = rest.split_at_checked(8 * usize::from(rank)) else { return Ok(None) };
    let sizes = sizes.as_chunks::<8>().0.iter().map(|size| u64::from_ne_bytes(*size) as usize);
    tensor(code, elements, sizes.collect(), device)
}

macro_rules! types {
    ($($code:literal $dtype:ident $T:ty),+ $(,)?) => {
        fn elements(tensor: &Tensor) -> Result<(u8, Vec<u8>)> {
            let flat = tensor.flatten_all()?;
            match tensor.dtype() {
                $(DType::$dtype => {
                    let values = flat.to_vec1::<$T>()?;
                    Ok(($code, values.iter().flat_map(|value| value.to_ne_bytes()).collect()))
                })+
                other => Err(Error::invalid("tensor", "must be of a type that can be sent", other)),
            }
        }

        fn tensor(code: u8, bytes: &[u8], dims: Vec<usize>, device: &Device) -> Result<Option<Tensor>> {
            match code {
                $($code => {
                    let (values, rest) = bytes.as_chunks::<{ size_of::<$T>() }>();
                    if !rest.is_empty() || check::count("tensor", &dims).ok() != Some(values.len()) {
                        return Ok(None);
                    }
                    let values: Vec<$T> = values.iter().map(|bytes| <$T>::from_ne_bytes(*bytes)).collect();
                    Ok(Some(Tensor::from_vec(values, dims, device)?))
                })+
                _ => Ok(None),
            }
        }
    };
}

types! {
    0 F32 f32,
    1 F64 f64,
    2 F16 f16,
    3 BF16 bf16,
    4 U8 u8,
    5 U32 u32,
    6 I64 i64,
}
