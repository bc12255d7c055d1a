//! What a record asks of a lane (behind `intake`; before `batch`).

use domain::{Command, CommandBody, Invalid, Lane, Policy, Reason, Text};

use super::{id_or_nothing, lanes_of, sentence};

/// What is to be decided on one command offset.
#[derive(Debug)]
pub enum Asked {
    /// A command of this lane.
    Command(Box<Command>),
    /// A command of another lane: to be forwarded.
    Misrouted(Box<Command>, Lane),
    /// A record that is refused before any stock is looked at.
    Refused {
        /// Its `command_id`, where it has one.
        command_id: String,
        /// Its `request_id`, where it has one.
        request_id: String,
        /// Why.
        reason: Reason,
        /// A sentence for whoever sent it.
        message: Text,
    },
    /// Offsets up to this one hold no record.
    Skip,
}

impl Asked {
    /// What a legal command asks of a lane, or why its record can never be served there.
    ///
    /// # Errors
    /// A sentence for the dead letter.
    pub fn of(command: Command, lane: Lane, lanes: u16) -> Result<Self, String> {
        let refuse = |reason, message: &str| {
            Ok(Self::refused(
                command.command_id.as_str(),
                command.request_id.as_str(),
                reason,
                message,
            ))
        };
        let all = lanes_of(&command.body, lanes);
        // The lowest lane of a cart is its home lane.
        let own = all[0];
        if let CommandBody::Reserve(reserve) = &command.body
            && all.len() > 1
            && reserve.policy != Policy::AllOrNothing
        {
            return refuse(
                Reason::SeveralLanes,
                "the lines of this hold live in several lanes: they can only be held all or nothing",
            );
        }
        if own == lane {
            Ok(Self::Command(Box::new(command)))
        } else if own.number() >= lanes {
            refuse(Reason::HoldNotFound, "the hold id names a lane that does not exist")
        } else if command.source.is_some() {
            Err(format!("a forwarded copy for lane {own} arrived in lane {lane}"))
        } else {
            Ok(Self::Misrouted(Box::new(command), own))
        }
    }

    /// A record that can be read, of a command that breaks a rule.
    #[must_use]
    pub fn illegal(command_id: &str, request_id: &str, invalid: &Invalid) -> Self {
        let (command_id, request_id) = (id_or_nothing(command_id), id_or_nothing(request_id));
        Self::refused(&command_id, &request_id, Reason::InvalidRequest, &invalid.to_string())
    }

    /// A record that can never be read.
    #[must_use]
    pub fn malformed(why: &str) -> Self {
        Self::refused("", "", Reason::Malformed, why)
    }

    fn refused(command_id: &str, request_id: &str, reason: Reason, message: &str) -> Self {
        Self::Refused {
            command_id: command_id.to_owned(),
            request_id: request_id.to_owned(),
            reason,
            message: sentence(message),
        }
    }
}
