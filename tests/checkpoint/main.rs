//! Files of parameters: NNabla's, our own, damaged ones.

mod candle;
mod damage;
mod golden;
mod hdf5;
mod keras;
mod limits;
mod load;
mod pytorch;
mod round_trip;
mod save;
mod tied;
mod unusable;

use std::path::PathBuf;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor, Var};
use half::{bf16, f16};
use layerfn::checkpoint::{Checkpoint, Format, Rule};
use layerfn::{Parameter, ParameterStore, Result};

/// Formats that keep every type.
const LOSSLESS: [Format; 4] = [Format::Hdf5, Format::Nnp, Format::Npz, Format::Safetensors];

/// All formats.
const FORMATS: [Format; 6] =
    [Format::Hdf5, Format::Protobuf, Format::Text, Format::Nnp, Format::Npz, Format::Safetensors];

/// The folder of the fixtures: that of the repository, or another that has the same layout.
fn fixtures() -> PathBuf {
    let golden = std::env::var_os("LAYERFN_GOLDEN_DIR").map(PathBuf::from);
    golden
        .unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")))
        .join("checkpoints")
}

/// Everything that makes a parameter: path, type, shape, flag and the bits of the values.
type Bits = (String, DType, Vec<usize>, Option<bool>, Vec<u8>);

fn bits_of(checkpoint: &Checkpoint) -> Vec<Bits> {
    checkpoint
        .entries()
        .iter()
        .map(|entry| {
            let tensor = entry.tensor();
            (
                entry.path().to_owned(),
                tensor.dtype(),
                tensor.dims().to_vec(),
                entry.need_grad(),
                bytes(tensor),
            )
        })
        .collect()
}

fn bits_in(store: &ParameterStore) -> Vec<Bits> {
    bits_of(&Checkpoint::from_parameters(&store.parameters()).unwrap())
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.contiguous().unwrap();
    let (storage, layout) = tensor.storage_and_layout();
    assert_eq!(layout.start_offset(), 0);
    let Storage::Cpu(storage) = &*storage else { panic!("not on the CPU") };
    match storage {
        CpuStorage::U8(v) => v.clone(),
        CpuStorage::U32(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        CpuStorage::I16(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        CpuStorage::I32(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        CpuStorage::I64(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        CpuStorage::F16(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        CpuStorage::BF16(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        CpuStorage::F32(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        CpuStorage::F64(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        other => panic!("{other:?}"),
    }
}

fn var<T: candle_core::WithDType>(values: Vec<T>, shape: &[usize]) -> Var {
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn put(store: &ParameterStore, path: &str, var: Var, need_grad: bool) {
    store.set(path, Parameter::new(var, need_grad)).unwrap();
}

/// Every type, shapes with and without elements, names that need care, values that arithmetic would change.
fn zoo() -> ParameterStore {
    let store = zoo_of_f32();
    put(&store, "types/f32", var(vec![f32::from_bits(0x7fc0_1234), f32::from_bits(0xff80_0001)], &[2]), true);
    put(
        &store,
        "types/f64",
        var(vec![f64::MIN_POSITIVE / 2.0, 0.1, f64::from_bits(0x7ff8_0000_dead_beef)], &[3]),
        false,
    );
    put(&store, "types/f16", var(vec![f16::from_bits(0x7e01), f16::MAX, f16::from_bits(1)], &[3, 1]), true);
    put(
        &store,
        "types/bf16",
        var(vec![bf16::from_bits(0x7fc3), bf16::MIN, bf16::from_bits(1)], &[1, 3]),
        true,
    );
    put(&store, "types/i16", var(vec![i16::MIN, -1, i16::MAX], &[3]), false);
    put(&store, "types/i32", var(vec![i32::MIN, -1, i32::MAX], &[3]), false);
    put(&store, "types/i64", var(vec![i64::MIN, -1, i64::MAX], &[3]), false);
    put(&store, "types/u8", var(vec![0_u8, 255, 7], &[3]), false);
    put(&store, "types/u32", var(vec![0, u32::MAX, 7], &[3]), false);
    store
}

fn zoo_of_f32() -> ParameterStore {
    let store = ParameterStore::new();
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE / 4.0, 0.1];
    put(&store, "z/last/W", var(odd.to_vec(), &[2, 3]), true);
    put(&store, "a/first/W", var(vec![1.5_f32; 24], &[2, 3, 4]), false);
    put(&store, "z/b", var(vec![0.1_f32], &[]), true);
    put(&store, "single", var(vec![-2.0_f32], &[1, 1, 1, 1, 1]), true);
    put(&store, "empty/none", var(Vec::<f32>::new(), &[0]), true);
    put(&store, "empty/wide", var(Vec::<f32>::new(), &[3, 0, 2]), false);
    put(&store, "names/with blank and . and ..dots and \"quotes\"\\", var(vec![3_f32], &[1]), true);
    put(&store, "names/größe/重み/🙂/\u{7}", var(vec![4_f32], &[1]), true);
    store
}

fn rules(texts: &[&str]) -> Result<Vec<Rule>> {
    texts.iter().map(|text| text.parse()).collect()
}
