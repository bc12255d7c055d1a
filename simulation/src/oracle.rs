//! The oracle: what one owner would have decided who never fails, with a Redis that never does, of the same commands.
//!
//! It is `apply` itself, unchanged, called with one command after the other. So it cannot be wrong about what a lane does, and
//! what differs from it was done by the protocol: a decision lost, made twice, or made from a state that never was.

use domain::{Event, EventBody, Lane};
use reserver::pack::{self, Asked, Entry, Origin};
use schemas::{Codec, DecodeError, keys::LaneKeys};

use crate::{
    kafka::Record,
    redis::{
        data::{Answer, Data},
        lua::Host,
    },
    story,
};

pub(crate) struct Oracle<'a> {
    host: &'a Host,
    script: String,
    codec: &'a Codec,
    lane: Lane,
    lanes: u16,
    key: Vec<u8>,
    pub(crate) data: Data,
    previous: i64,
}

/// The generation of the oracle's keys.
pub(crate) const GENERATION: i64 = 0;

impl<'a> Oracle<'a> {
    pub(crate) fn new(host: &'a Host, script: &str, codec: &'a Codec, lane: Lane, lanes: u16) -> Self {
        let key = LaneKeys::new("hf", lane).lane().into_bytes();
        let mut data = Data::default();
        let fields = [
            "epoch",
            "0",
            "generation",
            "0",
            "fence",
            "-1",
            "log_time",
            "0",
            "holds",
            "0",
        ];
        let mut arguments = vec![key.clone()];
        arguments.extend(fields.map(|field| field.as_bytes().to_vec()));
        data.run("HSET", &arguments);
        Self {
            host,
            script: script.to_owned(),
            codec,
            lane,
            lanes,
            key,
            data,
            previous: -1,
        }
    }

    /// What must have been decided of a command; without a record, of a hole that ends at `offset`. The epoch, and whether
    /// memory was full, are the valid event's.
    pub(crate) fn decide(&mut self, offset: i64, record: Option<&Record>, valid: &Event) -> Result<Event, String> {
        let asked = record.map_or(Asked::Skip, |record| self.asked(record));
        let entry = Entry {
            offset,
            previous: self.previous,
            timestamp: record.map_or(valid.decided_at, |record| record.timestamp),
            hash: 0,
            key: None,
            traceparent: None,
            asked,
        };
        // Whether memory was full is not in the log: a rejection may be explained by it.
        let rejected = matches!(
            &valid.body,
            EventBody::HoldRejected { .. } | EventBody::PartRefused { .. }
        );
        let before = rejected.then(|| self.data.clone());
        let expected = self.outcome(&entry, false, valid.epoch)?;
        self.previous = offset;
        match before {
            Some(before) if expected != *valid => {
                self.data = before;
                self.outcome(&entry, true, valid.epoch)
            }
            _ => Ok(expected),
        }
    }

    fn outcome(&mut self, entry: &Entry, busy: bool, epoch: i64) -> Result<Event, String> {
        let rules = story::options(1).rules(self.lanes);
        let batch = pack::batch(self.lane, std::slice::from_ref(entry), &[], busy, rules);
        let arguments = [b"0".to_vec(), batch];
        let keys = [self.key.clone()];
        let Answer::List(mut reply) = self.host.run(&self.script, (&keys, &arguments), &mut self.data, None) else {
            return Err("the oracle's script fails".to_owned());
        };
        let Some(Answer::Text(outcome)) = reply.pop() else {
            return Err("the oracle's script has no outcome".to_owned());
        };
        let origin = Origin { lane: self.lane, epoch };
        pack::event(origin, entry, &outcome).map_err(|mismatch| mismatch.to_string())
    }

    fn asked(&self, record: &Record) -> Asked {
        let Some(value) = &record.value else {
            return Asked::malformed("the value is null");
        };
        match self.codec.decode_command(value) {
            Ok(command) => Asked::of(command, self.lane, self.lanes).unwrap_or_else(|why| Asked::malformed(&why)),
            Err(DecodeError::Malformed(why)) => Asked::malformed(&why),
            Err(DecodeError::Illegal {
                command_id,
                request_id,
                invalid,
            }) => Asked::illegal(&command_id, &request_id, &invalid),
            Err(other) => unreachable!("a story has no such record: {other}"),
        }
    }
}
