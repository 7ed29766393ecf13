//! A web site on loopback, as links lead to: it says what it is told to, and counts who came.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What a site says at a path.
#[derive(Clone, Debug)]
pub struct Page {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Duration,
    endless: bool,
}

impl Page {
    /// A page of that media type.
    pub fn new(content_type: &str, body: impl Into<Vec<u8>>) -> Page {
        let (delay, endless) = (Duration::ZERO, false);
        Page { status: 200, headers: Vec::new(), body: body.into(), delay, endless }
            .header("Content-Type", content_type)
    }

    /// A page in HTML.
    pub fn html(body: &str) -> Page {
        Page::new("text/html; charset=utf-8", body)
    }

    /// One that says that it is elsewhere.
    pub fn moved(to: &str) -> Page {
        Page { status: 302, ..Page::new("text/plain", "") }.header("Location", to)
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: &str) -> Page {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another status.
    pub fn status(self, status: u16) -> Page {
        Page { status, ..self }
    }

    /// One that takes its time.
    pub fn after(self, delay: Duration) -> Page {
        Page { delay, ..self }
    }

    /// One whose body is said again and again.
    pub fn endless(self) -> Page {
        Page { endless: true, ..self }
    }
}

#[derive(Default)]
struct Inner {
    pages: Mutex<HashMap<String, Page>>,
    /// The heads of all requests.
    asked: Mutex<Vec<String>>,
}

/// A site; it ends with the test.
#[derive(Clone)]
pub struct Site {
    inner: Arc<Inner>,
    address: SocketAddr,
}

impl Site {
    /// Opens at an address of loopback.
    ///
    /// # Panics
    /// If the address cannot be had.
    pub async fn at(ip: &str) -> Site {
        let listener = TcpListener::bind((ip, 0)).await.expect("an address of loopback");
        let address = listener.local_addr().expect("an address");
        let inner = Arc::<Inner>::default();
        let site = Site { inner: inner.clone(), address };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inner = inner.clone();
                // Who goes away early is none of its business.
                tokio::spawn(async move { drop(inner.serve(stream).await) });
            }
        });
        site
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Puts a page at a path.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn put(&self, path: &str, page: Page) -> String {
        self.inner.pages.lock().expect("no panic").insert(path.to_owned(), page);
        self.url(path)
    }

    /// The heads of the requests for a path.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn asked(&self, path: &str) -> Vec<String> {
        let wanted = format!("GET {path} ");
        let asked = self.inner.asked.lock().expect("no panic");
        asked.iter().filter(|head| head.starts_with(&wanted)).cloned().collect()
    }

    /// How many requests came in all.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn visits(&self) -> usize {
        self.inner.asked.lock().expect("no panic").len()
    }
}

impl Inner {
    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream).take(64 * 1024);
        let mut head = String::new();
        while stream.read_line(&mut head).await? > 2 {}
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        self.asked.lock().expect("no panic").push(head);
        let page = self.pages.lock().expect("no panic").get(&path).cloned();
        let page = page.unwrap_or_else(|| Page::new("text/plain", "nothing here").status(404));
        tokio::time::sleep(page.delay).await;
        let mut answer = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", page.status);
        for (name, value) in &page.headers {
            answer += &format!("{name}: {value}\r\n");
        }
        if !page.endless {
            answer += &format!("Content-Length: {}\r\n", page.body.len());
        }
        let mut stream = stream.into_inner();
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        stream.write_all(&page.body).await?;
        if page.endless {
            loop {
                stream.write_all(&page.body).await?;
            }
        }
        stream.shutdown().await
    }
}
