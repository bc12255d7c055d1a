//! The oracle: what one owner would have decided who never fails, with a Redis that never does, of the same commands.
//!
//! It is `apply.lua` itself, unchanged, called with one command after the other. So it cannot be wrong about what a lane does, and
//! what differs from it was done by the protocol: a decision lost, made twice, or made from a state that never was.

use domain::{CommandBody, Event, EventBody, Lane, Policy, Reason};
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
        let fields = ["epoch", "0", "generation", "0", "fence", "-1", "log_time", "0"];
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
            hash: "oracle".to_owned(),
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
        let malformed = |why: &str| refused(Reason::Malformed, why);
        let Some(value) = &record.value else {
            return malformed("the value is null");
        };
        let command = match self.codec.decode_command(value) {
            Ok(command) => command,
            Err(DecodeError::Malformed(why)) => return malformed(&why),
            Err(DecodeError::Illegal {
                command_id,
                request_id,
                invalid,
            }) => {
                return Asked::Refused {
                    command_id,
                    request_id,
                    reason: Reason::InvalidRequest,
                    message: pack::sentence(&invalid.to_string()),
                };
            }
            Err(other) => unreachable!("a story has no such record: {other}"),
        };
        let lanes = pack::lanes_of(&command.body, self.lanes);
        if let CommandBody::Reserve(reserve) = &command.body
            && lanes.len() > 1
            && reserve.policy != Policy::AllOrNothing
        {
            return Asked::Refused {
                command_id: command.command_id.to_string(),
                request_id: command.request_id.to_string(),
                reason: Reason::SeveralLanes,
                message: pack::sentence(
                    "the lines of this hold live in several lanes: they can only be held all or nothing",
                ),
            };
        }
        if lanes[0] == self.lane {
            Asked::Command(Box::new(command))
        } else if command.source.is_some() {
            malformed(&format!(
                "a forwarded copy for lane {} arrived in lane {}",
                lanes[0], self.lane
            ))
        } else {
            Asked::Misrouted(Box::new(command), lanes[0])
        }
    }
}

fn refused(reason: Reason, message: &str) -> Asked {
    Asked::Refused {
        command_id: String::new(),
        request_id: String::new(),
        reason,
        message: pack::sentence(message),
    }
}
