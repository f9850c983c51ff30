//! Messages that say by what key they are to be read. `docs/message-format.md` specifies them byte by byte.

pub(crate) mod blob;
pub(crate) mod context;
pub(crate) mod fields;
#[cfg(test)]
pub(crate) mod vectors;
