//! One device's thread: completions and letters in, operations out.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration as Wait;

use corbel_proto::time::{Duration, Instant};
use corbel_ring::Receiver;
use corbel_ring::memory::{Arena, Buf};
use corbel_ring::reactor::{Completion, Event, Reactor};

use super::legacy_file::LegacyFile;
use super::letter::Letter;
use super::ports::Ports;
use super::presenter::{News, Presenter};
use super::run_state::RunState;
use super::streams::Streams;
use super::{NoticeSink, clock, paths, tag};
use crate::admin::{Answer, Command, Presented, Reply, Report};
use crate::config::{DeviceSettings, policy_limits};
use crate::device::Device;
use crate::multipath::status::Notice;
use crate::request::Request;

/// What a worker is made of.
pub(super) struct Parts {
    pub(super) reactor: Reactor,
    pub(super) device: Device<Arena>,
    pub(super) settings: DeviceSettings,
    pub(super) host: paths::Host,
    pub(super) run_dir: PathBuf,
    pub(super) caches: LegacyFile,
    pub(super) inbox: Receiver<Letter>,
    pub(super) notices: NoticeSink,
    pub(super) attached: Reply,
}

/// How the device ends.
enum Ending {
    /// The presenter goes first, so that its users' requests still find paths. A kernel's device
    /// that is in use, or cannot be taken away until then, is left to the next process.
    Presenter { left_after: Option<Instant> },
    /// Then requests, doubts and sessions.
    Device { until: Instant },
}

/// See the module.
pub(super) struct Worker {
    reactor: Reactor,
    arena: Arena,
    device: Device<Arena>,
    settings: DeviceSettings,
    host: paths::Host,
    run_dir: PathBuf,
    caches: LegacyFile,
    inbox: Receiver<Letter>,
    letters: VecDeque<Letter>,
    notices: NoticeSink,
    ports: Ports,
    streams: Streams,
    presenter: Option<Presenter>,
    presented: Option<Presented>,
    /// Who waits for the device to be there.
    attached: Option<Reply>,
    requests: Vec<Request<Buf>>,
    ending: Option<Ending>,
    patience: Duration,
    /// Who waits for the device to be gone, and for a fence to be complete.
    detached: Vec<Reply>,
    fenced: Vec<Reply>,
    soon: bool,
    over: bool,
    /// Another process is to take the device over.
    left_behind: bool,
}

/// A presenter that waits for memory is asked again this soon.
const SOON: Wait = Wait::from_millis(1);
/// Beyond its patience, a device that ends may take so long to take leave of its targets.
const LEAVE_MAX: Duration = Duration::from_secs(2);

