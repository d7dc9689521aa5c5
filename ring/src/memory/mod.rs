//! Payload memory: page-aligned, reference-counted without atomics, given back by dropping.
//!
//! A [`Buf`] is a handle to one piece of a `Region`. Regions are of four kinds,
//! and the handle does not tell them apart: chunks of the [`Arena`] (payload on its way between
//! network and disk), the pool that idle connections share, packet receive rings, and stores in
//! memory. Dropping
//! the last clone gives the piece back to where it came from.

mod arena;
mod buddy;
mod sys;
#[cfg(test)]
mod tests;

pub(crate) use arena::Registrar;
pub use arena::{Arena, ArenaConfig, ArenaStats, CHUNK_BYTES};
pub use sys::Buf;
pub(crate) use sys::{Home, Mapping, Region};
