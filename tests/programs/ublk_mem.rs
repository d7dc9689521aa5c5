//! Serves a file as a ublk device, and misbehaves as asked: late, failing, with memory held on to.
//!
//! One line of output per event; commands come by a FIFO, one a line: `stop`, `force`, `resize
//! BYTES`, `counts`. Memory of a write that is held after its end is looked at again later: a byte
//! that has changed ends the program with exit code 1.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use corbel_initiator::present::liveness;
use corbel_initiator::present::ublk::{Event, Shape, Stop, Ublk, Wanted};
use corbel_initiator::request::{IoError, Operation, Outcome, Request};
use corbel_proto::memory::Slice;
use corbel_ring::{ArenaConfig, Buf, Config, Op, Reactor, Waker, mailbox};

#[derive(Debug, Parser)]
#[command(about = "Serves a file as a ublk device")]
struct Arguments {
    /// Say what the kernel can do, and end.
    #[arg(long)]
    probe: bool,
    /// The file; its length is the device's size.
    #[arg(long, required_unless_present = "probe")]
    file: Option<PathBuf>,
    /// /dev/corbel/NAME.
    #[arg(long, default_value = "test")]
    name: String,
    /// N of /dev/ublkbN.
    #[arg(long)]
    id: Option<u32>,
    /// Whose device it is.
    #[arg(long, default_value_t = 1)]
    mark: u64,
    /// Requests at a time.
    #[arg(long, default_value_t = 32)]
    depth: u16,
    /// Memory for so many requests more.
    #[arg(long, default_value_t = 4)]
    spare: u16,
    /// Bytes of a logical block.
    #[arg(long, default_value_t = 512)]
    block: u32,
    /// A FIFO that commands come by.
    #[arg(long)]
    commands: Option<PathBuf>,
    /// Each request takes this long, microseconds.
    #[arg(long, default_value_t = 0)]
    delay_us: u64,
    /// Keep the memory of the last N writes after their end.
    #[arg(long, default_value_t = 0)]
    hold: usize,
    /// Answer every Nth read in other memory, and keep its own for a while.
    #[arg(long)]
    elsewhere: Option<u64>,
    /// Requests on this byte fail as a medium does.
    #[arg(long)]
    bad_byte: Option<u64>,
    /// How long to wait for the end of the process before, seconds.
    #[arg(long, default_value_t = 20)]
    recovery_wait: u64,
}

type AnyError = Box<dyn std::error::Error>;

/// Memory that a slow path would still hold.
struct Held {
    data: Slice<Buf>,
    sum: Option<u64>,
}

#[derive(Debug, Default)]
struct Counts {
    reads: u64,
    writes: u64,
    fua: u64,
    flushes: u64,
    discards: u64,
    zeroes: u64,
    zeroes_kept: u64,
}

struct Server {
    arguments: Arguments,
    file: File,
    reactor: Reactor,
    ublk: Ublk,
    /// In the order they came, which is that of their times.
    pending: VecDeque<(Instant, Request<Buf>)>,
    held: VecDeque<Held>,
    counts: Counts,
}

