//! What one client, and all of them together, may cost a server.

use std::time::Duration;

/// Limits of a server. All have a default that suits a machine on its own network and one behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, WebSockets and streams included; those beyond are told 503. Each needs a file descriptor.
    pub connections: usize,
    /// From a request's first byte to the end of its head, and from the connection to the end of the first head.
    pub head: Duration,
    /// For how long a connection without a request is kept.
    pub idle: Duration,
    /// From the moment that a handler asks for the body to its end.
    pub body: Duration,
    /// For how long a client may take none of what is sent to it.
    pub write_stall: Duration,
}

/// Largest head of a request, in bytes; above it 431.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Header fields of a request, at most; above it 431.
pub const HEADERS_MAX: usize = 100;
/// Requests at once on one HTTP/2 connection; the rest wait at the client.
pub const STREAMS_MAX: u32 = 256;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 25_000,
            head: Duration::from_secs(10),
            // Longer than the pools of clients and proxies keep theirs as a rule (nginx: 60 s), so that they close first.
            idle: Duration::from_secs(75),
            body: Duration::from_secs(20),
            write_stall: Duration::from_secs(10),
        }
    }
}
