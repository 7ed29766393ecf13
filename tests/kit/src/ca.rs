//! A certificate authority of the tests' own: servers of a test show its certificates, and trust nobody else.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// An authority; its certificate lies in a temporary folder.
pub struct Ca {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, as PEM files.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Ca {
    /// A new authority, which nobody knows.
    ///
    /// # Panics
    /// If it cannot be made or written.
    pub fn new() -> Arc<Ca> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Stoa tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate of the authority");
        let folder = tempfile::Builder::new().prefix("stoa-ca-").tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("the certificate is written");
        Arc::new(Ca { folder, issuer: Issuer::new(params, key) })
    }

    /// The authority that all servers of this process share, for as long as somebody holds it.
    pub fn shared() -> Arc<Ca> {
        static SHARED: Mutex<Weak<Ca>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let ca = Ca::new();
            *shared = Arc::downgrade(&ca);
            ca
        })
    }

    /// The file of its certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes a certificate for these names and addresses into a folder, over one that is there.
    ///
    /// # Panics
    /// If it cannot be made or written.
    pub fn issue(&self, folder: &Path, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names of a certificate");
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let files = CertificateFiles { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
        std::fs::write(&files.certificate, certificate.pem()).expect("the certificate is written");
        std::fs::write(&files.key, key.serialize_pem()).expect("the key is written");
        files
    }
}
