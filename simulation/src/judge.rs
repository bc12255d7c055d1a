//! The judge: whether a story that has settled kept every promise (docs/ARCHITECTURE.md).

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use domain::{Command, CommandBody, Event, EventBody, Lane, LaneState, Ledger, Stamp, Verdict, relay};
use schemas::{Topics, keys::LaneKeys};

use crate::{
    kafka::{Partition, Record},
    oracle::{GENERATION, Oracle},
    picture::{self, Seen},
    redis::lua::Host,
    state::State,
};

/// A valid decision and where it stands.
struct Decision {
    offset: i64,
    command: i64,
    previous: i64,
    event: Rc<Event>,
}

/// What is still under way; none when all is decided, read, persisted and over.
pub(crate) fn unsettled(state: &State) -> Option<String> {
    for lane in 0..state.lanes {
        let (commands, events) = (&state.kafka.commands[lane], &state.kafka.events[lane]);
        let decided = events.fold.last_command_offset;
        if decided < commands.last() {
            return Some(format!(
                "lane {lane} has decided up to {decided} of {}",
                commands.last()
            ));
        }
        if decided + 1 < commands.end() {
            return Some(format!("lane {lane} has a hole at its end, after {decided}"));
        }
        if state.clients.next_event(lane) < events.end() {
            return Some(format!("ingress has not read lane {lane}"));
        }
        let persisted = state.postgres.lanes[lane]
            .checkpoint
            .map_or(0, |checkpoint| checkpoint.next_event_offset);
        if persisted < events.end() {
            return Some(format!(
                "Postgres has lane {lane} up to {persisted} of {}",
                events.end()
            ));
        }
    }
    for lane in 0..state.lanes {
        let base = LaneKeys::new("hf", lane_of(lane)).lane();
        let Some(generation) = picture::generation_of(state.redis.data(), &base) else {
            return Some(format!("lane {lane} is not whole in Redis"));
        };
        let owner = state.kafka.events[lane].fold.epoch;
        if !is_owned(state, lane, owner) {
            return Some(format!("lane {lane} is not at work under epoch {owner}"));
        }
        let task = state.processes[state.owners[lane]].tasks[lane];
        if !state.kafka.has_read(task, lane) {
            return Some(format!("the owner of lane {lane} has not read its events"));
        }
        let epoch = picture::epoch_of(state.redis.data(), &base);
        if epoch != Some(owner) {
            return Some(format!("lane {lane} is owned by {owner}, and in Redis by {epoch:?}"));
        }
        // Once removed and back again: they go with the lane's next turn.
        let back = state.redis.set_back;
        if let Some(left) = picture::others(state.redis.data(), &base, generation).filter(|_| !back) {
            return Some(format!("{left} of an older generation is left in Redis"));
        }
    }
    if state.under_way > 0 {
        return Some(format!("{} records are under way", state.under_way));
    }
    (!state.clients.nothing_due()).then(|| "a hold is past its deadline".to_owned())
}

/// Whether the process that the group gives a lane to has opened it, and nobody else since. What a Redis has lost while
/// it was away shows to whoever opens the lane with it; so nothing is settled before.
fn is_owned(state: &State, lane: usize, epoch: i64) -> bool {
    let owner = &state.processes[state.owners[lane]];
    let task = &state.tasks[owner.tasks[lane]];
    owner.alive && task.epoch == epoch && task.connection.is_some_and(|id| state.redis.is_open(id))
}

/// Rule 9: whether the lane whose commands were lost says so and decides nothing.
pub(crate) fn has_halted(state: &State, lane: usize, end: i64) -> Result<(), String> {
    let events = &state.kafka.events[lane];
    for offset in end..events.end() {
        if events
            .record(offset)
            .is_some_and(|record| record.verdict == Verdict::Valid)
        {
            return Err(format!("lane {lane} decided at {offset} after its commands were lost"));
        }
    }
    if is_halted(state, lane) {
        Ok(())
    } else {
        Err(format!("lane {lane} lost commands and did not halt"))
    }
}

fn is_halted(state: &State, lane: usize) -> bool {
    let name = format!("lane-{lane}");
    state.processes.iter().filter(|process| process.alive).any(|process| {
        let components = process.health.report().components;
        components.iter().any(|component| {
            let reason = component.reason.as_deref().unwrap_or_default();
            component.name == name && reason.starts_with("halted")
        })
    })
}

