//! SCSI, SPC-4 and SBC-3: CDBs, sense data, VPD and mode pages; transport-blind.
