//! Serves a file through the NBD machine with plain threads and blocking sockets: what clients and
//! the kernel think of it, before any ring or path is involved. The file is on a RAM disk and
//! outlives the process, so that it can be killed and started again.
//!
//! ```text
//! nbd-mem FILE --listen unix:SOCKET|ADDR:PORT      for clients
//! nbd-mem FILE --kernel                            as /dev/nbdN; again after a kill: the same N
//! nbd-mem --detach                                 takes /dev/nbdN away
//! ```
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::Parser;
use corbel_initiator::present::nbd::kernel::{self, Client, device};
use corbel_initiator::present::nbd::machine::{Bounds, Connection, Export, Mode};
use corbel_initiator::present::nbd::uri::{self, Place};
use corbel_initiator::present::users;
use corbel_initiator::request::{IoError, Operation, Outcome, Request};
use corbel_proto::memory::{HeapArena, HeapBuffer};

/// Whose device it is.
const BACKEND: &str = "corbel-test:nbd-mem";
const READ_BYTES: usize = 64 << 10;

/// Serves a file over NBD, for tests.
#[derive(Debug, Parser)]
struct Arguments {
    /// The file; it must exist, and its size is the export's.
    #[arg(required_unless_present = "detach")]
    file: Option<PathBuf>,
    /// Where clients find it.
    #[arg(long, value_name = "PLACE")]
    listen: Option<Place>,
    /// As a block device of this kernel.
    #[arg(long)]
    kernel: bool,
    /// Take the block device away.
    #[arg(long)]
    detach: bool,
    /// The tick of a new block device, in milliseconds, if not the usual one.
    #[arg(long)]
    tick_ms: Option<u64>,
    /// Nothing is answered while this file exists.
    #[arg(long)]
    hang: Option<PathBuf>,
    /// Bytes of a logical block.
    #[arg(long, default_value_t = 512)]
    block: u32,
    /// The device cannot write zeroes itself.
    #[arg(long)]
    no_zeroes: bool,
    /// Payload memory of a connection, in KiB.
    #[arg(long, default_value_t = 32 << 10)]
    memory_kib: u64,
    /// Must not be written.
    #[arg(long)]
    read_only: bool,
}

/// What all connections share.
#[derive(Debug)]
struct Served {
    file: File,
    export: Export,
    hang: Option<PathBuf>,
    bounds: Bounds,
    connections: AtomicU32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if arguments.detach {
        return detach();
    }
    let path = arguments.file.as_deref().ok_or("no file")?;
    let served = Arc::new(open(path, &arguments)?);
    match (&arguments.listen, arguments.kernel) {
        (Some(place), false) => listen(place, &served),
        (None, true) => attach(&served, arguments.tick_ms),
        _ => Err("either --listen or --kernel".into()),
    }
}

fn open(path: &Path, arguments: &Arguments) -> io::Result<Served> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let export = Export {
        name: "mem".to_owned(),
        description: "a file of a test".to_owned(),
        size_bytes: file.metadata()?.len(),
        block_bytes: arguments.block,
        physical_block_bytes: arguments.block.max(4096),
        read_only: arguments.read_only,
        discard: true,
        write_zeroes: !arguments.no_zeroes,
    };
    let bounds = Bounds { bytes_max: arguments.memory_kib << 10, ..Bounds::default() };
    let connections = AtomicU32::new(1);
    Ok(Served { file, export, hang: arguments.hang.clone(), bounds, connections })
}

fn listen(place: &Place, served: &Arc<Served>) -> Result<(), Box<dyn Error>> {
    enum Listener {
        Unix(UnixListener),
        Tcp(TcpListener),
    }
    let listener = match place {
        Place::Unix(path) => Listener::Unix(UnixListener::bind(path)?),
        Place::Tcp(address) => Listener::Tcp(TcpListener::bind(address)?),
    };
    println!("{}\nready", uri::uri(place, "mem"));
    loop {
        match &listener {
            Listener::Unix(listener) => {
                begin(listener.accept()?.0, Mode::Handshake, served);
            }
            Listener::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                begin(stream, Mode::Handshake, served);
            }
        }
    }
}