impl Worker {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            arena: parts.reactor.arena(),
            reactor: parts.reactor,
            device: parts.device,
            settings: parts.settings,
            host: parts.host,
            run_dir: parts.run_dir,
            caches: parts.caches,
            inbox: parts.inbox,
            letters: VecDeque::new(),
            notices: parts.notices,
            ports: Ports::default(),
            streams: Streams::default(),
            presenter: None,
            presented: None,
            attached: Some(parts.attached),
            requests: Vec::new(),
            ending: None,
            patience: Duration::ZERO,
            detached: Vec::new(),
            fenced: Vec::new(),
            soon: false,
            over: false,
            left_behind: false,
        }
    }

    /// Serves until told to end.
    ///
    /// # Errors
    /// If the ring broke.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut done = Vec::new();
        let now = clock::now();
        self.ports.watch(now, &mut self.reactor, &mut self.device);
        let first = std::mem::take(&mut self.settings.paths);
        for path in &first {
            paths::add(now, &mut self.device, path, &self.settings, &self.host);
        }
        self.settings.paths = first;
        self.serve(now);
        while !self.over {
            let wait = self.wait();
            self.reactor.turn(wait, &mut done)?;
            let now = clock::now();
            for completion in done.drain(..) {
                self.completed(now, completion);
            }
            self.inbox.drain(&mut self.letters);
            while let Some(letter) = self.letters.pop_front() {
                self.letter(now, letter);
            }
            self.serve(now);
        }
        self.say_goodbye();
        if self.device.is_gone() && !self.left_behind {
            self.caches.forget();
        }
        // What is queued goes out.
        self.reactor.turn(Some(Wait::ZERO), &mut done)
    }

    /// Everything that follows from what came in.
    fn serve(&mut self, now: Instant) {
        self.ports.receive(now, &mut self.device, &self.arena);
        if self.device.poll_timeout().is_some_and(|due| due <= now) {
            self.device.handle_timeout(now);
        }
        while self.exchange(now) || self.connect(now) {}
        while let Some(notice) = self.device.poll_notice() {
            self.noticed(&notice);
        }
        self.present();
        self.end(now);
        self.ports.open_wanted(&mut self.reactor, &self.device);
        // Before anything is written to a cache that the file does not name.
        self.caches.keep(self.device.legacy_version(), || self.device.legacy());
        self.streams.pump(&mut self.reactor, &mut self.device);
        self.ports.send(&mut self.reactor, &mut self.device);
        self.soon = false;
        if let Some(presenter) = &mut self.presenter {
            self.soon = presenter.flush(&mut self.reactor, &mut self.arena);
        }
        self.hear_presenter();
    }

    /// Passes on requests, and how they ended. True if there was any: the end of one piece of a
    /// long request may be the beginning of the next, for which no event would come.
    fn exchange(&mut self, now: Instant) -> bool {
        let mut moved = false;
        if let Some(presenter) = &mut self.presenter {
            presenter.take(&mut self.arena, &mut self.requests);
            for request in self.requests.drain(..) {
                self.device.submit(now, request);
                moved = true;
            }
        }
        while let Some(outcome) = self.device.poll_outcome() {
            if let Some(presenter) = &mut self.presenter {
                presenter.complete(outcome);
            }
            moved = true;
        }
        moved
    }

    /// Makes and closes connections. True if there was any.
    fn connect(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(wire) = self.device.poll_wire() {
            self.streams.wire(now, wire, &mut self.reactor, &mut self.device);
            moved = true;
        }
        moved
    }

    /// How long nothing needs to be done. `None`: until something happens.
    fn wait(&self) -> Option<Wait> {
        if self.ports.has_frames() {
            return Some(Wait::ZERO);
        }
        let soon = (self.soon || self.ending.is_some()).then_some(SOON);
        let now = clock::now();
        let due = self.device.poll_timeout().map(|due| due.since(now));
        due.into_iter().chain(soon).min()
    }

    fn completed(&mut self, now: Instant, completion: Completion) {
        let Completion { tag, event, more, .. } = completion;
        let (reactor, device) = (&mut self.reactor, &mut self.device);
        match tag::parts(tag) {
            (tag::LINKS, _) => self.ports.link_events(now, reactor, device),
            (tag::PORT_READABLE, index) => self.ports.readable(index),
            (tag::FRAME_SENT, _) => {
                if let Event::Sent(Err(error)) = event {
                    tracing::debug!(%error, "a frame was not sent; it is repeated");
                }
            }
            (tag::CONNECTED, key) => self.streams.connected(now, key, reactor, device),
            (tag::RECEIVED, key) => self.streams.received(now, key, event, more, reactor, device),
            (tag::SENT, key) => self.streams.sent(now, key, event, reactor, device),
            other => {
                if let Some(presenter) = &mut self.presenter {
                    presenter.completed(other, event, more, reactor, &mut self.arena);
                }
            }
        }
    }

    fn noticed(&mut self, notice: &Notice) {
        if let (Notice::Resized(bytes), Some(presenter)) = (notice, &mut self.presenter) {
            presenter.resize(*bytes);
        }
        // Paths that end with their device are nothing to be woken for.
        if self.ending.is_none() {
            (self.notices)(self.device.name(), notice);
        }
    }

    /// Once a path has told what the device is like, users may come.
    fn present(&mut self) {
        if self.presenter.is_some() || self.ending.is_some() || self.attached.is_none() {
            return;
        }
        let Some(geometry) = self.device.geometry() else { return };
        let wwid = self.device.status(clock::now()).wwid.unwrap_or_default();
        let state = RunState::load(&self.run_dir, self.device.name(), &wwid);
        let begun = Presenter::begin(
            self.device.name(),
            &self.settings.present,
            &geometry,
            state,
            &mut self.reactor,
        );
        match begun {
            Ok(presenter) => self.presenter = Some(presenter),
            Err(why) => self.give_up(&why),
        }
    }

    /// The device cannot be presented.
    fn give_up(&mut self, why: &str) {
        tracing::error!(device = self.device.name(), why, "not presented");
        if let Some(reply) = self.attached.take() {
            reply(Err(why.to_owned()));
        }
        self.presenter = None;
        self.presented = None;
        self.begin_to_end(clock::now(), Duration::ZERO);
    }

    fn hear_presenter(&mut self) {
        loop {
            let news = self.presenter.as_mut().and_then(Presenter::poll_news);
            match news {
                None => return,
                Some(News::Ready(presented)) => {
                    self.device.taken_over(clock::now());
                    self.presented = Some(presented.clone());
                    if let Some(reply) = self.attached.take() {
                        reply(Ok(Answer::Attached(presented)));
                    }
                }
                Some(News::InUse(who)) => {
                    if let Some(Ending::Presenter { left_after: Some(_) }) = self.ending {
                        self.leave_behind(&who);
                        return;
                    }
                    self.ending = None;
                    for reply in self.detached.drain(..) {
                        reply(Err(format!(
                            "it is in use: {who}; --force takes it away all the same"
                        )));
                    }
                }
                Some(News::Gone) => {
                    self.presenter = None;
                    self.presented = None;
                    self.begin_to_end(clock::now(), self.patience);
                }
                Some(News::Failed(why)) => self.give_up(&why),
                Some(News::Note(text)) => tracing::warn!(device = self.device.name(), text),
            }
        }
    }

    fn letter(&mut self, now: Instant, letter: Letter) {
        match letter {
            Letter::Call(command, reply) => self.command(now, command, reply),
            Letter::Stop(patience) => self.leave(now, patience),
        }
    }

    fn command(&mut self, now: Instant, command: Command, reply: Reply) {
        let done = match command {
            Command::Status => Ok(Answer::Status(Box::new(Report {
                device: self.device.status(now),
                limits: policy_limits(self.device.policy(), &self.settings.origins),
                presented: self.presented.clone(),
            }))),
            Command::Fail { path } => self.each_path(&path, |device, id| device.fail_path(now, id)),
            Command::Reinstate { path } => {
                self.each_path(&path, |device, id| device.reinstate_path(now, id))
            }
            Command::RemovePath { path } => {
                self.settings.paths.retain(|known| known.spec.to_string() != path);
                self.each_path(&path, |device, id| device.remove_path(now, id))
            }
            Command::Accept { path } => {
                self.each_path(&path, |device, id| device.accept_path(now, id))
            }
            Command::AddPath(path) => self.add_path(now, *path),
            Command::Set(setting) => {
                let mut policy = self.device.policy().clone();
                match setting.apply(&mut policy, &mut self.settings.origins) {
                    Ok(()) => {
                        self.device.set_policy(now, policy);
                        Ok(Answer::Done)
                    }
                    Err(wrong) => Err(wrong.to_string()),
                }
            }
            Command::SetPolicy(policy, origins) => {
                self.settings.origins = origins;
                self.device.set_policy(now, *policy);
                Ok(Answer::Done)
            }
            Command::SwitchGroup(group) => {
                self.device.switch_group(now, group);
                Ok(Answer::Done)
            }
            Command::Resize => {
                self.device.accept_size(now);
                Ok(Answer::Done)
            }
            Command::Fence => {
                self.device.fence(now);
                return self.fenced.push(reply);
            }
            Command::Unfence => {
                self.device.unfence(now);
                Ok(Answer::Done)
            }
            Command::Detach { force, patience } => {
                return self.detach(now, force, patience, Some(reply));
            }
        };
        reply(done);
    }

    fn each_path(
        &mut self,
        text: &str,
        act: impl Fn(&mut Device<Arena>, crate::path::PathId),
    ) -> Result<Answer, String> {
        let found = self.device.paths_called(text);
        if found.is_empty() {
            let known: Vec<_> = self.device.path_names().map(|(_, name)| name).collect();
            return Err(format!("no path `{text}`; there are: {}", known.join(", ")));
        }
        found.into_iter().for_each(|id| act(&mut self.device, id));
        Ok(Answer::Done)
    }

    fn add_path(
        &mut self,
        now: Instant,
        path: crate::config::PathSettings,
    ) -> Result<Answer, String> {
        let text = path.spec.to_string();
        if !self.device.paths_called(&text).is_empty() {
            return Err(format!("there is a path `{text}` already"));
        }
        paths::add(now, &mut self.device, &path, &self.settings, &self.host);
        self.settings.paths.push(path);
        Ok(Answer::Done)
    }

    fn detach(&mut self, now: Instant, force: bool, patience: Duration, reply: Option<Reply>) {
        self.detached.extend(reply);
        self.patience = match self.ending {
            Some(_) => self.patience.min(patience),
            None => patience,
        };
        match (&mut self.presenter, &self.ending) {
            (Some(presenter), None | Some(Ending::Presenter { .. })) => {
                self.ending = Some(Ending::Presenter { left_after: None });
                presenter.stop(force, &mut self.reactor);
            }
            _ => self.begin_to_end(now, self.patience),
        }
        if force {
            // What waits for a path must not keep the presenter from ending.
            self.device.detach(now, patience);
        }
    }

    /// The process ends. Whoever uses a device of the kernel's does not notice, if another process
    /// follows: what they ask waits for it, as after a crash.
    fn leave(&mut self, now: Instant, patience: Duration) {
        match &mut self.presenter {
            Some(presenter) if presenter.outlives() => {
                self.patience = patience;
                self.ending = Some(Ending::Presenter { left_after: Some(now + patience) });
                presenter.stop(false, &mut self.reactor);
            }
            _ => self.detach(now, true, patience, None),
        }
    }

    fn leave_behind(&mut self, why: &str) {
        let device = self.device.name();
        tracing::warn!(device, why, "left to the next process: requests wait for it");
        self.presenter = None;
        self.presented = None;
        self.ending = None;
        self.left_behind = true;
        self.begin_to_end(clock::now(), Duration::ZERO);
    }

    fn begin_to_end(&mut self, now: Instant, patience: Duration) {
        if matches!(self.ending, Some(Ending::Device { .. })) {
            return;
        }
        self.ending = Some(Ending::Device { until: now + patience + LEAVE_MAX });
        self.device.detach(now, patience);
    }

    fn end(&mut self, now: Instant) {
        if !self.fenced.is_empty() && self.device.is_quiet() {
            self.fenced.drain(..).for_each(|reply| reply(Ok(Answer::Done)));
        }
        let until = match &self.ending {
            Some(Ending::Presenter { left_after: Some(at) }) if *at <= now => {
                return self.leave_behind("it is not taken away in time");
            }
            Some(Ending::Device { until }) => until,
            _ => return,
        };
        let gone = self.device.is_gone() && self.streams.is_empty();
        self.over = gone || *until <= now;
    }

    fn say_goodbye(&mut self) {
        if let Some(reply) = self.attached.take() {
            reply(Err("the device was detached before it was there".to_owned()));
        }
        self.detached.drain(..).for_each(|reply| reply(Ok(Answer::Done)));
    }
}
