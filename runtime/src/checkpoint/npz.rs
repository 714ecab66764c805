//! NumPy's `.npz`: a zip file with an array at each path.
//!
//! NumPy knows neither `need_grad` nor bf16 nor that a variable has several paths. All of it stands in the comment of the
//! member, which it ignores; a bf16 parameter is an array of f32 with the same numbers.

use std::io::{Seek, Write};

use candle_core::{DType, Tensor, Var};
use zip::write::FullFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::archive::{FailsOnce, Member, for_each};
use super::entry::{Contents, Entries, Entry};
use super::input::{Input, Source, length};
use super::values::{Stored, narrow_bf16, widened, with_bytes_as};
use super::{Fault, Outcome};
use crate::limits;

/// What precedes the number of a variable that has several paths.
const VARIABLE: &str = "variable=";

const MAGIC: [u8; 6] = *b"\x93NUMPY";

pub(super) fn read(source: &mut dyn Source) -> Outcome<Contents> {
    let mut contents = Contents::default();
    for_each(source, |member| {
        let name = member.name.clone();
        let path = name.strip_suffix(".npy");
        let read = match path {
            Some(path) => entry(member, path),
            None => Err(Fault::unusable("is not an array: its name does not end in .npy")),
        };
        contents.take(path.unwrap_or(&name), read)
    })?;
    Ok(contents)
}

fn entry(member: &mut Member<'_, '_>, path: &str) -> Outcome<Entry> {
    let (mut var, stored) = member.read(array)?;
    let (mut need_grad, mut variable) = (None, None);
    for word in member.comment.split_whitespace() {
        match word {
            "need_grad=true" => need_grad = Some(true),
            "need_grad=false" => need_grad = Some(false),
            "bfloat16" if var.dtype() == DType::F32 => var = narrow_bf16(var)?,
            // Anything else is a comment of another program.
            word => {
                variable = word.strip_prefix(VARIABLE).and_then(|number| number.parse().ok()).or(variable)
            }
        }
    }
    Ok(Entry::new(path.to_owned(), var, need_grad).of_type(stored).of_variable(variable))
}

fn array(input: &mut Input<'_>) -> Outcome<(Var, Stored)> {
    if input.array()? != MAGIC {
        return Err(Fault::format("is not an array of NumPy"));
    }
    let [major, _minor] = input.array()?;
    let length = match major {
        1 => u64::from(u16::from_le_bytes(input.array()?)),
        2 | 3 => u64::from(u32::from_le_bytes(input.array()?)),
        _ => return Err(Fault::unusable(format!("has the unknown version {major} of NumPy's format"))),
    };
    // NumPy itself refuses longer ones.
    if length > 1 << 16 {
        return Err(Fault::format(format!("has a header of {length} bytes")));
    }
    let header = input.bytes(length)?;
    let header = std::str::from_utf8(&header).map_err(|_| Fault::format("has a header that is not text"))?;
    let Header { descr, fortran, mut shape } = parse(header)
        .ok_or_else(|| Fault::format(format!("has a header that is not understood: {}", header.trim())))?;
    limits::check_rank(shape.len()).map_err(Fault::format)?;
    let (stored, big_endian) = stored(descr).ok_or_else(|| {
        Fault::unusable(format!("has the type {descr} of NumPy, which tensors here cannot have"))
    })?;
    if !fortran {
        return Ok((stored.read(input, &shape, big_endian)?, stored));
    }
    // Columns first: the transpose is there.
    shape.reverse();
    let transposed = stored.read(input, &shape, big_endian)?;
    let axes: Vec<usize> = (0..shape.len()).rev().collect();
    let var = Var::from_tensor(&transposed.as_tensor().detach().permute(axes)?.contiguous()?)?;
    Ok((var, stored))
}

/// The one array of an `.npy` file.
pub(super) fn read_npy(source: &mut dyn Source) -> Outcome<Tensor> {
    let length = length(source)?;
    let mut input = Input::new(source, length);
    let (var, _) = array(&mut input)?;
    input.finish()?;
    Ok(var.as_tensor().detach())
}

