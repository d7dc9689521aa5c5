//! The ATA disk that AoE clients see: commands to volume requests, IDENTIFY, status.
