//! Counter blocks (SP 800-38A, appendix B.1: the standard incrementing function).

/// Appends the counter blocks for `len` bytes. The last `counter_bits` of a block count and the rest stays; that the
/// counter does not overflow was checked before.
pub(super) fn blocks(first: &[u8], counter_bits: u32, len: usize, to: &mut Vec<u8>) {
    let Ok(first) = first.try_into().map(u128::from_be_bytes) else { return };
    let mask = u128::MAX.checked_shr(128 - counter_bits.min(128)).unwrap_or(0);
    for number in 0..len.div_ceil(16) as u128 {
        let counted = first.wrapping_add(number) & mask;
        to.extend_from_slice(&(first & !mask | counted).to_be_bytes());
    }
}
