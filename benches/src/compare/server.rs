//! The servers that are compared: started, stopped while others are measured, and ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::net::Net;
use crate::cpu;
use crate::pattern::Rng;

const IQN: &str = "iqn.2026-11.org.example:bench";
/// How long a server may take to serve.
const START_MAX: Duration = Duration::from_secs(15);

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Corbel,
    /// The same, acknowledging AoE writes before they are on stable storage, as others do.
    CorbelCached,
    /// With its 16 threads for each LUN.
    Tgt,
    /// With one.
    TgtOne,
    Vblade,
}

/// Over which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Iscsi,
    Aoe,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Corbel => "corbel",
            Self::CorbelCached => "corbel-cached",
            Self::Tgt => "tgt",
            Self::TgtOne => "tgt-1",
            Self::Vblade => "vblade",
        }
    }

    /// All that ours can be compared with.
    pub(crate) const PEERS: [Self; 4] = [Self::Tgt, Self::TgtOne, Self::Vblade, Self::CorbelCached];

    pub(crate) fn peer(text: &str) -> Result<Self, String> {
        Self::PEERS.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            format!(
                "`{text}` is no peer that is known; there are tgt, tgt-1 (one thread), vblade, \
                 corbel-cached (AoE writes acknowledged before they are stable)"
            )
        })
    }

    /// Whether it takes part: speaks the protocol, and differs from the others there.
    pub(crate) const fn takes_part(self, protocol: Protocol, on_disk: bool) -> bool {
        match (self, protocol) {
            (Self::Corbel, _) => true,
            (Self::Tgt | Self::TgtOne, Protocol::Iscsi) | (Self::Vblade, Protocol::Aoe) => true,
            (Self::CorbelCached, Protocol::Aoe) => on_disk,
            (Self::Tgt | Self::TgtOne | Self::Vblade | Self::CorbelCached, _) => false,
        }
    }

    /// The program, and what brings it, if it is another's.
    pub(crate) const fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Corbel | Self::CorbelCached => ("corbel-target", "this build"),
            Self::Tgt | Self::TgtOne => ("tgtd", "Debian package tgt"),
            Self::Vblade => ("vblade", "Debian package vblade"),
        }
    }
}

/// Where a program is; also where only root looks.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let places = std::env::split_paths(&path).chain(more);
    places.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A file full of noise, gone when dropped.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    bytes: u64,
}

impl Image {
    pub(crate) fn new(folder: &Path, name: &str, bytes: u64) -> std::io::Result<Self> {
        let path = folder.join(format!("corbel-bench-{}-{name}.img", std::process::id()));
        let image = Self { path, bytes };
        let mut file = File::create(&image.path)?;
        let (mut piece, mut rng) = (vec![0; 1 << 20], Rng::new(1));
        for _ in 0..bytes >> 20 {
            rng.fill(&mut piece);
            file.write_all(&piece)?;
        }
        file.sync_all()?;
        Ok(image)
    }

    /// A name for something that goes with it.
    fn beside(&self, end: &str) -> PathBuf {
        self.path.with_extension(end)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        for end in ["toml", "sock", "sock.lock"] {
            let _ = fs::remove_file(self.beside(end));
        }
        let _ = fs::remove_dir_all(self.beside("state"));
    }
}

/// What a server is started with.
pub(crate) struct Setup<'a> {
    pub(crate) kind: Kind,
    pub(crate) protocol: Protocol,
    /// Past the page cache.
    pub(crate) direct: bool,
    pub(crate) program: &'a Path,
    pub(crate) image: Image,
    pub(crate) cores: &'a [usize],
}

/// One that serves.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    /// The path to it, as `run` takes it.
    pub(crate) path: String,
    pub(crate) command: String,
    pub(crate) idle_bytes: u64,
    pub(crate) store_bytes: u64,
    child: Child,
    _image: Image,
}

