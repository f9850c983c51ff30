//! Bytes that stand as hexadecimal text in records.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// So many bytes, written as twice as many lower-case digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hex<const N: usize>([u8; N]);

/// Any number of bytes, written so.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct HexBytes(pub(crate) Vec<u8>);

/// It is no such text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoHex;

impl<const N: usize> Hex<N> {
    pub(crate) const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = NoHex;

    fn from_str(text: &str) -> Result<Self, NoHex> {
        text.parse::<HexBytes>()?.0.try_into().map(Self).map_err(|_| NoHex)
    }
}

impl FromStr for HexBytes {
    type Err = NoHex;

    fn from_str(text: &str) -> Result<Self, NoHex> {
        // Lower case only: one text for the same bytes.
        HEXLOWER.decode(text.as_bytes()).map(Self).map_err(|_| NoHex)
    }
}

impl fmt::Display for NoHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the right number of lower-case hexadecimal digits")
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for HexBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for HexBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for HexBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_back_as_they_were_written_and_nothing_else_is_read() {
        let bytes = Hex::new([0, 0xab, 0xff]);
        assert_eq!(bytes.to_string(), "00abff");
        assert_eq!("00abff".parse(), Ok(bytes));
        for wrong in ["", "00abf", "00abfff0", "00ABFF", "00abfg", " 00abff"] {
            assert_eq!(wrong.parse::<Hex<3>>(), Err(NoHex), "{wrong}");
        }
        assert_eq!("".parse::<HexBytes>(), Ok(HexBytes::default()));
    }
}
