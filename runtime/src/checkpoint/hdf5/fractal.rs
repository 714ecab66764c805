//! Fractal heaps, where groups and objects keep many links and attributes.

use std::collections::BTreeMap;

use super::super::Outcome;
use super::checksum::lookup3;
use super::image::{Block, Image};

pub(super) struct Heap {
    /// Direct blocks by the offset in the heap at which they start.
    blocks: BTreeMap<u64, Block>,
    objects: u64,
    offset_width: usize,
    length_width: usize,
    end: Block,
    /// What was handed out: end by start.
    used: BTreeMap<u64, u64>,
}

/// The shape of a heap.
struct Table {
    address: u64,
    offset_width: usize,
    columns: u64,
    start: u64,
    largest: u64,
    has_checksums: bool,
}

impl Table {
    /// Size of the blocks of a row.
    fn size(&self, row: u32) -> Option<u64> {
        let size = self.start.checked_shl(row.saturating_sub(1))?;
        (size >> row.saturating_sub(1) == self.start).then_some(size)
    }

    /// Rows of direct blocks.
    fn direct_rows(&self) -> u32 {
        self.largest.ilog2() - self.start.ilog2() + 2
    }
}

impl Heap {
    pub(super) fn read(image: &mut Image<'_>, address: u64) -> Outcome<Self> {
        let what = "a heap";
        let (wide, long) = (image.widths.address, image.widths.length);
        let size = 26 + 12 * long + 3 * wide;
        let mut head = image.peek(address, 9, what)?;
        head.skip(7)?;
        if head.u16()? != 0 {
            return Err(head.fault("a heap is compressed, which is not read"));
        }
        let mut head = image.take_signed(address, size as u64, b"FRHP", what)?;
        head.version(0, what)?;
        head.skip(4)?;
        let flags = head.u8()?;
        let most = u64::from(head.u32()?);
        head.skip(long + wide + long + wide + 3 * long)?;
        let managed = head.length()?;
        head.skip(long)?;
        let huge = head.length()?;
        head.skip(long)?;
        let tiny = head.length()?;
        let columns = u64::from(head.u16()?);
        let (start, largest, bits) = (head.length()?, head.length()?, usize::from(head.u16()?));
        head.skip(2)?;
        let (root, rows) = (head.address()?, u32::from(head.u16()?));
        let powers = start.is_power_of_two() && largest.is_power_of_two() && columns.is_power_of_two();
        if !powers || start > largest || !(1..=64).contains(&bits) || most == 0 {
            return Err(head.fault("a heap has an impossible shape"));
        }
        let offset_width = bits.div_ceil(8);
        let table = Table { address, offset_width, columns, start, largest, has_checksums: flags & 2 != 0 };
        let mut heap = Self {
            blocks: BTreeMap::new(),
            objects: managed.saturating_add(huge).saturating_add(tiny),
            offset_width,
            length_width: (largest.ilog2() as usize).div_ceil(8).min(most.ilog2() as usize / 8 + 1),
            end: head,
            used: BTreeMap::new(),
        };
        match root {
            None => {}
            Some(root) if rows == 0 => heap.direct(image, &table, root, 0, start)?,
            Some(root) => heap.indirect(image, &table, root, rows)?,
        }
        Ok(heap)
    }

    fn indirect(&mut self, image: &mut Image<'_>, table: &Table, root: u64, rows: u32) -> Outcome<()> {
        let what = "an indirect block of a heap";
        let wide = image.widths.address;
        let mut open = vec![(root, 0_u64, rows)];
        while let Some((address, base, rows)) = open.pop() {
            let head = 5 + wide + table.offset_width;
            let children = u64::from(rows) * table.columns;
            let size = children.saturating_mul(wide as u64).saturating_add(head as u64 + 4);
            let mut block = image.take_signed(address, size, b"FHIB", what)?;
            start(&mut block, table, base, what)?;
            let mut offset = base;
            for row in 0..rows {
                let Some(size) = table.size(row) else {
                    return Err(block.fault("a heap has too many rows"));
                };
                for _ in 0..table.columns {
                    match block.address()? {
                        None => {}
                        Some(child) if row < table.direct_rows() => {
                            self.direct(image, table, child, offset, size)?
                        }
                        Some(child) => open.push((child, offset, rows_of(table, size))),
                    }
                    offset = offset.checked_add(size).ok_or_else(|| block.fault("a heap is too large"))?;
                }
            }
        }
        Ok(())
    }

    fn direct(
        &mut self,
        image: &mut Image<'_>,
        table: &Table,
        address: u64,
        offset: u64,
        size: u64,
    ) -> Outcome<()> {
        let what = "a block of a heap";
        let mut block = image.take(address, size, what)?;
        block.signature(b"FHDB", what)?;
        start(&mut block, table, offset, what)?;
        if table.has_checksums {
            let at = block.all().len() - block.remaining();
            let sum = block.u32()?;
            let mut bytes = block.all().to_vec();
            bytes[at..at + 4].fill(0);
            if lookup3(&bytes) != sum {
                return Err(block.fault("a block of a heap is damaged: its checksum differs"));
            }
        }
        self.blocks.insert(offset, block);
        Ok(())
    }

    /// Fails unless the heap says that it has as many objects.
    pub(super) fn expect(&self, count: usize) -> Outcome<()> {
        if self.objects != count as u64 {
            let objects = self.objects;
            return Err(self.end.fault(&format!("a heap has {objects} objects, its index {count}")));
        }
        Ok(())
    }

    /// The object with the given identity; `None` if it lies outside the heap.
    pub(super) fn object(&mut self, identity: &[u8]) -> Outcome<Option<Block>> {
        let fault = || self.end.fault("an index leads to nothing in its heap");
        let number = |from: usize, count: usize| -> Option<u64> {
            let bytes = identity.get(from..from + count)?;
            Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
        };
        match number(0, 1) {
            Some(0) => {}
            Some(0x10) => return Ok(None),
            _ => return Err(fault()),
        }
        let offset = number(1, self.offset_width).ok_or_else(fault)?;
        let length = number(1 + self.offset_width, self.length_width).ok_or_else(fault)?;
        let (start, block) = self.blocks.range(..=offset).next_back().ok_or_else(fault)?;
        let part = block.part((offset - start) as usize, length as usize)?;
        let end = offset.saturating_add(length);
        if length == 0 || self.used.range(..end).next_back().is_some_and(|(_, &other)| other > offset) {
            return Err(self.end.fault("two objects of a heap overlap"));
        }
        self.used.insert(offset, end);
        Ok(Some(part))
    }
}

fn start(block: &mut Block, table: &Table, offset: u64, what: &str) -> Outcome<()> {
    block.version(0, what)?;
    let owner = block.somewhere(what)?;
    if owner != table.address || block.uint(table.offset_width)? != offset {
        return Err(block.fault(&format!("{what} belongs elsewhere")));
    }
    Ok(())
}

/// Rows of an indirect block that covers `size` bytes.
fn rows_of(table: &Table, size: u64) -> u32 {
    let first = table.start.saturating_mul(table.columns);
    (size.ilog2() + 1).saturating_sub(first.ilog2())
}
