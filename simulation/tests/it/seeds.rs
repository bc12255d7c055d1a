//! Stories by their seeds.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use simulation::{Stage, play};

/// Stories in `./test`; `./test --full` plays ten times as many.
fn wanted() -> u64 {
    let full = std::env::var_os("HOLDFAST_TEST_FULL").is_some();
    let named = std::env::var("HOLDFAST_SEEDS").ok().and_then(|text| text.parse().ok());
    named.unwrap_or(if full { 100_000 } else { 10_000 })
}

#[test]
fn ten_thousand_stories_keep_every_promise() {
    let (wanted, next, broken) = (wanted(), AtomicU64::new(0), Mutex::new(Vec::new()));
    let (decided, void, turns) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let play_some = || {
        let mut stage = Stage::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= wanted {
                return;
            }
            let ending = play(&mut stage, seed, None);
            decided.fetch_add(ending.decided, Ordering::Relaxed);
            void.fetch_add(ending.void, Ordering::Relaxed);
            turns.fetch_add(ending.turns, Ordering::Relaxed);
            if let Some(violation) = ending.violation {
                broken.lock().expect("nobody panics").push((seed, violation));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(play_some);
        }
    });
    let mut broken = broken.into_inner().expect("nobody panics");
    broken.sort();
    println!(
        "{wanted} stories: {} valid decisions, {} void ones, {} turns",
        decided.into_inner(),
        void.into_inner(),
        turns.into_inner()
    );
    let shown: Vec<String> = broken
        .iter()
        .take(10)
        .map(|(seed, violation)| format!("seed {seed}: {violation}\n  again: cargo run -p simulation -- --seed {seed}"))
        .collect();
    assert!(
        broken.is_empty(),
        "{} stories broke a promise:\n{}",
        broken.len(),
        shown.join("\n")
    );
}

#[test]
fn a_seed_is_the_same_story_every_time() {
    let (mut stage, mut another) = (Stage::new(), Stage::new());
    for seed in 0..50 {
        assert_eq!(
            play(&mut stage, seed, None),
            play(&mut another, seed, None),
            "seed {seed}"
        );
    }
}
