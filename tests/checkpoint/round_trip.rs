//! What is written is read back, bit for bit.

use half::{bf16, f16};
use layerfn::checkpoint::{Checkpoint, Format};
use layerfn::{ParameterStore, load_parameters, parameter_scope, save_parameters};
use proptest::prelude::*;

use crate::{Bits, FORMATS, LOSSLESS, bits_in, bits_of, put, var, zoo, zoo_of_f32};

#[test]
fn every_type_shape_and_name_survives() {
    let store = zoo();
    for format in LOSSLESS {
        let checkpoint = Checkpoint::from_parameters(&store.parameters()).unwrap();
        let bytes = checkpoint.to_bytes(format).unwrap();
        let read = Checkpoint::from_bytes(format, &bytes).unwrap();
        assert_eq!(bits_of(&read), bits_in(&store), "{format:?}");
    }
}

#[test]
fn streams_and_slices_and_files_agree() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::from_parameters(&zoo_of_f32().parameters()).unwrap();
    for format in FORMATS {
        let file = folder.path().join("model").with_extension(format.extension());
        checkpoint.save(&file).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let expected = bits_of(&checkpoint);
        assert_eq!(bits_of(&Checkpoint::open(&file).unwrap()), expected);
        assert_eq!(bits_of(&Checkpoint::from_bytes(format, &bytes).unwrap()), expected);
        assert_eq!(bits_of(&Checkpoint::from_reader(format, bytes.as_slice()).unwrap()), expected);
        // An archive with HDF5 in it is as long, but HDF5 keeps the time of writing.
        if !matches!(format, Format::Hdf5 | Format::Nnp) {
            assert!(checkpoint.to_bytes(format).unwrap() == bytes);
        }
    }
}

#[test]
fn formats_convert_into_each_other() {
    let store = zoo_of_f32();
    for first in FORMATS {
        for second in FORMATS {
            let bytes = Checkpoint::from_parameters(&store.parameters()).unwrap().to_bytes(first).unwrap();
            let between = Checkpoint::from_bytes(first, &bytes).unwrap().to_bytes(second).unwrap();
            let read = Checkpoint::from_bytes(second, &between).unwrap();
            assert_eq!(bits_of(&read), bits_in(&store), "{first:?} {second:?}");
        }
    }
}

