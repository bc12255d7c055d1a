//! Bodies with an end: a request's that must come in time, a response's that says when it is over.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::watch::Visit;

/// The body of a request, which ends with an error when it does not come in time.
#[derive(Debug)]
pub struct Timely<B> {
    body: B,
    patience: Duration,
    /// Runs from the first wait on: most bodies come with their head, and need no timer.
    overdue: Option<Pin<Box<Sleep>>>,
}

impl<B> Timely<B> {
    /// Gives a body so long.
    pub fn new(body: B, patience: Duration) -> Self {
        Self {
            body,
            patience,
            overdue: None,
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
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = self.patience;
        let overdue = self.overdue.get_or_insert_with(|| Box::pin(sleep(patience)));
        overdue
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err("the body did not come in time".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
