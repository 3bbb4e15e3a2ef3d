//! The loss curve of a run as an SVG file.

use std::path::Path;

use plotters::prelude::*;

use super::metrics::Record;
use crate::error::{Error, Result};
use crate::message::escaped_path;

/// Plots training and validation loss over the steps as an SVG file.
///
/// # Errors
/// [`Error::Invalid`] naming the file, if it cannot be written.
pub fn draw_loss(records: &[Record], path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let points = |value: fn(&Record) -> Option<f32>| -> Vec<(f64, f64)> {
        records.iter().filter_map(|r| Some((r.step as f64, f64::from(value(r)?)))).collect()
    };
    let (train, val) = (points(|r| r.loss), points(|r| r.val_loss));
    draw(&train, &val, path).map_err(|e| Error::invalid(format!("cannot draw {}: {e}", escaped_path(path))))
}

/// Colours of the two curves, distinguishable for colour-blind readers and in greyscale.
const TRAIN: RGBColor = RGBColor(0x7f, 0xa8, 0xd1);
const VALIDATION: RGBColor = RGBColor(0xb3, 0x3f, 0x1f);

fn draw(train: &[(f64, f64)], val: &[(f64, f64)], path: &Path) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let all = || train.iter().chain(val);
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| (low.min(p.1), high.max(p.1)));
    let (low, high) = if low < high { (low, high) } else { (0.0, high.max(1.0)) };
    let margin = 0.05 * (high - low);

    let root = SVGBackend::new(path, (800, 500)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("step")
        .y_desc("loss (nats/token)")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.2}"))
        .draw()?;
    for (name, points, colour, width) in [("training", train, TRAIN, 1), ("validation", val, VALIDATION, 2)] {
        let style = colour.stroke_width(width);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(step: u64) -> Record {
        let loss = if step == 2 { None } else { Some(5.0 / step as f32) };
        let val_loss = step.is_multiple_of(2).then_some(4.0 / step as f32);
        Record { step, loss, lr: 1e-3, grad_norm: Some(1.0), tokens_per_second: 10.0, val_loss, skipped: None }
    }

    #[test]
    fn the_curve_is_drawn_for_any_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loss.svg");
        for records in [vec![], vec![record(1)], vec![record(2)], (1..50).map(record).collect()] {
            draw_loss(&records, &path).unwrap();
            let svg = fs::read_to_string(&path).unwrap();
            assert!(svg.starts_with("<svg") && svg.contains("loss (nats/token)") && svg.contains("validation"));
        }
        let error = draw_loss(&[], dir.path().join("none/loss.svg")).unwrap_err().to_string();
        assert!(error.contains("none/loss.svg"), "{error}");
    }
}
