//! Sizes, times and rates as people write and read them.

use std::time::Duration;

/// Bytes, in powers of 1024: `4k`, `512`, `1M`, `2GiB`.
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write it as 4k, 1M or 512");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// A time: `10s`, `500ms`, `2m`; a bare number is seconds.
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write it as 10s, 500ms or 2m");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| wrong())
}

/// Requests a second: `5000`, `20k`, `1.5M` (powers of 1000).
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is no rate; write it as 5000 or 20k requests a second");
    let (number, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        _ => (text, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Some(number * factor).filter(|rate| rate.is_finite() && *rate > 0.0).ok_or_else(wrong)
}

/// Nanoseconds for a reader: three digits and a unit.
pub(crate) fn show_time(nanos: f64) -> String {
    match nanos {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{} us", three(n / 1e3)),
        n if n < 1e9 => format!("{} ms", three(n / 1e6)),
        n => format!("{} s", three(n / 1e9)),
    }
}

/// A large number for a reader: `812`, `45.1 k`, `1.03 M`.
pub(crate) fn show_count(number: f64) -> String {
    match number {
        n if n < 1e3 => three(n),
        n if n < 1e6 => format!("{} k", three(n / 1e3)),
        n if n < 1e9 => format!("{} M", three(n / 1e6)),
        n => format!("{} G", three(n / 1e9)),
    }
}

/// Bytes (a second) for a reader, in powers of 1000, as links and disks are sold.
pub(crate) fn show_bytes(bytes: f64) -> String {
    let shown = show_count(bytes);
    if bytes < 1e3 { format!("{shown} B") } else { format!("{shown}B") }
}

/// Three significant digits, below 1000.
fn three(n: f64) -> String {
    match n {
        n if n < 9.995 => format!("{n:.2}"),
        n if n < 99.95 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(bytes("4k"), Ok(4096));
        assert_eq!(bytes("512"), Ok(512));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        for bad in ["", "k", "0", "4x", "-1", "99999999999T", "1.5k"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bare_time_is_seconds() {
        assert_eq!(time("10"), Ok(Duration::from_secs(10)));
        assert_eq!(time("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "-1s", "1d", "1..2s"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_powers_of_1000() {
        assert_eq!(rate("20k"), Ok(20_000.0));
        assert_eq!(rate("1.5M"), Ok(1_500_000.0));
        for bad in ["", "0", "-5", "inf", "NaN", "k"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn figures_are_shown_with_three_digits_and_a_unit() {
        assert_eq!(show_time(812.0), "812 ns");
        assert_eq!(show_time(45_678.0), "45.7 us");
        assert_eq!(show_count(1_030_000.0), "1.03 M");
        assert_eq!(show_bytes(3_000.0), "3.00 kB");
        assert_eq!(show_bytes(12.0), "12.0 B");
    }
}
