//! What a process says about itself: log lines, traces, metrics.
//!
//! Logs     to standard error, text or JSON. Spans give them context (`task{name="lane-3"}`).
//! Traces   only when an OTLP collector is configured. Spans of requests and records have the target [`TRACE`], and no
//!          others are exported; without a collector they are switched off at their call site, so that the hot path
//!          pays nothing. A `traceparent` that came in is then passed on as it is, by whoever copies the record.
//! Metrics  one Prometheus recorder a process, rendered by `/metrics`.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

use crate::config::{LogFormat, Telemetry};
use crate::tls;

/// Target of the spans that make up a trace: one request, one record, one batch. `info_span!(target: TRACE, "decide")`.
pub const TRACE: &str = "holdfast::trace";

/// For how long the last spans are offered to the collector when the process ends.
const FLUSH: Duration = Duration::from_secs(3);

static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Why there is no telemetry; the text says what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter does not parse.
    #[error("HOLDFAST_LOG={filter} is not a filter: {reason}; try `info` or `warn,reserver=debug`")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The collector's address is none that this build can reach.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} cannot be used: {reason}")]
    Collector {
        /// The address.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Keeps the exporter. Flush it when the work is done, or the last spans are lost.
#[derive(Debug)]
#[must_use = "flush it at the end"]
pub struct Guard(Option<SdkTracerProvider>);

impl Guard {
    /// Sends what is left, for at most 3 s. Blocks, so call it outside of the runtime.
    pub fn flush(self) {
        let Some(provider) = self.0 else { return };
        EXPORTING.store(false, Ordering::Relaxed);
        if let Err(error) = provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

/// Installs logs, and traces if a collector is configured, as `holdfast-<name>`. Once a process: later calls change
/// nothing, so that many services can run in one test.
///
/// # Errors
/// The configuration does not make sense. Whether the collector answers is not asked.
pub fn init(name: &str, telemetry: &Telemetry) -> Result<Guard, Error> {
    let filter = EnvFilter::builder()
        .parse(&telemetry.log)
        .map_err(|error| Error::Filter {
            filter: telemetry.log.clone(),
            reason: error.to_string(),
        })?;
    if tracing::dispatcher::has_been_set() {
        return Ok(Guard(None));
    }
    let endpoint = telemetry
        .otlp_endpoint
        .as_deref()
        .filter(|endpoint| !endpoint.trim().is_empty());
    let provider = endpoint.map(|endpoint| exporter(name, endpoint)).transpose()?;

    let not_traces = filter_fn(|metadata| metadata.target() != TRACE).with_max_level_hint(LevelFilter::TRACE);
    let registry = Registry::default().with(lines(telemetry.log_format).with_filter(filter.and(not_traces)));
    let installed = match &provider {
        Some(provider) => registry.with(traces(provider)).try_init(),
        // Not an optional layer: an absent one counts as a layer that wants every span.
        None => registry.try_init(),
    };
    if installed.is_ok() {
        EXPORTING.store(provider.is_some(), Ordering::Relaxed);
        log_panics();
    }
    Ok(Guard(provider))
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    match format {
        LogFormat::Text => fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => fmt::layer()
            .with_writer(io::stderr)
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
    }
}

/// Exports the spans of the road itself, and what went wrong inside of them. A lane's span lives as long as the lane:
/// exported, it would be the parent of everything.
fn traces<S>(provider: &SdkTracerProvider) -> impl Layer<S> + Send + Sync + use<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let of_the_road = filter_fn(|metadata| match metadata.is_span() {
        true => metadata.target() == TRACE,
        false => *metadata.level() <= Level::WARN,
    });
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("holdfast"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(of_the_road.with_max_level_hint(LevelFilter::INFO))
}

fn exporter(name: &str, endpoint: &str) -> Result<SdkTracerProvider, Error> {
    let refused = |reason: String| Error::Collector {
        endpoint: endpoint.to_owned(),
        reason,
    };
    if !endpoint.starts_with("http://") {
        return Err(refused(
            "it has to begin with http://; TLS ends at a collector on this machine".to_owned(),
        ));
    }
    // The endpoint is a base; the exporter adds nothing to one that is given by argument (OTLP specification, "Endpoint URLs").
    let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    tls::install();
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(url)
        .build()
        .map_err(|error| refused(error.to_string()))?;
    let resource = Resource::builder()
        .with_service_name(format!("holdfast-{name}"))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

/// A panic is a log line like any other, with the span that it happened in, in the format that was asked for.
fn log_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !tracing::enabled!(Level::ERROR) {
            return default(panic);
        }
        let message = crate::task::panic_message(panic.payload());
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(panic.location = %location, panic.thread = %thread, "a panic, which is a fault in the program: {message}");
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!("backtrace of the panic at {location}:\n{backtrace}");
        }
    }));
}

