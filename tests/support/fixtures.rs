//! The folder of recorded fixtures; `golden/README.md` describes the format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The folder named by `LAYERFN_GOLDEN_DIR`, or the one committed beside the tests.
#[must_use]
pub fn folder() -> PathBuf {
    given_folder().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("golden"))
}

/// The folder named by `LAYERFN_GOLDEN_DIR`; it need not hold every file of the format.
#[must_use]
pub fn given_folder() -> Option<PathBuf> {
    std::env::var_os("LAYERFN_GOLDEN_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// A JSON file of the folder; `None` if a folder given by the user does not hold it.
///
/// # Panics
/// If the file cannot be read, or is missing in the committed folder.
#[must_use]
pub fn json(name: &str) -> Option<Value> {
    let path = folder().join(name);
    if !path.exists() && given_folder().is_some() {
        eprintln!("skipped: no {}", path.display());
        return None;
    }
    match read_json(&path) {
        Ok(value) => Some(value),
        Err(text) => panic!("{text}"),
    }
}

/// A JSON file.
///
/// # Errors
/// A text with the path if it cannot be read.
pub fn read_json(path: &Path) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// The tensors of one file. Integers are kept as `i64`.
#[derive(Default)]
pub struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    /// Reads a `.safetensors` file.
    ///
    /// # Errors
    /// A text with the path if it cannot be read or holds a type that fixtures have not.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = std::fs::read(path).map_err(|error| text(&error))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| text(&error))?;
        file.iter()
            .map(|(name, view)| {
                let (data, shape) = (view.data(), view.shape());
                let tensor = match view.dtype() {
                    Dtype::F32 => Tensor::from_vec(words(data, f32::from_le_bytes), shape, &Device::Cpu),
                    Dtype::F64 => Tensor::from_vec(words(data, f64::from_le_bytes), shape, &Device::Cpu),
                    Dtype::I32 => {
                        let wide = words(data, i32::from_le_bytes).into_iter().map(i64::from).collect();
                        Tensor::from_vec::<_, i64>(wide, shape, &Device::Cpu)
                    }
                    Dtype::I64 => Tensor::from_vec(words(data, i64::from_le_bytes), shape, &Device::Cpu),
                    other => return Err(text(&format!("`{name}` is of type {other:?}"))),
                };
                Ok((name.to_owned(), tensor.map_err(|error| text(&error))?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The tensors on `device`.
    ///
    /// # Errors
    /// A text if there is no room.
    pub fn to_device(self, device: &Device) -> Result<Self, String> {
        let moved = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_device(device)?));
        let tensors: candle_core::Result<_> = self.0.into_iter().map(moved).collect();
        tensors
            .map(Self)
            .map_err(|error| format!("the tensors of a fixture on {:?}: {error}", device.location()))
    }

    /// The tensor `name`, if the file has it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// The tensor `name`.
    ///
    /// # Errors
    /// A text if the file does not have it.
    pub fn get(&self, name: &str) -> Result<&Tensor, String> {
        self.find(name).ok_or_else(|| format!("the fixture has no tensor `{name}`"))
    }

    /// The tensor `name` as `f32`: layers keep their counters and indicators as floats.
    ///
    /// # Errors
    /// A text if the file does not have it.
    pub fn float(&self, name: &str) -> Result<Tensor, String> {
        self.get(name)?.to_dtype(DType::F32).map_err(|error| format!("`{name}`: {error}"))
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn words<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&word| read(word)).collect()
}
