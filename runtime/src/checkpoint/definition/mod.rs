//! The definitions in network files: networks, executors, data sets and what else NNabla keeps beside the parameters.
//!
//! Messages are read and written by the table in `schema.rs`. A file may name whatever the table knows, and is refused if
//! it names something else. Messages lie in each other only as deep as the table has them, so no file makes the readers recurse.

mod binary;
mod message;
#[allow(clippy::large_stack_arrays, reason = "a static")]
mod schema;
mod text;

use std::path::Path;

pub(crate) use message::{Message, Value};

use super::archive::for_each;
use super::input::{Input, Source, length};
use super::{Fault, Format, Outcome, file};
use crate::Result;

/// The number of the field that holds parameters.
const PARAMETER: u32 = 200;

/// The definitions of a file: one message, in which those of an archive's members are merged.
pub(crate) fn open(path: &Path) -> Result<Message> {
    let format = Format::from_path(path)?;
    file::open(path)
        .and_then(|mut file| read(format, &mut file))
        .map_err(|fault| fault.into_error("read", &path.display().to_string()))
}

/// As [`open`], of bytes.
pub(crate) fn from_bytes(format: Format, bytes: &[u8]) -> Result<Message> {
    read(format, &mut std::io::Cursor::new(bytes)).map_err(|fault| fault.into_error("read", "a stream"))
}

fn read(format: Format, source: &mut dyn Source) -> Outcome<Message> {
    let length = length(source)?;
    match format {
        Format::Text => text::read(&Input::new(source, length).text()?),
        Format::Protobuf => binary::read(&mut Input::new(source, length)),
        Format::Nnp => {
            let mut merged = Message::named("NNablaProtoBuf");
            for_each(source, |member| {
                match Format::from_path(&member.name) {
                    Ok(Format::Text) => merged.merge(member.read(|input| text::read(&input.text()?))?),
                    Ok(Format::Protobuf) => merged.merge(member.read(binary::read)?),
                    Ok(Format::Nnp) => return Err(Fault::format("an archive in an archive is not read")),
                    _ => {}
                }
                Ok(())
            })?;
            Ok(merged)
        }
        Format::Hdf5 | Format::Npz | Format::Safetensors => {
            Err(Fault::format("holds parameters only; a network is in .nnp, .nntxt, .prototxt or .protobuf"))
        }
    }
}

/// The text of a message.
pub(crate) fn to_text(message: &Message) -> String {
    text::write(message)
}
