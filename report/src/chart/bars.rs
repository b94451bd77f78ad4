//! Bars in groups, each a median with its range. In: figures by group and series. Out: SVG.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Area, Chart, FONT, Frame, NO_FAILURE, colour, number, svg};

/// Share of a group's place that its bars take.
const BARS_WIDTH: f64 = 0.84;

/// With more bars than this there is no room for a number above each.
const NUMBERED_MAX: usize = 30;

/// A figure measured several times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// The height of the bar.
    pub median: f64,
    /// Where the line through its end begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

impl From<f64> for Span {
    /// A figure measured once.
    fn from(value: f64) -> Self {
        Self {
            median: value,
            low: value,
            high: value,
        }
    }
}

/// A bar chart. Groups and series stand in the order in which they were first named.
#[derive(Debug, Clone)]
pub struct Bars {
    title: String,
    unit: String,
    groups: Vec<String>,
    series: Vec<String>,
    bars: Vec<Bar>,
}

#[derive(Debug, Clone, Copy)]
struct Bar {
    group: usize,
    series: usize,
    span: Span,
}

impl Bars {
    /// A chart without bars, whose heights are in `unit`.
    pub fn new(title: impl Into<String>, unit: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            unit: unit.into(),
            groups: Vec::new(),
            series: Vec::new(),
            bars: Vec::new(),
        }
    }

    /// Adds a bar. One without a height leaves its place empty.
    pub fn add(&mut self, group: &str, series: &str, span: Span) {
        let group = place(&mut self.groups, group);
        let series = place(&mut self.series, series);
        if [span.median, span.low, span.high]
            .into_iter()
            .all(f64::is_finite)
        {
            self.bars.push(Bar {
                group,
                series,
                span,
            });
        }
    }

    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// The chart alone.
    pub fn svg(&self) -> String {
        let highest = self
            .bars
            .iter()
            .map(|bar| bar.span.high.max(bar.span.median))
            .fold(0.0, f64::max);
        let frame = Frame {
            title: &self.title,
            unit: &self.unit,
            across: None,
            x_labels: 0,
            names: self.series.iter().map(String::as_str).collect(),
            x: -0.5..self.groups.len().max(1) as f64 - 0.5,
            y: 0.0..if highest > 0.0 { highest * 1.12 } else { 1.0 },
            x_label: &|_| String::new(),
            y_label: &|height| number(*height),
        };
        svg(&frame, |root, chart| {
            for bar in &self.bars {
                self.bar(chart, bar);
            }
            self.group_names(root, chart);
        })
    }

    fn bar(&self, chart: &mut Chart<'_>, bar: &Bar) {
        let width = BARS_WIDTH / self.series.len() as f64;
        let left = bar.group as f64 - BARS_WIDTH / 2.0 + bar.series as f64 * width;
        let middle = left + width / 2.0;
        let Span { median, low, high } = bar.span;
        let body = [(left, 0.0), (left + width * 0.92, median)];
        let body = Rectangle::new(body, colour(bar.series).filled());
        chart.draw_series([body]).expect(NO_FAILURE);
        if low < high {
            let range = PathElement::new(vec![(middle, low), (middle, high)], BLACK);
            chart.draw_series([range]).expect(NO_FAILURE);
        }
        if self.bars.len() <= NUMBERED_MAX {
            let style = (FONT, 11).into_font().color(&BLACK);
            let style = style.pos(Pos::new(HPos::Center, VPos::Bottom));
            let text = Text::new(number(median), (middle, high.max(median)), style);
            chart.draw_series([text]).expect(NO_FAILURE);
        }
    }

    /// Below their groups, wherever the library would rather have its labels.
    fn group_names(&self, root: &Area<'_>, chart: &Chart<'_>) {
        let style = (FONT, 13).into_font().color(&BLACK);
        let style = style.pos(Pos::new(HPos::Center, VPos::Top));
        for (place, name) in self.groups.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(place as f64, 0.0));
            let text = Text::new(name.clone(), (x, y + 8), style.clone());
            root.draw(&text).expect(NO_FAILURE);
        }
    }
}

/// The place of a name, at the end when it is new.
fn place(names: &mut Vec<String>, name: &str) -> usize {
    names
        .iter()
        .position(|known| known == name)
        .unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rectangles that have the colour of a series.
    fn rectangles(svg: &str, place: usize) -> usize {
        let RGBColor(red, green, blue) = colour(place);
        let colour = format!("#{red:02X}{green:02X}{blue:02X}");
        svg.lines()
            .filter(|line| line.starts_with("<rect") && line.contains(&colour))
            .count()
    }

    #[test]
    fn every_group_series_unit_and_height_is_named() {
        let mut chart = Bars::new("what it is", "in units");
        let span = Span {
            median: 123.0,
            low: 100.0,
            high: 150.0,
        };
        chart.add("first group", "ours", span);
        chart.add("first group", "theirs", Span::from(77.0));
        chart.add("second group", "ours", Span::from(55.0));
        let svg = chart.svg();
        for word in [
            "what it is",
            "in units",
            "first group",
            "second group",
            "ours",
            "theirs",
            "123",
            "77",
            "55",
        ] {
            assert!(svg.contains(word), "{word} in {svg}");
        }
        // A bar for each figure, and the square of the legend.
        assert_eq!((rectangles(&svg, 0), rectangles(&svg, 1)), (3, 2), "{svg}");
    }

    #[test]
    fn a_bar_without_a_height_keeps_its_place_empty() {
        let mut chart = Bars::new("title", "unit");
        chart.add("group", "ours", Span::from(1.0));
        chart.add("group", "theirs", Span::from(f64::NAN));
        let svg = chart.svg();
        assert_eq!((rectangles(&svg, 0), rectangles(&svg, 1)), (2, 1), "{svg}");
        assert!(svg.contains("theirs"), "{svg}");
    }

    #[test]
    fn a_chart_without_bars_is_drawn_all_the_same() {
        let svg = Bars::new("nothing yet", "unit").svg();
        assert!(svg.contains("nothing yet"), "{svg}");
    }
}
