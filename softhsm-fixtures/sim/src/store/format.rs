//! What is in an object's file: attributes as this machine has them in memory, and a hash by which a file is whole.

use sha2::{Digest, Sha256};

use crate::object::Attributes;

/// What every file begins with; the number is that of the format.
const MAGIC: &[u8] = b"p11-sim object 1\n";

/// Type and length of an attribute, eight bytes each.
const HEAD_LEN: usize = 16;

pub(super) fn encode(attributes: &Attributes) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (kind, value) in attributes.iter() {
        bytes.extend(kind.to_le_bytes());
        bytes.extend((value.len() as u64).to_le_bytes());
        bytes.extend(value);
    }
    let hash = Sha256::digest(&bytes);
    bytes.extend(hash);
    bytes
}

/// None if it is not whole.
pub(super) fn decode(bytes: &[u8]) -> Option<Attributes> {
    let (content, hash) = bytes.split_last_chunk::<32>()?;
    if Sha256::digest(content)[..] != hash[..] {
        return None;
    }
    let mut rest = content.strip_prefix(MAGIC)?;
    let mut attributes = Attributes::default();
    while !rest.is_empty() {
        let (head, behind) = rest.split_at_checked(HEAD_LEN)?;
        let (kind, len) = head.split_at(HEAD_LEN / 2);
        let len = usize::try_from(u64::from_le_bytes(len.try_into().ok()?)).ok()?;
        let (value, behind) = behind.split_at_checked(len)?;
        attributes.set(u64::from_le_bytes(kind.try_into().ok()?), value.to_vec());
        rest = behind;
    }
    Some(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_and_a_changed_byte_is_noticed() {
        let attributes: Attributes =
            [(3, b"label".to_vec()), (0x4000_0600, Vec::new())].into_iter().collect();
        let bytes = encode(&attributes);
        assert_eq!(decode(&bytes), Some(attributes));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed), None, "byte {at}");
        }
    }
}
