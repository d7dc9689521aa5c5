//! Figures for Prometheus (OpenMetrics text).

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// What the page is, for `Content-Type`.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One figure of every thing of a kind: name, help, and how to find it.
pub type Figure<T> = (&'static str, &'static str, fn(&T) -> u64);

/// A label and its value.
pub type Label = (&'static str, String);

/// The page of a scrape: all that `figures` has, with `prefix` before each name.
pub fn page(prefix: &str, figures: impl Collector) -> String {
    let mut registry = Registry::with_prefix(prefix);
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes any text");
    text
}

/// Writes figures of the one `thing` that has no label.
///
/// # Errors
/// Those of the encoder.
pub fn alone<T>(
    encoder: &mut DescriptorEncoder<'_>,
    kind: MetricType,
    thing: &T,
    figures: &[Figure<T>],
) -> Result<(), Error> {
    for (name, help, value) in figures {
        figure(encoder.encode_descriptor(name, help, None, kind)?, kind, value(thing))?;
    }
    Ok(())
}

/// Writes figures of `things`, each told apart by its labels.
///
/// # Errors
/// Those of the encoder.
pub fn families<T>(
    encoder: &mut DescriptorEncoder<'_>,
    kind: MetricType,
    things: &[T],
    figures: &[Figure<T>],
    labels: impl Fn(&T) -> Vec<Label>,
) -> Result<(), Error> {
    if things.is_empty() {
        return Ok(());
    }
    for (name, help, value) in figures {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for thing in things {
            figure(metric.encode_family(&labels(thing))?, kind, value(thing))?;
        }
    }
    Ok(())
}

fn figure(mut metric: MetricEncoder<'_>, kind: MetricType, value: u64) -> Result<(), Error> {
    match kind {
        MetricType::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        _ => metric.encode_gauge(&value),
    }
}
