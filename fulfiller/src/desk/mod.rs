//! The HTTP calls: orders, the failed queue, returns. They write rows; the worker does the rest.

mod act;
mod look;
mod returns;

use std::sync::Arc;

use axum::{
    extract::{DefaultBodyLimit, Request, State},
    http::HeaderMap,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use domain::{HoldId, Text};
use plumbing::{config::Connections, http::json::BODY_MAX, postgres, problem::wanting_token, task};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{bodies::Calls, problem::Problem};

/// Who acts when the call does not say.
const API: &str = "api";

type Answer = Result<Response, Problem>;
/// Whether a call shows the service's token.
type LetIn = Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>;

/// The desk's calls with their description, for the process that serves HTTP. `is_let_in` judges every call by its headers.
///
/// # Errors
/// The URL of Postgres is not one.
pub fn router(
    connections: &Connections,
    is_let_in: impl Fn(&HeaderMap) -> bool + Send + Sync + 'static,
) -> anyhow::Result<OpenApiRouter> {
    let pool = postgres::connect_lazy(&connections.postgres_url, "holdfast-desk", 4)?;
    let is_let_in: LetIn = Arc::new(is_let_in);
    Ok(OpenApiRouter::with_openapi(Calls::openapi())
        .routes(routes!(look::list))
        .routes(routes!(look::show))
        .routes(routes!(returns::return_units))
        .routes(routes!(act::refunded))
        .routes(routes!(look::failed))
        .routes(routes!(look::inspect))
        .routes(routes!(act::retry))
        .routes(routes!(act::cancel))
        .route_layer(middleware::from_fn_with_state(is_let_in, gate))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(pool))
}

async fn gate(State(is_let_in): State<LetIn>, request: Request, next: Next) -> Response {
    if is_let_in(request.headers()) {
        next.run(request).await
    } else {
        wanting_token(Problem::unauthorized().into_response())
    }
}

/// Database work that goes on when the client hangs up: a transaction must not be dropped half-way.
async fn whole<F>(work: F) -> Answer
where
    F: Future<Output = Answer> + Send + 'static,
{
    task::spawn("desk", work).await?
}

fn id_of(text: &str) -> Result<Uuid, Problem> {
    Ok(HoldId::parse(text)?.uuid())
}

/// Who asks, and why.
struct Why {
    actor: String,
    reason: String,
}

fn why(actor: Option<String>, reason: &str) -> Result<Why, Problem> {
    let actor = actor.unwrap_or_else(|| API.to_owned());
    Ok(Why {
        actor: Text::parse("actor", &actor)?.as_str().to_owned(),
        reason: Text::parse("reason", reason)?.as_str().to_owned(),
    })
}
