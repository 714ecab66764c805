//! `.nntxt` and `.prototxt`: the message of `.protobuf` in protobuf's text form.
//!
//! The form has one NaN. What is another one has its bits in a comment behind it, which other readers pass over.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;

use super::entry::{Contents, Entries, Entry, Other};
use super::input::Input;
use super::protobuf::narrow;
use super::values::{Stored, variable, with_bytes};
use super::{Fault, Outcome, SaveOptions};

pub(super) fn read(input: &mut Input<'_>) -> Outcome<Contents> {
    let text = input.text()?;
    let mut text = Text::new(&text);
    let mut entries = Entries::new();
    let mut others = BTreeSet::new();
    while let Some(name) = text.field(None)? {
        if name != "parameter" {
            text.skip_value()?;
            if name != "version" {
                others.insert(name);
            }
            continue;
        }
        let start = text.at;
        let entry = parameter(&mut text).map_err(|fault| {
            fault.within(&format!("parameter {} at line {}", entries.len(), text.line_of(start)))
        })?;
        entries.push(entry)?;
    }
    let others = others.into_iter().map(|name| Other::Field(name.to_owned())).collect();
    Ok(Contents { others, ..entries.into() })
}

/// The text without its parameters, if it has any.
pub(super) fn without_parameters(input: &mut Input<'_>) -> Outcome<Option<String>> {
    let text = input.text()?;
    let mut message = Text::new(&text);
    let (mut rest, mut kept_to) = (String::new(), 0);
    while let Some(name) = message.field(None)? {
        let start = message.at - name.len();
        message.skip_value()?;
        if name == "parameter" {
            rest.push_str(&text[kept_to..start]);
            kept_to = message.at;
        }
    }
    rest.push_str(&text[kept_to..]);
    Ok(Some(rest).filter(|_| kept_to > 0))
}

/// Between a NaN and the eight digits of its bits.
const NAN_BITS: &str = "nan # 0x";

fn parameter(text: &mut Text<'_>) -> Outcome<Entry> {
    let (mut path, mut shape, mut values, mut need_grad) = (String::new(), Vec::new(), Vec::new(), false);
    let end = text.open()?;
    while let Some(name) = text.field(Some(end))? {
        match name {
            "variable_name" => path = text.string()?,
            "shape" => {
                let end = text.open()?;
                while let Some(name) = text.field(Some(end))? {
                    match name {
                        "dim" => {
                            text.scalars(|token| integer(token).map(|size| shape.push(size)), "a size")?
                        }
                        _ => text.skip_value()?,
                    }
                }
            }
            "data" => text.scalars(|token| float(token).map(|value| values.push(value)), "a number")?,
            "need_grad" => text.scalars(|token| boolean(token).map(|flag| need_grad = flag), "a boolean")?,
            _ => text.skip_value()?,
        }
    }
    if Stored::F32.count(&shape)? != values.len() {
        return Err(Fault::format(format!("`{path}` has the shape {shape:?} and {} values", values.len())));
    }
    Ok(Entry::new(path, variable(values, &shape)?, Some(need_grad)))
}

fn integer(token: &str) -> Option<usize> {
    token.parse().ok()
}

pub(super) fn float(token: &str) -> Option<f32> {
    match token.to_ascii_lowercase().as_str() {
        "inf" | "infinity" => Some(f32::INFINITY),
        "-inf" | "-infinity" => Some(f32::NEG_INFINITY),
        "nan" => Some(f32::NAN),
        "-nan" => Some(-f32::NAN),
        lower if lower.starts_with(NAN_BITS) => {
            let bits = u32::from_str_radix(&lower[NAN_BITS.len()..], 16).ok()?;
            Some(f32::from_bits(bits)).filter(|value| value.is_nan())
        }
        // Not `infinit` and what else Rust understands.
        lower if lower.contains(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+' | 'e' | 'f')) => None,
        lower => lower.strip_suffix('f').unwrap_or(lower).parse().ok(),
    }
}

pub(super) fn boolean(token: &str) -> Option<bool> {
    match token {
        "true" | "True" | "t" | "1" => Some(true),
        "false" | "False" | "f" | "0" => Some(false),
        _ => None,
    }
}

/// A message in text form and the place reached in it.
pub(super) struct Text<'a> {
    text: &'a str,
    pub(super) at: usize,
}

