//! Families of plots: the frame of one kind of trouble each; a seed draws the rest.

use super::{Beat, Deed, Script, Step, Who};
use crate::{
    chance::Chance,
    redis::Harm,
    state::{MS, Micros, SECOND},
};

/// Frames of plots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// A copy of Redis takes over at a step, and the old one comes back at another.
    SplitBrain,
    /// A request arrives long after its sender was replaced.
    LateRequest,
    /// Decisions arrive long after their sender was replaced, or has opened again.
    LateDecisions,
    /// A `LaneOpened` is slow while the owner before it goes on.
    LateOpening,
    /// Redis loses something in the midst of a rebuild.
    HurtRebuild,
    /// A step of a rebuild arrives after somebody else's rebuild.
    LateRebuild,
    /// A lane that was left half-way, and a late request on it.
    TornLane,
    /// A hole at a lane's end is closed, and nobody hears of it.
    LostSkip,
    /// Any beats.
    Any,
}

/// All of them. Every other story has a plot, and the seed says of which family.
pub(crate) const FAMILIES: [Family; 9] = [
    Family::SplitBrain,
    Family::LateRequest,
    Family::LateDecisions,
    Family::LateOpening,
    Family::HurtRebuild,
    Family::LateRebuild,
    Family::TornLane,
    Family::LostSkip,
    Family::Any,
];

fn beat(step: Step, who: Who, after: u64, deeds: Vec<Deed>) -> Beat {
    Beat {
        step,
        who,
        after,
        deeds,
    }
}

/// How long something is held when nobody releases it.
fn long(chance: &mut Chance) -> Micros {
    let longest = chance.one_of(&[SECOND, 4 * SECOND, 9 * SECOND]);
    chance.from(100 * MS, longest)
}

fn pass(chance: &mut Chance) -> Deed {
    let deaf = chance.one_of(&[MS, 300 * MS, 3 * SECOND]);
    Deed::Pass(deaf)
}

/// What takes an owner off the lane for a while, or for ever.
fn removal(chance: &mut Chance) -> Vec<Deed> {
    match chance.below(4) {
        0 => vec![Deed::Kill],
        1 => vec![Deed::Pause(long(chance)), pass(chance)],
        _ => vec![pass(chance)],
    }
}

/// How Redis goes back, or nothing.
fn setback(chance: &mut Chance) -> Vec<Deed> {
    let lost = 1 + chance.index(2);
    match chance.below(6) {
        0 => Vec::new(),
        1 => vec![Deed::Redis(Harm::Flush)],
        2 => vec![Deed::Redis(Harm::Restart(lost))],
        3 => vec![Deed::Redis(Harm::Failover(lost))],
        _ => vec![Deed::Redis(Harm::SetBack(lost))],
    }
}

impl Family {
    /// The family of a seed's plot; none: that story has no plot.
    pub(crate) fn of(seed: u64) -> Option<Self> {
        let at = usize::try_from(seed / 2).ok()? % FAMILIES.len();
        (seed % 2 == 1).then_some(FAMILIES[at])
    }

    /// The seeds of a family, in order.
    pub(crate) fn seeds(self) -> impl Iterator<Item = u64> {
        (0..).filter(move |seed| Self::of(*seed) == Some(self))
    }

    pub(super) fn beats(self, chance: &mut Chance) -> Vec<Beat> {
        let after = chance.below(4);
        match self {
            Self::SplitBrain => split_brain(chance, after),
            Self::LateRequest => late_request(chance, after),
            Self::LateDecisions => late_decisions(chance, after),
            Self::LateOpening => late_opening(chance, after),
            Self::HurtRebuild => hurt_rebuild(chance, after),
            Self::LateRebuild => late_rebuild(chance, after),
            Self::TornLane => torn_lane(chance, after),
            Self::LostSkip => lost_skip(chance, after),
            Self::Any => (0..1 + chance.below(4)).map(|_| any_beat(chance)).collect(),
        }
    }
}

fn split_brain(chance: &mut Chance, after: u64) -> Vec<Beat> {
    let lag = chance.index(3);
    let mut first = vec![Deed::Redis(Harm::Failover(lag))];
    first.extend(removal(chance));
    let mut last = vec![Deed::Redis(Harm::FailBack), Deed::Redis(Harm::CutConnections)];
    if chance.permille(300) {
        last.extend(removal(chance));
    }
    let who = chance.one_of(&[Who::Another, Who::Another, Who::Anybody]);
    vec![
        beat(Step::Ran(Script::Apply), Who::Anybody, after, first),
        beat(Step::Published, who, chance.below(2), last),
    ]
}

fn late_request(chance: &mut Chance, after: u64) -> Vec<Beat> {
    let script = chance.one_of(&[Script::Apply, Script::Apply, Script::Apply, Script::Claim]);
    let mut first = vec![Deed::Hold(long(chance))];
    first.extend(removal(chance));
    let mut last = match chance.below(2) {
        0 => vec![Deed::Redis(Harm::SetBack(1))],
        _ => setback(chance),
    };
    last.push(Deed::Release);
    let met = chance.one_of(&[Step::Published, Step::Published, Step::Ran(Script::Apply), Step::Opened]);
    vec![
        beat(Step::Asked(script), Who::Anybody, after, first),
        beat(met, Who::Another, chance.below(2), last),
    ]
}

