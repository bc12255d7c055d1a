//! Reconciliation: Stripe's own list of intents beside our rows, so that a lost webhook and a lost row lose nothing.
//!
//! Open rows are looked at by the worker anyhow. Here the other direction: an intent whose maker died before he noted it,
//! and one whose row is gone, as when Postgres was made anew from the log, get a row; the worker brings it to its end.

use std::{sync::Arc, time::Duration};

use domain::payment::{Intent, PaymentState};
use plumbing::{stop::Stop, time};
use schemas::picture::{self, StoredHold};

use crate::{Shared, store, store::Payment, stripe::Listed, worker::rest};

/// How far the first look goes back, in seconds: reserved money is let go by Stripe after seven days.
const FIRST_S: i64 = 7 * 86_400;
/// How much later looks overlap, in seconds.
const OVERLAP_S: i64 = 3_600;
/// One look reads no more pages than this.
const PAGES_MAX: usize = 10_000;

/// Looks every few minutes until the stop.
pub(crate) async fn run(shared: Arc<Shared>, stop: Stop) -> anyhow::Result<()> {
    let every = Duration::from_secs(shared.options.stripe_list_seconds);
    let mut since_s = now_s() - FIRST_S;
    while !stop.is_requested() {
        let begun_s = now_s();
        match look(&shared, since_s, &stop).await {
            Ok(()) => since_s = begun_s - OVERLAP_S,
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "Stripe's list could not be looked through"
            ),
        }
        rest(&stop, every).await;
    }
    Ok(())
}

fn now_s() -> i64 {
    time::now_ms() / 1_000
}

async fn look(shared: &Shared, since_s: i64, stop: &Stop) -> anyhow::Result<()> {
    let mut after = None;
    for _page in 0..PAGES_MAX {
        let (listed, has_more) = shared.stripe.list(after.as_deref()).await?;
        let (Some(first), Some(last)) = (listed.first(), listed.last()) else {
            return Ok(());
        };
        // Stripe lists the newest first; its local stand-in does not.
        let is_past = last.created < since_s && last.created < first.created;
        after = Some(last.id.clone());
        compare(shared, listed, since_s).await?;
        if is_past || !has_more || stop.is_requested() {
            return Ok(());
        }
    }
    anyhow::bail!("more than {PAGES_MAX} pages of intents")
}

async fn compare(shared: &Shared, listed: Vec<Listed>, since_s: i64) -> anyhow::Result<()> {
    // A payment that is being begun is its maker's.
    let until_s = now_s() - shared.lease_ms() / 1_000;
    let ours = |intent: &Listed| intent.payment_ref.clone();
    let known = store::known(&shared.pool, &listed.iter().filter_map(ours).collect::<Vec<_>>()).await?;
    for intent in listed {
        let is_old_enough = (since_s..=until_s).contains(&intent.created);
        let Some(reference) = intent.payment_ref.clone().filter(|_| is_old_enough) else {
            continue;
        };
        match known.get(&reference) {
            Some(noted) if noted.intent_id.as_ref() == Some(&intent.id) => {}
            // Of a hold that another installation, or another life of this one, has under the same key: its money is not ours.
            Some(noted) if intent.hold_attempt.is_some_and(|attempt| attempt != noted.hold_attempt) => {
                tracing::debug!(payment = reference, intent.id, "an intent of a hold that is not ours");
            }
            _ if intent.status == "canceled" => {}
            Some(noted) if noted.intent_id.is_none() => {
                if store::adopt(&shared.pool, &reference, &intent.id).await? {
                    tracing::info!(payment = reference, intent.id, "an intent whose maker died is ended");
                }
            }
            Some(_) => end_second(shared, &reference, &intent).await,
            None => take_in(shared, &reference, intent).await?,
        }
    }
    Ok(())
}

/// Stripe has made an intent twice. The second one's secret was given to nobody.
async fn end_second(shared: &Shared, reference: &str, intent: &Listed) {
    let ended = match shared.stripe.read(&intent.id).await {
        Ok(Intent::Succeeded) => shared.stripe.refund(&intent.id, 0).await,
        Ok(Intent::Unpaid | Intent::Authorised) => shared.stripe.cancel(&intent.id, 0).await,
        Ok(Intent::Absent | Intent::Processing | Intent::Cancelled | Intent::Refunded) => return,
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => tracing::warn!(
            payment = reference,
            intent.id,
            "the second intent of a payment is ended"
        ),
        Err(error) => tracing::warn!(payment = reference, intent.id, %error, "a second intent is not ended yet"),
    }
}

/// An intent of ours without a row.
async fn take_in(shared: &Shared, reference: &str, intent: Listed) -> anyhow::Result<()> {
    let Some((hold_id, attempt)) = store::said_by(reference) else {
        return Ok(()); // Another system of the same account.
    };
    // Of this hold, not of one that another installation, or another life of this one, has under the same key.
    let found = picture::find_hold(&shared.pool, hold_id).await?;
    let is_same = |stored: &StoredHold| Some(stored.hold.terms.attempt) == intent.hold_attempt;
    let Some(stored) = found.filter(is_same) else {
        tracing::debug!(payment = reference, intent.id, hold.id = %hold_id, "an intent of a hold that is not ours");
        return Ok(());
    };
    let payment = Payment {
        payment_ref: reference.to_owned(),
        hold_id,
        hold_attempt: stored.hold.terms.attempt,
        state: PaymentState::Pending,
        intent_id: Some(intent.id),
        client_secret: intent.client_secret,
        amount: intent.amount,
        currency: intent.currency,
        capture_method: intent.capture_method,
        retaken: None,
        created_at: intent.created * 1_000,
        news: 0,
        tries: 0,
    };
    if store::insert(&shared.pool, &payment, attempt, 0).await? {
        tracing::warn!(payment = reference, "an intent without a row has one again");
    }
    Ok(())
}
