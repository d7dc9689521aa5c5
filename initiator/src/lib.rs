//! The client side.
#![forbid(unsafe_code)]
