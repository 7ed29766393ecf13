//! A running server. It is a value: a process can have several.

use std::{net::SocketAddr, time::Duration};

use axum::routing::get;
use stoa_store::Env;

use crate::{
    Error, admin,
    config::Config,
    listen,
    wire::{self, Parts},
    workers::{Group, Workers},
};

/// A running homeserver.
pub struct Server {
    parts: Parts,
    addresses: Vec<SocketAddr>,
    connections: Group,
    /// The listeners, which end before everything else.
    doors: Workers,
}

impl Server {
    /// Opens the data and listens.
    ///
    /// # Errors
    /// Where an address is taken or the data cannot be used.
    pub async fn start(config: &Config, env: Env) -> Result<Server, Error> {
        // First, so that a second server on the same data says what is wrong: the address or the data.
        let mut listeners = Vec::new();
        for address in &config.listen {
            listeners.push(listen::bind(*address).await?);
        }
        let parts = wire::open(config, env).await?;
        // For those who watch over the server: it answers.
        let router = stoa_client_api::router(parts.api.clone()).route("/health", get(|| async { "OK" }));
        let mut server =
            Server { parts, addresses: Vec::new(), connections: Group::default(), doors: Workers::default() };
        for listener in listeners {
            server.addresses.extend(listener.local_addr());
            let ending = server.doors.ending();
            server.doors.start(listen::run(listener, router.clone(), server.connections.clone(), ending));
        }
        match admin::bind(&config.data) {
            Ok(socket) => {
                let ending = server.doors.ending();
                server.doors.start(admin::serve(socket, server.parts.api.clone(), ending));
            }
            Err(why) => tracing::warn!(%why, "cannot open the socket for `stoa user`"),
        }
        Ok(server)
    }

    /// The addresses that it listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether anybody has an account yet.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn has_users(&self) -> Result<bool, Error> {
        Ok(self.parts.api.accounts.has_users().await?)
    }

    /// Accepts nothing more, lets requests end, answers those who wait for news, and closes the data.
    pub async fn stop(self) {
        let Server { parts, connections, doors, .. } = self;
        parts.api.view.stop_waiting();
        doors.end(Duration::from_secs(1)).await;
        // The connections count the time themselves.
        if tokio::time::timeout(listen::PATIENCE * 2, connections.done()).await.is_err() {
            tracing::warn!(left = connections.running(), "some requests did not end in time");
        }
        parts.close().await;
    }
}
