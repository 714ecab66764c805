//! Writing, in the oldest format, which every reader of HDF5 knows: old groups, contiguous values, no checksums.
//!
//! All sizes are known before the first byte, so a file is written from front to back.

use std::collections::BTreeMap;
use std::io::Write;

use super::super::values::Stored;
use super::super::{Fault, Outcome};

/// Entries of a symbol node, children of a node of a tree.
const SYMBOLS: usize = 8;
const CHILDREN: usize = 32;

const SUPERBLOCK: u64 = 96;
const GROUP_HEADER: u64 = 40;
const TREE_NODE: u64 = 24 + 8 * (2 * CHILDREN as u64 + 1);
const HEAP_HEADER: u64 = 32;
const SYMBOL_NODE: u64 = 8 + 40 * SYMBOLS as u64;

/// An address that means nowhere.
const NOWHERE: u64 = u64::MAX;

/// A dataset to be written.
pub(in super::super) struct Plan<'a> {
    pub(in super::super) path: &'a str,
    pub(in super::super) stored: Stored,
    pub(in super::super) shape: &'a [usize],
    pub(in super::super) attributes: Vec<(&'static str, Value)>,
}

pub(in super::super) enum Value {
    Boolean(bool),
    Integer(i64),
}

impl Plan<'_> {
    /// Bytes of all values.
    fn bytes(&self) -> Outcome<u64> {
        Ok(self.stored.count(self.shape)? as u64 * self.stored.size())
    }
}

enum Node {
    Group(usize),
    Dataset(usize),
}

/// Members by name, and where the parts of the group are.
#[derive(Default)]
struct Group<'a> {
    members: BTreeMap<&'a str, Node>,
    header: u64,
    tree: u64,
    heap: u64,
    heap_size: u64,
}

/// Writes a file with the planned datasets; `values` writes those of one, given its number.
pub(in super::super) fn write(
    output: &mut dyn Write,
    plans: &[Plan<'_>],
    mut values: impl FnMut(usize, &mut dyn Write) -> Outcome<()>,
) -> Outcome<()> {
    let mut groups = groups(plans)?;
    let mut end = SUPERBLOCK;
    for group in &mut groups {
        group.header = end;
        group.tree = group.header + GROUP_HEADER;
        group.heap = group.tree + TREE_NODE * tree_nodes(group.symbol_nodes());
        group.heap_size = 8 + group.members.keys().map(|name| name_size(name)).sum::<u64>();
        end = group.heap + HEAP_HEADER + group.heap_size + SYMBOL_NODE * group.symbol_nodes() as u64;
    }
    let mut headers = Vec::with_capacity(plans.len());
    for plan in plans {
        headers.push(end);
        // The header has the same length wherever the values are.
        end += header(plan, NOWHERE)?.len() as u64;
    }
    let mut places = Vec::with_capacity(plans.len());
    for plan in plans {
        let bytes = plan.bytes()?;
        places.push(if bytes == 0 { NOWHERE } else { end });
        end += bytes.next_multiple_of(8);
    }
    output.write_all(&superblock(&groups[0], end))?;
    for group in &groups {
        output.write_all(&group_bytes(group, &groups, &headers))?;
    }
    for (plan, &place) in plans.iter().zip(&places) {
        output.write_all(&header(plan, place)?)?;
    }
    for (number, plan) in plans.iter().enumerate() {
        let bytes = plan.bytes()?;
        if bytes > 0 {
            values(number, output)?;
            output.write_all(&[0; 8][..(bytes.next_multiple_of(8) - bytes) as usize])?;
        }
    }
    Ok(())
}

/// The groups that the paths name, the root first.
fn groups<'a>(plans: &[Plan<'a>]) -> Outcome<Vec<Group<'a>>> {
    let mut groups = vec![Group::default()];
    for (number, plan) in plans.iter().enumerate() {
        let taken = || Fault::format(format!("`{}`: HDF5 has no group and dataset of one name", plan.path));
        let (parents, name) = plan.path.rsplit_once('/').unwrap_or(("", plan.path));
        let mut here = 0;
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            let next = groups.len();
            here = match groups[here].members.entry(part).or_insert(Node::Group(next)) {
                Node::Group(group) => *group,
                Node::Dataset(_) => return Err(taken()),
            };
            if here == next {
                groups.push(Group::default());
            }
        }
        if groups[here].members.insert(name, Node::Dataset(number)).is_some() {
            return Err(taken());
        }
    }
    Ok(groups)
}

impl Group<'_> {
    fn symbol_nodes(&self) -> usize {
        self.members.len().div_ceil(SYMBOLS)
    }
}

