//! What goes wrong, and when it is well again.

use corbel_proto::time::Duration;

use super::fabric::{Fabric, Input, Node};
use super::head::{Inbound, Process, State};
use super::net::{Segment, Way, between};

/// A change of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A head's machine starts its process, if there is none.
    Start(usize),
    /// A head's process ends; the machine resets its connections.
    Crash(usize),
    /// A head's machine loses its power. With `true`, what its cache held as well.
    PowerOff(usize, bool),
    /// A head's process stands still.
    Hang(usize),
    /// It goes on.
    Resume(usize),
    /// A head's disk does nothing for so long.
    DiskHangs(usize, Duration),
    /// Nobody can read or write this sector any more.
    BadSector(u64),
    /// The sector is repaired.
    GoodSector(u64),
    /// A head serves another device when it starts next.
    Alien(usize, bool),
    /// The device has so many sectors on a head.
    Resize(usize, usize),
    /// A link's carrier goes (`false`) or comes.
    Carrier(usize, bool),
    /// Nothing passes to the head, to the host.
    Block(usize, bool, bool),
    /// Frames above so many bytes of payload are lost.
    Passes(usize, u32),
    /// A link loses so many percent of its frames.
    Loses(usize, u64),
    /// Every connection over a link is reset, as by a firewall that lost its memory.
    ResetStreams(usize),
    /// A host's process starts.
    StartHost(usize),
    /// It is killed.
    KillHost(usize),
    /// A host's machine stands still: suspended, or starved.
    Freeze(usize),
    /// It goes on; its clock has gone on meanwhile.
    Thaw(usize),
    /// A host's application asks for no more.
    Rest(usize),
}

impl<N: Node> Fabric<N> {
    pub(super) fn change(&mut self, change: Change) {
        self.trace.say(self.now(), || format!("{change:?}"));
        match change {
            Change::Start(head) => self.start_head(head),
            Change::Crash(head) => self.end_process(head, State::Dead),
            Change::PowerOff(head, cache_lost) => {
                self.machine_off(head);
                if cache_lost {
                    self.lose_cache(self.heads[head].domain);
                }
            }
            Change::Hang(head) if self.heads[head].state == State::Up => {
                self.heads[head].state = State::Hung;
            }
            Change::Resume(head) if self.heads[head].state == State::Hung => self.resume(head),
            Change::Hang(_) | Change::Resume(_) => {}
            Change::DiskHangs(head, duration) => {
                self.heads[head].disk_hangs_until = self.now() + duration;
            }
            Change::BadSector(sector) => {
                self.stores[0].bad.insert(sector);
            }
            Change::GoodSector(sector) => {
                self.stores[0].bad.remove(&sector);
            }
            Change::Alien(head, alien) => self.heads[head].alien = alien,
            Change::Resize(head, sectors) => self.resize(head, sectors),
            Change::Carrier(link, up) => self.carrier(link, up),
            Change::Block(link, to_head, to_host) => {
                let link = &mut self.links[link];
                (link.blocked_to_head, link.blocked_to_host) = (to_head, to_host);
            }
            Change::Passes(link, bytes) => self.links[link].passes_bytes = bytes,
            Change::Loses(link, percent) => self.links[link].manners.loss_percent = percent,
            Change::ResetStreams(link) => self.reset_streams(link),
            Change::StartHost(host) => self.start_host(host),
            Change::KillHost(host) => self.kill_host(host),
            Change::Freeze(host) => self.hosts[host].frozen = true,
            Change::Thaw(host) if self.hosts[host].frozen => self.thaw(host),
            Change::Thaw(_) => {}
            Change::Rest(host) => self.hosts[host].node.rest(),
        }
    }

    fn start_head(&mut self, index: usize) {
        if matches!(self.heads[index].state, State::Up | State::Hung) {
            return;
        }
        let rng = self.rng.fork();
        let head = &mut self.heads[index];
        head.life += 1;
        head.state = State::Up;
        head.wake = None;
        let lives = (head.boot, head.life);
        head.process =
            Some(Process::start(index, &head.plan, lives, (head.alien, head.sectors), rng));
        self.for_head(index, Inbound::Wake);
    }

