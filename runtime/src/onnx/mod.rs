//! The messages of ONNX files, and tensors in them.

mod generated;

use candle_core::{DType, Tensor as CandleTensor};
use prost::bytes::Bytes;

use crate::Result;

pub(crate) use generated::*;

/// Types of elements.
pub(crate) const FLOAT: i32 = 1;
pub(crate) const INT64: i32 = 7;
pub(crate) const BOOL: i32 = 9;

/// Where the elements of a tensor are, if not in the file.
pub(crate) const OUTSIDE: i32 = 1;

/// Types of attributes.
const OF_FLOAT: i32 = 1;
const OF_INT: i32 = 2;
const OF_TEXT: i32 = 3;
const OF_INTS: i32 = 7;
const OF_TEXTS: i32 = 8;

pub(crate) fn float(name: &str, value: f64) -> Attribute {
    Attribute { name: name.to_owned(), f: value as f32, r#type: OF_FLOAT, ..Attribute::default() }
}

pub(crate) fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.to_owned(), i: value, r#type: OF_INT, ..Attribute::default() }
}

pub(crate) fn ints(name: &str, values: Vec<i64>) -> Attribute {
    Attribute { name: name.to_owned(), ints: values, r#type: OF_INTS, ..Attribute::default() }
}

pub(crate) fn text(name: &str, value: &'static str) -> Attribute {
    let s = Bytes::from_static(value.as_bytes());
    Attribute { name: name.to_owned(), s, r#type: OF_TEXT, ..Attribute::default() }
}

pub(crate) fn texts(name: &str, values: &[&'static str]) -> Attribute {
    let strings = values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect();
    Attribute { name: name.to_owned(), strings, r#type: OF_TEXTS, ..Attribute::default() }
}

/// A constant of the elements of a tensor: `f32`, or `i64` if they are integers.
pub(crate) fn tensor(name: &str, tensor: &CandleTensor) -> Result<Tensor> {
    let dims: Vec<i64> = tensor.dims().iter().map(|&size| size as i64).collect();
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype().is_float() {
        true => floats(name, &dims, &flat.to_dtype(DType::F32)?.to_vec1()?),
        false => integers(name, &dims, &flat.to_dtype(DType::I64)?.to_vec1()?),
    })
}

pub(crate) fn floats(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    raw(name, dims, FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub(crate) fn integers(name: &str, dims: &[i64], values: &[i64]) -> Tensor {
    raw(name, dims, INT64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn raw(name: &str, dims: &[i64], data_type: i32, bytes: Vec<u8>) -> Tensor {
    Tensor {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type,
        raw_data: bytes.into(),
        ..Tensor::default()
    }
}

/// The types of small integers.
#[derive(Clone, Copy)]
pub(crate) enum Whole {
    Int8,
    Uint8,
    Int16,
    Uint16,
    Int32,
}

impl Whole {
    /// The smallest type that holds all integers between the two.
    pub(crate) fn holding([least, largest]: [i64; 2]) -> Option<Self> {
        let within = |low: i64, high: i64| least >= low && largest <= high;
        Some(match () {
            () if within(-128, 127) => Self::Int8,
            () if within(0, 255) => Self::Uint8,
            () if within(-32_768, 32_767) => Self::Int16,
            () if within(0, 65_535) => Self::Uint16,
            () => return None,
        })
    }

    /// A constant of integers that this type holds.
    pub(crate) fn tensor(self, name: &str, dims: &[i64], values: &[i64]) -> Tensor {
        let (data_type, width) = match self {
            Self::Uint8 => (2, 1),
            Self::Int8 => (3, 1),
            Self::Uint16 => (4, 2),
            Self::Int16 => (5, 2),
            Self::Int32 => (6, 4),
        };
        let bytes = values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(width));
        raw(name, dims, data_type, bytes.collect())
    }
}
