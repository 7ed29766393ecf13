//! Commands of the administrator to the running server: one line of JSON each way, over a socket in the data folder that
//! only its owner can open. Without a running server the same commands are done on the data directly.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stoa_accounts::Accounts;
use stoa_client_api::{Api, end_account};
use stoa_event::ids::{OwnedUserId, UserId};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::{Error, workers::Ending};

/// The most bytes of a command.
const COMMAND_BYTES: u64 = 64 * 1024;

/// What the administrator asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Make an account.
    AddUser {
        /// Localpart or whole id.
        name: String,
        /// The password.
        password: String,
        /// Whether it administers the server; the first such account does in any case.
        admin: bool,
    },
    /// Set a password.
    SetPassword {
        /// Localpart or whole id.
        name: String,
        /// The password.
        password: String,
    },
    /// List all accounts.
    ListUsers,
    /// Close an account.
    Deactivate {
        /// Localpart or whole id.
        name: String,
        /// Whether its data goes too.
        erase: bool,
    },
    /// Make the index of the search anew.
    RebuildSearch,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done, about this account.
    Done {
        /// Its id.
        user: OwnedUserId,
        /// Whether it administers the server.
        admin: bool,
    },
    /// All accounts.
    Users(Vec<Listed>),
    /// It is being done.
    Begun,
    /// Not done.
    Failed(String),
}

/// An account in a list.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its id.
    pub user: OwnedUserId,
    /// Whether it administers the server.
    pub admin: bool,
    /// Whether it was closed.
    pub deactivated: bool,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
}

fn socket(data: &Path) -> PathBuf {
    data.join("admin.sock")
}

/// Opens the socket. Call it when the database is open: then no other server can be using it.
///
/// # Errors
/// Where the folder refuses.
pub fn bind(data: &Path) -> io::Result<UnixListener> {
    let path = socket(data);
    match std::fs::remove_file(&path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers commands, one after the other, until the server ends.
pub async fn serve(listener: UnixListener, api: Api, mut ending: Ending) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.wait() => break,
        };
        let Ok((stream, _)) = stream else { continue };
        let answered = timeout(Duration::from_secs(30), answer(stream, &api)).await;
        if let Ok(Err(why)) = answered {
            tracing::debug!(%why, "an administrator's command broke off");
        }
    }
    if let Ok(address) = listener.local_addr()
        && let Some(path) = address.as_pathname()
    {
        let _ = std::fs::remove_file(path);
    }
}

async fn answer(mut stream: UnixStream, api: &Api) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new((&mut stream).take(COMMAND_BYTES)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(command) => run(api, command).await,
        Err(why) => Answer::Failed(why.to_string()),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Asks the server that runs on this data; `None` if none does.
///
/// # Errors
/// Where it runs but does not answer.
pub async fn ask(data: &Path, command: &Command) -> Result<Option<Answer>, Error> {
    let mut stream = match UnixStream::connect(socket(data)).await {
        Ok(stream) => stream,
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(why) => return Err(Error::Admin(why.to_string())),
    };
    let asked = async {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        Ok::<Answer, io::Error>(serde_json::from_str(&line)?)
    };
    asked.await.map(Some).map_err(|why| Error::Admin(why.to_string()))
}

/// Does a command.
pub async fn run(api: &Api, command: Command) -> Answer {
    let accounts = &api.accounts;
    let done = match command {
        Command::AddUser { name, password, admin } => add(accounts, &name, password, admin).await,
        Command::SetPassword { name, password } => set_password(accounts, &name, password).await,
        Command::ListUsers => list(accounts).await,
        Command::Deactivate { name, erase } => deactivate(api, &name, erase).await,
        Command::RebuildSearch => {
            api.search.rebuild();
            Ok(Answer::Begun)
        }
    };
    done.unwrap_or_else(|why| Answer::Failed(why.to_string()))
}

async fn add(accounts: &Accounts, name: &str, password: String, admin: bool) -> Result<Answer, Error> {
    let user = user_id(accounts, name)?;
    // Somebody has to be the administrator.
    let first = !accounts.list_users().await?.iter().any(|account| account.row.admin);
    let admin = admin || first;
    let user = accounts.create_user(user.localpart(), password.into(), admin).await?;
    Ok(Answer::Done { user, admin })
}

async fn set_password(accounts: &Accounts, name: &str, password: String) -> Result<Answer, Error> {
    let user = user_id(accounts, name)?;
    accounts.set_password(&user, password.into()).await?;
    done(accounts, user).await
}

async fn list(accounts: &Accounts) -> Result<Answer, Error> {
    let listed = accounts.list_users().await?.into_iter().map(|account| Listed {
        user: account.id,
        admin: account.row.admin,
        deactivated: account.row.deactivated.is_some(),
        created: account.row.created,
    });
    Ok(Answer::Users(listed.collect()))
}

async fn deactivate(api: &Api, name: &str, erase: bool) -> Result<Answer, Error> {
    let user = user_id(&api.accounts, name)?;
    end_account(api, &user, erase).await.map_err(|why| Error::Admin(why.message))?;
    done(&api.accounts, user).await
}

async fn done(accounts: &Accounts, user: OwnedUserId) -> Result<Answer, Error> {
    let admin = accounts.account(&user).await?.is_some_and(|account| account.row.admin);
    Ok(Answer::Done { user, admin })
}

fn user_id(accounts: &Accounts, name: &str) -> Result<OwnedUserId, Error> {
    let server = accounts.server_name();
    let id = if name.starts_with('@') { name.to_owned() } else { format!("@{name}:{server}") };
    match <&UserId>::try_from(id.as_str()) {
        Ok(user) if user.server_name() == server => Ok(user.to_owned()),
        _ => Err(Error::Admin(format!("`{name}` cannot be a user of {server}"))),
    }
}
