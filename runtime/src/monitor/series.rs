//! Files of lines, each of which begins with a step.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// A new file, or with `resumed_at` the lines before that step of the one that is there.
    pub(super) fn open(path: PathBuf, header: Option<&str>, resumed_at: Option<u64>) -> Result<Self> {
        let kept = match resumed_at {
            Some(step) => match fs::read_to_string(&path) {
                Ok(text) => kept(&text, header, step),
                Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
                Err(source) => return Err(Error::io("read", &path, source)),
            },
            None => String::new(),
        };
        let start = match header {
            Some(header) => format!("{header}\n{kept}"),
            None => kept,
        };
        fs::write(&path, start).map_err(|source| Error::io("write", &path, source))?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(|source| Error::io("write", &path, source))?;
        Ok(Self { path, file })
    }

    /// One call of the system: a line is there or not.
    pub(super) fn write(&mut self, line: &str) -> Result<()> {
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        written.map_err(|source| Error::io("write", &self.path, source))
    }
}

/// The whole lines whose step is before `step`.
fn kept(text: &str, header: Option<&str>, step: u64) -> String {
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole
        .filter(|line| Some(line.trim_end()) != header)
        .filter(|line| {
            let number = line.split([' ', ',']).next().and_then(|number| number.trim().parse::<u64>().ok());
            number.is_some_and(|number| number < step)
        })
        .collect()
}
