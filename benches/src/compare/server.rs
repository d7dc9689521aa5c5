//! The servers that are compared: started, stopped while others are measured, and ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::bout::{Bout, Store};
use super::command::{self, Ready, Started};
use super::kind::Kind;
use super::net::Net;
use crate::pattern::Rng;
use crate::{child, cpu};

/// How long a server may take to serve.
const START_MAX: Duration = Duration::from_secs(15);

/// A file full of noise, gone when dropped, and with it what lies beside it.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

impl Image {
    /// Makes it. Without noise it has a name and a size, and takes no room: for those who have
    /// memory of their own.
    pub(crate) fn new(folder: &Path, name: &str, bytes: u64, noise: bool) -> std::io::Result<Self> {
        let image = Self { path: path_of(folder, name), bytes };
        let mut file = File::create(&image.path)?;
        let (mut piece, mut rng) = (vec![0; 1 << 20], Rng::new(1));
        for _ in 0..if noise { bytes >> 20 } else { 0 } {
            rng.fill(&mut piece);
            file.write_all(&piece)?;
        }
        file.sync_all()?;
        Ok(image)
    }

    /// Another name for the same file. Where on a disk a file lies may matter more than who serves
    /// it, so servers that are measured in turn are given one and the same.
    pub(crate) fn shared(&self, folder: &Path, name: &str) -> std::io::Result<Self> {
        let path = path_of(folder, name);
        fs::hard_link(&self.path, &path)?;
        Ok(Self { path, bytes: self.bytes })
    }

    /// A name for something that goes with it.
    pub(super) fn beside(&self, end: &str) -> PathBuf {
        self.path.with_extension(end)
    }
}

fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("corbel-bench-{}-{name}.img", std::process::id()))
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        for end in ["toml", "json", "conf", "pid", "sock", "sock.lock"] {
            let _ = fs::remove_file(self.beside(end));
        }
        let _ = fs::remove_dir_all(self.beside("state"));
    }
}

/// What a server is started with.
pub(crate) struct Setup<'a> {
    pub(crate) kind: Kind,
    pub(crate) bout: &'a Bout,
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
    /// None of a limit that is a load of its own.
    child: Option<Child>,
    /// Its own, unless it has none.
    image: Option<Image>,
}

impl Server {
    /// Starts it, and comes back when it serves.
    pub(crate) fn start(setup: Setup<'_>, net: Option<&mut Net>) -> Result<Self, String> {
        let kind = setup.kind;
        let wrong = |why: String| format!("{}: {why}", kind.name());
        let (command, path) = command::of(&setup, net).map_err(wrong)?;
        let child = spawn(&command.words, setup.cores).map_err(wrong)?;
        let mut server = Self {
            kind,
            path,
            command: command.words.join(" "),
            idle_bytes: 0,
            store_bytes: setup.image.bytes,
            child: Some(child),
            image: Some(setup.image),
        };
        server.until_ready(&command).map_err(wrong)?;
        // On a disk one that never sleeps would keep the kernel's own threads from running, which
        // finish writes to files: none of SPDK's uring bdev ended.
        if kind.is_spdk() && setup.bout.store != Store::Disk {
            server.promote().map_err(wrong)?;
        }
        server.idle_bytes = server.resident_bytes();
        Ok(server)
    }

    /// What it serves.
    pub(crate) fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    /// No server, but the very file that another one serves.
    pub(crate) fn limit(kind: Kind, program: &Path, of: &Self) -> Option<Self> {
        let path = of.image.as_ref()?.path.display().to_string();
        let (command, store_bytes) = (program.display().to_string(), of.store_bytes);
        Some(Self { kind, path, command, idle_bytes: 0, store_bytes, child: None, image: None })
    }

    /// Gives it the real-time priority that this program has, if it has one.
    fn promote(&self) -> Result<(), String> {
        let (Some(priority), Some(pid)) = (cpu::real_time_priority(), self.pid()) else {
            return Ok(());
        };
        let line = ["chrt", "--all-tasks", "--fifo", "--pid"].map(str::to_owned);
        let words: Vec<_> =
            line.into_iter().chain([priority, pid].map(|n| n.to_string())).collect();
        do_it(&words)
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
        match self.child.as_mut().map_or(Ok(None), Child::try_wait) {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("it ended at once: {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn until_it_says_so(&mut self) -> Result<(), String> {
        let out = self
            .child
            .as_mut()
            .and_then(|child| child.stdout.take())
            .ok_or("its output is lost")?;
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

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
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
        self.pid().and_then(|pid| cpu::resident_bytes(pid).ok()).unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL: tgtd ignores others while it has targets, and a stopped process all others.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a process on some cores.
fn spawn(words: &[String], cores: &[usize]) -> Result<Child, String> {
    check(cores)?;
    child::command(&words[0], cores)
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{}: {error}", words[0]))
}

/// Says which option is wrong, where the process itself could only end at once.
fn check(cores: &[usize]) -> Result<(), String> {
    thread::scope(|scope| scope.spawn(|| cpu::pin(cores)).join())
        .unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))
        .map_err(|error| format!("--server-cpus: {error}"))
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
    fn an_image_is_as_long_as_told_and_gone_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image::new(folder.path(), "a", 3 << 20, true).unwrap();
        let path = image.path.clone();
        assert_eq!(fs::metadata(&path).unwrap().len(), 3 << 20);
        drop(image);
        assert!(!path.exists());
    }

    #[test]
    fn servers_share_one_file_until_the_last_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = Image::new(folder.path(), "a", 1 << 20, true).unwrap();
        let second = first.shared(folder.path(), "b").unwrap();
        fs::write(&first.path, b"one").unwrap();
        drop(first);
        assert_eq!(fs::read(&second.path).unwrap(), b"one");
        let path = second.path.clone();
        drop(second);
        assert!(!path.exists());
    }
}
