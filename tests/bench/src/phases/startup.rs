//! From the start of the process to its first answer, with all the data of the phases before, and idle memory then.

use std::time::Duration;

use tokio::time::sleep;

use crate::bench::Bench;
use crate::meter;

/// Stops and starts it a few times.
pub async fn run(bench: &mut Bench) -> Result<(), String> {
    bench.need_users(1).await;
    let mut times = Vec::new();
    for _ in 0..bench.size(1, 5) {
        bench.stop().await?;
        times.push(bench.start(true).await?.as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    bench.report.add("start to first answer, with data (median)", "ms", times.len(), times[times.len() / 2]);
    let me = bench.users[0].get("/account/whoami").await.ok();
    let right = me["user_id"] == bench.users[0].id;
    bench.check(right, || "after a restart the token is not known".to_owned());
    sleep(Duration::from_secs(bench.size(0, 3) as u64)).await;
    let memory = meter::memory(&bench.pids());
    bench.report.add("memory (PSS) after a start, idle", "MB", 1, memory.pss as f64 / 1_048_576.0);
    Ok(())
}
