//! Where the time of a training step goes.

use std::fmt;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};

use super::record::{Node, Passed};
use super::summary::{bytes, is_row, layer_name, port_bytes};

/// Time and memory of each stage in one training step: made by [`Network::profile`](crate::Network::profile).
///
/// Watching copies the output of each stage once, which the total times include and the times of the stages do not.
#[derive(Clone, Debug)]
pub struct Profile {
    rows: Vec<ProfileRow>,
    forward: Duration,
    backward: Duration,
}

/// One stage of a [`Profile`].
#[derive(Clone, Debug)]
pub struct ProfileRow {
    /// Scope path of the stage.
    pub path: String,
    /// The layer's or function's name.
    pub layer: String,
    /// Time of the forward run.
    pub forward: Duration,
    /// Time from the moment when the gradient of its output was known until that of the next stage backwards was;
    /// zero if none came.
    pub backward: Duration,
    /// Bytes of its outputs.
    pub bytes: u64,
}

impl Profile {
    pub(super) fn new(
        nodes: &[Node],
        passed: &[Passed],
        forward: Duration,
        (began, ended): (Instant, Instant),
    ) -> Self {
        let mut backward = vec![Duration::ZERO; nodes.len()];
        for (i, event) in passed.iter().enumerate() {
            let next = passed.get(i + 1).map_or(ended, |next| next.at);
            backward[event.node] += next.saturating_duration_since(event.at);
        }
        let rows =
            nodes.iter().zip(backward).filter(|(node, _)| is_row(node)).map(|(node, backward)| ProfileRow {
                path: node.path.clone(),
                layer: layer_name(node),
                forward: node.own,
                backward,
                bytes: node.outputs.iter().map(port_bytes).sum(),
            });
        Self { rows: rows.collect(), forward, backward: ended - began }
    }

    /// The stages in the order in which they ran.
    #[must_use]
    pub fn rows(&self) -> &[ProfileRow] {
        &self.rows
    }

    /// Time of the forward run.
    #[must_use]
    pub fn forward(&self) -> Duration {
        self.forward
    }

    /// Time of the backward pass, the loss's part included.
    #[must_use]
    pub fn backward(&self) -> Duration {
        self.backward
    }

    /// Bytes of the outputs of all stages, which the backward pass keeps alive.
    #[must_use]
    pub fn activation_bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.bytes).sum()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["path", "layer", "forward", "backward", "share", "bytes"]);
        let all = (self.forward + self.backward).as_secs_f64().max(f64::MIN_POSITIVE);
        for row in &self.rows {
            table.add_row([
                row.path.clone(),
                row.layer.clone(),
                milliseconds(row.forward),
                milliseconds(row.backward),
                format!("{:.1} %", 100.0 * (row.forward + row.backward).as_secs_f64() / all),
                bytes(row.bytes),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        write!(
            f,
            "forward: {}, backward: {}, activations: {}",
            milliseconds(self.forward),
            milliseconds(self.backward),
            bytes(self.activation_bytes())
        )
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", 1e3 * time.as_secs_f64())
}
