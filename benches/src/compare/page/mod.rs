//! The report as one page that needs nothing else: words, plots, tables, commands.

pub(crate) mod chart;

use std::fmt::Write as _;

use super::result::{Comparison, Group, Line, OURS};
use super::sample::Load;
use crate::units::{show_bytes, show_count, show_time};
use chart::{Bar, Range, Series, escape};

pub(crate) const STYLE: &str = include_str!("style.css");

/// A server has one colour on the whole page.
fn class(server: &str) -> usize {
    let names =
        ["corbel", "tgt", "tgt-1", "vblade", "corbel-cached", "spdk", "ggaoed", "fio", "null-aoe"];
    names.iter().position(|name| *name == server).unwrap_or(names.len())
}

/// The page.
pub(super) fn page(found: &Comparison) -> String {
    let mut html = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>corbel-bench compare</title>\n<style>\n",
    );
    html.push_str(STYLE);
    html.push_str("</style></head><body>\n<h1>Corbel beside other targets</h1>\n");
    html.push_str(&head(found));
    for group in &found.groups {
        html.push_str(&section(group));
    }
    html.push_str(&how(found));
    html.push_str("</body></html>\n");
    html
}

/// What came of it, in sentences, and who is missing.
fn head(found: &Comparison) -> String {
    let mut html = String::from("<ul>\n");
    for group in &found.groups {
        let wanted = |line: &Line| line.load.rw.starts_with("rand") && line.load.qd == 32;
        for line in group.lines().iter().filter(|line| wanted(line)) {
            let Some(ratio) = line.throughput_ratio else { continue };
            let cost = line.cpu_ratio.map_or(0.0, |cost| cost.median);
            let _ = writeln!(
                html,
                "<li>{}, {}: <b>{:.2}</b> times the throughput of {} ({:.2} to {:.2} in the \
                 rounds), at {cost:.2} of its CPU time a request.</li>",
                group.title,
                line.load.name(),
                ratio.median,
                line.server,
                ratio.min,
                ratio.max,
            );
        }
    }
    html.push_str("</ul>\n");
    for absent in &found.absent {
        let _ = writeln!(html, "<p><b>{}</b></p>", escape(&absent.to_string()));
    }
    let cores = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let machine = &found.machine;
    let _ = writeln!(
        html,
        "<p class=\"soft\">corbel-bench {} on {} ({} cores), Linux {}. Servers on core {}, load on \
         core {}. {} rounds of {:.2} s samples. Machine {}.</p>",
        machine.version,
        escape(&machine.cpu),
        machine.cores,
        escape(&machine.kernel),
        cores(&found.server_cpus),
        found.client_cpu,
        found.rounds,
        found.sample.as_secs_f64(),
        escape(&found.noise_in_words()),
    );
    html
}

fn section(group: &Group) -> String {
    let lines = group.lines();
    let mut html = format!("<section>\n<h2>{}</h2>\n<ul class=\"key\">", group.title);
    for member in &group.members {
        let (name, class) = (member.name, class(member.name));
        let _ = write!(html, "<li><i style=\"background:var(--c{class})\"></i>{name}</li>");
    }
    html.push_str("</ul>\n<div class=\"plots\">\n");
    let plots = [
        ("Throughput against queue depth", depths(group, &lines), "4 KiB random reads a second."),
        (
            "Latency",
            latencies(&lines),
            "Random reads: median, 99th percentile, 99.9th (ring). Powers of ten.",
        ),
        ("CPU time of the server for a request", costs(&lines), "Less is better."),
        ("Resident memory", memory(group), "Before the first request, and after the last."),
    ];
    for (name, plot, caption) in plots.into_iter().filter(|(_, plot, _)| !plot.is_empty()) {
        let _ = writeln!(
            html,
            "<figure><h3>{name}</h3>{plot}<figcaption>{caption}</figcaption></figure>"
        );
    }
    html.push_str("</div>\n");
    html.push_str(&table(&lines));
    let fairness = group.fairness().into_iter().map(|fairness| fairness.to_string());
    let contrasts = group.contrasts().into_iter().map(|contrast| contrast.to_string());
    for said in fairness.chain(contrasts).chain(group.starved_in_words()) {
        let _ = writeln!(html, "<p>{}</p>", escape(&said));
    }
    for failure in &group.failures {
        let _ = writeln!(html, "<p><b>Failed: {}</b></p>", escape(failure));
    }
    html.push_str("</section>\n");
    html
}

fn curve<'a>(lines: &'a [Line], server: &'a str) -> impl Iterator<Item = &'a Line> {
    lines.iter().filter(move |line| {
        let load = line.load;
        line.server == server && load == Load::new("randread", 4096, load.qd)
    })
}

fn depths(group: &Group, lines: &[Line]) -> String {
    let depths: Vec<u32> = curve(lines, OURS).map(|line| line.load.qd).collect();
    if depths.len() < 2 {
        return String::new();
    }
    let series: Vec<_> = group
        .members
        .iter()
        .map(|member| Series {
            name: member.name,
            class: class(member.name),
            points: curve(lines, member.name)
                .filter_map(|line| {
                    let place = depths.iter().position(|depth| *depth == line.load.qd)?;
                    let iops = show_count(line.iops.median);
                    let told = format!("{}, QD {}: {iops} IOPS", line.server, line.load.qd);
                    Some((place, told, line.iops.median))
                })
                .collect(),
        })
        .collect();
    let places: Vec<_> = depths.iter().map(u32::to_string).collect();
    chart::lines("throughput against queue depth", &places, &series, "queue depth", show_count)
}

