//! A running server. It is a value: a process can have several.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::routing::get;
use stoa_store::Env;

use crate::{
    Error, admin,
    config::Config,
    listen::{self, Door},
    services,
    tls::Tls,
    wire::{self, Parts},
    workers::{Group, Workers},
};

/// How often the files of the certificate are looked at.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(60);

/// A running homeserver.
pub struct Server {
    config: Config,
    parts: Parts,
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    tls: Option<Arc<Tls>>,
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
        for (address, secure) in config.addresses() {
            listeners.push((listen::bind(address).await?, secure));
        }
        let tls = match config.tls.files() {
            Some((certificate, key)) => Some(Arc::new(Tls::open(certificate, key).await?)),
            None => None,
        };
        let parts = wire::open(config, env).await?;
        // For those who watch over the server: it answers.
        let router = wire::router(config, &parts.api).route("/health", get(|| async { "OK" }));
        let mut server = Server {
            config: config.clone(),
            parts,
            addresses: Vec::new(),
            tls_addresses: Vec::new(),
            tls: tls.clone(),
            connections: Group::default(),
            doors: Workers::default(),
        };
        for (listener, secure) in listeners {
            let addresses = if secure { &mut server.tls_addresses } else { &mut server.addresses };
            addresses.extend(listener.local_addr());
            let door = Door {
                router: router.clone(),
                tasks: server.connections.clone(),
                ending: server.doors.ending(),
                tls: tls.as_ref().filter(|_| secure).map(|tls| tls.acceptor()),
            };
            server.doors.start(listen::run(listener, door));
        }
        if let Some(tls) = tls {
            server.doors.every(LOOK_AT_CERTIFICATE, move || {
                let tls = tls.clone();
                async move { tls.refresh().await }
            });
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

    /// The addresses that it listens on with TLS.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// Reads again what may change while it runs: the certificate, and the registrations of application services. What cannot
    /// be used is reported and changes nothing.
    pub async fn reload(&self) {
        if let Some(tls) = &self.tls {
            tls.reload().await;
        }
        let read = match services::load(&self.config) {
            Ok(services) => self.parts.api.accounts.set_services(services).await.map_err(Error::from),
            Err(why) => Err(why),
        };
        match read {
            Ok(()) => {
                tracing::info!(services = ?self.parts.api.accounts.services(), "application services were read again")
            }
            Err(why) => tracing::warn!(%why, "application services stay as they were"),
        }
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
