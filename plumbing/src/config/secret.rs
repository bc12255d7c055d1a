//! What must not be printed: passwords, and URLs that may carry one. Each prints without it.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A password. Prints as `***`.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// The password itself: only for the client that shows it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Who a service is for an engine, as `user:password`. Prints as `user:***`.
#[derive(Clone, Eq, PartialEq)]
pub struct Login {
    user: String,
    password: String,
}

impl FromStr for Login {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok(Self {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            _ => Err("must be user:password"),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:***", self.user)
    }
}

/// A URL that may carry a password. It prints without it, so that no log line and no `{:?}` gives it away.
#[derive(Clone, Eq, PartialEq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The whole URL, with the password: only for the client that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The same place, as another user.
    #[must_use]
    pub fn with_login(&self, login: &Login) -> Self {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let (address, query) = match rest.split_once('?') {
            Some((address, query)) => (address, format!("?{query}")),
            None => (rest, String::new()),
        };
        let place = address.rsplit_once('@').map_or(address, |(_, place)| place);
        let [user, password] = [&login.user, &login.password].map(|text| encoded(text));
        Self(format!("{scheme}://{user}:{password}@{place}{query}"))
    }
}

impl FromStr for SecretUrl {
    type Err = Infallible;

    fn from_str(url: &str) -> Result<Self, Infallible> {
        Ok(Self(url.to_owned()))
    }
}

/// What a URL may hold as a user or a password (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, query) = match self.0.split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (self.0.as_str(), None),
        };
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        if !scheme.is_empty() {
            write!(f, "{scheme}://")?;
        }
        // To the last '@', not to the first '/': a password with a bare '/' is a mistake, and still a password.
        match rest.rsplit_once('@') {
            Some((login, host)) => match login.split_once(':') {
                Some((user, _)) => write!(f, "{user}:***@{host}")?,
                None => write!(f, "{login}@{host}")?,
            },
            None => f.write_str(rest)?,
        }
        let Some(query) = query else { return Ok(()) };
        for (index, pair) in query.split('&').enumerate() {
            f.write_str(if index == 0 { "?" } else { "&" })?;
            match pair.split_once('=') {
                Some((key, _)) if key.to_ascii_lowercase().contains("pass") => write!(f, "{key}=***")?,
                _ => f.write_str(pair)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_prints_without_its_password() {
        for (url, printed) in [
            (
                "postgres://holdfast:s3cret@db:5432/holdfast",
                "postgres://holdfast:***@db:5432/holdfast",
            ),
            ("redis://:s3cret@127.0.0.1:6379/0", "redis://:***@127.0.0.1:6379/0"),
            ("postgres://u:s3/cr@et@db/x", "postgres://u:***@db/x"),
            (
                "postgres://db/x?user=u&password=s3cret&sslmode=disable",
                "postgres://db/x?user=u&password=***&sslmode=disable",
            ),
            ("u:s3cret@db", "u:***@db"),
            (
                "http://127.0.0.1:18081/apis/ccompat/v7",
                "http://127.0.0.1:18081/apis/ccompat/v7",
            ),
            ("redis://127.0.0.1:16379", "redis://127.0.0.1:16379"),
            ("redis://name@host", "redis://name@host"),
            ("", ""),
        ] {
            let secret = SecretUrl::from(url);
            assert_eq!(secret.to_string(), printed);
            assert_eq!(format!("{secret:?}"), format!("\"{printed}\""));
            assert_eq!(secret.expose(), url);
        }
    }

    #[test]
    fn another_user_goes_to_the_same_place() {
        let login: Login = "per sister:p/w@#:1".parse().unwrap();
        for (url, other) in [
            ("postgres://a:b@db:5432/x?sslmode=disable", "db:5432/x?sslmode=disable"),
            ("postgres://db/x", "db/x"),
            ("redis://:b@cache", "cache"),
        ] {
            let scheme = url.split("://").next().unwrap();
            let given = SecretUrl::from(url).with_login(&login);
            assert_eq!(
                given.expose(),
                format!("{scheme}://per%20sister:p%2Fw%40%23%3A1@{other}")
            );
        }
        assert_eq!(format!("{login:?}"), "per sister:***");
        assert!("user".parse::<Login>().is_err() && ":p".parse::<Login>().is_err());
        assert_eq!(format!("{:?}", "p".parse::<Secret>().unwrap()), "***");
    }
}
