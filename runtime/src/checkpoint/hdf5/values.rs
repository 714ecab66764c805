//! Values of datasets.

use super::super::{Fault, Outcome};
use super::dataset::{Dataset, Place};
use super::filters;
use super::image::Image;

/// Fills `out`, which has room for all values, with them in row-major order and little-endian.
pub(super) fn read(image: &mut Image<'_>, dataset: &Dataset, out: &mut [u8]) -> Outcome<()> {
    let element = dataset.stored.size() as usize;
    match &dataset.place {
        _ if out.is_empty() => {}
        Place::Unwritten(value) => out.chunks_exact_mut(element).for_each(|to| to.copy_from_slice(value)),
        Place::Inside(values) => out.copy_from_slice(values),
        Place::Contiguous(address) => image.read(*address, out)?,
        Place::Chunked { chunk, filters, chunks, edge } => {
            let grid = Grid::new(&dataset.shape, chunk, element);
            for (number, chunk) in chunks.iter().enumerate() {
                // Claimed: it lies inside the file.
                let mut packed = vec![0; chunk.size as usize];
                image.read(chunk.address, &mut packed)?;
                let mut bytes = filters::unpack(filters, chunk.mask, packed, grid.bytes(), element)
                    .map_err(|fault| fault.within(&format!("chunk {number} at byte {}", chunk.address)))?;
                grid.take(number, &mut bytes, out)?;
                let behind = |edge: &Vec<u8>| {
                    bytes
                        .chunks_exact(element)
                        .all(|value| value == edge || value.iter().all(|&byte| byte == 0))
                };
                if !edge.as_ref().is_none_or(behind) {
                    return Err(Fault::format(format!(
                        "chunk {number} has values behind the edge of its dataset"
                    )));
                }
            }
        }
    }
    if dataset.big_endian && element > 1 {
        out.chunks_exact_mut(element).for_each(<[u8]>::reverse);
    }
    Ok(())
}

/// How chunks lie in a shape. The last axis counts bytes.
struct Grid {
    shape: Vec<usize>,
    chunk: Vec<usize>,
}

impl Grid {
    /// Axes that chunks cover are joined with the one before them, so that what is copied at once is long.
    fn new(shape: &[usize], chunk: &[usize], element: usize) -> Self {
        let (mut shape, mut chunk) = (shape.to_vec(), chunk.to_vec());
        shape.push(element);
        chunk.push(element);
        while let ([.., _, _], [.., last]) = (&shape[..], &chunk[..]) {
            let last = *last;
            if shape[shape.len() - 1] != last {
                break;
            }
            for sizes in [&mut shape, &mut chunk] {
                sizes.pop();
                if let Some(size) = sizes.last_mut() {
                    *size *= last;
                }
            }
        }
        Self { shape, chunk }
    }

    fn bytes(&self) -> usize {
        self.chunk.iter().product()
    }

    /// Moves the chunk of the given number to its place; zeros are left of it, and what lies behind the edge.
    fn take(&self, number: usize, bytes: &mut [u8], out: &mut [u8]) -> Outcome<()> {
        let rank = self.shape.len();
        let (mut start, mut rest) = (vec![0; rank], number);
        for axis in (0..rank).rev() {
            let count = self.shape[axis].div_ceil(self.chunk[axis]);
            start[axis] = rest % count * self.chunk[axis];
            rest /= count;
        }
        // What of the chunk lies inside the shape.
        let inside: Vec<_> =
            (0..rank).map(|axis| self.chunk[axis].min(self.shape[axis] - start[axis])).collect();
        let row = inside[rank - 1];
        let mut place = vec![0; rank];
        loop {
            let (mut from, mut to) = (0, 0);
            for axis in 0..rank {
                from = from * self.chunk[axis] + place[axis];
                to = to * self.shape[axis] + start[axis] + place[axis];
            }
            let (Some(to), Some(from)) = (out.get_mut(to..to + row), bytes.get_mut(from..from + row)) else {
                return Err(Fault::format("a chunk does not fit the shape"));
            };
            to.copy_from_slice(from);
            from.fill(0);
            // The next row.
            let Some(axis) = (0..rank - 1).rev().find(|&axis| place[axis] + 1 < inside[axis]) else {
                return Ok(());
            };
            place[axis] += 1;
            place[axis + 1..].fill(0);
        }
    }
}
