//! `checkout` and `fulfiller` in processes of their own: the worker and, where it has an address, the role's calls.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::{Router, http::HeaderMap};
use clap::Args;
use ingress::Token;
use plumbing::{
    config::Connections,
    service::{Context, DRAIN_DEADLINE},
    task::Tasks,
};

/// Checkout in a process of its own.
#[derive(Args, Debug, Clone)]
pub struct Checkout {
    /// Where the calls of checkout are served; without it this is the worker alone
    #[arg(long, env = "HOLDFAST_CHECKOUT_ADDR", value_name = "ADDRESS")]
    checkout_addr: Option<SocketAddr>,

    /// Bearer token that every call but Stripe's must carry
    #[arg(long, env = "HOLDFAST_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<Token>,

    #[command(flatten)]
    options: checkout::Options,
}

/// The fulfiller in a process of its own.
#[derive(Args, Debug, Clone)]
pub struct Fulfiller {
    /// Where the calls about orders are served; without it this is the worker alone
    #[arg(long, env = "HOLDFAST_FULFILLER_ADDR", value_name = "ADDRESS")]
    fulfiller_addr: Option<SocketAddr>,

    /// Bearer token that every call must carry
    #[arg(long, env = "HOLDFAST_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<Token>,

    #[command(flatten)]
    options: fulfiller::Options,
}

/// What judges calls by the service's token.
pub fn gate(token: Option<Token>) -> impl Fn(&HeaderMap) -> bool + Send + Sync + 'static {
    move |headers| token.as_ref().is_none_or(|token| token.is_shown_by(headers))
}

/// Checkout until the stop.
pub async fn checkout(connections: Connections, alone: Checkout, context: Context) -> anyhow::Result<()> {
    let (mut tasks, context) = beside(context);
    let checkout = checkout::Checkout::new(&connections, alone.options, context.clone())?;
    if let Some(addr) = alone.checkout_addr {
        check(addr, alone.token.as_ref())?;
        serve(&mut tasks, addr, checkout.router(gate(alone.token)).into()).await?;
    }
    tasks.spawn("checkout", checkout.run());
    tasks.join_all(DRAIN_DEADLINE).await
}

/// The fulfiller until the stop.
pub async fn fulfiller(connections: Connections, alone: Fulfiller, context: Context) -> anyhow::Result<()> {
    let (mut tasks, context) = beside(context);
    if let Some(addr) = alone.fulfiller_addr {
        check(addr, alone.token.as_ref())?;
        let own = connections
            .clone()
            .logged_in(alone.options.fulfiller_postgres_login.as_ref(), None);
        serve(&mut tasks, addr, fulfiller::router(&own, gate(alone.token))?.into()).await?;
    }
    tasks.spawn("fulfiller", fulfiller::run(connections, alone.options, context));
    tasks.join_all(DRAIN_DEADLINE).await
}

/// The end of one task is the end of all.
fn beside(context: Context) -> (Tasks<anyhow::Error>, Context) {
    let tasks = Tasks::new(&context.stop);
    let stop = tasks.stop().clone();
    (tasks, Context { stop, ..context })
}

fn check(addr: SocketAddr, token: Option<&Token>) -> anyhow::Result<()> {
    anyhow::ensure!(
        addr.ip().is_loopback() || token.is_some(),
        "{addr} can be reached from other machines: set HOLDFAST_TOKEN, or listen on 127.0.0.1"
    );
    Ok(())
}

async fn serve(tasks: &mut Tasks<anyhow::Error>, addr: SocketAddr, router: Router) -> anyhow::Result<()> {
    let served = plumbing::http::serve(addr, router, tasks.stop().clone()).await;
    let (addr, serving) = served.context("the calls cannot be served")?;
    tracing::info!(http.addr = %addr, "the calls are served");
    tasks.spawn("http", async move { Ok(serving.await?) });
    Ok(())
}
