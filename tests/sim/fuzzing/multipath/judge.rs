//! What the engine may send and answer, from its promises alone: every request, every try and every
//! old copy is remembered, and looked through from the start every time.

use corbel_initiator::multipath::policy::Cache;
use corbel_initiator::path::{Facts, Life, Try, TryId, Verdict};
use corbel_initiator::request::{Extent, IoError, Operation, Outcome, RequestId};
use corbel_proto::memory::HeapBuffer;
use corbel_proto::time::{Duration, Instant};

pub(super) const PATHS: usize = 4;

/// A request.
#[derive(Debug)]
struct Wish {
    id: RequestId,
    operation: Operation,
    extent: Extent,
    submitted: Instant,
    /// Old copies that were out when it came (a flush).
    ghosts: Vec<u64>,
    /// Acknowledged writes that it covers (a flush).
    covers: Vec<RequestId>,
    ended: bool,
    /// A try of it was done.
    done: bool,
    /// The device refused it.
    refused: Option<IoError>,
}

/// A try on a path.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) path: usize,
    pub(super) attempt: Try<HeapBuffer>,
    /// Whose change it is.
    wish: Option<usize>,
    /// Writes in caches when it began (a flush).
    cached: Vec<(RequestId, usize)>,
}

/// An old copy that may still land.
#[derive(Debug)]
struct Ghost {
    id: u64,
    path: usize,
    life: Life,
    tried: Option<TryId>,
    extent: Extent,
    owner: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Road {
    ready: bool,
    life: u64,
    quiet: u64,
}

#[derive(Debug)]
pub(super) struct Judge {
    pub(super) cache: Cache,
    pub(super) age_max: Option<Duration>,
    /// Requests wait for ever if there is no path.
    pub(super) waits: bool,
    pub(super) fenced: bool,
    pub(super) disabled: [bool; PATHS],
    pub(super) running: Vec<Running>,
    wishes: Vec<Wish>,
    roads: [Road; PATHS],
    ghosts: Vec<Ghost>,
    next_ghost: u64,
    /// Writes that are in a cache only, and in whose.
    cached: Vec<(RequestId, usize)>,
    /// Acknowledged writes that are gone with a cache, untold.
    lost: Vec<RequestId>,
    instances: [u32; PATHS],
    acknowledged: Vec<RequestId>,
}

impl Judge {
    pub(super) fn new(cache: Cache) -> Self {
        Self {
            cache,
            age_max: None,
            waits: false,
            fenced: false,
            disabled: [false; PATHS],
            running: Vec::new(),
            wishes: Vec::new(),
            roads: [Road::default(); PATHS],
            ghosts: Vec::new(),
            next_ghost: 0,
            cached: Vec::new(),
            lost: Vec::new(),
            instances: [0; PATHS],
            acknowledged: Vec::new(),
        }
    }

    /// Requests without an answer.
    pub(super) fn open(&self) -> usize {
        self.wishes.iter().filter(|wish| !wish.ended).count()
    }

    pub(super) fn submitted(
        &mut self,
        submitted: Instant,
        id: RequestId,
        operation: Operation,
        extent: Extent,
    ) {
        let (mut ghosts, mut covers) = (Vec::new(), Vec::new());
        if operation == Operation::Flush {
            ghosts = self.ghosts.iter().map(|ghost| ghost.id).collect();
            covers.clone_from(&self.acknowledged);
        }
        let (ended, done, refused) = (false, false, None);
        let wish = Wish { id, operation, extent, submitted, ghosts, covers, ended, done, refused };
        self.wishes.push(wish);
    }

