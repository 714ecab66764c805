//! Pictures of a training, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use candle_core::Tensor;
use layerfn::data::{Arrays, Dataset};

use crate::digits::{SIDE, labels, pixels};

const INK: RGBColor = RGBColor(38, 43, 54);
const FAINT: RGBColor = RGBColor(110, 117, 130);
const GRID: RGBColor = RGBColor(226, 229, 235);
const BLUE: RGBColor = RGBColor(37, 99, 190);
const GREEN: RGBColor = RGBColor(22, 128, 84);
const RED: RGBColor = RGBColor(196, 44, 44);

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// How a training went.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Loss of each step.
    pub losses: Vec<f32>,
    /// At the end of each epoch: mean loss of its steps, and accuracy on the test digits, in percent.
    pub epochs: Vec<(f64, f64)>,
}

/// Draws the training loss and the test accuracy over the epochs.
///
/// # Errors
/// If the file cannot be written.
pub fn learning_curve(file: &Path, history: &History) -> Result<()> {
    let canvas = SVGBackend::new(file, (1080, 440)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let (left, right) = canvas.split_horizontally(540);
    draw_loss(&left, history)?;
    draw_accuracy(&right, history)?;
    canvas.present()?;
    Ok(())
}

/// Draws the training loss alone.
///
/// # Errors
/// If the file cannot be written.
pub fn loss_curve(file: &Path, history: &History) -> Result<()> {
    let canvas = SVGBackend::new(file, (540, 440)).into_drawing_area();
    canvas.fill(&WHITE)?;
    draw_loss(&canvas, history)?;
    canvas.present()?;
    Ok(())
}

fn draw_loss(canvas: &Canvas<'_>, history: &History) -> Result<()> {
    let n_epochs = history.epochs.len();
    let per_epoch = history.losses.len() as f64 / n_epochs as f64;
    let means: Vec<(f64, f64)> =
        history.epochs.iter().zip(1..).map(|(&(loss, _), n)| (f64::from(n), loss)).collect();
    // A step is noisy: a tenth of an epoch shows the course.
    let chunk = (per_epoch / 10.0).ceil().max(1.0) as usize;
    let steps: Vec<(f64, f64)> = history
        .losses
        .chunks(chunk)
        .enumerate()
        .map(|(i, losses)| {
            let middle = i as f64 * chunk as f64 + losses.len() as f64 / 2.0;
            (
                middle / per_epoch,
                losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64,
            )
        })
        .collect();
    let losses = steps.iter().chain(&means).map(|&(_, loss)| loss).filter(|loss| loss.is_finite());
    // Room for the legend above a loss that hardly falls.
    let highest = losses.fold(0.1, f64::max) * 1.3;
    let mut chart = panel(canvas, "Training loss").build_cartesian_2d(0.0..n_epochs as f64, 0.0..highest)?;
    mesh(&mut chart, n_epochs, "mean cross-entropy")?;
    chart
        .draw_series(LineSeries::new(steps, BLUE.mix(0.45).stroke_width(2)))?
        .label("mean of a tenth of an epoch")
        .legend(|(x, y)| legend_line(x, y, BLUE.mix(0.45).stroke_width(2)));
    chart
        .draw_series(LineSeries::new(means, BLUE.filled().stroke_width(2)).point_size(4))?
        .label("mean of the epoch")
        .legend(|(x, y)| legend_line(x, y, BLUE.stroke_width(3)));
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

fn draw_accuracy(canvas: &Canvas<'_>, history: &History) -> Result<()> {
    let n_epochs = history.epochs.len();
    let points: Vec<(f64, f64)> =
        history.epochs.iter().zip(1..).map(|(&(_, accuracy), n)| (f64::from(n), accuracy)).collect();
    let last = points.last().copied().unwrap_or_default();
    let worst = points.iter().fold(100.0, |least: f64, &(_, accuracy)| least.min(accuracy));
    // Room for the legend below the worst.
    let lowest = (worst - 0.25 * (100.0 - worst)).floor().max(0.0);
    let mut chart = panel(canvas, "Test accuracy").build_cartesian_2d(0.0..n_epochs as f64, lowest..100.0)?;
    mesh(&mut chart, n_epochs, "right answers, %")?;
    chart.draw_series(DashedLineSeries::new([(0.0, last.1), last], 4, 4, GREEN.mix(0.6).stroke_width(1)))?;
    chart
        .draw_series(LineSeries::new(points, GREEN.filled().stroke_width(2)).point_size(4))?
        .label(format!("after each epoch; in the end {:.2} %", last.1))
        .legend(|(x, y)| legend_line(x, y, GREEN.stroke_width(3)));
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

fn panel<'a, 'b>(canvas: &'a Canvas<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(canvas);
    builder
        .caption(title, ("sans-serif", 24).into_font().color(&INK))
        .margin(16)
        .margin_right(24)
        .x_label_area_size(48)
        .y_label_area_size(68);
    builder
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

type Mesh<'a, 'b, 'c> = MeshStyle<'a, 'b, RangedCoordf64, RangedCoordf64, SVGBackend<'c>>;

fn style<'a, 'b, 'c>(chart: &'b mut Chart<'a, 'c>) -> Mesh<'a, 'b, 'c> {
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .label_style(("sans-serif", 16).into_font().color(&FAINT))
        .axis_desc_style(("sans-serif", 17).into_font().color(&INK));
    mesh
}

fn mesh(chart: &mut Chart<'_, '_>, n_epochs: usize, description: &str) -> Result<()> {
    style(chart)
        .x_labels(n_epochs.min(10) + 1)
        .x_label_formatter(&|epoch| format!("{epoch}"))
        .x_desc("epoch")
        .y_desc(description)
        .draw()?;
    Ok(())
}

fn legend_line(x: i32, y: i32, style: ShapeStyle) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y), (x + 18, y)], style)
}

fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, position: SeriesLabelPosition) -> Result<()> {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.9))
        .border_style(GRID)
        .label_font(("sans-serif", 16).into_font().color(&INK))
        .draw()?;
    Ok(())
}

/// A name, and points: size, milliseconds.
pub type Line = (&'static str, Vec<(f64, f64)>);

/// Times over a size.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// What was timed.
    pub title: &'static str,
    /// What the size is.
    pub over: &'static str,
    /// What is drawn.
    pub lines: [Line; 2],
}

/// Draws times over sizes, and beside each line the straight one through its last point and the origin.
///
/// # Errors
/// If the file cannot be written.
pub fn sweeps(file: &Path, sweeps: &[Sweep]) -> Result<()> {
    let canvas = SVGBackend::new(file, (1080, 440)).into_drawing_area();
    canvas.fill(&WHITE)?;
    for (canvas, sweep) in canvas.split_evenly((1, sweeps.len())).iter().zip(sweeps) {
        let points = || sweep.lines.iter().flat_map(|(_, points)| points);
        let widest = points().fold(1.0, |widest: f64, point| widest.max(point.0));
        let highest = points().fold(0.0, |highest: f64, point| highest.max(point.1)) * 1.2;
        let mut chart = panel(canvas, sweep.title).build_cartesian_2d(0.0..widest, 0.0..highest)?;
        style(&mut chart)
            .x_label_formatter(&|size| format!("{size}"))
            .x_desc(sweep.over)
            .y_label_formatter(&|time| format!("{}", (time * 1e3).round() / 1e3))
            .y_desc("milliseconds a step")
            .draw()?;
        for ((name, points), color) in sweep.lines.iter().zip([BLUE, GREEN]) {
            if let Some(&last) = points.last() {
                chart.draw_series(LineSeries::new([(0.0, 0.0), last], GRID.stroke_width(2)))?;
            }
            let line = LineSeries::new(points.iter().copied(), color.filled().stroke_width(2)).point_size(4);
            chart
                .draw_series(line)?
                .label(*name)
                .legend(move |(x, y)| legend_line(x, y, color.stroke_width(3)));
        }
        legend(&mut chart, SeriesLabelPosition::UpperLeft)?;
    }
    canvas.present()?;
    Ok(())
}

/// A test digit that the network read wrongly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mistake {
    /// Which digit.
    pub index: usize,
    /// What the network read.
    pub read_as: u8,
    /// How sure it was, 0 to 1.
    pub probability: f32,
}

