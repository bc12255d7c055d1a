//! Mutants are found out by some story.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use simulation::{Mutant, Stage, play};

/// Stories that are looked through for each mutant: far more than those below have needed.
const STORIES: usize = 2_000;

#[test]
fn without_a_rule_some_story_breaks_a_promise() {
    let hunted: Vec<Mutant> = Mutant::hunted().collect();
    let (next, survivors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let hunt = || {
        let mut stage = Stage::new();
        while let Some(mutant) = hunted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = mutant
                .stories(STORIES)
                .find_map(|seed| Some((seed, play(&mut stage, seed, Some(*mutant)).violation?)));
            match found {
                Some((seed, violation)) => println!("{mutant}: seed {seed}: {violation}"),
                None => survivors.lock().expect("nobody panics").push(*mutant),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(hunt);
        }
    });
    let survivors = survivors.into_inner().expect("nobody panics");
    assert!(
        survivors.is_empty(),
        "{STORIES} stories do not need these rules: {survivors:?}"
    );
}
