//! The operations, in groups that can be chosen with `--only`.

mod accounts;
mod disk;
mod fanout;
mod growth;
mod paging;
mod push;
mod send;
mod startup;
mod sync;
mod waiting;

use stoa_kit::Client;

use crate::args::Run;
use crate::bench::Bench;
use crate::report::Report;

/// Runs everything that was asked for.
pub async fn all(run: Run) -> Report {
    let client = Client::new(&run.url);
    let report = Report { name: run.name.clone(), ..Report::default() };
    let mut bench = Bench { run, client, server: None, report, users: Vec::new() };
    if let Err(error) = groups(&mut bench).await {
        bench.report.failed.push(error);
    }
    if let Err(error) = bench.stop().await {
        bench.report.failed.push(error);
    }
    bench.report
}

async fn groups(bench: &mut Bench) -> Result<(), String> {
    let wanted =
        |bench: &Bench, group: &str| bench.run.only.is_empty() || bench.run.only.iter().any(|one| one == group);
    bench.start(false).await?;
    if wanted(bench, "accounts") {
        accounts::run(bench).await;
    }
    if bench.run.bulk_command.is_some() {
        bench.stop().await?;
        bench.start(true).await?;
    }
    if wanted(bench, "send") {
        send::run(bench).await;
    }
    if wanted(bench, "paging") {
        paging::run(bench).await;
    }
    if wanted(bench, "fanout") {
        fanout::run(bench).await;
    }
    if wanted(bench, "sync") {
        sync::run(bench).await;
    }
    if wanted(bench, "growth") {
        growth::run(bench).await;
    }
    if wanted(bench, "waiting") {
        waiting::run(bench).await;
    }
    if wanted(bench, "push") {
        push::run(bench).await;
    }
    if wanted(bench, "startup") {
        startup::run(bench).await?;
    }
    if wanted(bench, "disk") {
        disk::run(bench).await?;
    }
    Ok(())
}
