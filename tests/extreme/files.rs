//! Files of parameters: saved, damaged, renamed and loaded under rules of any kind.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use layerfn::checkpoint::{Checkpoint, Format, Load, NeedGrad};
use layerfn::{Parameter, ParameterStore, Parameters, Result};
use layerfn_tests::support::layers::Failure;

use crate::draw::Draw;
use crate::{Call, Outcome, fault};

pub(crate) const CALLS: &[(&str, Call)] = &[
    ("save", save),
    ("read", read),
    ("read", read),
    ("read", read),
    ("load", load),
    ("load", load),
    ("rename", rename),
    ("freeze", freeze),
    ("seal", seal),
];

const FORMATS: [Format; 6] =
    [Format::Hdf5, Format::Protobuf, Format::Text, Format::Nnp, Format::Npz, Format::Safetensors];

/// Types that every format but two has.
const PLAIN: [DType; 5] = [DType::F32, DType::F64, DType::F16, DType::U8, DType::I64];

/// Shapes, types and bits by path.
type Bits = BTreeMap<String, (Vec<usize>, DType, Vec<u8>)>;

fn bits_of<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<Bits> {
    let bits = |(path, tensor): (&str, &Tensor)| {
        let mut bytes = Vec::new();
        tensor.write_bytes(&mut bytes)?;
        Ok((path.to_owned(), (tensor.dims().to_vec(), tensor.dtype(), bytes)))
    };
    tensors.into_iter().map(bits).collect()
}

pub(crate) fn bits_of_store(store: &ParameterStore) -> Result<Bits> {
    bits_of(store.parameters().iter().map(|(path, parameter)| (path, parameter.var().as_tensor())))
}

fn bits_of_checkpoint(checkpoint: &Checkpoint) -> Result<Bits> {
    bits_of(checkpoint.entries().iter().map(|entry| (entry.path(), entry.tensor())))
}

impl Draw {
    fn format(&mut self) -> Format {
        let format = self.pick(&FORMATS);
        self.note(format.extension());
        format
    }

    /// Mostly one of a few paths, some of which stand in each other's way.
    fn path(&mut self) -> String {
        if self.once_in(6) {
            return self.text();
        }
        let path =
            self.pick(&["W", "b", "a/W", "a/b", "a/b/W", "bn/mean", "a", "ü/_count", "c1/conv/W", "."]);
        self.note(path);
        path.to_owned()
    }

    pub(crate) fn pattern(&mut self) -> String {
        let pattern = match self.below(8) {
            0 => self.text(),
            1 => "*a".repeat(self.below(40)),
            2 => "**/".repeat(self.below(40)),
            _ => self
                .pick(&["**", "*", "a/**", "**/W", "a/*", "[ab]", "?", "bn/mean", "", "**/b/**"])
                .to_owned(),
        };
        self.note(format!("{:?}", pattern.chars().take(20).collect::<String>()));
        pattern
    }

