//! Protobuf's binary form of network files.

use prost::encoding::WireType;

use super::PARAMETER;
use super::message::{Kind, Message, Schema, Value};
use crate::checkpoint::input::Input;
use crate::checkpoint::protobuf::{key, skip, varint};
use crate::checkpoint::{Fault, Outcome};

/// From here on, the fields of a function hold its arguments, at a number that differs between versions.
const FUNCTION_ARGUMENTS: u32 = 1000;

/// The fields of a solver that hold its arguments, likewise.
const SOLVER_ARGUMENTS: std::ops::Range<u32> = 100..200;

/// Reads a file. It skips the values of parameters, which have a reader of their own.
pub(super) fn read(input: &mut Input<'_>) -> Outcome<Message> {
    let end = input.position() + input.remaining();
    message(input, Schema::whole_file(), end)
}

/// A message up to `end`. It calls itself as deep as the schema is.
fn message(input: &mut Input<'_>, schema: &'static Schema, end: u64) -> Outcome<Message> {
    let mut found = Message::new(schema);
    // Arguments, until it is known of what: number and bytes.
    let mut arguments: Vec<(u32, Vec<u8>)> = Vec::new();
    while input.position() < end {
        let start = input.position();
        let (number, wire_type) = key(input)?;
        let whole_file = schema.name == "NNablaProtoBuf";
        if wire_type == WireType::LengthDelimited && is_arguments(schema, number) {
            let length = length(input, end)?;
            arguments.push((number, input.bytes(length)?));
            continue;
        }
        let place = schema.numbered(number).filter(|_| !(whole_file && number == PARAMETER));
        match place {
            // What a later version has added, and parameters.
            None => skip(input, wire_type, None)?,
            Some(place) => field(input, &mut found, place, wire_type, end)
                .map_err(|fault| fault.within(&format!("`{}` at byte {start}", schema.fields[place].name)))?,
        }
    }
    if input.position() != end {
        return Err(Fault::format(format!("byte {end}: a field runs over the end of its message")));
    }
    for (number, bytes) in arguments {
        place_arguments(&mut found, number, &bytes)?;
    }
    Ok(found)
}

fn is_arguments(schema: &Schema, number: u32) -> bool {
    match schema.name {
        "Function" => number >= FUNCTION_ARGUMENTS,
        "Solver" => SOLVER_ARGUMENTS.contains(&number),
        _ => false,
    }
}

/// The type says what the arguments are: the numbers are those of the version that wrote the file.
fn place_arguments(found: &mut Message, number: u32, bytes: &[u8]) -> Outcome<()> {
    let of = found.text("type").to_owned();
    let place = found.schema.arguments_of(&of).ok_or_else(|| {
        Fault::format(format!(
            "`{}` of type `{of}` has arguments (field {number}), which are not known",
            found.text("name")
        ))
    })?;
    let length = bytes.len() as u64;
    let Kind::Message(inner) = found.schema.fields[place].kind else { return Ok(()) };
    let arguments = message(&mut Input::new(bytes, length), Schema::of(inner), length)
        .map_err(|fault| fault.within(&format!("the arguments of `{}`", found.text("name"))))?;
    found.put(place, arguments.into());
    Ok(())
}

fn length(input: &mut Input<'_>, end: u64) -> Outcome<u64> {
    let length = varint(input)?;
    if length > end - input.position().min(end) {
        return Err(Fault::format(format!(
            "byte {}: {length} bytes do not fit into the message",
            input.position()
        )));
    }
    Ok(length)
}

fn field(
    input: &mut Input<'_>,
    found: &mut Message,
    place: usize,
    wire_type: WireType,
    end: u64,
) -> Outcome<()> {
    let kind = found.schema.fields[place].kind;
    match (wire_type, kind) {
        (WireType::LengthDelimited, Kind::Message(inner)) => {
            let length = length(input, end)?;
            let until = input.position() + length;
            let inner = message(input, Schema::of(inner), until)?;
            found.put(place, inner.into());
        }
        (WireType::LengthDelimited, Kind::Text) => {
            let length = length(input, end)?;
            let text = String::from_utf8(input.bytes(length)?).map_err(|_| Fault::format("is not UTF-8"))?;
            found.put(place, Value::Text(text.into()));
        }
        (WireType::LengthDelimited, kind) => {
            let length = length(input, end)?;
            let until = input.position() + length;
            while input.position() < until {
                found.put(place, scalar(input, kind)?);
            }
            if input.position() != until {
                return Err(Fault::format("runs over its end"));
            }
        }
        (found_type, kind) if wire_type_of(kind) == Some(found_type) => {
            found.put(place, scalar(input, kind)?)
        }
        (other, _) => return Err(Fault::format(format!("is written as {other:?}, which is not its type"))),
    }
    Ok(())
}

fn wire_type_of(kind: Kind) -> Option<WireType> {
    Some(match kind {
        Kind::Boolean | Kind::Integer | Kind::Unsigned => WireType::Varint,
        Kind::Double => WireType::SixtyFourBit,
        Kind::Float => WireType::ThirtyTwoBit,
        Kind::Text | Kind::Message(_) => return None,
    })
}

fn scalar(input: &mut Input<'_>, kind: Kind) -> Outcome<Value> {
    Ok(match kind {
        Kind::Boolean => Value::Boolean(varint(input)? != 0),
        Kind::Double => Value::Number(f64::from_le_bytes(input.array()?)),
        Kind::Float => Value::Number(f64::from(f32::from_le_bytes(input.array()?))),
        Kind::Integer => Value::Integer(varint(input)? as i64),
        Kind::Unsigned => Value::Integer(i64::from(varint(input)? as u32)),
        Kind::Text | Kind::Message(_) => return Err(Fault::format("is not a scalar")),
    })
}
