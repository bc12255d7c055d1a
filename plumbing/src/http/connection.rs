//! One client, from its first byte to its last.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::time::{Instant, sleep_until};
use tower::Service as _;

use super::body::{Timely, Visited};
use super::limits::{HEAD_BYTES_MAX, HEADERS_MAX, Limits, STREAMS_MAX};
use super::stream::PatientStream;
use crate::stop::Stop;

/// An HTTP/2 client that answers no ping for so long is gone.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// So long may an HTTP/2 client take to understand that it is let go.
const GOODBYE: Duration = Duration::from_secs(2);

/// The protocol's own limits.
fn protocol() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None) // The watch knows an idle connection from a slow head.
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).expect("a small number"));
    builder
}

/// Serves a client until it leaves, is too slow, or the service stops.
pub async fn serve(stream: PatientStream, peer: SocketAddr, router: Router, limits: Limits, stop: Stop) {
    let watch = stream.watch();
    let service = hyper::service::service_fn({
        let watch = std::sync::Arc::clone(&watch);
        move |request| {
            let visit = watch.visit();
            let answer = answer(request, peer, router.clone(), limits.body);
            async move { Ok::<_, Infallible>(answer.await.map(|body| Visited::new(body, visit))) }
        }
    });
    let protocol = protocol();
    let mut connection = pin!(protocol.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut look = pin!(sleep_until(Instant::now() + limits.head));
    let mut is_leaving = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(http.peer = %peer, %error, "a connection ended early");
                }
                return;
            }
            () = stop.requested(), if !is_leaving => {
                is_leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = look.as_mut() => {
                let now = Instant::now();
                let again = match watch.deadline(&limits) {
                    Some(deadline) if deadline > now => deadline,
                    // It waits for us. A response that ends right now begins an idle time of at least this.
                    None => now + limits.head.min(limits.idle),
                    Some(_) if watch.is_http2() && !is_leaving => {
                        is_leaving = true;
                        connection.as_mut().graceful_shutdown();
                        now + GOODBYE
                    }
                    Some(_) => {
                        tracing::debug!(http.peer = %peer, "a silent connection is closed");
                        metrics::counter!("holdfast_http_silent_total").increment(1);
                        return;
                    }
                };
                look.as_mut().reset(again);
            }
        }
    }
}

/// One request through the router.
fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    mut router: Router,
    body_patience: Duration,
) -> impl Future<Output = axum::response::Response> {
    let is_http1 = request.version() <= Version::HTTP_11;
    // Who sends a Content-Length beside it may mean another end of the body than we (RFC 9112, section 6.1): whatever
    // follows on this connection is not read as a request.
    let is_last = is_http1 && request.headers().contains_key(header::TRANSFER_ENCODING);
    let must_be_asked = request.headers().contains_key(header::EXPECT);
    let mut request = request.map(|body| Timely::new(body, body_patience, must_be_asked));
    let rest = request.body().rest();
    request.extensions_mut().insert(ConnectInfo(peer));
    let answer = router.call(request.map(Body::new));
    async move {
        let mut response = answer.await.unwrap_or_else(|never| match never {});
        // With bytes of a body on the way there is no next request: hyper closes, and a client that is not told so sends
        // its next call into the closed connection.
        if is_http1 && (!rest.finish().await || is_last) {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
