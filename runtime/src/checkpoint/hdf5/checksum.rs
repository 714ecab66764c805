//! The checksums of HDF5.

/// Bob Jenkins's `lookup3`, the checksum of structures and the hash of names.
pub(super) fn lookup3(bytes: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32);
    let [mut a, mut b, mut c] = [start; 3];
    let word = |bytes: &[u8], at: usize| {
        let mut word = [0; 4];
        for (to, from) in word.iter_mut().zip(bytes.iter().skip(at)) {
            *to = *from;
        }
        u32::from_le_bytes(word)
    };
    let mut rest = bytes;
    while rest.len() > 12 {
        a = a.wrapping_add(word(rest, 0));
        b = b.wrapping_add(word(rest, 4));
        c = c.wrapping_add(word(rest, 8));
        for (shift, which) in [(4, 0), (6, 1), (8, 2), (16, 0), (19, 1), (4, 2)] {
            // Each step mixes one of the three with the one before it and adds the one after it.
            let (x, y, z) = match which {
                0 => (&mut a, &mut c, b),
                1 => (&mut b, &mut a, c),
                _ => (&mut c, &mut b, a),
            };
            *x = x.wrapping_sub(*y) ^ y.rotate_left(shift);
            *y = y.wrapping_add(z);
        }
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return c;
    }
    a = a.wrapping_add(word(rest, 0));
    b = b.wrapping_add(word(rest, 4));
    c = c.wrapping_add(word(rest, 8));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// Fletcher's checksum as HDF5 has it: over pairs of bytes, the first of them high. Sums are kept between 1 and 65535
/// unless everything is zero.
pub(super) fn fletcher32(bytes: &[u8]) -> u32 {
    let fold = |sum: u64| if sum == 0 { 0 } else { (sum - 1) % 65535 + 1 };
    let (mut low, mut high) = (0_u64, 0_u64);
    // As many pairs as cannot overflow 64 bits.
    for run in bytes.chunks(1 << 16) {
        for pair in run.chunks(2) {
            let second = pair.get(1).copied().unwrap_or(0);
            low += u64::from(u16::from_be_bytes([pair[0], second]));
            high += low;
        }
        (low, high) = (fold(low), fold(high));
    }
    (high as u32) << 16 | low as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums() {
        // Jenkins's own examples.
        assert_eq!(lookup3(b""), 0xdead_beef);
        assert_eq!(lookup3(b"Four score and seven years ago"), 0x1777_0551);
        assert_eq!(fletcher32(b""), 0);
        assert_eq!(fletcher32(&[0, 1, 0, 2]), 0x0004_0003);
        assert_eq!(fletcher32(&[0xff, 0xff]), 0xffff_ffff);
        assert_eq!(fletcher32(&[0xff, 0xff, 0, 1]), 0x0001_0001);
        assert_eq!(fletcher32(&[1]), 0x0100_0100);
    }
}
