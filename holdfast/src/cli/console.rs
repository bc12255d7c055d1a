//! `console` and `console-user`.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use clap::{Args, Subcommand};
use console::{Api, Role, TestCard};
use plumbing::{config::Connections, service::Context, stop::Stop};

use super::{Outcome, roles::AllOptions};
use crate::http::HttpOptions;

/// The console in a process of its own.
#[derive(Args, Debug, Clone)]
pub struct Alone {
    /// Where the console listens
    #[arg(
        long,
        env = "HOLDFAST_CONSOLE_ADDR",
        default_value = "127.0.0.1:8081",
        value_name = "ADDRESS"
    )]
    console_addr: SocketAddr,

    #[command(flatten)]
    http: HttpOptions,

    #[command(flatten)]
    console: console::Options,
}

/// Serves the console alone until the stop.
pub async fn run(connections: Connections, options: Alone, context: Context) -> anyhow::Result<()> {
    let api = Api {
        url: options.http.url.expose().trim_end_matches('/').to_owned(),
        token: options.http.token,
    };
    let router = console::router(&connections, options.console, api, None, context.stop.clone())?;
    let (addr, serving) = plumbing::http::serve(options.console_addr, router, context.stop)
        .await
        .context("the console cannot be served")?;
    tracing::info!(http.addr = %addr, "the console is served at /console/");
    Ok(serving.await?)
}

/// The console's routes for the process that serves the API itself.
pub fn beside(connections: &Connections, options: &AllOptions, stop: Stop) -> anyhow::Result<Router> {
    let mut addr = options.ingress.http_addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let api = Api {
        url: format!("http://{addr}"),
        token: options.ingress.token.as_ref().map(|token| token.expose().to_owned()),
    };
    let stripe = &options.checkout;
    let test_card = TestCard::new(stripe.stripe_url.expose(), stripe.stripe_secret_key.expose());
    console::router(connections, options.console.clone(), api, test_card, stop)
}

/// Who may use the console.
#[derive(Args, Debug)]
pub struct ConsoleUser {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Add a person, or change one
    Add(Add),
}

#[derive(Args, Debug)]
struct Add {
    /// The person's name
    name: String,

    /// viewer looks; operator changes stock and holds; admin may all
    #[arg(long, default_value = "viewer")]
    role: Role,

    /// Read the password from standard input instead of making one
    #[arg(long)]
    password_stdin: bool,

    #[command(flatten)]
    connections: Connections,
}

impl ConsoleUser {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let What::Add(add) = self.what;
        let given = match add.password_stdin {
            true => Some(
                std::io::read_to_string(std::io::stdin())?
                    .trim_end_matches(['\r', '\n'])
                    .to_owned(),
            ),
            false => None,
        };
        let is_made = given.is_none();
        let pool = plumbing::postgres::connect_lazy(&add.connections.postgres_url, "holdfast console-user", 1)?;
        let password = console::add_user(&pool, &add.name, add.role, given).await?;
        match is_made {
            true => super::print(&format!("{password}\n")),
            false => super::print(&format!("✓ {} is {}\n", add.name, add.role.name())),
        }
        Ok(Outcome::Fine)
    }
}
