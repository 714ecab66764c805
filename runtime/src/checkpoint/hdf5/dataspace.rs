//! Shapes.

use super::super::Outcome;
use super::image::Block;
use crate::limits::MAX_RANK;

#[derive(Clone, Debug)]
pub(super) struct Space {
    pub(super) shape: Vec<usize>,
    /// Whether an axis is shorter than it may become, with an end to that.
    pub(super) is_short: bool,
}

/// The shape in `block`, which holds nothing else; `None` if there is no value.
pub(super) fn read(block: &mut Block, padded: bool) -> Outcome<Option<Space>> {
    let version = block.u8()?;
    let (rank, flags) = (usize::from(block.u8()?), block.u8()?);
    let null = match version {
        1 => {
            block.skip(5)?;
            false
        }
        2 => match (block.u8()?, rank) {
            (0, 0) => false,
            (1, _) => false,
            (2, 0) => true,
            _ => return Err(block.fault("a shape is neither a scalar nor has axes")),
        },
        _ => return Err(block.fault(&format!("a shape has the version {version}"))),
    };
    if rank > MAX_RANK || flags & !1 != 0 {
        return Err(block.fault(&format!("a shape has {rank} axes and the flags {flags}")));
    }
    let mut shape = Vec::with_capacity(rank);
    for _ in 0..rank {
        let size = block.length()?;
        shape.push(usize::try_from(size).map_err(|_| block.fault(&format!("an axis has the size {size}")))?);
    }
    let mut is_short = false;
    if flags & 1 != 0 {
        let unlimited = u64::MAX >> (64 - 8 * block.widths().length);
        for &size in &shape {
            let most = block.length()?;
            is_short |= most != size as u64 && most != unlimited;
            if most < size as u64 {
                return Err(block.fault(&format!("an axis has the size {size}, at most {most} are allowed")));
            }
        }
    }
    block.finish(padded, "a shape")?;
    Ok(if null { None } else { Some(Space { shape, is_short }) })
}
