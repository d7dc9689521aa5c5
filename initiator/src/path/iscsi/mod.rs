//! A way over iSCSI: one portal, one session, one unit.
