//! `stoa user ...` and `stoa search ...`: asks for what is needed, has it done, and says what happened.

use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::{
    Error,
    admin::{self, Answer, Command},
    args::User,
    config::Config,
    env, say, wire,
};

/// Does a command about accounts: the running server does it, or else we do on its data.
///
/// # Errors
/// Where it was not done, and why.
pub async fn run(config: &Config, user: User) -> Result<(), Error> {
    let command = command(user)?;
    let answer = match admin::ask(&config.data, &command).await? {
        Some(answer) => answer,
        None => {
            let parts = wire::open(config, env::system()).await?;
            let answer = admin::run(&parts.api, command).await;
            parts.close().await;
            answer
        }
    };
    match answer {
        Answer::Done { user, admin } => say(&format!("{user}{}", if admin { " (administrator)" } else { "" })),
        Answer::Users(users) => {
            for listed in users {
                let mark = match (listed.admin, listed.deactivated) {
                    (_, true) => "\tdeactivated",
                    (true, _) => "\tadministrator",
                    _ => "",
                };
                say(&format!("{}{mark}", listed.user));
            }
        }
        Answer::Begun => {}
        Answer::Failed(why) => return Err(Error::Admin(why)),
    }
    Ok(())
}

/// `stoa search rebuild`: the running server makes the index anew, or the next one does that finds none.
///
/// # Errors
/// Where it was not done, and why.
pub async fn rebuild_search(config: &Config) -> Result<(), Error> {
    match admin::ask(&config.data, &Command::RebuildSearch).await? {
        Some(Answer::Begun) => say("the index is being made anew; the log says when it is whole"),
        Some(Answer::Failed(why)) => return Err(Error::Admin(why)),
        Some(_) => return Err(Error::Admin("the running server answers something else".to_owned())),
        None => {
            let path = config.search().folder;
            match std::fs::remove_dir_all(&path) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(Error::Folder { path, why }),
                _ => say("the index is made anew when the server starts"),
            }
        }
    }
    Ok(())
}

fn command(user: User) -> Result<Command, Error> {
    Ok(match user {
        User::Add { name, admin, password_stdin } => {
            Command::AddUser { name, password: password(password_stdin)?, admin }
        }
        User::Password { name, password_stdin } => Command::SetPassword { name, password: password(password_stdin)? },
        User::List => Command::ListUsers,
        User::Deactivate { name, erase } => Command::Deactivate { name, erase },
    })
}

fn password(from_stdin: bool) -> Result<String, Error> {
    let terminal = io::stdin().is_terminal();
    if from_stdin || !terminal {
        return read_line();
    }
    let first = ask("Password: ")?;
    if ask("Again: ")? != first {
        return Err(Error::Admin("the two passwords differ".to_owned()));
    }
    Ok(first)
}

/// Asks on the terminal without showing what is typed.
fn ask(what: &str) -> Result<String, Error> {
    let broken = |why: io::Error| Error::Admin(format!("cannot ask for the password: {why}"));
    let stdin = io::stdin();
    let mut out = io::stderr();
    out.write_all(what.as_bytes()).and_then(|()| out.flush()).map_err(broken)?;
    let shown = tcgetattr(&stdin).map_err(|why| broken(why.into()))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|why| broken(why.into()))?;
    let line = read_line();
    let _ = tcsetattr(&stdin, OptionalActions::Flush, &shown);
    let _ = out.write_all(b"\n");
    line
}

fn read_line() -> Result<String, Error> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|why| Error::Admin(format!("cannot read the password: {why}")))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
