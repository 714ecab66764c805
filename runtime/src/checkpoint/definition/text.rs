//! Protobuf's text form of network files.

use std::fmt::Write as _;

use super::PARAMETER;
use super::message::{Kind, Message, Schema, Value};
use crate::checkpoint::text::{Text, boolean, escaped, float};
use crate::checkpoint::{Fault, Outcome};

/// Reads a text. It skips the values of parameters, which have a reader of their own.
pub(super) fn read(text: &str) -> Outcome<Message> {
    let mut text = Text::new(text);
    message(&mut text, Schema::whole_file(), None)
}

/// A message up to `end`. It calls itself as deep as the schema is.
fn message(text: &mut Text<'_>, schema: &'static Schema, end: Option<char>) -> Outcome<Message> {
    let mut found = Message::new(schema);
    while let Some(name) = text.field(end)? {
        let Some(place) = schema.field(name) else {
            return Err(text.fault(&format!("`{}` has no field `{name}`", schema.name)));
        };
        let field = &schema.fields[place];
        if schema.fields[place].number == PARAMETER && end.is_none() {
            text.skip_value()?;
            continue;
        }
        match field.kind {
            Kind::Message(inner) => messages(text, Schema::of(inner), &mut found, place)?,
            Kind::Text => strings(text, &mut found, place)?,
            kind => text
                .scalars(|token| scalar(token, kind).map(|value| found.put(place, value)), expected(kind))?,
        }
    }
    Ok(found)
}

/// One message, or several in brackets.
fn messages(text: &mut Text<'_>, schema: &'static Schema, found: &mut Message, place: usize) -> Outcome<()> {
    text.take(':');
    let list = text.take('[');
    if list && text.take(']') {
        return Ok(());
    }
    loop {
        let end = text.open()?;
        let inner = message(text, schema, Some(end))?;
        found.put(place, inner.into());
        if !list || text.take(']') {
            return Ok(());
        }
        if !text.take(',') {
            return Err(text.error("`,` or `]`"));
        }
    }
}

/// One string, or several in brackets.
fn strings(text: &mut Text<'_>, found: &mut Message, place: usize) -> Outcome<()> {
    if !text.take(':') {
        return Err(text.error("`:`"));
    }
    let list = text.take('[');
    if list && text.take(']') {
        return Ok(());
    }
    loop {
        let string = text.quoted_string()?;
        found.put(place, Value::Text(string.into()));
        if !list || text.take(']') {
            return Ok(());
        }
        if !text.take(',') {
            return Err(text.error("`,` or `]`"));
        }
    }
}

fn scalar(token: &str, kind: Kind) -> Option<Value> {
    match kind {
        Kind::Boolean => boolean(token).map(Value::Boolean),
        Kind::Float => float(token).map(|value| Value::Number(f64::from(value))),
        Kind::Double => double(token).map(Value::Number),
        Kind::Integer => integer(token).map(Value::Integer),
        Kind::Unsigned => integer(token).filter(|&n| u32::try_from(n).is_ok()).map(Value::Integer),
        Kind::Text | Kind::Message(_) => None,
    }
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "a boolean",
        Kind::Integer | Kind::Unsigned => "an integer",
        _ => "a number",
    }
}

fn double(token: &str) -> Option<f64> {
    // What is not a number for the narrower type is none here; what is one may be longer here.
    let narrow = float(token)?;
    let digits = token.to_ascii_lowercase();
    digits.strip_suffix('f').unwrap_or(&digits).parse().ok().or(Some(f64::from(narrow)))
}

/// Decimal, hexadecimal or octal.
fn integer(token: &str) -> Option<i64> {
    let (negative, digits) = match token.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, token),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.strip_prefix("0x") {
        Some(digits) => (16, digits),
        None if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        None => (10, &lower[..]),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
    i64::try_from(if negative { -value } else { value }).ok()
}

/// Writes a message, in the layout of protobuf's own writers.
pub(super) fn write(message: &Message) -> String {
    let mut text = String::new();
    write_into(message, 0, &mut text);
    text
}

fn write_into(message: &Message, depth: usize, text: &mut String) {
    for (place, value) in &message.values {
        let field = &message.schema.fields[usize::from(*place)];
        let (indent, name) = (2 * depth, field.name);
        // Writing to a string cannot fail.
        let _ = match value {
            Value::Boolean(value) => writeln!(text, "{:indent$}{name}: {value}", ""),
            Value::Integer(value) => writeln!(text, "{:indent$}{name}: {value}", ""),
            Value::Text(value) => writeln!(text, "{:indent$}{name}: \"{}\"", "", escaped(value)),
            Value::Number(value) => writeln!(text, "{:indent$}{name}: {}", "", number(*value, field.kind)),
            Value::Message(inner) => {
                let _ = writeln!(text, "{:indent$}{name} {{", "");
                write_into(inner, depth + 1, text);
                writeln!(text, "{:indent$}}}", "")
            }
        };
    }
}

/// The shortest digits that give the number back, in the type that the field has.
fn number(value: f64, kind: Kind) -> String {
    match kind {
        _ if value.is_nan() => "nan".to_owned(),
        Kind::Float => format!("{:?}", value as f32),
        _ => format!("{value:?}"),
    }
}

impl Text<'_> {
    /// A fault that says the line.
    fn fault(&self, reason: &str) -> Fault {
        Fault::format(format!("line {}: {reason}", self.line_of(self.at)))
    }
}
