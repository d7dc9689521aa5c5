//! iSCSI over one TCP connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::initiator::{
    Answer, Command, CommandId, Connection, Event, Failure, KeepAlive, Start, Transfer,
};
use corbel_proto::time::{Duration, Instant};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Error, now};

/// Bytes gathered before they are handed to the socket.
const SEND_BYTES: usize = 256 * 1024;

/// A session of one connection, logged in.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    connection: Connection<Vec<u8>>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    next_id: u64,
}

impl Session {
    /// Takes over a stream that login has just left.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn new(
        stream: TcpStream,
        start: Start,
        keep_alive: Option<KeepAlive>,
    ) -> Result<Self, Error> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            connection: Connection::new(now(), start, keep_alive),
            outgoing: Vec::with_capacity(SEND_BYTES),
            incoming: vec![0; SEND_BYTES],
            next_id: 1 << 63,
        })
    }

    /// The connection, to submit commands to.
    pub const fn connection(&mut self) -> &mut Connection<Vec<u8>> {
        &mut self.connection
    }

    /// The stream, to spoil what is sent (tests).
    pub const fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The other end.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Waits for the next event, at most until `end`.
    ///
    /// # Errors
    /// If the connection ends.
    pub fn next(&mut self, end: Instant) -> Result<Option<Event<Vec<u8>>>, Error> {
        loop {
            if let Some(event) = self.connection.poll_event() {
                return Ok(Some(event));
            }
            self.send()?;
            let moment = now();
            let due = self.connection.poll_timeout();
            if due.is_some_and(|due| due <= moment) {
                self.connection.handle_timeout(moment)?;
                continue;
            }
            if moment >= end {
                return Ok(None);
            }
            self.wait(due.map_or(end, |due| due.min(end)).since(moment))?;
            self.receive()?;
        }
    }

    /// Sends what may be sent, as far as the socket takes it.
    fn send(&mut self) -> Result<(), Error> {
        loop {
            while self.outgoing.len() < SEND_BYTES
                && let Some(pdu) = self.connection.poll_transmit()
            {
                pdu.write_to(&mut self.outgoing);
            }
            if self.outgoing.is_empty() {
                return Ok(());
            }
            match self.stream.write(&self.outgoing) {
                Ok(0) => return Err(Error::Closed),
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, longest: Duration) -> Result<(), Error> {
        let writing = if self.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut polled = [PollFd::new(&self.stream, PollFlags::IN | writing)];
        let timeout = Timespec::try_from(longest)
            .unwrap_or_else(|_| Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 });
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn receive(&mut self) -> Result<(), Error> {
        match self.stream.read(&mut self.incoming) {
            Ok(0) => Err(Error::Closed),
            Ok(len) => Ok(self.connection.handle_bytes(now(), &self.incoming[..len])?),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Performs one command and waits for its end, at most for `wait`. Other events are dropped.
    ///
    /// # Errors
    /// If the connection ends, or the target does not answer; a status that is not GOOD is an
    /// answer.
    pub fn run(
        &mut self,
        lun: Lun,
        cdb: [u8; 16],
        transfer: Transfer<Vec<u8>>,
        wait: Duration,
    ) -> Result<(Answer, Transfer<Vec<u8>>), Error> {
        self.next_id += 1;
        let wanted = CommandId(self.next_id);
        self.connection.submit(Command { id: wanted, lun, cdb, transfer });
        let end = now() + wait;
        while let Some(event) = self.next(end)? {
            match event {
                Event::Done { id, transfer, result } if id == wanted => {
                    return match result {
                        Ok(answer) => Ok((answer, transfer)),
                        Err(failure) => Err(failed(failure)),
                    };
                }
                _ => {}
            }
        }
        Err(Error::Timeout(wait))
    }

    /// Reads with one command: what came, cut to what the target had to give.
    ///
    /// # Errors
    /// As [`Self::run`], and if the status is not GOOD.
    pub fn read(
        &mut self,
        lun: Lun,
        cdb: [u8; 16],
        bytes: usize,
        wait: Duration,
    ) -> Result<Vec<u8>, Error> {
        use corbel_proto::iscsi::pdu::Residual;
        let (answer, transfer) = self.run(lun, cdb, Transfer::Read(vec![0; bytes]), wait)?;
        let Transfer::Read(mut data) = transfer else {
            unreachable!("a transfer comes back as it went");
        };
        if answer.status != 0 {
            let Answer { status, sense, .. } = answer;
            return Err(Error::Command(format!("SCSI status {status:#04x}, sense {sense:02x?}")));
        }
        if let Residual::Underflow(missing) = answer.residual {
            data.truncate(bytes.saturating_sub(missing as usize));
        }
        Ok(data)
    }

    /// Sends text keys and waits for the whole answer.
    ///
    /// # Errors
    /// If the connection ends, or no answer comes within `wait`.
    pub fn text(&mut self, text: &[u8], wait: Duration) -> Result<Vec<u8>, Error> {
        self.connection.text(text.to_vec());
        let end = now() + wait;
        while let Some(event) = self.next(end)? {
            match event {
                Event::Text(answer) => return Ok(answer),
                Event::Rejected(reason) => {
                    return Err(Error::Command(format!("the target refuses: {reason:?}")));
                }
                _ => {}
            }
        }
        Err(Error::Timeout(wait))
    }

    /// Pings the target; how long the answer took.
    ///
    /// # Errors
    /// If the connection ends, or no answer comes within `wait`.
    pub fn ping(&mut self, wait: Duration) -> Result<Duration, Error> {
        self.connection.ping(now());
        let end = now() + wait;
        while let Some(event) = self.next(end)? {
            if let Event::Pong(time) = event {
                return Ok(time);
            }
        }
        Err(Error::Timeout(wait))
    }

    /// Logs out and closes.
    ///
    /// # Errors
    /// If the target does not answer within `wait`.
    pub fn logout(mut self, wait: Duration) -> Result<(), Error> {
        self.connection.logout();
        let end = now() + wait;
        while let Some(event) = self.next(end)? {
            if let Event::LoggedOut(_) = event {
                return Ok(());
            }
        }
        Err(Error::Timeout(wait))
    }
}

fn failed(failure: Failure) -> Error {
    Error::Command(format!("{failure:?}"))
}
