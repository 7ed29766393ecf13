//! TLS for those who speak it to us without a proxy in between: other servers above all. The certificate is read from
//! two PEM files, and read again when they change, without cutting anybody off.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

/// Certificates and keys are small; anything else was named by mistake.
const FILE_BYTES: u64 = 1 << 20;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {why}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {why}", .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Each is fine, but not with the other.
    #[error("{} and {} cannot be used together: {why}", .certificate.display(), .key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why not.
        why: rustls::Error,
    },
    /// The library refuses our own settings.
    #[error(transparent)]
    Setup(#[from] rustls::Error),
}

/// What tells one content of a file from another without reading it.
type Stamp = (Option<SystemTime>, u64);

/// The certificate that is shown to whoever connects.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    shown: Arc<Shown>,
    /// The files that `shown` came from.
    stamps: Mutex<[Stamp; 2]>,
    acceptor: TlsAcceptor,
}

#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// Where a file cannot be read, is none, or the two do not belong together.
    pub async fn open(certificate: &Path, key: &Path) -> Result<Tls, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (stamps, pair) = read(certificate, key, &provider).await?;
        let shown = Arc::new(Shown(ArcSwap::from_pointee(pair)));
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            provider,
            shown,
            stamps: Mutex::new(stamps),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// What makes a TLS connection of a plain one.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Reads the files again if they changed. What cannot be used is reported and changes nothing.
    pub async fn refresh(&self) {
        match stamps(&self.certificate, &self.key).await {
            Ok(now) if now == *self.stamps.lock() => {}
            _ => self.reload().await,
        }
    }

    /// Reads the files again.
    pub async fn reload(&self) {
        match read(&self.certificate, &self.key, &self.provider).await {
            Ok((stamps, pair)) => {
                self.shown.0.store(Arc::new(pair));
                *self.stamps.lock() = stamps;
                tracing::info!(file = %self.certificate.display(), "the TLS certificate was read again");
            }
            Err(why) => tracing::warn!(%why, "the TLS certificate stays as it was"),
        }
    }
}

async fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<([Stamp; 2], CertifiedKey), Error> {
    // Before reading: what is written while we read is seen the next time.
    let stamps = stamps(certificate, key).await?;
    for (path, (_, size)) in [certificate, key].into_iter().zip(stamps) {
        if size > FILE_BYTES {
            let why = "it is far too large for a certificate or a key".to_owned();
            return Err(Error::Content { path: path.to_owned(), why });
        }
    }
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes(certificate).await?)
        .collect::<Result<_, _>>()
        .map_err(|why| content(certificate, "a certificate", &why))?;
    if chain.is_empty() {
        return Err(content(certificate, "a certificate", &pem::Error::NoItemsFound));
    }
    let secret =
        PrivateKeyDer::from_pem_slice(&bytes(key).await?).map_err(|why| content(key, "a private key", &why))?;
    let pair = CertifiedKey::from_der(chain, secret, provider).map_err(|why| Error::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        why,
    })?;
    Ok((stamps, pair))
}

async fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    tokio::fs::read(path).await.map_err(|why| Error::Read { path: path.to_owned(), why })
}

async fn stamps(certificate: &Path, key: &Path) -> Result<[Stamp; 2], Error> {
    let mut stamps = [(None, 0); 2];
    for (path, stamp) in [certificate, key].into_iter().zip(&mut stamps) {
        let found = tokio::fs::metadata(path).await.map_err(|why| Error::Read { path: path.to_owned(), why })?;
        *stamp = (found.modified().ok(), found.len());
    }
    Ok(stamps)
}

fn content(path: &Path, wanted: &str, why: &pem::Error) -> Error {
    let why = match why {
        pem::Error::NoItemsFound => format!("there is no PEM section with {wanted} in it"),
        other => format!("it does not hold {wanted} in PEM: {other}"),
    };
    Error::Content { path: path.to_owned(), why }
}
