//! From PEM files to what a listener serves with. No sentence here repeats what stands in a file: one of them is a private key.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::{Certificate, Pair, validity};
use crate::config::TlsFiles;

/// Bytes of one file. A Secret as a whole has at most a MiB.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Sessions that may be resumed.
const SESSIONS_MAX: usize = 64;

/// Reads the files and checks that they can be used together. Waits for the disk.
///
/// # Errors
/// One sentence that begins with the file's path.
pub(super) fn read(files: &TlsFiles) -> Result<Pair, String> {
    let of = |path: &Path, problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let chain = certificates(&files.cert)?;
    let leaf = chain.first().cloned().ok_or_else(|| of(&files.cert, &"expected a certificate"))?;
    let not_after = validity::not_after(&leaf)
        .ok_or_else(|| of(&files.cert, &"the first certificate does not say until when it is valid"))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?)
        .map_err(|error| of(&files.key, &complaint(&error, "a private key")))?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| of(&files.cert, &error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| of(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| of(path, &error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            of(&files.key, &format!("this key does not belong to the certificate in {}", files.cert.display()))
        }
        error => format!("{}, {}: {error}", files.cert.display(), files.key.display()),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    Ok(Pair { config: Arc::new(config), certificate: Arc::new(Certificate { leaf, not_after }) })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(&bytes(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{}: {}", path.display(), complaint(&error, "a certificate")))?;
    if found.is_empty() {
        Err(format!("{}: expected a certificate in PEM, found none", path.display()))
    } else {
        Ok(found)
    }
}

fn complaint(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("expected {wanted} in PEM, found none"),
        pem::Error::MissingSectionEnd { .. } => format!("expected {wanted} in PEM, found one without its END line"),
        _ => format!("expected {wanted} in PEM, found one that is not well-formed"),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let of = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let is_file = fs::metadata(path).map_err(|error| of(&error))?.is_file();
    if !is_file {
        return Err(of(&"expected a file, found something else"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| of(&error))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| of(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(of(&format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
