//! A target with so many exports, and sessions that do nothing.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use corbel_initiator::blocking::login::{self, Options};
use serde::Serialize;

use crate::units::{show_bytes, show_time};
use crate::{child, cpu};

const IQN: &str = "iqn.2026-11.org.example:scale";
/// Of what the load works on; the other exports are never touched.
const BUSY: &str = "mem:64M";

/// How long a target that nobody asks anything is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// A target without work.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Idle {
    pub(crate) resident_bytes: u64,
    /// CPU time in [`Self::watched_ns`].
    pub(crate) cpu_ns: u64,
    pub(crate) watched_ns: u64,
}

impl fmt::Display for Idle {
    #[expect(clippy::cast_precision_loss, reason = "for the eye")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "idle: {} resident, {} of CPU time in {}",
            show_bytes(self.resident_bytes as f64),
            show_time(self.cpu_ns as f64),
            show_time(self.watched_ns as f64)
        )
    }
}

/// One that serves; ends when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
    sessions: Vec<TcpStream>,
    /// Open as long as it may say something.
    _out: Option<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts it, and comes back when it serves. All defaults but the cores.
    pub(super) fn start(program: &Path, exports: u64, cores: &[usize]) -> Result<Self, String> {
        let wrong = |error: std::io::Error| error.to_string();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        let address = address.map_err(wrong)?;
        let name = format!("corbel-bench-{}-{}", std::process::id(), address.port());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).map_err(wrong)?;
        let config = folder.join("target.toml");
        fs::write(&config, configuration(&folder, address, exports)).map_err(wrong)?;
        let mut command = child::command(program, cores);
        command.arg("serve").arg("--config").arg(&config).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(wrong)?;
        let mut server = Self { child, address, folder, sessions: Vec::new(), _out: None };
        let out = server.child.stdout.take().ok_or("its output is lost")?;
        let mut out = BufReader::new(out);
        if !out.by_ref().lines().map_while(Result::ok).any(|line| line == "ready") {
            return Err("the target ended before it served".to_owned());
        }
        server._out = Some(out);
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first export, as `run` takes it.
    pub(super) fn path(&self) -> String {
        format!("iscsi:{IQN}/0@{}", self.address)
    }

    pub(super) fn resident_bytes(&self) -> u64 {
        cpu::resident_bytes(self.pid()).unwrap_or(0)
    }

    /// Logs in that many times, and does nothing.
    pub(super) fn hold_sessions(&mut self, count: u64) -> Result<(), String> {
        for number in 0..count {
            let bytes = number.to_be_bytes();
            let options = Options {
                initiator: "iqn.2026-11.org.example:idle".to_owned(),
                target: Some(IQN.to_owned()),
                isid: [0x80, bytes[4], bytes[5], bytes[6], bytes[7], 0],
                ..Options::default()
            };
            let opened = login::open(self.address, &options);
            self.sessions.push(opened.map_err(|error| format!("session {number}: {error}"))?.0);
        }
        Ok(())
    }

    /// What it costs while nobody asks anything.
    pub(super) fn idle(self) -> Result<Idle, String> {
        let account = || cpu::of_process(self.pid()).map_err(|error| error.to_string());
        // What starting left to do.
        thread::sleep(Duration::from_millis(500));
        let before = account()?;
        thread::sleep(WATCHED);
        let cpu_ns = account()?.since(before).ran;
        let watched_ns = u64::try_from(WATCHED.as_nanos()).unwrap_or(u64::MAX);
        Ok(Idle { resident_bytes: self.resident_bytes(), cpu_ns, watched_ns })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn configuration(folder: &Path, address: SocketAddr, exports: u64) -> String {
    let mut text = format!(
        "[daemon]\nadmin_socket = {:?}\nstate_dir = {:?}\n\n[[target]]\nname = {IQN:?}\n\
         portals = [\"{address}\"]\n",
        folder.join("sock"),
        folder.join("state"),
    );
    for number in 0..exports {
        let path = if number == 0 { BUSY } else { "null:1G" };
        text += &format!(
            "\n[[export]]\nname = \"export{number}\"\npath = {path:?}\n\
             iscsi = [{{ target = {IQN:?}, lun = {number} }}]\n"
        );
    }
    text
}
