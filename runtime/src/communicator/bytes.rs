//! Tensors as messages.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use crate::{Error, Result, check};

/// Bytes before the sizes: the type and the number of axes.
const HEADER: usize = 2;

/// Added to the type if the elements are sent separately.
const APART: u8 = 1 << 7;

/// The type, the sizes and the elements of a tensor, in the byte order of this machine.
pub(super) fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut bytes = head(tensor, 0)?;
    bytes.extend(elements(tensor)?);
    Ok(bytes)
}

/// The type and the sizes of a tensor whose elements are sent separately.
pub(super) fn to_head(tensor: &Tensor) -> Result<Vec<u8>> {
    head(tensor, APART)
}

fn head(tensor: &Tensor, apart: u8) -> Result<Vec<u8>> {
    let rank = u8::try_from(tensor.rank())
        .map_err(|_| Error::invalid("tensor", "must have fewer axes to be sent", tensor.rank()))?;
    let mut bytes = vec![code(tensor.dtype())? | apart, rank];
    tensor.dims().iter().for_each(|&size| bytes.extend((size as u64).to_ne_bytes()));
    Ok(bytes)
}

/// The reverse of [`to_bytes`]; `None` if the bytes are not a tensor.
pub(super) fn from_bytes(bytes: &[u8], device: &Device) -> Result<Option<Tensor>> {
    let Some((code, dims, elements)) = split(bytes) else { return Ok(None) };
    tensor(code, elements, dims, device)
}

/// The reverse of [`to_head`]; `None` if the bytes are something else.
pub(super) fn from_head(bytes: &[u8]) -> Option<(DType, Vec<usize>)> {
    let (code, dims, elements) = split(bytes)?;
    let dtype = dtype(code.checked_sub(APART)?)?;
    check::count("tensor", &dims).ok()?;
    elements.is_empty().then_some((dtype, dims))
}

/// The type, the sizes and the elements.
fn split(bytes: &[u8]) -> Option<(u8, Vec<usize>, &[u8])> {
    let (&[code, rank], rest) = bytes.split_first_chunk::<HEADER>()?;
    let (sizes, elements) = rest.split_at_checked(8 * usize::from(rank))?;
    let sizes = sizes.as_chunks::<8>().0.iter().map(|size| u64::from_ne_bytes(*size) as usize);
    Some((code, sizes.collect(), elements))
}

/// Numbers as bytes, one part after the other.
pub(crate) fn from_numbers<'a>(parts: impl IntoIterator<Item = &'a [f64]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    parts.into_iter().for_each(|part| bytes.extend_from_slice(bytemuck::cast_slice(part)));
    bytes
}

/// The reverse of [`from_numbers`]. Bytes after the last complete number are ignored; the caller checks the
/// number of numbers.
pub(crate) fn to_numbers(bytes: &[u8]) -> Vec<f64> {
    bytemuck::pod_collect_to_vec(&bytes[..bytes.len() - bytes.len() % size_of::<f64>()])
}

macro_rules! types {
    ($($code:literal $dtype:ident $T:ty),+ $(,)?) => {
        fn code(dtype: DType) -> Result<u8> {
            match dtype {
                $(DType::$dtype => Ok($code),)+
                other => Err(Error::invalid("tensor", "must be of a type that can be sent", other)),
            }
        }

        fn dtype(code: u8) -> Option<DType> {
            match code {
                $($code => Some(DType::$dtype),)+
                _ => None,
            }
        }

        fn elements(tensor: &Tensor) -> Result<Vec<u8>> {
            let flat = tensor.flatten_all()?;
            match tensor.dtype() {
                $(DType::$dtype => {
                    let values = flat.to_vec1::<$T>()?;
                    Ok(bytemuck::cast_slice(&values).to_vec())
                })+
                other => Err(Error::invalid("tensor", "must be of a type that can be sent", other)),
            }
        }

        fn tensor(code: u8, bytes: &[u8], dims: Vec<usize>, device: &Device) -> Result<Option<Tensor>> {
            match code {
                $($code => {
                    let (n, size) = (check::count("tensor", &dims).ok(), size_of::<$T>());
                    if bytes.len() % size != 0 || n != Some(bytes.len() / size) {
                        return Ok(None);
                    }
                    let values: Vec<$T> = bytemuck::pod_collect_to_vec(bytes);
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
