//! The worker: takes a due payment, reads Stripe and the picture, does the one step that `domain::payment` says.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use domain::{
    CommandBody, HoldId, HoldState, Key, Line, Lines, Policy, Quantity, Reserve, Text,
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
    Codec, Registry, Topics,
    picture::{self, StoredHold},
};
use tokio::sync::Notify;

use crate::{
    Shared, reconcile, refunds,
    store::{self, Payment},
};

/// Payments that are moved at once: most of a step is waiting for Stripe, and a sale's buyers pay within the same minutes.
const WORKERS: usize = 16;
/// Those of them that look for due ones by themselves; the others are called when there are more.
const LOOKING: usize = 2;
/// How soon to look again after a step: the picture needs a moment.
const SOON_MS: i64 = 50;
/// How soon to look again while the log's answer is not in the picture.
const UNSETTLED_MS: i64 = 250;
/// How long the units that were taken again for late money are kept for their confirmation.
const RETAKEN_MS: i64 = 300_000;
/// How soon to look again whether a sale was taken back.
const TAKEN_BACK_MS: i64 = 3_000;
/// A buyer who has not paid so long after the cap will not, in milliseconds.
const GRACE_MS: i64 = 60_000;
/// How long the log and its picture may take to decide a command; less than the shortest useful lease.
const DECIDED_WITHIN: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(25);
const IDLE: Duration = Duration::from_millis(100);
const ON_FAILURE: Duration = Duration::from_secs(1);

pub(crate) async fn run(shared: Arc<Shared>, connections: Connections, context: Context) -> anyhow::Result<()> {
    let topics = Topics::with_prefix(&connections.topic_prefix);
    let registry = Registry::new(connections.registry_url.expose()).context("the URL of the registry")?;
    let kafka_health = context.health.component("kafka");
    let registry_health = context.health.component("registry");
    let postgres_health = context.health.component("postgres");
    postgres_health.down("not asked yet");
    let codec = wait::until(&registry_health, &context.stop, || async {
        let connected = Codec::connect(registry.clone(), &connections.topic_prefix).await;
        connected.map_err(|error| Attempt::of(error.is_transient(), error))
    });
    let Some(codec) = codec.await? else {
        return Ok(()); // Asked to stop while waiting.
    };
    shared.outbox.open(codec);
    let mut tasks = Tasks::<anyhow::Error>::new(&context.stop);
    let more = Arc::new(Notify::new());
    for number in 0..WORKERS {
        let (shared, stop, health) = (Arc::clone(&shared), tasks.stop().clone(), postgres_health.clone());
        let more = Arc::clone(&more);
        tasks.spawn(format!("payments-{number}"), async move {
            while !stop.is_requested() {
                match work(&shared, &more).await {
                    Ok(is_busy) => {
                        health.up();
                        if !is_busy && number < LOOKING {
                            rest(&stop, IDLE).await;
                        } else if !is_busy {
                            stop.unless_requested(more.notified()).await;
                        }
                    }
                    Err(error) => {
                        health.down(&error);
                        rest(&stop, ON_FAILURE).await;
                    }
                }
            }
            Ok(())
        });
    }
    tasks.spawn("refunds", refunds::run(Arc::clone(&shared), tasks.stop().clone()));
    tasks.spawn("reconcile", reconcile::run(Arc::clone(&shared), tasks.stop().clone()));
    let (brokers, topic, stop) = (connections.kafka_brokers, topics.commands, tasks.stop().clone());
    tasks.thread("kafka", move || {
        wait::watch_kafka("checkout", &brokers, &topic, &kafka_health, &stop)
    });
    tasks.join_all(DRAIN_DEADLINE).await
}

pub(crate) async fn rest(stop: &Stop, time: Duration) {
    stop.unless_requested(tokio::time::sleep(time)).await;
}

/// One step of one payment; another worker is called to the next. False: none was due.
async fn work(shared: &Shared, more: &Notify) -> anyhow::Result<bool> {
    let Some(payment) = store::lease(&shared.pool, shared.lease_ms()).await? else {
        return Ok(false);
    };
    more.notify_one();
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
            let wait = if action == Action::TakeBack {
                TAKEN_BACK_MS
            } else {
                SOON_MS
            };
            store::release(&shared.pool, &payment, now + wait, Some(&step), None).await?;
        }
        Err(error) => {
            tracing::warn!(payment = payment.payment_ref, %error, "a step of a payment failed; it is tried again");
            let wait = 250_i64 << payment.tries.clamp(0, 7);
            store::release(&shared.pool, &payment, now + wait, None, Some(&format!("{error:#}"))).await?;
        }
    }
    Ok(true)
}

pub(crate) async fn situation(shared: &Shared, payment: &Payment) -> anyhow::Result<Situation> {
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
        is_overdue: time::now_ms() > payment.created_at + shared.cap_ms() + GRACE_MS,
    })
}

