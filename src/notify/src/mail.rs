//! Letters: what `accounts` wrote down is sent by SMTP, in the language of its reader, and tried again until it is sent or worth
//! nothing any more. A crash between the sending and its note sends a letter twice, with the same `Message-ID`.

mod texts;

use std::time::Duration;

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    address::AddressError,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        authentication::Credentials,
        client::{Tls, TlsParameters},
    },
};
use stoa_store::{
    Direction, Env, Store, Tx,
    rows::emails::{self, Letter},
    schema,
};

/// How long a letter that cannot be sent waits: twice as long each time, from the first to the last.
const FIRST_WAIT_MS: u64 = 10_000;
const LAST_WAIT_MS: u64 = 60 * 60 * 1000;
/// How often it is looked for letters, and how many are sent in one go.
const LOOK: Duration = Duration::from_millis(500);
const PAGE: usize = 20;
/// How long one letter may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a mail server is spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte.
    Tls,
    /// TLS after `STARTTLS`, without which nothing is said.
    StartTls,
    /// In the open: to a mail server on the same machine.
    None,
}

/// The mail server, and what letters say of this one.
#[derive(Clone)]
pub struct MailConfig {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken with.
    pub security: Security,
    /// The user and password that it wants.
    pub login: Option<(String, String)>,
    /// From whom letters are: `Stoa <stoa@example.org>`.
    pub from: String,
    /// The name of this server.
    pub server: String,
}

impl std::fmt::Debug for MailConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailConfig").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Why letters cannot be sent with these settings.
#[derive(Debug, thiserror::Error)]
pub enum BadMail {
    /// The sender is no address.
    #[error("from: {0}")]
    From(#[from] AddressError),
    /// The mail server cannot be spoken with so.
    #[error("{0}")]
    Server(#[from] lettre::transport::smtp::Error),
}

/// Who sends letters.
pub struct Mailer {
    store: Store,
    env: Env,
    from: Mailbox,
    server: String,
    smtp: AsyncSmtpTransport<Tokio1Executor>,
}

/// What became of a letter.
enum Fate {
    Sent,
    /// It may be sent later.
    Later(String),
    /// It never can be.
    Never(String),
}

impl Mailer {
    /// # Errors
    /// [`BadMail`]
    pub fn new(store: Store, env: Env, config: &MailConfig) -> Result<Mailer, BadMail> {
        let tls = match config.security {
            Security::Tls => Tls::Wrapper(TlsParameters::new(config.host.clone())?),
            Security::StartTls => Tls::Required(TlsParameters::new(config.host.clone())?),
            Security::None => Tls::None,
        };
        let mut smtp = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
            .port(config.port)
            .tls(tls)
            .timeout(Some(PATIENCE));
        if let Some((user, password)) = &config.login {
            smtp = smtp.credentials(Credentials::new(user.clone(), password.clone()));
        }
        Ok(Mailer { store, env, from: config.from.parse()?, server: config.server.clone(), smtp: smtp.build() })
    }

    /// Sends letters, for as long as it is polled.
    pub async fn run(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.send_due().await {
                Ok(()) => {}
                Err(stoa_store::Error::Closed) => return,
                Err(why) => tracing::warn!(%why, "cannot read the letters that are to be sent"),
            }
        }
    }

    /// Sends what is due.
    async fn send_due(&self) -> Result<(), stoa_store::Error> {
        loop {
            let snapshot = self.store.snapshot().await?;
            let letters = snapshot.scan(&schema::LETTERS, &(), Direction::Forward, PAGE).await?;
            let now = self.env.now_ms();
            if letters.first().is_none_or(|((due, _), _)| *due > now) {
                return Ok(());
            }
            for ((due, id), letter) in letters.into_iter().filter(|((due, _), _)| *due <= now) {
                let fate = if letter.expires <= now {
                    Fate::Never("it is worth nothing any more".to_owned())
                } else {
                    self.send(&id, &letter).await
                };
                let mut tx = Tx::new();
                emails::delete_letter(&mut tx, due, &id);
                match fate {
                    Fate::Sent => {}
                    Fate::Never(why) => tracing::warn!(why, "a letter was not sent"),
                    Fate::Later(why) => {
                        let wait = (FIRST_WAIT_MS << letter.tries.min(10)).min(LAST_WAIT_MS);
                        tracing::info!(why, wait_ms = wait, "a letter is sent later");
                        let later = Letter { tries: letter.tries + 1, ..letter };
                        emails::put_letter(&mut tx, self.env.now_ms() + wait, &id, &later);
                    }
                }
                self.store.commit(tx).await?;
            }
        }
    }

    async fn send(&self, id: &str, letter: &Letter) -> Fate {
        let Ok(to) = letter.to.parse::<lettre::Address>() else { return Fate::Never("it has no address".to_owned()) };
        let text = texts::text(&letter.languages, &letter.about);
        let (server, link) = (&self.server, &letter.link);
        let fill = |text: &str| text.replace("{server}", server).replace("{link}", link);
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(fill(text.subject))
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            // Nobody's automatic answer is wanted (RFC 3834).
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN)
            .body(fill(text.body));
        let message = match message {
            Ok(message) => message,
            Err(why) => return Fate::Never(why.to_string()),
        };
        match tokio::time::timeout(PATIENCE, self.smtp.send(message)).await {
            Ok(Ok(_)) => Fate::Sent,
            // What the server says may name the address: only the code is told.
            Ok(Err(why)) if why.is_permanent() => Fate::Never(said(&why)),
            Ok(Err(why)) => Fate::Later(said(&why)),
            Err(_) => Fate::Later("the mail server takes too long".to_owned()),
        }
    }
}

fn said(why: &lettre::transport::smtp::Error) -> String {
    match why.status() {
        Some(code) => format!("the mail server said {code}"),
        None => "the mail server cannot be reached".to_owned(),
    }
}

/// RFC 3834: a program wrote it.
#[derive(Clone)]
struct AutoSubmitted;

impl lettre::message::header::Header for AutoSubmitted {
    fn name() -> lettre::message::header::HeaderName {
        lettre::message::header::HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(AutoSubmitted)
    }

    fn display(&self) -> lettre::message::header::HeaderValue {
        lettre::message::header::HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
