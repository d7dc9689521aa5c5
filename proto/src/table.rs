//! Hash tables by short keys, for the way of every request.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

/// A table by tags and other short keys. Its hash is a few instructions where the standard one is
/// dozens, and can be foreseen: who chooses the keys can make them collide. So use it only where
/// the number of entries is bounded by something small, a command window for example, or where
/// the keys are our own.
pub type ShortKeyMap<K, V> = HashMap<K, V, FxBuildHasher>;
