//! A ublk device on a device's thread.

use std::collections::VecDeque;

use corbel_proto::time::Duration;
use corbel_ring::memory::Buf;
use corbel_ring::reactor::{Op, Reactor};

use super::super::run_state::RunState;
use super::super::tag;
use super::{DEPTH, News};
use crate::admin::Presented;
use crate::multipath::Geometry;
use crate::present::ublk::{Event, Shape, Stop, Ublk, Wanted};
use crate::request::{Outcome, Request};

/// How long the end of an earlier process is waited for.
const RECOVERY_WAIT: Duration = Duration::from_secs(60);
/// Longest request.
const IO_BYTES: u32 = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Presence {
    ublk: Ublk,
    name: String,
    state: RunState,
    news: VecDeque<News>,
}

impl Presence {
    pub(super) fn begin(
        name: &str,
        id: Option<u32>,
        geometry: &Geometry,
        state: RunState,
        reactor: &mut Reactor,
    ) -> Result<Self, String> {
        let wanted = Wanted {
            name: name.to_owned(),
            id: id.or_else(|| state.number()),
            mark: state.mark(),
            depth: DEPTH,
            spare: DEPTH / 2,
            io_bytes: IO_BYTES,
            recovery_wait: RECOVERY_WAIT,
            shape: shape(geometry),
        };
        let (arena, waker) = (reactor.arena(), reactor.waker());
        let ublk = Ublk::attach(wanted, arena, waker).map_err(|why| why.to_string())?;
        let fd = ublk.fd().map_err(|error| format!("ublk: {error}"))?;
        let file = reactor.attach(fd);
        reactor.submit(Op::PollRing { file }, tag::of(tag::UBLK, 0));
        Ok(Self { ublk, name: name.to_owned(), state, news: VecDeque::new() })
    }

    pub(super) fn take(&mut self, out: &mut Vec<Request<Buf>>) {
        self.ublk.take(out);
    }

    pub(super) fn complete(&mut self, outcome: Outcome<Buf>) {
        self.ublk.complete(outcome);
    }

    pub(super) fn flush(&mut self) -> bool {
        match self.ublk.flush() {
            Ok(done) => !done,
            Err(error) => {
                self.news.push_back(News::Failed(format!("ublk: {error}")));
                false
            }
        }
    }

    pub(super) fn poll_news(&mut self) -> Option<News> {
        while let Some(event) = self.ublk.poll_event() {
            let news = match event {
                Event::Started { id, path, recovered, .. } => {
                    self.state.keep(id);
                    tracing::info!(device = self.name, ?path, recovered, "presented");
                    News::Ready(Presented {
                        by: "ublk",
                        at: path.display().to_string(),
                        link: Some(format!("/dev/corbel/{}", self.name)),
                    })
                }
                Event::NotStopped(who) => News::InUse(who),
                Event::Stopped => {
                    self.state.forget();
                    News::Gone
                }
                Event::Resized(bytes) => News::Note(format!("its size is {bytes} bytes now")),
                Event::NotResized(why) => News::Note(format!("its size stays: {why}")),
                Event::Failed(why) => News::Failed(why.to_string()),
            };
            self.news.push_back(news);
        }
        self.news.pop_front()
    }

    pub(super) fn resize(&mut self, size_bytes: u64) {
        self.ublk.resize(size_bytes);
    }

    pub(super) fn stop(&mut self, force: bool) {
        self.ublk.stop(if force { Stop::Force } else { Stop::IfUnused });
    }
}

fn shape(geometry: &Geometry) -> Shape {
    Shape {
        size_bytes: geometry.size_bytes,
        block_bytes: geometry.block_bytes,
        physical_block_bytes: geometry.physical_block_bytes,
        optimal_bytes: geometry.optimal_bytes,
        read_only: geometry.read_only,
        // Whatever the paths of this moment have: one with a cache may come later, and a kernel
        // that was not told would never flush. A flush that nothing needs is answered at once.
        volatile_cache: true,
        discard: geometry.discard,
        write_zeroes: geometry.write_zeroes,
    }
}
