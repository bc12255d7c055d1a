//! Records <-> domain: the one place where each becomes the other.

mod cart;
mod command;
mod event;

pub use command::{parse_adjustment, parse_cap, parse_policy, parse_ttl};
use domain::{Invalid, Source, Text};

use crate::records;

impl From<&Source> for records::Source {
    fn from(source: &Source) -> Self {
        Self {
            topic: source.topic.clone(),
            partition: source.partition,
            offset: source.offset,
            log_time: source.log_time,
        }
    }
}

impl From<records::Source> for Source {
    fn from(source: records::Source) -> Self {
        Self {
            topic: source.topic,
            partition: source.partition,
            offset: source.offset,
            log_time: source.log_time,
        }
    }
}

fn text(text: &Option<Text>) -> Option<String> {
    text.as_ref().map(ToString::to_string)
}

/// An optional note; an empty one is none.
fn note(field: &'static str, text: Option<String>) -> Result<Option<Text>, Invalid> {
    text.filter(|text| !text.is_empty())
        .map(|text| Text::parse(field, &text))
        .transpose()
}
