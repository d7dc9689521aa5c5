//! INQUIRY (SPC-4 6.6).

use corbel_proto::scsi::copy;
use corbel_proto::scsi::inquiry::{DISK, Inquiry};
use corbel_proto::scsi::vpd::{self, Designator};
use corbel_proto::scsi::{Sense, ascii_field};

use super::provisioning;
use crate::scsi::{LogicalUnit, Plan, View, limits};
use crate::volume::identity::{REVISION, VENDOR};

/// In ascending order, as page 00 must list them. [`vpd::INSTANCE`] follows where it is known.
const PAGES: [u8; 10] = [
    vpd::SUPPORTED_PAGES,
    vpd::UNIT_SERIAL_NUMBER,
    vpd::DEVICE_IDENTIFICATION,
    vpd::EXTENDED_INQUIRY,
    vpd::MODE_PAGE_POLICY,
    vpd::SCSI_PORTS,
    vpd::THIRD_PARTY_COPY,
    vpd::BLOCK_LIMITS,
    vpd::BLOCK_CHARACTERISTICS,
    vpd::LOGICAL_BLOCK_PROVISIONING,
];

pub(in crate::scsi) fn plan(
    lu: &LogicalUnit,
    view: &View<'_>,
    page: Option<u8>,
    allocation: u16,
) -> Result<Plan, Sense> {
    let data = match page {
        None => standard(lu, view),
        Some(code) => vpd::page(DISK, code, body(lu, view, code)?),
    };
    Ok(Plan::data(data, u32::from(allocation)))
}

fn standard(lu: &LogicalUnit, view: &View<'_>) -> Vec<u8> {
    let inquiry = Inquiry {
        peripheral: DISK,
        removable: lu.volume.options.removable,
        vendor: VENDOR,
        product: &lu.volume.identity.model,
        revision: REVISION,
        several_ports: view.ports.len() > 1,
        explicit_access: lu.port_groups.explicit(),
    };
    inquiry.emit()
}

fn body(lu: &LogicalUnit, view: &View<'_>, code: u8) -> Result<Vec<u8>, Sense> {
    let volume = &lu.volume;
    Ok(match code {
        vpd::SUPPORTED_PAGES => {
            PAGES.into_iter().chain(lu.instance().map(|_| vpd::INSTANCE)).collect()
        }
        vpd::UNIT_SERIAL_NUMBER => {
            let len = volume.identity.serial.len().min(20);
            ascii_field::<20>(&volume.identity.serial)[..len].to_vec()
        }
        vpd::DEVICE_IDENTIFICATION => vpd::identification(&designators(lu, view)),
        vpd::EXTENDED_INQUIRY => vpd::extended_inquiry(volume.facts.volatile_cache),
        vpd::MODE_PAGE_POLICY => vpd::mode_page_policy(),
        vpd::SCSI_PORTS => vpd::scsi_ports(view.ports.iter().map(|&p| (p, port_name(view, p)))),
        vpd::THIRD_PARTY_COPY => copy::third_party_copy(volume.facts.block_bytes),
        vpd::BLOCK_LIMITS => limits::block_limits(volume).emit(),
        vpd::BLOCK_CHARACTERISTICS => {
            let (erasable, encrypted) = (limits::erasable(volume), volume.cipher.is_some());
            vpd::characteristics(volume.facts.rotational, erasable, encrypted)
        }
        vpd::LOGICAL_BLOCK_PROVISIONING => {
            let (thin, unmaps) = (limits::thin(volume), limits::unmaps(volume));
            let exponent = provisioning::exponent(lu);
            vpd::provisioning(thin, unmaps, volume.facts.discard_zeroes, exponent)
        }
        vpd::INSTANCE => match lu.instance() {
            Some(instance) => [instance.boot, instance.process].concat(),
            None => return Err(Sense::invalid_cdb(2, None)),
        },
        _ => return Err(Sense::invalid_cdb(2, None)),
    })
}

/// The name of another port of the same target (RFC 7143 4.2.7.1 and SPC-4 7.8.6.11).
fn port_name(view: &View<'_>, port: u16) -> String {
    let target = view.port_name.split_once(",t,").map_or(view.port_name, |(target, _)| target);
    format!("{target},t,{port:#06x}")
}

/// The unit's names first: they are the same through every port, on every head.
fn designators(lu: &LogicalUnit, view: &View<'_>) -> [Designator; 5] {
    let identity = &lu.volume.identity;
    [
        Designator::Naa(identity.naa),
        Designator::T10Vendor { vendor: VENDOR.to_owned(), id: identity.serial.clone() },
        Designator::RelativeTargetPort(view.relative_port),
        Designator::TargetPortGroup(view.port_group),
        Designator::TargetPortName(view.port_name.to_owned()),
    ]
}
