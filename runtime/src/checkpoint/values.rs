//! Element types of files and the way of their bytes into a tensor and out of it.
//!
//! Values go straight from the file into the vector that the variable keeps, and straight from the tensor's storage
//! into the file: a checkpoint is in memory once.

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor, Var, WithDType};
use half::{bf16, f16};

use super::input::Input;
use super::{Fault, Outcome};
use crate::limits;

#[cfg(target_endian = "big")]
compile_error!("checkpoints are read and written on little-endian machines only");

/// An element type as files have it; more than candle's, which holds the others in the next wider one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl Stored {
    pub(super) fn size(self) -> u64 {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The stored type of a tensor; `None` for the types that candle can hold but not compute with.
    pub(super) fn of(dtype: DType) -> Option<Self> {
        Some(match dtype {
            DType::U8 => Self::U8,
            DType::U32 => Self::U32,
            DType::I16 => Self::I16,
            DType::I32 => Self::I32,
            DType::I64 => Self::I64,
            DType::F16 => Self::F16,
            DType::BF16 => Self::BF16,
            DType::F32 => Self::F32,
            DType::F64 => Self::F64,
            _ => return None,
        })
    }

    /// Whether candle has no such type and holds it in the next wider one.
    pub(super) fn is_foreign(self) -> bool {
        matches!(self, Self::Bool | Self::I8 | Self::U16 | Self::U64)
    }

    /// Reads a variable of this type and `shape` from where `input` stands.
    pub(super) fn read(self, input: &mut Input<'_>, shape: &[usize], big_endian: bool) -> Outcome<Var> {
        let count = self.count(shape)?;
        macro_rules! read {
            ($t:ty) => {
                variable(vector::<$t>(input, count, big_endian)?, shape)
            };
            ($t:ty => $wider:ty) => {
                variable(
                    vector::<$t>(input, count, big_endian)?
                        .into_iter()
                        .map(<$wider>::from)
                        .collect::<Vec<_>>(),
                    shape,
                )
            };
        }
        match self {
            Self::U8 => read!(u8),
            Self::Bool => {
                let flags = vector::<u8>(input, count, big_endian)?;
                if flags.iter().any(|&flag| flag > 1) {
                    return Err(Fault::format("a boolean is neither 0 nor 1"));
                }
                variable(flags, shape)
            }
            Self::I8 => read!(i8 => i16),
            Self::U16 => read!(u16 => i32),
            Self::I16 => read!(i16),
            Self::U32 => read!(u32),
            Self::I32 => read!(i32),
            Self::U64 => variable(signed(vector(input, count, big_endian)?)?, shape),
            Self::I64 => read!(i64),
            Self::F16 => read!(f16),
            Self::BF16 => read!(bf16),
            Self::F32 => read!(f32),
            Self::F64 => read!(f64),
        }
    }

    /// Number of elements, if their bytes can be counted at all.
    pub(super) fn count(self, shape: &[usize]) -> Outcome<usize> {
        limits::check_rank(shape.len()).map_err(Fault::format)?;
        shape
            .iter()
            // Zeros are left out: the sizes beside them must be countable too.
            .filter(|&&size| size != 0)
            .try_fold(self.size() as usize, |bytes, &size| bytes.checked_mul(size))
            .filter(|&bytes| bytes <= isize::MAX as usize)
            .map(|_| shape.iter().product())
            .ok_or_else(|| {
                Fault::format(format!("the shape {shape:?} has more elements than memory can hold"))
            })
    }
}

/// candle has no 64-bit unsigned integers.
pub(super) fn signed(values: Vec<u64>) -> Outcome<Vec<i64>> {
    values
        .into_iter()
        .map(|value| {
            i64::try_from(value).map_err(|_| {
                Fault::unusable(format!("holds {value}, which does not fit 64 bits with a sign"))
            })
        })
        .collect()
}

/// A variable that takes over `values`.
pub(super) fn variable<T: WithDType>(values: Vec<T>, shape: &[usize]) -> Outcome<Var> {
    Ok(Var::from_vec(values, shape, &Device::Cpu)?)
}

