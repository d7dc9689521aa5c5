//! What happens to devices: told to the log, to udev, and to a program of the administrator's, in
//! the manner of `mdadm --monitor`.
//!
//! Whoever reports an event is on a device's data path: it is put into a queue of bounded length
//! and nothing else. Everything that may wait (the log's pipe, the program) is done from there, on
//! the control plane's thread.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::devices::NoticeSink;
use super::udev;
use crate::multipath::status::Notice;

/// Events that may wait. A path that flaps that fast says nothing new with the next one.
const EVENTS_MAX: usize = 256;

/// The program may take so long for one event; then it is killed with all that it started.
const HOOK_MAX: Duration = Duration::from_secs(30);

/// One event, in the words of the program's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    device: String,
    what: &'static str,
    path: Option<String>,
    why: Option<String>,
}

impl Event {
    fn new(device: &str, notice: &Notice) -> Self {
        let (what, path, why) = match notice {
            Notice::PathDown { path, fault } => {
                let why = serde_json::to_value(fault).ok();
                let why = why.and_then(|why| why.as_str().map(str::to_owned));
                ("path-down", Some(path.clone()), why)
            }
            Notice::PathUp { path } => ("path-up", Some(path.clone()), None),
            Notice::PathQuarantined { path, why } => {
                ("path-quarantined", Some(path.clone()), Some(why.clone()))
            }
            Notice::AllPathsDown => ("all-paths-down", None, None),
            Notice::Recovered => ("recovered", None, None),
            Notice::QueueGivenUp => ("queue-given-up", None, None),
            Notice::Resized(bytes) => ("resized", None, Some(format!("{bytes} bytes"))),
            Notice::CacheLost => ("cache-lost", None, None),
        };
        Self { device: device.to_owned(), what, path, why }
    }

    fn log(&self) {
        let Self { device, what, path, why } = self;
        let path = path.as_deref().map(|path| format!(" {path}")).unwrap_or_default();
        let why = why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        // What a target says must not break the log's lines.
        let text: String = format!("{device}: {what}{path}{why}")
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        match *what {
            "path-up" | "recovered" | "resized" => tracing::info!("{text}"),
            "path-down" => tracing::warn!("{text}"),
            _ => tracing::error!("{text}"),
        }
    }
}

/// The way in. Cheap to copy.
#[derive(Debug, Clone)]
pub(super) struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Event>,
    hook: watch::Sender<Option<PathBuf>>,
    dropped: AtomicU64,
    failures: AtomicU64,
}

impl Events {
    /// Events are handed on from now on, to `hook` too if there is one. Must be called on the
    /// control plane's runtime.
    pub(super) fn new(hook: Option<PathBuf>) -> Self {
        let (queue, events) = mpsc::channel(EVENTS_MAX);
        let (dropped, failures) = (AtomicU64::new(0), AtomicU64::new(0));
        let hook = watch::Sender::new(hook);
        let this = Self(Arc::new(Inner { queue, hook, dropped, failures }));
        tokio::spawn(hand_on(events, Arc::downgrade(&this.0)));
        this
    }

    /// What devices report to.
    pub(super) fn sink(&self) -> NoticeSink {
        let this = self.clone();
        Arc::new(move |device, notice| this.tell(Event::new(device, notice)))
    }

    fn tell(&self, event: Event) {
        if self.0.queue.try_send(event).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Another program is told from now on, or none.
    pub(super) fn hook(&self, program: Option<PathBuf>) {
        self.0.hook.send_replace(program);
    }

    /// Events for which there was no room.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Times that the program failed, was killed, or did not start.
    pub(super) fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }
}

