//! Portals, targets and sessions: the wire machine of corbel-proto joined to logical units.
