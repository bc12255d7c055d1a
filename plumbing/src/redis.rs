//! Clients of Redis. Users and TLS are in the URL: `rediss://user:password@host:port/db?sslrootcert=FILE`.

use ::redis::{Client, ErrorKind, RedisError, RedisResult, TlsCertificates};

use crate::tls;

/// A client; no connection is made yet.
///
/// # Errors
/// The URL is not one, or its file of authorities is of no use.
#[expect(clippy::disallowed_methods, reason = "the one place that makes clients of Redis")]
pub fn client(url: &str) -> RedisResult<Client> {
    let (url, roots) = tls::split_roots(url);
    if !url.starts_with("rediss:") {
        return Client::open(url);
    }
    tls::install();
    let Some(path) = roots else {
        return Client::open(url);
    };
    let unusable = |error: tls::Error| {
        RedisError::from((
            ErrorKind::InvalidClientConfig,
            "no file of authorities",
            error.to_string(),
        ))
    };
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(tls::read(&path).map_err(unusable)?),
    };
    Client::build_with_tls(url, certificates)
}
