//! The HTTP server: routes, and what every call passes on its way in and out.

use std::{any::Any, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use plumbing::{http::json::BODY_MAX, service::Context};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{
    app::App,
    holds, live_stock, meters, movements,
    openapi::Api,
    problem::{Code, Problem},
    returns, short_form, stock,
};

fn calls() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(holds::reserve, holds::list_holds))
        .routes(routes!(holds::get_hold))
        .routes(routes!(holds::confirm))
        .routes(routes!(holds::cancel))
        .routes(routes!(holds::extend))
        .routes(routes!(stock::list_stock))
        .routes(routes!(stock::get_stock))
        .routes(routes!(movements::list_movements))
        .routes(routes!(live_stock::watch_sku))
        .routes(routes!(live_stock::watch))
        .routes(routes!(stock::adjust_stock))
        .routes(routes!(returns::return_stock))
        .routes(routes!(stock::configure_sku))
        .routes(routes!(short_form::short_reserve))
        .routes(routes!(short_form::short_confirm))
        .routes(routes!(short_form::short_cancel))
}

/// All calls of the ingress, and those of other roles that are served beside it; the description has both.
pub fn router(app: Arc<App>, context: &Context, others: OpenApiRouter) -> Router {
    let (calls, api) = calls()
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), gate))
        .with_state(app)
        .merge(others)
        .split_for_parts();
    // The page asks no other server for anything, also not for a verdict on the description.
    let docs = SwaggerUi::new("/docs")
        .config(Config::new(["/openapi.json"]).validator_url("none"))
        .url("/openapi.json", api);
    calls
        .merge(docs)
        .merge(plumbing::health::router(
            context.health.clone(),
            context.metrics.clone(),
        ))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .fallback(|| async { Problem::new(Code::NotFound, "see /docs for the paths of this API") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                Code::MethodNotAllowed,
                "the Allow header names the methods of this path",
            )
        })
}

/// Counts a call, and lets it in if there is room and it shows the token.
async fn gate(State(app): State<Arc<App>>, route: MatchedPath, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let call = meters::call_of(request.method(), route.as_str());
    let is_let_in = app
        .options
        .token
        .as_ref()
        .is_none_or(|token| token.is_shown_by(request.headers()));
    let response = match app.in_flight.try_acquire() {
        _ if !is_let_in => Problem::new(
            Code::Unauthorized,
            "send `Authorization: Bearer` with the service's token",
        )
        .into_response(),
        Ok(_permit) => next.run(request).await,
        Err(_) => {
            Problem::new(Code::TooManyRequests, "more calls are in flight than this server takes").into_response()
        }
    };
    meters::answered(call, &response, started.elapsed());
    response
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    // The panic's own words are in the log, by the hook.
    drop(panic);
    Problem::new(Code::Internal, "the call failed by a fault of the service").into_response()
}
