//! Draws a benchmark's results: the share of the floor as bars, and a roofline.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::Report;
use super::suite::{Measured, Ours, PeerRow, Row};
use crate::error::{Error, Result};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Colours that stay apart in print and for the colour-blind (Okabe and Ito 2008).
const OURS: RGBColor = RGBColor(0, 114, 178);
const PEER: RGBColor = RGBColor(230, 159, 0);
const LINE: RGBColor = RGBColor(90, 90, 90);
const FONT: &str = "Helvetica, Arial, sans-serif";

fn measured(report: &Report) -> impl Iterator<Item = (&Row, &Measured)> {
    report.rows.iter().filter_map(|row| match &row.ours {
        Ours::Measured(measured) => Some((row, &**measured)),
        Ours::Absent { .. } => None,
    })
}

fn text(size: u32, anchor: HPos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&BLACK).pos(Pos::new(anchor, VPos::Center))
}

fn draw(path: &Path, size: (u32, u32), paint: impl FnOnce(&Area<'_>) -> Result<(), String>) -> Result<()> {
    let area = SVGBackend::new(path, size).into_drawing_area();
    let drawn = area.fill(&WHITE).map_err(|error| error.to_string()).and_then(|()| paint(&area));
    let drawn = drawn.and_then(|()| area.present().map_err(|error| error.to_string()));
    drawn.map_err(|cause| Error::io("draw", path, std::io::Error::other(cause)))
}

/// Draws the share of the floor of each problem: a bar for Ironwarp, a mark for each peer.
///
/// # Errors
/// [`Error::Io`].
pub fn bars(report: &Report, path: &Path) -> Result<()> {
    const ROW: u32 = 22;
    const LEFT: i32 = 400;
    const WIDTH: i32 = 400;
    let rows: Vec<(&Row, &Measured)> = measured(report).collect();
    let height = ROW * (rows.len() as u32 + 3);
    draw(path, ((LEFT + WIDTH + 80) as u32, height), |area| {
        let fail = |error: DrawingAreaErrorKind<_>| format!("{error}");
        let x = |share: f64| LEFT + (share.clamp(0.0, 1.1) * f64::from(WIDTH)) as i32;
        let bottom = (height - ROW * 3 / 2) as i32;
        for percent in (0..=100).step_by(20) {
            let at = x(f64::from(percent) / 100.0);
            let shade = if percent == 100 { LINE.to_rgba() } else { LINE.mix(0.25) };
            area.draw(&PathElement::new([(at, 8), (at, bottom)], shade)).map_err(fail)?;
            let label = format!("{percent}%");
            area.draw(&Text::new(label, (at, bottom + 10), text(11, HPos::Center))).map_err(fail)?;
        }
        let title = "share of the floor (bar: Ironwarp, mark: peer)";
        area.draw(&Text::new(title, (x(0.5), bottom + 24), text(11, HPos::Center))).map_err(fail)?;
        for (i, (row, measured)) in rows.iter().enumerate() {
            let y = (ROW * i as u32 + ROW / 2 + 8) as i32;
            let name = row.shape.to_string();
            area.draw(&Text::new(name, (LEFT - 8, y), text(12, HPos::Right))).map_err(fail)?;
            let bar = [(LEFT, y - 6), (x(measured.share_of_floor), y + 6)];
            area.draw(&Rectangle::new(bar, OURS.filled())).map_err(fail)?;
            for PeerRow { times, .. } in &row.peers {
                let Some(times) = times else { continue };
                let at = x(measured.floor_us / times.median_us);
                area.draw(&Rectangle::new([(at - 1, y - 9), (at + 2, y + 9)], PEER.filled())).map_err(fail)?;
            }
        }
        Ok(())
    })
}

/// Draws the roofline: rate over arithmetic intensity, both logarithmic, under the device's ceilings. Source: Williams
/// et al. 2009.
///
/// # Errors
/// [`Error::Io`].
pub fn roofline(report: &Report, path: &Path) -> Result<()> {
    // An operation without FLOPs has no arithmetic intensity.
    let points: Vec<(&Row, f64, f64)> = measured(report)
        .filter(|(_, measured)| measured.floor_flops > 0)
        .map(|(row, m)| (row, m.floor_flops as f64 / m.floor_bytes as f64, m.tflop_per_s))
        .collect();
    let (copy, peak) = (report.ceilings.copy_gb_per_s / 1e3, report.ceilings.compute_tflop_per_s);
    let ridge = peak / copy;
    let decades = |values: &mut dyn Iterator<Item = f64>| -> Range<f64> {
        let (least, most) = values.fold((f64::INFINITY, 0.0f64), |(least, most), x| (least.min(x), most.max(x)));
        10f64.powf(least.log10().floor())..10f64.powf(most.log10().ceil() + 0.1)
    };
    let xs = decades(&mut points.iter().map(|point| point.1).chain([ridge / 20.0, ridge * 5.0]));
    let ys = decades(&mut points.iter().map(|point| point.2).chain([copy * xs.start, peak]));
    const CHART: i32 = 640;
    const LINE_HEIGHT: i32 = 14;
    let height = 480.max(40 + LINE_HEIGHT * points.len() as i32);
    draw(path, (CHART as u32 + 380, height as u32), |area| {
        let fail = |error: DrawingAreaErrorKind<_>| format!("{error}");
        let (left, list) = area.split_horizontally(CHART);
        let mut chart = ChartBuilder::on(&left)
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(xs.clone().log_scale(), ys.log_scale())
            .map_err(fail)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("intensity, FLOP per byte").y_desc("TFLOP/s").light_line_style(TRANSPARENT);
        mesh.bold_line_style(LINE.mix(0.15)).axis_style(LINE).label_style((FONT, 12)).axis_desc_style((FONT, 13));
        mesh.draw().map_err(fail)?;
        let roof = [(xs.start, copy * xs.start), (ridge, peak), (xs.end, peak)];
        chart.draw_series(LineSeries::new(roof, LINE.stroke_width(2))).map_err(fail)?;
        let title = format!("{}: copy {:.0} GB/s, {peak:.2} TFLOP/s", report.facts.device, copy * 1e3);
        let label = EmptyElement::at((xs.end, peak)) + Text::new(title, (0, -10), text(11, HPos::Right));
        chart.draw_series([label]).map_err(fail)?;
        // Points of one kernel with several shapes lie close together, so they have numbers, and a list has their
        // names.
        for (i, (row, intensity, rate)) in points.iter().enumerate() {
            let (number, at) = ((i + 1).to_string(), (*intensity, *rate));
            chart.draw_series([Circle::new(at, 4, OURS.filled())]).map_err(fail)?;
            let label = EmptyElement::at(at) + Text::new(number.clone(), (6, -6), text(9, HPos::Left));
            chart.draw_series([label]).map_err(fail)?;
            let y = 24 + LINE_HEIGHT * i as i32;
            list.draw(&Text::new(number, (20, y), text(11, HPos::Right))).map_err(fail)?;
            list.draw(&Text::new(row.shape.to_string(), (28, y), text(11, HPos::Left))).map_err(fail)?;
        }
        Ok(())
    })
}
