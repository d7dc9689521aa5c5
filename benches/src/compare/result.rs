//! All samples of a comparison, and what they say.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::bout::Bout;
use super::sample::{Load, Sample};
use super::stats::{Spread, ratios};
use crate::report::Starved;
use crate::units::{show_bytes, show_count, show_time};

/// Whom we compare others with.
pub(crate) const OURS: &str = "corbel";

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) version: &'static str,
}

/// Who or what was not compared.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Absent {
    pub(crate) who: String,
    pub(crate) why: String,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NOT COMPARED: {}: {}", self.who, self.why)
    }
}

/// One server of a group.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) command: String,
    /// The command of its first sample; the others differ by the load alone.
    pub(crate) sample_command: String,
    /// Resident memory before the first sample, and after the last.
    pub(crate) idle_bytes: u64,
    pub(crate) used_bytes: u64,
}

/// One protocol on one kind of store.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// For a reader.
    pub(crate) title: &'static str,
    pub(crate) loads: Vec<Load>,
    pub(crate) members: Vec<Member>,
    pub(crate) samples: Vec<Sample>,
    /// Samples taken again, since others had the cores.
    pub(crate) discarded: Vec<Sample>,
    pub(crate) failures: Vec<String>,
}

/// A reader's 99th percentile on one server, alone and beside a writer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fairness {
    pub(crate) server: &'static str,
    pub(crate) alone_ns: f64,
    pub(crate) beside_ns: f64,
    /// Beside over alone, round by round.
    pub(crate) times_alone: Spread,
    /// Ours beside a writer over its; `None` of ourselves.
    pub(crate) ours_over_its: Option<Spread>,
}

impl fmt::Display for Fairness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a reader's p99 beside a writer: {} {}, {:.1} times its {} alone",
            self.server,
            show_time(self.beside_ns),
            self.times_alone.median,
            show_time(self.alone_ns),
        )?;
        match self.ours_over_its {
            Some(ratio) => write!(f, "; ours is {:.3} of it", ratio.median),
            None => Ok(()),
        }
    }
}

/// A load on one server beside a plainer one on it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Contrast {
    pub(crate) server: &'static str,
    pub(crate) load: Load,
    pub(crate) iops: f64,
    pub(crate) plain: Load,
    pub(crate) plain_iops: f64,
    /// Its throughput over the plainer one's, round by round.
    pub(crate) times_plain: Spread,
}

impl fmt::Display for Contrast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.times_plain;
        write!(
            f,
            "{}: {} {} IOPS, {:.2} ({:.2}-{:.2}) times the {} of {}",
            self.server,
            self.load.name(),
            show_count(self.iops),
            ratio.median,
            ratio.min,
            ratio.max,
            show_count(self.plain_iops),
            self.plain.name(),
        )
    }
}

/// A server's figures under one load: medians over the rounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) server: &'static str,
    pub(crate) load: Load,
    pub(crate) iops: Spread,
    pub(crate) bytes_per_second: f64,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) p99_9_ns: f64,
    pub(crate) server_ns: f64,
    pub(crate) own_ns: f64,
    /// Our throughput over its, and our CPU time over its, round by round; `None` of ourselves.
    pub(crate) throughput_ratio: Option<Spread>,
    pub(crate) cpu_ratio: Option<Spread>,
}

impl Group {
    pub(crate) fn new(bout: &Bout, loads: Vec<Load>) -> Self {
        let (members, failures) = (Vec::new(), Vec::new());
        let (name, title, samples) = (bout.name, bout.title, Vec::new());
        Self { name, title, loads, members, samples, discarded: Vec::new(), failures }
    }

    /// How readers fare beside a writer.
    pub(crate) fn fairness(&self) -> Vec<Fairness> {
        let loads = self.loads.iter().filter(|load| load.beside_writer);
        let pairs = loads.flat_map(|load| self.members.iter().map(|m| (m.name, *load)));
        let p99 = |server, load| self.values(server, load, |sample| sample.latency("p99"));
        let found = pairs.filter_map(|(server, load)| {
            let alone = p99(server, Load { beside_writer: false, ..load });
            let beside = p99(server, load);
            let median = |values: &[(usize, f64)]| Spread::of(values.iter().map(|(_, v)| *v));
            Some(Fairness {
                server,
                alone_ns: median(&alone)?.median,
                beside_ns: median(&beside)?.median,
                times_alone: ratios(&beside, &alone)?,
                ours_over_its: ratios(&p99(OURS, load), &beside).filter(|_| server != OURS),
            })
        });
        found.collect()
    }