/// Most digits on one picture.
const MOST_SHOWN: usize = 40;
const COLUMNS: usize = 8;
/// Sides of a pixel, and of the place of a digit, on the canvas.
const PIXEL: i32 = 4;
const TILE: i32 = SIDE as i32 * PIXEL;
const CELL: (i32, i32) = (TILE + 24, TILE + 64);
const MARGIN: i32 = 24;
const HEADER: i32 = 84;

/// Draws the digits read wrongly, the surest mistakes first, with what they are and what they were read as.
///
/// # Errors
/// If the file cannot be written.
pub fn mistakes(file: &Path, digits: &Arrays, mistakes: &[Mistake]) -> Result<()> {
    let mut sorted = mistakes.to_vec();
    sorted.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.index.cmp(&b.index)));
    let shown = &sorted[..sorted.len().min(MOST_SHOWN)];
    let labels = labels(digits)?;

    let rows = shown.len().div_ceil(COLUMNS) as i32;
    let size = (2 * MARGIN + COLUMNS as i32 * CELL.0, HEADER + rows * CELL.1 + MARGIN);
    let canvas = SVGBackend::new(file, (size.0 as u32, size.1 as u32)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let title = format!("{} of {} test digits were read wrongly", mistakes.len(), digits.len());
    let mut note = "The label of each, what the network read, and how sure it was; surest first".to_owned();
    if shown.len() < mistakes.len() {
        note.push_str(&format!(", {} shown", shown.len()));
    }
    canvas.draw(&text(title, size.0 / 2, 32, 26, INK, HPos::Center))?;
    canvas.draw(&text(note, size.0 / 2, 62, 17, FAINT, HPos::Center))?;

    for (place, mistake) in (0..).zip(shown) {
        let (column, row) = (place % COLUMNS as i32, place / COLUMNS as i32);
        let left = MARGIN + column * CELL.0 + (CELL.0 - TILE) / 2;
        let top = HEADER + row * CELL.1 + 8;
        draw_digit(&canvas, &pixels(digits, mistake.index)?, left, top)?;
        let (right, below) = (left + TILE, top + TILE + 16);
        canvas.draw(&text(format!("is {}", labels[mistake.index]), left, below, 19, GREEN, HPos::Left))?;
        canvas.draw(&text(format!("read {}", mistake.read_as), right, below, 19, RED, HPos::Right))?;
        let sure = format!("{:.0} % sure", 100.0 * mistake.probability);
        canvas.draw(&text(sure, left + TILE / 2, below + 19, 15, FAINT, HPos::Center))?;
    }
    canvas.present()?;
    Ok(())
}

/// Draws images of shape (n, 1, 28, 28), ink 1 and paper 0, in rows of so many.
///
/// # Errors
/// If the images have another shape, or the file cannot be written.
pub fn digits(file: &Path, title: &str, images: &Tensor, columns: usize) -> Result<()> {
    const GAP: i32 = 8;
    let images = images.reshape(((), SIDE * SIDE))?.to_vec2::<f32>()?;
    let columns = columns.max(1);
    let rows = images.len().div_ceil(columns) as i32;
    let size = (2 * MARGIN + columns as i32 * (TILE + GAP), HEADER + rows * (TILE + GAP) + MARGIN);
    let canvas = SVGBackend::new(file, (size.0 as u32, size.1 as u32)).into_drawing_area();
    canvas.fill(&WHITE)?;
    canvas.draw(&text(title.to_owned(), size.0 / 2, HEADER / 2, 26, INK, HPos::Center))?;
    for (place, image) in (0..).zip(&images) {
        let pixels: Vec<u8> = image.iter().map(|ink| (255.0 * ink.clamp(0.0, 1.0)).round() as u8).collect();
        let (column, row) = (place % columns as i32, place / columns as i32);
        draw_digit(&canvas, &pixels, MARGIN + column * (TILE + GAP), HEADER + row * (TILE + GAP))?;
    }
    canvas.present()?;
    Ok(())
}

fn text(
    text: String,
    x: i32,
    y: i32,
    size: i32,
    color: RGBColor,
    anchor: HPos,
) -> Text<'static, (i32, i32), String> {
    let style = ("sans-serif", size).into_font().color(&color).pos(Pos::new(anchor, VPos::Center));
    Text::new(text, (x, y), style)
}