async fn hand_on(mut events: mpsc::Receiver<Event>, inner: std::sync::Weak<Inner>) {
    while let Some(event) = events.recv().await {
        event.log();
        let ready = match event.what {
            "all-paths-down" => Some(false),
            "recovered" => Some(true),
            _ => None,
        };
        if let Some(ready) = ready {
            let device = event.device.clone();
            // sysfs may wait for the very device that is down.
            drop(tokio::task::spawn_blocking(move || udev::set_ready(&device, ready)));
        }
        let Some(inner) = inner.upgrade() else { return };
        let program = inner.hook.borrow().clone();
        let Some(program) = program else { continue };
        if let Err(why) = run(&program, &event, HOOK_MAX).await {
            inner.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("the event hook {} {why} ({})", program.display(), event.what);
        }
    }
}

/// Runs `program` for `event`.
///
/// # Errors
/// How it failed, in words.
async fn run(program: &PathBuf, event: &Event, most: Duration) -> Result<(), String> {
    let mut command = Command::new(program);
    command
        .env("CORBEL_EVENT", event.what)
        .env("CORBEL_DEVICE", &event.device)
        .env("CORBEL_PATH", event.path.as_deref().unwrap_or_default())
        .env("CORBEL_WHY", event.why.as_deref().unwrap_or_default().replace('\0', "?"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // A group of its own: it is ended together with whatever it started, and with nothing else.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("did not start: {error}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    match timeout(most, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("failed: {status}")),
        Ok(Err(error)) => Err(format!("is lost: {error}")),
        Err(_) => {
            // It was not waited for yet, so its number is still its own.
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait().await;
            Err(format!("took longer than {} s and was killed", most.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Instant;

    use super::*;
    use crate::path::PathFault;

    fn script(folder: &Path, text: &str) -> PathBuf {
        // Written by another process: a child that a test beside this one starts meanwhile would
        // inherit our descriptor, and nobody can run a file that is open for writing.
        let path = folder.join("hook");
        let write = r#"printf '%s\n' '#!/bin/sh' "$2" >"$1" && chmod 755 "$1""#;
        let mut writer = std::process::Command::new("sh");
        let done = writer.args(["-c", write, "sh"]).arg(&path).arg(text);
        assert!(done.status().unwrap().success());
        path
    }

    fn event() -> Event {
        let notice = Notice::PathDown { path: "aoe:0.0@eth1".into(), fault: PathFault::LinkDown };
        Event::new("vmstore", &notice)
    }

    #[tokio::test]
    async fn the_program_is_told_what_happened_where_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let words = "$CORBEL_EVENT $CORBEL_DEVICE $CORBEL_PATH $CORBEL_WHY";
        let hook = script(folder.path(), &format!("echo \"{words}\" >{}", said.display()));
        run(&hook, &event(), HOOK_MAX).await.unwrap();
        assert_eq!(
            fs::read_to_string(&said).unwrap(),
            "path-down vmstore aoe:0.0@eth1 link-down\n"
        );
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let hook = script(folder.path(), &format!("sleep 600 & echo $! >{}\nwait", pid.display()));
        let begun = Instant::now();
        let why = run(&hook, &event(), Duration::from_millis(500)).await.unwrap_err();
        assert!(why.contains("killed") && begun.elapsed() < Duration::from_secs(20), "{why}");
        let child = fs::read_to_string(&pid).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        while state().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(begun.elapsed() < Duration::from_secs(20), "what it started lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_or_is_absent_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let hook = script(folder.path(), "exit 3");
        assert!(run(&hook, &event(), HOOK_MAX).await.unwrap_err().contains("failed"));
        let absent = folder.path().join("absent");
        let events = Events::new(Some(absent));
        events.sink()("vmstore", &Notice::AllPathsDown);
        while events.failures() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        events.hook(None);
    }

    #[tokio::test]
    async fn whoever_reports_never_waits_and_what_finds_no_room_is_counted() {
        let events = Events::new(None);
        let sink = events.sink();
        // The runtime has one thread, this one: nothing is handed on meanwhile.
        for _ in 0..EVENTS_MAX + 7 {
            sink("vmstore", &Notice::PathUp { path: "aoe:0.0@eth1".into() });
        }
        assert_eq!(events.dropped(), 7);
    }
}
