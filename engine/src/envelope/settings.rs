//! How long data keys are used, how many are kept, and how messages are cut.

use std::num::NonZeroU64;
use std::time::Duration;

use super::header::ChunkSize;
use super::shelf::Bounds;

/// Settings of an [`Envelope`](crate::Envelope).
///
/// None of the bounds is the cipher's own: each message has a key of its own, derived from the data key and 32 random
/// bytes, so that a data key wears out after 2^64 messages or so and not after 2^32 (NIST SP 800-38D, 8.3). They bound what
/// one data key opens that falls into wrong hands, and for how long a data key is used whose wrapping key is gone.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct EnvelopeSettings {
    messages_max: NonZeroU64,
    bytes_max: u64,
    age_max: Duration,
    sealing_keys_max: usize,
    opening_keys_max: usize,
    opening_age_max: Duration,
    chunk: ChunkSize,
}

impl EnvelopeSettings {
    /// Most messages that are sealed under one data key.
    ///
    /// Default 65 536: of a call of the token that takes a millisecond, 15 ns fall on each message; more would hardly make
    /// it cheaper. With 1, every message has a data key of its own. The AWS Encryption SDK's caching allows 2^32.
    pub const fn messages_max(mut self, messages: NonZeroU64) -> Self {
        self.messages_max = messages;
        self
    }

    /// Most bytes of plaintext that are sealed under one data key. A message that is larger by itself has a data key to
    /// itself. A message that is written piece by piece counts as it grows: it is finished under its key, also beyond
    /// the bound, and is the last one then.
    ///
    /// Default 64 GiB, a million bytes for each of 65 536 messages. The AWS Encryption SDK's caching allows 2^63 - 1.
    pub const fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// How long a data key seals messages, from when it was asked for.
    ///
    /// Default 5 minutes, as long as Amazon SQS uses one by default (`KmsDataKeyReusePeriodSeconds`). This is also the
    /// longest that messages go on being sealed under a version of a key that was disabled where the provider has no
    /// [epoch](crate::DataKeyProvider::epoch). Zero keeps none.
    pub const fn age_max(mut self, age: Duration) -> Self {
        self.age_max = age;
        self
    }

    /// Most data keys that are kept for sealing: one for each context that is in use. The one that was used longest ago
    /// goes first.
    ///
    /// Default 100. A context that differs for each message, say by a record's number, has a call of the token for each
    /// message, whatever this is; bind such a number in the message itself instead.
    pub const fn sealing_keys_max(mut self, keys: usize) -> Self {
        self.sealing_keys_max = keys;
        self
    }

    /// Most data keys that are kept for opening; the one that was used longest ago goes first.
    ///
    /// Default 1 000, some 200 KB. Who reads messages of more data keys than that in turn asks the token for each.
    pub const fn opening_keys_max(mut self, keys: usize) -> Self {
        self.opening_keys_max = keys;
        self
    }

    /// How long a data key that was unwrapped opens messages. Default 5 minutes, for the same reason as
    /// [`EnvelopeSettings::age_max`]. Zero keeps none.
    pub const fn opening_age_max(mut self, age: Duration) -> Self {
        self.opening_age_max = age;
        self
    }

    /// How large the chunks of new messages are; messages are opened whatever their chunks are. Default 64 KiB.
    ///
    /// Larger chunks cost fewer tags (16 bytes each), and more memory where messages are read and written piece by piece,
    /// as each is held whole. A message that fits into one chunk is one pass of AES-GCM.
    pub const fn chunk_size(mut self, chunk: ChunkSize) -> Self {
        self.chunk = chunk;
        self
    }

    pub(super) const fn chunk(&self) -> ChunkSize {
        self.chunk
    }

    pub(super) const fn sealing(&self) -> Bounds {
        Bounds {
            messages: self.messages_max.get(),
            bytes: self.bytes_max,
            age: self.age_max,
            keys: self.sealing_keys_max,
        }
    }

    pub(super) const fn opening(&self) -> Bounds {
        Bounds { messages: u64::MAX, bytes: u64::MAX, age: self.opening_age_max, keys: self.opening_keys_max }
    }
}

impl Default for EnvelopeSettings {
    fn default() -> Self {
        Self {
            messages_max: NonZeroU64::MIN.saturating_add((1 << 16) - 1),
            bytes_max: 64 << 30,
            age_max: Duration::from_secs(300),
            sealing_keys_max: 100,
            opening_keys_max: 1_000,
            opening_age_max: Duration::from_secs(300),
            chunk: ChunkSize::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_docs() {
        let settings = EnvelopeSettings::default();
        let Bounds { messages, bytes, age, keys } = settings.sealing();
        assert_eq!((messages, bytes, age, keys), (65_536, 1 << 36, Duration::from_secs(300), 100));
        let Bounds { messages, bytes, age, keys } = settings.opening();
        assert_eq!((messages, bytes, age, keys), (u64::MAX, u64::MAX, Duration::from_secs(300), 1_000));
        assert_eq!(settings.chunk().bytes(), 65_536);
    }
}
