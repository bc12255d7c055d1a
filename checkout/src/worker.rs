//! The worker: takes a due payment, reads Stripe and the picture, does the one step that `domain::payment` says.

use std::{sync::Arc, time::Duration};

use domain::{
    CommandBody, HoldId, Key, Line, Lines, Policy, Quantity, Reserve, Text,
    payment::{Action, Intent, PaymentState, Served, Situation, next},
};
use plumbing::{
    config::Connections,
    failpoint,
    service::{Context, DRAIN_DEADLINE},
    stop::Stop,
    task::Tasks,
    time,
    wait::{self, Attempt},
};
use schemas::{
    Codec, Registry,
    picture::{self, StoredHold},
};

use crate::{
    Shared,
    store::{self, Payment},
};

/// Payments that are moved at once.
const WORKERS: usize = 2;
/// How soon to look again after a step: the picture needs a moment.
const SOON_MS: i64 = 50;
/// How soon to look again while the log's answer is not in the picture.
const UNSETTLED_MS: i64 = 250;
/// How long the units that were taken again for late money are kept for their confirmation.
const RETAKEN_MS: i64 = 300_000;
const IDLE: Duration = Duration::from_millis(100);

pub(crate) async fn run(shared: Arc<Shared>, connections: Connections, context: Context) -> anyhow::Result<()> {
    let registry = Registry::new(connections.registry_url.expose())?;
    let registry_health = context.health.component("registry");
    let postgres_health = context.health.component("postgres");
    let codec = wait::until(&registry_health, &context.stop, || async {
        let connected = Codec::connect(registry.clone(), &connections.topic_prefix).await;
        connected.map_err(|error| match error.is_transient() {
            true => Attempt::again(error),
            false => Attempt::Never(error.into()),
        })
    });
    let Some(codec) = codec.await? else {
        return Ok(()); // Asked to stop while waiting.
    };
    shared.outbox.open(codec);
    let mut tasks = Tasks::<anyhow::Error>::new(&context.stop);
    for number in 0..WORKERS {
        let (shared, stop, health) = (Arc::clone(&shared), tasks.stop().clone(), postgres_health.clone());
        tasks.spawn(format!("payments-{number}"), async move {
            while !stop.is_requested() {
                match work(&shared).await {
                    Ok(true) => health.up(),
                    Ok(false) => {
                        health.up();
                        rest(&stop, IDLE).await;
                    }
                    Err(error) => {
                        health.down(&error);
                        rest(&stop, Duration::from_secs(1)).await;
                    }
                }
            }
            Ok(())
        });
    }
    tasks.join_all(DRAIN_DEADLINE).await
}

async fn rest(stop: &Stop, time: Duration) {
    stop.unless_requested(tokio::time::sleep(time)).await;
}

/// One step of one payment. False: none was due.
async fn work(shared: &Shared) -> anyhow::Result<bool> {
    let lease_ms = i64::try_from(shared.lease().as_millis())?;
    let Some(payment) = store::lease(&shared.pool, lease_ms).await? else {
        return Ok(false);
    };
    let now = time::now_ms();
    match step(shared, &payment).await {
        Ok((Action::Wait, situation)) => {
            let is_unsettled = !matches!(situation.intent, Intent::Absent | Intent::Unpaid | Intent::Processing);
            let wait = match is_unsettled {
                true => UNSETTLED_MS,
                false => i64::try_from(shared.options.reconcile_seconds)? * 1_000,
            };
            store::release(&shared.pool, &payment, now + wait, None, None).await?;
        }
        Ok((action, _)) => {
            let step = format!("{action:?}");
            store::release(&shared.pool, &payment, now + SOON_MS, Some(&step), None).await?;
        }
        Err(error) => {
            tracing::warn!(payment = payment.payment_ref, %error, "a step of a payment failed; it is tried again");
            let wait = 250_i64 << payment.tries.clamp(0, 7);
            store::release(&shared.pool, &payment, now + wait, None, Some(&format!("{error:#}"))).await?;
        }
    }
    Ok(true)
}

async fn situation(shared: &Shared, payment: &Payment) -> anyhow::Result<Situation> {
    let pool = &shared.pool;
    let reference = payment.payment_ref.as_str();
    let retaken = match payment.retaken {
        Some(hold_id) => match store::served(pool, hold_id, None, reference).await? {
            Served::Unknown => Served::Busy, // Asked for, and not in the picture yet.
            served => served,
        },
        None => Served::Unknown,
    };
    Ok(Situation {
        state: payment.state,
        intent: match &payment.intent_id {
            Some(id) => shared.stripe.read(id).await?,
            None => Intent::Absent,
        },
        hold: store::served(pool, payment.hold_id, Some(payment.hold_attempt), reference).await?,
        retaken,
        is_refund_required: store::is_refund_required(pool, payment).await?,
    })
}