fn late_decisions(chance: &mut Chance, after: u64) -> Vec<Beat> {
    let mut first = vec![Deed::Hold(long(chance))];
    first.extend(setback(chance));
    first.extend(removal(chance));
    if chance.permille(400) {
        // Whose they are opens the lane again itself.
        first = vec![Deed::Hold(long(chance)), Deed::Redis(Harm::Restart(1))];
    }
    let met = chance.one_of(&[
        Step::Ran(Script::Apply),
        Step::Ran(Script::Apply),
        Step::Opened,
        Step::Published,
    ]);
    vec![
        beat(Step::Publishing, Who::Anybody, after, first),
        beat(met, Who::Anybody, chance.below(2), vec![Deed::Release]),
    ]
}

fn late_opening(chance: &mut Chance, after: u64) -> Vec<Beat> {
    let mut last = vec![Deed::Release];
    last.extend(setback(chance));
    vec![
        beat(
            Step::Ran(Script::Apply),
            Who::Anybody,
            after,
            vec![Deed::Pass(5 * SECOND)],
        ),
        beat(Step::Opening, Who::Another, 0, vec![Deed::Hold(3 * SECOND)]),
        beat(Step::Published, Who::Another, chance.below(2), last),
    ]
}

/// What makes the lane be rebuilt.
fn ruin(chance: &mut Chance) -> Vec<Deed> {
    match chance.below(3) {
        0 => vec![Deed::Redis(Harm::SetBack(2))],
        1 => vec![Deed::Redis(Harm::Flush), Deed::Redis(Harm::CutConnections)],
        _ => vec![Deed::Redis(Harm::Restart(2))],
    }
}

fn hurt_rebuild(chance: &mut Chance, after: u64) -> Vec<Beat> {
    let script = chance.one_of(&[Script::Begin, Script::Load, Script::Load, Script::Finish]);
    let mut deeds = setback(chance);
    if deeds.is_empty() || chance.permille(200) {
        deeds.extend(removal(chance));
    }
    vec![
        beat(Step::Ran(Script::Apply), Who::Anybody, after, ruin(chance)),
        beat(Step::Ran(script), Who::Anybody, 0, deeds),
    ]
}

fn late_rebuild(chance: &mut Chance, after: u64) -> Vec<Beat> {
    let script = chance.one_of(&[Script::Begin, Script::Load, Script::Finish]);
    let mut held = vec![Deed::Hold(long(chance))];
    held.extend(removal(chance));
    let met = chance.one_of(&[
        Step::Ran(Script::Finish),
        Step::Ran(Script::Begin),
        Step::Ran(Script::Drop),
        Step::Ran(Script::Drop),
        Step::Published,
    ]);
    vec![
        beat(Step::Ran(Script::Apply), Who::Anybody, after, ruin(chance)),
        beat(Step::Asked(script), Who::Anybody, 0, held),
        beat(met, Who::Another, 0, vec![Deed::Release]),
    ]
}

fn torn_lane(chance: &mut Chance, after: u64) -> Vec<Beat> {
    let writes = chance.from(1, 9);
    vec![
        beat(
            Step::Asked(Script::Apply),
            Who::Anybody,
            after,
            vec![Deed::Hold(long(chance)), pass(chance)],
        ),
        beat(
            Step::Asked(Script::Apply),
            Who::Another,
            chance.below(2),
            vec![Deed::Redis(Harm::CutScript(writes))],
        ),
        beat(Step::Torn, Who::Anybody, 0, vec![Deed::Release]),
    ]
}

fn lost_skip(chance: &mut Chance, after: u64) -> Vec<Beat> {
    let mut deeds = removal(chance);
    if chance.permille(300) {
        deeds.push(Deed::Hole);
    }
    if chance.permille(300) {
        deeds.extend(setback(chance));
    }
    let mut beats = vec![
        beat(Step::Ran(Script::Apply), Who::Anybody, after, vec![Deed::Hole]),
        beat(Step::Skipped, Who::Anybody, 0, deeds),
    ];
    if chance.permille(500) {
        beats.push(beat(Step::Publishing, Who::Anybody, 0, vec![Deed::Lose]));
    }
    beats
}

fn any_beat(chance: &mut Chance) -> Beat {
    use Script::{Apply, Begin, Claim, Drop, Finish, Load};
    let scripts = [Apply, Apply, Apply, Claim, Claim, Begin, Load, Finish, Drop];
    let script = chance.one_of(&scripts);
    let step = chance.one_of(&[
        Step::Asked(script),
        Step::Ran(script),
        Step::Ran(script),
        Step::Torn,
        Step::Opening,
        Step::Opened,
        Step::Publishing,
        Step::Published,
    ]);
    let mut deeds = Vec::new();
    for _ in 0..1 + chance.below(3) {
        let more = match chance.below(8) {
            0 | 1 => vec![Deed::Hold(long(chance))],
            2 => vec![Deed::Release],
            3 => vec![Deed::Lose],
            4 | 5 => removal(chance),
            6 => vec![Deed::Redis(chance.one_of(&[
                Harm::FailBack,
                Harm::CutConnections,
                Harm::FlushScripts,
                Harm::LoseKey,
            ]))],
            _ => setback(chance),
        };
        deeds.extend(more);
    }
    let who = chance.one_of(&[Who::Anybody, Who::Anybody, Who::Another]);
    beat(step, who, chance.below(4), deeds)
}