/// What stands before the values.
struct Header<'a> {
    /// The type as NumPy writes it: a string, or a list for records.
    descr: &'a str,
    fortran: bool,
    shape: Vec<usize>,
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`
fn parse(header: &str) -> Option<Header<'_>> {
    let mut rest = header.trim().strip_prefix('{')?;
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    loop {
        rest = rest.trim_start();
        if let Some(end) = rest.strip_prefix('}') {
            break end.is_empty().then_some(())?;
        }
        let (key, value) = quoted(rest)?;
        let value = value.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" => {
                let (text, rest) = literal(value)?;
                descr = Some(text);
                rest
            }
            "fortran_order" => {
                let no = value.strip_prefix("False").map(|rest| (false, rest));
                let (flag, rest) = no.or_else(|| value.strip_prefix("True").map(|rest| (true, rest)))?;
                fortran = Some(flag);
                rest
            }
            "shape" => {
                let (sizes, rest) = value.strip_prefix('(')?.split_once(')')?;
                let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
                shape =
                    Some(sizes.map(|size| size.trim_end_matches('L').parse().ok()).collect::<Option<_>>()?);
                rest
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(Header { descr: descr?, fortran: fortran?, shape: shape? })
}

/// The type that `descr` means and whether its bytes are swapped.
fn stored(descr: &str) -> Option<(Stored, bool)> {
    let (order, kind) = quoted(descr)?.0.split_at_checked(1)?;
    let big_endian = match order {
        "<" | "|" | "=" => false,
        ">" => true,
        _ => return None,
    };
    TYPES.iter().find(|(_, name)| *name == kind).map(|(stored, _)| (*stored, big_endian))
}

const TYPES: [(Stored, &str); 12] = [
    (Stored::Bool, "b1"),
    (Stored::U8, "u1"),
    (Stored::I8, "i1"),
    (Stored::U16, "u2"),
    (Stored::I16, "i2"),
    (Stored::U32, "u4"),
    (Stored::I32, "i4"),
    (Stored::U64, "u8"),
    (Stored::I64, "i8"),
    (Stored::F16, "f2"),
    (Stored::F32, "f4"),
    (Stored::F64, "f8"),
];

/// A string of Python and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// A string or a list of Python, as it is written, and what follows it.
fn literal(text: &str) -> Option<(&str, &str)> {
    let mut rest = text;
    let mut depth = 0_usize;
    loop {
        rest = match rest.chars().next()? {
            '\'' | '"' => quoted(rest)?.1,
            c => {
                match c {
                    '[' | '(' | '{' => depth += 1,
                    ']' | ')' | '}' => depth = depth.checked_sub(1)?,
                    _ if depth == 0 => return None,
                    _ => {}
                }
                &rest[c.len_utf8()..]
            }
        };
        if depth == 0 {
            return Some(text.split_at(text.len() - rest.len()));
        }
    }
}

pub(super) fn write(output: impl Write + Seek, entries: &Entries) -> Outcome<()> {
    let mut archive = ZipWriter::new(FailsOnce::new(output));
    let tied = entries.tied();
    for (place, entry) in entries.into_iter().enumerate() {
        write_array(&mut archive, entry, tied.get(&place))
            .map_err(|fault| fault.within(&format!("`{}`", entry.path())))?;
    }
    archive.finish()?.flush()?;
    Ok(())
}

fn write_array(
    archive: &mut ZipWriter<impl Write + Seek>,
    entry: &Entry,
    variable: Option<&usize>,
) -> Outcome<()> {
    let mut stored = entry.stored()?;
    let need_grad = entry.need_grad().map(|need_grad| format!("need_grad={need_grad}"));
    let bfloat16 = Some("bfloat16".to_owned()).filter(|_| stored == Stored::BF16);
    let variable = variable.map(|number| format!("{VARIABLE}{number}"));
    let comment = need_grad.into_iter().chain(bfloat16).chain(variable).collect::<Vec<_>>().join(" ");
    let values: Tensor = widened(entry.tensor())?;
    if stored == Stored::BF16 {
        stored = Stored::F32;
    }
    let header = header(stored, values.dims())?;
    let large = values.elem_count() as u64 * stored.size() > 0xf000_0000;
    let options = FullFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        // The time of writing would make equal files differ.
        .last_modified_time(zip::DateTime::default())
        .large_file(large)
        .with_file_comment(comment);
    archive.start_file(format!("{}.npy", entry.path()), options)?;
    archive.write_all(&header)?;
    with_bytes_as(&values, stored, |bytes| Ok(archive.write_all(bytes)?))
}

fn header(stored: Stored, dims: &[usize]) -> Outcome<Vec<u8>> {
    let name = TYPES.iter().find(|(other, _)| *other == stored).map(|(_, name)| *name);
    let name = name.ok_or_else(|| Fault::format("has a type that NumPy lacks"))?;
    let order = if stored.size() == 1 { '|' } else { '<' };
    let sizes: String = dims.iter().map(|size| format!("{size}, ")).collect();
    // `(3,)` and `(2, 3)`, as Python writes tuples.
    let sizes = if dims.len() == 1 { sizes.trim_end() } else { sizes.trim_end_matches(", ") };
    let dict = format!("{{'descr': '{order}{name}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // Magic, version, length, dictionary, padding and a new line are a multiple of 64 bytes.
    let length = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let length = u16::try_from(length).map_err(|_| Fault::format("has too many axes"))?;
    let mut header = Vec::from(MAGIC);
    header.extend([1, 0]);
    header.extend(length.to_le_bytes());
    header.extend(dict.as_bytes());
    header.resize(10 + usize::from(length) - 1, b' ');
    header.push(b'\n');
    Ok(header)
}
