//! Lines over a plain axis or over quantiles. In: points by series. Out: SVG.

use std::ops::Range;

use plotters::prelude::*;

use super::{Frame, NO_FAILURE, colour, number, svg};

/// Beyond this share of all values a quantile has no place of its own.
const NINES_MAX: f64 = 6.0;

/// What stands across a line chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Across {
    /// Values as they are, with what they are.
    Plain(String),
    /// Shares of all values, from 0 to 1: the further out, the wider each nine.
    Quantiles,
}

/// A line chart. Its lines stand in the order in which they were added.
#[derive(Debug, Clone)]
pub struct Lines {
    title: String,
    across: Across,
    unit: String,
    steps: bool,
    lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Lines {
    /// A chart without lines, whose heights are in `unit`.
    pub fn new(title: impl Into<String>, across: Across, unit: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            across,
            unit: unit.into(),
            steps: false,
            lines: Vec::new(),
        }
    }

    /// Keeps each height until the next point instead of joining them.
    #[must_use]
    pub fn steps(mut self) -> Self {
        self.steps = true;
        self
    }

    /// Adds a line by its points, from left to right. Those that are no numbers are left out.
    pub fn add(&mut self, name: &str, points: Vec<(f64, f64)>) {
        let points = points
            .into_iter()
            .map(|(x, y)| (self.x(x), y))
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        self.lines.push((name.to_owned(), points));
    }

    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// The chart alone.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let highest = points().map(|point| point.1).fold(0.0, f64::max);
        let lowest = points().map(|point| point.1).fold(0.0, f64::min);
        let x = wide(points().map(|point| point.0));
        let frame = Frame {
            title: &self.title,
            unit: &self.unit,
            across: Some(match &self.across {
                Across::Plain(what) => what,
                Across::Quantiles => "share that is not above",
            }),
            x_labels: match self.across {
                Across::Plain(_) => 10,
                // One for each nine.
                Across::Quantiles => x.end.ceil() as usize + 1,
            },
            names: self.lines.iter().map(|(name, _)| name.as_str()).collect(),
            x,
            y: lowest..if highest > lowest {
                highest * 1.05
            } else {
                lowest + 1.0
            },
            x_label: &|x| match self.across {
                Across::Plain(_) => number(*x),
                Across::Quantiles => share(*x),
            },
            y_label: &|y| number(*y),
        };
        svg(&frame, |_, chart| {
            for (place, (_, points)) in self.lines.iter().enumerate() {
                let style = colour(place).stroke_width(2);
                let path = PathElement::new(self.path(points), style);
                chart.draw_series([path]).expect(NO_FAILURE);
            }
        })
    }

    /// The place of a value across.
    fn x(&self, value: f64) -> f64 {
        match self.across {
            Across::Plain(_) => value,
            Across::Quantiles => {
                let nines = (-(1.0 - value).log10()).clamp(0.0, NINES_MAX);
                // 0.999 is three nines, whatever binary fractions make of it.
                (nines * 1e9).round() / 1e9
            }
        }
    }

    fn path(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        if !self.steps {
            return points.to_vec();
        }
        let corners = points
            .windows(2)
            .flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
        corners.chain(points.last().copied()).collect()
    }
}

/// From the first to the last value, with room between them.
fn wide(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let first = values.clone().fold(f64::INFINITY, f64::min);
    let last = values.fold(f64::NEG_INFINITY, f64::max);
    if first < last {
        first..last
    } else if first.is_finite() {
        first - 0.5..first + 0.5
    } else {
        0.0..1.0
    }
}

/// A place among quantiles as a share.
fn share(nines: f64) -> String {
    let percent = 100.0 - 100.0 * 10_f64.powf(-nines);
    let digits = (nines - 1.0).ceil().clamp(0.0, NINES_MAX) as usize;
    format!("{percent:.digits$} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of the line that has the colour of a place.
    fn points(svg: &str, place: usize) -> usize {
        let RGBColor(red, green, blue) = colour(place);
        let colour = format!("#{red:02X}{green:02X}{blue:02X}");
        let line = svg
            .lines()
            .find(|line| line.starts_with("<polyline") && line.contains(&colour))
            .unwrap();
        let points = line.split("points=\"").nth(1).unwrap();
        let points = points.split('"').next().unwrap();
        points.split_whitespace().count()
    }

    #[test]
    fn every_line_and_both_axes_are_named() {
        let mut chart = Lines::new("how long", Across::Plain("after seconds".into()), "ms");
        chart.add("before", vec![(0.0, 1.0), (1.0, 2.0), (2.0, 1.5)]);
        chart.add("behind", vec![(0.0, 3.0), (2.0, 4.0)]);
        let svg = chart.svg();
        for word in ["how long", "after seconds", "ms", "before", "behind"] {
            assert!(svg.contains(word), "{word} in {svg}");
        }
        assert_eq!((points(&svg, 0), points(&svg, 1)), (3, 2));
    }

    #[test]
    fn steps_have_a_corner_between_any_two_points() {
        let mut chart = Lines::new("title", Across::Plain("x".into()), "y").steps();
        chart.add("line", vec![(0.0, 1.0), (1.0, 2.0), (2.0, 1.5)]);
        assert_eq!(points(&chart.svg(), 0), 5);
    }

    #[test]
    fn each_nine_of_a_quantile_is_as_wide_as_the_one_before() {
        let chart = Lines::new("title", Across::Quantiles, "ms");
        let places = [0.0, 0.9, 0.99, 0.999, 1.0].map(|share| chart.x(share));
        for (place, expected) in places.into_iter().zip([0.0, 1.0, 2.0, 3.0, NINES_MAX]) {
            assert!((place - expected).abs() < 1e-9, "{places:?}");
        }
        let written = [0.0, 1.0, 2.0, 3.0].map(share);
        assert_eq!(written, ["0 %", "90 %", "99.0 %", "99.90 %"]);
    }

    #[test]
    fn quantiles_are_named_by_whole_nines() {
        let mut chart = Lines::new("title", Across::Quantiles, "ms");
        chart.add(
            "line",
            vec![(0.0, 1.0), (0.5, 1.0), (0.99, 2.0), (0.999, 3.0)],
        );
        let svg = chart.svg();
        for label in ["0 %", "90 %", "99.0 %", "99.90 %"] {
            assert!(svg.contains(&format!("\n{label}\n")), "{label} in {svg}");
        }
        assert_eq!(svg.matches(" %\n").count(), 4, "{svg}");
    }

    #[test]
    fn points_that_are_no_numbers_are_left_out() {
        let mut chart = Lines::new("title", Across::Plain("x".into()), "y");
        let points_given = vec![
            (0.0, 1.0),
            (1.0, f64::NAN),
            (f64::INFINITY, 1.0),
            (2.0, 1.5),
        ];
        chart.add("line", points_given);
        assert_eq!(points(&chart.svg(), 0), 2);
    }
}