fn latencies(lines: &[Line]) -> String {
    let beside = |line: &Line| if line.load.beside_writer { " + writer" } else { "" };
    let reads = lines.iter().filter(|line| line.load.rw == "randread");
    let rows: Vec<_> = reads
        .filter(|line| matches!(line.load.qd, 1 | 32) && line.load.sessions == 1)
        .map(|line| Range {
            name: format!("{}, QD {}{}", line.server, line.load.qd, beside(line)),
            class: class(line.server),
            values: [line.p50_ns, line.p99_ns, line.p99_9_ns],
            told: format!(
                "{}, QD {}{}: p50 {}, p99 {}, p99.9 {}",
                line.server,
                line.load.qd,
                beside(line),
                show_time(line.p50_ns),
                show_time(line.p99_ns),
                show_time(line.p99_9_ns)
            ),
        })
        .collect();
    chart::ranges("latency percentiles", &rows, show_time)
}

fn costs(lines: &[Line]) -> String {
    let shown = lines
        .iter()
        .filter(|line| line.load.bs <= 4096 && line.load.qd != 128)
        .filter(|line| line.load == Load::new(line.load.rw, line.load.bs, line.load.qd));
    let mut before = None;
    let rows: Vec<_> = shown
        .map(|line| {
            let first = before.replace(line.load) != Some(line.load);
            let name = format!("{} {}, QD {}", line.server, line.load.rw, line.load.qd);
            Bar { name, class: class(line.server), value: line.server_ns, first }
        })
        .collect();
    chart::bars("CPU time for each request", &rows, show_time)
}

#[expect(clippy::cast_precision_loss, reason = "memory fits")]
fn memory(group: &Group) -> String {
    let rows: Vec<_> = group
        .members
        .iter()
        .flat_map(|member| {
            let bar = |name: &str, bytes: u64, first| Bar {
                name: format!("{}, {name}", member.name),
                class: class(member.name),
                value: bytes as f64,
                first,
            };
            [bar("before", member.idle_bytes, true), bar("after", member.used_bytes, false)]
        })
        .collect();
    chart::bars("resident memory", &rows, show_bytes)
}

fn table(lines: &[Line]) -> String {
    let mut html = String::from(
        "<div class=\"wide\"><table><thead><tr><th>load</th><th>server</th><th>IOPS</th>\
         <th>quartiles</th><th>/s</th><th>p50</th><th>p99</th><th>p99.9</th><th>server CPU</th>\
         <th>load's CPU</th><th>ours / its</th><th>least to most</th><th>CPU, ours / its</th></tr>\
         </thead><tbody>\n",
    );
    for line in lines {
        let none = String::new;
        let ratio = line.throughput_ratio;
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{} to {}</td><td>{}</td><td>{}</td><td>{}\
             </td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            line.load.name(),
            line.server,
            show_count(line.iops.median),
            show_count(line.iops.q1),
            show_count(line.iops.q3),
            show_bytes(line.bytes_per_second),
            show_time(line.p50_ns),
            show_time(line.p99_ns),
            show_time(line.p99_9_ns),
            show_time(line.server_ns),
            show_time(line.own_ns),
            ratio.map_or_else(none, |r| format!("{:.2}", r.median)),
            ratio.map_or_else(none, |r| format!("{:.2} to {:.2}", r.min, r.max)),
            line.cpu_ratio.map_or_else(none, |r| format!("{:.2}", r.median)),
        );
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// How it was measured.
fn how(found: &Comparison) -> String {
    let mut html = String::from(
        "<h2>How it was measured</h2>\n<p>Each server has a store of its own, of one size, written \
         whole before. All are up at once; all but the measured one are stopped (SIGSTOP). In each \
         round every load is put on every server in a short sample, every other round in the other \
         order. Figures are medians over the rounds; a ratio is the median of the rounds' ratios, \
         so that it compares samples taken seconds apart. CPU time is the scheduler's account of \
         all the server's threads. Loopback and veth run a part of one side's network work on the \
         other side's account.</p>\n<p>What is durable differs: Corbel answers an AoE write when \
         it is on stable storage (corbel-cached: when the \
         device took it), vblade when the kernel has it. iSCSI writes ask nobody for durability, \
         except where a load is called durable: then each has FUA, or where the LUN does not know \
         that, a SYNCHRONIZE CACHE after it.</p>\n<p>fio is no server but the same load on the \
         file that Corbel serves, on the servers' core; null-aoe no target either, but answers \
         each frame by one system call and touches no data. spdk polls and never sleeps. In RAM \
         it serves memory of its own (a malloc bdev), the others a file there; on a disk it uses \
         its uring bdev, which has no way to empty a cache, and as spdk-aio its aio bdev.</p>\n\
         <ul>\n",
    );
    for group in &found.groups {
        for member in &group.members {
            let _ = writeln!(
                html,
                "<li>{}, {}: <code>{}</code><br>measured by <code>{}</code></li>",
                group.title,
                member.name,
                escape(&member.command),
                escape(&member.sample_command),
            );
        }
    }
    html.push_str("</ul>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::comparison;
    use super::*;

    #[test]
    fn the_page_says_who_won_who_is_missing_and_needs_nothing_else() {
        let html = page(&comparison());
        assert!(html.contains("<b>4.00</b> times the throughput of tgt"), "{html}");
        assert!(html.contains("vblade: not installed"));
        assert_eq!(html.matches("<svg").count(), 4);
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert!(!html.contains("http://") && !html.contains("https://"));
        assert!(html.contains("corbel &lt;-b&gt;") && !html.contains("<-b>"));
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }
}
