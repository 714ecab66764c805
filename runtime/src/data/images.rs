//! Folders of images.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader, Limits};

use super::Dataset;
use crate::{Error, Result};

/// Images in folders, one folder for each class, read on demand.
///
/// In `root/cat/1.png`, `root/cat/2.jpg`, `root/dog/1.png`, the classes are the folders, sorted by name. An
/// example consists of the image, of shape (channels, height, width) and type `u8`, and its class, a `u32`.
///
/// # Example
/// ```no_run
/// use layerfn::data::{Augment, Dataset, ImageFolder, Loader};
///
/// let pets = ImageFolder::open("pets")?.size(64, 64);
/// println!("{} images of {:?}", pets.len(), pets.classes());
/// let loader = Loader::new(pets, 32).shuffle(1).augment(0, Augment::new().flip_horizontal()).workers(2);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageFolder {
    classes: Vec<String>,
    files: Vec<(PathBuf, u32)>,
    size: Option<(u32, u32)>,
    gray: bool,
}

/// Extensions of images.
const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "bmp"];
/// Larger images are rejected, since a small file can claim any size.
const MAX_SIDE: u32 = 1 << 14;

impl ImageFolder {
    /// Lists the images below `root`. Files with extensions other than .png, .jpg, .jpeg and .bmp are ignored.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder can't be read, [`Error::Checkpoint`] if there are no images.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let (mut classes, mut files) = (Vec::new(), Vec::new());
        for folder in sorted(root)?.into_iter().filter(|path| path.is_dir()) {
            let class = classes.len() as u32;
            classes.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
            let images = sorted(&folder)?.into_iter().filter(|path| {
                let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
                extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
            });
            files.extend(images.map(|path| (path, class)));
        }
        if files.is_empty() {
            let reason = "has no images in subfolders, such as `cat/1.png`".to_owned();
            return Err(Error::Checkpoint { file: root.display().to_string(), reason });
        }
        Ok(Self { classes, files, size: None, gray: false })
    }

    /// Scales each image to this size; without it, all must have the same size.
    #[must_use]
    pub fn size(mut self, height: u32, width: u32) -> Self {
        self.size = Some((height, width));
        self
    }

    /// Reads images as one gray channel instead of red, green and blue.
    #[must_use]
    pub fn gray(mut self) -> Self {
        self.gray = true;
        self
    }

    /// The names of the classes.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The file of an example.
    ///
    /// # Panics
    /// If there is no such example.
    #[must_use]
    pub fn file(&self, index: usize) -> &Path {
        &self.files[index].0
    }

    fn read(&self, path: &Path) -> Result<DynamicImage> {
        let file = path.display().to_string();
        let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
        let mut reader = reader.map_err(|source| Error::io("read", path, source))?;
        let mut limits = Limits::default();
        (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
        reader.limits(limits);
        reader.decode().map_err(|error| Error::Checkpoint { file, reason: error.to_string() })
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn example(&self, index: usize) -> Result<Vec<Tensor>> {
        let (path, class) = &self.files[index];
        let mut image = self.read(path)?;
        if let Some((height, width)) = self.size {
            image = image.resize_exact(width, height, FilterType::Triangle);
        }
        let (height, width) = (image.height() as usize, image.width() as usize);
        let (pixels, channels) =
            if self.gray { (image.into_luma8().into_raw(), 1) } else { (image.into_rgb8().into_raw(), 3) };
        let pixels = Tensor::from_vec(pixels, (height, width, channels), &Device::Cpu)?;
        Ok(vec![pixels.permute((2, 0, 1))?.contiguous()?, Tensor::new(*class, &Device::Cpu)?])
    }
}

/// The content of a folder, sorted by name, since the system lists it in any order.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut paths =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    read().map_err(|source| Error::io("read", folder, source))
}
