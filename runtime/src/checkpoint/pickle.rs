//! The part of Python's pickle format that state dicts are made of. Values are read; nothing is called.
//!
//! Values refer to each other by their places in one list, as they do in Python. So a value that is used a thousand times
//! stands there once, and nothing is recursive.

use std::collections::HashMap;

use super::input::Input;
use super::{Fault, Outcome};

/// The place of a value.
pub(super) type Ref = usize;

#[derive(Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(String),
    Tuple(Vec<Ref>),
    List,
    Dict(Vec<(Ref, Ref)>),
    /// A class or function by its module and name.
    Global(String, String),
    /// What a function would return or a class would make.
    Call(Ref, Ref),
    /// What whoever reads knows by this name.
    Persistent(Ref),
    /// A floating-point number, bytes, a set or a large integer.
    Other,
}

#[derive(Debug)]
pub(super) struct Values {
    list: Vec<Value>,
    pub(super) root: Ref,
}

impl Values {
    pub(super) fn get(&self, place: Ref) -> &Value {
        &self.list[place]
    }

    pub(super) fn tuple(&self, place: Ref) -> Option<&[Ref]> {
        match self.get(place) {
            Value::Tuple(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn text(&self, place: Ref) -> Option<&str> {
        match self.get(place) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn size(&self, place: Ref) -> Option<usize> {
        match self.get(place) {
            Value::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        }
    }

    /// Module and name of a class or function.
    pub(super) fn global(&self, place: Ref) -> Option<(&str, &str)> {
        match self.get(place) {
            Value::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }

    /// Python's word for it.
    pub(super) fn kind(&self, place: Ref) -> String {
        match self.get(place) {
            Value::None => "None".to_owned(),
            Value::Bool(_) => "a bool".to_owned(),
            Value::Int(_) => "an int".to_owned(),
            Value::Text(_) => "a string".to_owned(),
            Value::Tuple(_) => "a tuple".to_owned(),
            Value::List => "a list".to_owned(),
            Value::Dict(_) => "a dict".to_owned(),
            Value::Global(module, name) => format!("the class or function {module}.{name}"),
            Value::Call(function, _) => match self.global(*function) {
                Some((module, name)) => format!("an object made by {module}.{name}"),
                None => "an object".to_owned(),
            },
            Value::Persistent(_) => "a storage".to_owned(),
            Value::Other => "a float, bytes, a set or a large int".to_owned(),
        }
    }
}

/// Reads to the end of the pickle.
pub(super) fn read(input: &mut Input<'_>) -> Outcome<Values> {
    let mut machine = Machine::default();
    loop {
        let position = input.position();
        let [code] = input.array()?;
        let done =
            if code == b'.' { machine.pop().map(Some) } else { machine.step(code, input).map(|()| None) };
        if let Some(root) = done.map_err(|fault| fault.within(&format!("byte {position}")))? {
            return Ok(Values { list: machine.list, root });
        }
    }
}

#[derive(Default)]
struct Machine {
    list: Vec<Value>,
    stack: Vec<Ref>,
    /// How long the stack was at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Ref>,
}

impl Machine {
    fn push(&mut self, value: Value) {
        self.stack.push(self.list.len());
        self.list.push(value);
    }

    fn pop(&mut self) -> Outcome<Ref> {
        let bottom = self.marks.last().copied().unwrap_or_default();
        if self.stack.len() <= bottom {
            return Err(Fault::format("a value is missing"));
        }
        self.stack.pop().ok_or_else(|| Fault::format("a value is missing"))
    }

    fn top(&self) -> Outcome<Ref> {
        self.stack.last().copied().ok_or_else(|| Fault::format("a value is missing"))
    }

    /// The values above the last mark.
    fn marked(&mut self) -> Outcome<Vec<Ref>> {
        let mark = self.marks.pop().ok_or_else(|| Fault::format("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, n: usize) -> Outcome<()> {
        let mut values = (0..n).map(|_| self.pop()).collect::<Outcome<Vec<_>>>()?;
        values.reverse();
        self.push(Value::Tuple(values));
        Ok(())
    }

    /// Adds to the dict on top of the stack; what other objects make of items is not of interest.
    fn set(&mut self, items: &[Ref]) -> Outcome<()> {
        let top = self.top()?;
        if let Value::Dict(dict) = &mut self.list[top] {
            dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(())
    }

    fn call(&mut self) -> Outcome<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let value = match &self.list[function] {
            Value::Global(module, name)
                if module == "collections" && matches!(&name[..], "OrderedDict" | "defaultdict") =>
            {
                Value::Dict(Vec::new())
            }
            _ => Value::Call(function, arguments),
        };
        self.push(value);
        Ok(())
    }

    fn step(&mut self, code: u8, input: &mut Input<'_>) -> Outcome<()> {
        match code {
            0x80 => drop(input.array::<1>()?), // version
            0x95 => drop(input.array::<8>()?), // length of a frame
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.marked()?),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => {
                let [value] = input.array()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(input.array()?);
                self.push(Value::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(input.array()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let value = long(input)?;
                self.push(value);
            }
            b'G' => {
                input.skip(8)?;
                self.push(Value::Other);
            }
            b'X' | b'T' => {
                let length = u32::from_le_bytes(input.array()?);
                self.text(input, length.into())?;
            }
            0x8c | b'U' => {
                let [length] = input.array()?;
                self.text(input, length.into())?;
            }
            0x8d => {
                let length = u64::from_le_bytes(input.array()?);
                self.text(input, length)?;
            }
            b'B' => {
                let length = u32::from_le_bytes(input.array()?);
                input.skip(length.into())?;
                self.push(Value::Other);
            }
            b'C' => {
                let [length] = input.array()?;
                input.skip(length.into())?;
                self.push(Value::Other);
            }
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let values = self.marked()?;
                self.push(Value::Tuple(values));
            }
            0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
            b']' => self.push(Value::List),
            0x8f => self.push(Value::Other),
            b'a' => drop(self.pop()?),
            b'e' | 0x90 => drop(self.marked()?),
            b'}' => self.push(Value::Dict(Vec::new())),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.set(&items)?;
            }
            b'q' => {
                let [name] = input.array()?;
                self.memo.insert(name.into(), self.top()?);
            }
            b'r' => {
                let name = u32::from_le_bytes(input.array()?);
                self.memo.insert(name, self.top()?);
            }
            0x94 => {
                let name = u32::try_from(self.memo.len()).map_err(|_| Fault::format("too many values"))?;
                self.memo.insert(name, self.top()?);
            }
            b'h' => {
                let [name] = input.array()?;
                self.recall(name.into())?;
            }
            b'j' => {
                let name = u32::from_le_bytes(input.array()?);
                self.recall(name)?;
            }
            b'c' => {
                let (module, name) = (line(input)?, line(input)?);
                self.push(Value::Global(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (&self.list[module], &self.list[name]) else {
                    return Err(Fault::format("a class has no name"));
                };
                let global = Value::Global(module.clone(), name.clone());
                self.push(global);
            }
            b'R' | 0x81 => self.call()?,
            b'b' => drop(self.pop()?), // the state of an object, such as the versions in a state dict
            b'Q' => {
                let name = self.pop()?;
                self.push(Value::Persistent(name));
            }
            _ => return Err(Fault::format(format!("the code {code:#04x} does not occur in state dicts"))),
        }
        Ok(())
    }

    fn text(&mut self, input: &mut Input<'_>, length: u64) -> Outcome<()> {
        let text = String::from_utf8(input.bytes(length)?);
        self.push(text.map_or(Value::Other, Value::Text));
        Ok(())
    }

    fn recall(&mut self, name: u32) -> Outcome<()> {
        let place = self.memo.get(&name).ok_or_else(|| Fault::format("a value is used that is not there"))?;
        self.stack.push(*place);
        Ok(())
    }
}

/// An integer of up to 255 bytes, in two's complement.
fn long(input: &mut Input<'_>) -> Outcome<Value> {
    let [length] = input.array()?;
    let bytes = input.bytes(length.into())?;
    if bytes.len() > 8 {
        return Ok(Value::Other);
    }
    let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 8];
    all[..bytes.len()].copy_from_slice(&bytes);
    Ok(Value::Int(i64::from_le_bytes(all)))
}

/// Text up to the end of a line. Names of classes are short.
fn line(input: &mut Input<'_>) -> Outcome<String> {
    let mut bytes = Vec::new();
    loop {
        match input.array()? {
            [b'\n'] => break,
            [byte] if bytes.len() < 1000 => bytes.push(byte),
            _ => return Err(Fault::format("the name of a class is too long")),
        }
    }
    String::from_utf8(bytes).map_err(|_| Fault::format("the name of a class is not text"))
}
