//! Puts the parts together: engine, store, accounts, rooms, view, media.

use std::{
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use stoa_accounts::Accounts;
use stoa_client_api::Api;
use stoa_engine::Engine;
use stoa_engine_rocksdb::RocksDb;
use stoa_event::{ids::OwnedServerName, sign::SigningKey};
use stoa_federation::{FOLLOWER, Federation, Nobody};
use stoa_http::Limits;
use stoa_media::{Media, PreviewConfig};
use stoa_notify::{
    appservice::{self, Appservices},
    mail::Mailer,
    push::Push,
};
use stoa_remote::{HttpTransport, Remote, ServiceClient, Transport};
use stoa_rooms::Rooms;
use stoa_search::Search;
use stoa_store::{Env, Store, Tx, rows};
use stoa_view::View;

use crate::{
    Error,
    config::{Config, Durability},
    services,
    workers::Workers,
};

/// How long background work may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a server stands on, and what it knows of the world outside.
pub struct Ground {
    /// Where everything is kept.
    pub engine: Arc<dyn Engine>,
    /// The way to other servers.
    pub transport: Arc<dyn Transport>,
    /// How previews of links are made, if they are.
    pub previews: Option<PreviewConfig>,
    /// How phones and browsers are told, if they are.
    pub push: Option<stoa_notify::push::Config>,
    /// The clock and randomness.
    pub env: Env,
    /// Whether the index of the search is kept, in the folder of the data.
    pub search: bool,
}

/// A server without its listener.
pub struct Parts {
    /// What the handlers are given.
    pub api: Api,
    /// The store.
    pub store: Store,
    /// What goes on beside requests.
    pub workers: Workers,
    /// The database below the store, if it is on disk.
    disk: Option<Arc<RocksDb>>,
}

/// Opens what a configuration describes, making it where it is not there yet.
///
/// # Errors
/// Where the folder or the database cannot be used, or belongs to another server.
pub async fn open(config: &Config, env: Env) -> Result<Parts, Error> {
    config.name()?;
    make_folder(&config.data)?;
    let engine = open_engine(config).await?;
    let previews = config.previews().map_err(Error::Previews)?;
    let push = config.push().map_err(Error::Push)?;
    let transport = transport(config, &env)?;
    let ground = Ground { engine: engine.clone(), transport, previews, push, env, search: true };
    let mut parts = assemble(config, ground).await?;
    let media = parts.api.media.clone();
    if let Err(why) = media.prepare().await {
        drop(media);
        parts.close().await;
        return Err(Error::Media(why.to_string()));
    }
    parts.workers.beside(media.run());
    parts.disk = Some(engine);
    Ok(parts)
}

/// A server over the ground that it is given. Nothing here touches the disk or the network of this machine, but for the index of
/// the search where it is kept.
///
/// # Errors
/// Where the data cannot be used, or belong to another server.
pub async fn assemble(config: &Config, ground: Ground) -> Result<Parts, Error> {
    let Ground { engine, transport, previews, push, env, search } = ground;
    let bridged = !config.appservices.files.is_empty();
    let followers = [
        config.federation.enabled.then_some(FOLLOWER),
        search.then_some(stoa_search::FOLLOWER),
        bridged.then_some(appservice::FOLLOWER),
        push.as_ref().map(|_| stoa_notify::push::FOLLOWER),
    ];
    let options = stoa_store::Options {
        durability: match config.durability {
            Durability::Synced => stoa_store::Durability::Synced,
            Durability::Relaxed => stoa_store::Durability::Relaxed,
        },
        cache_bytes: config.memory.0 / 4,
        followers: followers.into_iter().flatten().collect(),
        now_ms: env.now_ms(),
    };
    let (store, committer) = Store::open(engine, options).await?;
    let mut workers = Workers::default();
    workers.commit(committer);
    let media = stoa_media::Config { previews, ..config.media()? };
    match join(config, (media, push), env, transport, &store, &mut workers).await {
        Ok(api) => {
            if search {
                workers.beside(api.search.clone().run());
            }
            Ok(Parts { api, store, workers, disk: None })
        }
        Err(why) => {
            drop(store);
            workers.end(PATIENCE).await;
            Err(why)
        }
    }
}

async fn join(
    config: &Config,
    (media, push): (stoa_media::Config, Option<stoa_notify::push::Config>),
    env: Env,
    transport: Arc<dyn Transport>,
    store: &Store,
    workers: &mut Workers,
) -> Result<Api, Error> {
    let name = config.name()?;
    let key = Arc::new(identity(store, &env, &name).await?);
    let accounts = Accounts::new(store.clone(), env.clone(), name.clone(), config.accounts());
    accounts.set_services(services::load(config)?).await?;
    let remote = Remote::new(store.clone(), env.clone(), name.clone(), key.clone(), transport, config.remote()?);
    let rooms = Rooms::new(store.clone(), env.clone(), name.clone(), key.clone(), config.rooms());
    let federation = Federation::new(store.clone(), env.clone(), rooms.clone(), accounts.clone(), remote.clone());
    let view = View::new(store.clone(), env.clone(), stoa_view::Config::default());
    let push = match push {
        Some(push) => {
            let push = Push::open(store.clone(), env.clone(), view.clone(), push).await;
            Some(push.map_err(|why| Error::Push(why.to_string()))?)
        }
        None => None,
    };
    let media = Media::new(store.clone(), env.clone(), name.clone(), remote, media)
        .map_err(|why| Error::Bucket(why.to_string()))?;
    let search = Search::new(store.clone(), config.search()).map_err(|why| Error::Search(why.to_string()))?;
    let limits = Limits::new(config.limits.clone(), env.clock.clone());
    let settings = stoa_client_api::Config {
        server_name: name,
        base_url: config.base_url.clone(),
        support: config.support.clone(),
        turn: config.turn.clone(),
        rtc: config.rtc.clone(),
        find_everybody: config.user_directory.search_all_users,
        delegate: config.federation.delegate()?.filter(|_| config.federation.enabled),
    };
    workers.keep_house(store, &accounts, &env);
    workers.beside(view.clone().run());
    if config.registration.guests {
        workers.beside(federation.clone().show_guests_out());
    }
    if config.federation.enabled {
        workers.beside(federation.clone().run());
    }
    if let Some(push) = &push {
        workers.beside(push.clone().run());
    }
    if let Some(mail) = config.mail()? {
        let mailer = Mailer::new(store.clone(), env.clone(), &mail).map_err(|why| Error::Email(why.to_string()))?;
        workers.beside(mailer.run());
        let accounts = accounts.clone();
        workers.every(Duration::from_secs(60 * 60), move || {
            let accounts = accounts.clone();
            async move {
                if let Err(why) = accounts.forget_email_sessions().await {
                    tracing::warn!(%why, "cannot forget sessions of e-mail addresses");
                }
            }
        });
    }
    let services = appservices(config, store, &env, &view, &accounts)?;
    if !config.appservices.files.is_empty() {
        workers.beside(services.clone().run());
    }
    let api = Api {
        accounts,
        rooms,
        federation,
        view,
        search,
        services,
        media,
        push,
        limits,
        env,
        config: Arc::new(settings),
    };
    workers.beside(stoa_client_api::send_due(api.clone()));
    Ok(api)
}

/// The application services. Without their files there are none, and the feed is not kept for them.
fn appservices(
    config: &Config,
    store: &Store,
    env: &Env,
    view: &View,
    accounts: &Accounts,
) -> Result<Appservices, Error> {
    let client = match config.appservices.files.is_empty() {
        true => None,
        false => {
            let client = ServiceClient::new(&config.remote()?);
            Some(client.map_err(|why| Error::Federation(why.to_string()))?)
        }
    };
    let legacy = config.appservices.legacy_authorization;
    Ok(Appservices::new(store.clone(), env.clone(), view.clone(), accounts.clone(), client, legacy))
}

/// What both kinds of callers ask, clients and, where federation is on, other servers.
pub fn router(config: &Config, api: &Api) -> Router {
    let clients = stoa_client_api::router(api.clone());
    if !config.federation.enabled {
        return clients;
    }
    clients.merge(stoa_federation_api::router(stoa_federation_api::Api {
        accounts: api.accounts.clone(),
        rooms: api.rooms.clone(),
        view: api.view.clone(),
        services: api.services.clone(),
        media: api.media.clone(),
        federation: api.federation.clone(),
        limits: api.limits.clone(),
        env: api.env.clone(),
    }))
}

/// The way to other servers, or to nobody where federation is off.
fn transport(config: &Config, env: &Env) -> Result<Arc<dyn Transport>, Error> {
    if !config.federation.enabled {
        return Ok(Arc::new(Nobody));
    }
    let transport = HttpTransport::new(&config.remote()?, env.clone());
    Ok(Arc::new(transport.map_err(|why| Error::Federation(why.to_string()))?))
}

/// The database has half of the memory, the caches above it a quarter, and the rest is for requests.
async fn open_engine(config: &Config) -> Result<Arc<RocksDb>, Error> {
    let memory_bytes = usize::try_from(config.memory.0 / 2).unwrap_or(usize::MAX);
    let options = stoa_engine_rocksdb::Options { memory_bytes, ..stoa_engine_rocksdb::Options::default() };
    let path = config.data.join("db");
    let opened = tokio::task::spawn_blocking(move || RocksDb::open(&path, options)).await;
    let opened = opened.map_err(|why| Error::Database(why.to_string()))?;
    opened.map_err(|why| Error::Database(why.to_string()))
}

/// A folder that nobody else may read: it holds keys and messages.
fn make_folder(path: &Path) -> Result<(), Error> {
    let folder = |why| Error::Folder { path: path.to_owned(), why };
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(folder)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(folder)
}

/// The name and the signing key of the server whose data this is. A new one gets them now.
async fn identity(store: &Store, env: &Env, name: &OwnedServerName) -> Result<SigningKey, Error> {
    let snapshot = store.snapshot().await?;
    let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    match rows::server::get(&snapshot, "name").await?.map(text) {
        Some(stored) if stored != name.as_str() => {
            return Err(Error::OtherServer { stored, asked: name.to_string() });
        }
        Some(_) => {
            let line = rows::server::get(&snapshot, "signing_key").await?.map(text);
            return line.and_then(|line| SigningKey::parse(&line).ok()).ok_or(Error::NoKey);
        }
        None => {}
    }
    let mut seed = [0; 32];
    env.random.fill(&mut seed);
    let key = SigningKey::from_seed(&seed, &format!("a_{}", env.token(4))).map_err(|_| Error::NoKey)?;
    let mut tx = Tx::new();
    rows::server::put(&mut tx, "name", &name.to_string().into());
    rows::server::put(&mut tx, "signing_key", &key.to_line().into());
    store.commit(tx).await?;
    Ok(key)
}

impl Parts {
    /// Ends everything that was opened, so that the folder is free for another process.
    pub async fn close(self) {
        let Parts { api, store, workers, disk } = self;
        if let Err(why) = api.accounts.write_seen().await {
            tracing::warn!(%why, "cannot write when devices were last seen");
        }
        drop((api, store));
        workers.end(PATIENCE).await;
        if let Some(disk) = disk
            && let Err(why) = disk.flush().await
        {
            tracing::warn!(%why, "cannot flush the database; what was acknowledged is in its log");
        }
    }
}