impl<'a> Text<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// For messages only: it counts from the start of the file.
    pub(super) fn line_of(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count()
    }

    pub(super) fn error(&self, expected: &str) -> Fault {
        let found = match self.text[self.at..].chars().next() {
            Some(found) => format!("`{}`", found.escape_default()),
            None => "the end".to_owned(),
        };
        Fault::format(format!("line {}: {expected} is expected, {found} found", self.line_of(self.at)))
    }

    /// What is left, after blanks and comments.
    fn rest(&mut self) -> &'a str {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{b}', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return trimmed;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    pub(super) fn take(&mut self, token: char) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len_utf8() } else { 0 };
        found
    }

    /// The name of the next field; `None` at the end of the message, which is `end` or that of the file.
    pub(super) fn field(&mut self, end: Option<char>) -> Outcome<Option<&'a str>> {
        while self.take(';') || self.take(',') {}
        match end {
            Some(end) if self.take(end) => return Ok(None),
            None if self.rest().is_empty() => return Ok(None),
            _ => {}
        }
        let rest = self.rest();
        // Extensions have names in brackets.
        let length = match rest.strip_prefix('[') {
            Some(inner) => inner.find(']').map(|length| length + 2),
            None => rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').or(Some(rest.len())),
        };
        let length = length.filter(|&length| length > 0).ok_or_else(|| self.error("the name of a field"))?;
        self.at += length;
        Ok(Some(&rest[..length]))
    }

    /// Opens a message and tells how it closes.
    pub(super) fn open(&mut self) -> Outcome<char> {
        self.take(':');
        match () {
            () if self.take('{') => Ok('}'),
            () if self.take('<') => Ok('>'),
            () => Err(self.error("`{`")),
        }
    }

    /// One value, or several in brackets.
    pub(super) fn scalars(
        &mut self,
        mut each: impl FnMut(&str) -> Option<()>,
        expected: &str,
    ) -> Outcome<()> {
        if !self.take(':') {
            return Err(self.error("`:`"));
        }
        let list = self.take('[');
        if list && self.take(']') {
            return Ok(());
        }
        loop {
            let rest = self.rest();
            let mut length = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '+' | '-' | '_'))
                .unwrap_or(rest.len());
            let with_bits = NAN_BITS.len() + 8;
            if rest.starts_with(NAN_BITS) && rest.is_char_boundary(with_bits) && rest.len() >= with_bits {
                length = with_bits;
            }
            each(&rest[..length]).ok_or_else(|| self.error(expected))?;
            self.at += length;
            if !list || self.take(']') {
                return Ok(());
            }
            if !self.take(',') {
                return Err(self.error("`,` or `]`"));
            }
        }
    }

    /// A string, which may be given in pieces.
    fn string(&mut self) -> Outcome<String> {
        if !self.take(':') {
            return Err(self.error("`:`"));
        }
        self.quoted_string()
    }

    /// A string behind its colon.
    pub(super) fn quoted_string(&mut self) -> Outcome<String> {
        if !self.rest().starts_with(['"', '\'']) {
            return Err(self.error("a string"));
        }
        let mut bytes = Vec::new();
        let start = self.at;
        while let Some(quote) = self.rest().chars().next().filter(|quote| matches!(quote, '"' | '\'')) {
            self.at += 1;
            self.quoted(quote as u8, &mut bytes)?;
        }
        String::from_utf8(bytes)
            .map_err(|_| Fault::format(format!("line {}: a string is not UTF-8", self.line_of(start))))
    }

    /// The rest of a string that `quote` opened.
    fn quoted(&mut self, quote: u8, bytes: &mut Vec<u8>) -> Outcome<()> {
        let text = self.text.as_bytes();
        loop {
            match text.get(self.at) {
                None | Some(b'\n') => return Err(self.error("the end of a string")),
                Some(byte) if *byte == quote => break self.at += 1,
                Some(b'\\') => self.escape(bytes)?,
                Some(byte) => {
                    bytes.push(*byte);
                    self.at += 1;
                }
            }
        }
        Ok(())
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Outcome<()> {
        let text = &self.text.as_bytes()[self.at + 1..];
        let digits = |from: usize, most: usize, radix: u32| {
            let digits = text[from..].iter().take(most).take_while(|&&byte| (byte as char).is_digit(radix));
            digits.fold((0_u32, 0), |(value, count), &byte| {
                (value * radix + (byte as char).to_digit(radix).unwrap_or(0), count + 1)
            })
        };
        let (byte, length) = match text.first() {
            Some(b'n') => (b'\n', 1),
            Some(b'r') => (b'\r', 1),
            Some(b't') => (b'\t', 1),
            Some(b'a') => (7, 1),
            Some(b'b') => (8, 1),
            Some(b'f') => (12, 1),
            Some(b'v') => (11, 1),
            Some(byte @ (b'\\' | b'\'' | b'"' | b'?')) => (*byte, 1),
            Some(b'0'..=b'7') => {
                let (value, count) = digits(0, 3, 8);
                (u8::try_from(value).map_err(|_| self.error("an escape"))?, count)
            }
            Some(b'x' | b'X') if digits(1, 2, 16).1 > 0 => {
                let (value, count) = digits(1, 2, 16);
                (value as u8, count + 1)
            }
            Some(b'u') if digits(1, 4, 16).1 == 4 => return self.code_point(digits(1, 4, 16).0, 6, bytes),
            Some(b'U') if digits(1, 8, 16).1 == 8 => return self.code_point(digits(1, 8, 16).0, 10, bytes),
            _ => return Err(self.error("an escape")),
        };
        bytes.push(byte);
        self.at += 1 + length;
        Ok(())
    }

    fn code_point(&mut self, value: u32, length: usize, bytes: &mut Vec<u8>) -> Outcome<()> {
        let found = char::from_u32(value).ok_or_else(|| self.error("a character"))?;
        bytes.extend(found.encode_utf8(&mut [0; 4]).as_bytes());
        self.at += length;
        Ok(())
    }

    /// Passes over a value of any kind, however deep, without recursion.
    pub(super) fn skip_value(&mut self) -> Outcome<()> {
        let mut closers = Vec::new();
        let scalar = self.take(':');
        loop {
            let rest = self.rest();
            let Some(next) = rest.chars().next() else {
                return Err(self.error(if closers.is_empty() { "a value" } else { "the end of a message" }));
            };
            match next {
                '{' => closers.push('}'),
                '<' => closers.push('>'),
                '[' => closers.push(']'),
                '}' | '>' | ']' if closers.last() != Some(&next) => return Err(self.error("a value")),
                '}' | '>' | ']' => drop(closers.pop()),
                '"' | '\'' => {
                    self.at += 1;
                    self.quoted(next as u8, &mut Vec::new())?;
                    // Another piece of the same string.
                    if self.rest().starts_with(['"', '\'']) || !closers.is_empty() {
                        continue;
                    }
                    return Ok(());
                }
                ':' | ',' | ';' if !closers.is_empty() => {}
                _ if !scalar && closers.is_empty() => return Err(self.error("`:` or `{`")),
                _ => {
                    let word =
                        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_' | '/');
                    let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
                    if length == 0 {
                        return Err(self.error("a value"));
                    }
                    self.at += length;
                    if closers.is_empty() {
                        return Ok(());
                    }
                    continue;
                }
            }
            self.at += 1;
            if closers.is_empty() {
                return Ok(());
            }
        }
    }
}

