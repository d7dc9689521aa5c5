//! The ATA command set as AoE carries it: registers to commands, IDENTIFY, status.
