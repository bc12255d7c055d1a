//! The short torture: processes killed, paused, added and removed, and Redis' keys lost, under load from HTTP and Kafka.

use serde_json::Value;

use crate::world::{Setup, play, times};

#[test]
fn tortured_for_a_while_the_system_keeps_every_promise() {
    play(async {
        let world = Setup::new().unprepared();
        let logs = world.log_of("torture");
        let seconds = times(20, 300).to_string();
        let arguments = [
            "torture",
            "--plan",
            "roles",
            "--seconds",
            &seconds,
            "--seed",
            "7",
            "--json",
        ];
        let logs = logs.parent().expect("a folder").display().to_string();
        let (code, out, error) = world.run(&[&arguments[..], &["--logs", &logs]].concat()).await;
        assert_eq!(code, 0, "{out}{error}");
        let report: Value = serde_json::from_str(&out).expect("JSON");
        assert!(report["decided"].as_u64() > Some(100), "{report:#}");
        assert!(
            report["faults"].as_array().is_some_and(|faults| faults.len() > 2),
            "{report:#}"
        );
    });
}
