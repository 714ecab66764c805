//! Groups of the old format: a B-tree of symbol nodes, names in a heap.

use super::super::Outcome;
use super::image::{Block, Image};
use super::links::{Link, Target, text};
use super::superblock::Root;
use super::tree1;

/// Nodes of symbols that a tree may have lost: to be called when the whole file was read.
pub(super) type Suspects = Vec<u64>;

/// The links of a group with the given message.
pub(super) fn read(
    image: &mut Image<'_>,
    mut message: Block,
    root: &Root,
    suspects: &mut Suspects,
) -> Outcome<Vec<Link>> {
    let (tree, heap) = (message.somewhere("the tree of a group")?, message.somewhere("the heap of a group")?);
    message.finish(true, "a symbol table")?;
    let mut heap = Heap::read(image, heap)?;
    let width = image.widths.length;
    let capacity = root.children;
    let mut before = 0;
    let nodes = tree1::children(image, tree, 0, width, |image, address, found| {
        let used = found - std::mem::replace(&mut before, found);
        if used > capacity {
            return Err(message.fault("a node of a group's tree has more children than there is room for"));
        }
        suspects.extend(unused(image, address, used, capacity)?);
        Ok(())
    })?;
    let mut links = Vec::new();
    for mut node in nodes {
        symbols(image, node.address, node.next_key.length()?, root.symbols, &mut heap, &mut links)?;
    }
    if let Some(pair) = links.windows(2).find(|pair| pair[0].name.as_bytes() >= pair[1].name.as_bytes()) {
        return Err(
            message.fault(&format!("the links `{}` and `{}` are not in order", pair[0].name, pair[1].name))
        );
    }
    heap.check()?;
    Ok(links)
}

/// What stands behind the last child of a leaf: nothing, unless the number of children is damaged.
fn unused(image: &mut Image<'_>, node: u64, used: usize, capacity: usize) -> Outcome<Option<u64>> {
    let (address, length) = (image.widths.address, image.widths.length);
    let place = 8 + 2 * address + used * (address + length) + length;
    if used >= capacity {
        return Ok(None);
    }
    let next = image.peek(node + place as u64, address as u64, "a node of a B-tree");
    match next {
        Ok(mut next) => Ok(next.address()?.filter(|&next| next != 0)),
        // The node may end with the file.
        Err(_) => Ok(None),
    }
}

/// Fails if something that looks like a node of symbols, and to which a tree had room for an address, was never read.
pub(super) fn check(image: &mut Image<'_>, suspects: &Suspects) -> Outcome<()> {
    for &address in suspects {
        if image.is_taken(address) {
            continue;
        }
        let Ok(mut block) = image.peek(address, 8, "a node of symbols") else { continue };
        if block.signature(b"SNOD\x01\0", "a node of symbols").is_ok() && block.u16()? > 0 {
            return Err(block.fault("a node of symbols is no longer reached"));
        }
    }
    Ok(())
}

fn symbols(
    image: &mut Image<'_>,
    address: u64,
    last_name: u64,
    capacity: u64,
    heap: &mut Heap,
    links: &mut Vec<Link>,
) -> Outcome<()> {
    let what = "a node of symbols";
    let widths = image.widths;
    let entry = 2 * widths.address as u64 + 24;
    let mut block = image.take(address, 8 + capacity * entry, what)?;
    block.signature(b"SNOD", what)?;
    block.version(1, what)?;
    block.version(0, what)?;
    let count = u64::from(block.u16()?);
    if count == 0 || count > capacity {
        return Err(block.fault(&format!("{count} symbols are in a node for {capacity}")));
    }
    let mut last = 0;
    for _ in 0..count {
        last = block.uint(widths.address)?;
        let target = symbol(&mut block, heap)?;
        links.push(Link { name: heap.name(last)?, target });
    }
    // The key on the right is the last name, unless nodes were removed.
    if last != last_name && block.rest().iter().any(|&byte| byte != 0) {
        return Err(block.fault("a node of symbols has more or fewer symbols than its tree says"));
    }
    Ok(())
}

