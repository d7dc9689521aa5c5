//! The unit that is not there (SPC-4 6.6, SAM-5 5.11).

use corbel_proto::scsi::inquiry::{Inquiry, NO_UNIT};
use corbel_proto::scsi::{Command, Condition, Sense, cdb};

use super::commands::report_luns;
use super::{Plan, Reply, View};
use crate::volume::identity::{REVISION, VENDOR};

/// Answers for a LUN that is not mapped: who asks learns that nothing is here, and what is
/// elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct MissingLun;

impl MissingLun {
    /// Plans `cdb`. Only INQUIRY, REPORT LUNS and REQUEST SENSE are more than a refusal.
    pub fn begin(view: &View<'_>, cdb: &[u8]) -> Plan {
        match cdb::parse(cdb).map(|(command, _)| command) {
            Ok(Command::Inquiry { page: None, allocation }) => {
                let (vendor, revision) = (VENDOR, REVISION);
                let inquiry = Inquiry {
                    peripheral: NO_UNIT,
                    removable: false,
                    vendor,
                    product: "",
                    revision,
                    several_ports: false,
                    explicit_access: false,
                };
                Plan::data(inquiry.emit(), u32::from(allocation))
            }
            Ok(Command::ReportLuns { select, allocation }) => {
                report_luns::plan(view, select, allocation)
                    .unwrap_or_else(|sense| Plan::respond(Reply::check(sense, false)))
            }
            Ok(Command::RequestSense { descriptor, allocation }) => {
                let sense = Sense::from(Condition::LOGICAL_UNIT_NOT_SUPPORTED).encode(descriptor);
                Plan::data(sense.as_slice().to_vec(), u32::from(allocation))
            }
            _ => Self::refuse(),
        }
    }

    /// LOGICAL UNIT NOT SUPPORTED.
    pub fn refuse() -> Plan {
        Plan::respond(Reply::check(Condition::LOGICAL_UNIT_NOT_SUPPORTED.into(), false))
    }
}
