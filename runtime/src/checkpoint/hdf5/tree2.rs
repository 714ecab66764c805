//! Version 2 B-trees: the index of names of links and attributes.

use super::super::Outcome;
use super::image::{Block, Image};

/// Deeper than a tree of any file.
const MAX_DEPTH: u16 = 16;

/// How nodes of one level are laid out.
#[derive(Clone, Copy)]
struct Level {
    most: u64,
    /// Of this level and all below.
    most_of_all: u64,
    /// Bytes of a number of all records.
    width: usize,
}

/// All records of the tree at `address`.
pub(super) fn records(image: &mut Image<'_>, address: u64, kind: u8) -> Outcome<Vec<Block>> {
    let what = "a B-tree";
    let widths = image.widths;
    let size = (4 + 2 + 4 + 2 + 2 + 2 + widths.address + 2 + widths.length + 4) as u64;
    let mut head = image.take_signed(address, size, b"BTHD", what)?;
    head.version(0, what)?;
    head.version(kind, what)?;
    let (node, record, depth) = (u64::from(head.u32()?), usize::from(head.u16()?), head.u16()?);
    head.skip(2)?;
    let (root, count, total) = (head.address()?, u64::from(head.u16()?), head.length()?);
    let Some(root) = root else {
        return if total == 0 { Ok(Vec::new()) } else { Err(head.fault("a B-tree has lost its root")) };
    };
    if record == 0 || depth > MAX_DEPTH {
        return Err(head.fault(&format!("a B-tree has {depth} levels of records of {record} bytes")));
    }
    let levels = levels(node, record as u64, depth, widths.address as u64);
    let mut found = Vec::new();
    // Nodes to be read: level, address, number of records.
    let mut open = vec![(usize::from(depth), root, count)];
    while let Some((level, address, count)) = open.pop() {
        if count > levels[level].most {
            return Err(head.fault(&format!("a node of a B-tree has {count} records")));
        }
        // Sizes follow from 16 bits of records and 16 of their number.
        let below = level.checked_sub(1).map(|below| levels[below]);
        let pointer = below.map_or(0, |below| widths.address + count_width(&levels) + below.width);
        let size = 6 + count as usize * record + (count as usize + usize::from(level > 0)) * pointer + 4;
        let signature: &[u8] = if level == 0 { b"BTLF" } else { b"BTIN" };
        let mut block = image.take_signed(address, size as u64, signature, "a node of a B-tree")?;
        block.version(0, "a node of a B-tree")?;
        block.version(kind, "a node of a B-tree")?;
        for _ in 0..count {
            found.push(block.split(record)?);
        }
        if let Some(below) = below {
            for _ in 0..=count {
                let address = block.somewhere("a node of a B-tree")?;
                let records = block.uint(count_width(&levels))?;
                block.skip(below.width)?;
                open.push((level - 1, address, records));
            }
        }
    }
    if found.len() as u64 != total {
        return Err(head.fault(&format!("{total} records are declared, {} are there", found.len())));
    }
    Ok(found)
}

/// Bytes that hold any number up to `most`.
fn width(most: u64) -> usize {
    most.max(1).ilog2() as usize / 8 + 1
}

fn count_width(levels: &[Level]) -> usize {
    width(levels[0].most)
}

fn levels(node: u64, record: u64, depth: u16, address: u64) -> Vec<Level> {
    let most = node.saturating_sub(10) / record;
    let mut levels = vec![Level { most, most_of_all: most, width: 0 }];
    for _ in 0..depth {
        let below = levels[levels.len() - 1];
        let pointer = address + width(levels[0].most) as u64 + below.width as u64;
        let most = node.saturating_sub(10 + pointer) / (record + pointer);
        let most_of_all = most.saturating_add(1).saturating_mul(below.most_of_all).saturating_add(most);
        levels.push(Level { most, most_of_all, width: width(most_of_all) });
    }
    levels
}
