//! Login over a plain TCP socket.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use corbel_proto::error::Malformed;
use corbel_proto::iscsi::chap::{Algorithm, Credentials};
use corbel_proto::iscsi::framer::{Framer, Step as Framed, trailer};
use corbel_proto::iscsi::initiator::{KeepAlive, Start};
use corbel_proto::iscsi::login::initiator::{Ask, Chap, Config, Login, Step};
use corbel_proto::iscsi::params::{Digest, Limits};
use corbel_proto::iscsi::pdu::login::{Isid, LoginResponse};

use super::Error;
use super::iscsi::Session;

/// Longest text of one Login Response, bytes (RFC 7143 13.12: the default until declared).
const TEXT_BYTES_MAX: u32 = 64 * 1024;

/// How to log in.
#[derive(Debug, Clone)]
pub struct Options {
    /// Our name.
    pub initiator: String,
    /// The target's; `None` is a discovery session.
    pub target: Option<String>,
    /// Our half of the session's identity.
    pub isid: [u8; 6],
    /// Our name and secret.
    pub chap: Option<Credentials>,
    /// What the target must prove.
    pub mutual_chap: Option<Credentials>,
    /// Insist on header and data digests.
    pub digests: bool,
    /// Ask that no data be sent before an R2T.
    pub initial_r2t: bool,
    /// Ask that commands carry data.
    pub immediate_data: bool,
    /// Longest wait for the connection, and for each response.
    pub wait: Duration,
    /// Pings while nothing comes, if any.
    pub keep_alive: Option<KeepAlive>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            initiator: "iqn.2026-11.org.example:corbel-initiator".to_owned(),
            target: None,
            isid: [0x80, 0, 0, 1, 0, 0],
            chap: None,
            mutual_chap: None,
            digests: false,
            initial_r2t: false,
            immediate_data: true,
            wait: Duration::from_secs(10),
            keep_alive: None,
        }
    }
}

/// Connects and logs in.
///
/// # Errors
/// If the portal is not reached, or the target does not let us in.
pub fn connect(portal: SocketAddr, options: &Options) -> Result<Session, Error> {
    let (stream, start) = open(portal, options)?;
    Session::new(stream, start, options.keep_alive)
}

/// Connects and logs in; what to do with the stream then is for the caller.
///
/// # Errors
/// As [`connect`].
pub fn open(portal: SocketAddr, options: &Options) -> Result<(TcpStream, Start), Error> {
    let mut stream = TcpStream::connect_timeout(&portal, options.wait)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(options.wait))?;
    stream.set_write_timeout(Some(options.wait))?;
    let start = log_in(&mut stream, options)?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok((stream, start))
}

fn log_in(stream: &mut TcpStream, options: &Options) -> Result<Start, Error> {
    let refused = |why: &dyn Display| Error::Login(why.to_string());
    let mut login = Login::new(config(options)?).map_err(|violation| refused(&violation))?;
    let mut ask = login.start();
    let mut framer = Framer::new();
    let mut random = |bytes: &mut [u8]| {
        getrandom::fill(bytes).expect("the kernel's random source works from boot on");
    };
    loop {
        send(stream, &ask)?;
        let (response, text) = receive(stream, &mut framer)?;
        match login.handle(&response, &text, &mut random).map_err(|fault| refused(&fault))? {
            Step::Ask(next) => ask = next,
            Step::Done(outcome) => return Ok(outcome.start()),
            Step::Refused(status) => return Err(Error::Refused(status)),
            Step::Redirect { address, .. } => {
                return Err(Error::Login(format!("the target has moved to {address}")));
            }
        }
    }
}

fn config(options: &Options) -> Result<Config, Error> {
    let digests = if options.digests { Digest::Crc32c } else { Digest::None };
    let chap = options.chap.clone().map(|ours| Chap {
        algorithms: Algorithm::ALL.to_vec(),
        ours,
        theirs: options.mutual_chap.clone(),
    });
    let name = |text: &String| text.parse().map_err(|bad: Malformed| Error::Login(bad.to_string()));
    Ok(Config {
        initiator: name(&options.initiator)?,
        alias: None,
        target: options.target.as_ref().map(name).transpose()?,
        isid: Isid(options.isid),
        tsih: 0,
        cid: 0,
        cmd_sn: 1,
        limits: Limits {
            header_digests: vec![digests],
            data_digests: vec![digests],
            initial_r2t: options.initial_r2t,
            immediate_data: options.immediate_data,
            ..Limits::default()
        },
        chap,
    })
}

fn send(stream: &mut TcpStream, ask: &Ask) -> Result<(), Error> {
    let mut bytes = ask.request.emit().to_vec();
    bytes.extend_from_slice(&ask.text);
    let (tail, len) = trailer(ask.request.data_len, None);
    bytes.extend_from_slice(&tail[..len]);
    Ok(stream.write_all(&bytes)?)
}

fn receive(stream: &mut TcpStream, framer: &mut Framer) -> Result<(LoginResponse, Vec<u8>), Error> {
    let mut text = Vec::new();
    let mut byte = [0];
    let broken = |malformed: Malformed| Error::Login(malformed.to_string());
    // Byte by byte, so that nothing of what follows login is taken; a login is short.
    loop {
        if stream.read(&mut byte)? == 0 {
            return Err(Error::Closed);
        }
        let mut rest = &byte[..];
        loop {
            let (taken, step) = framer.push(rest).map_err(broken)?;
            rest = &rest[taken..];
            match step {
                Framed::More => break,
                Framed::Header if framer.bhs().data_bytes() > TEXT_BYTES_MAX => {
                    return Err(Error::Login("the target sends too much text".to_owned()));
                }
                Framed::Header => {}
                Framed::Data(part) => text.extend_from_slice(part),
                Framed::End { .. } => {
                    let response = LoginResponse::parse(&framer.bhs().0).map_err(broken)?;
                    return Ok((response, text));
                }
            }
        }
    }
}
