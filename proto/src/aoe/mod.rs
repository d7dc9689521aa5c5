//! ATA over Ethernet r11: frames and the rules of both roles.
