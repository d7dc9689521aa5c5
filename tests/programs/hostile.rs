//! A million malformed frames and PDUs against a real target, while good clients go on.
//!
//! Frames and PDUs are valid ones with seeded damage: cut short, drawn out, lying lengths, wrong
//! digests, wrong numbers, data nobody asked for. Beside them: half-open logins, floods of
//! connections, clients that never read, frames that claim to come from servers. Good clients
//! verify what they wrote, over both protocols, ping, and go on finding the shelf and nobody else;
//! each answer has a limit. The target's memory is watched: payload memory has its configured bound
//! and is mapped when it is first needed; all else must stay flat.
//!
//! Exit code 0: all promises kept; 1: one broken; 2: wrong usage.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use corbel_initiator::blocking::aoe::Port;
use corbel_initiator::blocking::{Error, now};
use corbel_proto::aoe::Mac;
use corbel_proto::aoe::initiator::discover;
use corbel_target::admin::{self, Request, Response};
use corbel_tests::checker::stamp;
use corbel_tests::drive::process::resident_kib;
use corbel_tests::drive::{AnyError, Disk, IscsiDisk, IscsiPlace, Operation, Places, end, options};
use corbel_tests::rng::Rng;

const BLOCK_BYTES: usize = 512;

#[derive(Debug, Parser)]
#[command(about = "Malformed frames and PDUs against a target, while good clients go on")]
struct Arguments {
    #[command(flatten)]
    places: Places,
    /// The interface at the other end of the link: the target's, or that of a third station.
    #[arg(long, value_name = "IFACE")]
    opposite: String,
    /// The target's process.
    #[arg(long)]
    pid: u32,
    /// The target's control socket.
    #[arg(long, value_name = "PATH")]
    admin_socket: PathBuf,
    /// Malformed units of each protocol.
    #[arg(long, default_value_t = 500_000)]
    count: u64,
    /// Longest a good client may wait for an answer, milliseconds. The attack fills the packet
    /// ring; a good client's frame that finds it full is lost, and each of its repetitions waits
    /// twice as long as the one before. Five losses in a row are no fault, and take some seconds.
    #[arg(long, default_value_t = 10_000)]
    latency_ms: u64,
    /// How much the target may grow beside its payload memory, MiB.
    #[arg(long, default_value_t = 16)]
    growth_mib: u64,
    /// Decides every byte.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What the threads share.
struct Stage<'a> {
    arguments: &'a Arguments,
    place: IscsiPlace,
    /// The shelf's address, from before the attack.
    shelf: Mac,
    /// The attack is over.
    over: AtomicBool,
    slowest_ns: AtomicU64,
    good: AtomicU64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = run(&arguments).map(|summary| println!("{summary}"));
    end("hostile", done.map_err(|error| format!("{error}; seed {}", arguments.seed)))
}

fn run(arguments: &Arguments) -> Result<String, AnyError> {
    let stage = Stage {
        arguments,
        place: arguments.places.iscsi(),
        shelf: arguments.places.aoe.find()?.1.remote,
        over: AtomicBool::new(false),
        slowest_ns: AtomicU64::new(0),
        good: AtomicU64::new(0),
    };
    // A first short attack fills the pools that are allowed; what comes after must not add.
    assault(&stage, arguments.count / 20, arguments.seed ^ 0xffff)?;
    let before = Size::of(arguments)?;
    let most = assault(&stage, arguments.count, arguments.seed)?;
    let after = Size::of(arguments)?;
    let told = format!("{before} before, {most} KiB of it at most, {after} after");
    let grown = most.max(after.other_kib()).saturating_sub(before.other_kib());
    if grown > arguments.growth_mib * 1024 {
        return Err(format!("the target grew by {grown} KiB beside its payload: {told}").into());
    }
    Ok(format!(
        "{} malformed frames and as many PDUs; {} good commands and pings, the slowest {} ms; \
         memory {told}",
        arguments.count,
        stage.good.load(Ordering::Relaxed),
        stage.slowest_ns.load(Ordering::Relaxed) / 1_000_000,
    ))
}

/// What the target has of the system's memory, KiB.
#[derive(Debug, Clone, Copy)]
struct Size {
    resident: u64,
    /// The part of it that is payload memory.
    payload: u64,
}

