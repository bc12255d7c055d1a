//! Ingress: the HTTP API.
//!
//! In     HTTP requests; `inventory.events.v1`, all lanes, by the tail.
//! Out    `inventory.commands.v1`, in the lane of the SKU or the hold; answers, each equal to a valid event of the log (I2).
//! Owns   nothing: no Redis, no table. What it remembers is bounded and can be read again.
//!
//! ```text
//! request -> parse -> register the waiter -> produce the command ... the tail reads its event -> memory -> waiter -> answer
//! ```
//!
//! What may be down: Postgres (reads of what the tail does not remember answer 503), the registry (once its ids are known),
//! the reserver (202: the outcome is still coming). Without Kafka a command is not acknowledged: 503.

mod answer;
mod app;
mod auth;
mod bodies;
mod commands;
mod holds;
mod live_stock;
mod memory;
mod meters;
mod movements;
mod openapi;
mod options;
mod problem;
mod reads;
mod recent;
mod request;
mod requests;
mod returns;
mod server;
mod short_form;
mod sold_out;
mod start;
mod stock;
mod tail;
mod waiters;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use plumbing::{
    config::Connections,
    service::{self, Context},
    stop,
    task::{self, Task},
};
use utoipa_axum::router::OpenApiRouter;

pub use auth::Token;
pub use live_stock::Origin;
pub use options::{Config, Options};

/// So long may viewers of live stock take to leave at the stop.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// An ingress that serves.
#[derive(Debug)]
#[must_use = "await its task: it ends with the stop, or with what went wrong"]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Ends after the stop, when calls in flight are answered.
    pub task: Task<anyhow::Result<()>>,
}

/// Serves until the stop.
///
/// # Errors
/// What no waiting can mend: an address that is taken, options that are refused.
#[must_use = "nothing runs before it is awaited"]
pub fn run(connections: Connections, options: Options, context: Context) -> service::Running {
    run_beside(connections, options, context, OpenApiRouter::new())
}

/// Serves until the stop, with `others`: calls of other roles in the same process, which guard themselves. Its description has theirs too.
///
/// # Errors
/// As [`run`].
///
/// # Panics
/// When `others` has a path that the ingress has too.
#[must_use = "nothing runs before it is awaited"]
pub fn run_beside(
    connections: Connections,
    options: Options,
    context: Context,
    others: OpenApiRouter,
) -> service::Running {
    Box::pin(async move { start_beside(connections, options, context, others).await?.task.await? })
}

/// Binds and starts serving: health and metrics at once, calls as soon as the tail has caught up with the log.
///
/// # Errors
/// An address that cannot be listened on, options that are refused.
pub async fn start(connections: Connections, options: Options, context: Context) -> anyhow::Result<Running> {
    start_beside(connections, options, context, OpenApiRouter::new()).await
}

async fn start_beside(
    connections: Connections,
    options: Options,
    context: Context,
    others: OpenApiRouter,
) -> anyhow::Result<Running> {
    options.check()?;
    let connections = connections.logged_in(options.ingress_postgres_login.as_ref(), None);
    let (http_stopper, http_stop) = context.stop.child();
    let app = Arc::new(app::App::new(options, http_stop.clone()));
    let router = server::router(Arc::clone(&app), &context, others);
    let limits = plumbing::http::Limits {
        connections: app.options.connections_max,
        ..Default::default()
    };
    let (addr, serving) = plumbing::http::serve_within(app.options.http_addr, router, limits, http_stop)
        .await
        .context("the HTTP API cannot be served")?;
    tracing::info!(http.addr = %addr, "the HTTP API is served; its page is /docs");
    // The tail outlives the drain: requests in flight still want their events.
    let (tail_stopper, tail_stop) = stop::pair();
    let task = task::spawn("ingress", async move {
        let mut http = task::spawn("http", {
            let app = Arc::clone(&app);
            async move {
                let served = serving.await;
                // A WebSocket is no request any more, so the drain does not know of it.
                app.viewers.gone(GOODBYE_MAX).await;
                served
            }
        });
        let mut tail = task::spawn("ingress-start", start::run(app, connections, context, tail_stop));
        tokio::select! {
            served = &mut http => {
                tail_stopper.stop();
                let followed = tail.await?;
                served??;
                followed
            }
            followed = &mut tail => {
                http_stopper.stop();
                let served = http.await?;
                followed??;
                Ok(served?)
            }
        }
    });
    Ok(Running { addr, task })
}
