//! Holdfast's own HTTP API from the client's side: what `stock`, `prices`, `failed`, `demo` and `doctor` speak.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use plumbing::config::SecretUrl;
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// Where the API is.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Connections")]
pub struct HttpOptions {
    /// Base URL of the HTTP API
    #[arg(
        long,
        env = "HOLDFAST_URL",
        default_value = "http://127.0.0.1:8080",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub url: SecretUrl,

    /// Bearer token, where the API wants one
    #[arg(long, env = "HOLDFAST_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
}

/// How long a command that is not decided yet is asked again for.
const UNDECIDED_FOR: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(20);

/// A client of one installation.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    token: Option<String>,
    actor: Option<String>,
}

/// An answer with a JSON body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Body; null when there was none.
    pub body: Value,
}

impl Answer {
    /// The stable code of a problem.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.body.get("code")?.as_str()
    }

    /// The problem in a sentence: its detail, its title, its code, or the status.
    #[must_use]
    pub fn problem(&self) -> String {
        let text = |name: &str| self.body.get(name).and_then(Value::as_str);
        let said = text("detail").or_else(|| text("title"));
        match (said, self.code()) {
            (Some(said), Some(code)) => format!("{said} ({code})"),
            (Some(said), None) => said.to_owned(),
            (None, Some(code)) => code.to_owned(),
            (None, None) => self.status.to_string(),
        }
    }

    /// The body of a success.
    ///
    /// # Errors
    /// The problem's detail otherwise.
    pub fn success(self) -> anyhow::Result<Value> {
        if self.status.is_success() {
            Ok(self.body)
        } else {
            bail!("{}", self.problem())
        }
    }
}

impl Api {
    /// A client; no call is made yet.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(options: &HttpOptions) -> anyhow::Result<Self> {
        let (client, url) = plumbing::tls::client_for(options.url.expose())?;
        Ok(Self {
            client: client.timeout(TIMEOUT).build()?,
            base: url.trim_end_matches('/').to_owned(),
            token: options.token.clone(),
            actor: None,
        })
    }

    /// Says with each call who changes stock.
    #[must_use]
    pub fn acting_as(mut self, actor: &str) -> Self {
        self.actor = Some(actor.to_owned()).filter(|actor| !actor.is_empty());
        self
    }

    /// One call.
    ///
    /// # Errors
    /// Nobody answers there.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(actor) = &self.actor {
            request = request.header("x-actor", actor);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let place = || format!("no answer from {}: is it running? (HOLDFAST_URL, --url)", self.base);
        let answer = request.send().await.with_context(place)?;
        let status = answer.status();
        let bytes = answer.bytes().await.with_context(place)?;
        Ok(Answer {
            status,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        })
    }

    /// One command under a key, asked again while it is not decided or not taken: the key makes that harmless.
    ///
    /// # Errors
    /// Nobody answers, or it is still not decided after half a minute.
    pub async fn command(&self, method: Method, path: &str, key: &str, body: &Value) -> anyhow::Result<Answer> {
        let begun = Instant::now();
        loop {
            let answer = self.call(method.clone(), path, Some(key), Some(body)).await?;
            let undecided = matches!(
                answer.status,
                StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
            );
            if !undecided {
                return Ok(answer);
            }
            if begun.elapsed() > UNDECIDED_FOR {
                bail!(
                    "{path} is not decided after {} s: {} (is a reserver running? `holdfast lanes`)",
                    UNDECIDED_FOR.as_secs(),
                    answer.problem()
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// All of a list, page by page.
    ///
    /// # Errors
    /// Nobody answers, or the problem's detail.
    pub async fn list(&self, path: &str, name: &str) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        let mut page = self.get(path).await?.success()?;
        loop {
            let rows = page.get(name).and_then(Value::as_array);
            found.extend(rows.cloned().unwrap_or_default());
            let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) else {
                return Ok(found);
            };
            page = self.get(&format!("{path}?cursor={cursor}")).await?.success()?;
        }
    }

    /// Reads something.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, path, None, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_its_detail_and_its_code() {
        let problem = |body: Value| Answer {
            status: StatusCode::CONFLICT,
            body,
        };
        let full =
            problem(serde_json::json!({"title": "Conflict", "detail": "3 are committed", "code": "stock_committed"}));
        assert_eq!(full.problem(), "3 are committed (stock_committed)");
        assert_eq!(problem(Value::Null).problem(), "409 Conflict");
        assert!(problem(Value::Null).success().is_err());
    }
}