impl Server {
    /// Starts it, and comes back when it serves.
    pub(crate) fn start(setup: Setup<'_>, net: Option<&mut Net>) -> Result<Self, String> {
        let kind = setup.kind;
        let wrong = |why: String| format!("{}: {why}", kind.name());
        let (command, path) = match (setup.protocol, net) {
            (Protocol::Iscsi, _) => iscsi(&setup).map_err(wrong)?,
            (Protocol::Aoe, Some(net)) => aoe(&setup, net).map_err(wrong)?,
            (Protocol::Aoe, None) => return Err("AoE without interfaces".to_owned()),
        };
        let child = spawn(&command.words, setup.cores).map_err(wrong)?;
        let mut server = Self {
            kind,
            path,
            command: command.words.join(" "),
            idle_bytes: 0,
            store_bytes: setup.image.bytes,
            child,
            _image: setup.image,
        };
        server.until_ready(&command).map_err(wrong)?;
        server.idle_bytes = server.resident_bytes();
        Ok(server)
    }

    fn until_ready(&mut self, command: &Started) -> Result<(), String> {
        match &command.ready {
            Ready::Says => self.until_it_says_so(),
            Ready::Listens(address, then) => {
                let end = Instant::now() + START_MAX;
                while TcpStream::connect(address).is_err() {
                    self.still_there()?;
                    if Instant::now() >= end {
                        return Err(format!("it does not listen on {address}"));
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                then.iter().try_for_each(|words| do_it(words))
            }
            // Whoever measures it asks until it answers.
            Ready::Soon => {
                thread::sleep(Duration::from_millis(500));
                self.still_there()
            }
        }
    }

    fn still_there(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("it ended at once: {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn until_it_says_so(&mut self) -> Result<(), String> {
        let out = self.child.stdout.take().ok_or("its output is lost")?;
        let (tell, told) = channel();
        // Goes on reading, so that the server never waits for somebody to read.
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let end = Instant::now() + START_MAX;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match told.recv_timeout(left) {
                Ok(line) if line == "ready" => return Ok(()),
                Ok(_) => {}
                Err(_) => return Err("it did not say `ready`".to_owned()),
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It is our child and was not waited for: the number is still its own.
        let _ = pid.map(|pid| kill_process(pid, signal));
    }

    /// Lets it do nothing until [`Self::go_on`].
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        cpu::resident_bytes(self.pid()).unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL: tgtd ignores others while it has targets, and a stopped process all others.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

enum Ready {
    Says,
    Listens(SocketAddr, Vec<Vec<String>>),
    Soon,
}

struct Started {
    words: Vec<String>,
    ready: Ready,
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|&word| word.to_owned()).collect()
}

fn iscsi(setup: &Setup<'_>) -> Result<(Started, String), String> {
    let address = free_address().map_err(|error| error.to_string())?;
    let (program, image) = (setup.program.display().to_string(), setup.image.path.display());
    let image = image.to_string();
    if setup.kind == Kind::Corbel {
        let threads = setup.cores.len().max(1).to_string();
        let place = format!("{IQN}@{address}");
        let line = ["export", &image, "--iscsi", &place, "--threads", &threads];
        let words = [program].into_iter().chain(words(&line)).collect();
        let path = format!("iscsi:{IQN}/0@{address}");
        return Ok((Started { words, ready: Ready::Says }, path));
    }
    let threads = if setup.kind == Kind::TgtOne { "1" } else { "16" };
    // Its control socket has this number in its name, which ends at 32767.
    let (number, portal) = (address.port() % 32_000 + 100, format!("portal={address}"));
    let number = number.to_string();
    let line = ["-f", "-C", &number, "-t", threads, "--iscsi", &portal];
    let daemon = [program].into_iter().chain(words(&line)).collect();
    let admin = find("tgtadm").ok_or("tgtadm is not installed")?.display().to_string();
    let admin = |line: &[&str]| {
        let head = [admin.as_str(), "-C", &number, "--lld", "iscsi", "--mode"];
        words(&head).into_iter().chain(words(line)).collect::<Vec<_>>()
    };
    let mut unit = vec!["logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", &image];
    unit.extend(["-E", "rdwr"]);
    if setup.direct {
        unit.extend(["--bsoflags", "direct"]);
    }
    let then = vec![
        admin(&["target", "--op", "new", "--tid", "1", "-T", IQN]),
        admin(&unit),
        admin(&["target", "--op", "bind", "--tid", "1", "-I", "ALL"]),
    ];
    let ready = Ready::Listens(address, then);
    Ok((Started { words: daemon, ready }, format!("iscsi:{IQN}/1@{address}")))
}

fn aoe(setup: &Setup<'_>, net: &mut Net) -> Result<(Started, String), String> {
    let (ours, theirs) = net.pair()?;
    let (program, image) = (setup.program.display().to_string(), setup.image.path.display());
    let image = image.to_string();
    let mut line = words(&["ip", "netns", "exec", &net.servers, &program]);
    let ready = if setup.kind == Kind::Corbel {
        let (place, threads) = (format!("0.1@{ours}"), setup.cores.len().max(1).to_string());
        line.extend(words(&["export", &image, "--aoe", &place, "--threads", &threads]));
        Ready::Says
    } else if setup.kind == Kind::CorbelCached {
        let config = cached_config(setup, &ours).map_err(|error| error.to_string())?;
        line.extend(words(&["serve", "--config", &config]));
        Ready::Says
    } else {
        line.extend(words(&["-b", "64"]));
        if setup.direct {
            line.extend(words(&["-d"]));
        }
        line.extend(words(&["0", "1", &ours, &image]));
        Ready::Soon
    };
    Ok((Started { words: line, ready }, format!("aoe:0.1@{theirs}")))
}

/// What no command line says. The file lies beside the image and goes with it.
fn cached_config(setup: &Setup<'_>, interface: &str) -> std::io::Result<String> {
    let image = std::path::absolute(&setup.image.path)?;
    let beside = |end: &str| setup.image.beside(end).display().to_string();
    let text = format!(
        "[daemon]\nthreads = {}\nadmin_socket = {:?}\nstate_dir = {:?}\n\n[[export]]\n\
         name = \"bench\"\npath = {:?}\nacknowledge = \"cached\"\n\
         aoe = [{{ shelf = 0, slot = 1, interfaces = [{interface:?}] }}]\n",
        setup.cores.len().max(1),
        std::path::absolute(beside("sock"))?,
        std::path::absolute(beside("state"))?,
        image,
    );
    let path = beside("toml");
    fs::write(&path, text)?;
    Ok(path)
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Starts a process on some cores: it inherits them from the thread that starts it.
fn spawn(words: &[String], cores: &[usize]) -> Result<Child, String> {
    let run = || {
        cpu::pin(cores).map_err(|error| format!("--server-cpus: {error}"))?;
        Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", words[0]))
    };
    thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|_| Err("could not be started".to_owned()))
}

fn do_it(words: &[String]) -> Result<(), String> {
    let done = Command::new(&words[0]).args(&words[1..]).output();
    let done = done.map_err(|error| format!("{}: {error}", words[0]))?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    Err(format!("{}: {}", words.join(" "), why.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_called_by_their_names() {
        assert_eq!(Kind::peer("tgt-1"), Ok(Kind::TgtOne));
        assert!(
            Kind::peer("corbel").is_err() && Kind::peer("scst").unwrap_err().contains("vblade")
        );
        assert!(Kind::Vblade.takes_part(Protocol::Aoe, false));
        assert!(!Kind::Vblade.takes_part(Protocol::Iscsi, false));
        // In RAM nothing is more stable than what was taken.
        assert!(!Kind::CorbelCached.takes_part(Protocol::Aoe, false));
    }

    #[test]
    fn an_image_is_as_long_as_told_and_gone_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image::new(folder.path(), "a", 3 << 20).unwrap();
        let path = image.path.clone();
        assert_eq!(fs::metadata(&path).unwrap().len(), 3 << 20);
        drop(image);
        assert!(!path.exists());
    }
}
