//! Measures the deployed binaries: what a delivery costs, what a recording costs, and what grows with what is stored.

mod growth;
mod instructions;
mod recording;
mod run;
mod sizes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures the deployed binaries side by side.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What a delivery costs: start, time, CPU, memory, calls, write units, dollars
    Run(run::Options),
    /// Instructions for one delivery of each kind, compared with what is kept of them
    Instructions(instructions::Options),
    /// Sizes and dependencies of the functions, compared with their bounds
    Sizes(sizes::Options),
    /// The archiver beside `curl | aws s3 cp -`
    Recording(recording::Options),
    /// What a delivery costs when ten and a hundred times as much is stored
    Growth(growth::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(options) => run::run(&options).await,
        Command::Instructions(options) => instructions::run(&options).await,
        Command::Sizes(options) => sizes::run(&options),
        Command::Recording(options) => recording::run(&options).await,
        Command::Growth(options) => growth::run(&options).await,
    };
    match done {
        Ok(code) => code,
        #[allow(clippy::print_stderr, reason = "this is the command's own output")]
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
