//! Where the time of a training step goes.

use std::fmt;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};

use super::record::{self, Node, Passed};
use super::text::bytes;

/// Time and memory of each stage in one training step, measured by
/// [`Network::profile`](crate::Network::profile).
///
/// Measuring copies the output of each stage once. The total times include that, but those of the stages do
/// not; the last row of the table has it, together with the loss, so that the percentages add up to 100 %.
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
    /// Time of the forward run, without that of inner stages, which have their own rows.
    pub forward: Duration,
    /// Time from when the gradient of its output was known until that of the next stage backwards was known;
    /// zero if there was none.
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
        let rows = record::rows(nodes).into_iter().map(|(index, node)| ProfileRow {
            path: node.path.clone(),
            layer: node.layer_name(),
            forward: node.time(nodes),
            backward: backward[index],
            bytes: node.bytes(),
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

    /// Time of the backward pass, including that of the loss.
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
        let [forward, backward] = [
            self.forward.saturating_sub(self.rows.iter().map(|row| row.forward).sum()),
            self.backward.saturating_sub(self.rows.iter().map(|row| row.backward).sum()),
        ];
        let between = ProfileRow {
            path: "(between the stages)".to_owned(),
            layer: String::new(),
            forward,
            backward,
            bytes: 0,
        };
        let rows = || self.rows.iter().chain([&between]);
        let all = rows().map(|row| row.forward + row.backward).sum::<Duration>();
        let mut so_far = Duration::ZERO;
        for row in rows() {
            let before = permille(so_far, all);
            so_far += row.forward + row.backward;
            let share = permille(so_far, all) - before;
            table.add_row([
                row.path.clone(),
                row.layer.clone(),
                milliseconds(row.forward),
                milliseconds(row.backward),
                format!("{}.{} %", share / 10, share % 10),
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

/// Rounded cumulative share; differences of it add up to the whole.
fn permille(part: Duration, all: Duration) -> u128 {
    let all = all.as_nanos().max(1);
    (1000 * part.as_nanos() + all / 2) / all
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", 1e3 * time.as_secs_f64())
}
