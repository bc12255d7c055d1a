//! Plays stories again, one by one with all that happens, or many to see which fail.

use std::process::ExitCode;

use clap::Parser;
use simulation::{Mutant, Stage, play};

/// Plays simulated stories of lanes.
#[derive(Parser)]
struct Arguments {
    /// The seed of the first story.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many stories; one is told in full.
    #[arg(long, default_value_t = 1)]
    stories: u64,
    /// Leave out one rule of the protocol. With several stories: each of these mutants (`all`) in turn, until it is found out.
    #[arg(long = "mutant", value_delimiter = ',')]
    mutants: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut stage = Stage::new();
    let named = arguments.mutants.iter().map(|name| Mutant::named(name).ok_or(name));
    let mutants = match named.collect::<Result<Vec<_>, _>>() {
        Ok(mutants) => mutants,
        Err(name) if name == "all" => Mutant::hunted().collect(),
        Err(name) => {
            eprintln!("there is no mutant {name}; these are: {:?}", Mutant::ALL);
            return ExitCode::FAILURE;
        }
    };
    if arguments.stories > 1 && !mutants.is_empty() {
        return hunt(&mut stage, &mutants, arguments.stories);
    }
    if arguments.stories == 1 {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    }
    let mut failed = 0;
    for seed in arguments.seed..arguments.seed + arguments.stories {
        let ending = play(&mut stage, seed, mutants.first().copied());
        if arguments.stories == 1 {
            println!("{ending:#?}");
        }
        if let Some(violation) = ending.violation {
            println!("seed {seed}: {violation}");
            failed += 1;
        }
    }
    println!("{failed} of {} stories broke a promise", arguments.stories);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints the table of docs/SIMULATION.md: each mutant, and the first of its stories that finds it out.
fn hunt(stage: &mut Stage, mutants: &[Mutant], stories: u64) -> ExitCode {
    let mut survivors = 0;
    let most = usize::try_from(stories).unwrap_or(usize::MAX);
    for mutant in mutants {
        let mut tried = 0;
        let found = mutant.stories(most).find_map(|seed| {
            tried += 1;
            Some((seed, play(stage, seed, Some(*mutant)).violation?))
        });
        match found {
            Some((seed, violation)) => println!("| `{mutant}` | {seed} (of {tried}) | {violation} |"),
            None => {
                println!("| `{mutant}` | survives | |");
                survivors += 1;
            }
        }
    }
    if survivors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
