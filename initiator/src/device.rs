//! An engine and its paths together: what the shell and the simulator drive.
