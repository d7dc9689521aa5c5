//! No request allocates, once the server is warm: the shipped server with real sockets, iSCSI and
//! AoE, reads and writes, on a file and in memory, under an allocator that counts.
//!
//! The clients are processes of their own, so that what they allocate is not counted. All of it
//! runs in a network namespace; where none can be made, the test says that it did not run.
//!
//! Not a test harness's test: its threads would be counted.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use corbel_initiator::blocking::now;
use corbel_ring::counting::{Counting, allocations};
use corbel_target::config::load;
use corbel_target::shell::{StartOptions, start};
use corbel_tests::drive::{AoePlace, Disk, IscsiPlace, Operation, PATIENCE};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TARGET: &str = "iqn.2026-11.org.example:allocations";
const PORTAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3260);
const DEVICE_BLOCKS: u64 = (16 << 20) / 512;

/// Requests before counting begins, and requests that are counted.
const WARM: u64 = 4_000;
const COUNTED: u64 = 4_000;
/// How often they are counted at most. A list that grows to a length it never had is warming up,
/// too, and does so once; what is allocated for requests is allocated each time.
const COUNTS: usize = 5;
const DEPTH: u64 = 32;

/// Set in the process that runs in the namespace.
const INSIDE: &str = "CORBEL_TEST_NAMESPACE";

type Done = Result<(), Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["client", protocol, unit, kind, blocks] => client(protocol, unit, kind, blocks),
        _ if std::env::var_os(INSIDE).is_some() => serve_and_count(),
        _ => in_namespace(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("allocations: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again, where it may make interfaces.
fn in_namespace() -> Done {
    let able = |flags: &[&str]| {
        let tried = Command::new("unshare").args(flags).arg("true").stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let Some(flags) = [&["-n"][..], &["-rn"]].into_iter().find(|flags| able(flags)) else {
        eprintln!("allocations: NOT RUN: no network namespace can be made here");
        return Ok(());
    };
    let inside = Command::new("unshare")
        .args(flags)
        .arg(std::env::current_exe()?)
        .env(INSIDE, "1")
        .status()?;
    if inside.success() { Ok(()) } else { Err("it failed; see above".into()) }
}

fn serve_and_count() -> Done {
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", "s0", "mtu", "9000", "type", "veth", "peer", "name", "c0", "mtu", "9000"])?;
    ip(&["link", "set", "s0", "up"])?;
    ip(&["link", "set", "c0", "up"])?;
    let folder = tempfile::tempdir_in("/var/tmp")?;
    let image = folder.path().join("disk.img");
    std::fs::write(&image, vec![7; usize::try_from(DEVICE_BLOCKS * 512)?])?;
    let config = load(&configuration(folder.path(), &image)?)?.config;
    let target = start(&config, StartOptions { persist: false })?;
    let mut failed = false;
    for (unit, store) in [("0", "a file"), ("1", "memory")] {
        for protocol in ["iscsi", "aoe"] {
            for kind in ["read", "write"] {
                for blocks in ["1", "8", "16", "256"] {
                    let counts = count(protocol, unit, kind, blocks)?;
                    println!(
                        "{counts:?} allocations for {COUNTED} requests each: {kind} of {blocks} \
                         blocks, {protocol}, {store}"
                    );
                    failed |= counts.last() != Some(&0);
                }
            }
        }
    }
    target.stop();
    target.wait();
    if failed { Err("the hot path allocates".into()) } else { Ok(()) }
}

fn configuration(folder: &Path, image: &Path) -> Result<std::path::PathBuf, std::io::Error> {
    let mut text = format!(
        "[daemon]\nthreads = 1\nstate_dir = {folder:?}\n[[target]]\nname = {TARGET:?}\n\
         portals = [\"{PORTAL}\"]\n"
    );
    for (lun, path) in [(0, image.display().to_string()), (1, "mem:16M".to_owned())] {
        text += &format!(
            "[[export]]\nname = \"unit{lun}\"\npath = {path:?}\n\
             iscsi = [{{ target = {TARGET:?}, lun = {lun} }}]\n\
             aoe = [{{ shelf = 0, slot = {lun}, interfaces = [\"s0\"] }}]\n"
        );
    }
    let path = folder.join("target.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

fn ip(words: &[&str]) -> Done {
    let status = Command::new("ip").args(words).status()?;
    if status.success() { Ok(()) } else { Err(format!("ip {}: {status}", words.join(" ")).into()) }
}

/// What the server allocates while a client's requests of one kind are served, until it is nothing.
fn count(
    protocol: &str,
    unit: &str,
    kind: &str,
    blocks: &str,
) -> Result<Vec<u64>, Box<dyn Error + Send + Sync>> {
    let mut client = Command::new(std::env::current_exe()?)
        .args(["client", protocol, unit, kind, blocks])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut to = client.stdin.take().ok_or("no stdin")?;
    let mut from = BufReader::new(client.stdout.take().ok_or("no stdout")?);
    let mut line = String::with_capacity(64);
    let mut counts = Vec::with_capacity(COUNTS);
    while counts.len() < COUNTS && counts.last() != Some(&0) {
        counts.push(talk(&mut to, &mut from, &mut line)?);
    }
    end(client, to)?;
    Ok(counts)
}

fn talk(
    to: &mut ChildStdin,
    from: &mut BufReader<ChildStdout>,
    line: &mut String,
) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let mut hear = |word: &str| {
        line.clear();
        from.read_line(line)?;
        if line.trim_end() == word { Ok(()) } else { Err(std::io::Error::other("it ended")) }
    };
    hear("warm")?;
    let before = allocations();
    to.write_all(b"go\n")?;
    hear("done")?;
    Ok(allocations() - before)
}

fn end(mut client: Child, to: ChildStdin) -> Done {
    drop(to);
    let status = client.wait()?;
    if status.success() { Ok(()) } else { Err(format!("a client: {status}").into()) }
}

/// The other process: warms the server up, says so, and does it again as often as told.
fn client(protocol: &str, unit: &str, kind: &str, blocks: &str) -> Done {
    let (unit, blocks): (u8, u32) = (unit.parse()?, blocks.parse()?);
    let mut disk: Box<dyn Disk> = if protocol == "iscsi" {
        let (portal, target) = (PORTAL, TARGET.to_owned());
        Box::new(IscsiPlace { portal, target, lun: unit.into() }.connect(1)?)
    } else {
        Box::new(AoePlace { interface: "c0".to_owned(), shelf: 0, slot: unit }.connect(1)?)
    };
    let blocks = blocks.min(disk.blocks_max());
    load(&mut *disk, kind == "write", blocks, WARM)?;
    let mut line = String::new();
    loop {
        println!("warm");
        if std::io::stdin().read_line(&mut line)? == 0 {
            return Ok(());
        }
        load(&mut *disk, kind == "write", blocks, COUNTED)?;
        println!("done");
    }

    fn load(disk: &mut dyn Disk, write: bool, blocks: u32, count: u64) -> Done {
        let place = |number: u64| number * 37 % (DEVICE_BLOCKS / u64::from(blocks));
        let (mut begun, mut ended) = (0, 0);
        while ended < count {
            while begun < count && begun - ended < DEPTH {
                let first = place(begun) * u64::from(blocks);
                let data = || vec![9; blocks as usize * 512];
                disk.submit(
                    begun,
                    match write {
                        true => Operation::Write { first, data: data() },
                        false => Operation::Read { first, blocks },
                    },
                );
                begun += 1;
            }
            let end = disk.next(now() + PATIENCE)?.ok_or("no answer")?;
            end.result?;
            ended += 1;
        }
        Ok(())
    }
}
