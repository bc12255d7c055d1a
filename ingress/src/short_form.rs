//! The short form of the API: one SKU, three calls, plain answers. The same commands, the same log.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use domain::{CommandBody, EventBody, HoldId, Text};

use crate::{
    answer,
    app::App,
    bodies::{self, ShortBody},
    commands::Reply,
    holds,
    meters::Outcome,
    openapi::{ClosedHold, CommandProblems, NotEnough},
    problem::Answer,
    request::{JsonBody, Manner},
    requests::{ShortCancelRequest, ShortConfirmRequest, ShortReserveRequest},
};

fn answer_of(hold_id: HoldId, reply: Reply) -> Answer {
    match reply {
        Reply::Decided(decided) => {
            let word = match &decided.event.body {
                EventBody::HoldRejected { .. } | EventBody::CommandRefused { .. } => {
                    return Err(answer::refusal(&decided));
                }
                EventBody::HoldCreated => "created",
                EventBody::HoldReplayed => "replayed",
                _ => "ok",
            };
            Ok(short(StatusCode::OK, hold_id, None, word))
        }
        Reply::Accepted(command) => {
            let mut response = short(StatusCode::ACCEPTED, hold_id, Some("pending"), "late");
            bodies::set(
                &mut response,
                "location",
                &format!("/v1/holds/{hold_id}?command={command}"),
            );
            Ok(response)
        }
        Reply::Unacknowledged {
            request_id,
            why,
            maybe_sent,
        } => Err(answer::unacknowledged(&request_id, &why, maybe_sent).hold_id(hold_id)),
    }
}

fn short(status: StatusCode, hold_id: HoldId, state: Option<&'static str>, word: &'static str) -> Response {
    let body = ShortBody {
        hold_id: hold_id.to_string(),
        state,
    };
    let mut response = bodies::json(status, &body);
    response.extensions_mut().insert(Outcome(word));
    response
}

/// Hold units of one SKU
#[utoipa::path(
    post, path = "/holds/reserve", tag = "short form", operation_id = "short_reserve",
    request_body = ShortReserveRequest,
    responses(
        (status = 200, description = "The units are held", body = ShortBody),
        (status = 202, description = "Not decided yet", body = ShortBody, headers(("Location", description = "Where the outcome will be"))),
        (status = 410, description = "This key's hold has expired: `hold_expired`", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        NotEnough, CommandProblems,
    ),
)]
pub async fn short_reserve(
    State(app): State<Arc<App>>,
    manner: Manner,
    JsonBody(body): JsonBody<ShortReserveRequest>,
) -> Answer {
    let reserve = body.parse()?;
    let live = app.live()?;
    let (hold_id, reply) = holds::ask_reserve(live, reserve, &manner).await?;
    // The short answer has no state: a hold that is over must not look like one that is held.
    if let Reply::Decided(decided) = &reply
        && matches!(decided.event.body, EventBody::HoldReplayed)
        && let Some(problem) = decided.hold.as_deref().and_then(holds::ended)
    {
        return Err(problem);
    }
    answer_of(hold_id, reply)
}

/// Confirm a hold
#[utoipa::path(
    post, path = "/holds/confirm", tag = "short form", operation_id = "short_confirm",
    request_body = ShortConfirmRequest,
    responses(
        (status = 200, description = "The hold is confirmed", body = ShortBody),
        (status = 202, description = "Not decided yet", body = ShortBody, headers(("Location", description = "Where the outcome will be"))),
        ClosedHold, CommandProblems,
    ),
)]
pub async fn short_confirm(
    State(app): State<Arc<App>>,
    manner: Manner,
    JsonBody(body): JsonBody<ShortConfirmRequest>,
) -> Answer {
    let hold_id = HoldId::parse(&body.hold_id)?;
    let payment_ref = Text::parse_some("payment_ref", &body.payment_ref)?;
    let live = app.live()?;
    let body = CommandBody::Confirm { hold_id, payment_ref };
    answer_of(hold_id, holds::ask_hold(live, hold_id, body, None, &manner).await?)
}

/// Cancel a hold
#[utoipa::path(
    post, path = "/holds/cancel", tag = "short form", operation_id = "short_cancel",
    request_body = ShortCancelRequest,
    responses(
        (status = 200, description = "The hold is cancelled", body = ShortBody),
        (status = 202, description = "Not decided yet", body = ShortBody, headers(("Location", description = "Where the outcome will be"))),
        ClosedHold, CommandProblems,
    ),
)]
pub async fn short_cancel(
    State(app): State<Arc<App>>,
    manner: Manner,
    JsonBody(body): JsonBody<ShortCancelRequest>,
) -> Answer {
    let hold_id = HoldId::parse(&body.hold_id)?;
    let live = app.live()?;
    let body = CommandBody::Cancel {
        hold_id,
        reason: Text::parse("reason", "")?,
    };
    answer_of(hold_id, holds::ask_hold(live, hold_id, body, None, &manner).await?)
}