    /// What durability costs, and what a second session brings.
    pub(crate) fn contrasts(&self) -> Vec<Contrast> {
        let plain = |load: &Load| Load { durable: false, sessions: 1, ..*load };
        let loads = self.loads.iter().filter(|load| plain(load) != **load);
        let pairs = loads.flat_map(|load| self.members.iter().map(|m| (m.name, *load)));
        let iops = |server, load| self.values(server, load, |sample| sample.figure("/iops"));
        let median = |values: &[(usize, f64)]| Spread::of(values.iter().map(|(_, v)| *v));
        let found = pairs.filter_map(|(server, load)| {
            let plain = plain(&load);
            let (here, there) = (iops(server, load), iops(server, plain));
            Some(Contrast {
                server,
                load,
                iops: median(&here)?.median,
                plain,
                plain_iops: median(&there)?.median,
                times_plain: ratios(&here, &there)?,
            })
        });
        found.collect()
    }

    /// What was taken again, and what was kept all the same.
    pub(crate) fn starved_in_words(&self) -> Option<String> {
        let kept = self.samples.iter().filter(|sample| sample.is_starved()).count();
        let (again, all) = (self.discarded.len(), self.samples.len());
        (again + kept > 0).then(|| {
            format!(
                "starved: {again} samples were taken again since others had the cores for more \
                 than {:.0} % of the time; {kept} of {all} were kept although they had",
                100.0 * Starved::MUCH
            )
        })
    }

    fn values(
        &self,
        server: &str,
        load: Load,
        figure: impl Fn(&Sample) -> Option<f64>,
    ) -> Vec<(usize, f64)> {
        let of = self.samples.iter().filter(|s| s.server == server && s.load == load);
        of.filter_map(|sample| Some((sample.round, figure(sample)?))).collect()
    }

    /// One server under one load; `None` if it has no samples.
    pub(crate) fn line(&self, server: &'static str, load: Load) -> Option<Line> {
        let iops = |sample: &Sample| sample.figure("/iops");
        let cost = |sample: &Sample| sample.figure("/cpu/server_ns_per_request");
        let median = |figure: &dyn Fn(&Sample) -> Option<f64>| {
            let values = self.values(server, load, figure).into_iter().map(|(_, value)| value);
            Spread::of(values).map_or(0.0, |spread| spread.median)
        };
        let ratio = |figure: &dyn Fn(&Sample) -> Option<f64>| {
            let (ours, theirs) =
                (self.values(OURS, load, figure), self.values(server, load, figure));
            ratios(&ours, &theirs).filter(|_| server != OURS)
        };
        Some(Line {
            server,
            load,
            iops: Spread::of(self.values(server, load, iops).into_iter().map(|(_, v)| v))?,
            bytes_per_second: median(&|sample| sample.figure("/bytes_per_second")),
            p50_ns: median(&|sample| sample.latency("p50")),
            p99_ns: median(&|sample| sample.latency("p99")),
            p99_9_ns: median(&|sample| sample.latency("p99_9")),
            server_ns: median(&cost),
            own_ns: median(&|sample| sample.figure("/cpu/own_ns_per_request")),
            throughput_ratio: ratio(&iops),
            cpu_ratio: ratio(&cost),
        })
    }