/// Rule 9: a lane whose events were lost has halted, or decided again what clients were told before.
pub(crate) fn has_not_gone_back(state: &State, lane: usize, told: usize) -> Result<(), String> {
    if is_halted(state, lane) {
        return Ok(());
    }
    let now: BTreeMap<i64, Rc<Event>> = decisions_of(state, lane)
        .into_iter()
        .map(|decision| (decision.command, decision.event))
        .collect();
    for told in state.clients.told[..told].iter().filter(|told| told.lane == lane) {
        let command = told.event.command_offset;
        let same = |event: &Rc<Event>| {
            (&event.body, &event.hold, &event.lines) == (&told.event.body, &told.event.hold, &told.event.lines)
        };
        if !now.get(&command).is_some_and(same) {
            return Err(format!(
                "a client was told {} of command {command}; after events were lost the lane goes on and says {:?}",
                told.event.body.name(),
                now.get(&command).map(|event| event.body.name())
            ));
        }
    }
    Ok(())
}

/// Judges a settled story; the first broken promise is the answer.
pub(crate) fn judge(state: &State, host: &Host) -> Result<(), String> {
    if let Some(what) = unsettled(state) {
        return Err(format!("it settled, and then: {what}"));
    }
    let mut logs = Vec::new();
    for lane in 0..state.lanes {
        let decisions = decisions_of(state, lane);
        in_lane(state, host, lane, &decisions).map_err(|what| format!("lane {lane}: {what}"))?;
        logs.push(decisions);
    }
    told(state)?;
    between_lanes(state, &logs)
}

fn lane_of(lane: usize) -> Lane {
    Lane::new(i32::try_from(lane).expect("few lanes")).expect("few lanes")
}

/// The valid decisions of a lane, by a fold of the judge's own.
fn decisions_of(state: &State, lane: usize) -> Vec<Decision> {
    let mut fold = LaneState::default();
    let mut decisions = Vec::new();
    for (offset, record) in records(&state.kafka.events[lane]) {
        let Some(stamp) = record.stamp else { continue };
        if let (Verdict::Valid, Stamp::Decision { command, previous, .. }) = (fold.fold(offset, stamp), stamp) {
            decisions.push(Decision {
                offset,
                command,
                previous,
                event: state.decode(record),
            });
        }
    }
    decisions
}

fn records(partition: &Partition) -> impl Iterator<Item = (i64, &Rc<Record>)> {
    let numbered = partition.slots.iter().zip(0..);
    numbered.filter_map(|(slot, offset)| Some((offset, slot.as_ref()?)))
}

/// I1, I2, I4, I5, I6 and I8 of one lane.
fn in_lane(state: &State, host: &Host, lane: usize, decisions: &[Decision]) -> Result<(), String> {
    let commands = &state.kafka.commands[lane];
    let Some(script) = state.redis.original("apply") else {
        return if decisions.is_empty() {
            Ok(())
        } else {
            Err("decided without the script".to_owned())
        };
    };
    let lanes = u16::try_from(state.lanes).expect("few lanes");
    let mut oracle = Oracle::new(host, script, state.codec(), lane_of(lane), lanes);
    let (mut ledger, mut last) = (Ledger::default(), -1);
    for decision in decisions {
        let Decision { command, event, .. } = decision;
        // One decision per command, in order, none left out.
        let skipped = (last + 1..*command).find(|offset| commands.record(*offset).is_some());
        if let Some(skipped) = skipped {
            return Err(format!("command {skipped} has no valid event"));
        }
        if decision.previous != last {
            return Err(format!(
                "command {command} was decided after {}, and not after {last}",
                decision.previous
            ));
        }
        let record = commands.record(*command);
        if record.is_none() && event.body != EventBody::OffsetsSkipped {
            return Err(format!("there is no command {command}, and yet {:?}", event.body));
        }
        if record.is_some() && event.body == EventBody::OffsetsSkipped {
            return Err(format!("command {command} was taken for a hole"));
        }
        let expected = oracle.decide(*command, record.map(|record| &**record), event)?;
        if expected != **event {
            return Err(differs(decision, &expected));
        }
        ledger.apply(event).map_err(|contradiction| contradiction.to_string())?;
        last = *command;
    }
    if let Some((offset, _)) = records(commands).find(|(offset, _)| *offset > last) {
        return Err(format!("command {offset} has no valid event"));
    }
    for (place, stock) in &ledger.stock {
        if stock.held + stock.allocated > stock.on_hand {
            return Err(format!("{place:?} is oversold: {stock:?}"));
        }
    }
    let picture = &state.postgres.lanes[lane];
    if picture.ledger != ledger {
        return Err("Postgres is not the fold of the log".to_owned());
    }
    redis_agrees(state, lane, &oracle)
}

fn differs(decision: &Decision, expected: &Event) -> String {
    let Decision {
        offset, command, event, ..
    } = decision;
    if event.body == expected.body {
        return format!(
            "event {offset} of command {command}, {}: {:?} {:?}, and not {:?} {:?}",
            event.body.name(),
            event.lines,
            event.hold,
            expected.lines,
            expected.hold
        );
    }
    format!(
        "event {offset} of command {command} says {:?}, and not {:?}",
        event.body, expected.body
    )
}

