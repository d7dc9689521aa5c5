//! The daemon's control plane.
