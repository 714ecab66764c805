//! Records of a training: NNabla's series, a CSV file, and events for TensorBoard.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path().join("run");
//! use layerfn::monitor::Monitor;
//!
//! let mut monitor = Monitor::create(&folder)?;
//! for step in 0..10 {
//!     monitor.scalar("training loss", step, 1.0 / (step + 1) as f64)?;
//! }
//! assert_eq!(std::fs::read_to_string(folder.join("training-loss.series.txt"))?.lines().nth(1), Some("1 0.5"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | file | content |
//! | --- | --- |
//! | `NAME.series.txt` | `step value` on each line, as NNabla's `MonitorSeries` writes it |
//! | `scalars.csv` | `step,name,value`, every value in full |
//! | `events.out.tfevents.layerfn` | scalars, histograms, images, text and networks for `tensorboard --logdir` |
//!
//! A training that resumes at step `n` calls [`Monitor::resume`], which removes everything that was written
//! from step `n` on. So the text files of an interrupted run are the same as those of an uninterrupted one.

mod events;
mod graph;
mod number;
mod series;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};

use crate::{Error, Result, Summary};
use events::{Events, Histogram};
use series::Lines;

/// Logs a training to files in one folder; see the [module](self).
///
/// Each value is written to the file at once, so a program that is killed loses none.
#[derive(Debug)]
pub struct Monitor {
    folder: PathBuf,
    series: HashMap<String, Lines>,
    csv: Lines,
    events: Events,
    /// The step at which the run resumes: later records of an earlier run are removed.
    resumed_at: Option<u64>,
}

const CSV_HEADER: &str = "step,name,value";

impl Monitor {
    /// Starts new records in `folder`, which is created if necessary. Records of an earlier run in it are
    /// replaced.
    ///
    /// # Errors
    /// [`Error::Io`] if that fails.
    pub fn create(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open(folder.as_ref(), None)
    }

    /// Continues the records in `folder`, after removing those from `step` on.
    ///
    /// # Errors
    /// [`Error::Io`] if that fails.
    pub fn resume(folder: impl AsRef<Path>, step: u64) -> Result<Self> {
        Self::open(folder.as_ref(), Some(step))
    }

    fn open(folder: &Path, resumed_at: Option<u64>) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))?;
        if resumed_at.is_none() {
            remove_series(folder)?;
        }
        let csv = Lines::open(folder.join("scalars.csv"), Some(CSV_HEADER), resumed_at)?;
        let events = Events::open(folder.join("events.out.tfevents.layerfn"), resumed_at)?;
        Ok(Self { folder: folder.to_owned(), series: HashMap::new(), csv, events, resumed_at })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Logs a number.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `name` is empty or can't be part of a file's name, [`Error::Io`].
    pub fn scalar(&mut self, name: &str, step: u64, value: f64) -> Result<()> {
        let file = file_name(name)?;
        if !self.series.contains_key(name) {
            let lines = Lines::open(self.folder.join(file + ".series.txt"), None, self.resumed_at)?;
            self.series.insert(name.to_owned(), lines);
        }
        if let Some(lines) = self.series.get_mut(name) {
            lines.write(&format!("{step} {}", number::general(value)))?;
        }
        self.csv.write(&format!("{step},{},{value}", quoted(name)))?;
        self.events.scalar(name, step, value)
    }

    /// Logs the distribution of the elements of a tensor, for TensorBoard.
    ///
    /// # Errors
    /// [`Error::Io`], or that of reading the tensor.
    pub fn histogram(&mut self, name: &str, step: u64, values: &Tensor) -> Result<()> {
        let values = values.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        self.events.histogram(name, step, Histogram::of(&values))
    }

    /// Logs a text for TensorBoard, such as the summary of a network or the options of a run.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn text(&mut self, name: &str, step: u64, text: &str) -> Result<()> {
        self.events.text(name, step, text)
    }

    /// Logs a network for TensorBoard's graph, which groups its stages by scope. A later one replaces it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn network(&mut self, network: &Summary) -> Result<()> {
        self.events.graph(graph::of(&network.drawn()))
    }

    /// Logs images for TensorBoard; they are scaled so that the least element is black and the largest white.
    ///
    /// # Shapes
    /// - `images`: (batch, channels, height, width) or (channels, height, width), with 1 or 3 channels
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another shape or if an element is not finite, [`Error::Io`].
    #[cfg(feature = "images")]
    pub fn images(&mut self, name: &str, step: u64, images: &Tensor) -> Result<()> {
        let images = if images.rank() == 3 { images.unsqueeze(0)? } else { images.clone() };
        let ([batch, channels, height, width], pixels) = pixels(&images)?;
        let size = channels * height * width;
        for n in 0..batch {
            let name = if batch > 1 { format!("{name}/{n}") } else { name.to_owned() };
            let png = png(&pixels[n * size..][..size], channels, height, width)?;
            self.events.image(&name, step, [height, width, channels], png)?;
        }
        Ok(())
    }
}

/// Sizes, and the pixels in gray levels, the channels of each beside each other.
#[cfg(feature = "images")]
fn pixels(images: &Tensor) -> Result<([usize; 4], Vec<u8>)> {
    let sizes = match *images.dims() {
        [batch, channels @ (1 | 3), height, width] if height > 0 && width > 0 => {
            [batch, channels, height, width]
        }
        _ => {
            let reason = "must be (batch, channels, height, width) with 1 or 3 channels";
            return Err(Error::invalid("images", reason, images.dims()));
        }
    };
    let pixels = images.permute((0, 2, 3, 1))?.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    Ok((sizes, gray_levels(&pixels)?))
}

/// From the least (0) to the largest (255).
#[cfg(feature = "images")]
fn gray_levels(pixels: &[f32]) -> Result<Vec<u8>> {
    if let Some(pixel) = pixels.iter().find(|pixel| !pixel.is_finite()) {
        return Err(Error::invalid("images", "must have finite elements", pixel));
    }
    let (least, most) =
        pixels.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
    let scale = if most > least { 255.0 / (most - least) } else { 0.0 };
    Ok(pixels.iter().map(|x| ((x - least) * scale).round() as u8).collect())
}

/// One image of shape (channels, height, width), as a file.
#[cfg(feature = "report")]
pub(crate) fn png_of(image: &Tensor) -> Result<Vec<u8>> {
    let ([_, channels, height, width], pixels) = pixels(&image.unsqueeze(0)?)?;
    png(&pixels, channels, height, width)
}

#[cfg(feature = "images")]
fn png(pixels: &[u8], channels: usize, height: usize, width: usize) -> Result<Vec<u8>> {
    use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
    let color = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut png = Vec::new();
    let written = PngEncoder::new(&mut png).write_image(pixels, width as u32, height as u32, color);
    written
        .map_err(|error| Error::invalid("images", format!("can't be written ({error})"), (height, width)))?;
    Ok(png)
}

/// The series of an earlier run would look like those of this one.
fn remove_series(folder: &Path) -> Result<()> {
    let read = || -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(".series.txt") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    };
    read().map_err(|source| Error::io("clear", folder, source))
}

/// As NNabla makes it of a name, spaces replaced; slashes, too.
fn file_name(name: &str) -> Result<String> {
    if name.is_empty() || name.starts_with('.') || name.contains(['\0', '\n', '\r']) || name.len() > 200 {
        let reason = "must have 1 to 200 bytes, no line break and no dot in front";
        return Err(Error::invalid("name", reason, name));
    }
    Ok(name.replace([' ', '/', '\\', ':'], "-"))
}

fn quoted(name: &str) -> String {
    if name.contains([',', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
}
