//! Constants of ONNX files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use candle_core::{Device, Tensor};
use half::{bf16, f16};

use crate::limits::brief;
use crate::{Error, Result, check, onnx};

/// The numbers of a constant: `f32` where they have a fraction, else `i64`; truths are 0 and 1 as `f32`.
pub(super) fn tensor(constant: &onnx::Tensor, folder: Option<&Path>) -> Result<Tensor> {
    let name = brief(&constant.name).into_owned();
    let fault =
        |reason: String| Error::invalid("initializer", format!("`{name}` {reason}"), constant.data_type);
    let dims =
        constant.dims.iter().map(|&size| usize::try_from(size)).collect::<std::result::Result<Vec<_>, _>>();
    let dims = dims.map_err(|_| fault(format!("must have no size below 0, but has {:?}", constant.dims)))?;
    crate::limits::check_rank(dims.len()).map_err(|reason| fault(reason.clone()))?;
    let n = check::count("initializer", &dims)?;
    let external;
    let raw: &[u8] = match (constant.data_location, folder) {
        (0, _) => &constant.raw_data,
        (_, Some(folder)) => {
            external = outside(constant, folder)?;
            &external
        }
        (_, None) => {
            return Err(fault("must not lie in another file, of which a stream has none".to_owned()));
        }
    };
    let values = Values::new(constant, raw, n).ok_or_else(|| {
        fault(format!("must have {n} elements of a type of numbers for its shape {dims:?}; data type and length are others"))
    })?;
    Ok(match values {
        Values::Floats(values) => Tensor::from_vec(values, dims, &Device::Cpu)?,
        Values::Integers(values) => Tensor::from_vec(values, dims, &Device::Cpu)?,
    })
}

enum Values {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

impl Values {
    fn new(constant: &onnx::Tensor, raw: &[u8], n: usize) -> Option<Self> {
        fn each<const W: usize, T>(raw: &[u8], n: usize, f: impl Fn([u8; W]) -> T) -> Option<Vec<T>> {
            let (chunks, rest) = raw.as_chunks::<W>();
            (rest.is_empty() && chunks.len() == n).then(|| chunks.iter().map(|chunk| f(*chunk)).collect())
        }
        let typed = raw.is_empty();
        let whole = || {
            let found: Vec<i64> = constant.int32_data.iter().map(|&value| i64::from(value)).collect();
            Some(found).filter(|found| found.len() == n)
        };
        let half = |f: fn(u16) -> f32| match typed {
            true => Some(whole()?.into_iter().map(|bits| f(bits as u16)).collect()),
            false => each(raw, n, |bytes: [u8; 2]| f(u16::from_le_bytes(bytes))),
        };
        let integers = |found: Option<Vec<i64>>| found.map(Self::Integers);
        match constant.data_type {
            1 if typed => {
                Some(constant.float_data.clone()).filter(|found| found.len() == n).map(Self::Floats)
            }
            1 => each(raw, n, f32::from_le_bytes).map(Self::Floats),
            11 if typed => {
                let found: Vec<f32> = constant.double_data.iter().map(|&value| value as f32).collect();
                Some(found).filter(|found| found.len() == n).map(Self::Floats)
            }
            11 => each(raw, n, |bytes: [u8; 8]| f64::from_le_bytes(bytes) as f32).map(Self::Floats),
            10 => half(|bits| f16::from_bits(bits).to_f32()).map(Self::Floats),
            16 => half(|bits| bf16::from_bits(bits).to_f32()).map(Self::Floats),
            9 if typed => whole().map(|found| {
                Self::Floats(found.iter().map(|&value| f32::from(u8::from(value != 0))).collect())
            }),
            9 => each(raw, n, |[value]: [u8; 1]| f32::from(u8::from(value != 0))).map(Self::Floats),
            7 if typed => {
                Some(constant.int64_data.clone()).filter(|found| found.len() == n).map(Self::Integers)
            }
            7 => integers(each(raw, n, i64::from_le_bytes)),
            2..=6 if typed => integers(whole()),
            2 => integers(each(raw, n, |[value]: [u8; 1]| i64::from(value))),
            3 => integers(each(raw, n, |[value]: [u8; 1]| i64::from(value as i8))),
            4 => integers(each(raw, n, |bytes| i64::from(u16::from_le_bytes(bytes)))),
            5 => integers(each(raw, n, |bytes| i64::from(i16::from_le_bytes(bytes)))),
            6 => integers(each(raw, n, |bytes| i64::from(i32::from_le_bytes(bytes)))),
            12 if !typed => integers(each(raw, n, |bytes| i64::from(u32::from_le_bytes(bytes)))),
            _ => None,
        }
    }
}

/// The bytes of a constant in another file, which must lie in the folder.
fn outside(constant: &onnx::Tensor, folder: &Path) -> Result<Vec<u8>> {
    let entry =
        |key: &str| constant.external_data.iter().find(|entry| entry.key == key).map(|entry| &*entry.value);
    let location = entry("location").unwrap_or_default();
    let refused = || {
        let reason = format!("of `{}` must be a file in the folder of the network", brief(&constant.name));
        Error::invalid("location", reason, brief(location))
    };
    let relative = Path::new(location);
    if location.is_empty()
        || !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(refused());
    }
    let file = || -> std::io::Result<Option<Vec<u8>>> {
        let (folder, path) = (folder.canonicalize()?, folder.join(relative).canonicalize()?);
        if !path.starts_with(folder) || !path.is_file() {
            return Ok(None);
        }
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let number = |key: &str| entry(key).map(|value| value.parse::<u64>()).transpose();
        let (Ok(offset), Ok(length)) = (number("offset"), number("length")) else { return Ok(None) };
        let offset = offset.unwrap_or(0);
        let left = size.saturating_sub(offset);
        let length = length.unwrap_or(left);
        if length > left {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    };
    match file() {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(refused()),
        Err(error) => {
            let reason = format!("of `{}` must be a file that can be read ({error})", brief(&constant.name));
            Err(Error::invalid("location", reason, brief(location)))
        }
    }
}
