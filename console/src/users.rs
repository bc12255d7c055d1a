//! Users, their roles and passwords.

use std::str::FromStr;

use anyhow::{Context as _, ensure};
use argon2::{
    Argon2,
    password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString, rand_core::OsRng},
};
use plumbing::task;
use sqlx::PgPool;
use tokio::sync::Semaphore;

/// Shortest password that a person may choose, in bytes.
const PASSWORD_MIN: usize = 12;
/// Longest name and password, in bytes.
pub const TEXT_MAX: usize = 128;

/// Passwords that are checked at the same time.
static HASHING: Semaphore = Semaphore::const_new(2);

/// What a user may do; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Viewer,
    /// Change stock and holds, retry what failed.
    Operator,
    /// Everything: policies, the audit, the tour.
    Admin,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or("must be viewer, operator or admin")
    }
}

/// Adds a user, or gives one that is there a new role and password and ends its sessions. Returns the password, which is
/// made here where none is given.
///
/// # Errors
/// A name or a password that does not do; a database that does not answer.
pub async fn add_user(pool: &PgPool, name: &str, role: Role, password: Option<String>) -> anyhow::Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    ensure!(
        !name.is_empty() && name.len() <= TEXT_MAX && name.bytes().all(is_plain),
        "a name has 1 to {TEXT_MAX} characters of A-Z a-z 0-9 . _ - @"
    );
    let password = password.unwrap_or_else(|| plumbing::id::random().simple().to_string()[..20].to_owned());
    ensure!(
        (PASSWORD_MIN..=TEXT_MAX).contains(&password.len()),
        "a password has {PASSWORD_MIN} to {TEXT_MAX} bytes"
    );
    let hashed = hash(&password)?;
    let end = "WITH ended AS (DELETE FROM console_sessions WHERE name = $1) \
         INSERT INTO console_users (name, role, password_hash, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO UPDATE SET role = $2, password_hash = $3";
    sqlx::query(end)
        .bind(name)
        .bind(role.name())
        .bind(hashed)
        .bind(plumbing::time::now_ms())
        .execute(pool)
        .await
        .context("the user could not be written: is Postgres up, and has `holdfast migrate` run?")?;
    Ok(password)
}

fn hash(password: &str) -> anyhow::Result<String> {
    let salt = SaltString::generate(&mut OsRng);
    // The crate's default is argon2id with 19 MiB and two passes (OWASP's recommendation).
    let hashed = Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hashed
        .map_err(|error| anyhow::anyhow!("the password cannot be hashed: {error}"))?
        .to_string())
}

/// The role of a user with this password. A name that nobody has takes as long as one with a wrong password.
pub async fn check(pool: &PgPool, name: String, password: String) -> Result<Option<Role>, super::problem::Problem> {
    const NOBODY: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    if password.len() > TEXT_MAX {
        return Ok(None);
    }
    let pool = pool.clone();
    let reading = task::spawn("console-user", async move {
        sqlx::query_as::<_, (String, String)>("SELECT role, password_hash FROM console_users WHERE name = $1")
            .bind(name)
            .fetch_optional(&pool)
            .await
    });
    let found = reading.await??;
    let (role, hashed) = found.map_or((None, NOBODY.to_owned()), |(role, hashed)| (Some(role), hashed));
    // 19 MiB and a tenth of a second each, asked for by whoever knows no password: not many at once.
    let _turn = HASHING.acquire().await.expect("it is never closed");
    let is_right = task::thread("password", move || {
        PasswordHash::new(&hashed)
            .is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
    })
    .await?;
    Ok(role.filter(|_| is_right).and_then(|role| role.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_argon2id_and_salted() {
        let (one, two) = (hash("correct horse").unwrap(), hash("correct horse").unwrap());
        assert!(one.starts_with("$argon2id$") && one != two);
        let parsed = PasswordHash::new(&one).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"correct horsf", &parsed).is_err());
    }

    #[test]
    fn roles_are_ordered() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        assert!("root".parse::<Role>().is_err());
    }
}
