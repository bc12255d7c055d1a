//! Serving HTTP: a bound address, limits for clients that are slow or many, and an end in order.
//!
//! ```text
//! accept -> a seat, or 503 -> `stream` (gives up on who does not read) -> hyper (head, streams) -> `connection` (who is
//! silent is let go) -> router
//! ```
//!
//! On a stop the listener closes, idle connections too, and requests in flight get [`DRAIN`] to be answered. A response
//! that never ends by itself (server-sent events, a WebSocket) must watch the [`Stop`], or it costs the whole drain.

mod body;
mod connection;
pub mod json;
mod limits;
mod path;
mod stream;
mod watch;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};

pub use limits::Limits;
pub use path::Segment;

use crate::stop::Stop;
use crate::task;
use stream::PatientStream;

/// For how long requests in flight are waited for after a stop. More than the default wait for an outcome (5 s), less
/// than the deadline of the whole process.
pub const DRAIN: Duration = Duration::from_secs(8);
const _: () = assert!(DRAIN.as_millis() < crate::service::SHUTDOWN_DEADLINE.as_millis());

/// Clients that have come and are not taken yet; the kernel takes no more than `net.core.somaxconn` (4,096). With a queue of 128, the
/// default, most of ten thousand buyers who come at once are dropped without a word, and ask again after a second.
const QUEUE: u32 = 65_535;
/// Clients that are told "no room" at the same time; those beyond are cut off without a word.
const TURNED_AWAY_AT_ONCE: usize = 256;
/// So long may it take to tell one.
const TURN_AWAY: Duration = Duration::from_secs(1);
/// What one is told, whatever it asks for: nothing has been read of it.
const NO_ROOM: &str = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: application/problem+json\r\ncontent-length: 148\r\n\r\n\
    {\"type\":\"urn:holdfast:problem:unavailable\",\"title\":\"The service cannot answer now\",\"status\":503,\
    \"detail\":\"no more connections\",\"code\":\"unavailable\"}";

/// Why nothing is served; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process, or another service of this one, listens there.
    #[error(
        "{addr} is taken: stop the process that listens there (`ss -ltnp 'sport = :{}'` names it), or choose another address",
        addr.port()
    )]
    Taken {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The address is not one of this machine, or the port is one that this user may not have.
    #[error("cannot listen on {addr}: {source}; choose an address of this machine and a port above 1023")]
    Bind {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Binds `addr` (port 0: any free port) and returns the bound address with the future that serves until `stop`, within the
/// default [`Limits`]. Handlers may extract `ConnectInfo<SocketAddr>`.
///
/// # Errors
/// [`Error::Taken`] and [`Error::Bind`] at once.
pub async fn serve(
    addr: SocketAddr,
    router: Router,
    stop: Stop,
) -> Result<(SocketAddr, impl Future<Output = Result<(), Error>> + Send + 'static), Error> {
    serve_within(addr, router, Limits::default(), stop).await
}

/// As [`serve`], within other limits.
///
/// # Errors
/// As [`serve`].
pub async fn serve_within(
    addr: SocketAddr,
    router: Router,
    limits: Limits,
    stop: Stop,
) -> Result<(SocketAddr, impl Future<Output = Result<(), Error>> + Send + 'static), Error> {
    let listener = listen(addr).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Taken { addr },
        _ => Error::Bind { addr, source },
    })?;
    let bound = listener.local_addr().map_err(|source| Error::Bind { addr, source })?;
    let serving = async move {
        // Each connection has a clone; the last one to go ends the wait for them.
        let (here, mut all_gone) = mpsc::channel::<()>(1);
        accept(&listener, &router, limits, &stop, &here).await;
        drop((listener, here));
        if tokio::time::timeout(DRAIN, all_gone.recv()).await.is_err() {
            tracing::warn!(http.addr = %bound, drain_ms = DRAIN.as_millis(), "requests were still open after the drain and are cut off");
        }
        Ok(())
    };
    Ok((bound, serving))
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?; // A restart does not wait for the last connections of the process before it.
    socket.bind(addr)?;
    socket.listen(QUEUE)
}

/// Takes connections until the stop.
async fn accept(listener: &TcpListener, router: &Router, limits: Limits, stop: &Stop, here: &mpsc::Sender<()>) {
    let seats = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let doorkeepers = Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE));
    while let Some(accepted) = stop.unless_requested(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // One that left before it was taken is no news; out of descriptors, a moment's rest lets others end.
                tracing::debug!(%error, "a connection could not be taken");
                if !is_of_the_client(&error) {
                    tracing::warn!(%error, "no connection can be taken (is `ulimit -Hn` too low?)");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                continue;
            }
        };
        // Nagle would hold a small answer back until the client has acknowledged the previous one: up to 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            metrics::counter!("holdfast_http_turned_away_total").increment(1);
            if let Ok(doorkeeper) = Arc::clone(&doorkeepers).try_acquire_owned() {
                drop(task::spawn("http-turn-away", async move {
                    drop(tokio::time::timeout(TURN_AWAY, turn_away(stream)).await);
                    drop(doorkeeper);
                }));
            }
            continue;
        };
        let stream = PatientStream::new(stream, limits.write_stall, seat);
        let (router, stop, here) = (router.clone(), stop.clone(), here.clone());
        task::spawn_one_of_many(async move {
            connection::serve(stream, peer, router, limits, stop).await;
            drop(here);
        });
    }
}

/// Errors of `accept` that are about one client, not about us.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// Says that there is no room. What the client has sent is read first: a close with bytes unread would tear up the answer.
async fn turn_away(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(NO_ROOM.as_bytes()).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_without_a_seat_is_whole() {
        let (head, body) = super::NO_ROOM.split_once("\r\n\r\n").unwrap();
        assert!(
            head.ends_with(&format!("content-length: {}", body.len())),
            "{} bytes",
            body.len()
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(body).unwrap()["code"],
            "unavailable"
        );
    }
}
