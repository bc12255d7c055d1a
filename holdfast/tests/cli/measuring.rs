//! `bench`: what it measures is there, its worlds are verified, and it cleans up behind itself.

use serde_json::Value;

use crate::world::{World, err, holdfast, out};

#[tokio::test(flavor = "multi_thread")]
async fn a_short_bench_is_clean_and_leaves_nothing() {
    let connections = World::unprepared();
    let before = keys(&connections);
    let json = std::env::temp_dir().join(format!("holdfast-bench-{}/new/result.json", std::process::id()));
    let folder = std::env::temp_dir().join(format!("holdfast-report-{}", std::process::id()));
    let path = json.to_str().expect("a temporary path is text");
    let mut arguments =
        "bench --quick --seconds 1 --records 1000 --buyers 3000 --lanes 2 http-hot-64 storm log flat-lines"
            .split(' ')
            .collect::<Vec<_>>();
    // Folders are made.
    arguments.extend([
        "--json",
        path,
        "--report",
        folder.to_str().expect("a temporary path is text"),
    ]);
    let bench = holdfast(&connections, &arguments).await;
    assert!(bench.status.success(), "{}\n{}", err(&bench), out(&bench));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("it was written")).expect("JSON");
    std::fs::remove_file(&json).expect("it is there");
    let picture = std::fs::read_to_string(folder.join("flat-lines-cost.svg")).expect("it was drawn");
    assert_eq!(picture.matches("<circle").count(), 12, "six points of two curves");
    let page = std::fs::read_to_string(folder.join("README.md")).expect("it was written");
    assert!(
        page.contains("| storm | ") && page.contains("flat-lines-cost.svg"),
        "{page}"
    );
    std::fs::remove_dir_all(&folder).expect("it is there");
    let scenarios = report["scenarios"].as_array().expect("scenarios");
    let names: Vec<&str> = scenarios
        .iter()
        .filter_map(|scenario| scenario["name"].as_str())
        .collect();
    assert_eq!(names, ["http-hot-64", "storm", "storm-from-tail", "log", "persister"]);
    for scenario in scenarios {
        let name = &scenario["name"];
        assert!(scenario["per_second"].as_f64().expect("a rate") > 0.0, "{name}");
        assert_eq!(
            (&scenario["failures"], &scenario["differences"]),
            (&0.into(), &0.into()),
            "{name}"
        );
        assert!(scenario["cpu_us"]["load"].is_number(), "{name} lacks processor time");
    }
    for (index, from_tail) in [(1, false), (2, true)] {
        let storm = &scenarios[index]["rounds"][0];
        assert_eq!(storm["more"]["sold"], 1_000.0);
        assert!(storm["latency_ms"]["p99"].as_f64().expect("a latency") > 0.0);
        let refused = storm["more"]["refused from the tail's state"]
            .as_f64()
            .expect("a count");
        assert_eq!(refused > 0.0, from_tail, "{refused} were refused from the tail's state");
    }
    assert_eq!(keys(&connections), before, "keys are left in Redis");
}

fn keys(connections: &plumbing::config::Connections) -> Vec<String> {
    let mut redis = holdfast::redis_lane::connect(connections).expect("Redis answers");
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("bench*").query(&mut redis).expect("keys");
    keys.sort();
    keys
}