/// The lane in Redis is what the log says, and nothing of older generations is left.
fn redis_agrees(state: &State, lane: usize, oracle: &Oracle<'_>) -> Result<(), String> {
    let keys = LaneKeys::new("hf", lane_of(lane));
    let data = state.redis.data();
    let base = keys.lane();
    let Some(generation) = picture::generation_of(data, &base) else {
        return Err("Redis has no generation of it, or it is building".to_owned());
    };
    let log_time = state.kafka.events[lane].fold.log_time;
    let found = picture::seen(data, &base, generation, log_time);
    let mut expected = picture::seen(&oracle.data, &base, GENERATION, log_time);
    // A part that was lost shows to the next record of its cart, and perhaps there is none.
    let own = format!("{}{generation}:", base.trim_end_matches("lane"));
    let unseen = |name: &String| name.starts_with("part:") && state.redis.lost.contains(&format!("{own}{name}"));
    expected.retain(|name, _| found.contains_key(name) || !unseen(name));
    if found != expected {
        return Err(format!(
            "Redis is not the fold of the log: {}",
            difference(&found, &expected)
        ));
    }
    Ok(())
}

fn difference(found: &BTreeMap<String, Seen>, expected: &BTreeMap<String, Seen>) -> String {
    let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let first = names.into_iter().find(|name| found.get(*name) != expected.get(*name));
    first.map_or_else(String::new, |name| {
        format!("{name} is {:?}, and not {:?}", found.get(name), expected.get(name))
    })
}

/// I2: whatever a client was told is a valid event.
fn told(state: &State) -> Result<(), String> {
    for told in &state.clients.told {
        let record = state.kafka.events[told.lane].record(told.event_offset);
        if record.is_none_or(|record| record.verdict != Verdict::Valid) {
            return Err(format!(
                "a client was told {} by the void event {} of lane {}",
                told.event.body.name(),
                told.event_offset,
                told.lane
            ));
        }
    }
    Ok(())
}

/// Copies and relay records go where a valid event sends them, all of them, and no others do.
fn between_lanes(state: &State, logs: &[Vec<Decision>]) -> Result<(), String> {
    let topic = Topics::with_prefix("").commands;
    let mut arrived: Vec<(usize, Command)> = Vec::new();
    for lane in 0..state.lanes {
        for (_, record) in records(&state.kafka.commands[lane]) {
            let command = record
                .value
                .as_ref()
                .and_then(|value| state.codec().decode_command(value).ok());
            arrived.extend(command.map(|command| (lane, command)));
        }
    }
    let mut relayed: Vec<(usize, CommandBody)> = Vec::new();
    for (lane, decisions) in logs.iter().enumerate() {
        for decision in decisions {
            for forward in relay::forwards(lane_of(lane), &decision.event) {
                let to = usize::from(forward.lane.number());
                if !arrived
                    .iter()
                    .any(|(at, command)| *at == to && command.body == forward.body)
                {
                    return Err(format!(
                        "{} of event {} of lane {lane} was never sent",
                        forward.body.name(),
                        decision.offset
                    ));
                }
                relayed.push((to, forward.body));
            }
            if let EventBody::CommandForwarded { to_lane } = decision.event.body {
                let is_copy = |command: &Command| {
                    command.source.as_ref().is_some_and(|source| {
                        source.topic == topic
                            && usize::try_from(source.partition) == Ok(lane)
                            && source.offset == decision.command
                    })
                };
                let to = usize::try_from(to_lane).expect("a lane");
                if !arrived.iter().any(|(at, command)| *at == to && is_copy(command)) {
                    return Err(format!(
                        "command {} of lane {lane} was never forwarded",
                        decision.command
                    ));
                }
            }
        }
    }
    for (lane, command) in &arrived {
        let is_relay = matches!(
            command.body,
            CommandBody::Relay { .. }
                | CommandBody::RelayDone { .. }
                | CommandBody::RelayFailed { .. }
                | CommandBody::Follow { .. }
        );
        if is_relay && !relayed.iter().any(|(to, body)| to == lane && *body == command.body) {
            return Err(format!(
                "{} came to lane {lane}, and no valid event sent it",
                command.body.name()
            ));
        }
        if let Some(source) = &command.source {
            let from = usize::try_from(source.partition).expect("a lane");
            let sent = logs[from].iter().any(|decision| {
                decision.command == source.offset && matches!(decision.event.body, EventBody::CommandForwarded { .. })
            });
            if !sent {
                return Err(format!(
                    "a copy of command {} of lane {from} came, and no valid event sent it",
                    source.offset
                ));
            }
        }
    }
    Ok(())
}
