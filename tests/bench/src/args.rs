//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Measures homeservers by their public API.
#[derive(Parser)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Measure one homeserver
    Run(Run),
    /// Measure the join of a large room of another server
    Join(Join),
    /// Set results side by side
    Table(Table),
}

/// Which servers, and how large a room.
#[derive(ClapArgs, Clone)]
pub struct Join {
    /// The binary of Stoa
    #[arg(long)]
    pub stoa: PathBuf,
    /// The virtual environment with Synapse in it, which joins too
    #[arg(long)]
    pub synapse: Option<PathBuf>,
    /// How many members the room has
    #[arg(long, default_value_t = 10_000)]
    pub members: usize,
    /// How many messages
    #[arg(long, default_value_t = 10_000)]
    pub messages: usize,
}

/// Which homeserver, and how.
#[derive(ClapArgs, Clone)]
pub struct Run {
    /// Its name in the results
    #[arg(long)]
    pub name: String,
    /// Where it answers
    #[arg(long)]
    pub url: String,
    /// The shell command that starts it in the foreground (it gets SIGTERM in the end)
    #[arg(long)]
    pub command: String,
    /// Another command for everything after the passwords were measured (cheaper password hashing, for instance)
    #[arg(long)]
    pub bulk_command: Option<String>,
    /// Further processes that belong to it, such as a database: counted with all their children
    #[arg(long, value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// A shell command that prints how many bytes its data take, run while it is stopped
    #[arg(long)]
    pub disk_command: Option<String>,
    /// How much
    #[arg(long, value_enum, default_value_t = Size::Full)]
    pub size: Size,
    /// Only these groups
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Where the JSON goes
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// Seconds: for checks of correctness
    Short,
    /// Minutes: for figures
    Full,
}

/// Results to show.
#[derive(ClapArgs)]
pub struct Table {
    /// Files that `run` wrote; ratios are to the first
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}
