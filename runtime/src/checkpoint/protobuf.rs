//! NNabla's `.protobuf`: one message, walked field by field so that the values go straight into their vectors.

use std::collections::BTreeSet;
use std::io::Write;

use candle_core::Tensor;
use prost::Message as _;
use prost::encoding::{MAX_TAG, WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::entry::{Contents, Entries, Entry, Other};
use super::generated::{Parameter, Shape};
use super::input::Input;
use super::values::{Stored, to_f32, variable, with_bytes};
use super::{Fault, Outcome, SaveOptions};

const VERSION: u32 = 1;
const PARAMETER: u32 = 200;
const DATA: u32 = 100;

/// A name and a shape; a real one has some hundred bytes.
const MAX_HEADER: u64 = 1 << 16;

/// NNabla's other fields, for messages.
const FIELDS: [(u32, &str); 7] = [
    (2, "global_config"),
    (3, "training_config"),
    (100, "network"),
    (300, "dataset"),
    (400, "optimizer"),
    (500, "monitor"),
    (600, "executor"),
];

pub(super) fn read(input: &mut Input<'_>) -> Outcome<Contents> {
    let mut entries = Entries::new();
    let mut others = BTreeSet::new();
    while input.remaining() > 0 {
        match key(input)? {
            (PARAMETER, WireType::LengthDelimited) => {
                let start = input.position();
                let entry = parameter(input)
                    .map_err(|fault| fault.within(&format!("parameter {} at byte {start}", entries.len())))?;
                entries.push(entry)?;
            }
            (field, wire_type) => {
                skip(input, wire_type, None)?;
                if field != VERSION {
                    others.insert(field);
                }
            }
        }
    }
    let name = |field| match FIELDS.iter().find(|(other, _)| *other == field) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("field {field}"),
    };
    let others = others.into_iter().map(|field| Other::Field(name(field))).collect();
    Ok(Contents { others, ..entries.into() })
}

fn parameter(input: &mut Input<'_>) -> Outcome<Entry> {
    let length = varint(input)?;
    input.expect(length)?;
    let end = input.position() + length;
    // Everything but the values, for prost.
    let mut header = Vec::new();
    let mut values: Vec<f32> = Vec::new();
    while input.position() < end {
        match key(input)? {
            (DATA, WireType::LengthDelimited) => packed(input, end, &mut values)?,
            (DATA, WireType::ThirtyTwoBit) => values.push(f32::from_le_bytes(input.array()?)),
            (field, wire_type) => {
                encode_key(field, wire_type, &mut header);
                skip(input, wire_type, Some(&mut header))?;
            }
        }
    }
    if input.position() != end {
        return Err(Fault::format(format!(
            "byte {}: a field runs over the end of its message",
            input.position()
        )));
    }
    let header = Parameter::decode(header.as_slice()).map_err(|error| Fault::format(error.to_string()))?;
    let shape = sizes(&header)?;
    if Stored::F32.count(&shape)? != values.len() {
        let reason =
            format!("`{}` has the shape {shape:?} and {} values", header.variable_name, values.len());
        return Err(Fault::format(reason));
    }
    Ok(Entry::new(header.variable_name, variable(values, &shape)?, Some(header.need_grad)))
}

/// Appends a run of values; nearly always the only one.
fn packed(input: &mut Input<'_>, end: u64, values: &mut Vec<f32>) -> Outcome<()> {
    let length = varint(input)?;
    if !length.is_multiple_of(4) || length > end - input.position().min(end) {
        return Err(Fault::format(format!("byte {}: {length} bytes of values do not fit", input.position())));
    }
    let start = values.len();
    if start == 0 {
        // Fresh zeros cost nothing, unlike `resize`.
        *values = vec![0.0; (length / 4) as usize];
    } else {
        values.resize(start + (length / 4) as usize, 0.0);
    }
    input.read_exact(bytemuck::cast_slice_mut(&mut values[start..]))
}

