//! The short torture: processes killed, paused, added and removed, and Redis' keys lost, under load from HTTP and Kafka; and a
//! process killed at every fail point.

use std::{collections::BTreeSet, path::Path};

use holdfast::torture::POINTS;
use serde_json::Value;

use crate::world::{Setup, play, times};

/// Tortures, and returns the report: nothing may have been violated.
async fn torture(arguments: &[&str]) -> Value {
    let world = Setup::new().unprepared();
    let logs = world.log_of("torture");
    let logs = logs.parent().expect("a folder").display().to_string();
    let all = [&["torture", "--json", "--logs", &logs][..], arguments].concat();
    let (code, out, error) = world.run(&all).await;
    assert_eq!(code, 0, "{out}{error}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert!(report["decided"].as_u64() > Some(100), "{report:#}");
    report
}

#[test]
fn tortured_for_a_while_the_system_keeps_every_promise() {
    play(async {
        // More than the longest fault: a process is paused for up to 40 s.
        let seconds = times(60, 300).to_string();
        let report = torture(&["--plan", "roles", "--seconds", &seconds, "--seed", "4"]).await;
        let faults = report["faults"].as_array().map_or(0, Vec::len);
        // Each lasts as long as it lasts, so how many more there are is the machine's affair.
        assert!(faults > 0, "{report:#}");
    });
}

/// Each fail point once, in four systems side by side: a reserver or persister that died is believed to live for six seconds.
#[test]
fn a_process_killed_between_any_two_steps_changes_nothing() {
    let rounds = times(1, 20);
    play(async {
        let killed_at = async |prefixes: &[&str]| {
            let rounds = rounds.to_string();
            let mut arguments = vec!["--plan", "points", "--buyers", "2", "--rounds", &rounds];
            arguments.extend(prefixes.iter().flat_map(|prefix| ["--point", *prefix]));
            let report = torture(&arguments).await;
            report["faults"].as_array().map_or(0, Vec::len)
        };
        let killed = tokio::join!(
            killed_at(&["reserver.", "producer."]),
            killed_at(&["forwards."]),
            killed_at(&["rebuild.", "ingress."]),
            killed_at(&["persister.", "expirer."]),
        );
        assert_eq!(killed.0 + killed.1 + killed.2 + killed.3, POINTS.len() * rounds);
    });
}

/// A point that is in no list is passed by no test.
#[test]
fn every_fail_point_of_the_tortured_roles_is_in_the_list() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut found = BTreeSet::new();
    for sources in [
        "ingress/src",
        "reserver/src",
        "persister/src",
        "expirer/src",
        "plumbing/src/kafka",
    ] {
        collect(&root.join(sources), &mut found);
    }
    let listed: BTreeSet<String> = POINTS.iter().map(|point| point.name.to_owned()).collect();
    assert_eq!(found, listed);
    assert!(listed.len() >= 30 && listed.len() == POINTS.len());
}

fn collect(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let names = text.split("failpoint::reach(\"").skip(1);
            found.extend(names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
}
