//! `demo`: a short real sale with more buyers than units, over HTTP like any client, and what it left everywhere.
//!
//! ```text
//! catalogue -> sale (reserve all at once; confirm, cancel, or forget to pay) -> paid (one more, who pays by checkout)
//!           -> outcome (tables, checks, verify)
//! ```

mod catalogue;
mod outcome;
mod paid;
mod sale;

use clap::Args;
use plumbing::config::Connections;

use super::Outcome;
use crate::{
    http::{Api, HttpOptions},
    verify,
};

/// Seed a small catalogue and run a short sale with more buyers than units.
#[derive(Args, Debug)]
pub struct Demo {
    /// Buyers who want one of the five VIP tickets
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    buyers: u32,

    /// Sell what is there: neither add SKUs nor restock them
    #[arg(long)]
    no_seed: bool,

    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    stand_in: paid::StandIn,
    #[command(flatten)]
    connections: Connections,
}

impl Demo {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let api = Api::new(&self.http)?.acting_as("demo");
        let run = plumbing::id::random().simple().to_string()[..8].to_owned();
        if !self.no_seed {
            for line in catalogue::seed(&api, &run).await? {
                super::print(&format!("  {line}\n"));
            }
        }
        let before = catalogue::stock(&api).await?;
        let buyers = sale::buyers(&run, self.buyers);
        super::print(&format!("  {} buyers at once ...\n", buyers.len()));
        let rush = sale::rush(&api, buyers).await?;
        super::print(&format!(
            "  all answered within {} ms; the winners pay, one cancels, one forgets to pay ...\n",
            rush.took.as_millis()
        ));
        let mut ended = sale::end(&api, rush).await?;
        super::print("  one more pays by checkout, and waits for the parcel ...\n");
        let receipt = match paid::buy(&api, &self.stand_in, &run).await? {
            Ok((buyer, receipt)) => {
                ended.push(buyer);
                Some(receipt)
            }
            Err(why) => {
                super::print(&format!("  nobody can: {why}\n"));
                None
            }
        };
        let report = verify::run(&self.connections, verify::Options::at_rest()).await?;
        let after = outcome::After::read(&api, &self.connections, &ended, receipt).await?;
        let (text, fine) = outcome::tell(&before, &ended, &after, &report);
        super::print(&text);
        Ok(if fine { Outcome::Fine } else { Outcome::NotInOrder })
    }
}
