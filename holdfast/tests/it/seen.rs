//! To see it work: metrics by outcome and stage, and one trace from HTTP through the log to the row.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use plumbing::{http, stop, task};
use prost::Message as _;

use crate::world::{Setup, World, play};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Spans of our trace: id -> (name, parent's id).
type Spans = Arc<Mutex<BTreeMap<Vec<u8>, (String, Vec<u8>)>>>;

fn take(spans: &Spans, body: &[u8]) {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let ours = request
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .filter(|span| u128::from_be_bytes(span.trace_id[..].try_into().expect("16 bytes")) == trace_id());
    for span in ours {
        spans
            .lock()
            .expect("no panic")
            .insert(span.span_id, (span.name, span.parent_span_id));
    }
}

fn trace_id() -> u128 {
    u128::from_str_radix(TRACE_ID, 16).expect("hexadecimal")
}

#[test]
fn one_trace_goes_from_http_through_the_log_to_the_row() {
    play(async {
        let spans = Spans::default();
        let store = spans.clone();
        let collect = post(move |body: Bytes| async move { take(&store, &body) });
        let (_stopper, stop) = stop::pair();
        let routes = Router::new().route("/v1/traces", collect);
        let (addr, serving) = http::serve("127.0.0.1:0".parse().expect("an address"), routes, stop)
            .await
            .expect("bound");
        let _serving = task::spawn("collector", serving);
        let setup = Setup::new()
            .apart()
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{addr}/"));
        let world = setup.with("OTEL_BSP_SCHEDULE_DELAY", 200).start().await;
        world.stock("traced", 1).await;
        let request = world
            .posting("/v1/holds", &World::wanting("traced", 1, "ann"))
            .header("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01"));
        assert_eq!(world.request(request).await.status, 201);
        let seen = world
            .eventually("all spans arrive", async || {
                let seen = spans.lock().expect("no panic").clone();
                let names: Vec<_> = seen.values().map(|(name, _)| name.clone()).collect();
                let all = ["command", "decide", "persist"]
                    .iter()
                    .all(|name| names.iter().any(|seen| seen == name));
                if all { Ok(seen) } else { Err(format!("{names:?}")) }
            })
            .await;
        let parent_of = |name: &str| {
            let (_, parent) = seen.values().find(|(seen, _)| seen == name).expect("seen");
            seen.get(parent).map(|(name, _)| name.as_str())
        };
        assert_eq!(parent_of("persist"), Some("decide"), "{seen:?}");
        assert_eq!(parent_of("decide"), Some("command"), "{seen:?}");
    });
}

#[test]
fn metrics_count_by_outcome_and_stage_and_never_by_sku() {
    play(async {
        let world = World::shared().await;
        world.stock("metered", 1).await;
        assert_eq!(world.reserve("metered-1", "metered", 1, "ann").await.status, 201);
        assert_eq!(world.reserve("metered-2", "metered", 1, "bob").await.status, 409);
        let metrics = world
            .eventually("all stages have counted", async || {
                let text = world.get("/metrics").await.body.as_str().expect("text").to_owned();
                let wanted = [
                    "holdfast_http_request_seconds_bucket",
                    "holdfast_http_requests_total{",
                    "holdfast_ingress_decision_seconds_bucket",
                    "holdfast_reserver_decisions_total{outcome=\"HoldCreated\"}",
                    "holdfast_reserver_decisions_total{outcome=\"HoldRejected\"}",
                    "holdfast_reserver_apply_seconds_bucket",
                    "holdfast_reserver_read_back_seconds_bucket",
                    "holdfast_lane_epoch{lane=\"0\"}",
                    "holdfast_lane_lag{lane=\"0\"}",
                    "holdfast_persister_commit_seconds_bucket",
                    "holdfast_persister_lag_events{lane=\"0\"}",
                ];
                match wanted.iter().find(|name| !text.contains(**name)) {
                    None => Ok(text),
                    Some(missing) => Err((*missing).to_owned()),
                }
            })
            .await;
        assert!(!metrics.contains("metered"), "never a SKU or a key as a label");
    });
}
