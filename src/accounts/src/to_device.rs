//! Messages from device to device (Client-Server API, "Send-to-Device messaging").

use stoa_store::{Position, Tx, rows::to_device};

use crate::{Accounts, Result, Who};

impl Accounts {
    /// Forgets the messages that the device of who asks has seen: those up to and with a position.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn seen_to_device(&self, who: &Who, until: Position) -> Result<()> {
        let snapshot = self.store().snapshot().await?;
        let waiting = to_device::read(&snapshot, who.user_no, &who.device, Position::MIN, until, 1).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let mut tx = Tx::new();
        to_device::delete_until(&mut tx, who.user_no, &who.device, until);
        self.store().commit(tx).await?;
        Ok(())
    }
}
