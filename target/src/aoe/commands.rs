//! Query Config, MAC Mask and Reserve: off the hot path.

use std::rc::Rc;

use corbel_proto::aoe::config::{self, ARGUMENT_BYTES as CONFIG_BYTES};
use corbel_proto::aoe::{
    Code, ConfigPacket, ConfigRepr, Error, HeaderRepr, Mac, MaskPacket, MaskRepr, ReservePacket,
    ReserveRepr, VERSION, mask, reserve, sectors_advertised,
};
use corbel_proto::memory::Buffer;

use super::local::Local;
use super::slot::Proposal;
use super::{AoeServer, Contents, Frame, PortId};
use crate::host::Host;

/// Bytes of the AoE header that an MTU counts.
const AOE_BYTES: usize = 10;

/// A change on its way to stable storage, and the reply it will get.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) port: PortId,
    pub(super) local: Rc<Local>,
    pub(super) header: HeaderRepr,
    pub(super) answer: Answer,
}

/// What the reply to a change says besides the state that is then in force.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Config(config::Command),
    Mask(mask::Command),
    Reserve(reserve::Command),
}

/// True for what may be asked of many slots at once: it changes nothing and touches no disk.
pub(super) fn is_question(code: Code, argument: &[u8]) -> bool {
    use config::Command::{Read, Test, TestPrefix};
    match code {
        Code::Config => ConfigPacket::new_checked(argument)
            .is_ok_and(|p| matches!(p.command(), Read | Test | TestPrefix)),
        Code::Mask => {
            MaskPacket::new_checked(argument).is_ok_and(|p| p.command() == mask::Command::Read)
        }
        Code::Reserve => ReservePacket::new_checked(argument)
            .is_ok_and(|p| p.command() == reserve::Command::Read),
        Code::Ata | Code::Other(_) => false,
    }
}

impl<B: Buffer> AoeServer<B> {
    /// Tells who may know that the slots on `port` are there: at start, when the interface comes
    /// up, its MTU changes, or a size does. The frame is a config response that nobody asked for.
    /// To be called on one shard only.
    pub fn announce(&mut self, port: PortId) {
        let Some((mac, _)) = self.port_mtu(port) else { return };
        for local in self.on_port(port) {
            let contents = local.slot.contents();
            let address = local.slot.address();
            for destination in audience(local.slot.allow(), &contents.mask) {
                let header = HeaderRepr {
                    destination,
                    source: mac,
                    version: VERSION,
                    response: true,
                    error: None,
                    shelf: address.shelf(),
                    slot: address.slot(),
                    code: Code::Config,
                    tag: 0,
                };
                let body = self.config_body(port, &local, config::Command::Read, &contents);
                // A config string of 1024 bytes does not fit every MTU. Cut, it would be another.
                if self.fits(port, body.len()) {
                    self.send(Frame::plain(port, &header, body));
                }
            }
        }
    }

    /// Answers one slot's part of a broadcast that [`is_question`].
    pub(super) fn answer_question(
        &mut self,
        port: PortId,
        local: &Rc<Local>,
        header: &HeaderRepr,
        argument: &[u8],
    ) {
        let contents = local.slot.contents();
        match header.code {
            Code::Config => {
                let Ok(packet) = ConfigPacket::new_checked(argument) else { return };
                self.config_question(port, local, header, &ConfigRepr::parse(&packet), &contents);
            }
            Code::Mask => {
                self.answer(port, local, header, Answer::Mask(mask::Command::Read));
            }
            Code::Reserve => {
                self.answer(port, local, header, Answer::Reserve(reserve::Command::Read));
            }
            Code::Ata | Code::Other(_) => {}
        }
    }

    /// Read, test and prefix test: the answer, or silence if it does not match.
    fn config_question(
        &mut self,
        port: PortId,
        local: &Rc<Local>,
        header: &HeaderRepr,
        query: &ConfigRepr<'_>,
        contents: &Contents,
    ) {
        let matches = match query.command {
            config::Command::Test => contents.config == query.string,
            config::Command::TestPrefix => contents.config.starts_with(query.string),
            _ => true,
        };
        if matches {
            self.answer(port, local, header, Answer::Config(query.command));
        }
    }

