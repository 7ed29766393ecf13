//! Bytes on disk for each message, measured while the server is stopped.

use std::process::Command;

use futures_util::future::join_all;
use stoa_kit::User;

use crate::bench::Bench;

/// Sends messages between two measurements.
pub async fn run(bench: &mut Bench) -> Result<(), String> {
    let Some(command) = bench.run.disk_command.clone() else { return Ok(()) };
    bench.need_users(4).await;
    let users = bench.users[..4].to_vec();
    let room = bench.room(&users[0], &users[1..]).await;
    let before = stopped_size(bench, &command).await?;
    let each = bench.size(25, 1_500);
    let span = bench.begin(120).await;
    let send = async |user: &User| {
        let mut count = 0;
        while count < each && !span.over() {
            let body =
                format!("message {count} of {}, as long as people write them in an ordinary conversation", user.id);
            user.text(&room, &body).await;
            count += 1;
        }
        count
    };
    let count: usize = join_all(users.iter().map(send)).await.into_iter().sum();
    let after = stopped_size(bench, &command).await?;
    let each = after.saturating_sub(before) as f64 / 1024.0 / count as f64;
    bench.report.add("disk for each message", "kB", count, each);
    Ok(())
}

async fn stopped_size(bench: &mut Bench, command: &str) -> Result<u64, String> {
    bench.stop().await?;
    let output = Command::new("sh").args(["-c", command]).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let size = text.split_whitespace().next().and_then(|word| word.parse().ok());
    bench.start(true).await?;
    size.ok_or_else(|| format!("{command} printed no number: {text}"))
}
