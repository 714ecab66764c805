//! TensorBoard's event files: records of a length, its check sum, a message, its check sum.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Events {
    path: PathBuf,
    file: File,
}

/// One record: when, at which step, and what.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(bytes = "vec", optional, tag = "4")]
    graph: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "4")]
    image: Option<Image>,
    #[prost(message, optional, tag = "5")]
    histogram: Option<Histogram>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<Text>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded: Vec<u8>,
}

/// Counts of values between limits; each bucket ends at its limit.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(double, tag = "1")]
    min: f64,
    #[prost(double, tag = "2")]
    max: f64,
    #[prost(double, tag = "3")]
    num: f64,
    #[prost(double, tag = "4")]
    sum: f64,
    #[prost(double, tag = "5")]
    sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    bucket: Vec<f64>,
}

/// A tensor of one string.
#[derive(Clone, PartialEq, Message)]
struct Text {
    /// 7 is a string.
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    strings: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "2")]
    pub(super) dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dim {
    #[prost(int64, tag = "1")]
    pub(super) size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin: Option<Plugin>,
}

#[derive(Clone, PartialEq, Message)]
struct Plugin {
    #[prost(string, tag = "1")]
    name: String,
}

const BUCKETS: usize = 30;

impl Histogram {
    /// Of the finite values, in buckets of one width.
    pub(super) fn of(values: &[f64]) -> Self {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let (min, max) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        let mut histogram = Self { num: finite().count() as f64, ..Self::default() };
        if histogram.num == 0.0 {
            return histogram;
        }
        (histogram.min, histogram.max) = (min, max);
        (histogram.sum, histogram.sum_squares) = (finite().sum(), finite().map(|x| x * x).sum());
        let width = ((max - min) / BUCKETS as f64).max(f64::MIN_POSITIVE);
        histogram.bucket_limit = (1..BUCKETS).map(|n| min + n as f64 * width).chain([max]).collect();
        histogram.bucket = vec![0.0; BUCKETS];
        for value in finite() {
            histogram.bucket[(((value - min) / width) as usize).min(BUCKETS - 1)] += 1.0;
        }
        histogram
    }
}

impl Events {
    pub(super) fn open(path: PathBuf, resumed_at: Option<u64>) -> Result<Self> {
        let old = match resumed_at {
            Some(_) => match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                Err(source) => return Err(Error::io("read", &path, source)),
            },
            None => Vec::new(),
        };
        let version = Event { file_version: Some("brain.Event:2".to_owned()), ..Event::at(0) };
        let mut start = record(&version);
        for event in records(&old) {
            if event.file_version.is_none() && resumed_at.is_some_and(|step| (event.step as u64) < step) {
                start.extend(record(&event));
            }
        }
        fs::write(&path, start).map_err(|source| Error::io("write", &path, source))?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(|source| Error::io("write", &path, source))?;
        Ok(Self { path, file })
    }

    pub(super) fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<()> {
        self.write(step, Value { simple_value: Some(value as f32), ..Value::tagged(tag) })
    }

    pub(super) fn histogram(&mut self, tag: &str, step: u64, histogram: Histogram) -> Result<()> {
        self.write(step, Value { histogram: Some(histogram), ..Value::tagged(tag) })
    }

    #[cfg(feature = "images")]
    pub(super) fn image(&mut self, tag: &str, step: u64, size: [usize; 3], png: Vec<u8>) -> Result<()> {
        let [height, width, colorspace] = size.map(|size| size as i32);
        let image = Image { height, width, colorspace, encoded: png };
        self.write(step, Value { image: Some(image), ..Value::tagged(tag) })
    }

    pub(super) fn text(&mut self, tag: &str, step: u64, text: &str) -> Result<()> {
        let shape = Shape { dim: vec![Dim { size: 1 }] };
        let tensor = Text { dtype: 7, shape: Some(shape), strings: vec![text.as_bytes().to_vec()] };
        let metadata = Metadata { plugin: Some(Plugin { name: "text".to_owned() }) };
        self.write(step, Value { tensor: Some(tensor), metadata: Some(metadata), ..Value::tagged(tag) })
    }

    pub(super) fn graph(&mut self, graph: Vec<u8>) -> Result<()> {
        self.append(&Event { graph: Some(graph), ..Event::at(0) })
    }

    fn write(&mut self, step: u64, value: Value) -> Result<()> {
        self.append(&Event { summary: Some(Summary { value: vec![value] }), ..Event::at(step) })
    }

    fn append(&mut self, event: &Event) -> Result<()> {
        let written = self.file.write_all(&record(event));
        written.map_err(|source| Error::io("write", &self.path, source))
    }
}

impl Event {
    fn at(step: u64) -> Self {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self { wall_time, step: step as i64, ..Self::default() }
    }
}

impl Value {
    fn tagged(tag: &str) -> Self {
        Self { tag: tag.to_owned(), ..Self::default() }
    }
}

fn record(event: &Event) -> Vec<u8> {
    let message = event.encode_to_vec();
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &check_sum(&length), &message, &check_sum(&message)].concat()
}

/// The whole records of a file; one that was cut off, or damaged, ends them.
fn records(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let Some((sum, rest)) = rest.split_first_chunk::<4>() else { break };
        let Ok(n) = usize::try_from(u64::from_le_bytes(*length)) else { break };
        let Some((message, rest)) = rest.split_at_checked(n) else { break };
        let Some((message_sum, rest)) = rest.split_first_chunk::<4>() else { break };
        if *sum != check_sum(length) || *message_sum != check_sum(message) {
            break;
        }
        let Ok(event) = Event::decode(message) else { break };
        events.push(event);
        bytes = rest;
    }
    events
}

/// CRC-32C, turned and moved as TensorFlow does it.
fn check_sum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_up_to_a_cut() {
        let event =
            |step| Event { summary: Some(Summary { value: vec![Value::tagged("x")] }), ..Event::at(step) };
        let (a, b) = (event(1), event(2));
        let bytes = [record(&a), record(&b)].concat();
        assert_eq!(records(&bytes), [a.clone(), b]);
        assert_eq!(records(&bytes[..bytes.len() - 1]), std::slice::from_ref(&a));
        let mut wrong = bytes.clone();
        let last = wrong.len() - 6;
        wrong[last] ^= 1;
        assert_eq!(records(&wrong), [a]);
        // The check sum of a length of 24, as files of TensorFlow have it.
        assert_eq!(check_sum(&24u64.to_le_bytes()), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn histograms_count_what_is_finite() {
        let histogram = Histogram::of(&[0.0, 1.0, 1.0, 3.0, f64::NAN]);
        assert_eq!((histogram.min, histogram.max, histogram.num), (0.0, 3.0, 4.0));
        assert_eq!(histogram.bucket.iter().sum::<f64>(), 4.0);
        assert_eq!((histogram.bucket[0], histogram.bucket[10], histogram.bucket[29]), (1.0, 2.0, 1.0));
        assert_eq!(histogram.bucket_limit.len(), BUCKETS);
        assert_eq!(Histogram::of(&[2.0, 2.0]).bucket.iter().sum::<f64>(), 2.0);
        assert_eq!(Histogram::of(&[]).num, 0.0);
    }
}