impl Size {
    fn of(arguments: &Arguments) -> Result<Self, AnyError> {
        // In this order: payload memory that is mapped in between does not look like growth.
        let resident = resident_kib(arguments.pid)?;
        let (response, _) = admin::ask(&arguments.admin_socket, Request::Status)?;
        let Response::Status { status } = response else {
            return Err("the target does not tell its status".into());
        };
        let (memory, bound) = (status.memory, status.memory.bytes_max);
        if memory.bytes_mapped > bound {
            return Err(format!("{} B of payload, {bound} allowed", memory.bytes_mapped).into());
        }
        Ok(Self { resident, payload: memory.bytes_mapped / 1024 })
    }

    /// What is not payload.
    const fn other_kib(self) -> u64 {
        self.resident.saturating_sub(self.payload)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} KiB beside {} KiB of payload", self.other_kib(), self.payload)
    }
}

/// One attack with good clients beside it; the target's largest size meanwhile beside payload, KiB.
fn assault(stage: &Stage<'_>, count: u64, seed: u64) -> Result<u64, AnyError> {
    stage.over.store(false, Ordering::Relaxed);
    let mut seeds = Rng::new(seed);
    std::thread::scope(|scope| {
        let words = seeds.fork();
        let beside = [
            scope.spawn(|| good_iscsi(stage)),
            scope.spawn(|| good_aoe(stage)),
            scope.spawn(|| good_discovery(stage)),
            scope.spawn(|| never_reads(stage)),
            scope.spawn(move || lies(stage, words)),
        ];
        let frames = seeds.fork();
        let mut bad = vec![scope.spawn(move || bad_frames(stage, count, frames))];
        for _ in 0..2 {
            let rng = seeds.fork();
            bad.push(scope.spawn(move || bad_pdus(stage, count / 2, rng)));
        }
        let mut most = Ok(0);
        while let Ok(kib) = most
            && bad.iter().any(|thread| !thread.is_finished())
            && beside.iter().all(|thread| !thread.is_finished())
        {
            most = Size::of(stage.arguments).map(|size| kib.max(size.other_kib()));
            std::thread::sleep(Duration::from_millis(50));
        }
        stage.over.store(true, Ordering::Relaxed);
        for thread in bad.into_iter().chain(beside) {
            thread.join().map_err(|_| "a client panicked")??;
        }
        most
    })
}

impl Stage<'_> {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Does something that must be answered in time.
    fn measured<T>(
        &self,
        what: &str,
        act: impl FnOnce() -> Result<T, AnyError>,
    ) -> Result<T, AnyError> {
        let began = now();
        let result = act();
        let took = now().since(began);
        let result = result.map_err(|error| format!("{what}: {error}, after {took:?}"))?;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.slowest_ns.fetch_max(nanos, Ordering::Relaxed);
        self.good.fetch_add(1, Ordering::Relaxed);
        if took > Duration::from_millis(self.arguments.latency_ms) {
            return Err(format!("{what} took {took:?}").into());
        }
        Ok(result)
    }

    /// Writes a block of its own, and reads it back.
    fn verified(
        &self,
        protocol: &str,
        disk: &mut dyn Disk,
        first: u64,
        id: u64,
    ) -> Result<(), AnyError> {
        let data = stamp::filled(1, BLOCK_BYTES, id, first);
        let write = Operation::Write { first, data: data.clone() };
        self.measured(&format!("{protocol}: write of block {first}"), || settled(disk, &write))?;
        let read = Operation::Read { first, blocks: 1 };
        let what = format!("{protocol}: read of block {first}");
        if self.measured(&what, || settled(disk, &read))? != data {
            return Err(format!("{what}: it does not hold what was written").into());
        }
        Ok(())
    }
}

/// Performs a command; again if the target says no. Resets that attackers ask for are rightly
/// obeyed: they end our command, and leave a unit attention. Asking three times is always enough.
fn settled(disk: &mut dyn Disk, operation: &Operation) -> Result<Vec<u8>, AnyError> {
    let mut refusals = 0;
    loop {
        match disk.run(operation.clone()) {
            Err(Error::Command(_)) if refusals < 2 => refusals += 1,
            result => return Ok(result?),
        }
    }
}

