//! The interfaces of this host, and what happens to them: rtnetlink, RTM_NEWLINK and
//! RTM_DELLINK (rtnetlink(7)).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number; another one if the interface was removed and added again.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Longest payload of a frame in bytes.
    pub mtu: u32,
    /// Administratively up, and with a carrier.
    pub up: bool,
    /// It carries Ethernet frames.
    pub ethernet: bool,
}

/// Something happened to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It was added, or got this name.
    Added(Interface),
    /// It was removed, or lost this name.
    Removed(Interface),
    /// It went up.
    Up(Interface),
    /// It went down, or lost its carrier.
    Down(Interface),
    /// It has another MTU.
    MtuChanged(Interface),
    /// It has another hardware address.
    AddressChanged(Interface),
}

/// A watch over the interfaces. Poll [`Self::descriptor`], then call [`Self::events`].
#[derive(Debug)]
pub struct Links {
    socket: OwnedFd,
    known: BTreeMap<u32, Interface>,
}

/// The interfaces there are now, in the order of their numbers.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    Ok(Links::open()?.known.into_values().collect())
}

const ALIGNMENT: usize = 4;
const HEADER_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
const RECEIVE_BYTES: usize = 64 * 1024;
/// Answers to a dump end with NLMSG_DONE; more than this many reads without one is a fault.
const DUMP_READS_MAX: usize = 4096;

impl Links {
    /// Starts watching; knows the interfaces there are.
    pub fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // Protocol 0 is NETLINK_ROUTE.
            None,
        )?;
        let group = libc::RTMGRP_LINK.unsigned_abs();
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, group))?;
        let mut links = Self { socket, known: BTreeMap::new() };
        links.dump()?;
        Ok(links)
    }

    /// The interfaces as of the last [`Self::events`].
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.known.values()
    }

    /// Readable when there are events.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What happened since the last call. Does not wait.
    pub fn events(&mut self) -> io::Result<Vec<LinkEvent>> {
        let mut events = Vec::new();
        loop {
            match self.read(RecvFlags::DONTWAIT) {
                Ok(messages) => messages.into_iter().for_each(|m| self.apply(m, &mut events)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Messages were lost: look at everything anew.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    let before = std::mem::take(&mut self.known);
                    self.dump()?;
                    let after = std::mem::replace(&mut self.known, before);
                    let gone: Vec<_> =
                        self.known.keys().filter(|i| !after.contains_key(i)).copied().collect();
                    gone.into_iter().for_each(|i| self.apply(Message::Gone(i), &mut events));
                    after.into_values().for_each(|i| self.apply(Message::Is(i), &mut events));
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn dump(&mut self) -> io::Result<()> {
        let mut request = [0u8; HEADER_BYTES + LINK_BYTES];
        let len = u32::try_from(request.len()).expect("short");
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).expect("16 bits");
        request[..4].copy_from_slice(&len.to_ne_bytes());
        request[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        rustix::net::send(&self.socket, &request, SendFlags::empty())?;
        for _ in 0..DUMP_READS_MAX {
            for message in self.read(RecvFlags::empty())? {
                if matches!(message, Message::Done) {
                    return Ok(());
                }
                self.apply(message, &mut Vec::new());
            }
        }
        Err(io::Error::other("the kernel's list of interfaces has no end"))
    }

    fn read(&self, flags: RecvFlags) -> io::Result<Vec<Message>> {
        let mut buffer = vec![0u8; RECEIVE_BYTES];
        let (len, _) = rustix::net::recv(&self.socket, &mut buffer[..], flags)?;
        Ok(parse(&buffer[..len]))
    }

    fn apply(&mut self, message: Message, events: &mut Vec<LinkEvent>) {
        match message {
            Message::Done => {}
            Message::Gone(index) => {
                events.extend(self.known.remove(&index).map(LinkEvent::Removed));
            }
            Message::Is(now) => {
                let before = self.known.insert(now.index, now.clone());
                compare(before, now, events);
            }
        }
    }
}

fn compare(before: Option<Interface>, now: Interface, events: &mut Vec<LinkEvent>) {
    let Some(before) = before else { return events.push(LinkEvent::Added(now)) };
    if before.name != now.name {
        events.push(LinkEvent::Removed(before));
        return events.push(LinkEvent::Added(now));
    }
    if before.mtu != now.mtu {
        events.push(LinkEvent::MtuChanged(now.clone()));
    }
    if before.mac != now.mac {
        events.push(LinkEvent::AddressChanged(now.clone()));
    }
    match (before.up, now.up) {
        (false, true) => events.push(LinkEvent::Up(now)),
        (true, false) => events.push(LinkEvent::Down(now)),
        _ => {}
    }
}

enum Message {
    Is(Interface),
    Gone(u32),
    Done,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The messages in one datagram; what cannot be read ends it.
fn parse(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let (Some(len), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let Some(body) = bytes.get(HEADER_BYTES..len as usize) else { break };
        match kind {
            libc::RTM_NEWLINK => messages.extend(interface_of(body).map(Message::Is)),
            libc::RTM_DELLINK => messages.extend(u32_at(body, 4).map(Message::Gone)),
            k if i32::from(k) == libc::NLMSG_DONE => messages.push(Message::Done),
            _ => {}
        }
        let next = (len as usize).next_multiple_of(ALIGNMENT).min(bytes.len());
        bytes = &bytes[next..];
    }
    messages
}

/// struct ifinfomsg and the attributes after it.
fn interface_of(body: &[u8]) -> Option<Interface> {
    let flags = u32_at(body, 8)?;
    let running = (libc::IFF_UP | libc::IFF_RUNNING).cast_unsigned();
    let mut found = Interface {
        index: u32_at(body, 4)?,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        up: flags & running == running,
        ethernet: matches!(u16_at(body, 2)?, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
    };
    let mut rest = body.get(LINK_BYTES..)?;
    while let (Some(len), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let len = usize::from(len);
        let Some(value) = rest.get(4..len) else { break };
        match kind {
            libc::IFLA_IFNAME => {
                let name = value.split(|b| *b == 0).next().unwrap_or_default();
                found.name = String::from_utf8_lossy(name).into_owned();
            }
            libc::IFLA_MTU => found.mtu = u32_at(value, 0)?,
            libc::IFLA_ADDRESS => {
                if let Ok(mac) = value.try_into() {
                    found.mac = mac;
                }
            }
            _ => {}
        }
        rest = &rest[len.next_multiple_of(ALIGNMENT).min(rest.len())..];
    }
    Some(found).filter(|i| !i.name.is_empty())
}
