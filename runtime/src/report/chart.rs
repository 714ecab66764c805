//! Lines over a common axis, as SVG that is legible on light and dark pages.

use plotters::prelude::*;

use crate::{Error, Result};

const GRAY: RGBColor = RGBColor(125, 132, 145);
const COLORS: [RGBColor; 5] = [
    RGBColor(58, 123, 213),
    RGBColor(28, 148, 98),
    RGBColor(212, 98, 52),
    RGBColor(150, 90, 190),
    RGBColor(170, 140, 30),
];
const SIZE: (u32, u32) = (920, 360);

type Series = (String, Vec<(f64, f64)>);

pub(super) fn svg(over: &str, series: &[Series]) -> Result<String> {
    let mut svg = String::new();
    match draw(&mut svg, over, series) {
        Ok(()) => Ok(svg),
        Err(error) => Err(Error::invalid("series", format!("can't be drawn ({error})"), series.len())),
    }
}

fn draw(svg: &mut String, over: &str, series: &[Series]) -> Result<(), Box<dyn std::error::Error>> {
    let canvas = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let points = || series.iter().flat_map(|(_, points)| finite(points));
    let (x, y) = (range(points().map(|point| point.0), 0.0), range(points().map(|point| point.1), 0.06));
    // The legend stands where the lines do not end.
    let ends = series.iter().filter_map(|(_, points)| finite(points).last());
    let rises = ends.map(|(_, end)| end - f64::midpoint(y.start, y.end)).sum::<f64>() > 0.0;
    let mut builder = ChartBuilder::on(&canvas);
    builder.margin(10).margin_right(24).x_label_area_size(44).y_label_area_size(64);
    let mut chart = builder.build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRAY.mix(0.25))
        .axis_style(GRAY)
        .label_style(("sans-serif", 15).into_font().color(&GRAY))
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .x_desc(over)
        .draw()?;
    for ((name, points), color) in series.iter().zip(COLORS.iter().cycle()) {
        let line = LineSeries::new(finite(points), color.stroke_width(2));
        let legend = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(3));
        chart.draw_series(line)?.label(name.as_str()).legend(legend);
    }
    chart
        .configure_series_labels()
        .position(if rises { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight })
        .border_style(GRAY.mix(0.3))
        .label_font(("sans-serif", 15).into_font().color(&GRAY))
        .draw()?;
    canvas.present()?;
    Ok(())
}

fn finite(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
}

/// From the least to the largest, with some room, and never nothing.
fn range(values: impl Iterator<Item = f64>, room: f64) -> std::ops::Range<f64> {
    let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    match most - least {
        width if width > 0.0 && width.is_finite() => least - room * width..most + room * width,
        _ if least.is_finite() => least - 0.5..least + 0.5,
        _ => 0.0..1.0,
    }
}

/// A label of an axis.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e7) {
        format!("{value:.1e}")
    } else {
        text.to_owned()
    }
}