fn symbol(block: &mut Block, heap: &mut Heap) -> Outcome<Target> {
    let address = block.address()?;
    let kind = block.u32()?;
    block.skip(4)?;
    let mut scratch = block.split(16)?;
    match (kind, address) {
        (0, Some(address)) => Ok(Target::Hard(address, None)),
        (1, Some(address)) => {
            let tree = scratch.somewhere("the tree of a group")?;
            Ok(Target::Hard(address, Some((tree, scratch.somewhere("the heap of a group")?))))
        }
        (2, None) => {
            let value = u64::from(scratch.u32()?);
            Ok(Target::Soft(heap.name(value)?))
        }
        _ => Err(block.fault(&format!("a link of the type {kind} leads nowhere"))),
    }
}

/// The names of a group. Each is read once; what is neither a name nor free is lost.
struct Heap {
    data: Block,
    /// For each eight bytes whether they belong to something.
    cells: Vec<bool>,
}

const CELL: usize = 8;

impl Heap {
    fn read(image: &mut Image<'_>, address: u64) -> Outcome<Self> {
        let what = "the heap of a group";
        let widths = image.widths;
        let mut head = image.take(address, (8 + 2 * widths.length + widths.address) as u64, what)?;
        head.signature(b"HEAP", what)?;
        head.version(0, what)?;
        head.skip(3)?;
        let (size, mut free) = (head.length()?, head.length()?);
        let data = head.somewhere(what)?;
        let data = image.take(data, size, what)?;
        let mut heap = Self { cells: vec![false; data.remaining().div_ceil(CELL)], data };
        // The first name is the empty one.
        heap.claim(0, 1)?;
        let last = u64::MAX >> (64 - 8 * widths.length);
        while free != 1 && free != last {
            let at = usize::try_from(free).unwrap_or(usize::MAX);
            let mut block = heap.data.part(at, 2 * widths.length)?;
            free = block.length()?;
            let length = usize::try_from(block.length()?).unwrap_or(usize::MAX);
            if length < 2 * widths.length {
                return Err(block.fault("a free part of a heap is too short"));
            }
            heap.claim(at, length)?;
        }
        Ok(heap)
    }

    fn claim(&mut self, at: usize, length: usize) -> Outcome<()> {
        let cells = at / CELL..at.saturating_add(length).div_ceil(CELL);
        if !at.is_multiple_of(CELL) {
            return Err(self.data.fault(&format!("the part {at} of a heap does not start where one can")));
        }
        match self.cells.get_mut(cells) {
            Some(cells) if cells.iter().all(|&taken| !taken) => cells.fill(true),
            Some(_) => return Err(self.data.fault(&format!("two parts of a heap overlap at {at}"))),
            None => return Err(self.data.fault(&format!("the part {at} lies outside its heap"))),
        }
        Ok(())
    }

    /// The name at the offset `at`.
    fn name(&mut self, at: u64) -> Outcome<String> {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let tail = self.data.all().get(at..).unwrap_or_default();
        let Some(length) = tail.iter().position(|&byte| byte == 0) else {
            return Err(self.data.fault(&format!("a name at {at} lies outside its heap")));
        };
        let name = text(&self.data, &tail[..length])?;
        self.claim(at, length + 1)?;
        Ok(name)
    }

    /// Fails if there are names that no link has. Names of up to seven bytes may stay behind when a link is removed.
    fn check(&self) -> Outcome<()> {
        let mut lost = self.data.all().chunks(CELL).zip(&self.cells).filter(|(_, taken)| !**taken);
        if lost.any(|(bytes, _)| !bytes.contains(&0)) {
            return Err(self.data.fault("the heap of a group has a name to which no link belongs"));
        }
        Ok(())
    }
}
