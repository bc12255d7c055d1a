//! The beginning of a payment: a row, BeginPayment in the log, an intent at Stripe, and only then the buyer's secret.
//!
//! Whoever dies between leaves a row without a secret, which nobody can pay: the worker aborts it, and the buyer tries again.

use std::time::{Duration, Instant};

use domain::{CommandBody, HoldId, HoldState, Text, payment::PaymentState};
use plumbing::{failpoint, time};
use schemas::picture::{self, StoredHold};

use crate::{
    Shared,
    store::{self, Payment},
};

/// How long the picture may take to show what the log has.
const PICTURE_WITHIN: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Why there is nothing to pay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// 404.
    #[error("no such hold")]
    NoHold,
    /// 409.
    #[error("the hold is {0}: it cannot be paid")]
    Closed(&'static str),
    /// 422.
    #[error("not every line of the hold has a price in one currency")]
    NoPrice,
    /// 503.
    #[error("{0}")]
    Later(String),
    /// 503.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Begins a payment, or finds the one that is open or has paid.
pub(crate) async fn begin(shared: &Shared, hold_id: HoldId, capture_method: &str) -> Result<Payment, Problem> {
    let began = Instant::now();
    loop {
        match store::newest(&shared.pool, hold_id).await? {
            Some(payment) if matches!(payment.state, PaymentState::Pending | PaymentState::Paid) => return Ok(payment),
            Some(payment) if !payment.state.is_final() => {} // Somebody else's, on its way in or out.
            _ => match hold(shared, hold_id).await? {
                Some(stored) => {
                    if let Some(payment) = announce(shared, hold_id, &stored, capture_method).await? {
                        return make(shared, payment).await;
                    }
                }
                None if began.elapsed() > Duration::from_secs(2) => return Err(Problem::NoHold),
                None => {}
            },
        }
        if began.elapsed() > PICTURE_WITHIN {
            return Err(Problem::Later(
                "another payment of this hold is not decided yet".to_owned(),
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn hold(shared: &Shared, hold_id: HoldId) -> Result<Option<StoredHold>, Problem> {
    Ok(picture::find_hold(&shared.pool, hold_id)
        .await
        .map_err(anyhow::Error::from)?)
}

/// Writes the payment down. None: another one came first, or the picture still shows the last one.
async fn announce(
    shared: &Shared,
    hold_id: HoldId,
    stored: &StoredHold,
    capture_method: &str,
) -> Result<Option<Payment>, Problem> {
    match stored.hold.terms.state {
        HoldState::Held => {}
        HoldState::Pending | HoldState::Paying => return Ok(None),
        closed => return Err(Problem::Closed(closed.name())),
    }
    let (amount, currency) = store::price_of(&shared.pool, stored).await?.ok_or(Problem::NoPrice)?;
    let attempt = store::next_attempt(&shared.pool, hold_id).await?;
    let payment = Payment {
        payment_ref: store::reference_of(hold_id, attempt),
        hold_id,
        hold_attempt: stored.hold.terms.attempt,
        state: PaymentState::Beginning,
        intent_id: None,
        client_secret: None,
        amount,
        currency,
        capture_method: capture_method.to_owned(),
        retaken: None,
        created_at: time::now_ms(),
        news: 0,
        tries: 0,
    };
    let is_new = store::insert(&shared.pool, &payment, attempt, shared.lease_ms()).await?;
    Ok(is_new.then_some(payment))
}

async fn make(shared: &Shared, payment: Payment) -> Result<Payment, Problem> {
    failpoint::reach("checkout.row_written");
    match try_make(shared, &payment).await {
        Ok(payment) => Ok(payment),
        Err(problem) => {
            // The worker compensates: at once when this is written, else when the row is orphaned.
            if store::change(&shared.pool, &payment, PaymentState::Aborting).await? {
                let step = Some("begin");
                store::release(&shared.pool, &payment, 0, step, Some(&problem.to_string())).await?;
            }
            Err(problem)
        }
    }
}

async fn try_make(shared: &Shared, payment: &Payment) -> Result<Payment, Problem> {
    let stored = hold(shared, payment.hold_id).await?.ok_or(Problem::NoHold)?;
    let begin = CommandBody::BeginPayment {
        hold_id: payment.hold_id,
        payment_ref: Text::parse("payment_ref", &payment.payment_ref).map_err(anyhow::Error::from)?,
        cap_ms: shared.cap_ms(),
    };
    shared
        .outbox
        .send(&stored.hold.tenant, payment.hold_id, None, begin)
        .await?;
    failpoint::reach("checkout.payment_begun");
    await_paying(shared, payment).await?;
    let created = shared
        .stripe
        .create(payment)
        .await
        .map_err(|error| Problem::Later(error.to_string()))?;
    failpoint::reach("checkout.intent_created");
    if !store::open(&shared.pool, &payment.payment_ref, &created.id, &created.client_secret).await? {
        return Err(Problem::Later("the payment took too long to begin".to_owned()));
    }
    Ok(Payment {
        state: PaymentState::Pending,
        intent_id: Some(created.id),
        client_secret: Some(created.client_secret),
        ..payment.clone()
    })
}

/// Waits until the log's picture says that the hold's clock stands still for this payment.
async fn await_paying(shared: &Shared, payment: &Payment) -> Result<(), Problem> {
    let began = Instant::now();
    while began.elapsed() < PICTURE_WITHIN {
        let stored = hold(shared, payment.hold_id).await?.ok_or(Problem::NoHold)?;
        let terms = &stored.hold.terms;
        let is_ours = terms
            .payment_ref
            .as_ref()
            .is_some_and(|text| text.as_str() == payment.payment_ref);
        match terms.state {
            HoldState::Paying if is_ours => return Ok(()),
            HoldState::Held | HoldState::Paying => tokio::time::sleep(LOOK_EVERY).await,
            closed => return Err(Problem::Closed(closed.name())),
        }
    }
    Err(Problem::Later("the log has not begun the payment".to_owned()))
}
