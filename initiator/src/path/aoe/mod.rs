//! A way over AoE: one local interface, one server address, one shelf.slot.
