//! Benches of the pure parts; see the files beside this one.
#![forbid(unsafe_code)]
