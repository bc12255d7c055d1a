//! Bytes of strangers: golden examples with bytes changed, cut, doubled and spliced. Whatever comes is decoded or refused, never
//! a panic, never an endless allocation; and what is decoded survives being written and read again.
//!
//! Each run has another seed, which a failure prints. By hand, for as long as it seems right:
//! `HOLDFAST_FUZZ_SECONDS=3600 cargo test --release -p schemas --test it -- fuzz --nocapture`, and with a seed that failed:
//! `HOLDFAST_FUZZ_SEED=...`.

use std::time::{Duration, Instant};

use domain::{HoldId, Key, LaneState, Sku, Stamp, Tenant, Text, Verdict};
use schemas::{Codec, Registry};

/// splitmix64: enough to roll dice.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end.max(1) as u64).expect("it is below")
    }
}

/// Numbers at the edges, as Avro's variable-length zigzag would have to hold them, and as text.
const EDGES: [&[u8]; 8] = [
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xfe, 0xff, 0xff, 0xff, 0x0f],
    &[0xff; 12],
    &[0x80; 12],
    &[0x01],
    &[0x00],
    b"-9223372036854775808",
    b"\xf0\x9f\x8d\xba",
];

/// One to eight changes.
fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..=dice.below(8) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).expect("a byte"),
            2 => bytes.truncate(at),
            3 => {
                let edge = EDGES[dice.below(EDGES.len())];
                let end = (at + dice.below(edge.len() + 1)).min(bytes.len());
                bytes.splice(at..end, edge.iter().copied());
            }
            4 => {
                let other = &others[dice.below(others.len())];
                let from = dice.below(other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            5 => {
                let doubled = bytes[at..].to_vec();
                bytes.extend(doubled);
            }
            _ => {
                let end = (at + dice.below(4)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
        bytes.truncate(100_000);
    }
}

/// As long as the environment says; a few seconds where it says nothing.
fn rounds(mut one: impl FnMut(&mut Dice)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let patience = Duration::from_secs(number("HOLDFAST_FUZZ_SECONDS").unwrap_or(3));
    let (fixed, begun) = (number("HOLDFAST_FUZZ_SEED"), Instant::now());
    let mut seed = fixed.unwrap_or_else(|| plumbing::id::random().as_u64_pair().0);
    loop {
        let told = SeedOfFailure(seed);
        one(&mut Dice(seed));
        std::mem::forget(told);
        seed = seed.wrapping_add(1);
        if fixed.is_some() || begun.elapsed() > patience {
            break;
        }
    }
}

/// Says its seed when a panic passes.
struct SeedOfFailure(u64);

impl Drop for SeedOfFailure {
    fn drop(&mut self) {
        eprintln!("HOLDFAST_FUZZ_SEED={}", self.0);
    }
}

fn examples(kind: &str) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .expect("the examples")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            name.starts_with(kind) && name.ends_with(".avro")
        })
        .collect();
    found.sort();
    assert!(found.len() > 10, "{kind}");
    found.iter().map(|path| std::fs::read(path).expect("bytes")).collect()
}

/// The frame of the golden examples names this id.
fn codec(examples: &[Vec<u8>]) -> Codec {
    let id = u32::from_be_bytes(examples[0][1..5].try_into().expect("a frame"));
    let nobody = Registry::new("http://127.0.0.1:1").expect("a URL");
    Codec::with_ids(nobody, id, id)
}

/// Whatever decodes must be the same after it was encoded and decoded again.
fn fuzz_records<T: PartialEq + std::fmt::Debug>(
    kind: &str,
    decode: fn(&Codec, &[u8]) -> Option<T>,
    encode: fn(&Codec, &T) -> Vec<u8>,
) {
    let examples = examples(kind);
    let codec = codec(&examples);
    let mut decoded = 0_u64;
    rounds(|dice| {
        let mut bytes = examples[dice.below(examples.len())].clone();
        if dice.below(10) > 0 {
            mutate(dice, &mut bytes, &examples);
        }
        if let Some(record) = decode(&codec, &bytes) {
            let again = decode(&codec, &encode(&codec, &record));
            assert_eq!(again.as_ref(), Some(&record), "{bytes:02x?}");
            decoded += 1;
        }
    });
    assert!(decoded > 0, "a fuzzer that decodes nothing tries nothing");
}

#[test]
fn fuzz_commands() {
    fuzz_records(
        "command-",
        |codec, bytes| codec.decode_command(bytes).ok(),
        Codec::encode_command,
    );
}

#[test]
fn fuzz_events() {
    fuzz_records(
        "event-",
        |codec, bytes| codec.decode_event(bytes).ok(),
        Codec::encode_event,
    );
}

#[test]
fn fuzz_ids_and_texts() {
    let seeds: Vec<Vec<u8>> = [
        "0010f0f4-2d7a-8c51-9a3e-5d0a1b2c3d4e",
        "TICKET-1",
        "default",
        "order 4711",
        "a~b._-",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    rounds(|dice| {
        let mut bytes = seeds[dice.below(seeds.len())].clone();
        mutate(dice, &mut bytes, &seeds);
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(sku) = Sku::parse(&text) {
            assert!(!sku.as_str().contains(['{', '}', ':', '/', ' ']) && sku.as_str().len() <= 64);
        }
        if let Ok(hold_id) = HoldId::parse(&text) {
            assert_eq!(HoldId::parse(&hold_id.to_string()), Ok(hold_id));
        }
        if let Ok(key) = Key::parse("key", &text) {
            assert!(key.as_str().bytes().all(|byte| byte.is_ascii_graphic()) && key.as_str().len() <= 255);
        }
        let _texts = (Tenant::parse(&text), Text::parse("text", &text));
    });
}

#[test]
fn fuzz_the_fold() {
    rounds(|dice| {
        let mut state = LaneState::default();
        let mut offset = 0_i64;
        for _ in 0..64 {
            let before = state;
            let near = |dice: &mut Dice, value: i64| match dice.below(8) {
                0 => i64::MIN,
                1 => i64::MAX,
                2 => -1,
                roll => value.saturating_add(i64::try_from(roll).expect("small") - 5),
            };
            let stamp = match dice.below(6) {
                0 => Stamp::Opened,
                _ => Stamp::Decision {
                    epoch: near(dice, state.epoch),
                    command: near(dice, state.last_command_offset),
                    previous: near(dice, state.last_command_offset),
                    time: near(dice, state.log_time),
                },
            };
            let verdict = state.fold(offset, stamp);
            // Whatever the log holds: nothing goes back, and what is void changes nothing.
            assert!(
                state.last_command_offset >= before.last_command_offset
                    && state.epoch >= before.epoch
                    && state.log_time >= before.log_time,
                "{before:?} {stamp:?} {state:?}"
            );
            assert!(
                verdict != Verdict::Void || state == before,
                "{before:?} {stamp:?} {state:?}"
            );
            offset += 1 + i64::try_from(dice.below(3)).expect("small");
        }
    });
}
