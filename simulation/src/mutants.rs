//! Mutants: the protocol with one rule left out.
//!
//! The code of the roles knows nothing of them. A rule that stands in a script is cut out of the script's text; any other
//! rule is made void by a world that lies to it, in the one way that makes the rule say yes.

use crate::plot::{Family, is_named};

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// Rule 1: a decision counts though its epoch is not the current one.
    NoEpochInLog,
    /// Rule 1: a decision counts though it does not follow the last valid one.
    NoChain,
    /// Rule 2: the last decision is read before one's own record is written.
    DecidedBeforeOwned,
    /// Rule 3: the client connects again by itself and repeats what was not answered.
    ConnectAgain,
    /// Rule 4: claimed though the lane in Redis has a newer epoch.
    ClaimOlder,
    /// Rule 4: claimed though the lane was left half-way.
    ClaimBuilding,
    /// Rule 4: claimed though the lane is behind the log.
    ClaimBehind,
    /// Rule 4: claimed though somebody else made the last decision.
    ClaimStranger,
    /// Rule 4: a rebuild begins though a newer owner is there.
    BeginOlder,
    /// Rule 4: a chunk is loaded into the rebuild of another owner.
    LoadOlder,
    /// Rule 4: a rebuild ends though a chunk of it is gone.
    FinishWithoutChunks,
    /// Rule 4: the removal of older generations takes the present one, too.
    DropPresent,
    /// Rule 5: decided though another owner has claimed the lane.
    ApplyOlder,
    /// Rule 5: decided though the lane is building.
    ApplyBuilding,
    /// Rule 5: decided though the batch does not follow the fence.
    ApplyGap,
    /// Rule 5: what was decided is decided again, and not answered from the journal.
    NoJournal,
    /// Rule 5: a lane is not marked while it is written.
    NoMark,
    /// Rule 5: a hole that was closed unheard, and a command after it, are no damage.
    ClosedUnheard,
    /// Rule 5: a command at the lane's end that a reading missed is not read again.
    MissedAtEnd,
    /// Rule 5: a journal entry that is missing is no damage.
    MissingEntry,
    /// Rule 5: a stock key that is missing counts as an unknown SKU.
    MissingStock,
    /// Rule 5: a hold that is missing counts as an unknown hold.
    MissingHold,
    /// Rule 5: a hole between commands is believed at once.
    HolesAtOnce,
    /// Rule 6: an unknown result of a produce does not end the turn.
    GoOnAfterUnknown,
    /// Rule 6: after an unknown result the lane is opened again under the same epoch.
    SameEpochAgain,
    /// Rule 7: clients are answered on acknowledgement.
    AnswerOnAcknowledgement,
    /// Rule 7: the journal is trimmed on acknowledgement.
    TrimOnAcknowledgement,
    /// Rule 7: Postgres takes void decisions, too.
    RowsOfVoid,
    /// Rule 7: Postgres' rows are written though its checkpoint has moved.
    RowsWithoutFence,
    /// Rule 7: the forward cursor passes events whose copies are not acknowledged.
    CursorBeforeCopies,
    /// Rule 8: an owner goes on though a newer one has opened the lane.
    StayThoughReplaced,
    /// Rules 6 and 8: an owner goes on though a record of its own is void or its fate unknown.
    StayThoughVoid,
    /// Rules 3 and 5: nobody looks after a lane that is quiet.
    NeverLookAtQuietLane,
    /// Rule 4: both of `ClaimOlder` and `ClaimStranger`.
    ClaimByAnybody,
    /// Rule 5: both of `ApplyOlder` and `ApplyBuilding`.
    ApplyByAnybody,
    /// Rules 5 and 7: both of `TrimOnAcknowledgement` and `MissingEntry`.
    TrimUnread,
    /// Rule 9: an owner goes on though the commands' log ends before its last decision.
    GoOnWithCutCommands,
    /// Rule 9: an owner goes on though other commands stand where it had decided.
    GoOnWithOtherCommands,
    /// Rule 9: an owner goes on though the events' log ends before what Redis saw in it.
    GoOnWithLostEvents,
    /// Rule 9: an owner goes on though the commands were deleted before they were decided.
    GoOnWithLostCommands,
}

