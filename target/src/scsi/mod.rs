//! The logical unit that iSCSI initiators see. Blind to its transport.
