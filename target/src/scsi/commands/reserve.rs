//! PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16), RESERVE and RELEASE (SPC-2 7.21 to 7.24).
//!
//! What they mean is decided in [`crate::reservation`]; here they are read and answered.

use corbel_proto::scsi::cdb::{LegacyReserve, ReserveOut};
use corbel_proto::scsi::reservation::{
    self as wire, FullStatus, InAction, OutAction, OutList, Type,
};
use corbel_proto::scsi::transport_id::TransportId;
use corbel_proto::scsi::{Condition, Sense, Status};

use crate::reservation::{Ended, Order, Proposal, Refusal, Registration, State};
use crate::scsi::plan::{Action, Kept, ParameterKind};
use crate::scsi::{LogicalUnit, Nexus, Plan, Reply, View};

/// Longer lists than any that names as many others as may be named.
const LIST_BYTES_MAX: u32 = 16 << 10;

fn conflict() -> Plan {
    Plan::respond(Reply::status(Status::ReservationConflict))
}

/// PERSISTENT RESERVE IN: everybody may ask, unless there is an SPC-2 reservation.
pub(in crate::scsi) fn read(lu: &LogicalUnit, action: InAction, allocation: u16) -> Plan {
    let reservations = &lu.volume.reservations;
    let Some(state) = reservations.state() else { return conflict() };
    let generation = state.generation;
    let data = match action {
        InAction::ReadKeys => wire::keys(generation, state.registrations.iter().map(|r| r.key)),
        InAction::ReadReservation => wire::reservation(generation, held(&state)),
        InAction::ReportCapabilities => {
            wire::capabilities(reservations.can_persist(), state.persists)
        }
        InAction::ReadFullStatus => {
            wire::full_status(generation, state.registrations.iter().map(|r| status(&state, r)))
        }
    };
    Plan::data(data, u32::from(allocation))
}

/// The holder's key, or zero if all registrants hold it.
fn held(state: &State) -> Option<(u64, Type)> {
    let held = state.held.as_ref()?;
    let holder = held.holder.as_ref().and_then(|holder| state.find(holder));
    Some((holder.map_or(0, |registration| registration.key), held.kind))
}

fn status(state: &State, registration: &Registration) -> FullStatus {
    let holds = state.holds(&registration.nexus);
    FullStatus {
        key: registration.key,
        all_target_ports: registration.all_target_ports,
        holds: state.held.as_ref().filter(|_| holds).map(|held| held.kind),
        target_port: registration.nexus.port,
        initiator: TransportId::Port(registration.nexus.initiator.clone()),
    }
}

/// PERSISTENT RESERVE OUT: its list is needed first.
pub(in crate::scsi) fn plan(command: &ReserveOut) -> Result<Plan, Sense> {
    let len = u16::try_from(command.len).ok().filter(|_| command.len <= LIST_BYTES_MAX);
    match len {
        Some(len @ 24..) => {
            let (action, scope_type) = (command.action, command.scope_type);
            Ok(Plan::parameters(ParameterKind::ReserveOut { action, scope_type }, len))
        }
        _ => Err(Condition::PARAMETER_LIST_LENGTH_ERROR.into()),
    }
}

pub(in crate::scsi) fn resume(
    nexus: &Nexus,
    view: &View<'_>,
    (action, scope_type): (OutAction, u8),
    list: &[u8],
) -> Result<Plan, Sense> {
    let list = OutList::parse(action, list)?;
    // LU_SCOPE is the only scope there is.
    let kind = (scope_type >> 4 == 0).then_some(scope_type & 0x0f).and_then(Type::from_code);
    let order = Order { action, kind, list };
    let volume = &nexus.lu.volume;
    match volume.reservations.propose(&nexus.name, &order, view.ports) {
        Proposal::Refused(Refusal::Conflict) => Ok(conflict()),
        Proposal::Refused(Refusal::Sense(sense)) => Err(sense),
        Proposal::Busy => Ok(Plan::respond(Reply::status(Status::Busy))),
        Proposal::Done(ended) => Ok(done(ended)),
        Proposal::Persist(bytes) => {
            let (file, then) = (volume.state_name(), Kept::Reservations);
            Ok(Plan::action(Action::Keep { file, bytes, then }))
        }
    }
}

fn done(ended: Ended) -> Plan {
    if ended.is_nothing() { Plan::good() } else { Plan::action(Action::Evict(ended)) }
}

impl LogicalUnit {
    /// The state file is stable, or could not be written, and then nothing has changed.
    pub(in crate::scsi) fn reservations_kept(&self, ok: bool) -> Plan {
        let ended = self.volume.reservations.settle(ok);
        if ok {
            return done(ended);
        }
        let failed = Condition::INTERNAL_TARGET_FAILURE.into();
        Plan::respond(Reply::check(failed, self.descriptor_sense()))
    }
}

/// RESERVE and RELEASE of the whole unit, by and for who asks.
pub(in crate::scsi) fn legacy(nexus: &Nexus, command: &LegacyReserve) -> Result<Plan, Sense> {
    if let Some((byte, bit)) = command.odd {
        return Err(Sense::invalid_cdb(byte, Some(bit)));
    }
    let reservations = &nexus.lu.volume.reservations;
    if command.release {
        let may = reservations.release(&nexus.name);
        return Ok(if may { Plan::good() } else { conflict() });
    }
    let may = reservations.reserve(&nexus.name);
    let ended = Ended { registered: Vec::new(), outsiders: true };
    Ok(if may { done(ended) } else { conflict() })
}