fn attach(served: &Arc<Served>, tick_ms: Option<u64>) -> Result<(), Box<dyn Error>> {
    let tick = tick_ms.map_or(kernel::TICK, Duration::from_millis);
    let mut client = Client::open()?;
    let server = match device::find(BACKEND)? {
        Some(index) => {
            let ours = client.reconfigure(index, BACKEND)?;
            println!("again /dev/nbd{index}");
            begin(UnixStream::from(ours), Mode::Transmission, served)
        }
        None => {
            let (theirs, ours) = kernel::pair()?;
            let server = begin(UnixStream::from(ours), Mode::Transmission, served);
            let index = client.connect(None, &served.export, BACKEND, tick, &theirs)?;
            println!("new /dev/nbd{index}");
            server
        }
    };
    println!("at {}\nready", std::fs::read_to_string("/proc/uptime")?);
    server.join().map_err(|_| "the server panicked")?;
    Ok(())
}

fn detach() -> Result<(), Box<dyn Error>> {
    let index = device::find(BACKEND)?.ok_or("no device of ours")?;
    if let Some(why) = users::objection(&device::name(index)) {
        return Err(format!("/dev/nbd{index} is in use: {why}").into());
    }
    let mut client = Client::open()?;
    client.disconnect(index)?;
    println!("{:?}", client.status(Some(index))?);
    Ok(())
}

fn begin<S>(stream: S, mode: Mode, served: &Arc<Served>) -> std::thread::JoinHandle<()>
where
    S: Read + Write + Send + 'static,
{
    let served = served.clone();
    std::thread::spawn(move || {
        if let Err(error) = serve(stream, mode, &served) {
            eprintln!("nbd-mem: a connection ended: {error}");
        }
    })
}

fn serve<S: Read + Write>(
    mut stream: S,
    mode: Mode,
    served: &Served,
) -> Result<(), Box<dyn Error>> {
    let number = served.connections.fetch_add(1, Ordering::Relaxed);
    let mut connection = Connection::new(number, served.export.clone(), mode, served.bounds);
    let mut arena = HeapArena::new(64 << 20);
    let mut bytes = vec![0; READ_BYTES];
    let mut backlog = VecDeque::new();
    loop {
        answer(&mut connection, &mut arena, &mut stream, served, &mut backlog)?;
        if connection.is_over() {
            return Ok(());
        }
        if let Some(mut place) = connection.poll_fill(&mut arena) {
            let len = stream.read(place.bytes_mut())?;
            connection.filled(place, u32::try_from(len)?);
            if len == 0 {
                return Ok(());
            }
            continue;
        }
        let len = stream.read(&mut bytes)?;
        if len == 0 {
            return Ok(());
        }
        connection.received(&mut arena, &bytes[..len])?;
    }
}

/// Does everything there is to do before more must be read.
fn answer<S: Write>(
    connection: &mut Connection<HeapBuffer>,
    arena: &mut HeapArena,
    stream: &mut S,
    served: &Served,
    backlog: &mut VecDeque<Request<HeapBuffer>>,
) -> Result<(), Box<dyn Error>> {
    loop {
        backlog.extend(std::iter::from_fn(|| connection.poll_request()));
        // Last come, first done: clients must not count on an order.
        while let Some(request) = backlog.pop_back() {
            connection.complete(perform(request, served));
            backlog.extend(std::iter::from_fn(|| connection.poll_request()));
        }
        let mut quiet = true;
        while let Some(reply) = connection.transmit() {
            quiet = false;
            stream.write_all(&reply.head)?;
            if let Some(data) = &reply.data {
                stream.write_all(data.bytes())?;
            }
        }
        if connection.wants_resume() {
            connection.resume(arena)?;
        } else if quiet {
            return Ok(());
        }
    }
}

fn perform(mut request: Request<HeapBuffer>, served: &Served) -> Outcome<HeapBuffer> {
    while served.hang.as_ref().is_some_and(|file| file.exists()) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (offset, file) = (request.extent.offset, &served.file);
    let done = match (request.operation, &mut request.data) {
        (Operation::Read, Some(data)) => file.read_exact_at(data.bytes_mut(), offset),
        (Operation::Write { fua }, Some(data)) => file
            .write_all_at(data.bytes(), offset)
            .and_then(|()| if fua { sync(file) } else { Ok(()) }),
        (Operation::Flush, _) => sync(file),
        (Operation::Discard | Operation::WriteZeroes { .. }, _) => {
            zero(file, offset, request.extent.len)
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    let result = done.map_err(|error| {
        eprintln!("nbd-mem: {:?} at {offset}: {error}", request.operation);
        IoError::Io
    });
    Outcome { id: request.id, data: request.data, result }
}

fn sync(file: &File) -> io::Result<()> {
    file.sync_data()
}

fn zero(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let zeroes = vec![0; 1 << 20];
    let mut at = offset;
    while at < offset + len {
        let piece = usize::try_from(offset + len - at).unwrap_or(usize::MAX).min(zeroes.len());
        file.write_all_at(&zeroes[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}
