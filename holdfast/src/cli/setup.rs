//! `topics`, `schemas`, `migrate`.

use clap::Args;
use plumbing::{config::Connections, kafka::admin::Created};

use super::Outcome;
use crate::setup::{self, TopicOptions};

/// Create the topics that are missing, and check those that exist.
#[derive(Args, Debug)]
pub struct Topics {
    #[command(flatten)]
    options: TopicOptions,
    #[command(flatten)]
    connections: Connections,
}

impl Topics {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        for (name, created) in setup::topics(&self.connections, self.options).await? {
            match created {
                Created::New => println!("✓ {name} created"),
                Created::Existed => println!("✓ {name} is there"),
            }
        }
        Ok(Outcome::Fine)
    }
}

/// Set the registry's compatibility and register the schemas.
#[derive(Args, Debug)]
pub struct Schemas {
    #[command(flatten)]
    connections: Connections,
}

impl Schemas {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        for (subject, id) in setup::schemas(&self.connections).await? {
            println!("✓ {subject} is schema {id}");
        }
        println!("✓ compatibility is {}", schemas::registry::COMPATIBILITY);
        Ok(Outcome::Fine)
    }
}

/// Bring Postgres' tables up to date.
#[derive(Args, Debug)]
pub struct Migrate {
    #[command(flatten)]
    connections: Connections,
}

impl Migrate {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        setup::migrate(&self.connections).await?;
        println!("✓ tables are up to date");
        Ok(Outcome::Fine)
    }
}
