//! Other programs' configuration, read as it stands.