async fn step(shared: &Shared, payment: &Payment) -> anyhow::Result<(Action, Situation)> {
    let situation = situation(shared, payment).await?;
    let action = next(situation);
    let intent = payment.intent_id.as_deref().unwrap_or_default();
    match action {
        Action::Wait => {}
        Action::Abort => abort(shared, payment).await?,
        Action::CancelIntent => shared.stripe.cancel(intent).await?,
        Action::Confirm => confirm(shared, payment, payment.hold_id).await?,
        Action::Retake => retake(shared, payment, intent).await?,
        Action::ConfirmRetaken => {
            let hold_id = payment
                .retaken
                .ok_or_else(|| anyhow::anyhow!("nothing was taken again"))?;
            confirm(shared, payment, hold_id).await?;
        }
        Action::Capture => shared.stripe.capture(intent).await?,
        Action::GiveUp => finish(shared, payment, PaymentState::Returning).await?,
        Action::RequireRefund => require_refund(shared, payment).await?,
        Action::Refund => shared.stripe.refund(intent).await?,
        Action::Finish(state) => finish(shared, payment, state).await?,
    }
    reached(action);
    Ok((action, situation))
}

/// A point between a step that is done and its note.
fn reached(action: Action) {
    failpoint::reach(match action {
        Action::Wait => return,
        Action::Abort => "checkout.aborted",
        Action::CancelIntent => "checkout.intent_cancelled",
        Action::Confirm => "checkout.confirmed",
        Action::Retake => "checkout.retaken",
        Action::ConfirmRetaken => "checkout.retaken_confirmed",
        Action::Capture => "checkout.captured",
        Action::GiveUp => "checkout.given_up",
        Action::RequireRefund => "checkout.refund_required",
        Action::Refund => "checkout.refunded",
        Action::Finish(_) => "checkout.finished",
    });
}

async fn finish(shared: &Shared, payment: &Payment, state: PaymentState) -> anyhow::Result<()> {
    store::change(&shared.pool, &payment.payment_ref, payment.state, state).await?;
    Ok(())
}

async fn hold(shared: &Shared, payment: &Payment) -> anyhow::Result<StoredHold> {
    let found = picture::find_hold(&shared.pool, payment.hold_id).await?;
    found.ok_or_else(|| anyhow::anyhow!("the hold of {} is not in the picture", payment.payment_ref))
}

fn reference(payment: &Payment) -> anyhow::Result<Text> {
    Ok(Text::parse("payment_ref", &payment.payment_ref)?)
}

async fn abort(shared: &Shared, payment: &Payment) -> anyhow::Result<()> {
    if payment.state == PaymentState::Beginning {
        // From here on its maker cannot give a secret out.
        return finish(shared, payment, PaymentState::Aborting).await;
    }
    let body = CommandBody::AbortPayment {
        hold_id: payment.hold_id,
        payment_ref: reference(payment)?,
        reason: Text::parse("reason", "payment_failed")?,
    };
    let tenant = hold(shared, payment).await?.hold.tenant;
    shared.outbox.send(&tenant, payment.hold_id, None, body).await?;
    failpoint::reach("checkout.abort_sent");
    finish(shared, payment, PaymentState::Aborted).await
}

async fn confirm(shared: &Shared, payment: &Payment, hold_id: HoldId) -> anyhow::Result<()> {
    let body = CommandBody::Confirm {
        hold_id,
        payment_ref: reference(payment)?,
    };
    let tenant = hold(shared, payment).await?.hold.tenant;
    shared.outbox.send(&tenant, hold_id, None, body).await
}

/// Asks for the same units in a new hold, keyed by the intent: however often it is asked, it is one hold.
async fn retake(shared: &Shared, payment: &Payment, intent: &str) -> anyhow::Result<()> {
    let stored = hold(shared, payment).await?;
    let lines = stored.hold.lines.iter().map(|(sku, quantity)| {
        Ok(Line {
            sku: sku.clone(),
            quantity: Quantity::parse(*quantity)?,
        })
    });
    let lines = lines.collect::<anyhow::Result<Vec<Line>>>()?;
    let key = Key::parse("idempotency_key", &format!("late-{intent}"))?;
    let hold_id = HoldId::of(payment.hold_id.lane(), &stored.hold.tenant, &key);
    let body = CommandBody::Reserve(Reserve {
        idempotency_key: key,
        user_id: stored.hold.terms.user_id.clone(),
        lines: Lines::parse(lines)?,
        ttl_ms: Some(RETAKEN_MS),
        policy: Policy::AllOrNothing,
        external_ref: stored.hold.terms.external_ref.clone(),
    });
    shared.outbox.send(&stored.hold.tenant, hold_id, None, body).await?;
    failpoint::reach("checkout.retake_sent");
    Ok(store::retake(&shared.pool, &payment.payment_ref, hold_id).await?)
}

async fn require_refund(shared: &Shared, payment: &Payment) -> anyhow::Result<()> {
    let body = CommandBody::RequireRefund {
        hold_id: payment.hold_id,
        payment_ref: reference(payment)?,
        reason: Text::parse("reason", "paid_too_late")?,
    };
    let id = Key::parse("command_id", &format!("refund-{}", payment.payment_ref))?;
    let tenant = hold(shared, payment).await?.hold.tenant;
    shared.outbox.send(&tenant, payment.hold_id, Some(id), body).await
}
