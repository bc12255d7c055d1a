//! Fail points: a process that dies, as if killed, exactly where a test wants it to; or an engine that fails it there.
//!
//! `HOLDFAST_FAIL_POINT=name` ends the process the first time that it reaches the point of that name; `name:3` the third
//! time. Nothing is flushed and no destructor runs, as with SIGKILL. Unset, which is how everybody runs, a point costs one
//! atomic load. Compiled in always: what is tested is the binary that is shipped.
//!
//! Names are `<role>.<step>`, in the past tense of what has just happened: `checkout.intent_created`. (`producer.` is what
//! roles share.)

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// The variable that arms one point of a process.
pub const VARIABLE: &str = "HOLDFAST_FAIL_POINT";

#[derive(Debug)]
struct Armed {
    name: String,
    /// How many more times it is passed; the process ends when it would go below one.
    left: AtomicU64,
}

impl Armed {
    fn parse(text: &str) -> Option<Self> {
        let (name, left) = match text.rsplit_once(':') {
            Some((name, nth)) => (name, nth.parse().ok()?),
            None => (text, 1),
        };
        (!name.is_empty() && left > 0).then(|| Self {
            name: name.to_owned(),
            left: AtomicU64::new(left),
        })
    }

    /// Whether this is the time to end.
    fn is_due(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// Says that the process is here. It ends if this is the armed point.
pub fn reach(name: &str) {
    if is_due(name) {
        eprintln!("fail point {name}: the process ends here");
        std::process::abort();
    }
}

/// Says that the process is here, where an engine may fail it, and whether one does.
#[must_use]
pub fn fails(name: &str) -> bool {
    let fails = is_due(name);
    if fails {
        eprintln!("fail point {name}: an engine fails here");
    }
    fails
}

fn is_due(name: &str) -> bool {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty())?;
        let armed = Armed::parse(&text);
        if armed.is_none() {
            tracing::warn!("{VARIABLE} must be `name` or `name:nth`: it is ignored");
        }
        armed
    });
    armed.as_ref().is_some_and(|armed| armed.is_due(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_due_once_and_at_its_turn() {
        let third = Armed::parse("role.step:3").unwrap();
        let reached = ["role.step", "role.other", "role.step", "role.step", "role.step"];
        let due: Vec<_> = reached.iter().map(|name| third.is_due(name)).collect();
        assert_eq!(due, [false, false, false, true, false]);
        assert!(Armed::parse("role.step").unwrap().is_due("role.step"));
        for wrong in ["", ":1", "name:", "name:0", "name:x"] {
            assert!(Armed::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_unarmed_process_passes_every_point() {
        reach("nowhere.at_all");
        assert!(!fails("nowhere.at_all"));
    }
}
