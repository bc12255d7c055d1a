//! TLS: rustls with ring, for every client but Kafka's (librdkafka brings its own, [`crate::kafka`]).
//!
//! A URL of an engine may end with `?sslrootcert=FILE`: a PEM file of the authorities that may vouch for it, in the place of
//! the system's. Postgres knows the parameter by that name; here it is the same for Redis, the registry and HTTP.

use std::io;
use std::path::{Path, PathBuf};

/// The parameter of a URL that names the file of authorities.
pub const ROOTS: &str = "sslrootcert";

/// Why a file of authorities is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("the certificates in {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It holds none, or something else.
    #[error("{} holds no certificates in PEM form", path.display())]
    NoCertificates {
        /// The file.
        path: PathBuf,
    },
}

/// Names the provider of cryptography, once a process; later calls change nothing.
pub fn install() {
    // It is installed already: by us, or by who embeds us and may have reasons for another.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// An HTTP client that goes straight to where it is told, for `http://` alone: it trusts nobody. (To read the system's
/// authorities takes tens of milliseconds, for nothing where no certificate is ever shown.)
#[expect(clippy::disallowed_methods, reason = "the one place that begins an HTTP client")]
pub fn plain_client() -> reqwest::ClientBuilder {
    install();
    // A proxy of the environment would only be in the way of engines that are near.
    reqwest::Client::builder().no_proxy().tls_certs_only([])
}

/// An HTTP client for a URL, and the URL without its file of authorities. An `https://` server must show a certificate that
/// those of the file vouch for, or those of the system where none is named.
///
/// # Errors
/// The file is of no use.
#[expect(clippy::disallowed_methods, reason = "the one place that begins an HTTP client")]
pub fn client_for(url: &str) -> Result<(reqwest::ClientBuilder, String), Error> {
    let (url, roots) = split_roots(url);
    let is_secure = url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    let client = match roots {
        Some(path) => {
            let pem = read(&path)?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| Error::NoCertificates { path })?;
            plain_client().tls_certs_only(certificates)
        }
        None if is_secure => {
            install();
            reqwest::Client::builder().no_proxy()
        }
        None => plain_client(),
    };
    Ok((client, url))
}

/// The bytes of a file of authorities.
///
/// # Errors
/// It cannot be read, or is not PEM.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let pem = std::fs::read(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(marker.len()).any(|bytes| bytes == marker) {
        return Err(Error::NoCertificates { path: path.to_owned() });
    }
    Ok(pem)
}

/// A URL without its file of authorities, and that file.
#[must_use]
pub fn split_roots(url: &str) -> (String, Option<PathBuf>) {
    let Some((address, query)) = url.split_once('?') else {
        return (url.to_owned(), None);
    };
    let (mut kept, mut roots) = (Vec::new(), None);
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some((ROOTS, path)) => roots = Some(PathBuf::from(path)),
            _ => kept.push(pair),
        }
    }
    if kept.is_empty() {
        (address.to_owned(), roots)
    } else {
        (format!("{address}?{}", kept.join("&")), roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_loses_its_roots_and_nothing_else() {
        for (url, rest, roots) in [
            ("rediss://h:1", "rediss://h:1", None),
            (
                "rediss://h:1/0?sslrootcert=/a/b.pem",
                "rediss://h:1/0",
                Some("/a/b.pem"),
            ),
            ("https://h?a=1&sslrootcert=/c&b", "https://h?a=1&b", Some("/c")),
            ("https://h?", "https://h?", None),
        ] {
            let split = split_roots(url);
            assert_eq!(
                (split.0.as_str(), split.1.as_deref()),
                (rest, roots.map(Path::new)),
                "{url}"
            );
        }
    }

    #[test]
    fn a_file_that_holds_no_certificate_is_refused_by_name() {
        let refused = |url: &str| client_for(url).err().unwrap().to_string();
        let missing = refused("https://h?sslrootcert=/nowhere/ca.pem");
        assert!(missing.contains("/nowhere/ca.pem cannot be read"), "{missing}");
        let empty = refused("https://h?sslrootcert=/dev/null");
        assert!(empty.contains("/dev/null holds no certificates"), "{empty}");
        assert!(client_for("http://h").is_ok() && client_for("https://h").is_ok() && client_for("").is_ok());
    }
}
