//! The binary: command line, configuration, and the one place where everything is put together.

pub mod admin;
pub mod args;
pub mod config;
pub mod env;
mod listen;
mod server;
mod services;
mod tls;
mod users;
mod wire;
mod workers;

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command, SearchCommand, Show};
pub use crate::{
    config::Config,
    server::Server,
    wire::{Ground, Parts, assemble, router},
    workers::Workers,
};

/// Why the program cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The filter of the log is none.
    #[error("log: {0}")]
    Log(String),
    /// A folder cannot be made.
    #[error("cannot use the folder {}: {why}", .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// The database cannot be opened.
    #[error("cannot open the database: {0}")]
    Database(String),
    /// Letters cannot be sent so.
    #[error("email: {0}")]
    Email(String),
    /// The bucket that is to hold files cannot be one.
    #[error("media.bucket: {0}")]
    Bucket(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stoa_store::Error),
    /// Something about accounts failed.
    #[error(transparent)]
    Accounts(#[from] stoa_accounts::Error),
    /// The data belong to a server of another name.
    #[error("the data belong to the server `{stored}`, not to `{asked}`; a server cannot change its name")]
    OtherServer {
        /// The name that is stored.
        stored: String,
        /// The name that was asked for.
        asked: String,
    },
    /// The certificate cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] tls::Error),
    /// Other servers cannot be reached with these settings.
    #[error("federation: {0}")]
    Federation(String),
    /// The registration of an application service cannot be used.
    #[error("application service: {}: {why}", .path.display())]
    Appservice {
        /// The file.
        path: PathBuf,
        /// Why not, with the field.
        why: String,
    },
    /// The signing key cannot be read.
    #[error("the signing key in the database is missing or damaged; restore a backup")]
    NoKey,
    /// The search cannot be set up.
    #[error("search: {0}")]
    Search(String),
    /// The folder of files cannot be used.
    #[error("cannot use the folder of uploaded files: {0}")]
    Media(String),
    /// Previews of links cannot be made.
    #[error("cannot make previews of links: {0}")]
    Previews(String),
    /// Phones and browsers cannot be told.
    #[error("push: {0}")]
    Push(String),
    /// Somebody else listens there.
    #[error("cannot listen on {0}: something else does already; another Stoa? Choose another address with --listen")]
    AddressInUse(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        why: io::Error,
    },
    /// The runtime cannot be started, or signals cannot be heard.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// An administrator's command was not done.
    #[error("{0}")]
    Admin(String),
}

/// The program.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "stoa: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    if let Some(Command::Config(Show::Example)) = cli.command {
        let _ = io::stdout().write_all(config::EXAMPLE.as_bytes());
        return Ok(());
    }
    let config = Config::load(&cli.options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    match cli.command {
        Some(Command::User(user)) => {
            log_to_stderr("warn")?;
            runtime.block_on(users::run(&config, user))
        }
        Some(Command::Search(SearchCommand::Rebuild)) => {
            log_to_stderr("warn")?;
            runtime.block_on(users::rebuild_search(&config))
        }
        _ => {
            log_to_stderr(&config.log)?;
            runtime.block_on(serve(&config))
        }
    }
}

async fn serve(config: &Config) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
    // Only who has something to read again is spared what the signal does to every other program.
    let listens = config.tls.files().is_some() || !config.appservices.files.is_empty();
    let mut hangups = match listens {
        true => Some(signal(SignalKind::hangup()).map_err(Error::Runtime)?),
        false => None,
    };
    open_many_files();
    let server = Server::start(config, env::system()).await?;
    for address in server.addresses() {
        say(&format!("Stoa serves {} at http://{address}", config.server_name));
    }
    for address in server.tls_addresses() {
        say(&format!("Stoa serves {} at https://{address}", config.server_name));
    }
    if !server.has_users().await? {
        say(&format!("There is no account yet. Make the first one, the administrator:  {}", add_user(config)));
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = hangup(&mut hangups) => server.reload().await,
        }
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

/// Returns at the next SIGHUP, if it is heard at all.
async fn hangup(hangups: &mut Option<Signal>) {
    if let Some(hangups) = hangups
        && hangups.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

/// The command that makes the first account, as it has to be typed.
fn add_user(config: &Config) -> String {
    let mut command = "stoa user add --admin NAME".to_owned();
    if config.data != Config::default().data {
        command += &format!(" --data {}", config.data.display());
    }
    if config.server_name != Config::default().server_name {
        command += &format!(" --server-name {}", config.server_name);
    }
    command
}

/// Every waiting client is an open file, and the usual limit of 1,024 is for programs that know no crowds.
fn open_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(why) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%why, "cannot raise the limit of open files");
    }
}

fn log_to_stderr(filter: &str) -> Result<(), Error> {
    let filter = EnvFilter::try_new(filter).map_err(|why| Error::Log(why.to_string()))?;
    // A second one in the same process is fine: the first stays.
    let colours = io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).try_init();
    Ok(())
}

/// Says something to the person who started us.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
