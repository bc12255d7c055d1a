//! Health: what a role waits for, said in one place.
//!
//! Each thing that a role cannot work without (Kafka, a lane, a checkpoint) is a [`Component`]. Its keeper says `up` or
//! `down("reason")` as often as it likes; the log gets the changes and a reminder every 30 s, not each retry.
//! `/readyz` names every component that is not ready, so that "why does it not start" has an answer without a log.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::Serialize;

use crate::telemetry::MetricsHandle;

/// While a component stays down, it is logged this often.
pub const REMINDER: Duration = Duration::from_secs(30);

const STARTING: &str = "starting";

/// The health of one process. Clones are the same health.
#[derive(Clone, Debug, Default)]
pub struct Health {
    shared: Arc<Shared>,
    /// Put before the names of new components: the role, where several share a process.
    prefix: String,
}

#[derive(Debug, Default)]
struct Shared {
    components: Mutex<BTreeMap<String, Component>>,
    stopping: Mutex<Option<Instant>>,
}

impl Health {
    /// A process that has not reported anything yet, and is not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same health, for one role of the process: its components are called `<role>.<name>`.
    #[must_use]
    pub fn scoped(&self, role: &str) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            prefix: format!("{}{role}.", self.prefix),
        }
    }

    /// The component of this name; new ones are not ready, "starting". It stays in the report when the handle is dropped.
    #[must_use]
    pub fn component(&self, name: impl Into<String>) -> Component {
        let name = format!("{}{}", self.prefix, name.into());
        let mut components = lock(&self.shared.components);
        components
            .entry(name)
            .or_insert_with_key(|name| Component::starting(name))
            .clone()
    }

    /// From now on not ready, whatever the components say: the process drains and takes no new work.
    pub fn stopping(&self) {
        lock(&self.shared.stopping).get_or_insert_with(Instant::now);
    }

    /// Is everything ready, and at least one component known?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    /// All components in the order of their names. Without any, the role has not begun: not ready.
    #[must_use]
    pub fn report(&self) -> Report {
        let now = Instant::now();
        let mut components: Vec<_> = lock(&self.shared.components)
            .values()
            .map(|component| component.report(now))
            .collect();
        if components.is_empty() {
            components.push(ComponentReport::not_ready("service", STARTING, Duration::ZERO));
        }
        if let Some(since) = *lock(&self.shared.stopping) {
            components.push(ComponentReport::not_ready("service", "stopping", now - since));
        }
        Report {
            ready: components.iter().all(|component| component.ready),
            components,
        }
    }
}

/// One thing that the role needs. Clones are the same component.
#[derive(Clone, Debug)]
pub struct Component(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    name: String,
    /// A copy of the state, so that `up` in a hot loop takes no lock.
    up: AtomicBool,
    state: Mutex<State>,
}

impl Component {
    fn starting(name: &str) -> Self {
        gauge(name, false);
        let state = Mutex::new(State::starting(Instant::now()));
        Self(Arc::new(Kept {
            name: name.to_owned(),
            up: AtomicBool::new(false),
            state,
        }))
    }

    /// It works. Costs one atomic load when it worked before.
    pub fn up(&self) {
        if self.is_up() {
            return;
        }
        let mut state = lock(&self.0.state);
        let Some(down_for) = state.up(Instant::now()) else {
            return;
        };
        self.0.up.store(true, Ordering::Release);
        gauge(&self.0.name, true);
        tracing::info!(component = %self.0.name, down_ms = millis(down_for), "{} is ready", self.0.name);
    }

    /// It does not work, and this is why: one line, without payloads. Say it at each retry; it is logged once in a while.
    pub fn down(&self, reason: impl Display) {
        let reason = reason.to_string();
        let mut state = lock(&self.0.state);
        let was_up = self.0.up.swap(false, Ordering::AcqRel);
        if was_up {
            gauge(&self.0.name, false);
        }
        if let Some(down_for) = state.down(&reason, Instant::now()) {
            tracing::warn!(component = %self.0.name, down_ms = millis(down_for), "{} is not ready: {reason}", self.0.name);
        }
    }

    /// Was the last word `up`?
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.up.load(Ordering::Acquire)
    }

    fn report(&self, now: Instant) -> ComponentReport {
        let state = lock(&self.0.state);
        ComponentReport {
            name: self.0.name.clone(),
            ready: state.reason.is_none(),
            reason: state.reason.clone(),
            since_ms: millis(now.saturating_duration_since(state.since)),
        }
    }
}

/// The transitions, apart from logs and clocks.
#[derive(Debug)]
struct State {
    /// Why it is down; none: it is up.
    reason: Option<String>,
    since: Instant,
    logged: Option<Instant>,
}