pub(super) fn write(output: &mut dyn Write, entries: &Entries, options: SaveOptions) -> Outcome<()> {
    for entry in entries {
        let values = narrow(entry, options)?;
        let mut head = format!("parameter {{\n  variable_name: \"{}\"\n  shape {{\n", escaped(entry.path()));
        for size in entry.tensor().dims() {
            // Writing to a string cannot fail.
            let _ = writeln!(head, "    dim: {size}");
        }
        head.push_str("  }\n");
        output.write_all(head.as_bytes())?;
        with_bytes(&values, |bytes| {
            for value in bytes.chunks_exact(4) {
                let value = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
                match value {
                    value if value.to_bits() == f32::NAN.to_bits() => writeln!(output, "  data: nan")?,
                    value if value.is_nan() => writeln!(output, "  data: {NAN_BITS}{:08x}", value.to_bits())?,
                    // The shortest digits that give this number back.
                    value => writeln!(output, "  data: {value:?}")?,
                }
            }
            Ok(())
        })?;
        let flag = if entry.need_grad_or_default() { "  need_grad: true\n" } else { "" };
        writeln!(output, "{flag}}}")?;
    }
    Ok(())
}

pub(super) fn escaped(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'"' | b'\\' => escaped.extend(['\\', byte as char]),
            b' '..=b'~' => escaped.push(byte as char),
            _ => {
                let _ = write!(escaped, "\\{byte:03o}");
            }
        }
    }
    escaped
}