    /// Is this sent rightly?
    pub(super) fn started(&mut self, now: Instant, path: usize, attempt: Try<HeapBuffer>) {
        assert!(self.roads[path].ready, "sent on a path that is not ready");
        assert!(!self.disabled[path] && !self.fenced, "sent although disabled or fenced");
        let wish = self.wish_of(&attempt);
        let what = (attempt.id, attempt.operation, attempt.extent);
        if let Some(at) = wish {
            let age = now.since(self.wishes[at].submitted);
            let too_old = attempt.operation.changes() && self.age_max.is_some_and(|max| age >= max);
            assert!(!too_old, "{what:?} is sent {age:?} after it came");
            assert!(self.wishes[at].refused.is_none(), "{what:?} was refused by the device");
        }
        if attempt.operation.changes() {
            let at = wish.expect("a change is somebody's");
            let overlaps = |other: Extent| other.overlaps(attempt.extent);
            let racing = self.running.iter().find(|other| {
                other.attempt.operation.changes()
                    && overlaps(other.attempt.extent)
                    && other.wish != Some(at)
            });
            assert!(racing.is_none(), "{what:?} races another");
            let again = self.running.iter().any(|other| other.wish == Some(at));
            assert!(!again, "{what:?} is on a path already");
            let ghost = self.ghosts.iter().find(|g| overlaps(g.extent) && g.owner != Some(at));
            assert!(ghost.is_none(), "{what:?} may be overtaken by {ghost:?}");
            let earlier = self.wishes[..at]
                .iter()
                .find(|other| !other.ended && other.operation.changes() && overlaps(other.extent));
            assert!(earlier.is_none(), "{what:?} overtakes {earlier:?}");
        }
        let flush = attempt.operation == Operation::Flush;
        let cached = if flush { self.cached.clone() } else { Vec::new() };
        self.running.push(Running { path, attempt, wish, cached });
    }

    /// Whose try it is: writes carry the name, and of equal discards only the first may go. Reads
    /// are nobody's: any may go at any time.
    fn wish_of(&self, attempt: &Try<HeapBuffer>) -> Option<usize> {
        match (attempt.operation, &attempt.data) {
            (Operation::Flush | Operation::Read, _) => None,
            (Operation::Write { .. }, Some(data)) => {
                let name = data.bytes()[..8].try_into().expect("eight bytes");
                usize::try_from(u64::from_be_bytes(name)).ok()
            }
            (operation, _) => self.wishes.iter().position(|wish| {
                let same =
                    std::mem::discriminant(&wish.operation) == std::mem::discriminant(&operation);
                same && !wish.ended && wish.extent == attempt.extent
            }),
        }
    }

    pub(super) fn aborted(&self, path: usize, id: TryId) {
        let known = self.running.iter().any(|r| (r.path, r.attempt.id) == (path, id));
        assert!(known, "the abort of a try that is not there");
    }

    pub(super) fn first_on(&self, path: usize) -> Option<TryId> {
        self.running.iter().find(|running| running.path == path).map(|r| r.attempt.id)
    }

    /// A try is over.
    pub(super) fn ended(&mut self, id: TryId, verdict: Verdict) -> Running {
        let at = self.running.iter().position(|running| running.attempt.id == id);
        let running = self.running.remove(at.expect("only called for tries under way"));
        let Running { path, attempt, wish, cached } = &running;
        let changes = attempt.operation.changes();
        if let Verdict::InDoubt(_, life)
        | Verdict::DoneInDoubt(life)
        | Verdict::DeviceInDoubt(_, life) = verdict
            && changes
        {
            self.haunt_with(*path, life, Some(id), attempt.extent, *wish);
        }
        let wish = wish.filter(|at| !self.wishes[*at].ended);
        if let (Some(at), Verdict::Device(error) | Verdict::DeviceInDoubt(error, _)) =
            (wish, verdict)
        {
            self.wishes[at].refused = Some(error);
        }
        if !matches!(verdict, Verdict::Done | Verdict::DoneInDoubt(_)) {
            return running;
        }
        if let Some(at) = wish {
            self.wishes[at].done = true;
        }
        let fua = matches!(
            attempt.operation,
            Operation::Write { fua: true } | Operation::WriteZeroes { fua: true, .. }
        );
        let volatile = path + 1 < PATHS && !fua;
        if let (true, true, Some(wish)) = (changes, volatile, wish) {
            self.cached.push((self.wishes[wish].id, path / 2));
        }
        if attempt.operation == Operation::Flush {
            let here = |domain: usize| self.cache != Cache::Multi || domain == path / 2;
            let done: Vec<_> = cached.iter().copied().filter(|(_, at)| here(*at)).collect();
            self.cached.retain(|one| !done.contains(one));
        }
        running
    }

