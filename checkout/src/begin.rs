//! The beginning of a payment: a row, BeginPayment in the log, an intent at Stripe, and only then the buyer's secret.
//!
//! Whoever dies between leaves a row without a secret, which nobody can pay: the worker aborts it, and the buyer tries again.

use std::time::{Duration, Instant};

use domain::{CommandBody, HoldId, HoldState, Text, payment::PaymentState};
use plumbing::{failpoint, time};
use schemas::picture::{self, StoredHold};

use crate::{
    Shared, prices,
    store::{self, Payment},
    stripe,
};

/// How long the picture may take to show what the log has.
const PICTURE_WITHIN: Duration = Duration::from_secs(8);
/// A hold that the picture does not show within this is none: it was answered a moment ago at most.
const HOLD_WITHIN: Duration = Duration::from_secs(2);
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
    /// 422.
    #[error("Stripe refuses this payment: {0}")]
    Refused(String),
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
        let (newest, stored) = (
            store::newest(&shared.pool, hold_id).await?,
            hold(shared, hold_id).await?,
        );
        if let Some(payment) = newest.as_ref().filter(|payment| is_of(payment, stored.as_ref()))
            && let Some(found) = open_or_paid(payment, stored.as_ref())
        {
            return found;
        }
        let is_in_the_way = newest.is_some_and(|payment| !payment.state.is_final()); // On its way in or out.
        match stored {
            _ if is_in_the_way => {}
            Some(stored) => {
                if let Some(payment) = announce(shared, hold_id, &stored, capture_method).await? {
                    return make(shared, payment).await;
                }
            }
            None if began.elapsed() > HOLD_WITHIN => return Err(Problem::NoHold),
            None => {}
        }
        if began.elapsed() > PICTURE_WITHIN {
            return Err(Problem::Later(
                "the hold, or another payment of it, is not decided yet".to_owned(),
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The newest payment of the hold that has this id now.
pub(crate) async fn newest(shared: &Shared, hold_id: HoldId) -> Result<Option<Payment>, Problem> {
    let (newest, stored) = (
        store::newest(&shared.pool, hold_id).await?,
        hold(shared, hold_id).await?,
    );
    Ok(newest.filter(|payment| is_of(payment, stored.as_ref())))
}

/// Whether a payment is of the hold that has its id now: a key may be used again, long after its hold has ended.
fn is_of(payment: &Payment, stored: Option<&StoredHold>) -> bool {
    stored.is_none_or(|stored| stored.hold.terms.attempt == payment.hold_attempt)
}

/// A payment that is made, or that the buyer may still make: not of a hold that has ended, though nobody has looked after it
/// yet. None: it is neither.
fn open_or_paid(payment: &Payment, stored: Option<&StoredHold>) -> Option<Result<Payment, Problem>> {
    match (payment.state, stored.map(|stored| stored.hold.terms.state)) {
        (PaymentState::Paid, _) => {}
        (PaymentState::Pending, None) => {}
        (PaymentState::Pending, Some(state)) => match state {
            HoldState::Pending | HoldState::Held | HoldState::Paying | HoldState::Confirmed | HoldState::Shipped => {}
            ended => return Some(Err(Problem::Closed(ended.name()))),
        },
        _ => return None,
    }
    Some(Ok(payment.clone()))
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
    let price = prices::of_hold(&shared.pool, &stored.hold).await?;
    let (amount, currency) = price.ok_or(Problem::NoPrice)?;
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
        .map_err(|error| not_created(payment, error))?;
    failpoint::reach("checkout.intent_created");
    if !store::open(&shared.pool, &payment.payment_ref, &created.id, &created.client_secret).await? {
        // The worker gave the payment up meanwhile. Its secret was given to nobody; where this fails, reconciliation ends it.
        if let Err(error) = shared.stripe.cancel(&created.id, 0).await {
            tracing::debug!(payment = payment.payment_ref, %error, "an intent that came too late is not cancelled yet");
        }
        return Err(Problem::Later("the payment took too long to begin".to_owned()));
    }
    Ok(Payment {
        state: PaymentState::Pending,
        intent_id: Some(created.id),
        client_secret: Some(created.client_secret),
        ..payment.clone()
    })
}

/// Asking again helps when Stripe is away or busy, not when it says no.
fn not_created(payment: &Payment, error: stripe::Error) -> Problem {
    match &error {
        stripe::Error::Refused { status, said } if matches!(status.as_u16(), 400 | 402 | 404 | 422) => {
            tracing::warn!(payment = payment.payment_ref, %error, "Stripe refuses to make a payment");
            Problem::Refused(said.clone())
        }
        stripe::Error::Refused { status, .. } if matches!(status.as_u16(), 401 | 403) => {
            tracing::error!(%error, "Stripe does not let us in: is STRIPE_SECRET_KEY the account's?");
            Problem::Later("payments cannot be made now".to_owned())
        }
        _ => Problem::Later(error.to_string()),
    }
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
