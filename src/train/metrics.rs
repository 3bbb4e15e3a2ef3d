//! The metrics of a run: one JSON object per step, and a plot of the loss curve.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The metrics of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number of steps done, including this one.
    pub step: u64,
    /// Mean training loss before the update, in nats per token; null if it is not finite.
    pub loss: Option<f32>,
    /// Learning rate of the update.
    pub lr: f32,
    /// Global gradient norm before clipping; null if it is not finite.
    pub grad_norm: Option<f32>,
    /// Throughput of the step, including data loading.
    pub tokens_per_second: f64,
    /// Mean loss on the validation tokens after the update, in nats per token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub val_loss: Option<f32>,
    /// Why the update was skipped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped: Option<String>,
}

/// `metrics.jsonl` of a run folder.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file to append metrics after `step`. Lines of later steps, which the resumed run repeats, and a truncated
    /// last line are removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: impl AsRef<Path>, step: u64) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let kept = kept_bytes(&path, step)?;
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let file = file.map_err(|e| Error::io("open", &path, e))?;
        file.set_len(kept as u64).map_err(|e| Error::io("truncate", &path, e))?;
        Ok(Metrics { path, file })
    }

    /// Appends the metrics of a step.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn push(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_string(record).map_err(|e| Error::invalid(format!("metrics: {e}")))?;
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|e| Error::io(format!("write {} bytes to", line.len()), &self.path, e))
    }
}

/// Size of the complete lines up to `step`, in bytes.
fn kept_bytes(path: &Path, step: u64) -> Result<usize> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    let mut kept = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        match serde_json::from_slice::<Record>(line) {
            Ok(record) if record.step <= step && line.ends_with(b"\n") => kept += line.len(),
            _ => break,
        }
    }
    Ok(kept)
}

/// Reads the metrics of a run.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] with the number of an invalid line.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Record>> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    let record =
        |(index, line)| serde_json::from_str(line).map_err(|e| Error::format(path, format!("line {}: {e}", index + 1)));
    text.lines().enumerate().map(record).collect()
}

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
    draw(&train, &val, path).map_err(|e| Error::invalid(format!("cannot draw {}: {e}", path.display())))
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
    use super::*;

    fn record(step: u64) -> Record {
        let loss = if step == 2 { None } else { Some(5.0 / step as f32) };
        let val_loss = step.is_multiple_of(2).then_some(4.0 / step as f32);
        Record { step, loss, lr: 1e-3, grad_norm: Some(1.0), tokens_per_second: 10.0, val_loss, skipped: None }
    }

    #[test]
    fn resuming_removes_later_lines_and_a_truncated_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        (1..=4).for_each(|step| metrics.push(&record(step)).unwrap());
        drop(metrics);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"step\": 5, \"lo");
        fs::write(&path, text).unwrap();

        let mut metrics = Metrics::open(&path, 3).unwrap();
        metrics.push(&record(4)).unwrap();
        assert_eq!(read(&path).unwrap(), (1..=4).map(record).collect::<Vec<_>>());
        drop(metrics);
        Metrics::open(&path, 0).unwrap();
        assert_eq!(read(&path).unwrap(), []);
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
