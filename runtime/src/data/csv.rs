//! Tables of comma-separated values.

use std::path::Path;

use candle_core::{Device, Tensor};
use csv::{ReaderBuilder, StringRecord, Trim};

use crate::{Error, Result, nearest};

/// A table with named columns.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("iris.csv");
/// # std::fs::write(&path, "length,width,kind\n5.1,3.5,setosa\n6.2,2.9,versicolor\n5.0,3.4,setosa\n").unwrap();
/// use layerfn::data::{Arrays, read_csv};
///
/// let table = read_csv(&path)?;
/// let (kinds, names) = table.classes("kind")?;
/// let data = Arrays::new([table.numbers(&["length", "width"])?, kinds])?;
/// assert_eq!(data.fields()[0].dims(), [3, 2]);
/// assert_eq!(data.fields()[1].to_vec1::<u32>()?, [0, 1, 0]);
/// assert_eq!(names, ["setosa", "versicolor"]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    file: String,
    names: Vec<String>,
    rows: Vec<StringRecord>,
}

/// Reads a CSV file whose first line names the columns.
///
/// # Errors
/// [`Error::Io`] if the file can't be read, [`Error::Checkpoint`] if it is not a valid table.
pub fn read_csv(path: impl AsRef<Path>) -> Result<Table> {
    let path = path.as_ref();
    let file = path.display().to_string();
    let read = || -> Result<(StringRecord, Vec<StringRecord>), csv::Error> {
        let mut reader = ReaderBuilder::new().trim(Trim::All).from_path(path)?;
        Ok((reader.headers()?.clone(), reader.records().collect::<Result<_, _>>()?))
    };
    let (names, rows) = read().map_err(|error| {
        let reason = error.to_string();
        match error.into_kind() {
            csv::ErrorKind::Io(source) => Error::Io { action: "read", file: file.clone(), source },
            _ => Error::Checkpoint { file: file.clone(), reason },
        }
    })?;
    let names: Vec<String> =
        names.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    if let Some(n) = (1..names.len()).find(|&n| names[..n].contains(&names[n])) {
        let reason = format!("has two columns `{}`", names[n]);
        return Err(Error::Checkpoint { file, reason });
    }
    Ok(Table { file, names, rows })
}

impl Table {
    /// The names of the columns.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The numbers of some columns, of shape (rows, columns) and type `f32`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such column or a cell is not a number; it names the line.
    pub fn numbers(&self, columns: &[&str]) -> Result<Tensor> {
        let places = columns.iter().map(|name| self.place(name)).collect::<Result<Vec<_>>>()?;
        let mut numbers = Vec::with_capacity(self.rows.len() * places.len());
        for row in &self.rows {
            for &place in &places {
                let cell = &row[place];
                numbers.push(cell.parse::<f32>().map_err(|_| {
                    self.damaged(format!(
                        "line {}: `{cell}` in the column `{}` is not a number",
                        row.position().map_or(0, csv::Position::line),
                        self.names[place]
                    ))
                })?);
            }
        }
        Ok(Tensor::from_vec(numbers, (self.rows.len(), places.len()), &Device::Cpu)?)
    }

    /// The numbers of the columns `name__0`, `name__1`, .., which is how Neural Network Console writes vectors;
    /// in its files, anything after a colon in a column's name is a comment.
    ///
    /// # Errors
    /// As [`numbers`](Self::numbers).
    pub fn vector(&self, name: &str) -> Result<Tensor> {
        let prefix = format!("{name}__");
        let of_vector = |column: &&String| {
            let number = column.strip_prefix(&prefix).map(|rest| rest.split(':').next().unwrap_or(rest));
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        };
        let columns: Vec<&str> = self.names.iter().filter(of_vector).map(String::as_str).collect();
        if columns.is_empty() {
            return Err(self.damaged(format!("has no column `{prefix}0`")));
        }
        self.numbers(&columns)
    }

    /// The column `name` as classes: for each row the number of its class, of type `u32`, and the names of the
    /// classes in the order of their first occurrence.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such column.
    pub fn classes(&self, name: &str) -> Result<(Tensor, Vec<String>)> {
        let place = self.place(name)?;
        let mut texts = indexmap::IndexSet::new();
        let numbers: Vec<u32> =
            self.rows.iter().map(|row| texts.insert_full(row[place].to_owned()).0 as u32).collect();
        let numbers = Tensor::from_vec(numbers, self.rows.len(), &Device::Cpu)?;
        Ok((numbers, texts.into_iter().collect()))
    }

    fn place(&self, name: &str) -> Result<usize> {
        self.names.iter().position(|column| column == name).ok_or_else(|| {
            let hint = nearest::nearest(name, self.names.iter().map(String::as_str));
            let hint = hint.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            self.damaged(format!("has no column `{name}`{hint}"))
        })
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Checkpoint { file: self.file.clone(), reason }
    }
}
