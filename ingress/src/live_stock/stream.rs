//! One SKU as server-sent events (WHATWG HTML, section 9.2).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, header, request::Parts},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use domain::Stock;
use futures::{StreamExt, stream};

use super::origin;
use super::rooms::Update;
use crate::{
    app::{App, unknown_sku},
    openapi::{ReadProblems, SkuInPath},
    problem::{Answer, Problem, ProblemBody},
    request::{Params, SkuPath},
    stock,
};

/// A comment is sent after so long a silence: proxies and browsers see that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a browser waits before it comes back.
const COME_BACK: Duration = Duration::from_secs(1);

/// Watch a SKU
///
/// Server-sent events named `stock`: first what is there now, then every change, at most ten a second and always the last. The data
/// is a Stock object, the id its version. A browser that comes back says the last id that it has (`Last-Event-ID`) and gets
/// what it has missed, or nothing. The stream ends when the server stops: come back.
#[utoipa::path(
    get, path = "/v1/stock/{sku}/live", tag = "live stock", operation_id = "watch_sku",
    params(
        SkuInPath,
        ("Last-Event-ID" = Option<i64>, Header, description = "The version that the client has", nullable = false, minimum = 0),
    ),
    responses((status = 200, description = "Events without end", content_type = "text/event-stream", body = String),
        (status = 403, description = "`forbidden`: not for pages of this origin", content_type = "application/problem+json", body = ProblemBody),
        ReadProblems),
)]
pub async fn watch_sku(State(app): State<Arc<App>>, SkuPath(sku): SkuPath, params: Params, parts: Parts) -> Answer {
    params.only(&[])?;
    let foreign = origin::check(&parts, &app.options.live_origins)?;
    let has = last_event_id(&parts.headers)?;
    let live = app.live()?;
    let viewer = app.viewers.admit("sse")?;
    let mut seat = live.rooms.join(&sku);
    let found: Option<Stock> = stock::find(live, vec![sku.clone()])
        .await?
        .into_iter()
        .find_map(|(_, stock)| stock);
    let stock = found.ok_or_else(|| unknown_sku(&sku))?;
    let snapshot = seat.snapshot(stock);
    let snapshot = match has {
        Some(has) => seat.reach(snapshot, has).await,
        None => snapshot,
    };
    let first = Some(snapshot).filter(|update| has != Some(update.version));
    let updates = stream::unfold((first, seat, viewer), async |(first, mut seat, viewer)| {
        let update = match first {
            Some(first) => first,
            None => seat.next().await,
        };
        viewer.sent(update.stock().len());
        Some((Ok::<_, Infallible>(event(&update)), (None, seat, viewer)))
    });
    let stop = app.stop.clone();
    // A page that is open would come back only after the whole drain.
    let updates = updates.take_until(async move { stop.requested().await });
    let mut response = Sse::new(updates.boxed())
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response();
    if let Some(origin) = foreign {
        response
            .headers_mut()
            .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response
            .headers_mut()
            .insert(header::VARY, header::HeaderValue::from_static("origin"));
    }
    Ok(response)
}

fn event(update: &Update) -> Event {
    Event::default()
        .event("stock")
        .id(update.version.to_string())
        .retry(COME_BACK)
        .data(update.stock())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get("last-event-id").filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let version = value.to_str().ok().and_then(|text| text.parse().ok());
    version
        .filter(|version| *version >= 0)
        .map(Some)
        .ok_or_else(|| Problem::invalid("Last-Event-ID: must be a version of the SKU, as an event's id said it"))
}
