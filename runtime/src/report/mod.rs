//! A report of a training as a single HTML page without external resources.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("report.html");
//! use layerfn::metrics::Confusion;
//! use layerfn::prelude::*;
//! use layerfn::report::Report;
//!
//! let net = network! { < affine(16) -> relu -> out: affine(2) > };
//! let mut report = Report::new("Two classes");
//! report.facts("Result", [("test accuracy", "98.2 %"), ("epochs", "10")]);
//! report.chart("Loss", "step", [("training", vec![(0.0, 0.7), (100.0, 0.1)])])?;
//! report.confusion("Test set", &Confusion::new(2), &["cat", "dog"]);
//! report.network("Network", &net.summary([(1, 4)])?);
//! report.save(&path)?;
//! # assert!(std::fs::read_to_string(path)?.contains("Two classes"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chart;

use std::fmt::{Display, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use candle_core::Tensor;

use crate::metrics::Confusion;
use crate::{Error, Result, Summary, monitor};

/// Sections of a page, in the order in which they are added; see the [module](self).
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    sections: String,
}

const STYLE: &str = include_str!("style.css");

impl Report {
    /// Makes an empty page with a title.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), sections: String::new() }
    }

    /// Adds a table of names and values.
    pub fn facts<N: Display, V: Display>(&mut self, title: &str, facts: impl IntoIterator<Item = (N, V)>) {
        let mut rows = String::new();
        for (name, value) in facts {
            let (name, value) = (escaped(&name.to_string()), escaped(&value.to_string()));
            let _ = write!(rows, "<tr><th>{name}</th><td>{value}</td></tr>");
        }
        self.section(title, &format!("<table class=\"facts\">{rows}</table>"));
    }

    /// Adds a text, whose line breaks are kept.
    pub fn text(&mut self, title: &str, text: &str) {
        self.section(title, &format!("<pre>{}</pre>", escaped(text)));
    }

    /// Adds a chart with a line for each series of points. Points that are not finite are skipped.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it can't be drawn.
    pub fn chart<S: AsRef<str>>(
        &mut self,
        title: &str,
        over: &str,
        series: impl IntoIterator<Item = (S, Vec<(f64, f64)>)>,
    ) -> Result<()> {
        let series: Vec<_> =
            series.into_iter().map(|(name, points)| (name.as_ref().to_owned(), points)).collect();
        let svg = chart::svg(over, &series)?;
        self.section(title, &format!("<figure>{svg}</figure>"));
        Ok(())
    }

    /// Adds a confusion matrix; classes beyond `names` are shown as numbers.
    pub fn confusion(&mut self, title: &str, confusion: &Confusion, names: &[&str]) {
        let name = |class: usize| names.get(class).map_or_else(|| class.to_string(), |name| escaped(name));
        let n = confusion.n_classes();
        let mut rows = String::from("<tr><th></th>");
        for answer in 0..n {
            let _ = write!(rows, "<th>{}</th>", name(answer));
        }
        rows.push_str("<th>recall</th><th>precision</th></tr>");
        for label in 0..n {
            let all: u64 = (0..n).map(|answer| confusion.count(label, answer)).sum();
            let _ = write!(rows, "<tr><th>{}</th>", name(label));
            for answer in 0..n {
                let count = confusion.count(label, answer);
                // Even a few mistakes must be visible.
                let strength = (count as f64 / all.max(1) as f64).sqrt();
                let kind = if label == answer { "right" } else { "wrong" };
                let _ = write!(rows, "<td class=\"{kind}\" style=\"--s:{strength:.2}\">{count}</td>");
            }
            let (recall, precision) = (percent(confusion.recall(label)), percent(confusion.precision(label)));
            let _ = write!(rows, "<td>{recall}</td><td>{precision}</td></tr>");
        }
        let note = "Rows: the label. Columns: the answer.";
        self.section(
            title,
            &format!("<p>{note}</p><div class=\"wide\"><table class=\"confusion\">{rows}</table></div>"),
        );
    }

    /// Adds the drawing of a network and its table.
    pub fn network(&mut self, title: &str, summary: &Summary) {
        let drawing = format!("<div class=\"wide drawing\">{}</div>", summary.to_svg());
        let table = escaped(&summary.to_string());
        self.section(
            title,
            &format!("{drawing}<details><summary>Table</summary><pre>{table}</pre></details>"),
        );
    }

    /// Adds images with a caption each, such as the worst mistakes. Each is scaled so that its least element is black and its
    /// largest white.
    ///
    /// # Shapes
    /// - each image: (channels, height, width), with 1 or 3 channels
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another shape, or if an element is not finite.
    pub fn images<C: Display>(
        &mut self,
        title: &str,
        images: impl IntoIterator<Item = (Tensor, C)>,
    ) -> Result<()> {
        let mut figures = String::new();
        for (image, caption) in images {
            let data = STANDARD.encode(monitor::png_of(&image)?);
            let caption = escaped(&caption.to_string());
            let _ = write!(
                figures,
                "<figure><img alt=\"{caption}\" src=\"data:image/png;base64,{data}\"><figcaption>{caption}</figcaption></figure>"
            );
        }
        self.section(title, &format!("<div class=\"images\">{figures}</div>"));
        Ok(())
    }

    /// The page.
    #[must_use]
    pub fn to_html(&self) -> String {
        let title = escaped(&self.title);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head>\n\
             <body><h1>{title}</h1>\n{}</body></html>\n",
            self.sections
        )
    }

    /// Writes the page to a file.
    ///
    /// # Errors
    /// [`Error::Io`] if that fails.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, self.to_html()).map_err(|source| Error::io("write", path, source))
    }

    fn section(&mut self, title: &str, content: &str) {
        let _ = writeln!(self.sections, "<section><h2>{}</h2>{content}</section>", escaped(title));
    }
}

fn percent(share: f64) -> String {
    if share.is_nan() { "–".to_owned() } else { format!("{:.1} %", 100.0 * share) }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn texts_cannot_become_markup() {
        let mut report = Report::new("<script>alert(1)</script>");
        report.facts("a & b", [("<b>", "\"x\"")]);
        report.text("t", "1 < 2\n3");
        report.confusion("c", &Confusion::new(2), &["<i>"]);
        report.chart("chart", "<step>", [("<line>", vec![(0.0, 1.0), (1.0, f64::NAN)])]).unwrap();
        let image = Tensor::zeros((1, 2, 2), DType::F32, &Device::Cpu).unwrap();
        report.images("i", [(image, "<u>")]).unwrap();
        let html = report.to_html();
        for tag in ["<script", "<b>", "<i>", "<step>", "<line>", "<u>"] {
            assert!(!html.contains(tag), "{tag}");
        }
        assert!(html.contains("a &amp; b") && html.contains("1 &lt; 2\n3"));
        assert!(!html.contains("http://www.w3.org/1999/xlink") && !html.contains("src=\"http"));
    }
}