#[test]
fn types_that_tensors_lack_come_back() {
    use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
    let values = [
        ("flags", Dtype::BOOL, &[1_u8, 0][..]),
        ("i8", Dtype::I8, &[0x80, 0x7f]),
        ("u16", Dtype::U16, &[0xff, 0xff, 1, 0]),
        ("u64", Dtype::U64, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let views = values.map(|(path, dtype, bytes)| (path, TensorView::new(dtype, vec![2], bytes).unwrap()));
    let bytes = serialize(views, None).unwrap();
    let read = Checkpoint::from_bytes(Format::Safetensors, &bytes).unwrap();
    for format in LOSSLESS {
        assert!(read.losses(format).is_empty());
        let between = Checkpoint::from_bytes(format, &read.to_bytes(format).unwrap()).unwrap();
        let again = between.to_bytes(Format::Safetensors).unwrap();
        let again = SafeTensors::deserialize(&again).unwrap();
        for (path, dtype, bytes) in values {
            let view = again.tensor(path).unwrap();
            assert_eq!((view.dtype(), view.data()), (dtype, bytes), "{format:?} {path}");
        }
    }
    assert!(read.losses(Format::Protobuf).contains(&"the type of `flags`: Bool becomes F32".to_owned()));
}

#[test]
fn any_scope_goes_into_any_scope() {
    let folder = tempfile::tempdir().unwrap();
    for extension in Format::extensions() {
        let file = folder.path().join("part").with_extension(extension);
        let source = zoo_of_f32();
        source.enter(|| parameter_scope("names", || save_parameters(&file))).unwrap();
        let target = ParameterStore::new();
        target.enter(|| parameter_scope("deep/down", || load_parameters(&file))).unwrap();
        let strip = |bits: Vec<Bits>, prefix: &str| -> Vec<Bits> {
            let stripped = bits.into_iter().filter_map(|mut bits| {
                bits.0 = bits.0.strip_prefix(prefix)?.to_owned();
                Some(bits)
            });
            stripped.collect()
        };
        assert_eq!(strip(bits_in(&target), "deep/down/"), strip(bits_in(&source), "names/"));
    }
}

#[test]
fn ten_thousand_parameters_keep_their_order() {
    let store = ParameterStore::new();
    for i in 0..10_000 {
        put(
            &store,
            &format!("s{}/p{:05}", i % 100, (i * 7919) % 10_000),
            var(vec![i as f32], &[1]),
            i % 3 == 0,
        );
    }
    let checkpoint = Checkpoint::from_parameters(&store.parameters()).unwrap();
    for format in FORMATS {
        let read = Checkpoint::from_bytes(format, &checkpoint.to_bytes(format).unwrap()).unwrap();
        assert!(bits_of(&read) == bits_of(&checkpoint), "{format:?}");
    }
}

#[test]
fn a_view_is_saved_as_the_values_it_shows() {
    use candle_core::{Device, Tensor, Var};
    let grid = Tensor::arange(0_f32, 12.0, &Device::Cpu).unwrap().reshape((3, 4)).unwrap();
    let view = grid.t().unwrap().narrow(0, 1, 2).unwrap();
    let store = ParameterStore::new();
    put(&store, "view", Var::from_tensor(&view).unwrap(), true);
    for format in FORMATS {
        let bytes = Checkpoint::from_parameters(&store.parameters()).unwrap().to_bytes(format).unwrap();
        let read = Checkpoint::from_bytes(format, &bytes).unwrap();
        let values: Vec<Vec<f32>> = read.entries()[0].tensor().to_vec2().unwrap();
        assert_eq!(values, [[1.0, 5.0, 9.0], [2.0, 6.0, 10.0]], "{format:?}");
    }
}

fn typed<T: candle_core::WithDType>(
    values: impl Iterator<Item = f32>,
    convert: impl Fn(u32) -> T,
    shape: &[usize],
) -> candle_core::Var {
    var(values.map(|value| convert(value.to_bits())).collect(), shape)
}

/// Twice the bits, with those of a NaN where they are in an f32.
fn spread(bits: u32) -> u64 {
    u64::from(bits) << 32 | u64::from(bits.reverse_bits())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_parameters_pass_through_any_two_formats(
        parameters in prop::collection::vec(
            ("[^/\0]{1,12}", prop::collection::vec(0_usize..4, 0..4), any::<bool>(), any::<u64>()),
            0..8,
        ),
        types in any::<bool>(),
    ) {
        let store = ParameterStore::new();
        for (name, shape, need_grad, seed) in parameters {
            prop_assume!(name != "." && name != "..");
            let count = shape.iter().product::<usize>();
            // Any bits: NaNs of every kind among them.
            let mut state = seed | 1;
            let values = (0..count).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // One in four a NaN or an infinity.
                let special = if state & 3 == 0 { 0x7f80_0000 } else { 0 };
                f32::from_bits((state >> 32) as u32 | special)
            });
            let path = format!("scope/{name}");
            match seed % 6 {
                _ if !types => put(&store, &path, var(values.collect(), &shape), need_grad),
                0 => put(&store, &path, typed(values, |bits| f16::from_bits(bits as u16), &shape), need_grad),
                1 => put(&store, &path, typed(values, |bits| bf16::from_bits(bits as u16), &shape), need_grad),
                2 => put(&store, &path, typed(values, |bits| f64::from_bits(spread(bits)), &shape), need_grad),
                3 => put(&store, &path, typed(values, |bits| spread(bits) as i64, &shape), need_grad),
                4 => put(&store, &path, typed(values, |bits| bits as u8, &shape), need_grad),
                _ => put(&store, &path, typed(values, |bits| bits as i32, &shape), need_grad),
            }
        }
        let formats = if types { &LOSSLESS[..] } else { &FORMATS[..] };
        for &first in formats {
            let bytes = Checkpoint::from_parameters(&store.parameters()).unwrap().to_bytes(first).unwrap();
            for &second in formats {
                let between = Checkpoint::from_bytes(first, &bytes).unwrap().to_bytes(second).unwrap();
                let read = Checkpoint::from_bytes(second, &between).unwrap();
                prop_assert_eq!(bits_of(&read), bits_in(&store));
            }
        }
    }
}
