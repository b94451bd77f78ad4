//! The chart for the documentation. In: the figures of all floods. Out: an SVG. Its upper half shows how long agents
//! waited, its lower half what the gateway's host computed.

use std::error::Error;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::case::Case;
use super::defence::Defence;
use super::judge::{series, served};
use super::run::Figures;

const SIZE: (u32, u32) = (960, 680);

/// Where the legend begins, right of everything.
const LEGEND_LEFT: u32 = 850;

const FONT: &str = "sans-serif";

const QUIET: RGBColor = RGBColor(153, 153, 153);

/// Share of a flood's place that its bars take.
const BARS_WIDTH: f64 = 0.84;

/// What a half of the chart shows, and how.
struct Panel {
    title: &'static str,
    /// The height of a bar, on the axis.
    height: fn(&[Figures]) -> f64,
    /// From where to where the axis goes.
    axis: (f64, f64),
    /// Heights of the axis that have a label, at most.
    labels: usize,
    /// What is written at a height of the axis.
    label: fn(&f64) -> String,
    /// What is written above a bar.
    note: fn(&[Figures]) -> String,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws it.
pub fn draw(file: &Path, cases: &[Case]) -> Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    let drawn = || -> Result<(), Box<dyn Error>> {
        root.fill(&WHITE)?;
        let (panels, right) = root.split_horizontally(LEGEND_LEFT);
        let (upper, lower) = panels.split_vertically(SIZE.1 / 2);
        half(&upper, cases, &latency(cases))?;
        half(&lower, cases, &cpu(cases))?;
        legend(&right, cases)?;
        root.present()?;
        Ok(())
    };
    // The library's errors cannot go to another thread, which those of anyhow must be able to.
    drawn().map_err(|error| anyhow!("{}: {error}", file.display()))
}

fn latency(cases: &[Case]) -> Panel {
    let height = |runs: &[Figures]| series(runs, |run| run.handshakes.p99_ms).median().log10();
    let decades = highest(cases, height).ceil().max(1.0);
    Panel {
        title: "Agents that connect: 99th percentile in ms (logarithmic), and the share served where it was not all",
        height,
        axis: (0.0, decades),
        labels: decades as usize + 1,
        label: |height| format!("{:.0}", 10_f64.powf(*height)),
        note: |runs| match served(runs) {
            share if share < 1.0 => format!("{:.0} %", (share * 100.0).floor()),
            _ => String::new(),
        },
    }
}

fn cpu(cases: &[Case]) -> Panel {
    let height =
        |runs: &[Figures]| series(runs, |run| run.gateway_cpu_s + run.packets_cpu_s).median();
    Panel {
        title: "Gateway, and packets on its host: CPU in seconds of a run",
        height,
        axis: (0.0, highest(cases, height) * 1.1),
        labels: 8,
        label: |height| format!("{height:.1}"),
        note: |_| String::new(),
    }
}

/// Of all bars; those without a height are not drawn.
fn highest(cases: &[Case], height: fn(&[Figures]) -> f64) -> f64 {
    cases
        .iter()
        .flat_map(bars)
        .map(|(_, _, runs)| height(runs))
        .filter(|height| height.is_finite())
        .fold(0.0, f64::max)
}

/// The bars of a flood: names, colours and figures.
fn bars(case: &Case) -> Vec<(&'static str, RGBColor, &[Figures])> {
    let mut bars = vec![("quiet", QUIET, case.quiet.as_slice())];
    bars.extend(
        case.defences
            .iter()
            .map(|(defence, runs)| (defence.name(), colour(*defence), runs.as_slice())),
    );
    bars
}

/// Colours that stay apart for most eyes (Okabe and Ito).
fn colour(defence: Defence) -> RGBColor {
    match defence {
        Defence::Off => RGBColor(213, 94, 0),
        Defence::Monitor => RGBColor(240, 228, 66),
        Defence::Enforce => RGBColor(0, 114, 178),
        Defence::NftLimit => RGBColor(86, 180, 233),
        Defence::NftBan => RGBColor(0, 158, 115),
    }
}

fn half(area: &Area<'_>, cases: &[Case], panel: &Panel) -> Result<(), Box<dyn Error>> {
    let places = -0.5..cases.len() as f64 - 0.5;
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 16))
        .margin(8)
        .x_label_area_size(26)
        .y_label_area_size(56)
        .build_cartesian_2d(places, panel.axis.0..panel.axis.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(cases.len())
        .y_labels(panel.labels)
        .x_label_formatter(&|place| {
            let case = cases.get(place.round().max(0.0) as usize);
            case.map_or_else(String::new, |case| case.kind.name().to_owned())
        })
        .y_label_formatter(&panel.label)
        .label_style((FONT, 14))
        .draw()?;
    let style = (FONT, 11).into_font().color(&BLACK);
    let style = style.pos(Pos::new(HPos::Center, VPos::Bottom));
    for (place, case) in cases.iter().enumerate() {
        let bars = bars(case);
        let width = BARS_WIDTH / bars.len() as f64;
        for (index, (_, colour, runs)) in bars.into_iter().enumerate() {
            let left = place as f64 - BARS_WIDTH / 2.0 + index as f64 * width;
            let height = Some((panel.height)(runs)).filter(|height| height.is_finite());
            let height = height.unwrap_or(panel.axis.0);
            let corners = [(left, panel.axis.0), (left + width, height)];
            chart.draw_series([Rectangle::new(corners, colour.filled())])?;
            let above = (left + width / 2.0, height);
            chart.draw_series([Text::new((panel.note)(runs), above, style.clone())])?;
        }
    }
    Ok(())
}

/// The defences are the same for all floods.
fn legend(area: &Area<'_>, cases: &[Case]) -> Result<(), Box<dyn Error>> {
    let bars = cases.first().map(bars).unwrap_or_default();
    for (row, (name, colour, _)) in (2..).zip(bars) {
        let top = row * 20;
        area.draw(&Rectangle::new([(0, top), (12, top + 12)], colour.filled()))?;
        area.draw(&Text::new(name, (18, top), (FONT, 14).into_font()))?;
    }
    Ok(())
}