    /// All servers under all loads.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let pairs = self.loads.iter().flat_map(|load| self.members.iter().map(|m| (m.name, *load)));
        pairs.filter_map(|(server, load)| self.line(server, load)).collect()
    }

    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("\n{}\n", self.name);
        let head = ["load", "server", "IOPS", "/s", "p50", "p99", "server CPU", "ours/its", "CPU"];
        let _ = writeln!(
            text,
            "{:<32}{:<15}{:>9}{:>11}{:>10}{:>10}{:>12}{:>20}{:>8}",
            head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7], head[8]
        );
        for line in self.lines() {
            let ratio = line.throughput_ratio.map_or_else(String::new, |r| {
                format!("{:.2} ({:.2}-{:.2})", r.median, r.min, r.max)
            });
            let cost = line.cpu_ratio.map_or_else(String::new, |r| format!("{:.2}", r.median));
            let _ = writeln!(
                text,
                "{:<32}{:<15}{:>9}{:>11}{:>10}{:>10}{:>12}{:>20}{:>8}",
                line.load.name(),
                line.server,
                show_count(line.iops.median),
                show_bytes(line.bytes_per_second),
                show_time(line.p50_ns),
                show_time(line.p99_ns),
                show_time(line.server_ns),
                ratio,
                cost,
            );
        }
        for fairness in self.fairness() {
            let _ = writeln!(text, "{fairness}");
        }
        for contrast in self.contrasts() {
            let _ = writeln!(text, "{contrast}");
        }
        if let Some(starved) = self.starved_in_words() {
            let _ = writeln!(text, "{starved}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED  {failure}");
        }
        text.trim_end().to_owned()
    }
}

/// Everything.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    pub(crate) sample: Duration,
    pub(crate) server_cpus: Vec<usize>,
    pub(crate) client_cpu: usize,
    pub(crate) store_bytes: u64,
    pub(crate) groups: Vec<Group>,
    pub(crate) absent: Vec<Absent>,
}

impl Comparison {
    pub(crate) fn new(
        rounds: u32,
        sample: Duration,
        (server_cpus, client_cpu): (Vec<usize>, usize),
        store_bytes: u64,
    ) -> Self {
        let (machine, groups, absent) = (super::machine(), Vec::new(), Vec::new());
        Self { machine, rounds, sample, server_cpus, client_cpu, store_bytes, groups, absent }
    }

    /// How long the fixed piece of work took, over all samples.
    pub(crate) fn noise(&self) -> Option<Spread> {
        let samples = self.groups.iter().flat_map(|group| &group.samples);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
        Spread::of(samples.map(|sample| sample.calibration_ns as f64))
    }

    pub(crate) fn noise_in_words(&self) -> String {
        let Some(noise) = self.noise() else { return "no samples".to_owned() };
        let percent = |value: f64| 100.0 * (value / noise.min - 1.0);
        format!(
            "noise: a fixed piece of work took {} at best, {:.0} % more in the median, {:.0} % \
             more at worst",
            show_time(noise.min),
            percent(noise.median),
            percent(noise.max)
        )
    }

