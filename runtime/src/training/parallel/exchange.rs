//! Sums of all ranks.

use std::ops::Range;

use super::numbers::{Variables, cover, join};
use super::of_rank;
use crate::communicator::{Communicator, from_numbers, to_numbers};
use crate::{Error, Result};

/// What is to be known to add up numbers of a step.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) communicator: &'a Communicator,
    pub(super) n_micro: usize,
    pub(super) variables: &'a Variables,
    /// The number of examples.
    pub(super) weight: f64,
    /// Whether the order of the sum may depend on the ranks.
    pub(super) is_fast: bool,
}

impl Exchange<'_> {
    /// The means over all examples of the numbers of this range. `own` has a sum for each node of the tree that is this rank's.
    pub(super) fn means(&self, range: &Range<usize>, own: &[Vec<f64>]) -> Result<Vec<f64>> {
        if self.is_fast {
            return self.fast_means(range, own);
        }
        // Each rank adds up one part, and sends it in the precision in which it is used.
        let (size, rank, n) = (self.communicator.size(), self.communicator.rank(), range.len());
        let part = |of: usize| n * of / size..n * (of + 1) / size;
        let parts = (0..size).map(|to| from_numbers(own.iter().map(|sum| &sum[part(to)])));
        let messages = self.communicator.exchange(parts.collect())?;
        let width = part(rank).len();
        let mut known = Vec::new();
        for (from, message) in messages.iter().enumerate() {
            let mut nodes = Vec::new();
            cover(0..self.n_micro, &of_rank(self.n_micro, self.communicator, from), &mut nodes);
            let values = to_numbers(message);
            if values.len() != nodes.len() * width {
                return Err(other_length(from));
            }
            let sums =
                nodes.into_iter().enumerate().map(|(i, node)| (node, values[i * width..][..width].to_vec()));
            known.extend(sums);
        }
        let sum = join(0..self.n_micro, &known);
        let message = self.rounded(range.start + part(rank).start, &sum);
        let messages = self.communicator.exchange(vec![message; size])?;
        let mut means = Vec::with_capacity(n);
        for (from, message) in messages.iter().enumerate() {
            let part = range.start + part(from).start..range.start + part(from).end;
            means.extend(self.read(&part, message).ok_or_else(|| other_length(from))?);
        }
        Ok(means)
    }

    /// The means of sums, the first of which is the number `start`, as they are sent.
    fn rounded(&self, start: usize, sums: &[f64]) -> Vec<u8> {
        let mut message = Vec::with_capacity(4 * sums.len());
        for (is_wide, piece) in self.variables.pieces(&(start..start + sums.len())) {
            let means = sums[piece.start - start..piece.end - start].iter().map(|sum| sum / self.weight);
            match is_wide {
                true => message.extend(bytemuck::cast_slice(&means.collect::<Vec<f64>>())),
                false => {
                    message.extend(bytemuck::cast_slice(&means.map(|mean| mean as f32).collect::<Vec<f32>>()))
                }
            }
        }
        message
    }

    /// The reverse of [`rounded`](Self::rounded), for a range of numbers; none if the message is of another length.
    fn read(&self, range: &Range<usize>, mut message: &[u8]) -> Option<Vec<f64>> {
        let mut means = Vec::with_capacity(range.len());
        for (is_wide, piece) in self.variables.pieces(range) {
            let (values, rest) = message
                .split_at_checked(piece.len() * if is_wide { size_of::<f64>() } else { size_of::<f32>() })?;
            match is_wide {
                true => means.extend(to_numbers(values)),
                false => {
                    let values: Vec<f32> = bytemuck::pod_collect_to_vec(values);
                    means.extend(values.into_iter().map(f64::from));
                }
            }
            message = rest;
        }
        message.is_empty().then_some(means)
    }

    fn fast_means(&self, range: &Range<usize>, own: &[Vec<f64>]) -> Result<Vec<f64>> {
        let mut sum = vec![0.0; range.len()];
        for own in own {
            sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        sum.iter_mut().for_each(|sum| *sum /= self.weight);
        let mut means = Vec::with_capacity(range.len());
        for (is_wide, piece) in self.pieces_of_one_type(range) {
            let values = &sum[piece.start - range.start..piece.end - range.start];
            match is_wide {
                true => means.extend(self.communicator.sum(values.to_vec())?),
                false => {
                    let values = values.iter().map(|value| *value as f32).collect();
                    means.extend(self.communicator.fast_sum(values)?.into_iter().map(f64::from));
                }
            }
        }
        Ok(means)
    }

    /// The range in pieces of one type, as few as there are. The loss is sent as its neighbours are.
    fn pieces_of_one_type(&self, range: &Range<usize>) -> Vec<(bool, Range<usize>)> {
        let mut pieces: Vec<(bool, Range<usize>)> = Vec::new();
        let of_loss = self.variables.length() - 1;
        for (is_wide, piece) in self.variables.pieces(range) {
            match pieces.last_mut() {
                Some((last, joined)) if *last == is_wide || piece.start == of_loss => joined.end = piece.end,
                _ => pieces.push((is_wide, piece)),
            }
        }
        pieces
    }
}

fn other_length(rank: usize) -> Error {
    Error::communication(rank, "has sent sums of another length: its parameters or its layers differ")
}
