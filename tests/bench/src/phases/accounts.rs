//! Registration and login, which password hashing dominates by intent.

use stoa_kit::User;
use tokio::time::Instant;

use crate::bench::{Bench, new_user};

/// Registers, then logs in again.
pub async fn run(bench: &mut Bench) {
    let count = bench.size(5, 20);
    let (span, mut times) = (bench.begin(60).await, Vec::new());
    for _ in 0..count {
        let start = Instant::now();
        let user = new_user(bench.client.clone()).await;
        times.push(start.elapsed());
        bench.users.push(user);
    }
    bench.note("register", &span, &mut times).await;
    let (span, mut times) = (bench.begin(60).await, Vec::new());
    for user in bench.users.clone().iter().take(count) {
        let start = Instant::now();
        let phone = User::login(&bench.client, &user.id, &user.password).await;
        times.push(start.elapsed());
        bench.check(phone.id == user.id && phone.token != user.token, || format!("login of {}", user.id));
    }
    bench.note("login", &span, &mut times).await;
}