impl State {
    fn starting(now: Instant) -> Self {
        Self {
            reason: Some(STARTING.to_owned()),
            since: now,
            logged: None,
        }
    }

    /// For how long it was down, if this is news.
    fn up(&mut self, now: Instant) -> Option<Duration> {
        self.reason.take()?;
        let down_for = now.saturating_duration_since(self.since);
        (self.since, self.logged) = (now, None);
        Some(down_for)
    }

    /// For how long it has been down, if this is to be logged: at first, and again after each [`REMINDER`].
    fn down(&mut self, reason: &str, now: Instant) -> Option<Duration> {
        match &mut self.reason {
            None => (self.reason, self.since) = (Some(reason.to_owned()), now),
            Some(known) if known != reason => reason.clone_into(known),
            Some(_) => {}
        }
        let due = self
            .logged
            .is_none_or(|logged| now.saturating_duration_since(logged) >= REMINDER);
        due.then(|| {
            self.logged = Some(now);
            now.saturating_duration_since(self.since)
        })
    }
}

/// What `/readyz` answers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether the role can do its work.
    pub ready: bool,
    /// What it needs, by name.
    pub components: Vec<ComponentReport>,
}

/// One line of a [`Report`].
#[derive(Clone, Debug, Serialize)]
pub struct ComponentReport {
    /// What it is, such as `kafka`.
    pub name: String,
    /// Whether it works.
    pub ready: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For how long it has been up, or down, in milliseconds.
    pub since_ms: u64,
}

impl ComponentReport {
    fn not_ready(name: &str, reason: &str, since: Duration) -> Self {
        Self {
            name: name.to_owned(),
            ready: false,
            reason: Some(reason.to_owned()),
            since_ms: millis(since),
        }
    }
}

/// `GET /livez` (the process answers), `GET /readyz` (200, or 503 with what is not ready) and `GET /metrics` (Prometheus).
pub fn router(health: Health, metrics: MetricsHandle) -> Router {
    let readyz = move || async move {
        let report = health.report();
        let status = if report.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(report)).into_response()
    };
    let metrics = move || async move {
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            metrics.render(),
        )
            .into_response()
    };
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

fn gauge(component: &str, up: bool) {
    metrics::gauge!("holdfast_component_ready", "component" => component.to_owned()).set(if up { 1.0 } else { 0.0 });
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A keeper that panicked left a whole state behind: every change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_role_is_ready_when_all_its_components_are() {
        let health = Health::new();
        assert!(!health.is_ready(), "nothing has reported yet");
        let kafka = health.component("kafka");
        let redis = health.component("redis");
        kafka.up();
        assert!(!health.is_ready());
        assert_eq!(health.report().components[1].reason.as_deref(), Some("starting"));
        redis.up();
        assert!(health.is_ready());

        redis.down("connection refused");
        let report = health.report();
        assert!(!report.ready && report.components[0].ready);
        assert_eq!(report.components[1].reason.as_deref(), Some("connection refused"));
        redis.down("loading");
        assert_eq!(
            health.report().components[1].reason.as_deref(),
            Some("loading"),
            "the newest reason counts"
        );
        health.component("redis").up(); // The same component by another handle.
        assert!(health.is_ready() && redis.is_up());

        let scoped = health.scoped("persister").component("kafka");
        assert!(kafka.is_up() && !scoped.is_up() && !health.is_ready());
        assert_eq!(health.report().components[1].name, "persister.kafka");
        scoped.up();

        drop(redis);
        assert_eq!(health.report().components.len(), 3, "a component stays");
        health.stopping();
        assert!(!health.is_ready());
    }

    #[test]
    fn the_log_gets_changes_and_reminders_but_not_each_retry() {
        let start = Instant::now();
        let mut state = State::starting(start);
        assert_eq!(state.down("refused", start + SECOND), Some(SECOND), "not up at start");
        for retry in 2..31 {
            assert_eq!(state.down("refused again", start + SECOND * retry), None);
        }
        assert_eq!(state.down("refused", start + SECOND * 31), Some(SECOND * 31));
        assert_eq!(state.down("refused", start + SECOND * 32), None);
        assert_eq!(state.up(start + SECOND * 40), Some(SECOND * 40));
        assert_eq!(state.up(start + SECOND * 41), None, "no news");
        assert_eq!(
            state.down("gone", start + SECOND * 42),
            Some(Duration::ZERO),
            "a change is logged at once"
        );
        assert_eq!(state.since, start + SECOND * 42);
    }
}
