//! An S3-compatible server on loopback, which checks signatures: its objects are files in a folder.

use std::{net::SocketAddr, path::Path};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

const ID: &str = "stoa";
const KEY: &str = "the key of the bucket";

/// A bucket; it ends with the test.
pub struct Bucket {
    folder: TempDir,
    address: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Bucket {
    /// A bucket of that name.
    ///
    /// # Panics
    /// If the folder or the address cannot be had.
    pub async fn open(name: &str) -> Bucket {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(name)).expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let mut bucket = Bucket { folder, address, serving: None };
        bucket.serve(listener);
        bucket
    }

    fn serve(&mut self, listener: TcpListener) {
        let files = FileSystem::new(self.folder.path()).expect("a folder");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ID, KEY));
        let service = service.build();
        self.serving = Some(tokio::spawn(async move {
            let http = Builder::new(TokioExecutor::new());
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let connection = http.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
                connections.spawn(async move { drop(connection.await) });
            }
        }));
    }

    /// It does not answer any more.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// It answers again.
    ///
    /// # Panics
    /// If its address was taken by somebody else.
    pub async fn start(&mut self) {
        self.serve(TcpListener::bind(self.address).await.expect("the same address"));
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The id of its key, and the key.
    pub fn key(&self) -> (&'static str, &'static str) {
        (ID, KEY)
    }

    /// Puts an object into a bucket by another way.
    ///
    /// # Panics
    /// If the disk fails.
    pub fn put(&self, name: &str, object: &str, bytes: &[u8]) {
        let path = self.folder.path().join(name).join(object);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("an object");
    }

    /// The section of a configuration that leads to the bucket of that name, with more lines.
    pub fn config(&self, name: &str, more: &str) -> String {
        format!(
            "[media.bucket]\nname = \"{name}\"\nendpoint = \"{}\"\naccess_key = \"{ID}\"\nsecret_key = \"{KEY}\"\n{more}\n",
            self.url()
        )
    }

    /// The objects in a bucket: their names and bytes.
    pub fn objects(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let (mut found, mut folders) = (Vec::new(), vec![self.folder.path().join(name)]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    _ => found.push((relative(&entry.path(), &self.folder.path().join(name)), read(&entry.path()))),
                }
            }
        }
        found.sort();
        found
    }
}

fn relative(path: &Path, to: &Path) -> String {
    path.strip_prefix(to).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}