    fn end_process(&mut self, index: usize, state: State) {
        let life = self.heads[index].life;
        self.abandon_works(index);
        let head = &mut self.heads[index];
        (head.state, head.process, head.wake) = (state, None, None);
        head.backlog.clear();
        for stream in 0..self.streams.len() {
            if self.links[self.streams[stream].link].head != index
                || self.streams[stream].head_end != Some(life)
            {
                continue;
            }
            self.streams[stream].head_end = None;
            if state == State::Off {
                self.streams[stream].to_host.clear();
            } else {
                let abrupt = self.rng.percent(70);
                let segment = if abrupt { Segment::Reset } else { Segment::Fin };
                self.send(stream, Way::ToHost, segment);
            }
        }
    }

    /// Heads of one name are processes of one machine.
    fn machine_off(&mut self, head: usize) {
        let name = self.heads[head].plan.name;
        let all = 0..self.heads.len();
        let here: Vec<usize> = all.filter(|&n| self.heads[n].plan.name == name).collect();
        let boot = here.iter().map(|&n| self.heads[n].boot).max().unwrap_or(0) + 1;
        for head in here {
            if self.heads[head].state != State::Off {
                self.end_process(head, State::Off);
            }
            self.heads[head].boot = boot;
        }
    }

    /// A cache is lost. Heads that share it have all lost their power with it.
    pub fn lose_cache(&mut self, domain: usize) {
        let now = self.now();
        for head in 0..self.heads.len() {
            if self.heads[head].domain == domain && self.heads[head].state != State::Off {
                self.machine_off(head);
            }
        }
        let changed = self.stores[0].lose(now, domain, &mut self.rng);
        self.trace.say(now, || format!("cache {domain} is lost; that shows: {changed}"));
    }

    fn resize(&mut self, index: usize, sectors: usize) {
        let head = &mut self.heads[index];
        head.sectors = sectors;
        if let Some(process) = &head.process {
            process.resize(sectors);
        }
        if head.plan.announces && head.state == State::Up {
            self.for_head(index, Inbound::Wake);
        }
    }

    fn carrier(&mut self, link: usize, up: bool) {
        self.links[link].carrier = up;
        // The kernel tells after a moment.
        let delay = between(Duration::from_millis(5), &mut self.rng);
        self.agenda.after(delay, super::fabric::Event::Carrier(link));
    }

    fn reset_streams(&mut self, link: usize) {
        for stream in 0..self.streams.len() {
            if self.streams[stream].link == link && self.streams[stream].host_end.is_some() {
                self.send(stream, Way::ToHost, Segment::Reset);
                self.send(stream, Way::ToHead, Segment::Reset);
            }
        }
    }

    fn start_host(&mut self, host: usize) {
        if self.hosts[host].alive {
            return;
        }
        let carriers: Vec<(usize, bool)> = (0..self.links.len())
            .filter(|&link| self.links[link].host == host)
            .map(|link| (link, self.links[link].carrier))
            .collect();
        let now = self.now();
        let slot = &mut self.hosts[host];
        slot.alive = true;
        slot.life += 1;
        let mut out = Vec::new();
        slot.node.start(now, &carriers, &mut out);
        self.host_did(host, out);
    }

    fn kill_host(&mut self, host: usize) {
        if !self.hosts[host].alive {
            return;
        }
        let now = self.now();
        for stream in self.streams_of_host(host) {
            self.close(stream);
        }
        self.hosts[host].alive = false;
        self.hosts[host].node.kill(now);
    }

    /// Everything is repaired, and every process runs.
    pub fn repair(&mut self, sectors: usize) {
        for link in 0..self.links.len() {
            self.change(Change::Block(link, false, false));
            let mtu = self.links[link].mtu;
            self.change(Change::Passes(link, mtu));
            self.change(Change::Loses(link, 0));
            let manners = &mut self.links[link].manners;
            (manners.late_percent, manners.double_percent) = (0, 0);
            if !self.links[link].carrier {
                self.change(Change::Carrier(link, true));
            }
        }
        let bad: Vec<u64> = self.stores[0].bad.iter().copied().collect();
        bad.into_iter().for_each(|sector| self.change(Change::GoodSector(sector)));
        for head in 0..self.heads.len() {
            self.change(Change::DiskHangs(head, Duration::ZERO));
            self.change(Change::Resume(head));
            if self.heads[head].alien {
                self.change(Change::Crash(head));
                self.change(Change::Alien(head, false));
            }
            if self.heads[head].sectors != sectors {
                self.change(Change::Resize(head, sectors));
            }
            self.change(Change::Start(head));
        }
        for host in 0..self.hosts.len() {
            self.change(Change::Thaw(host));
            self.change(Change::StartHost(host));
        }
    }

    /// Something that only a host is told, for tests.
    pub fn tell(&mut self, host: usize, input: Input) {
        self.for_host(host, input);
    }
}
