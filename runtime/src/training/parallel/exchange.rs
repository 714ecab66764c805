//! Sums of all ranks.

use std::ops::Range;

use super::numbers::{BLOCK, Kind, Pack, Part, Sum, Weights, cover};
use super::of_rank;
use crate::communicator::{Communicator, to_numbers};
use crate::{Error, Result};

/// The information needed to add up the numbers of a step.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) communicator: &'a Communicator,
    /// Of each micro-batch.
    pub(super) weights: &'a [Weights],
    /// The number of examples.
    pub(super) n_examples: f64,
    /// Whether the order of the sum may depend on the ranks.
    pub(super) is_fast: bool,
}

impl Exchange<'_> {
    /// The means, over all examples, of the numbers of a pack. `own` are the sums of this rank, in order.
    pub(super) fn means(&self, pack: &Pack, own: &[Sum]) -> Result<Vec<u8>> {
        if self.is_fast {
            return self.fast_means(pack, own);
        }
        // Each rank adds up one part, and sends it in the precision that the receivers use.
        let (size, rank, n) = (self.communicator.size(), self.communicator.rank(), pack.len());
        let part = |of: usize| n * of / size..n * (of + 1) / size;
        let message = |to: usize| {
            let mut message = Vec::new();
            if to != rank {
                self.nodes_of(rank)
                    .iter()
                    .for_each(|node| pack.write(node, &part(to), own, self.weights, &mut message));
            }
            message
        };
        let messages = self.communicator.exchange((0..size).map(message).collect())?;
        let range = part(rank);
        let mut parts = Vec::new();
        for (from, message) in messages.iter().enumerate() {
            if from == rank {
                parts.extend(own.iter().map(|sum| sum.part(pack, &range)));
                continue;
            }
            let mut rest = &message[..];
            for node in self.nodes_of(from) {
                let (bytes, behind) = rest
                    .split_at_checked(pack.bytes_of(&node, &range).len())
                    .ok_or_else(|| other_length(from))?;
                parts.push(Part { node, bytes });
                rest = behind;
            }
            if !rest.is_empty() {
                return Err(other_length(from));
            }
        }
        let mut means = Vec::with_capacity(pack.bytes(&range).len());
        self.add_up(pack, &range, parts, &mut means);
        let messages = self.communicator.exchange(vec![means; size])?;
        for (from, message) in messages.iter().enumerate() {
            if message.len() != pack.bytes(&part(from)).len() {
                return Err(other_length(from));
            }
        }
        Ok(messages.concat())
    }

    /// The nodes of the tree that a rank adds up.
    fn nodes_of(&self, rank: usize) -> Vec<Range<usize>> {
        let (mut nodes, n_micro) = (Vec::new(), self.weights.len());
        cover(0..n_micro, &of_rank(n_micro, self.communicator, rank), &mut nodes);
        nodes
    }

    /// Adds the means of a range of numbers to `means`.
    fn add_up(&self, pack: &Pack, range: &Range<usize>, parts: Vec<Part<'_>>, means: &mut Vec<u8>) {
        let mut narrow = [0f32; BLOCK];
        pack.add_up(&(0..self.weights.len()), range, parts, self.weights, |kind: Kind, sums| {
            sums.iter_mut().for_each(|sum| *sum /= self.n_examples);
            if kind.is_wide {
                means.extend_from_slice(bytemuck::cast_slice(sums));
            } else {
                let narrow = &mut narrow[..sums.len()];
                narrow.iter_mut().zip(sums).for_each(|(narrow, mean)| *narrow = *mean as f32);
                means.extend_from_slice(bytemuck::cast_slice(narrow));
            }
        });
    }

    fn fast_means(&self, pack: &Pack, own: &[Sum]) -> Result<Vec<u8>> {
        let mut means = Vec::with_capacity(pack.bytes(&(0..pack.len())).len());
        for (is_wide, range) in pack.types() {
            let parts = own.iter().map(|sum| sum.part(pack, &range)).collect();
            let mut own = Vec::with_capacity(pack.bytes(&range).len());
            self.add_up(pack, &range, parts, &mut own);
            match is_wide {
                true => {
                    means.extend_from_slice(bytemuck::cast_slice(&self.communicator.sum(to_numbers(&own))?))
                }
                false => {
                    let sums = self.communicator.fast_sum(bytemuck::pod_collect_to_vec(&own))?;
                    means.extend_from_slice(bytemuck::cast_slice(&sums));
                }
            }
        }
        Ok(means)
    }
}

fn other_length(rank: usize) -> Error {
    Error::communication(rank, "has sent sums of another length: its parameters or its layers differ")
}