    pub(super) fn config<H: Host<Memory = B, Buf = B>>(
        &mut self,
        port: PortId,
        local: &Rc<Local>,
        header: &HeaderRepr,
        argument: &[u8],
        host: &mut H,
    ) {
        let Ok(packet) = ConfigPacket::new_checked(argument) else {
            return self.refuse(port, local, header, Error::BadArgument);
        };
        let query = ConfigRepr::parse(&packet);
        let force = match query.command {
            config::Command::Other(_) => {
                return self.refuse(port, local, header, Error::BadArgument);
            }
            config::Command::Set => false,
            config::Command::ForceSet => true,
            _ => {
                let contents = local.slot.contents();
                return self.config_question(port, local, header, &query, &contents);
            }
        };
        let proposal = local.slot.propose(|now| {
            let free = now.config.is_empty() || now.config == query.string;
            if !force && !free {
                return Err(Error::ConfigStringPresent);
            }
            Ok(Contents { config: query.string.to_vec(), ..now.clone() })
        });
        let answer = Answer::Config(query.command);
        match proposal {
            // The string that stands there goes with the error.
            Proposal::Refused(error) => {
                local.count(|s| s.refused += 1);
                self.answer_with(port, local, header, answer, Some(error));
            }
            other => self.carry_on(port, local, header, other, answer, host),
        }
    }

    pub(super) fn mask<H: Host<Memory = B, Buf = B>>(
        &mut self,
        port: PortId,
        local: &Rc<Local>,
        header: &HeaderRepr,
        argument: &[u8],
        host: &mut H,
    ) {
        let parsed = MaskPacket::new_checked(argument).map(|packet| MaskRepr::parse(&packet));
        let Ok(MaskRepr::List(command, directives)) = parsed else {
            return self.refuse(port, local, header, Error::BadArgument);
        };
        match command {
            mask::Command::Read => self.answer(port, local, header, Answer::Mask(command)),
            mask::Command::Other(_) => self.refuse(port, local, header, Error::BadArgument),
            mask::Command::Edit => {
                // No list may grow beyond what a reply on this port can show.
                let mtu = self.port_mtu(port).map_or(0, |(_, mtu)| mtu as usize);
                let room = mtu.saturating_sub(AOE_BYTES + mask::ARGUMENT_BYTES);
                let most = (room / mask::DIRECTIVE_BYTES).min(mask::DIRECTIVES_MAX);
                let proposal = local.slot.propose(|now| {
                    let mask = edited(&now.mask, &directives, most)?;
                    Ok(Contents { mask, ..now.clone() })
                });
                match proposal {
                    Proposal::Refused((error, place)) => {
                        self.mask_failed(port, local, header, error, place);
                    }
                    other => self.carry_on(port, local, header, other, Answer::Mask(command), host),
                }
            }
        }
    }

    fn mask_failed(
        &mut self,
        port: PortId,
        local: &Local,
        header: &HeaderRepr,
        error: mask::Error,
        place: u8,
    ) {
        local.count(|s| s.refused += 1);
        let Some(reply) = self.reply_header(port, local, header, None) else { return };
        let failed = MaskRepr::Failed(error, place);
        let mut body = vec![0; failed.buffer_len()];
        failed.emit(&mut body);
        self.send(Frame::plain(port, &reply, body));
    }

    pub(super) fn reserve<H: Host<Memory = B, Buf = B>>(
        &mut self,
        port: PortId,
        local: &Rc<Local>,
        header: &HeaderRepr,
        argument: &[u8],
        host: &mut H,
    ) {
        let parsed = ReservePacket::new_checked(argument).map(|packet| ReserveRepr::parse(&packet));
        let Ok(ReserveRepr { command, macs }) = parsed else {
            return self.refuse(port, local, header, Error::BadArgument);
        };
        let answer = Answer::Reserve(command);
        let force = match command {
            reserve::Command::Read => return self.answer(port, local, header, answer),
            reserve::Command::Other(_) => {
                return self.refuse(port, local, header, Error::BadArgument);
            }
            reserve::Command::Set => false,
            reserve::Command::ForceSet => true,
        };
        let sender = header.source;
        let proposal = local.slot.propose(|now| {
            let free = now.reserve.is_empty() || now.reserve.contains(&sender);
            if !force && !free {
                return Err(Error::TargetReserved);
            }
            Ok(Contents { reserve: macs, ..now.clone() })
        });
        match proposal {
            Proposal::Refused(error) => {
                local.count(|s| (s.refused, s.conflicts) = (s.refused + 1, s.conflicts + 1));
                self.answer_with(port, local, header, answer, Some(error));
            }
            other => self.carry_on(port, local, header, other, answer, host),
        }
    }

    /// What all changes have in common once they are permitted.
    fn carry_on<E, H: Host<Memory = B, Buf = B>>(
        &mut self,
        port: PortId,
        local: &Rc<Local>,
        header: &HeaderRepr,
        proposal: Proposal<E>,
        answer: Answer,
        host: &mut H,
    ) {
        match proposal {
            Proposal::Unchanged => self.changed(port, local, header, answer),
            Proposal::Persist(bytes) => {
                let change = Change { port, local: local.clone(), header: *header, answer };
                let token = self.changes.insert(change) as u64;
                host.persist(&local.slot.state_name(), bytes, token);
            }
            Proposal::Busy | Proposal::Refused(_) => local.count(|s| s.busy += 1),
        }
    }

