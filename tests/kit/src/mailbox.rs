//! A mail server on loopback: it takes letters, refuses them or is away, as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How long a test waits for a letter.
const PATIENCE: Duration = Duration::from_secs(40);

/// A letter that was taken.
#[derive(Clone, Debug)]
pub struct Mail {
    /// To whom.
    pub to: String,
    /// Its lines: headers, an empty one, the text.
    pub lines: Vec<String>,
}

impl Mail {
    /// The value of a header.
    pub fn header(&self, name: &str) -> &str {
        let head = self.lines.iter().take_while(|line| !line.is_empty());
        let mut found = head.filter_map(|line| line.split_once(": "));
        found.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// The path of the page that it leads to.
    ///
    /// # Panics
    /// If it leads nowhere.
    pub fn path(&self) -> String {
        let text = self.text();
        let link = text.split_whitespace().find(|word| word.contains("/_stoa/email/")).expect("a link");
        link[link.find("/_stoa").expect("a path")..].to_owned()
    }

    /// The text as its reader sees it (RFC 2045, "Quoted-Printable").
    pub fn text(&self) -> String {
        let body: Vec<&str> =
            self.lines.iter().skip_while(|line| !line.is_empty()).skip(1).map(String::as_str).collect();
        if !self.header("Content-Transfer-Encoding").eq_ignore_ascii_case("quoted-printable") {
            return body.join("\n");
        }
        let joined = body.join("\n").replace("=\n", "");
        let mut bytes = Vec::new();
        let mut rest = joined.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let hex = (*first == b'=').then(|| after.get(..2)).flatten();
            match hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
                Some(byte) => {
                    bytes.push(byte);
                    rest = &after[2..];
                }
                None => {
                    bytes.push(*first);
                    rest = after;
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[derive(Default)]
struct Inner {
    letters: Mutex<Vec<Mail>>,
    /// What is said instead of taking a letter.
    refusal: Mutex<Option<String>>,
    asked: Mutex<usize>,
}

/// A mail server; it ends with the test.
pub struct Mailbox {
    inner: Arc<Inner>,
    address: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Mailbox {
    /// Opens on a free port of loopback.
    ///
    /// # Panics
    /// If there is none.
    pub async fn open() -> Mailbox {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let mut mailbox = Mailbox { inner: Arc::default(), address, serving: None };
        mailbox.serve(listener);
        mailbox
    }

    fn serve(&mut self, listener: TcpListener) {
        let inner = self.inner.clone();
        self.serving = Some(tokio::spawn(async move {
            let mut talks = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let inner = inner.clone();
                talks.spawn(async move { drop(talk(&inner, stream).await) });
            }
        }));
    }

    /// It cannot be reached any more.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// It can be reached again.
    ///
    /// # Panics
    /// If its address was taken by somebody else.
    pub async fn start(&mut self) {
        self.serve(TcpListener::bind(self.address).await.expect("the same address"));
    }

    /// From now on letters are answered so: `450 not now`; or taken again.
    pub fn refuse(&self, refusal: Option<&str>) {
        *self.inner.refusal.lock().expect("a lock") = refusal.map(str::to_owned);
    }

    /// How many letters it was offered.
    pub fn asked(&self) -> usize {
        *self.inner.asked.lock().expect("a lock")
    }

    /// The section of a configuration that sends letters here, with more lines.
    pub fn config(&self, more: &str) -> String {
        format!(
            "[email]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\nfrom = \"Stoa <stoa@example.org>\"\n{more}\n",
            self.address.port()
        )
    }

    /// The letters to somebody, so far.
    pub fn letters(&self, to: &str) -> Vec<Mail> {
        let letters = self.inner.letters.lock().expect("a lock");
        letters.iter().filter(|mail| mail.to == to).cloned().collect()
    }

    /// Waits until somebody has so many letters; the last of them.
    ///
    /// # Panics
    /// If they do not come.
    pub async fn letter(&self, to: &str, number: usize) -> Mail {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let letters = self.letters(to);
            if let Some(mail) = letters.get(number - 1) {
                return mail.clone();
            }
            assert!(tokio::time::Instant::now() < until, "letter {number} to {to} did not come");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// RFC 5321, as much of it as is needed to take letters.
async fn talk(inner: &Inner, stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut to, mut line) = (String::new(), String::new());
    stream.write_all(b"220 mailbox\r\n").await?;
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let said = line.trim_end().to_owned();
        let answer = match said.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => "250-mailbox\r\n250 8BITMIME".to_owned(),
            "RCPT" => {
                to = said.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                "250 ok".to_owned()
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let lines = letter(&mut stream).await?;
                *inner.asked.lock().expect("a lock") += 1;
                let refusal = inner.refusal.lock().expect("a lock").clone();
                if refusal.is_none() {
                    inner.letters.lock().expect("a lock").push(Mail { to: to.clone(), lines });
                }
                refusal.unwrap_or_else(|| "250 taken".to_owned())
            }
            "QUIT" => return stream.write_all(b"221 bye\r\n").await,
            _ => "250 ok".to_owned(),
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
}

async fn letter(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<String>> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end_matches(['\r', '\n']) {
            "." => return Ok(lines),
            said => lines.push(said.strip_prefix('.').unwrap_or(said).to_owned()),
        }
    }
}