    fn value(&mut self) -> Result<Tensor> {
        let dtype = if self.once_in(4) { self.pick(&PLAIN) } else { DType::F32 };
        let rank = if self.once_in(12) { 40 } else { self.below(4) };
        let dims: Vec<usize> = (0..rank).map(|_| if rank > 9 { 1 } else { self.below(4) }).collect();
        let count = dims.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|_| self.raw_number() as f32).collect();
        Ok(Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(dtype)?)
    }

    /// Some parameters; what the store refuses is left out.
    fn some_store(&mut self) -> Result<ParameterStore> {
        let store = ParameterStore::new();
        for _ in 0..self.below(5) {
            let (path, value) = (self.path(), self.value()?);
            let parameter = Parameter::new(Var::from_tensor(&value.copy()?)?, self.once_in(2));
            if self.once_in(6) {
                store.set(&self.path(), parameter.clone()).err();
            }
            store.set(&path, parameter).err();
        }
        Ok(store)
    }

    /// A file, mostly damaged or made up.
    fn bytes(&mut self, format: Format) -> Result<Vec<u8>> {
        let parameters = self.some_store()?.parameters();
        let mut bytes = Checkpoint::from_parameters(&parameters)?.allow_rounding(true).to_bytes(format)?;
        for _ in 0..self.below(4) {
            if bytes.is_empty() {
                bytes.push(0);
            }
            let at = self.below(bytes.len());
            let length = 1 + self.below(16);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_within(at..),
                2 => drop(bytes.drain(at..(at + length).min(bytes.len()))),
                3 => bytes.splice(at..at, (0..length).map(|i| i as u8 * 17)).for_each(drop),
                4 => bytes.iter_mut().skip(at).take(length).for_each(|byte| *byte = 0xff),
                _ => bytes[at] = self.below(256) as u8,
            }
        }
        self.note(format!("{} bytes", bytes.len()));
        Ok(bytes)
    }

    fn rules(&mut self, checkpoint: Checkpoint) -> Load {
        let mut load = Load::new(checkpoint);
        if self.once_in(4) {
            load = load.partial([self.pattern(), self.pattern()]);
        }
        for _ in 0..self.below(3) {
            load = load.rename(&self.pattern(), &self.pattern());
        }
        let need_grad = self.pick(&[NeedGrad::Same, NeedGrad::FromFile, NeedGrad::Keep]);
        let [create, missing, cast] = [self.flag(), self.flag(), self.flag()];
        load.create_unknown(create).allow_missing(missing).cast(cast).need_grad(need_grad)
    }
}

/// What is written is what is read, in a file and in memory.
fn save(draw: &mut Draw) -> Outcome {
    let (format, name) = (draw.format(), draw.text());
    let (store, rounds, folder) = (draw.some_store()?, draw.flag(), folder()?);
    draw.go();
    let checkpoint = Checkpoint::from_parameters(&store.parameters())?.allow_rounding(rounds);
    let is_exact = !rounds && checkpoint.losses(format).is_empty();
    let bytes = checkpoint.to_bytes(format)?;
    let file = folder.path().join(format!("{}.{}", name.replace('/', "_"), format.extension()));
    let written = checkpoint.save(&file);
    let read = Checkpoint::from_bytes(format, &bytes)?;
    let is_whole = |read: &Checkpoint| -> Result<bool> {
        Ok(!is_exact || bits_of_checkpoint(&checkpoint)? == bits_of_checkpoint(read)?)
    };
    if !is_whole(&read)? || read.entries().len() != checkpoint.entries().len() {
        return Err(fault("something else is read than was written"));
    }
    match written {
        // The name is too long, or none of the system's.
        Err(_) if Path::exists(&file) => return Err(fault("a failed save has left a file")),
        Err(error) => return Err(error.into()),
        Ok(()) => {}
    }
    if !is_whole(&Checkpoint::open(&file)?)? {
        return Err(fault("something else is read from a file than was written"));
    }
    let loaded = ParameterStore::new();
    loaded.load_parameters(&file)?;
    loaded.save_parameters(&file)?;
    Ok(vec![])
}

fn folder() -> Result<tempfile::TempDir, Failure> {
    tempfile::tempdir().map_err(|error| Failure::Description(format!("no folder: {error}")))
}

/// A damaged file is read or refused; what is read can be written.
fn read(draw: &mut Draw) -> Outcome {
    let (format, other) = (draw.format(), draw.format());
    let bytes = draw.bytes(format)?;
    let claimed = if draw.once_in(8) { draw.format() } else { format };
    draw.go();
    let streamed = Checkpoint::from_reader(claimed, &bytes[..]);
    let read = Checkpoint::from_bytes(claimed, &bytes);
    if read.is_ok() != streamed.is_ok() {
        return Err(fault("a stream and memory are read differently"));
    }
    let read = read?.allow_rounding(true);
    drop((read.losses(other), format!("{read:?}")));
    let again = Checkpoint::from_bytes(other, &read.to_bytes(other)?)?;
    if again.entries().len() != read.entries().len() {
        return Err(fault("what was read is not what is written"));
    }
    let store = ParameterStore::new();
    Load::like_nnabla(read).apply_to(&store, "")?;
    Ok(vec![])
}

