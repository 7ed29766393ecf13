//! The command line. Every option can also be given by environment; the command line wins, then the environment, then
//! the file, then the default.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Durability, IpRange, Size};

/// Stoa, a Matrix homeserver.
#[derive(Debug, Parser)]
#[command(name = "stoa", version, max_term_width = 100)]
pub struct Cli {
    /// What to do; without it: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What overrides the configuration file.
    #[command(flatten)]
    pub options: Options,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the homeserver
    Serve,
    /// Make and change accounts, also while the server runs
    #[command(subcommand)]
    User(User),
    /// Look after the index of the search
    #[command(subcommand)]
    Search(SearchCommand),
    /// Look at the configuration
    #[command(subcommand)]
    Config(Show),
}

/// Commands about accounts.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Make an account; the first one becomes administrator
    Add {
        /// The name, `alice` or `@alice:example.org`
        name: String,
        /// Make it an administrator
        #[arg(long)]
        admin: bool,
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Set a new password and log out all devices
    Password {
        /// The name, `alice` or `@alice:example.org`
        name: String,
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// List all accounts
    List,
    /// Close an account for ever; its name is not given out again
    Deactivate {
        /// The name, `alice` or `@alice:example.org`
        name: String,
        /// Forget profile and data too
        #[arg(long)]
        erase: bool,
    },
}

/// Commands about the search.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum SearchCommand {
    /// Make the index anew from the database, in the background, also while the server runs
    Rebuild,
}

/// Commands about the configuration.
#[derive(Debug, Subcommand)]
pub enum Show {
    /// Print a configuration file with every option and its default
    Example,
}

/// Who may make an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Registration {
    /// Everybody
    Open,
    /// Who has a registration token
    Token,
    /// Only the administrator
    Closed,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

/// What overrides the configuration file.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of the server")]
pub struct Options {
    /// The configuration file (TOML)
    #[arg(long, env = "STOA_CONFIG", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The name of the server, the part of user ids after the colon; it cannot change later [default: localhost]
    #[arg(long, env = "STOA_SERVER_NAME", global = true, value_name = "NAME")]
    pub server_name: Option<String>,
    /// The folder for everything that is kept [default: ./data]
    #[arg(long, env = "STOA_DATA", global = true, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Addresses to listen on, separated by commas [default: 127.0.0.1:8008]
    #[arg(long, env = "STOA_LISTEN", global = true, value_name = "ADDRESS", value_delimiter = ',')]
    pub listen: Vec<SocketAddr>,
    /// Addresses to listen on with TLS, separated by commas
    #[arg(long, env = "STOA_TLS_LISTEN", global = true, value_name = "ADDRESS", value_delimiter = ',')]
    pub tls_listen: Vec<SocketAddr>,
    /// The certificate for TLS, a PEM file
    #[arg(long, env = "STOA_TLS_CERTIFICATE", global = true, value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// The private key of the certificate, a PEM file
    #[arg(long, env = "STOA_TLS_KEY", global = true, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Whether to speak with other servers [default: on]
    #[arg(long, env = "STOA_FEDERATION", global = true)]
    pub federation: Option<Switch>,
    /// Authorities whose certificates other servers may show, PEM files, separated by commas
    #[arg(long, env = "STOA_FEDERATION_CA", global = true, value_name = "FILE", value_delimiter = ',')]
    pub federation_ca: Vec<PathBuf>,
    /// Addresses where other servers are reached although they are not public, `10.0.0.0/8` for instance
    #[arg(long, env = "STOA_FEDERATION_IP_ALLOW", global = true, value_name = "RANGE", value_delimiter = ',')]
    pub federation_ip_allow: Vec<IpRange>,
    /// Registration files of application services, or folders of them, separated by commas
    #[arg(long, env = "STOA_APPSERVICE", global = true, value_name = "FILE", value_delimiter = ',')]
    pub appservice: Vec<PathBuf>,
    /// Whether links get previews [default: off]
    #[arg(long, env = "STOA_URL_PREVIEWS", global = true)]
    pub url_previews: Option<Switch>,
    /// Addresses of which previews are made although they are not public, `10.0.0.0/8` for instance
    #[arg(long, env = "STOA_URL_PREVIEW_IP_ALLOW", global = true, value_name = "RANGE", value_delimiter = ',')]
    pub url_preview_ip_allow: Vec<IpRange>,
    /// The address at which clients find the server, if not the one they ask
    #[arg(long, env = "STOA_BASE_URL", global = true, value_name = "URL")]
    pub base_url: Option<String>,
    /// Who may make an account [default: closed]
    #[arg(long, env = "STOA_REGISTRATION", global = true, value_name = "WHO")]
    pub registration: Option<Registration>,
    /// Tokens that allow to register, separated by commas; without --registration they also switch it to `token`
    #[arg(
        long,
        env = "STOA_REGISTRATION_TOKEN",
        global = true,
        value_name = "TOKEN",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub registration_token: Vec<String>,
    /// Whether people are told who of those they share rooms with is online [default: on]
    #[arg(long, env = "STOA_PRESENCE", global = true)]
    pub presence: Option<Switch>,
    /// Whether users and addresses are limited in what they do in a second [default: on]
    #[arg(long, env = "STOA_RATE_LIMITS", global = true)]
    pub rate_limits: Option<Switch>,
    /// Memory for caches, `256M` for instance [default: 256M]
    #[arg(long, env = "STOA_MEMORY", global = true, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// When a request is acknowledged: when it is on disk, or when it is written [default: synced]
    #[arg(long, env = "STOA_DURABILITY", global = true, value_name = "WHEN")]
    pub durability: Option<Durability>,
    /// The largest file that can be uploaded [default: 100M]
    #[arg(long, env = "STOA_MAX_UPLOAD", global = true, value_name = "SIZE")]
    pub max_upload: Option<Size>,
    /// What is logged: error, warn, info, debug, trace, or a filter as `info,stoa::request=debug` [default: info]
    #[arg(long, env = "STOA_LOG", global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["stoa", "user", "add", "--admin", "alice", "--data", "x"]);
        assert!(matches!(cli.command, Some(Command::User(User::Add { admin: true, .. }))));
        assert_eq!(cli.options.data, Some("x".into()));
        assert!(Cli::parse_from(["stoa"]).command.is_none());
    }
}
