//! Laid out, not written yet.
