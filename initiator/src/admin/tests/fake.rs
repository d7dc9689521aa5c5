//! Devices that do nothing but answer, or not; and a control plane around them.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::sample;
use crate::admin::{
    Answer, Command, Devices, Plan, Presented, Reply, Report, Request, Response, RunError, Source,
    ask, run,
};
use crate::config::{Daemon, DeviceSettings, Settings};

/// What a device does when it is asked.
#[derive(Debug, Clone, PartialEq)]
enum Mood {
    Hangs,
    Drops,
    HoldsBack,
    Refuses(String),
}

#[derive(Default)]
struct State {
    names: Vec<String>,
    moods: HashMap<String, Mood>,
    /// Replies that a device that hangs keeps; those of attaching, by name.
    kept: Vec<Reply>,
    held_back: HashMap<String, Reply>,
    presented: HashMap<String, Presented>,
    commands: Vec<String>,
    stopped: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Fake {
    state: Mutex<State>,
    changed: Condvar,
}

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn feel(&self, device: &str, mood: Mood) {
        self.state().moods.insert(device.to_owned(), mood);
    }

    /// It answers nothing any more.
    pub(super) fn hang(&self, device: &str) {
        self.feel(device, Mood::Hangs);
    }

    /// It forgets what it is asked.
    pub(super) fn drop_replies(&self, device: &str) {
        self.feel(device, Mood::Drops);
    }

    /// It has no path, and so cannot be used yet.
    pub(super) fn hold_back(&self, device: &str) {
        self.feel(device, Mood::HoldsBack);
    }

    /// It does nothing that it is told, attaching included.
    pub(super) fn refuse(&self, device: &str, why: &str) {
        self.feel(device, Mood::Refuses(why.to_owned()));
    }

    /// A path works.
    pub(super) fn let_go(&self, device: &str) {
        let mut state = self.state();
        state.moods.remove(device);
        let reply = state.held_back.remove(device).expect("it was held back");
        let presented = presented(device);
        state.presented.insert(device.to_owned(), presented.clone());
        drop(state);
        reply(Ok(Answer::Attached(presented)));
    }

    /// What devices were told since this was asked last.
    pub(super) fn commands(&self) -> Vec<String> {
        std::mem::take(&mut self.state().commands)
    }

    pub(super) fn set_names(&self, change: impl FnOnce(&mut Vec<String>)) {
        change(&mut self.state().names);
    }
}

fn presented(name: &str) -> Presented {
    Presented { by: "nbd", at: format!("nbd+unix:///?socket=/{name}"), link: None }
}

impl Devices for Fake {
    fn names(&self) -> Vec<String> {
        self.state().names.clone()
    }

    fn attach(&self, device: DeviceSettings, reply: Reply) {
        let mut state = self.state();
        let name = device.name;
        let answer = match state.moods.get(&name).cloned() {
            Some(Mood::Refuses(why)) => Err(why),
            Some(Mood::HoldsBack) => {
                state.names.push(name.clone());
                state.held_back.insert(name, reply);
                return;
            }
            _ => {
                state.names.push(name.clone());
                state.presented.insert(name.clone(), presented(&name));
                Ok(Answer::Attached(presented(&name)))
            }
        };
        drop(state);
        reply(answer);
    }

    fn call(&self, device: &str, command: Command, reply: Reply) {
        let mut state = self.state();
        let answer = match (state.moods.get(device).cloned(), command) {
            (Some(Mood::Hangs), _) => return state.kept.push(reply),
            (Some(Mood::Drops), _) => return drop(reply),
            (_, Command::Status) => {
                let presented = state.presented.get(device).cloned();
                let device = sample::device(device);
                Ok(Answer::Status(Box::new(Report { device, limits: Vec::new(), presented })))
            }
            (Some(Mood::Refuses(why)), _) => Err(why),
            (_, command) => {
                state.commands.push(format!("{device}: {command:?}"));
                if matches!(command, Command::Detach { .. }) {
                    state.names.retain(|name| name != device);
                }
                Ok(Answer::Done)
            }
        };
        drop(state);
        reply(answer);
    }

    fn stop(&self, _: Duration) {
        self.state().stopped = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let state = self.state();
        drop(self.changed.wait_while(state, |state| !state.stopped).unwrap());
    }
}

/// What is printed, as it is printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn settings(socket: &Path, names: &[&str]) -> Settings {
    let admin_socket = Some(socket.to_owned());
    let daemon = Daemon { admin_socket, ..Daemon::default() };
    let devices = names.iter().map(|name| DeviceSettings::new((*name).to_owned())).collect();
    Settings { daemon, devices }
}

/// A running control plane.
pub(super) struct World {
    _folder: TempDir,
    pub(super) socket: PathBuf,
    pub(super) fake: Arc<Fake>,
    printed: Printed,
    thread: JoinHandle<Result<(), RunError>>,
}

impl World {
    /// With these devices, all attached.
    pub(super) fn start(names: &[&str]) -> Self {
        Self::begin(names, |_| {}).ready()
    }

    /// Waits until it is ready.
    pub(super) fn ready(self) -> Self {
        self.until("it is never ready", || self.printed().ends_with("ready\n"));
        self
    }

    /// With these devices, of which some do not behave.
    pub(super) fn begin(names: &[&str], moods: impl FnOnce(&Fake)) -> Self {
        Self::with(names, moods, |_| {})
    }

    pub(super) fn with(
        names: &[&str],
        moods: impl FnOnce(&Fake),
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("initiator.sock");
        let mut settings = settings(&socket, names);
        change(&mut settings);
        Self::run(folder, Plan { settings, source: Source::Fixed }, moods)
    }

    pub(super) fn run(folder: TempDir, plan: Plan, moods: impl FnOnce(&Fake)) -> Self {
        let fake = Arc::new(Fake::default());
        moods(&fake);
        let socket = plan.settings.daemon.admin_socket.clone().unwrap();
        let (devices, printed) = (fake.clone(), Printed::default());
        let mut out = printed.clone();
        let thread = std::thread::spawn(move || {
            run(plan, move |_, _| Ok(devices as Arc<dyn Devices>), &mut out)
        });
        Self { _folder: folder, socket, fake, printed, thread }
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "{what}; it printed {}", self.printed());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn printed(&self) -> String {
        String::from_utf8(self.printed.0.lock().unwrap().clone()).unwrap()
    }

    pub(super) fn wait_for_print(&self, text: &str) {
        self.until(&format!("never printed: {text}"), || self.printed() == text);
    }

    pub(super) fn ask(&self, request: &Request) -> Response {
        self.until("the control socket never answers", || {
            let there = std::os::unix::net::UnixStream::connect(&self.socket).is_ok();
            there || self.thread.is_finished()
        });
        ask(&self.socket, request).unwrap()
    }

    /// Waits for its end; gives what it printed, and how it ended.
    pub(super) fn ended(self) -> (String, Result<(), RunError>) {
        let result = self.thread.join().unwrap();
        let printed = String::from_utf8(self.printed.0.lock().unwrap().clone()).unwrap();
        (printed, result)
    }

    /// Ends it; gives what it printed.
    pub(super) fn stop(self) -> String {
        assert_eq!(self.ask(&Request::Stop {}), Response::Stopped);
        assert!(!self.socket.exists(), "the socket is left behind");
        let (printed, result) = self.ended();
        result.unwrap();
        printed
    }
}
