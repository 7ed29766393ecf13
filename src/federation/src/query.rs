//! Questions to other servers that are not about the events of a room (Server-Server API, "Querying for information",
//! "Published Room Directory").

use serde_json::{Map, Value};
use stoa_event::ids::{ServerName, UserId};

use crate::{
    Error, Federation,
    ask::{Path, USUAL},
};

impl Federation {
    /// The profile of a user of another server, or one field of it.
    ///
    /// # Errors
    /// Where that server cannot be asked or does not know the user.
    pub async fn profile(&self, user: &UserId, field: Option<&str>) -> Result<Map<String, Value>, Error> {
        let mut path = Path::new("v1/query/profile").ask("user_id", user.as_str());
        if let Some(field) = field {
            path = path.ask("field", field);
        }
        let mut profile: Map<String, Value> = self.inner.get(user.server_name(), path, USUAL).await?;
        if let Some(field) = field {
            profile.retain(|key, _| key == field);
        }
        // Name and picture are text, whatever else a server may say.
        profile.retain(|key, value| !matches!(key.as_str(), "displayname" | "avatar_url") || value.is_string());
        Ok(profile)
    }

    /// A page of the published directory of another server: the body of a client's `POST /publicRooms`.
    ///
    /// # Errors
    /// Where that server cannot be asked.
    pub async fn public_rooms(&self, server: &ServerName, request: &Value) -> Result<Value, Error> {
        Ok(self.inner.post(server, Path::new("v1/publicRooms"), request, USUAL).await?)
    }
}
