//! Commands against events (I2): every command up to the last decision has exactly one valid event, and that event
//! answers it and no other.

use domain::Lane;

use super::{
    books::{Decided, Pages, hash_of},
    report::{Differences, Place},
};
use crate::log::{Decoder, LogReader, Record};

/// How many commands were read and what the retention has taken before.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Readable commands up to the last decision.
    pub commands: u64,
    /// The first command offset that could be looked at.
    pub from: i64,
}

/// Reads a lane's commands up to the last decision and lays them beside the decisions.
///
/// # Errors
/// Kafka or the registry does not answer.
pub fn compare(
    lane: Lane,
    mut log: LogReader,
    decoder: &Decoder,
    pages: &Pages,
    differences: &mut Differences,
) -> anyhow::Result<Seen> {
    let (first, end) = log.bounds()?;
    let last = pages.state.last_command_offset;
    if last >= end {
        differences.note(
            Place::Commands,
            format!("the log decides command {last}, but lane {lane} has no command from offset {end} on"),
        );
    }
    let from = first.max(pages.decided_before + 1);
    let mut beside = Beside {
        decided: pages.decided.iter().copied().peekable(),
        decoder,
        commands: 0,
        last,
    };
    beside.skip_before(from);
    if from <= last.min(end - 1) {
        log.seek(from);
        let mut over = false;
        log.read_while(|record| {
            over = record.offset >= last;
            if record.offset <= last {
                beside.take(&record, differences)?;
            }
            Ok(!over)
        })?;
    }
    beside.finish(differences);
    Ok(Seen {
        commands: beside.commands,
        from,
    })
}

struct Beside<'a, I: Iterator<Item = Decided>> {
    decided: std::iter::Peekable<I>,
    decoder: &'a Decoder,
    commands: u64,
    last: i64,
}

impl<I: Iterator<Item = Decided>> Beside<'_, I> {
    /// Decisions on commands that the retention has taken.
    fn skip_before(&mut self, from: i64) {
        while self.decided.next_if(|decided| decided.command < from).is_some() {}
    }

    fn take(&mut self, record: &Record, differences: &mut Differences) -> anyhow::Result<()> {
        self.commands += 1;
        while let Some(decided) = self.decided.next_if(|decided| decided.command < record.offset) {
            without_command(&decided, differences);
        }
        let Some(decided) = self.decided.next_if(|decided| decided.command == record.offset) else {
            differences.note(
                Place::Commands,
                format!(
                    "command {} ({}) has no valid event, though the log decides up to {}",
                    record.offset,
                    record.type_name().unwrap_or("of unknown type"),
                    self.last
                ),
            );
            return Ok(());
        };
        if decided.skipped {
            differences.note(
                Place::Commands,
                format!(
                    "event {} says that command {} holds no record, but it does",
                    decided.event, record.offset
                ),
            );
        }
        let Some(id) = decided.id else { return Ok(()) };
        let command = self.decoder.command(record.value.as_deref())?;
        if let Ok(command) = command
            && hash_of(command.command_id.as_str()) != id
        {
            differences.note(
                Place::Commands,
                format!(
                    "event {} decides command {} but names another command id than {}",
                    decided.event, record.offset, command.command_id
                ),
            );
        }
        Ok(())
    }

    fn finish(&mut self, differences: &mut Differences) {
        for decided in self.decided.by_ref() {
            without_command(&decided, differences);
        }
    }
}

fn without_command(decided: &Decided, differences: &mut Differences) {
    if !decided.skipped {
        differences.note(
            Place::Commands,
            format!(
                "event {} decides command {}, where the commands topic has no readable record",
                decided.event, decided.command
            ),
        );
    }
}

/// The last readable command of a lane from an offset on; `None` when there is none.
///
/// # Errors
/// Kafka does not answer.
pub fn last_readable(log: &mut LogReader) -> anyhow::Result<Option<i64>> {
    let mut last = None;
    log.read_to_end(|record| {
        last = Some(record.offset);
        Ok(())
    })?;
    Ok(last)
}
