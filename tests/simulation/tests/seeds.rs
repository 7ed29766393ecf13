//! Plays from many seeds. `STOA_SEED` is the first (0 by default), `STOA_SEEDS` how many (as many as fit into some seconds by
//! default). `STOA_TRACE=1` writes down what happened, `STOA_LOG` is a filter for the logs of the servers.

use std::{fs, io::Write, time::Duration};

use stoa_simulation::{Played, play};
use tokio::{runtime::Builder, time::Instant};
use tracing_subscriber::EnvFilter;

/// How long the short form takes.
const SHORT: Duration = Duration::from_secs(35);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn one(seed: u64, lines: bool) -> Played {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(seed, lines))
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn what_was_promised_holds_whatever_breaks() {
    if let Ok(filter) = std::env::var("STOA_LOG") {
        let filter = EnvFilter::new(filter);
        let _ =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().try_init();
    }
    let (first, lines) = (number("STOA_SEED").unwrap_or(0), number("STOA_TRACE") == Some(1));
    // Outside of a runtime this is the real clock.
    let begin = Instant::now();
    let (mut played, mut said, mut wrong) = (0, 0, Vec::new());
    for seed in first.. {
        match number("STOA_SEEDS") {
            Some(seeds) if seed >= first + seeds => break,
            None if begin.elapsed() > SHORT => break,
            _ => {}
        }
        let result = one(seed, lines);
        played += 1;
        said += result.said;
        if lines {
            let name = std::env::temp_dir().join(format!("stoa-simulation-{seed}.trace"));
            fs::write(&name, result.lines.join("\n")).unwrap();
            say(&format!("seed {seed}: {} {:?}, written to {}", result.trace, result.took, name.display()));
        }
        if let Some(why) = result.wrong {
            say(&format!("seed {seed} ({}): {why}", result.trace));
            wrong.push(seed);
        }
    }
    say(&format!("{played} plays with {said} acknowledged events in {:?}", begin.elapsed()));
    say(&format!("{} passed, {} failed", played - wrong.len(), wrong.len()));
    assert!(wrong.is_empty(), "replay with STOA_SEEDS=1 STOA_SEED=n, n being one of {wrong:?}");
}

#[test]
fn a_seed_replays_exactly() {
    let seed = number("STOA_SEED").unwrap_or(1_000_000);
    let (first, second) = (one(seed, true), one(seed, true));
    let differs = first.lines.iter().zip(&second.lines).position(|(a, b)| a != b);
    if let Some(n) = differs {
        let around = |played: &Played| played.lines[n.saturating_sub(5)..(n + 3).min(played.lines.len())].join("\n");
        panic!("line {n} differs:\n{}\n\n{}", around(&first), around(&second));
    }
    assert_eq!(first.trace, second.trace);
}
