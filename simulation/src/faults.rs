//! What goes wrong in a story: the weather that every message travels through, and blows that fall at a time.
//!
//! A seed draws few kinds of faults and then many of them, rather than a little of everything: rules fail in combinations.

use crate::{
    chance::Chance,
    plot::Family,
    redis::Harm,
    state::{Event, MS, Micros, SECOND, State},
};

/// How produced records fare, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Produce {
    pub(crate) unanswered: u64,
    pub(crate) dropped: u64,
    pub(crate) late: u64,
    pub(crate) twice: u64,
}

/// What may happen to any message, in thousandths unless it says otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) produce: Produce,
    /// Readers' fetches take so many times as long.
    pub(crate) reader_lag: u64,
    /// A reading misses a command.
    pub(crate) misses: u64,
    pub(crate) redis_hangs: u64,
    pub(crate) replies_lost: u64,
    /// Redis' memory is nearly full.
    pub(crate) full: bool,
    /// Redis says that its memory is nearly full, whoever asks.
    pub(crate) seems_full: u64,
    /// How far the broker's clock goes back, in milliseconds.
    pub(crate) clock_jitter_ms: u64,
    pub(crate) commit_failed: u64,
    pub(crate) commit_unknown: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) fn fair() -> Self {
        Self {
            produce: Produce::default(),
            reader_lag: 1,
            misses: 0,
            redis_hangs: 0,
            replies_lost: 0,
            full: false,
            seems_full: 0,
            clock_jitter_ms: 0,
            commit_failed: 0,
            commit_unknown: 0,
        }
    }

    /// Each kind of bad weather in some stories, and there often.
    pub(crate) fn drawn(chance: &mut Chance) -> Self {
        let mut sometimes = |one_in: u64, high: u64| {
            if chance.below(one_in) == 0 {
                chance.from(1, high)
            } else {
                0
            }
        };
        Self {
            produce: Produce {
                unanswered: sometimes(4, 60),
                dropped: sometimes(4, 60),
                late: sometimes(4, 60),
                twice: sometimes(4, 60),
            },
            reader_lag: 1 + sometimes(4, 20),
            misses: sometimes(5, 40),
            redis_hangs: sometimes(5, 30),
            replies_lost: sometimes(4, 60),
            full: false,
            seems_full: sometimes(3, 500),
            clock_jitter_ms: sometimes(3, 2_000),
            commit_failed: sometimes(3, 200),
            commit_unknown: sometimes(3, 200),
        }
    }
}

impl Weather {
    /// The weather of a story, by the family of its plot.
    pub(crate) fn of(chance: &mut Chance, family: Option<Family>) -> Self {
        let mut weather = if family.is_some() && chance.permille(500) {
            Self::fair()
        } else {
            Self::drawn(chance)
        };
        if family.is_some() {
            // Two owners may decide one command differently: one of them because Redis seemed full to it.
            weather.seems_full = chance.one_of(&[0, 500, 1_000, 1_000]);
        }
        if family == Some(Family::LostSkip) && chance.permille(500) {
            // A hole that is none: the reading has missed what is there.
            weather.misses = 200;
        }
        weather
    }
}

/// A blow.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Redis(Harm),
    /// Redis' memory fills, or is free again.
    Fill,
    /// A process dies on the spot.
    Kill,
    /// This one does.
    KillOf(usize),
    /// What a plot has held back arrives.
    Release,
    /// A process is told to end.
    End,
    /// A process is stopped by a signal, and goes on after a while.
    Pause,
    /// The group gives lanes to others.
    Regroup,
    /// Kafka does not answer for a while.
    KafkaDown,
    PostgresDown,
    /// Offsets of a commands partition that hold no record.
    Hole,
    /// The logs' beginnings are deleted, as far as nobody needs them.
    Retention,
    /// Rule 9: everybody dies, and a commands partition comes back without its last records.
    CutCommands,
    /// Rule 9: everybody dies, and commands that nobody has decided are deleted.
    LoseCommands,
    /// The same of an events partition.
    LoseEvents,
    /// The weather turns fair, and everybody is there.
    Heal,
    /// One more command for every SKU.
    Nudge,
    /// A look whether everything has settled.
    Look,
}

/// The kinds of blows that a story may draw, with how often each is drawn.
fn kinds(chance: &mut Chance) -> Vec<Fault> {
    let lost = 1 + chance.index(8);
    let all = [
        Fault::Redis(Harm::Restart(lost)),
        Fault::Redis(Harm::SetBack(lost)),
        Fault::Redis(Harm::Flush),
        Fault::Redis(Harm::Failover(lost)),
        Fault::Redis(Harm::FailBack),
        Fault::Redis(Harm::CutConnections),
        Fault::Redis(Harm::FlushScripts),
        Fault::Redis(Harm::CutScript(9)),
        Fault::Redis(Harm::LoseKey),
        Fault::Fill,
        Fault::Kill,
        Fault::End,
        Fault::Pause,
        Fault::Regroup,
        Fault::KafkaDown,
        Fault::PostgresDown,
        Fault::Hole,
        Fault::Retention,
    ];
    let wanted = 1 + chance.index(6);
    let mut kinds: Vec<Fault> = (0..wanted).map(|_| chance.one_of(&all)).collect();
    // A fail back without another instance is nothing.
    if kinds.iter().any(|kind| matches!(kind, Fault::Redis(Harm::FailBack))) {
        kinds.push(Fault::Redis(Harm::Failover(lost)));
    }
    kinds
}

