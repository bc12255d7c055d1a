//! Bodies with an end: a request's that must come in time and is not left half-read, a response's that says when it is over.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::watch::Visit;

/// Of a body that its handler does not want, so much is read before the answer, and for so long. Whoever is still sending
/// when the connection is closed may lose the answer (RFC 9112, section 9.6).
const UNWANTED_BYTES_MAX: usize = 1024 * 1024;
const UNWANTED_PATIENCE: Duration = Duration::from_secs(1);

/// The body of a request, which ends with an error when it does not come in time.
#[derive(Debug)]
pub struct Timely<B: HttpBody> {
    /// Until it is over, too late or broken.
    body: Option<B>,
    patience: Duration,
    /// Runs from the first wait on: most bodies come with their head, and need no timer.
    overdue: Option<Pin<Box<Sleep>>>,
    /// Whether it comes only when it is asked for (`Expect: 100-continue`), and was not.
    is_unasked: bool,
    rest: Rest<B>,
}

/// What is left of a request's body when its handler has answered.
#[derive(Debug)]
pub struct Rest<B>(Arc<Mutex<Left<B>>>);

#[derive(Debug)]
enum Left<B> {
    /// All of it was read.
    Nothing,
    /// Somebody still has it, it came too late or broken, or was never asked for.
    Unknown,
    /// Nobody wants it any more.
    Unwanted(B),
}

impl<B: HttpBody> Timely<B> {
    /// Gives a body so long. `must_be_asked`: the client sends it after a "100 Continue", which the first reading brings about.
    pub fn new(body: B, patience: Duration, must_be_asked: bool) -> Self {
        let left = if body.is_end_stream() {
            Left::Nothing
        } else {
            Left::Unknown
        };
        Self {
            body: Some(body),
            patience,
            overdue: None,
            is_unasked: must_be_asked,
            rest: Rest(Arc::new(Mutex::new(left))),
        }
    }

    /// What will be left of it.
    pub fn rest(&self) -> Rest<B> {
        Rest(Arc::clone(&self.rest.0))
    }
}

impl<B> Rest<B> {
    fn put(&self, left: Left<B>) -> Left<B> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), left)
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> Rest<B> {
    /// Reads what the handler did not want. Returns whether the body has been read to its end.
    pub async fn finish(self) -> bool {
        match self.put(Left::Unknown) {
            Left::Nothing => true,
            Left::Unknown => false,
            Left::Unwanted(body) => tokio::time::timeout(UNWANTED_PATIENCE, drain(body))
                .await
                .unwrap_or(false),
        }
    }
}

async fn drain<B: HttpBody<Data = Bytes> + Unpin>(mut body: B) -> bool {
    let mut taken = 0;
    while taken <= UNWANTED_BYTES_MAX {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return true,
            Some(Ok(frame)) => taken += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return false,
        }
    }
    false
}

impl<B: HttpBody> Drop for Timely<B> {
    fn drop(&mut self) {
        let body = self.body.take().filter(|_| !self.is_unasked);
        if let Some(body) = body.filter(|body| !body.is_end_stream()) {
            self.rest.put(Left::Unwanted(body));
        }
    }
}

impl<B> HttpBody for Timely<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.is_unasked = false;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            if frame.is_none() || body.is_end_stream() {
                self.rest.put(Left::Nothing);
            }
            if !matches!(frame, Some(Ok(_))) {
                self.body = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = self.patience;
        let overdue = self.overdue.get_or_insert_with(|| Box::pin(sleep(patience)));
        overdue.as_mut().poll(cx).map(|()| {
            self.body = None;
            Some(Err("the body did not come in time".into()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// The body of a response, with the visit that ends when it is sent or nobody wants it any more.
#[derive(Debug)]
pub struct Visited {
    body: Body,
    _visit: Visit,
}

impl Visited {
    /// Ties a visit to a response.
    pub fn new(body: Body, visit: Visit) -> Self {
        Self { body, _visit: visit }
    }
}

impl HttpBody for Visited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
