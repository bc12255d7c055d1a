//! What the tools that ask the API have in common: where it is, and how its answer is shown.

use serde_json::Value;

use crate::http::HttpOptions;

/// The options of one call.
#[derive(clap::Args, Debug)]
pub(super) struct Call {
    /// Print the API's own JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    pub(super) http: HttpOptions,
}

impl Call {
    /// Prints the answer as it came, or what `text` makes of it for people.
    pub(super) fn print(&self, json: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = match self.json {
            true => format!("{}\n", serde_json::to_string_pretty(json)?),
            false => text(),
        };
        super::print(&text);
        Ok(())
    }
}
