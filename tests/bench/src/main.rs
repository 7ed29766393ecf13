//! Drives any homeserver by its public API, checks that everything arrived once and in order, and reads what it cost from
//! `/proc`. `stoa-bench run` measures one homeserver and writes JSON; `stoa-bench table` sets several runs side by side.
//! `scripts/bench` starts both; see there for what is compared with what.

mod args;
mod bench;
mod join;
mod meter;
mod phases;
mod report;
mod server;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

#[tokio::main]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
async fn main() -> ExitCode {
    match Args::parse().command {
        Command::Run(run) => {
            let out = run.out.clone();
            let report = phases::all(run).await;
            if let Some(out) = out
                && let Err(error) = report.write(&out)
            {
                eprintln!("cannot write {}: {error}", out.display());
                return ExitCode::FAILURE;
            }
            println!("{}", report::table(std::slice::from_ref(&report)));
            for failure in &report.failed {
                eprintln!("FAILED {failure}");
            }
            println!("{} passed, {} failed", report.passed, report.failed.len());
            if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::Join(join) => match join::run(&join).await {
            Ok(results) => {
                println!("{}", join::table(&results));
                ExitCode::SUCCESS
            }
            Err(why) => {
                eprintln!("FAILED {why}");
                ExitCode::FAILURE
            }
        },
        Command::Table(table) => match report::read(&table.files) {
            Ok(reports) => {
                println!("{}", report::table(&reports));
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
    }
}