    /// All of it, raw samples too.
    pub(crate) fn to_json(&self) -> Value {
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|group| {
                let (summary, fairness) = (group.lines(), group.fairness());
                let contrasts = group.contrasts();
                json!({
                    "group": group, "summary": summary, "fairness": fairness,
                    "contrasts": contrasts,
                })
            })
            .collect();
        json!({
            "machine": self.machine,
            "rounds": self.rounds,
            "sample_seconds": self.sample.as_secs_f64(),
            "server_cpus": self.server_cpus,
            "client_cpu": self.client_cpu,
            "store_bytes": self.store_bytes,
            "noise_ns": self.noise(),
            "not_compared": self.absent,
            "groups": groups,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two servers, two rounds; the second round twice as fast; ours four times the other.
    pub(crate) fn comparison() -> Comparison {
        let loads: Vec<_> = [1, 32].map(|qd| Load::new("randread", 4096, qd)).into_iter().collect();
        let mut group = Group::new(&Bout::ALL[0], loads.clone());
        for (name, factor) in [(OURS, 4.0), ("tgt", 1.0)] {
            let (command, sample_command) = (format!("{name} <-b>"), "run".to_owned());
            let (idle_bytes, used_bytes) = (20 << 20, 30 << 20);
            group.members.push(Member { name, command, sample_command, idle_bytes, used_bytes });
            for (round, load) in [(0, loads[0]), (1, loads[0]), (0, loads[1]), (1, loads[1])] {
                let speed = factor * if round == 1 { 2.0 } else { 1.0 } * f64::from(load.qd);
                let report = json!({
                    "iops": 1000.0 * speed,
                    "bytes_per_second": 4096e3 * speed,
                    "cpu": { "own_ns_per_request": 4e2, "server_ns_per_request": 8e3 / factor },
                    "read": { "latency_ns": { "p50": 9e3, "p99": 2e4, "p99_9": 9e4 } },
                });
                let calibration_ns = 1000 + 100 * round as u64;
                let (server, shared) = (name, false);
                let sample = Sample { round, server, load, shared, calibration_ns, report };
                group.samples.push(sample);
            }
        }
        let mut comparison = Comparison::new(2, Duration::from_millis(1), (vec![0], 1), 1 << 28);
        comparison.absent.push(Absent { who: "vblade".into(), why: "not installed".into() });
        comparison.groups.push(group);
        comparison
    }

    #[test]
    fn ratios_are_of_ours_to_theirs_within_a_round() {
        let comparison = comparison();
        let line = comparison.groups[0].line("tgt", comparison.groups[0].loads[1]).unwrap();
        assert_eq!(line.throughput_ratio.unwrap().median, 4.0);
        assert_eq!(line.throughput_ratio.unwrap().max, 4.0);
        assert_eq!(line.cpu_ratio.unwrap().median, 0.25);
        assert_eq!(line.iops.median, 48_000.0);
        let ours = comparison.groups[0].line(OURS, comparison.groups[0].loads[1]).unwrap();
        assert!(ours.throughput_ratio.is_none());
    }

    #[test]
    fn a_reader_beside_a_writer_is_measured_by_itself_alone_and_by_others() {
        let mut group = comparison().groups.remove(0);
        let beside = group.loads[0].beside_writer();
        group.loads.push(beside);
        for (server, p99) in [(OURS, 3e4), ("tgt", 9e4)] {
            let report = json!({
                "starved": { "server": 0.5 }, "read": { "latency_ns": { "p99": p99 } },
            });
            let (round, calibration_ns, load, shared) = (0, 1, beside, false);
            group.samples.push(Sample { round, server, load, shared, calibration_ns, report });
        }
        let fairness = group.fairness();
        assert_eq!(fairness[0].times_alone.median, 1.5);
        assert_eq!(fairness[1].ours_over_its.unwrap().median, 3e4 / 9e4);
        let table = group.table();
        assert!(table.contains("corbel 30.0 us, 1.5 times its 20.0 us alone"), "{table}");
        assert!(table.contains("2 of 10 were kept although"), "{table}");
    }

    #[test]
    fn a_durable_load_stands_beside_the_same_that_is_not() {
        let mut group = comparison().groups.remove(0);
        let load = group.loads[1].durable();
        group.loads.push(load);
        for (round, iops) in [(0, 64_000.0), (1, 64_000.0)] {
            let (report, calibration_ns) = (json!({ "iops": iops }), 1);
            let (server, shared) = (OURS, false);
            group.samples.push(Sample { round, server, load, shared, calibration_ns, report });
        }
        let found = group.contrasts();
        assert_eq!(found.len(), 1, "the other was not measured");
        assert_eq!(found[0].times_plain.max, 0.5);
        assert!(group.table().contains("QD 32, durable 64.0 k IOPS, 0.38 (0.25-0.50) times"));
    }

    #[test]
    fn the_json_has_every_sample_and_who_is_absent() {
        let json = comparison().to_json();
        let samples = json.pointer("/groups/0/group/samples").unwrap().as_array().unwrap();
        assert_eq!(samples.len(), 8);
        assert_eq!(json.pointer("/not_compared/0/who").unwrap(), "vblade");
        assert_eq!(json.pointer("/groups/0/summary").unwrap().as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_table_has_a_line_for_each_server_and_load() {
        let comparison = comparison();
        let table = comparison.groups[0].table();
        assert!(table.contains("randread 4 KiB, QD 32           tgt"), "{table}");
        assert!(table.contains("4.00 (4.00-4.00)"), "{table}");
        assert!(comparison.noise_in_words().contains("5 % more in the median, 10 %"));
    }
}
