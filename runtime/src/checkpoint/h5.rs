//! NNabla's `.h5`: a dataset for each parameter at its path, order and flag as the attributes `index` and `need_grad`.

use std::io::{self, Read, Write};

use bytemuck::{Pod, cast_slice_mut};
use candle_core::Var;
use half::f16;

use super::entry::{Contents, Entries, Entry, check_path};
use super::hdf5::{self, Dataset, File, Member, Plan, Value};
use super::input::{Source, length};
use super::values::{Stored, narrow_bf16, signed, variable, widened, with_bytes_as};
use super::{Fault, Outcome};
use crate::limits;

/// How many times what was read may be read again under other paths.
const REPETITIONS: u64 = 8;

const INDEX: &str = "index";
const NEED_GRAD: &str = "need_grad";

/// Attribute of our own on the datasets of a variable that has several paths: the same number on each.
const VARIABLE: &str = "variable";

/// Attribute of our own on f32 datasets that were bf16; other readers see f32 with the same numbers.
const BFLOAT16: &str = "bfloat16";

pub(super) fn read(source: &mut dyn Source) -> Outcome<Contents> {
    let length = length(source)?;
    let mut file = File::open(source, &[INDEX, NEED_GRAD, BFLOAT16, VARIABLE])?;
    let mut members = std::mem::take(&mut file.members);
    members.sort_by(|a, b| a.path.cmp(&b.path));
    let mut budget = Budget::new(length);
    let (mut found, mut contents) = (Vec::with_capacity(members.len()), Contents::default());
    for Member { path, dataset } in members {
        check_path(&path)?;
        let read = match dataset {
            Ok(number) => {
                budget.spend(number, file.dataset(number)).and_then(|()| entry(&mut file, number, &path))
            }
            Err(reason) => Err(Fault::unusable(reason)),
        };
        match read {
            Ok(read) => found.push(read),
            Err(fault) => contents.take(&path, Err(fault))?,
        }
    }
    // NNabla's order: by index, then by name.
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().try_for_each(|(_, entry)| contents.entries.push(entry))?;
    Ok(contents)
}

/// Reads a stream. It is spooled to a temporary file, since HDF5 needs random access.
pub(super) fn read_stream(stream: &mut dyn Read) -> Outcome<Contents> {
    let mut spool = tempfile::tempfile()?;
    io::copy(stream, &mut spool).map_err(Fault::while_reading)?;
    read(&mut spool)
}

/// What values may take.
struct Budget {
    length: u64,
    left: u64,
    seen: std::collections::HashSet<usize>,
    /// What may be read again, as several links may lead to one dataset.
    again: u64,
}

impl Budget {
    fn new(length: u64) -> Self {
        let left = limits::unpacked(length);
        Self {
            length,
            left,
            seen: std::collections::HashSet::new(),
            again: length.saturating_mul(REPETITIONS),
        }
    }

    fn spend(&mut self, number: usize, dataset: &Dataset) -> Outcome<()> {
        let (bytes, length) = (dataset.bytes(), self.length);
        if self.seen.insert(number) {
            self.left = self.left.checked_sub(bytes).ok_or_else(|| {
                Fault::format(format!(
                    "{bytes} bytes of values are more than {length} of a file can unpack to"
                ))
            })?;
        } else {
            self.again = self.again.checked_sub(bytes).ok_or_else(|| {
                Fault::format(format!(
                    "links lead to values that were read before; copies may take {REPETITIONS} times the {length} \
                     bytes of the file"
                ))
            })?;
        }
        Ok(())
    }
}