/// All of a file, or nothing, and what was planned.
fn load(draw: &mut Draw) -> Outcome {
    let (source, target) = (draw.some_store()?, draw.some_store()?);
    let (format, scope) = (draw.format(), if draw.once_in(3) { draw.path() } else { String::new() });
    let file = Checkpoint::from_parameters(&source.parameters())?.allow_rounding(true).to_bytes(format)?;
    let load = draw.rules(Checkpoint::from_bytes(format, &file)?);
    draw.go();
    let plan = target.enter(|| layerfn::parameter_scope(&scope, || load.plan()))?;
    let (before, n_before) = (bits_of_store(&target)?, target.parameters().len());
    match load.apply_to(&target, &scope) {
        Err(_) if bits_of_store(&target)? != before => Err(fault("a load that failed has changed something")),
        Err(error) => Err(error.into()),
        Ok(report) if report != *plan.report() => Err(fault("the load did something else than it planned")),
        Ok(report) if target.parameters().len() != n_before + report.created().len() => {
            Err(fault("the report names other parameters than were made"))
        }
        Ok(report) => {
            drop((report.to_string(), plan.to_string()));
            Ok(vec![])
        }
    }
}

fn rename(draw: &mut Draw) -> Outcome {
    let (store, format) = (draw.some_store()?, draw.format());
    let rules = [(draw.pattern(), draw.pattern()), (draw.pattern(), draw.path())];
    draw.go();
    let n_parameters = store.parameters().len();
    let renamed = Checkpoint::from_parameters(&store.parameters())?.allow_rounding(true).rename(&rules)?;
    let read = Checkpoint::from_bytes(format, &renamed.to_bytes(format)?)?;
    if read.entries().len() != n_parameters {
        return Err(fault("a parameter is lost by its new name"));
    }
    Ok(vec![])
}

/// What matches is frozen, under all its paths, and nothing else; a pattern that matches nothing is an error.
fn freeze(draw: &mut Draw) -> Outcome {
    let (store, pattern, other) = (draw.some_store()?, draw.pattern(), draw.pattern());
    draw.go();
    let flags = |parameters: &Parameters| -> Vec<bool> {
        parameters.iter().map(|(_, parameter)| parameter.is_frozen()).collect()
    };
    store.freeze(&pattern)?;
    let frozen = flags(&store.parameters());
    if !frozen.contains(&true) {
        return Err(fault("nothing is frozen"));
    }
    if frozen != flags(&store.deep_copy()?.parameters())
        || frozen != flags(&store.to_device(&Device::Cpu)?.parameters())
    {
        return Err(fault("a copy is not frozen alike"));
    }
    store.unfreeze(&other).err();
    store.unfreeze(&pattern)?;
    if flags(&store.parameters()).contains(&true) {
        return Err(fault("something stays frozen"));
    }
    Ok(vec![])
}

/// A sealed store makes nothing for layers.
fn seal(draw: &mut Draw) -> Outcome {
    let (store, x, scope) = (draw.some_store()?, draw.matrix(), draw.text());
    draw.go();
    store.seal();
    let before = bits_of_store(&store)?;
    let layer = || store.enter(|| layerfn::affine(&x, 2).name(&scope).call());
    let found = layer();
    if bits_of_store(&store)? != before || !store.is_sealed() {
        return Err(fault("a sealed store has other parameters now"));
    }
    store.deep_copy()?.enter(|| layerfn::affine(&x, 2).name(&scope).call()).err();
    if found.is_err() {
        store.unseal();
        store.enter(|| layerfn::affine(&x, 2).call()).err();
    }
    store.clear();
    Ok(vec![found?])
}
