//! Memory for what requests carry.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Bytes of a request or its answer; wiped when dropped.
///
/// As `Zeroizing<Vec<u8>>`, but one without memory costs nothing to drop: a request on its way leaves a dozen empty
/// ones behind, and `zeroize` calls `memset` for each.
#[derive(Clone, Default)]
pub(crate) struct Payload(Vec<u8>);

impl Payload {
    pub(crate) const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Memory for an output. Short ones are filled by hand: glibc's `calloc`, which `vec![0; n]` calls, passes by
    /// the thread's own cache of free blocks and takes 170 instructions more than `malloc` and a `memset` do.
    pub(crate) fn zeroed(len: usize) -> Self {
        const SHORT: usize = 1_024;
        if len > SHORT {
            return Self(vec![0; len]);
        }
        let mut bytes = Vec::with_capacity(len);
        // A zero that the compiler does not know: else it makes `calloc` of it again.
        bytes.resize(len, std::hint::black_box(0));
        Self(bytes)
    }

    /// Wipes it and keeps its memory.
    pub(crate) fn wipe(&mut self) {
        if self.0.capacity() > 0 {
            self.0.zeroize();
        }
    }
}

/// What a request is given: the caller's, or the engine's own, which is wiped wherever the request ends.
pub(crate) enum Input<'a> {
    Borrowed(&'a [u8]),
    Owned(Payload),
}

impl Input<'_> {
    /// As memory of the engine's own; what is owned moves.
    pub(crate) fn into_payload(self) -> Payload {
        match self {
            Self::Borrowed(bytes) => Payload::new(bytes.to_vec()),
            Self::Owned(payload) => payload,
        }
    }
}

impl Default for Input<'_> {
    fn default() -> Self {
        Self::Borrowed(&[])
    }
}

impl<'a> From<Cow<'a, [u8]>> for Input<'a> {
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        match bytes {
            Cow::Borrowed(bytes) => Self::Borrowed(bytes),
            Cow::Owned(bytes) => Self::Owned(Payload::new(bytes)),
        }
    }
}

impl Deref for Input<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(payload) => payload,
        }
    }
}

impl Drop for Payload {
    #[inline]
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Deref for Payload {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Payload {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_begins_with_zeros_and_a_wiped_payload_keeps_its_memory_and_nothing_else() {
        for len in [0, 1, 1_024, 1_025] {
            let mut payload = Payload::zeroed(len);
            assert_eq!(*payload, vec![0; len]);
            payload.fill(0xA5);
            payload.wipe();
            assert!(payload.is_empty() && payload.capacity() >= len);
            payload.resize(len, 0);
            assert_eq!(*payload, vec![0; len]);
        }
    }
}
