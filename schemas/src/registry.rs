//! The schema registry, as far as Holdfast needs it: register our schemas, and learn what an id means.

use std::time::Duration;

use plumbing::tls;
use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, get_all_versions, get_schema_by_id, post_schema},
    error::SRCError,
    schema_registry_common::{SchemaType, SuppliedSchema},
};

/// What went wrong with the registry, and so what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It does not answer: wait, with backoff.
    #[error("the schema registry does not answer: {0}")]
    Unavailable(String),
    /// It answered no.
    #[error("the schema registry refused: {0}")]
    Refused(String),
    /// The subject has no schema yet: `holdfast schemas` registers it.
    #[error("subject {0} is not in the schema registry yet: run `holdfast schemas`")]
    NotRegistered(String),
}

impl RegistryError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::NotRegistered(_) => true,
            Self::Refused(_) => false,
        }
    }
}

/// Compatibility that keeps every old record readable by every new reader.
pub const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";

const TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one registry.
#[derive(Clone)]
pub struct Registry {
    url: String,
    settings: SrSettings,
    client: reqwest::Client,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// A client; no call is made yet.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when the URL cannot be used.
    pub fn new(given: &str) -> Result<Self, RegistryError> {
        let refused = |error: &dyn std::fmt::Display| RegistryError::Refused(error.to_string());
        let (client, url) = tls::client_for(given).map_err(|error| refused(&error))?;
        // A login in the URL becomes a header with each call (RFC 7617): reqwest sees to it.
        let url = url.trim_end_matches('/').to_owned();
        let (settings_client, _) = tls::client_for(given).map_err(|error| refused(&error))?;
        let settings = SrSettings::new_builder(url.clone())
            .set_timeout(TIMEOUT)
            .no_proxy()
            .build_with(settings_client)
            .map_err(|error| refused(&error))?;
        let client = client.timeout(TIMEOUT).build().map_err(|error| refused(&error))?;
        Ok(Self { url, settings, client })
    }

    /// Sets the global compatibility to [`COMPATIBILITY`]; the registry enforces none before.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not answer or refuses.
    pub async fn set_compatibility(&self) -> Result<(), RegistryError> {
        match self.put_compatibility().await {
            // Somebody else set it for the first time at the same moment; from now on it can be replaced.
            Ok(reqwest::StatusCode::CONFLICT) => self.put_compatibility().await?,
            other => other?,
        };
        Ok(())
    }

    /// `CONFLICT` where another caller was just making the setting; any other refusal is an error.
    async fn put_compatibility(&self) -> Result<reqwest::StatusCode, RegistryError> {
        let answer = self
            .client
            .put(format!("{}/config", self.url))
            .json(&serde_json::json!({ "compatibility": COMPATIBILITY }))
            .send()
            .await
            .map_err(|error| RegistryError::Unavailable(error.to_string()))?;
        let status = answer.status();
        if status.is_success() || status == reqwest::StatusCode::CONFLICT {
            return Ok(status);
        }
        let text = answer.text().await.unwrap_or_default();
        Err(if status.is_server_error() {
            RegistryError::Unavailable(format!("{status} {text}"))
        } else {
            RegistryError::Refused(format!("{status} {text}"))
        })
    }

    /// Registers a schema under a subject, or finds it there, and returns its id.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when it is incompatible with an earlier version.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        let registered = post_schema(&self.settings, subject.to_owned(), supplied)
            .await
            .map_err(error_of)?;
        Ok(registered.id)
    }

    /// The id of our schema under a subject that `holdfast schemas` has prepared.
    ///
    /// # Errors
    /// [`RegistryError::NotRegistered`] when the subject is not there yet.
    pub async fn id_of(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        match get_all_versions(&self.settings, subject.to_owned()).await {
            Ok(_) => self.register(subject, schema).await,
            Err(error) if status_of(&error) == Some(404) => Err(RegistryError::NotRegistered(subject.to_owned())),
            Err(error) => Err(error_of(error)),
        }
    }

    /// The schema of an id; `None` when the registry says that there is none.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not answer.
    pub async fn schema(&self, id: u32) -> Result<Option<String>, RegistryError> {
        match get_schema_by_id(id, &self.settings).await {
            Ok(registered) if registered.schema_type == SchemaType::Avro => Ok(Some(registered.schema)),
            Ok(_) => Ok(None),
            Err(error) if status_of(&error) == Some(404) => Ok(None),
            Err(error) => match error_of(error) {
                RegistryError::Refused(text) => Err(RegistryError::Unavailable(text)),
                other => Err(other),
            },
        }
    }
}

/// The HTTP status that an error of the registry client speaks of; it keeps it only in its text.
fn status_of(error: &SRCError) -> Option<u16> {
    let (_, rest) = error.error.split_once("failed with status ")?;
    rest.get(..3)?.parse().ok()
}

fn error_of(error: SRCError) -> RegistryError {
    let text = match &error.cause {
        Some(cause) => format!("{}: {cause}", error.error),
        None => error.error.clone(),
    };
    match status_of(&error) {
        Some(status) if status < 500 => RegistryError::Refused(text),
        Some(_) | None => RegistryError::Unavailable(text),
    }
}