impl State {
    /// Puts the blows of a story on the agenda; they end with the healing.
    pub(crate) fn plan_faults(&mut self, until: Micros, most: u64) {
        let kinds = kinds(&mut self.chance);
        let blows = 1 + self.chance.below(most);
        for _ in 0..blows {
            let at = self.chance.from(300 * MS, until);
            let fault = match self.chance.one_of(&kinds) {
                Fault::Redis(Harm::Restart(most)) => Fault::Redis(Harm::Restart(self.chance.index(most + 1))),
                Fault::Redis(Harm::SetBack(most)) => Fault::Redis(Harm::SetBack(1 + self.chance.index(most))),
                Fault::Redis(Harm::Failover(most)) => Fault::Redis(Harm::Failover(self.chance.index(most + 1))),
                Fault::Redis(Harm::CutScript(most)) => Fault::Redis(Harm::CutScript(self.chance.from(1, most))),
                other => other,
            };
            self.at(at, Event::Fault(fault));
        }
    }

    /// A process that lives and is not paused, if there is one.
    fn somebody(&mut self) -> Option<usize> {
        let able: Vec<usize> = (0..self.processes.len())
            .filter(|at| self.processes[*at].alive && self.processes[*at].paused_until <= self.now)
            .collect();
        (!able.is_empty()).then(|| self.chance.one_of(&able))
    }

    /// Carries out what needs no thread to end; the rest is done by whoever has the threads (`play`).
    pub(crate) fn befall(&mut self, fault: Fault) {
        tracing::debug!(target: "story", ms = self.now / MS, ?fault, "fault");
        match fault {
            Fault::Redis(harm) => self.harm_redis(harm),
            Fault::Fill => self.weather.full = !self.weather.full,
            Fault::Pause => {
                if let Some(process) = self.somebody() {
                    let longest = self.chance.one_of(&[SECOND, 6 * SECOND, 15 * SECOND]);
                    let pause = self.chance.from(50 * MS, longest);
                    self.pause(process, pause);
                    let noticed = self.chance.from(500 * MS, 6 * SECOND);
                    self.after(noticed, Event::Fault(Fault::Regroup));
                }
            }
            Fault::Regroup => self.regroup(),
            Fault::KafkaDown => {
                let away = self.chance.from(100 * MS, 12 * SECOND);
                self.kafka.down_until = self.kafka.down_until.max(self.now + away);
            }
            Fault::PostgresDown => {
                let away = self.chance.from(SECOND, 12 * SECOND);
                self.postgres.down_until = self.postgres.down_until.max(self.now + away);
            }
            Fault::Hole => {
                let (lane, width) = (self.chance.index(self.lanes), 1 + self.chance.index(3));
                self.kafka.commands[lane].slots.extend((0..width).map(|_| None));
            }
            Fault::Retention => self.delete_old(),
            Fault::Nudge => self.nudge(),
            Fault::Release => self.release(),
            Fault::Kill
            | Fault::KillOf(_)
            | Fault::End
            | Fault::CutCommands
            | Fault::LoseCommands
            | Fault::LoseEvents
            | Fault::Heal
            | Fault::Look => {}
        }
    }

    /// Stops a process for a while.
    pub(crate) fn pause(&mut self, process: usize, pause: Micros) {
        self.processes[process].paused_until = self.now + pause;
        self.after(pause, Event::Assigned { process });
    }

    /// Whom a blow that ends a process falls on.
    pub(crate) fn victim(&mut self) -> Option<usize> {
        self.somebody()
    }

    /// The group gives every lane to some process that it believes to live.
    pub(crate) fn regroup(&mut self) {
        let members: Vec<usize> = (0..self.processes.len())
            .filter(|at| self.processes[*at].alive && self.processes[*at].paused_until <= self.now)
            .collect();
        if members.is_empty() {
            return;
        }
        for lane in 0..self.lanes {
            self.owners[lane] = self.chance.one_of(&members);
        }
        // Each hears of it in its own time, so that a lane has two owners for a while, or none.
        for process in members {
            let latency = self.chance.latency() * 4;
            self.after(latency, Event::Assigned { process });
        }
    }

    /// Deletes the logs' beginnings: events that Postgres and the forward cursor have passed, commands that are decided.
    fn delete_old(&mut self) {
        for lane in 0..self.lanes {
            let picture = self.postgres.lanes[lane]
                .checkpoint
                .map_or(0, |checkpoint| checkpoint.next_event_offset);
            let partition = i32::try_from(lane).expect("few lanes");
            let cursor = self.kafka.committed.get(&partition);
            let forwarded = cursor.map_or(0, |(next, _)| *next);
            // A command that must be forwarded is read again where its owner has died.
            let read = cursor
                .and_then(|(_, metadata)| metadata.split(' ').nth(3)?.parse().ok())
                .unwrap_or(-1);
            let events = &mut self.kafka.events[lane];
            events.low = events.low.max(picture.min(forwarded));
            let decided = events.fold.last_command_offset.min(read);
            let commands = &mut self.kafka.commands[lane];
            commands.low = commands.low.max((decided + 1).min(commands.last() + 1)).max(0);
        }
    }

    /// The weather turns fair; what was broken is whole.
    pub(crate) fn heal(&mut self) {
        self.weather = Weather::fair();
        self.kafka.down_until = self.now;
        self.postgres.down_until = self.now;
        self.redis.cut = None;
        self.plot.end();
        self.release();
        // One Redis is left, and whoever talks to another finds out.
        for instance in 0..self.redis.instances.len() {
            self.redis_ends(instance);
        }
        for process in &mut self.processes {
            process.paused_until = process.paused_until.min(self.now);
        }
    }
}