fn vector<T: Pod>(input: &mut Input<'_>, count: usize, big_endian: bool) -> Outcome<Vec<T>> {
    let size = size_of::<T>();
    input.expect((count as u64).saturating_mul(size as u64))?;
    let mut values = vec![T::zeroed(); count];
    let bytes: &mut [u8] = cast_slice_mut(&mut values);
    input.read_exact(bytes)?;
    if big_endian {
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    Ok(values)
}

/// bf16 as f32 with the same numbers, down to the payloads of NaNs; other types as they are.
pub(super) fn widened(tensor: &Tensor) -> Outcome<Tensor> {
    if tensor.dtype() != DType::BF16 {
        return Ok(tensor.clone());
    }
    let wide = with_bytes(tensor, |bytes| {
        let bits = bytes.chunks_exact(2).map(|pair| u32::from_le_bytes([0, 0, pair[0], pair[1]]));
        Ok(bits.map(f32::from_bits).collect::<Vec<_>>())
    })?;
    Ok(Tensor::from_vec(wide, tensor.dims(), &Device::Cpu)?)
}

/// The inverse of [`widened`]; values that it cannot have made stay f32.
pub(super) fn narrow_bf16(var: Var) -> Outcome<Var> {
    let narrow = with_bytes(var.as_tensor(), |bytes| {
        let narrow = |quad: &[u8]| (quad[..2] == [0, 0]).then(|| bf16::from_le_bytes([quad[2], quad[3]]));
        Ok(bytes.chunks_exact(4).map(narrow).collect::<Option<Vec<_>>>())
    })?;
    match narrow {
        Some(narrow) => variable(narrow, var.dims()),
        None => Ok(var),
    }
}

/// Shows `f` the elements of `tensor` in row-major order as little-endian bytes.
pub(super) fn with_bytes<R>(tensor: &Tensor, f: impl FnOnce(&[u8]) -> Outcome<R>) -> Outcome<R> {
    with_storage(tensor, |storage, start, count| {
        fn bytes<T: Pod>(values: &[T], start: usize, count: usize) -> &[u8] {
            cast_slice(values.get(start..start + count).unwrap_or_default())
        }
        f(match storage {
            CpuStorage::U8(v) => bytes(v, start, count),
            CpuStorage::U32(v) => bytes(v, start, count),
            CpuStorage::I16(v) => bytes(v, start, count),
            CpuStorage::I32(v) => bytes(v, start, count),
            CpuStorage::I64(v) => bytes(v, start, count),
            CpuStorage::BF16(v) => bytes(v, start, count),
            CpuStorage::F16(v) => bytes(v, start, count),
            CpuStorage::F32(v) => bytes(v, start, count),
            CpuStorage::F64(v) => bytes(v, start, count),
            _ => return Err(Fault::format(format!("no file format has the type {:?}", tensor.dtype()))),
        })
    })
}

/// Like [`with_bytes`], as the type `stored` that the elements have or came from.
pub(super) fn with_bytes_as<R>(
    tensor: &Tensor,
    stored: Stored,
    f: impl FnOnce(&[u8]) -> Outcome<R>,
) -> Outcome<R> {
    let (wide, size) = (tensor.dtype().size_in_bytes(), stored.size() as usize);
    with_bytes(tensor, |bytes| {
        if wide == size {
            return f(bytes);
        }
        // What was widened fits, so its low bytes are all of it.
        f(&bytes.chunks_exact(wide).flat_map(|element| &element[..size]).copied().collect::<Vec<_>>())
    })
}

fn with_storage<R>(tensor: &Tensor, f: impl FnOnce(&CpuStorage, usize, usize) -> Outcome<R>) -> Outcome<R> {
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    let count = tensor.elem_count();
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(storage, layout.start_offset(), count),
        _ => Err(Fault::format("the values could not be copied to the CPU")),
    }
}

/// An element as a number, for comparing across types.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Integer(i64),
    Float(f64),
}

impl Number {
    /// Whether both are the same number; any NaN is the same as any other.
    fn same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Self::Integer(a), Self::Float(b)) | (Self::Float(b), Self::Integer(a)) => {
                b.fract() == 0.0 && i128::from(a) == b as i128
            }
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => write!(f, "{value:?}"),
        }
    }
}

/// The elements in row-major order.
pub(super) fn numbers(tensor: &Tensor) -> Outcome<Vec<Number>> {
    with_storage(tensor, |storage, start, count| {
        macro_rules! collect {
            ($values:expr, $kind:path) => {
                Ok($values.iter().skip(start).take(count).map(|&value| $kind(value.into())).collect())
            };
        }
        match storage {
            CpuStorage::U8(v) => collect!(v, Number::Integer),
            CpuStorage::U32(v) => collect!(v, Number::Integer),
            CpuStorage::I16(v) => collect!(v, Number::Integer),
            CpuStorage::I32(v) => collect!(v, Number::Integer),
            CpuStorage::I64(v) => collect!(v, Number::Integer),
            CpuStorage::BF16(v) => collect!(v, Number::Float),
            CpuStorage::F16(v) => collect!(v, Number::Float),
            CpuStorage::F32(v) => collect!(v, Number::Float),
            CpuStorage::F64(v) => collect!(v, Number::Float),
            _ => Err(Fault::format(format!("no file format has the type {:?}", tensor.dtype()))),
        }
    })
}

/// The first element that is another number in `after` than in `before`.
pub(super) fn first_change(before: &Tensor, after: &Tensor) -> Outcome<Option<Number>> {
    let (before, after) = (numbers(before)?, numbers(after)?);
    Ok(before.into_iter().zip(after).find(|(before, after)| !before.same(*after)).map(|(before, _)| before))
}

/// `tensor` as f32 for a format that has nothing else; the second value is the first number that changes thereby.
pub(super) fn to_f32(tensor: &Tensor) -> Outcome<(Tensor, Option<Number>)> {
    let narrow = tensor.to_dtype(DType::F32)?;
    let changed = match tensor.dtype() {
        DType::F32 | DType::U8 | DType::I16 => None,
        dtype if dtype.is_float() => {
            // Bit for bit: the payload of a NaN counts.
            let before = with_bytes(tensor, |bytes| Ok(bytes.to_vec()))?;
            let same = with_bytes(&narrow.to_dtype(dtype)?, |bytes| Ok(bytes == before))?;
            if same { None } else { first_change(tensor, &narrow)?.or(Some(Number::Float(f64::NAN))) }
        }
        _ => first_change(tensor, &narrow)?,
    };
    Ok((narrow, changed))
}