/// Nodes of a tree over so many symbol nodes.
fn tree_nodes(mut below: usize) -> u64 {
    let mut nodes = 0;
    loop {
        below = below.div_ceil(CHILDREN).max(1);
        nodes += below as u64;
        if below == 1 {
            return nodes;
        }
    }
}

/// Bytes of a name in a heap.
fn name_size(name: &str) -> u64 {
    (name.len() as u64 + 1).next_multiple_of(8)
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u8s(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.u8s(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.u8s(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.u8s(&value.to_le_bytes())
    }

    /// Zeros up to the length `length`.
    fn fill(&mut self, length: usize) -> &mut Self {
        self.0.resize(length.max(self.0.len()), 0);
        self
    }

    /// Zeros up to a multiple of eight.
    fn pad(&mut self) -> &mut Self {
        self.fill(self.0.len().next_multiple_of(8))
    }

    /// A message of an object header.
    fn message(&mut self, kind: u16, flags: u8, body: &[u8]) -> Outcome<&mut Self> {
        let size = u16::try_from(body.len().next_multiple_of(8));
        let size = size.map_err(|_| Fault::format("what describes it is too long for HDF5"))?;
        Ok(self.u16(kind).u16(size).u8s(&[flags, 0, 0, 0]).u8s(body).pad())
    }
}

fn superblock(root: &Group<'_>, end: u64) -> Vec<u8> {
    let mut bytes = Bytes::default();
    bytes.u8s(b"\x89HDF\r\n\x1a\n").u8s(&[0, 0, 0, 0, 0, 8, 8, 0]);
    bytes.u16(SYMBOLS as u16 / 2).u16(CHILDREN as u16 / 2).u32(0);
    bytes.u64(0).u64(NOWHERE).u64(end).u64(NOWHERE);
    bytes.u64(0).u64(root.header).u32(1).u32(0).u64(root.tree).u64(root.heap);
    bytes.0
}

fn object_header(messages: u16, body: &[u8]) -> Outcome<Vec<u8>> {
    let size =
        u32::try_from(body.len()).map_err(|_| Fault::format("what describes it is too long for HDF5"))?;
    let mut bytes = Bytes::default();
    bytes.u8s(&[1, 0]).u16(messages).u32(1).u32(size).u32(0).u8s(body);
    Ok(bytes.0)
}

fn group_bytes(group: &Group<'_>, groups: &[Group<'_>], headers: &[u64]) -> Vec<u8> {
    let mut bytes = Bytes::default();
    // The object header with its one message.
    bytes.u8s(&[1, 0]).u16(1).u32(1).u32(24).u32(0);
    bytes.u16(0x11).u16(16).u32(0).u64(group.tree).u64(group.heap);

    let mut offsets = Vec::with_capacity(group.members.len());
    let mut offset = 8;
    for name in group.members.keys() {
        offsets.push(offset);
        offset += name_size(name);
    }
    let nodes = group.heap + HEAP_HEADER + group.heap_size;
    tree(&mut bytes, group.tree, nodes, &offsets);

    bytes.u8s(b"HEAP\0\0\0\0").u64(group.heap_size).u64(1).u64(group.heap + HEAP_HEADER).u64(0);
    for name in group.members.keys() {
        bytes.u8s(name.as_bytes()).u8s(&[0]).pad();
    }
    let members: Vec<_> = group.members.values().zip(&offsets).collect();
    for node in members.chunks(SYMBOLS) {
        let end = bytes.0.len() + SYMBOL_NODE as usize;
        bytes.u8s(b"SNOD\x01\0").u16(node.len() as u16);
        for (member, offset) in node {
            bytes.u64(**offset);
            match member {
                Node::Group(group) => {
                    let group = &groups[*group];
                    bytes.u64(group.header).u32(1).u32(0).u64(group.tree).u64(group.heap)
                }
                Node::Dataset(number) => bytes.u64(headers[*number]).u32(0).u32(0).u64(0).u64(0),
            };
        }
        bytes.fill(end);
    }
    bytes.0
}

/// A tree over the symbol nodes that start at `nodes`, the root first: its address is that of the group's tree.
fn tree(bytes: &mut Bytes, at: u64, nodes: u64, names: &[u64]) {
    // Address and last name of each child, level by level from the leaves up.
    let mut children: Vec<_> = names
        .chunks(SYMBOLS)
        .enumerate()
        .map(|(place, names)| (nodes + SYMBOL_NODE * place as u64, names[names.len() - 1]))
        .collect();
    let total = tree_nodes(children.len());
    let (mut levels, mut after) = (Vec::new(), total);
    loop {
        let level = levels.len() as u8;
        let count = children.len().div_ceil(CHILDREN).max(1) as u64;
        after -= count;
        let first = at + TREE_NODE * after;
        let mut level_bytes = Bytes::default();
        let mut parents = Vec::new();
        let mut before = 0;
        for place in 0..count {
            let from = place as usize * CHILDREN;
            let chunk = &children[from..children.len().min(from + CHILDREN)];
            let neighbour =
                |exists: bool, place: u64| if exists { first + TREE_NODE * place } else { NOWHERE };
            let end = level_bytes.0.len() + TREE_NODE as usize;
            level_bytes.u8s(b"TREE").u8s(&[0, level]).u16(chunk.len() as u16);
            level_bytes.u64(neighbour(place > 0, place.wrapping_sub(1)));
            level_bytes.u64(neighbour(place + 1 < count, place + 1)).u64(before);
            for &(child, last) in chunk {
                level_bytes.u64(child).u64(last);
                before = last;
            }
            level_bytes.fill(end);
            parents.push((first + TREE_NODE * place, before));
        }
        levels.push(level_bytes.0);
        if count == 1 {
            break;
        }
        children = parents;
    }
    levels.iter().rev().for_each(|level| {
        bytes.u8s(level);
    });
}

/// The object header of a dataset whose values are at `place`.
fn header(plan: &Plan<'_>, place: u64) -> Outcome<Vec<u8>> {
    let mut space = Bytes::default();
    space.u8s(&[1, plan.shape.len() as u8, u8::from(!plan.shape.is_empty())]).pad();
    // Sizes, and the same as the largest ones.
    for &size in plan.shape.iter().chain(plan.shape) {
        space.u64(size as u64);
    }
    let mut layout = Bytes::default();
    layout.u8s(&[3, 1]).u64(place).u64(plan.bytes()?);
    let mut bytes = Bytes::default();
    bytes.message(0x01, 0, &space.0)?.message(0x03, 1, &datatype(plan.stored))?;
    // Space was allocated late, and a fill value is written if somebody sets one, which nobody did.
    bytes.message(0x05, 1, &[2, 2, 2, 1, 0, 0, 0, 0])?.message(0x08, 0, &layout.0)?;
    for (name, value) in &plan.attributes {
        bytes.message(0x0c, 0, &attribute(name, value))?;
    }
    object_header(4 + plan.attributes.len() as u16, &bytes.0)
}

fn attribute(name: &str, value: &Value) -> Vec<u8> {
    let (datatype, value) = match value {
        Value::Boolean(value) => (datatype(Stored::Bool), vec![u8::from(*value)]),
        Value::Integer(value) => (datatype(Stored::I64), value.to_le_bytes().to_vec()),
    };
    let scalar = [1, 0, 0, 0, 0, 0, 0, 0];
    let mut bytes = Bytes::default();
    bytes.u8s(&[1, 0]).u16(name.len() as u16 + 1).u16(datatype.len() as u16).u16(scalar.len() as u16);
    bytes.u8s(name.as_bytes()).u8s(&[0]).pad().u8s(&datatype).pad().u8s(&scalar).u8s(&value);
    bytes.0
}

fn datatype(stored: Stored) -> Vec<u8> {
    let mut bytes = Bytes::default();
    let size = stored.size() as u32;
    let mut integer = |signed: bool| {
        bytes.u8s(&[0x10, if signed { 8 } else { 0 }, 0, 0]).u32(size).u16(0).u16(8 * size as u16);
    };
    // Sign, place and width of exponent and fraction, bias.
    let float = match stored {
        Stored::U8 | Stored::U16 | Stored::U32 | Stored::U64 => {
            integer(false);
            return bytes.0;
        }
        Stored::I8 | Stored::I16 | Stored::I32 | Stored::I64 => {
            integer(true);
            return bytes.0;
        }
        // h5py's boolean, bit for bit.
        Stored::Bool => {
            bytes.u8s(&[0x18, 2, 0, 0]).u32(1).u8s(&datatype(Stored::I8));
            bytes.u8s(b"FALSE\0\0\0TRUE\0\0\0\0").u8s(&[0, 1]);
            return bytes.0;
        }
        Stored::F16 => (15, [10, 5, 0, 10], 15),
        Stored::BF16 => (15, [7, 8, 0, 7], 127),
        Stored::F32 => (31, [23, 8, 0, 23], 127),
        Stored::F64 => (63, [52, 11, 0, 52], 1023),
    };
    let (sign, fields, bias) = float;
    bytes.u8s(&[0x11, 0x20, sign, 0]).u32(size).u16(0).u16(8 * size as u16).u8s(&fields).u32(bias);
    bytes.0
}
