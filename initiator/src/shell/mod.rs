//! Threads and rings: drives devices, presenters and the network.
