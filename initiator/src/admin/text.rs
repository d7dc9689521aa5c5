//! A status for people: the shape of `multipath -ll`, with names in place of numbers, and with why
//! and what next.

use std::fmt::Write;

use super::devices::Report;
use super::metrics::word;
use super::status::{Known, Status};
use crate::config::Time;
use crate::multipath::policy::{NoPath, Policy};
use crate::multipath::status::{
    DeviceState, DeviceStatus, GroupStatus, Limit, PathState, PathStatus,
};

/// The devices of `status`. `colour` is for terminals; `detail` adds counters and time limits.
pub fn render(status: &Status, colour: bool, detail: bool) -> String {
    let mut page = Page { out: String::new(), colour };
    if status.devices.is_empty() {
        page.line("no devices");
    }
    for known in &status.devices {
        match known {
            Known::Report(report) => page.device(report, detail),
            Known::Silent { name, error } => {
                let busy = page.paint(Paint::Bad, "no answer");
                page.line(&format!("{} {busy}: {}", clean(name), clean(error)));
            }
        }
    }
    page.out
}

/// How a word is to be seen.
#[derive(Clone, Copy)]
enum Paint {
    Good,
    Odd,
    Bad,
}

struct Page {
    out: String,
    colour: bool,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    fn paint(&self, paint: Paint, word: &str) -> String {
        // SGR parameters (ECMA-48 8.3.117): green, yellow, red.
        let code = match paint {
            Paint::Good => 32,
            Paint::Odd => 33,
            Paint::Bad => 31,
        };
        if self.colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
    }

    fn device(&mut self, report: &Report, detail: bool) {
        let device = &report.device;
        let wwid = device.wwid.as_deref().map_or_else(|| "no wwid yet".to_owned(), clean);
        let at =
            report.presented.as_ref().map_or_else(|| "-".to_owned(), |at| clean(&at.to_string()));
        let model = device.model.as_deref().map(clean).unwrap_or_default();
        self.line(&format!("{} ({wwid}) {at} {model}", clean(&device.name)));
        let size = device.size_bytes.map_or_else(|| "unknown".to_owned(), size);
        let block = device.block_bytes.map(|block| format!(" block={block}")).unwrap_or_default();
        let paint = match device.state {
            DeviceState::Active => Paint::Good,
            DeviceState::Starting | DeviceState::Degraded | DeviceState::Detaching => Paint::Odd,
            DeviceState::Queueing | DeviceState::Failing | DeviceState::Fenced => Paint::Bad,
        };
        let state = self.paint(paint, &word(&device.state));
        let all: usize = device.groups.iter().map(|group| group.paths.len()).sum();
        let wp = if device.read_only { "ro" } else { "rw" };
        self.line(&format!(
            "size={size}{block} state={state} paths={}/{all} no_path_retry={} wp={wp}",
            device.paths_ready,
            no_path(&device.policy),
        ));
        if let Some(trouble) = trouble(device) {
            self.line(&trouble);
        }
        for (index, group) in device.groups.iter().enumerate() {
            let last = index + 1 == device.groups.len();
            self.group(index + 1, group, &device.policy, last);
        }
        if detail {
            self.detail(report);
        }
    }

    fn group(&mut self, number: usize, group: &GroupStatus, policy: &Policy, last: bool) {
        let status = if group.active { "active" } else { "enabled" };
        let lead = if last { '`' } else { '|' };
        let selector = word(&policy.selector);
        self.line(&format!(
            "{lead}-+- group={number} policy='{selector}' prio={} status={status}",
            group.priority
        ));
        let margin = if last { ' ' } else { '|' };
        for (index, path) in group.paths.iter().enumerate() {
            let lead = if index + 1 == group.paths.len() { '`' } else { '|' };
            let text = self.path(path);
            self.line(&format!("{margin} {lead}- {text}"));
        }
    }

    fn path(&self, path: &PathStatus) -> String {
        let paint = match path.state {
            PathState::Ready => Paint::Good,
            PathState::Ghost | PathState::Damped | PathState::Disabled => Paint::Odd,
            PathState::Down | PathState::Quarantined => Paint::Bad,
        };
        let mut text = format!(
            "{} {} for {}",
            clean(&path.path),
            self.paint(paint, &word(&path.state)),
            span(path.since_ms)
        );
        if path.in_flight > 0 {
            add(&mut text, ", ", &format!("{} in flight", path.in_flight));
        }
        if let Some(latency) = path.latency_us.filter(|_| path.state == PathState::Ready) {
            add(&mut text, ", ", &format!("{} ms", thousandths(latency)));
        }
        if path.failures > 0 {
            let times = if path.failures == 1 { "time" } else { "times" };
            add(&mut text, ", ", &format!("failed {} {times}", path.failures));
        }
        if let Some(fault) = &path.fault {
            add(&mut text, "; ", &word(fault));
        }
        if let Some(why) = &path.why {
            let join = if path.fault.is_some() { ": " } else { "; " };
            add(&mut text, join, &clean(why));
        }
        if let Some(next) = &path.next {
            add(&mut text, "; ", &clean(next));
        }
        text
    }