    /// An answer: the only one, and not too early.
    pub(super) fn answered(&mut self, outcome: &Outcome<HeapBuffer>) {
        let at = usize::try_from(outcome.id.0).expect("a few requests");
        let wish = &mut self.wishes[at];
        assert!(!wish.ended, "{wish:?} is answered twice");
        wish.ended = true;
        if matches!(wish.operation, Operation::Write { .. }) {
            assert!(outcome.data.is_some(), "the memory of a write is kept");
        }
        let plain = wish.operation != Operation::Flush;
        let known = wish.operation.changes();
        assert!(!known || wish.done || outcome.result.is_err(), "{wish:?} was never done");
        let hidden = plain && self.waits && outcome.result == Err(IoError::Io);
        assert!(!hidden, "{wish:?} is told of a path's failure");
        match (wish.operation, outcome.result) {
            (Operation::Flush, Ok(())) => {
                let ghosts = &self.ghosts;
                let early = wish.ghosts.iter().find(|id| ghosts.iter().any(|g| g.id == **id));
                assert!(early.is_none(), "a flush is answered before {early:?} is dead");
                let volatile = |id: &&RequestId| self.cached.iter().any(|(other, _)| other == *id);
                let unstable = wish.covers.iter().find(volatile);
                assert!(unstable.is_none(), "a flush left {unstable:?} in a cache");
                let untold = wish.covers.iter().find(|id| self.lost.contains(id));
                assert!(untold.is_none(), "the loss of {untold:?} was not told");
            }
            (Operation::Flush, Err(_)) => self.lost.clear(),
            (Operation::Read, Ok(())) => {
                assert!(outcome.data.is_some(), "a read without bytes");
            }
            (operation, Ok(())) if operation.changes() => self.acknowledged.push(wish.id),
            _ => {}
        }
    }

    /// The life that a copy sent now is of.
    pub(super) fn life(&mut self, path: usize, further: u8) -> Life {
        let road = &mut self.roads[path];
        road.life = road.life.max(road.quiet + 1);
        let life = road.life + u64::from(further);
        Life(life)
    }

    pub(super) fn quiet(&mut self, path: usize, all: bool) -> Life {
        let highest = self.ghosts.iter().filter(|ghost| ghost.path == path).map(|g| g.life.0).max();
        let road = &mut self.roads[path];
        let most = highest.unwrap_or(0).max(road.life).max(road.quiet);
        road.quiet = if all { most } else { (road.quiet + 1).min(most) };
        let life = Life(road.quiet);
        self.ghosts.retain(|ghost| ghost.path != path || ghost.life > life);
        life
    }

    fn haunt_with(
        &mut self,
        path: usize,
        life: Life,
        tried: Option<TryId>,
        extent: Extent,
        owner: Option<usize>,
    ) {
        let id = self.next_ghost;
        self.next_ghost += 1;
        self.ghosts.push(Ghost { id, path, life, tried, extent, owner });
    }

    pub(super) fn haunt(&mut self, path: usize) -> Life {
        let life = self.life(path, 0);
        self.haunt_with(path, life, None, Extent { offset: 0, len: u64::MAX }, None);
        life
    }

    /// The copies of one try are all answered for.
    pub(super) fn settle_one(&mut self, which: u8) -> Option<(usize, TryId)> {
        let tries: Vec<_> =
            self.ghosts.iter().filter_map(|ghost| Some((ghost.path, ghost.tried?))).collect();
        let (path, tried) = *tries.get(usize::from(which) % tries.len().max(1))?;
        self.ghosts.retain(|ghost| ghost.tried != Some(tried));
        Some((path, tried))
    }

    /// Which process answers on a path; another one if it was `restarted`.
    pub(super) fn instance(&mut self, path: usize, restarted: bool) -> u32 {
        let node = path / 2;
        // Restarts are told by the node's first path that comes up, with nothing on any.
        let idle = self.running.iter().all(|running| running.path / 2 != node);
        if restarted && idle && path + 1 < PATHS {
            self.instances[node] += 1;
            let gone: Vec<_> = self.cached.iter().filter(|(_, at)| *at == node).copied().collect();
            self.cached.retain(|(_, at)| *at != node);
            self.lost.extend(gone.into_iter().map(|(id, _)| id));
        }
        self.instances[node]
    }

    pub(super) fn up(&mut self, path: usize, facts: &Facts) {
        self.roads[path].ready = facts.identity.wwn.as_deref() == Some("this");
    }

    pub(super) fn down(&mut self, path: usize) {
        self.roads[path].ready = false;
    }
}