fn sizes(header: &Parameter) -> Outcome<Vec<usize>> {
    let dims = header.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    dims.iter()
        .map(|&size| {
            usize::try_from(size)
                .map_err(|_| Fault::format(format!("`{}` has the size {size}", header.variable_name)))
        })
        .collect()
}

pub(super) fn key(input: &mut Input<'_>) -> Outcome<(u32, WireType)> {
    let position = input.position();
    let key = varint(input)?;
    let broken = || Fault::format(format!("byte {position}: not a field of a message"));
    let field =
        u32::try_from(key >> 3).ok().filter(|field| (1..=MAX_TAG).contains(field)).ok_or_else(broken)?;
    Ok((field, WireType::try_from(key & 7).map_err(|_| broken())?))
}

pub(super) fn varint(input: &mut Input<'_>) -> Outcome<u64> {
    let position = input.position();
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let [byte] = input.array()?;
        // The tenth byte has room for one bit.
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Fault::format(format!("byte {position}: an integer has more than 64 bits")))
}

/// Passes over the rest of a field, copying it to `copy`.
pub(super) fn skip(input: &mut Input<'_>, wire_type: WireType, copy: Option<&mut Vec<u8>>) -> Outcome<()> {
    let (position, mut prefix) = (input.position(), Vec::new());
    let length = match wire_type {
        WireType::Varint => {
            encode_varint(varint(input)?, &mut prefix);
            0
        }
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::LengthDelimited => {
            let length = varint(input)?;
            encode_varint(length, &mut prefix);
            length
        }
        // Long withdrawn from the format; no file of NNabla's has them.
        WireType::StartGroup | WireType::EndGroup => {
            return Err(Fault::format(format!("byte {position}: a group where a field is expected")));
        }
    };
    let Some(copy) = copy else { return input.skip(length) };
    if length.saturating_add(copy.len() as u64) > MAX_HEADER {
        return Err(Fault::format(format!("byte {position}: the description of a parameter is too long")));
    }
    copy.extend(prefix);
    copy.extend(input.bytes(length)?);
    Ok(())
}

pub(super) fn write(output: &mut dyn Write, entries: &Entries, options: SaveOptions) -> Outcome<()> {
    for entry in entries {
        let values = narrow(entry, options)?;
        with_bytes(&values, |values| write_parameter(output, entry, values))?;
    }
    Ok(())
}

/// The values as f32, the only type that the format has.
pub(super) fn narrow(entry: &Entry, options: SaveOptions) -> Outcome<Tensor> {
    let tensor = entry.tensor();
    entry.stored()?;
    let (values, changed) = to_f32(tensor)?;
    match changed {
        Some(number) if !options.allow_rounding => Err(Fault::format(format!(
            "`{}` holds {number} as {:?}, which the format's f32 would change; save as .h5 or .safetensors, or allow rounding",
            entry.path(),
            tensor.dtype()
        ))),
        _ => Ok(values),
    }
}

/// Parts of a message that follow each other are one message: prost writes what stands before the values and after.
fn write_parameter(output: &mut dyn Write, entry: &Entry, values: &[u8]) -> Outcome<()> {
    let dim = entry.tensor().dims().iter().map(|&size| size as i64).collect();
    let before = Parameter {
        variable_name: entry.path().to_owned(),
        shape: Some(Shape { dim }),
        ..Parameter::default()
    };
    let after = Parameter { need_grad: entry.need_grad_or_default(), ..Parameter::default() };
    let length = values.len() as u64;
    let data = if values.is_empty() { 0 } else { key_len(DATA) + encoded_len_varint(length) + values.len() };
    let mut header = Vec::new();
    encode_key(PARAMETER, WireType::LengthDelimited, &mut header);
    encode_varint((before.encoded_len() + data + after.encoded_len()) as u64, &mut header);
    header.extend(before.encode_to_vec());
    if !values.is_empty() {
        encode_key(DATA, WireType::LengthDelimited, &mut header);
        encode_varint(length, &mut header);
    }
    output.write_all(&header)?;
    output.write_all(values)?;
    output.write_all(&after.encode_to_vec())?;
    Ok(())
}
