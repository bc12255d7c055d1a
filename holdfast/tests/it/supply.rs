//! What is linked in: licences, sources and cryptography as deny.toml says, and no unsafe code of ours.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The texts in a list of deny.toml.
fn list(text: &str, name: &str) -> BTreeSet<String> {
    let (_, rest) = text.split_once(&format!("\n{name} = [")).expect("the list");
    let (inside, _) = rest.split_once(']').expect("its end");
    inside.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What the binary of this machine is linked from.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args([
            "--filter-platform",
            &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .current_dir(ROOT)
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes = all["resolve"]["nodes"].as_array().expect("nodes");
    let used: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let packages = all["packages"].as_array().expect("packages");
    let is_used = |package: &&Value| package["id"].as_str().is_some_and(|id| used.contains(id));
    packages.iter().filter(is_used).cloned().collect()
}

/// Whether a licence expression (SPDX, and the older slash) can be met.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    // Every package here joins alternatives by OR inside of an AND.
    plain.split(" AND ").all(|part| {
        let mut choices = part.split(" OR ").map(str::trim);
        choices.any(|choice| allowed.contains(choice))
    })
}

#[test]
fn licences_and_sources_are_those_of_deny_toml() {
    let rules = read("deny.toml");
    let (allowed, registries) = (list(&rules, "allow"), list(&rules, "allow-registry"));
    let packages = packages();
    assert!(packages.len() > 100, "{} packages", packages.len());
    for package in &packages {
        let text = |name: &str| package[name].as_str().unwrap_or_default();
        let name = text("name");
        assert!(is_met(text("license"), &allowed), "{name}: {}", text("license"));
        let from = text("source");
        let is_ours = from.is_empty();
        assert!(
            is_ours
                || from
                    .strip_prefix("registry+")
                    .is_some_and(|url| registries.contains(url)),
            "{name} comes from {from}"
        );
        assert!(
            !["aws-lc-sys", "native-tls", "openssl-sys"].contains(&name),
            "{name}: cryptography is rustls with ring"
        );
    }
}

#[test]
fn a_licence_is_met_by_any_of_its_choices_and_all_of_its_parts() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned()]);
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT/Apache-2.0", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("MIT AND GPL-3.0", false),
        ("", false),
    ] {
        assert_eq!(is_met(expression, &allowed), met, "{expression}");
    }
}

#[test]
fn no_crate_of_ours_may_hold_unsafe_code() {
    let workspace = read("Cargo.toml");
    assert!(workspace.contains("\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\n"));
    let (_, rest) = workspace.split_once("members = [").expect("members");
    let (inside, _) = rest.split_once(']').expect("their end");
    let members: Vec<&str> = inside.split('"').skip(1).step_by(2).collect();
    assert!(members.len() > 8);
    for member in members {
        let manifest = read(&format!("{member}/Cargo.toml"));
        assert!(
            manifest.contains("\n[lints]\nworkspace = true\n"),
            "{member} has the workspace's lints"
        );
    }
}