fn entry(file: &mut File<'_>, number: usize, path: &str) -> Outcome<(Option<i64>, Entry)> {
    let dataset = file.dataset(number);
    let (stored, shape) = (dataset.stored, dataset.shape.clone());
    let attribute = |name: &str| dataset.attributes.iter().find(|attribute| attribute.name == name);
    let not = |name: &str, what: &str| Fault::format(format!("the attribute `{name}` is not {what}"));
    let integer = |name: &str| {
        attribute(name)
            .map(|attribute| attribute.integer().ok_or_else(|| not(name, "one integer")))
            .transpose()
    };
    let (index, variable) = (integer(INDEX)?, integer(VARIABLE)?);
    let need_grad = attribute(NEED_GRAD)
        .map(|attribute| attribute.flag().ok_or_else(|| not(NEED_GRAD, "a boolean")))
        .transpose()?;
    let was_bf16 = stored == Stored::F32 && attribute(BFLOAT16).is_some();
    let mut var = values(file, number, stored, &shape)?;
    if was_bf16 {
        var = narrow_bf16(var)?;
    }
    Ok((index, Entry::new(path.to_owned(), var, need_grad).of_type(stored).of_variable(variable)))
}

fn values(file: &mut File<'_>, number: usize, stored: Stored, shape: &[usize]) -> Outcome<Var> {
    let count = stored.count(shape)?;
    macro_rules! read {
        ($t:ty) => {
            variable(vector::<$t>(file, number, count)?, shape)
        };
        ($t:ty => $wider:ty) => {
            variable(
                vector::<$t>(file, number, count)?.into_iter().map(<$wider>::from).collect::<Vec<_>>(),
                shape,
            )
        };
    }
    match stored {
        Stored::U8 => read!(u8),
        Stored::Bool => {
            let flags = vector::<u8>(file, number, count)?;
            if flags.iter().any(|&flag| flag > 1) {
                return Err(Fault::format("a boolean is neither 0 nor 1"));
            }
            variable(flags, shape)
        }
        Stored::I8 => read!(i8 => i16),
        Stored::U16 => read!(u16 => i32),
        Stored::I16 => read!(i16),
        Stored::U32 => read!(u32),
        Stored::I32 => read!(i32),
        Stored::U64 => variable(signed(vector(file, number, count)?)?, shape),
        Stored::I64 => read!(i64),
        Stored::F16 => read!(f16),
        Stored::F32 | Stored::BF16 => read!(f32),
        Stored::F64 => read!(f64),
    }
}

fn vector<T: Pod>(file: &mut File<'_>, number: usize, count: usize) -> Outcome<Vec<T>> {
    let mut values = vec![T::zeroed(); count];
    file.values(number, cast_slice_mut(&mut values))?;
    Ok(values)
}

pub(super) fn write(output: &mut dyn Write, entries: &Entries) -> Outcome<()> {
    let tied = entries.tied();
    let plan = |(index, entry)| plan(index, entry, tied.get(&index).copied());
    let plans: Vec<_> = entries.into_iter().enumerate().map(plan).collect::<Outcome<_>>()?;
    hdf5::write(output, &plans, |number, output| {
        let entry = &entries.as_slice()[number];
        with_bytes_as(&widened(entry.tensor())?, plans[number].stored, |bytes| Ok(output.write_all(bytes)?))
            .map_err(|fault| fault.within(&format!("`{}`", entry.path())))
    })
}

fn plan(index: usize, entry: &Entry, variable: Option<usize>) -> Outcome<Plan<'_>> {
    let (path, stored) = (entry.path(), entry.stored()?);
    let mut attributes = vec![
        (NEED_GRAD, Value::Boolean(entry.need_grad_or_default())),
        (INDEX, Value::Integer(index as i64)),
    ];
    if let Some(variable) = variable {
        attributes.push((VARIABLE, Value::Integer(variable as i64)));
    }
    // NumPy has no such type: its numbers are kept in f32.
    let is_bf16 = stored == Stored::BF16;
    if is_bf16 {
        attributes.push((BFLOAT16, Value::Boolean(true)));
    }
    let stored = if is_bf16 { Stored::F32 } else { stored };
    Ok(Plan { path, stored, shape: entry.tensor().dims(), attributes })
}
