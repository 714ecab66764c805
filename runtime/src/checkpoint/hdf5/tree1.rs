//! Version 1 B-trees: the index of old groups and of chunks.

use super::super::Outcome;
use super::image::{Block, Image};

/// A child of a leaf, between the keys around it.
pub(super) struct Child {
    pub(super) key: Block,
    pub(super) next_key: Block,
    pub(super) address: u64,
}

/// The children of all leaves from left to right; a key takes `key` bytes. `on_leaf_end` is shown the address of each
/// leaf and how many children were found up to its end.
pub(super) fn children(
    image: &mut Image<'_>,
    root: u64,
    kind: u8,
    key: usize,
    mut on_leaf_end: impl FnMut(&mut Image<'_>, u64, usize) -> Outcome<()>,
) -> Outcome<Vec<Child>> {
    let mut level = None;
    let mut addresses = vec![root];
    loop {
        let mut found = Vec::new();
        let mut this_level = 0;
        for (place, &address) in addresses.iter().enumerate() {
            let left = place.checked_sub(1).map(|place| addresses[place]);
            let right = addresses.get(place + 1).copied();
            this_level = node(image, address, (kind, level), key, (left, right), &mut found)?;
            level = Some(this_level);
            if this_level == 0 {
                let used = found.len();
                on_leaf_end(image, address, used)?;
            }
        }
        if this_level == 0 {
            return Ok(found);
        }
        level = Some(this_level - 1);
        addresses = found.iter().map(|child| child.address).collect();
    }
}

/// Reads one node and returns its level.
fn node(
    image: &mut Image<'_>,
    address: u64,
    (kind, level): (u8, Option<u8>),
    key: usize,
    (left, right): (Option<u64>, Option<u64>),
    found: &mut Vec<Child>,
) -> Outcome<u8> {
    let what = "a node of a B-tree";
    let width = image.widths.address;
    let head = 8 + 2 * width;
    let mut block = image.peek(address, head as u64, what)?;
    block.signature(b"TREE", what)?;
    block.version(kind, what)?;
    let this = block.u8()?;
    if level.is_some_and(|level| level != this) {
        return Err(block.fault("a node of a B-tree is on another level than its tree says"));
    }
    let used = usize::from(block.u16()?);
    if used == 0 && (left.is_some() || right.is_some() || this > 0) {
        return Err(block.fault("a node of a B-tree is empty"));
    }
    if block.address()? != left || block.address()? != right {
        return Err(block.fault("a node of a B-tree has other neighbours than its tree says"));
    }
    let mut block = image.take(address, (head + used * (key + width) + key) as u64, what)?;
    block.skip(head)?;
    for _ in 0..used {
        let this_key = block.split(key)?;
        let address = block.somewhere("a child of a B-tree")?;
        let next_key = block.clone().split(key)?;
        found.push(Child { key: this_key, next_key, address });
    }
    Ok(this)
}
