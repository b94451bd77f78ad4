//! What bar and line charts share: ground, axes, legend, colours, how a number is written.
//! In: ranges and names. Out: SVG in memory.

pub mod bars;
pub mod lines;

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

const WIDTH: u32 = 960;

const HEIGHT: u32 = 420;

/// Where the legend begins, right of everything.
const LEGEND_LEFT: u32 = 790;

const FONT: &str = "sans-serif";

/// Colours that stay apart for most eyes (Okabe and Ito, then Tol).
const COLOURS: [RGBColor; 12] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(204, 121, 167),
    RGBColor(153, 153, 153),
    RGBColor(0, 0, 0),
    RGBColor(240, 228, 66),
    RGBColor(136, 34, 85),
    RGBColor(17, 119, 51),
    RGBColor(51, 34, 136),
];

const NO_FAILURE: &str = "nothing can fail in memory, in an area of constant size";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The colour of a series by its place.
fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

/// What stands around the marks of a chart.
struct Frame<'a> {
    title: &'a str,
    /// What the heights are.
    unit: &'a str,
    /// What stands below, if that is not drawn by the chart itself.
    across: Option<&'a str>,
    /// Labels across, at most.
    x_labels: usize,
    names: Vec<&'a str>,
    x: Range<f64>,
    y: Range<f64>,
    x_label: &'a dyn Fn(&f64) -> String,
    y_label: &'a dyn Fn(&f64) -> String,
}

/// Draws a frame and lets the chart draw its marks into it.
fn svg(frame: &Frame<'_>, marks: impl FnOnce(&Area<'_>, &mut Chart<'_>)) -> String {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE).expect(NO_FAILURE);
        let (panel, right) = root.split_horizontally(LEGEND_LEFT);
        let mut chart = ChartBuilder::on(&panel)
            .caption(frame.title, (FONT, 17))
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(frame.x.clone(), frame.y.clone())
            .expect(NO_FAILURE);
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .y_desc(frame.unit)
            .y_label_formatter(frame.y_label)
            .x_label_formatter(frame.x_label)
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 13));
        mesh.x_labels(frame.x_labels);
        if let Some(across) = frame.across {
            mesh.x_desc(across);
        }
        mesh.draw().expect(NO_FAILURE);
        marks(&root, &mut chart);
        legend(&right, &frame.names);
        root.present().expect(NO_FAILURE);
    }
    text
}

fn legend(area: &Area<'_>, names: &[&str]) {
    for (place, name) in names.iter().enumerate() {
        let top = 40 + 20 * i32::try_from(place).expect("there are few series");
        let square = Rectangle::new([(0, top), (12, top + 12)], colour(place).filled());
        area.draw(&square).expect(NO_FAILURE);
        let text = Text::new((*name).to_owned(), (18, top), (FONT, 13).into_font());
        area.draw(&text).expect(NO_FAILURE);
    }
}

/// A number with three digits that count, without zeros behind them.
fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let digits = (2.0 - value.abs().log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_the_digits_that_count() {
        let written = [0.0, 0.5, 0.0123, 1.0, 12.345, 1234.5, 1e9].map(number);
        assert_eq!(
            written,
            ["0", "0.5", "0.0123", "1", "12.3", "1234", "1000000000"]
        );
    }
}