    /// The change that was handed to [`Host::persist`] with `token` is on stable storage, or it
    /// could not be written and was not made.
    pub fn persisted(&mut self, token: u64, ok: bool) {
        let known = usize::try_from(token).ok().and_then(|key| self.changes.try_remove(key));
        let Change { port, local, header, answer } =
            known.expect("the host answers each change once");
        local.slot.settle(ok);
        match answer {
            _ if ok => self.changed(port, &local, &header, answer),
            Answer::Mask(_) => {
                self.mask_failed(port, &local, &header, mask::Error::Unspecified, 0);
            }
            Answer::Config(_) | Answer::Reserve(_) => {
                self.refuse(port, &local, &header, Error::DeviceUnavailable);
            }
        }
    }

    /// Answers a change that is in force.
    fn changed(&mut self, port: PortId, local: &Rc<Local>, header: &HeaderRepr, answer: Answer) {
        match answer {
            Answer::Reserve(_) => self.reserved(port, local, header, answer),
            Answer::Config(_) | Answer::Mask(_) => self.answer(port, local, header, answer),
        }
    }

    pub(super) fn answer(
        &mut self,
        port: PortId,
        local: &Local,
        header: &HeaderRepr,
        answer: Answer,
    ) {
        self.answer_with(port, local, header, answer, None);
    }

    /// A reply that shows what is in force.
    fn answer_with(
        &mut self,
        port: PortId,
        local: &Local,
        header: &HeaderRepr,
        answer: Answer,
        error: Option<Error>,
    ) {
        let Some(reply) = self.reply_header(port, local, header, error) else { return };
        let contents = local.slot.contents();
        let body = match answer {
            Answer::Config(command) => self.config_body(port, local, command, &contents),
            Answer::Mask(command) => {
                let list = contents.mask.into_iter().map(mask::Directive::None).collect();
                let repr = MaskRepr::List(command, list);
                let mut body = vec![0; repr.buffer_len()];
                repr.emit(&mut body);
                body
            }
            Answer::Reserve(command) => {
                let repr = ReserveRepr { command, macs: contents.reserve };
                let mut body = vec![0; repr.buffer_len()];
                repr.emit(&mut body);
                body
            }
        };
        if !self.fits(port, body.len()) {
            return self.refuse(port, local, header, Error::BadArgument);
        }
        self.send(Frame::plain(port, &reply, body));
    }

    /// Does an argument of `len` bytes fit a frame on this port?
    fn fits(&self, port: PortId, len: usize) -> bool {
        self.port_mtu(port).is_some_and(|(_, mtu)| AOE_BYTES + len <= mtu as usize)
    }

    fn config_body(
        &self,
        port: PortId,
        local: &Local,
        command: config::Command,
        contents: &Contents,
    ) -> Vec<u8> {
        let repr = ConfigRepr {
            buffer_count: local.slot.buffers().unwrap_or(self.options.buffer_count),
            firmware: self.options.firmware,
            sectors: self.port_mtu(port).map_or(0, |(_, mtu)| sectors_advertised(mtu)),
            command,
            string: &contents.config,
        };
        let mut body = vec![0; CONFIG_BYTES + contents.config.len()];
        repr.emit(&mut body);
        body
    }
}

/// Who is told that a slot is there: all, or those that both lists let in.
fn audience(allow: &[Mac], mask: &[Mac]) -> Vec<Mac> {
    match (allow, mask) {
        ([], []) => vec![Mac::BROADCAST],
        ([], list) | (list, []) => list.to_vec(),
        (allow, mask) => mask.iter().copied().filter(|mac| allow.contains(mac)).collect(),
    }
}

/// The mask after all directives, or the first that cannot be done; then none is.
fn edited(
    list: &[Mac],
    directives: &[mask::Directive],
    most: usize,
) -> Result<Vec<Mac>, (mask::Error, u8)> {
    let mut list = list.to_vec();
    for (place, directive) in directives.iter().enumerate() {
        let place = u8::try_from(place).expect("at most 255 directives");
        match directive {
            mask::Directive::None(_) => {}
            mask::Directive::Add(mac) if list.contains(mac) => {}
            mask::Directive::Add(_) if list.len() >= most => {
                return Err((mask::Error::Full, place));
            }
            mask::Directive::Add(mac) => list.push(*mac),
            mask::Directive::Delete(mac) => list.retain(|other| other != mac),
            mask::Directive::Other(..) => return Err((mask::Error::BadDirective, place)),
        }
    }
    Ok(list)
}
