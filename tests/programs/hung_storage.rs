//! Control requests are answered while storage hangs.
//!
//! `--hang` and `--release` are shell commands that make the backing store hang and go on, such as
//! `dmsetup suspend`, or `fsfreeze` of the file system that holds the image. In between, writes
//! hang; pings, a new login, the abort of a command that has not reached the disk, AoE discovery
//! and `corbel-target status` must not.
//!
//! Exit code 0: all answered; 1: one was not; 2: wrong usage.

use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use corbel_initiator::blocking::{aoe::Port, now};
use corbel_proto::iscsi::initiator::CommandId;
use corbel_tests::checker::stamp;
use corbel_tests::drive::{
    AnyError, AoePlace, Disk, IscsiDisk, IscsiPlace, Operation, PATIENCE, Places, end,
};

const BLOCK_BYTES: usize = 512;

#[derive(Debug, Parser)]
#[command(about = "Control requests are answered while storage hangs")]
struct Arguments {
    #[command(flatten)]
    places: Places,
    /// Shell command that makes the store hang.
    #[arg(long)]
    hang: String,
    /// Shell command that lets it go on.
    #[arg(long)]
    release: String,
    /// Shell command that must succeed while it hangs, such as `corbel-target status`.
    #[arg(long)]
    status: String,
    /// Longest wait for an answer, milliseconds.
    #[arg(long, default_value_t = 1000)]
    limit_ms: u64,
}

/// Lets the store go on, whatever happens.
struct Release<'a>(&'a str);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if let Err(error) = shell(self.0) {
            eprintln!("hung-storage: {error}");
        }
    }
}

fn main() -> ExitCode {
    end("hung-storage", run(&Arguments::parse()))
}

fn shell(command: &str) -> Result<(), AnyError> {
    let status = Command::new("sh").args(["-c", command]).status()?;
    if status.success() { Ok(()) } else { Err(format!("`{command}` ended with {status}").into()) }
}

fn run(arguments: &Arguments) -> Result<(), AnyError> {
    let place = arguments.places.iscsi();
    let limit = Duration::from_millis(arguments.limit_ms);
    let write = |id: u64| Operation::Write {
        first: id * 8,
        data: stamp::filled(8, BLOCK_BYTES, id + 1, id * 8),
    };
    let mut disk = place.connect(1)?;
    disk.run(write(0))?;
    shell(&arguments.hang)?;
    {
        let _release = Release(&arguments.release);
        (1..9).for_each(|id| disk.submit(id, write(id)));
        if let Some(ended) = disk.next(now() + Duration::from_secs(1))? {
            return Err(format!("the store does not hang: command {} ended", ended.id).into());
        }
        for _ in 0..5 {
            let took = disk.session().ping(limit)?;
            println!("ping answered in {took:?} while 8 writes hang");
        }
        let began = now();
        place_session(&place, limit)?;
        println!("a new session logged in within {:?}", now().since(began));
        shell(&format!("timeout {} {}", arguments.limit_ms.div_ceil(1000), arguments.status))?;
        println!("`{}` answered", arguments.status);
        find_shelf(&arguments.places.aoe, limit)?;
        abort_waiting(&mut disk, write(1), limit)?;
        disk.session().connection().abort(CommandId(1));
        let took = disk.session().ping(limit)?;
        println!("ping answered in {took:?} while an abort waits");
    }
    // The abort may have ended one of them; the others must be done.
    for _ in 1..9 {
        let ended = disk.next(now() + PATIENCE)?.ok_or("a write hangs although storage goes on")?;
        if ended.id != 1 {
            ended.result?;
        }
    }
    println!("all writes ended once storage went on");
    Ok(())
}

/// AoE clients go on finding the shelf.
fn find_shelf(place: &AoePlace, limit: Duration) -> Result<(), AnyError> {
    let mut port = Port::open(&place.interface)?;
    let found = port.discover(limit)?;
    if !found.iter().any(|found| (found.shelf, found.slot) == (place.shelf, place.slot)) {
        return Err("the shelf does not answer AoE discovery".into());
    }
    println!("AoE discovery found the shelf");
    Ok(())
}

/// A write to blocks that another holds has not reached the disk, so its abort ends it at once.
fn abort_waiting(disk: &mut IscsiDisk, write: Operation, limit: Duration) -> Result<(), AnyError> {
    const WAITING: u64 = 100;
    disk.submit(WAITING, write);
    disk.session().ping(limit)?;
    let began = now();
    disk.session().connection().abort(CommandId(WAITING));
    let ended = disk.next(began + limit)?.ok_or("the abort of a waiting write is not answered")?;
    if ended.id != WAITING || ended.result.is_ok() {
        return Err(format!("command {} ended, and not by the abort", ended.id).into());
    }
    println!("a write that waits for another was aborted within {:?}", now().since(began));
    Ok(())
}

/// A login, and a ping in the new session; its first command would hang with the others.
fn place_session(place: &IscsiPlace, limit: Duration) -> Result<(), AnyError> {
    use corbel_initiator::blocking::login::{Options, connect};
    let options = Options {
        target: Some(place.target.clone()),
        wait: limit,
        ..corbel_tests::drive::options(2)
    };
    connect(place.portal, &options)?.ping(limit)?;
    Ok(())
}