fn sum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn main() -> ExitCode {
    for warning in liveness::prepare() {
        eprintln!("ublk-mem: {warning}");
    }
    let arguments = Arguments::parse();
    let result = if arguments.probe { probe() } else { serve(arguments) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    println!("{line}");
    // Nobody listens: nothing to be done about it.
    let _ = std::io::stdout().flush();
}

fn probe() -> Result<(), AnyError> {
    say(&Ublk::probe()?.to_string());
    Ok(())
}

fn serve(arguments: Arguments) -> Result<(), AnyError> {
    let path = arguments.file.clone().ok_or("no file")?;
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let wanted = Wanted {
        name: arguments.name.clone(),
        id: arguments.id,
        mark: arguments.mark,
        depth: arguments.depth,
        spare: arguments.spare,
        io_bytes: 256 << 10,
        recovery_wait: Duration::from_secs(arguments.recovery_wait),
        shape: Shape {
            size_bytes: file.metadata()?.len(),
            block_bytes: arguments.block,
            physical_block_bytes: 4096,
            optimal_bytes: 65536,
            read_only: false,
            volatile_cache: true,
            discard: true,
            write_zeroes: true,
        },
    };
    // Not more than the device needs, and some for answers in other memory.
    let arena = ArenaConfig { bytes_max: wanted.memory_bytes() + (8 << 20) };
    let waker = Waker::new()?;
    let mut reactor = Reactor::new(Config { arena, ..Config::default() }, waker.clone())?;
    let (sender, commands) = mailbox(waker.clone());
    if let Some(fifo) = arguments.commands.clone() {
        thread::spawn(move || {
            // A FIFO ends whenever its last writer does.
            while let Ok(file) = File::open(&fifo) {
                BufReader::new(file).lines().map_while(Result::ok).for_each(|l| sender.send(l));
            }
        });
    }
    let ublk = Ublk::attach(wanted, reactor.arena(), waker)?;
    let ring = reactor.attach(ublk.fd()?);
    reactor.submit(Op::PollRing { file: ring }, 0);
    let (pending, held) = (VecDeque::new(), VecDeque::new());
    let counts = Counts::default();
    let mut server = Server { arguments, file, reactor, ublk, pending, held, counts };
    let mut lines = VecDeque::new();
    while server.turn()? {
        commands.drain(&mut lines);
        for line in lines.drain(..) {
            server.command(&line)?;
        }
    }
    Ok(())
}

impl Server {
    /// False once the device is gone.
    fn turn(&mut self) -> Result<bool, AnyError> {
        let mut requests = Vec::new();
        self.ublk.take(&mut requests);
        let due = Instant::now() + Duration::from_micros(self.arguments.delay_us);
        self.pending.extend(requests.into_iter().map(|request| (due, request)));
        while self.pending.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            if let Some((_, request)) = self.pending.pop_front() {
                let outcome = self.answer(request)?;
                self.ublk.complete(outcome);
            }
        }
        while self.held.len() > self.arguments.hold {
            self.release()?;
        }
        let flushed = self.ublk.flush()?;
        while let Some(event) = self.ublk.poll_event() {
            match event {
                Event::Started { path, size_bytes, recovered, .. } => {
                    say(&format!("started {} {size_bytes} {recovered}", path.display()));
                }
                Event::NotStopped(why) => say(&format!("not stopped: {why}")),
                Event::Resized(bytes) => say(&format!("resized {bytes}")),
                Event::NotResized(why) => say(&format!("not resized: {why}")),
                Event::Failed(why) => return Err(why.into()),
                Event::Stopped => {
                    say("stopped");
                    return Ok(false);
                }
            }
        }
        let next = self.pending.front().map(|(due, _)| *due);
        let mut wait = next.map(|due| due.saturating_duration_since(Instant::now()));
        if !flushed {
            // What is held longest must go sometime, or the tags that wait for it never end.
            wait = Some(Duration::from_millis(1));
            if !self.held.is_empty() {
                self.release()?;
            }
        }
        self.reactor.turn(wait, &mut Vec::new())?;
        Ok(true)
    }

    fn command(&mut self, line: &str) -> Result<(), AnyError> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["stop"] => self.ublk.stop(Stop::IfUnused),
            ["force"] => self.ublk.stop(Stop::Force),
            ["resize", bytes] => self.ublk.resize(bytes.parse()?),
            ["counts"] => say(&format!("{:?}", self.counts)),
            _ => return Err(format!("command `{line}`").into()),
        }
        Ok(())
    }

    /// Lets go of what is held longest; it must be as it was.
    fn release(&mut self) -> Result<(), AnyError> {
        let Some(held) = self.held.pop_front() else { return Ok(()) };
        match held.sum {
            Some(expected) if sum(held.data.bytes()) != expected => {
                Err("memory of a write changed while a path held it".into())
            }
            _ => Ok(()),
        }
    }

    fn answer(&mut self, request: Request<Buf>) -> Result<Outcome<Buf>, AnyError> {
        let Request { id, operation, extent, mut data } = request;
        let bad = |at: u64| extent.offset <= at && at < extent.end();
        if self.arguments.bad_byte.is_some_and(bad) {
            return Ok(Outcome { id, data, result: Err(IoError::Medium) });
        }
        match operation {
            Operation::Read => {
                self.counts.reads += 1;
                let own = data.take().ok_or("a read without memory")?;
                data = Some(self.read(own, extent.offset)?);
            }
            Operation::Write { fua } => {
                self.counts.writes += 1;
                self.counts.fua += u64::from(fua);
                let data = data.as_ref().ok_or("a write without bytes")?;
                self.file.write_all_at(data.bytes(), extent.offset)?;
                if self.arguments.hold > 0 {
                    let sum = Some(sum(data.bytes()));
                    self.held.push_back(Held { data: data.clone(), sum });
                }
            }
            Operation::Flush => {
                self.counts.flushes += 1;
                self.file.sync_data()?;
            }
            Operation::Discard => {
                self.counts.discards += 1;
                self.zero(extent.offset, extent.len)?;
            }
            Operation::WriteZeroes { unmap, .. } => {
                self.counts.zeroes += 1;
                self.counts.zeroes_kept += u64::from(!unmap);
                self.zero(extent.offset, extent.len)?;
            }
        }
        Ok(Outcome { id, data, result: Ok(()) })
    }

    fn read(&mut self, own: Slice<Buf>, offset: u64) -> Result<Slice<Buf>, AnyError> {
        let elsewhere =
            self.arguments.elsewhere.is_some_and(|n| self.counts.reads.is_multiple_of(n));
        let other = if elsewhere { self.reactor.arena().lend(own.len as usize) } else { None };
        let mut data = match other {
            Some(other) => {
                self.held.push_back(Held { data: own, sum: None });
                Slice::whole(other)
            }
            None => own,
        };
        self.file.read_exact_at(data.bytes_mut(), offset)?;
        Ok(data)
    }

    fn zero(&self, mut offset: u64, mut len: u64) -> Result<(), AnyError> {
        static ZEROES: [u8; 1 << 20] = [0; 1 << 20];
        while len > 0 {
            let part = len.min(ZEROES.len() as u64);
            self.file.write_all_at(&ZEROES[..usize::try_from(part)?], offset)?;
            (offset, len) = (offset + part, len - part);
        }
        Ok(())
    }
}
