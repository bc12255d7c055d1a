//! Serving HTTP: a bound address, and an end in order.
//!
//! On a stop the listener closes, idle connections too, and requests in flight get [`DRAIN`] to be answered. A response
//! that never ends by itself (server-sent events, a WebSocket) must watch the [`Stop`], or it costs the whole drain.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::stop::Stop;

/// For how long requests in flight are waited for after a stop. More than the default wait for an outcome (5 s), less
/// than the deadline of the whole process.
pub const DRAIN: Duration = Duration::from_secs(8);
const _: () = assert!(DRAIN.as_millis() < crate::service::SHUTDOWN_DEADLINE.as_millis());

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
    /// Accepting connections failed for good.
    #[error("serving {addr} ended: {source}")]
    Serve {
        /// The address that was served.
        addr: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Binds `addr` (port 0: any free port) and returns the bound address with the future that serves until `stop`. Handlers
/// may extract `ConnectInfo<SocketAddr>`.
///
/// # Errors
/// [`Error::Taken`] and [`Error::Bind`] at once; [`Error::Serve`] from the future.
pub async fn serve(
    addr: SocketAddr,
    router: Router,
    stop: Stop,
) -> Result<(SocketAddr, impl Future<Output = Result<(), Error>> + Send + 'static), Error> {
    let listener = TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Taken { addr },
        _ => Error::Bind { addr, source },
    })?;
    let bound = listener.local_addr().map_err(|source| Error::Bind { addr, source })?;
    // Nagle would hold a small answer back until the client has acknowledged the previous one: up to 40 ms.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let asked = stop.clone();
    let served = axum::serve(listener, service).with_graceful_shutdown(async move { asked.requested().await });
    let serving = async move {
        let overdue = async {
            stop.requested().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            result = served => result.map_err(|source| Error::Serve { addr: bound, source }),
            () = overdue => {
                tracing::warn!(http.addr = %bound, drain_ms = DRAIN.as_millis(), "requests were still open after the drain and are cut off");
                Ok(())
            }
        }
    };
    Ok((bound, serving))
}
