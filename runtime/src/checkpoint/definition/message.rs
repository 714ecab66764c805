//! Messages of network files, described by a table.

use super::schema::MESSAGES;

/// A kind of message.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

/// The type of a field; a message is one of [`MESSAGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Double,
    Float,
    Integer,
    Message(u16),
    Text,
    Unsigned,
}

pub(super) const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, repeated: false }
}

pub(super) const fn many(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, repeated: true }
}

impl Schema {
    pub(super) fn whole_file() -> &'static Self {
        &MESSAGES[0]
    }

    pub(super) fn of(place: u16) -> &'static Self {
        &MESSAGES[usize::from(place)]
    }

    pub(super) fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    pub(super) fn numbered(&self, number: u32) -> Option<usize> {
        self.fields.iter().position(|field| field.number == number)
    }

    /// The field that holds the arguments of a function or solver of this type.
    pub(super) fn arguments_of(&self, function: &str) -> Option<usize> {
        self.fields.iter().position(|field| match field.kind {
            Kind::Message(place) => Self::of(place).name.strip_suffix("Parameter") == Some(function),
            _ => false,
        })
    }
}

/// The value of a field, one of them if it is repeated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Boolean(bool),
    Number(f64),
    Integer(i64),
    Text(Box<str>),
    Message(Box<Message>),
}

/// A message: values with the place of their field in the schema, in the order of the file. Messages lie in each other only as
/// deep as the schema says.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(super) schema: &'static Schema,
    pub(super) values: Vec<(u16, Value)>,
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.schema, other.schema) && self.values == other.values
    }
}

impl Message {
    pub(super) fn new(schema: &'static Schema) -> Self {
        Self { schema, values: Vec::new() }
    }

    /// An empty message of this name.
    ///
    /// # Panics
    /// If there is none; the names stand in this crate.
    pub(crate) fn named(name: &str) -> Self {
        let schema = MESSAGES.iter().find(|schema| schema.name == name);
        Self::new(schema.unwrap_or_else(|| panic!("there is no message `{name}`")))
    }

    /// Takes one occurrence of a field: a later value of what occurs once replaces an earlier one, messages are merged.
    pub(super) fn put(&mut self, place: usize, value: Value) {
        let field = &self.schema.fields[place];
        let place = place as u16;
        if !field.repeated
            && let Some((_, before)) = self.values.iter_mut().find(|(other, _)| *other == place)
        {
            match (before, value) {
                (Value::Message(before), Value::Message(value)) => before.merge(*value),
                (before, value) => *before = value,
            }
            return;
        }
        self.values.push((place, value));
    }

    /// Gives the field `name` a value, one more if it is repeated.
    ///
    /// # Panics
    /// If there is no such field; the names stand in this crate.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        let place = self.schema.field(name);
        self.put(place.unwrap_or_else(|| panic!("`{}` has no field `{name}`", self.schema.name)), value);
    }

    /// The field for the arguments of functions of this type, and the name of the message there.
    pub(crate) fn arguments_of(of: &str, function: &str) -> Option<(&'static str, &'static str)> {
        let schema = MESSAGES.iter().find(|schema| schema.name == of)?;
        let field = &schema.fields[schema.arguments_of(function)?];
        match field.kind {
            Kind::Message(place) => Some((field.name, Schema::of(place).name)),
            _ => None,
        }
    }

    pub(crate) fn has_field(&self, name: &str) -> bool {
        self.schema.field(name).is_some()
    }

    /// Whether the field `name` is a message.
    pub(crate) fn is_message(&self, name: &str) -> bool {
        let field = self.schema.field(name).map(|place| &self.schema.fields[place]);
        field.is_some_and(|field| matches!(field.kind, Kind::Message(_)))
    }

    /// Takes all of another message of the same kind.
    pub(crate) fn merge(&mut self, other: Self) {
        other.values.into_iter().for_each(|(place, value)| self.put(usize::from(place), value));
    }

    /// Every value of the field `name`.
    pub(crate) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let place = self.schema.field(name);
        debug_assert!(place.is_some(), "`{}` has no field `{name}`", self.schema.name);
        self.values
            .iter()
            .filter(move |(other, _)| Some(usize::from(*other)) == place)
            .map(|(_, value)| value)
    }

    pub(crate) fn messages<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Message> + use<'a> {
        self.all(name).filter_map(|value| match value {
            Value::Message(message) => Some(&**message),
            _ => None,
        })
    }

    pub(crate) fn texts<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.all(name).filter_map(|value| match value {
            Value::Text(text) => Some(&**text),
            _ => None,
        })
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        self.all(name)
            .filter_map(|value| if let Value::Integer(value) = value { Some(*value) } else { None })
            .collect()
    }

    pub(crate) fn message(&self, name: &str) -> Option<&Message> {
        self.messages(name).next()
    }

    /// The text of the field `name`; empty if absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.texts(name).next().unwrap_or_default()
    }

    /// The integer of the field `name`; 0 if absent.
    pub(crate) fn integer(&self, name: &str) -> i64 {
        self.all(name)
            .find_map(|value| if let Value::Integer(value) = value { Some(*value) } else { None })
            .unwrap_or(0)
    }

    /// The number of the field `name`; 0 if absent.
    pub(crate) fn number(&self, name: &str) -> f64 {
        self.all(name)
            .find_map(|value| if let Value::Number(value) = value { Some(*value) } else { None })
            .unwrap_or(0.0)
    }

    /// The boolean of the field `name`; false if absent.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.all(name).any(|value| *value == Value::Boolean(true))
    }

    /// The sizes in the field `name`, which is a message `Shape`.
    pub(crate) fn sizes(&self, name: &str) -> Vec<i64> {
        self.message(name).map(|shape| shape.integers("dim")).unwrap_or_default()
    }

    /// Its fields and their values, for a function: the arguments, if it has any.
    pub(crate) fn arguments(&self) -> Option<&Message> {
        self.values.iter().find_map(|(place, value)| match value {
            Value::Message(message) if self.schema.fields[usize::from(*place)].name.ends_with("_param") => {
                Some(&**message)
            }
            _ => None,
        })
    }
}

impl From<Message> for Value {
    fn from(message: Message) -> Self {
        Self::Message(Box::new(message))
    }
}