/// Draws an image, dark ink on light paper. Neighbours of one shade in a row are one rectangle: a picture of forty
/// digits stays small.
fn draw_digit(canvas: &Canvas<'_>, image: &[u8], left: i32, top: i32) -> Result<()> {
    let frame = [(left - 2, top - 2), (left + TILE + 2, top + TILE + 2)];
    canvas.draw(&Rectangle::new(frame, RGBColor(248, 248, 245).filled()))?;
    canvas.draw(&Rectangle::new(frame, GRID.stroke_width(1)))?;
    for (y, row) in (0..).zip(image.chunks(SIDE)) {
        let mut x = 0;
        for run in row.chunk_by(|a, b| shade(*a) == shade(*b)) {
            let width = run.len() as i32;
            if shade(run[0]) > 0 {
                let corner = (left + x * PIXEL, top + y * PIXEL);
                let opposite = (corner.0 + width * PIXEL, corner.1 + PIXEL);
                let ink = INK.mix(f64::from(shade(run[0])) / 15.0);
                canvas.draw(&Rectangle::new([corner, opposite], ink.filled()))?;
            }
            x += width;
        }
    }
    Ok(())
}

/// A pixel in 16 shades.
fn shade(pixel: u8) -> u8 {
    pixel / 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digits::Mnist;

    fn draw(draw: impl FnOnce(&Path) -> Result<()>) -> String {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("picture.svg");
        draw(&file).unwrap();
        std::fs::read_to_string(&file).unwrap()
    }

    #[test]
    fn the_learning_curve_names_its_axes_and_lines() {
        let losses: Vec<f32> = (0..1250u16).map(|i| 2.3 * (-f32::from(i) / 200.0).exp() + 0.06).collect();
        let epochs = losses.chunks(125).map(|chunk| f64::from(chunk.iter().sum::<f32>()) / 125.0);
        let accuracies = [94.5, 96.55, 97.1, 97.0, 97.9, 98.1, 98.3, 98.55, 98.65, 98.7];
        let history = History { epochs: epochs.zip(accuracies).collect(), losses };
        let svg = draw(|file| learning_curve(file, &history));
        for text in ["Training loss", "Test accuracy", "epoch", "mean cross-entropy", "in the end 98.70 %"] {
            assert!(svg.contains(text), "no `{text}`");
        }
    }

    #[test]
    fn one_epoch_or_a_diverged_loss_still_give_a_picture() {
        let one = History { losses: vec![2.3, 2.0], epochs: vec![(2.15, 31.0)] };
        assert!(draw(|file| learning_curve(file, &one)).contains("31.00 %"));
        let diverged = History { losses: vec![f32::NAN; 20], epochs: vec![(f64::NAN, 9.8); 2] };
        assert!(draw(|file| learning_curve(file, &diverged)).contains("9.80 %"));
    }

    #[test]
    fn a_sweep_names_its_axes_and_lines() {
        let sweep = Sweep {
            title: "LeNet",
            over: "batch size",
            lines: [("training", vec![(1.0, 2.0), (4.0, 8.0)]), ("inference", Vec::new())],
        };
        let svg = draw(|file| sweeps(file, &[sweep.clone(), sweep]));
        for text in ["LeNet", "batch size", "milliseconds a step", "training", "inference"] {
            assert_eq!(svg.matches(text).count(), 2, "{text}");
        }
    }

    #[test]
    fn the_surest_mistakes_are_shown_with_label_and_reading() {
        let digits = Mnist::built_in().unwrap().test;
        let wrong = |index| Mistake { index, read_as: 3, probability: 0.5 + index as f32 / 200.0 };
        let svg = draw(|file| mistakes(file, &digits, &(0..27).map(wrong).collect::<Vec<_>>()));
        assert!(svg.contains("27 of 2000 test digits were read wrongly"));
        assert!(svg.contains(&format!("is {}", labels(&digits).unwrap()[26])));
        assert_eq!(svg.matches("read 3\n").count(), 27);
        let svg = draw(|file| mistakes(file, &digits, &(0..50).map(wrong).collect::<Vec<_>>()));
        assert!(svg.contains("surest first, 40 shown"));
        assert!(svg.len() < 1_000_000, "{}", svg.len());
        assert!(draw(|file| mistakes(file, &digits, &[])).contains("0 of 2000"));
    }
}
