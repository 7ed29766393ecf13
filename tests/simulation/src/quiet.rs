//! Waiting until nothing happens any more.

use std::time::Duration;

use tokio::time::sleep;

use crate::world::World;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(20);
/// How often nothing must have happened in a row.
const STILL: u32 = 3;
/// How long it may take: a server that is left alone is asked again within a day.
const LONGEST: Duration = Duration::from_secs(40 * 60 * 60);

impl World {
    /// Returns when nothing waits and nothing is written any more.
    pub(crate) async fn quiet(&self) -> Result<(), String> {
        let (mut waited, mut still, mut before) = (Duration::ZERO, 0, Vec::new());
        while still < STILL {
            if waited > LONGEST {
                return Err(format!("something goes on for ever: {:?}", self.unrest().await?));
            }
            sleep(LOOK).await;
            waited += LOOK;
            let (waiting, positions) = self.unrest().await?;
            let quiet = waiting == 0 && self.network.is_quiet() && positions == before;
            still = if quiet { still + 1 } else { 0 };
            before = positions;
        }
        Ok(())
    }

    async fn unrest(&self) -> Result<(usize, Vec<u64>), String> {
        let (mut waiting, mut positions) = (0, Vec::new());
        for node in &self.nodes {
            waiting += node.waiting().await?;
            positions.push(node.position().await?);
        }
        Ok((waiting, positions))
    }
}