/// Are traces exported? If not, there is no need to read or make a `traceparent`.
#[must_use]
pub fn tracing_enabled() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// The W3C `traceparent` of the current span, for the header of a record or request that it causes. None when traces are
/// not exported or no span of [`TRACE`] is current.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    if !tracing_enabled() {
        return None;
    }
    let context = Span::current().context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            ids.trace_id(),
            ids.span_id(),
            ids.trace_flags().to_u8()
        )
    })
}

/// Makes `span` a child of the span that a `traceparent` names. It counts only before the span is first entered. What is
/// not a traceparent is ignored, as W3C Trace Context (section 4.3) asks: the span begins a trace of its own.
pub fn set_parent_from_traceparent(span: &Span, traceparent: &str) {
    if !tracing_enabled() {
        return;
    }
    let Some(parent) = parse_traceparent(traceparent) else {
        return;
    };
    if let Err(error) = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent)) {
        tracing::debug!(%error, "a span keeps its parent");
    }
}

/// W3C Trace Context, section 3.2: `version-trace_id-parent_id-flags`, lower-case hex; ids of zeros are invalid.
fn parse_traceparent(text: &str) -> Option<SpanContext> {
    let lower_hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let field = |range| text.get(range).filter(lower_hex);
    let dashes = text
        .bytes()
        .enumerate()
        .filter(|(index, byte)| matches!(index, 2 | 35 | 52) && *byte == b'-')
        .count();
    let version = field(0..2)?;
    // A later version may append fields, never change these.
    let whole = text.len() == 55 || (version != "00" && text.as_bytes().get(55) == Some(&b'-'));
    if dashes != 3 || version == "ff" || !whole {
        return None;
    }
    let trace = TraceId::from_hex(field(3..35)?).ok()?;
    let span = SpanId::from_hex(field(36..52)?).ok()?;
    let flags = u8::from_str_radix(field(53..55)?, 16).ok()?;
    let parent = SpanContext::new(
        trace,
        span,
        TraceFlags::new(flags) & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    parent.is_valid().then_some(parent)
}

/// Upper bounds of `*_seconds` histograms: from a quarter of a millisecond, since two Kafka hops take less than one.
const SECONDS: [f64; 20] = [
    0.000_25, 0.000_5, 0.000_75, 0.001, 0.001_5, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 10.0, 30.0,
];

/// Upper bounds of `*_size` and `*_rows` histograms: what a batch may hold.
const COUNTS: [f64; 14] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0, 8_192.0,
];

/// How often samples that nobody has scraped are folded into their buckets; they would fill the memory otherwise.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's metrics, made by `metrics::counter!`, `gauge!` and `histogram!`. Labels are outcomes, stages and lanes,
/// never an id: each combination of labels lives for ever.
#[derive(Clone, Debug)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// Installs the recorder; later calls give the same one. Metrics made before the first call are lost.
    #[must_use]
    pub fn install() -> Self {
        static RECORDER: OnceLock<MetricsHandle> = OnceLock::new();
        RECORDER.get_or_init(Self::install_first).clone()
    }

    fn install_first() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &COUNTS))
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_rows".to_owned()), &COUNTS))
            .expect("the lists of buckets are not empty")
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed in this process: /metrics stays empty");
        }
        let upkeep = handle.clone();
        drop(crate::task::thread("metrics-upkeep", move || {
            loop {
                std::thread::sleep(UPKEEP);
                upkeep.run_upkeep();
            }
        }));
        Self(handle)
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_parsed_as_the_standard_says() {
        let parent = parse_traceparent(GOOD).unwrap();
        assert_eq!(parent.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.span_id().to_string(), "00f067aa0ba902b7");
        assert!(parent.is_sampled() && parent.is_remote());
        let later = parse_traceparent(
            &GOOD
                .replace("00-4b", "cc-4b")
                .replace("-01", "-00-what-the-future-brings"),
        );
        assert!(!later.unwrap().is_sampled());
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &GOOD.replace("00-4b", "ff-4b"),
            &GOOD.replace("4bf9", "4BF9"),
            &GOOD.replace("4bf9", "+bf9"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf", "é0"),
        ] {
            assert!(parse_traceparent(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn histograms_have_buckets_by_the_unit_in_their_name() {
        let handle = MetricsHandle::install();
        metrics::histogram!("test_wait_seconds").record(0.000_3);
        metrics::histogram!("test_batch_size").record(100.0);
        metrics::histogram!("test_batch_rows").record(3.0);
        let text = MetricsHandle::install().render();
        assert!(text.contains("test_wait_seconds_bucket{le=\"0.00025\"} 0"), "{text}");
        assert!(text.contains("test_wait_seconds_bucket{le=\"0.0005\"} 1"), "{text}");
        assert!(text.contains("test_batch_size_bucket{le=\"128\"} 1"), "{text}");
        assert!(text.contains("test_batch_rows_bucket{le=\"4\"} 1"), "{text}");
        assert_eq!(text, handle.render());
    }
}
