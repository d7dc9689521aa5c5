//! initiator.toml.
