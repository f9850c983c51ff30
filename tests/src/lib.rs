//! Behaviours of hsmux through its public API: one file per risk, in `tests/`.
