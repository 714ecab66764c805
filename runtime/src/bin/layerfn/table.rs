//! Text for terminals.

use std::borrow::Cow;
use std::io::{self, Write};
use std::iter;

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

/// What stands over a column.
pub(crate) const HEAD: Style = Style::new().bold().underline();

/// Columns that line up; comfy-table would need its terminal library to know how wide a coloured cell is. `style` is that of a cell, by row and column; whether colours are shown is decided where the
/// output is printed.
pub(crate) fn table(
    rows: &[Vec<String>],
    style: impl Fn(usize, usize) -> Style,
    output: &mut Vec<u8>,
) -> io::Result<()> {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (index, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let style = style(index, column);
            write!(output, "{style}{cell}{style:#}")?;
            if column + 1 < row.len() {
                // A width in a format has 16 bits only.
                output.extend(iter::repeat_n(b' ', widths[column] - cell.width() + 2));
            }
        }
        writeln!(output)?;
    }
    Ok(())
}

/// A path in one line of a terminal: the middle of what is long is left out.
pub(crate) fn brief(path: &str) -> String {
    const LONG: usize = 100;
    let count = path.chars().count();
    if count <= LONG {
        return path.to_owned();
    }
    let (head, tail) = (path.chars().take(LONG / 2), path.chars().skip(count - LONG / 2 + 1));
    head.chain(['…']).chain(tail).collect()
}

/// Names come from files that nobody vouches for: what would steer a terminal is shown as an escape.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    Cow::Owned(plain)
}