fn good_iscsi(stage: &Stage<'_>) -> Result<(), AnyError> {
    let mut disk: IscsiDisk = stage.place.connect(1).map_err(|error| format!("iSCSI: {error}"))?;
    let mut id = 0;
    while stage.goes_on() {
        id += 1;
        stage.verified("iSCSI", &mut disk, 1000 + id % 50, id)?;
        stage.measured("iSCSI: ping", || Ok(disk.session().ping(Duration::from_secs(10))?))?;
    }
    Ok(())
}

fn good_aoe(stage: &Stage<'_>) -> Result<(), AnyError> {
    let mut disk =
        stage.arguments.places.aoe.connect(1).map_err(|error| format!("AoE discovery: {error}"))?;
    let mut id = 0;
    while stage.goes_on() {
        id += 1;
        stage.verified("AoE", &mut disk, 2000 + id % 50, id)?;
    }
    Ok(())
}

/// Discovery goes on finding the shelf, and believes no one else.
fn good_discovery(stage: &Stage<'_>) -> Result<(), AnyError> {
    while stage.goes_on() {
        let found =
            stage.arguments.places.aoe.find().map_err(|error| format!("AoE discovery: {error}"))?;
        if found.1.remote != stage.shelf {
            return Err(format!("AoE discovery: took {:?} for the shelf", found.1).into());
        }
        stage.good.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Asks for much, and takes nothing.
fn never_reads(stage: &Stage<'_>) -> Result<(), AnyError> {
    let mut held = Vec::new();
    for number in 0..8 {
        let mut disk = stage.place.connect(500 + number)?;
        for id in 0..64 {
            disk.submit(id, Operation::Read { first: 0, blocks: 256 });
        }
        disk.next(now()).map_err(|error| format!("iSCSI, a client that reads nothing: {error}"))?;
        held.push(disk);
    }
    while stage.goes_on() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Changes some bytes, or the length.
fn damage(bytes: &mut Vec<u8>, rng: &mut Rng, header: usize) {
    let at = |rng: &mut Rng, len: usize| {
        usize::try_from(rng.below(len.max(1) as u64)).expect("an index")
    };
    for _ in 0..=rng.below(3) {
        match rng.below(8) {
            0 => bytes.truncate(at(rng, bytes.len()) + 1),
            1 => bytes.resize(bytes.len() + at(rng, 600), 0xa5),
            2 => {
                let end = bytes.len().min(header);
                let place = at(rng, end);
                bytes[place] = 0xff;
            }
            _ => {
                let end = bytes.len().min(header);
                let place = at(rng, end);
                bytes[place] = rng.next().to_le_bytes()[0];
            }
        }
    }
}

/// AoE frames to the shelf: headers, registers and config strings spoiled.
fn bad_frames(stage: &Stage<'_>, count: u64, mut rng: Rng) -> Result<(), AnyError> {
    let aoe = &stage.arguments.places.aoe;
    let mut port = Port::open(&aoe.interface)?;
    let mut taken = 0;
    for _ in 0..count {
        let mut frame = discover::query(port.mac, aoe.shelf, aoe.slot, 0).to_vec();
        // Commands 0 to 3, most often ATA: registers of reads; never a write inside the device,
        // whose data the good clients check.
        frame[19] = rng.next().to_le_bytes()[0] & 3;
        frame.resize(36 + usize::try_from(rng.below(64))? * 16, 0);
        if frame[19] == 0 {
            (frame[24], frame[26], frame[27]) = (0x40, 2, 0x24);
        }
        damage(&mut frame, &mut rng, 60);
        if frame.len() < 24 {
            frame.resize(24, 0);
        }
        frame[..6].fill(0xff);
        frame[12..14].copy_from_slice(&[0x88, 0xa2]);
        if is_write_or_lock(&frame) {
            continue;
        }
        // One drawn out beyond the MTU is refused, and that is right.
        taken += u64::from(port.send(&frame).is_ok());
    }
    if taken < count / 4 {
        return Err(format!("the interface took {taken} of {count} frames").into());
    }
    Ok(())
}

/// A station at the other end of the link says that it is the shelf, although nobody asked it: in
/// the name of the client's own station, or of one that does not exist.
fn lies(stage: &Stage<'_>, mut rng: Rng) -> Result<(), AnyError> {
    let aoe = &stage.arguments.places.aoe;
    let own = Port::open(&aoe.interface)?.mac;
    let mut port = Port::open(&stage.arguments.opposite)?;
    while stage.goes_on() {
        let mut frame = discover::query(own, aoe.shelf, aoe.slot, 0);
        frame[14] |= 0x08;
        if rng.percent(50) {
            frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        }
        if rng.percent(50) {
            frame[20..24].fill(0);
        }
        // A full queue is right.
        let _ = port.send(&frame);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Frames that would be right to obey, and harm the good clients: writes, trims, masks and
/// reservations.
fn is_write_or_lock(frame: &[u8]) -> bool {
    let ata_write = matches!(frame.get(27), Some(0x06 | 0x30 | 0x34 | 0x35 | 0xca | 0x3a | 0xc5));
    match frame[19] {
        0 => ata_write,
        2 => frame.get(25) == Some(&1),
        3 => frame.get(24).is_some_and(|command| *command != 0),
        1 => frame.get(29).is_some_and(|command| command & 0x0f >= 3),
        _ => false,
    }
}

/// iSCSI: before login, and within sessions.
fn bad_pdus(stage: &Stage<'_>, count: u64, mut rng: Rng) -> Result<(), AnyError> {
    let mut sent = 0;
    while sent < count {
        let number = 1000 + u32::try_from(rng.below(1000))?;
        let batch = 1 + rng.below(400);
        sent += batch;
        let stream = match rng.below(4) {
            0 => TcpStream::connect(stage.arguments.places.portal),
            _ => {
                let wanted = options(number);
                match stage.place.connect_as(&wanted) {
                    Ok(mut disk) => disk.session().stream().try_clone(),
                    // The target may well refuse one session too many.
                    Err(_) => TcpStream::connect(stage.arguments.places.portal),
                }
            }
        };
        // A target that is overrun may refuse connections; good clients say if it is gone.
        let Ok(mut stream) = stream else { continue };
        stream.set_write_timeout(Some(Duration::from_millis(200)))?;
        stream.set_nonblocking(false)?;
        let mut bytes = Vec::new();
        for _ in 0..batch {
            let mut pdu = pdu(&mut rng);
            damage(&mut pdu, &mut rng, 48);
            if !is_scsi_write(&pdu) {
                bytes.extend(pdu);
            }
        }
        // It closes the connection, or reads on: both are right.
        let _ = stream.write_all(&bytes);
        if rng.percent(50) {
            stream.set_read_timeout(Some(Duration::from_millis(1)))?;
            let _ = stream.read(&mut [0; 4096]);
        }
    }
    Ok(())
}

/// A PDU that is nearly right.
fn pdu(rng: &mut Rng) -> Vec<u8> {
    const OPCODES: [u8; 11] = [0x00, 0x40, 0x01, 0x02, 0x42, 0x43, 0x04, 0x44, 0x05, 0x06, 0x10];
    let mut pdu = vec![0; 48];
    pdu[0] = OPCODES[usize::try_from(rng.below(OPCODES.len() as u64)).expect("an index")];
    pdu[1] = 0x80;
    pdu[16..20].copy_from_slice(&rng.next().to_le_bytes()[..4]);
    pdu[20..24].fill(0xff);
    pdu[27] = 2 + rng.next().to_le_bytes()[0] % 4;
    if pdu[0] == 0x01 {
        // A read of much, or of an expected length of 4 GiB.
        pdu[1] = 0xc1;
        (pdu[32], pdu[46 - 1]) = (0x88, 8);
    }
    if rng.percent(30) {
        pdu[7] = 16;
        pdu.extend([b'x'; 16]);
    }
    if rng.percent(10) {
        pdu[4] = 0xff;
    }
    pdu
}

/// Commands that change the unit: right to obey, and they would spoil the good clients' blocks.
fn is_scsi_write(pdu: &[u8]) -> bool {
    pdu.first().is_some_and(|opcode| opcode & 0x3f == 1)
        && !matches!(pdu.get(32), Some(0x00 | 0x12 | 0x25 | 0x28 | 0x88 | 0x9e | 0xa0))
}