    fn detail(&mut self, report: &Report) {
        let device = &report.device;
        let counts = &device.counters;
        self.line(&format!(
            "  requests: {} done, {} failed, {} tried again, {} held for a doubt, {} hedged",
            counts.completed, counts.failed, counts.retries, counts.held, counts.hedged
        ));
        self.line(&format!(
            "  moved: {} read, {} written; group switches: {}; all paths down: {} times",
            size(counts.read_bytes),
            size(counts.written_bytes),
            counts.group_switches,
            counts.all_paths_down
        ));
        self.limits("the device", &report.limits);
        let paths: Vec<_> = device.groups.iter().flat_map(|group| &group.paths).collect();
        let Some(first) = paths.first() else { return };
        if paths.iter().all(|path| path.limits == first.limits) {
            return self.limits("every path", &first.limits);
        }
        for path in paths {
            self.limits(&clean(&path.path), &path.limits);
        }
    }

    fn limits(&mut self, whose: &str, limits: &[Limit]) {
        if limits.is_empty() {
            return;
        }
        self.line(&format!("  time limits of {whose}:"));
        for Limit { name, ms, from } in limits {
            let time = Time(std::time::Duration::from_millis(*ms)).to_string();
            self.line(&format!("    {name:<16} {time:>8}  {}", clean(from)));
        }
    }
}

/// What an administrator has to know beyond the paths.
fn trouble(device: &DeviceStatus) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(ms) = device.no_path_since_ms {
        parts.push(format!("no path for {}", span(ms)));
    }
    if device.queued_requests > 0 {
        let oldest = span(device.queued_oldest_ms);
        let bytes = size(device.queued_bytes);
        let number = device.queued_requests;
        let wait = if number == 1 { "request waits" } else { "requests wait" };
        parts.push(format!("{number} {wait} ({bytes}, oldest {oldest})"));
    }
    if device.doubts > 0 {
        let ranges = if device.doubts == 1 { "range" } else { "ranges" };
        parts.push(format!("{} {ranges} in doubt", device.doubts));
    }
    parts.extend(device.next.as_deref().map(clean));
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn no_path(policy: &Policy) -> String {
    match policy.no_path {
        NoPath::Queue => "queue".to_owned(),
        NoPath::Fail => format!("fail after {}", Time(policy.fast_io_fail)),
        NoPath::For(time) => Time(time).to_string(),
    }
}

fn add(text: &mut String, join: &str, more: &str) {
    text.push_str(join);
    text.push_str(more);
}

/// What came over a network must not steer the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Bytes in the largest unit that leaves a number of at least 1: `1.5G`, as multipath writes it.
fn size(bytes: u64) -> String {
    let mut unit = None;
    let (mut whole, mut rest) = (bytes, 0);
    for letter in ['K', 'M', 'G', 'T', 'P', 'E'] {
        if whole < 1024 {
            break;
        }
        (whole, rest) = (whole / 1024, whole % 1024);
        unit = Some(letter);
    }
    match unit {
        None => format!("{bytes}B"),
        // Cut off, not rounded: never more than there is.
        Some(unit) => format!("{whole}.{}{unit}", rest * 10 / 1024),
    }
}

/// A time in two figures: `0.4s`, `42.1s`, `12m03s`, `3h12m`, `4d03h`.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours) = (seconds / 86400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}.{}s", ms % 1000 / 100),
        (0, 0, _) => format!("{minutes}m{rest:02}s"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        (_, _, _) => format!("{days}d{hours:02}h"),
    }
}

/// Microseconds as milliseconds.
fn thousandths(us: u64) -> String {
    let mut text = String::new();
    write!(text, "{}.{:03}", us / 1000, us % 1000).expect("a string takes any text");
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::admin::tests::sample;

    /// Compares with what stands in the file; writes it if CORBEL_WRITE_DOCS is set.
    fn stands_as(name: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/tests").join(name);
        if std::env::var_os("CORBEL_WRITE_DOCS").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let stands = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stands == text, "{name} is another text now:\n{text}");
    }

    #[test]
    fn all_devices_are_told_in_the_shape_of_multipath() {
        stands_as("status.txt", &render(&sample::status(), false, false));
    }

    #[test]
    fn one_device_is_told_with_its_counters_and_time_limits() {
        stands_as("detail.txt", &render(&sample::status(), false, true));
    }

    #[test]
    fn colours_are_for_terminals_and_change_no_word() {
        let (plain, coloured) =
            (render(&sample::status(), false, true), render(&sample::status(), true, true));
        assert!(!plain.contains('\x1b') && coloured.contains("\x1b[31mdown\x1b[0m"));
        let mut bare = coloured;
        for code in ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"] {
            bare = bare.replace(code, "");
        }
        assert_eq!(bare, plain);
    }

    #[test]
    fn times_have_two_figures() {
        for (ms, text) in [(0, "0.0s"), (4_290, "4.2s"), (723_000, "12m03s"), (11_520_000, "3h12m")]
        {
            assert_eq!(span(ms), text);
        }
        assert_eq!((size(1023), size(3 << 39)), ("1023B".to_owned(), "1.5T".to_owned()));
    }
}