use Mutant as M;

/// A script's words, and what a mutant has instead of them.
type Cut = (&'static str, &'static str);

/// Trimmed is what else the world gives: what was acknowledged.
const TRIM_GIVEN: Cut = (
    "in_chunks('HDEL', journal_key, trim)",
    "for i = 3, #ARGV do trim[#trim + 1] = ARGV[i] end\nin_chunks('HDEL', journal_key, trim)",
);
const NO_ENTRY: Cut = (
    "damage('the journal has no entry of ' .. int(c[2]))",
    "error('no entry')",
);

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 40] = [
        M::NoEpochInLog,
        M::NoChain,
        M::DecidedBeforeOwned,
        M::ConnectAgain,
        M::ClaimOlder,
        M::ClaimBuilding,
        M::ClaimBehind,
        M::ClaimStranger,
        M::BeginOlder,
        M::LoadOlder,
        M::FinishWithoutChunks,
        M::DropPresent,
        M::ApplyOlder,
        M::ApplyBuilding,
        M::ApplyGap,
        M::NoJournal,
        M::NoMark,
        M::ClosedUnheard,
        M::MissedAtEnd,
        M::MissingEntry,
        M::MissingStock,
        M::MissingHold,
        M::HolesAtOnce,
        M::GoOnAfterUnknown,
        M::SameEpochAgain,
        M::AnswerOnAcknowledgement,
        M::TrimOnAcknowledgement,
        M::RowsOfVoid,
        M::RowsWithoutFence,
        M::CursorBeforeCopies,
        M::StayThoughReplaced,
        M::StayThoughVoid,
        M::NeverLookAtQuietLane,
        M::ClaimByAnybody,
        M::ApplyByAnybody,
        M::TrimUnread,
        M::GoOnWithCutCommands,
        M::GoOnWithOtherCommands,
        M::GoOnWithLostCommands,
        M::GoOnWithLostEvents,
    ];

    /// Rules that another rule makes up for: nothing is found without them, and something is without both
    /// (docs/SIMULATION.md says why).
    pub const COVERED: [(Self, Self); 3] = [
        (M::ClaimOlder, M::ClaimByAnybody),
        (M::ApplyBuilding, M::ApplyByAnybody),
        (M::MissingEntry, M::TrimUnread),
    ];

    /// All that stories find out.
    pub fn hunted() -> impl Iterator<Item = Self> {
        let is_covered = |mutant: &Self| Self::COVERED.iter().any(|(covered, _)| covered == mutant);
        Self::ALL.into_iter().filter(move |mutant| !is_covered(mutant))
    }

    /// The mutant of a name, as it is printed.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| mutant.to_string() == name)
    }

    /// Stories that may find it out, first those that are most likely to.
    pub fn stories(self, most: usize) -> impl Iterator<Item = u64> {
        let family = self.family();
        let seeds: Box<dyn Iterator<Item = u64>> = match family {
            Some(family) => Box::new(family.seeds()),
            None => Box::new(0..),
        };
        seeds.take(most)
    }

    /// The family of plots that is about what the rule is for.
    fn family(self) -> Option<Family> {
        Some(match self {
            M::ClaimStranger | M::ClaimOlder | M::ClaimByAnybody => Family::SplitBrain,
            M::ApplyOlder => Family::LateRequest,
            M::NoEpochInLog | M::TrimOnAcknowledgement | M::TrimUnread | M::SameEpochAgain => Family::LateDecisions,
            M::DecidedBeforeOwned => Family::LateOpening,
            M::FinishWithoutChunks => Family::HurtRebuild,
            M::BeginOlder | M::LoadOlder => Family::LateRebuild,
            M::ApplyBuilding | M::ApplyByAnybody => Family::TornLane,
            M::ClosedUnheard | M::MissedAtEnd => Family::LostSkip,
            _ => return None,
        })
    }

    /// The script that lacks the rule, what is cut from it, and what stands there instead.
    fn cut(self) -> Option<(&'static str, &'static [Cut])> {
        Some(match self {
            M::ClaimOlder => ("claim", &[("if owner >= epoch then", "if false then")]),
            M::ClaimBuilding => ("claim", &[("if lane[4] then", "if false then")]),
            M::ClaimBehind => ("claim", &[("if fence < decided then", "if false then")]),
            M::ClaimStranger => ("claim", &[("if owner < decision_epoch then", "if false then")]),
            M::BeginOlder => ("begin", &[("tonumber(owner) >= tonumber(ARGV[1])", "false")]),
            M::LoadOlder => (
                "load",
                &[("if lane[1] ~= ARGV[1] or not lane[2] then", "if false then")],
            ),
            M::FinishWithoutChunks => ("finish", &[(" or (lane[3] or '0') ~= ARGV[4]", "")]),
            M::DropPresent => ("drop", &[("tonumber(generation) < own", "true")]),
            M::ApplyOlder => ("apply", &[("lane[1] ~= ARGV[1] or lane[4]", "lane[4]")]),
            M::ApplyBuilding => ("apply", &[("lane[1] ~= ARGV[1] or lane[4]", "lane[1] ~= ARGV[1]")]),
            M::ApplyGap => ("apply", &[("previous ~= fence", "false")]),
            M::NoJournal => (
                "apply",
                &[("c[2] <= fence_before", "false"), ("previous ~= fence", "false")],
            ),
            M::NoMark => (
                "apply",
                &[(
                    "\nredis.call('HSET', KEYS[1], 'building', '1')\nfor _, of_tenant in pairs(stocks)",
                    "\nfor _, of_tenant in pairs(stocks)",
                )],
            ),
            M::ClosedUnheard => ("apply", &[("if previous < fence then", "if false then")]),
            M::MissingEntry => ("apply", &[NO_ENTRY]),
            M::MissingStock => ("apply", &[("redis.call('SISMEMBER', skus_key, name) == 1", "false")]),
            M::MissingHold => ("apply", &[("if count ~= holds_before then", "if false then")]),
            M::TrimOnAcknowledgement => ("apply", &[TRIM_GIVEN]),
            M::TrimUnread => ("apply", &[TRIM_GIVEN, NO_ENTRY]),
            M::ClaimByAnybody => (
                "claim",
                &[
                    ("if owner >= epoch then", "if false then"),
                    ("if owner < decision_epoch then", "if false then"),
                ],
            ),
            M::ApplyByAnybody => ("apply", &[("lane[1] ~= ARGV[1] or lane[4]", "false")]),
            M::SameEpochAgain => ("claim", &[("if owner >= epoch then", "if owner > epoch then")]),
            M::NoEpochInLog
            | M::NoChain
            | M::DecidedBeforeOwned
            | M::ConnectAgain
            | M::HolesAtOnce
            | M::MissedAtEnd
            | M::GoOnAfterUnknown
            | M::AnswerOnAcknowledgement
            | M::RowsOfVoid
            | M::RowsWithoutFence
            | M::CursorBeforeCopies
            | M::StayThoughReplaced
            | M::StayThoughVoid
            | M::NeverLookAtQuietLane
            | M::GoOnWithCutCommands
            | M::GoOnWithOtherCommands
            | M::GoOnWithLostEvents
            | M::GoOnWithLostCommands => return None,
        })
    }
}

impl std::fmt::Display for Mutant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// Said when a mutant no longer fits its script.
pub(crate) const CHANGED: &str = "change simulation/src/mutants.rs with the script";

/// A script as it is run: with its rule cut out, if the mutant's is in it.
///
/// # Panics
/// When the script does not have the words that the mutant cuts: they changed, and the mutant must change with them.
pub(crate) fn script(mutant: Option<Mutant>, text: &str) -> String {
    let Some((name, cuts)) = mutant.and_then(Mutant::cut) else {
        return text.to_owned();
    };
    if !is_named(text, name) {
        return text.to_owned();
    }
    let mut script = text.to_owned();
    for (words, instead) in cuts {
        let found = script.matches(words).count();
        assert_eq!(found, 1, "{name}.lua must have `{words}` once: {CHANGED}");
        script = script.replace(words, instead);
    }
    script
}