async fn step(shared: &Shared, payment: &Payment) -> anyhow::Result<(Action, Situation)> {
    let situation = situation(shared, payment).await?;
    let action = next(situation);
    let intent = payment.intent_id.as_deref().unwrap_or_default();
    let refused = || store::refusals(&shared.pool, payment);
    match action {
        Action::Wait => {}
        Action::Abort => abort(shared, payment).await?,
        Action::CancelIntent => shared.stripe.cancel(intent, refused().await?).await?,
        Action::Confirm => confirm(shared, payment, payment.hold_id).await?,
        Action::Retake => retake(shared, payment, intent).await?,
        Action::ConfirmRetaken => {
            let hold_id = payment
                .retaken
                .ok_or_else(|| anyhow::anyhow!("nothing was taken again"))?;
            confirm(shared, payment, hold_id).await?;
        }
        Action::Capture => shared.stripe.capture(intent, refused().await?).await?,
        Action::TakeBack => take_back(shared, payment, situation.intent).await?,
        Action::GiveUp => finish(shared, payment, PaymentState::Returning).await?,
        Action::RequireRefund => require_refund(shared, payment).await?,
        Action::Refund => shared.stripe.refund(intent, refused().await?).await?,
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
        Action::TakeBack => "checkout.taken_back",
        Action::GiveUp => "checkout.given_up",
        Action::RequireRefund => "checkout.refund_required",
        Action::Refund => "checkout.refunded",
        Action::Finish(_) => "checkout.finished",
    });
}

async fn finish(shared: &Shared, payment: &Payment, state: PaymentState) -> anyhow::Result<()> {
    // What has changed meanwhile is looked at again.
    let _changed = store::change(&shared.pool, payment, state).await?;
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
    let offset = shared.outbox.send(&tenant, payment.hold_id, None, body).await?;
    failpoint::reach("checkout.abort_sent");
    await_decision(shared, payment.hold_id, offset).await?;
    // A confirmation that was on its way when the step was chosen has come first: then this is not the end.
    match situation(shared, payment).await?.serves() {
        true => Ok(()),
        false => finish(shared, payment, PaymentState::Aborted).await,
    }
}

/// Waits until the picture has what the lane decided on a command: also on all before it.
async fn await_decision(shared: &Shared, hold_id: HoldId, offset: i64) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < DECIDED_WITHIN {
        let checkpoint = picture::checkpoint(&shared.pool, hold_id.lane()).await?;
        if checkpoint.is_some_and(|checkpoint| checkpoint.state.last_command_offset >= offset) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    anyhow::bail!(
        "the log has not decided command {offset} of lane {} yet",
        hold_id.lane()
    )
}

async fn confirm(shared: &Shared, payment: &Payment, hold_id: HoldId) -> anyhow::Result<()> {
    let body = CommandBody::Confirm {
        hold_id,
        payment_ref: reference(payment)?,
    };
    let tenant = hold(shared, payment).await?.hold.tenant;
    shared.outbox.send(&tenant, hold_id, None, body).await.map(drop)
}

/// Undoes a confirmation that no money came for, or whose money is back. What has left the warehouse by then is lost to us.
pub(crate) async fn take_back(shared: &Shared, payment: &Payment, intent: Intent) -> anyhow::Result<()> {
    let hold_id = payment.retaken.unwrap_or(payment.hold_id);
    let found = picture::find_hold(&shared.pool, hold_id).await?;
    let Some(stored) = found.filter(|stored| stored.hold.terms.state == HoldState::Confirmed) else {
        tracing::error!(payment = payment.payment_ref, hold.id = %hold_id, "shipped, and its payment came to nothing");
        let end = match intent {
            Intent::Refunded => PaymentState::Refunded,
            _ => PaymentState::Aborted,
        };
        return finish(shared, payment, end).await;
    };
    let body = CommandBody::Unallocate {
        hold_id,
        reason: Text::parse("reason", "payment_failed")?,
        actor: Text::parse("actor", "checkout")?,
    };
    shared
        .outbox
        .send(&stored.hold.tenant, hold_id, None, body)
        .await
        .map(drop)
}

/// Asks for the same units in a new hold, keyed by the intent: however often it is asked, it is one hold.
async fn retake(shared: &Shared, payment: &Payment, intent: &str) -> anyhow::Result<()> {
    let stored = hold(shared, payment).await?;
    if stored.hold.terms.attempt != payment.hold_attempt {
        // Its key stands for another hold by now: what was paid for is not known any more.
        return finish(shared, payment, PaymentState::Returning).await;
    }
    let lines = stored.hold.all_lines().into_iter().map(|(sku, quantity)| {
        let quantity = Quantity::parse(quantity)?;
        Ok(Line { sku, quantity })
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
        reason: Text::parse("reason", refunds::reason(&shared.pool, payment).await?.as_str())?,
    };
    let id = Key::parse("command_id", &format!("refund-{}", payment.payment_ref))?;
    let tenant = hold(shared, payment).await?.hold.tenant;
    shared
        .outbox
        .send(&tenant, payment.hold_id, Some(id), body)
        .await
        .map(drop)
}
