//! TLS for the remote listener: its certificate and key, exchanged while connections go on.
//!
//! [`Keeper`] holds the pair that new connections get. [`Keeper::follow`] looks at the files every [`LOOK_PERIOD`], off the async thread, and takes
//! a changed pair only if all of it can be used: certificates and key can be read and belong together, and the client CA, if there is one, holds a
//! certificate. Otherwise the earlier pair stays, `goscope_remote_certificate_broken` is 1 and the log says why. Before there has been a good pair,
//! connections are closed unanswered. A connection keeps the pair that it began with.
//!
//! TLS 1.2 and 1.3, `http/1.1` as the only application protocol, ring for the cryptography. A client certificate proves that the client may
//! connect; who it is and what it may have is said by its token, as on the other listener.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::TlsFiles;
use crate::stamp::Stamp;
use metrics::{RemoteMetrics, ShakeResult};

pub mod metrics;
mod pair;
mod validity;

/// How often the files are looked at.
pub const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// Time for a whole handshake.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How often the files are read again because they changed while they were read; after that the next look finds them changed.
const READS_MAX: usize = 3;

/// The listener's own certificate, as an extension of each request that came over TLS.
#[derive(Clone, Debug)]
pub struct Certificate {
    leaf: CertificateDer<'static>,
    /// When it ends.
    pub not_after: jiff::Timestamp,
}

impl Certificate {
    /// Whether the certificate is for this DNS name, as a client would judge it: alternative names, `*` for a first label.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let Ok(name @ ServerName::DnsName(_)) = ServerName::try_from(name) else { return false };
        ParsedCertificate::try_from(&self.leaf)
            .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
    }
}

/// What new connections are accepted with.
#[derive(Clone, Debug)]
struct Pair {
    config: Arc<rustls::ServerConfig>,
    certificate: Arc<Certificate>,
}

/// What a reload found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    Unchanged,
    /// A new pair, which ends at this time.
    Loaded(jiff::Timestamp),
    /// What is wrong, with the file's name; the earlier pair stays.
    Broken(String),
}

/// The pair of now.
#[derive(Debug)]
pub struct Keeper {
    files: TlsFiles,
    current: RwLock<Option<Pair>>,
    seen: Mutex<Option<Vec<Stamp>>>,
    is_usable: watch::Sender<bool>,
    metrics: RemoteMetrics,
}

impl Keeper {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(files: TlsFiles, metrics: RemoteMetrics) -> Self {
        Self {
            files,
            current: RwLock::new(None),
            seen: Mutex::new(None),
            is_usable: watch::Sender::new(false),
            metrics,
        }
    }

    /// Reads the files again if one of them changed. Waits for the disk.
    pub fn reload(&self) -> Reload {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stamps = self.stamps();
        if seen.as_ref() == Some(&stamps) {
            return Reload::Unchanged;
        }
        let mut read = pair::read(&self.files);
        // A Secret's folder is exchanged as a whole, perhaps between our reading of the certificate and of the key.
        for _ in 1..READS_MAX {
            let after = self.stamps();
            if after == stamps {
                break;
            }
            stamps = after;
            read = pair::read(&self.files);
        }
        *seen = Some(stamps);
        self.metrics.broken(read.is_err());
        match read {
            Ok(pair) => {
                let not_after = pair.certificate.not_after;
                self.metrics.expires(not_after);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(pair);
                self.is_usable.send_replace(true);
                Reload::Loaded(not_after)
            }
            Err(problem) => Reload::Broken(problem),
        }
    }

    /// Reads the files and keeps to them until `shutdown`, off the async thread, one reading at a time.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut clock = tokio::time::interval(LOOK_PERIOD);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let look = async {
            loop {
                clock.tick().await;
                let keeper = Arc::clone(&self);
                match tokio::task::spawn_blocking(move || keeper.reload()).await {
                    Ok(Reload::Unchanged) => {}
                    Ok(Reload::Loaded(not_after)) => tracing::info!(%not_after, "certificate of listen.remote read"),
                    Ok(Reload::Broken(error)) => {
                        tracing::error!(%error, "certificate of listen.remote cannot be used, the earlier one stays");
                    }
                    Err(error) => tracing::error!(%error, "certificate of listen.remote was not read to its end"),
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = look => {}
        }
    }

    /// Waits until there is a pair.
    pub async fn usable(&self) {
        // The sender is ours, so it is there.
        drop(self.is_usable.subscribe().wait_for(|is_usable| *is_usable).await);
    }

    /// Does the handshake with the client at `peer`; `None` where it came to nothing, which has been counted.
    pub async fn shake<S>(&self, stream: S, peer: SocketAddr) -> Option<(TlsStream<S>, Arc<Certificate>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let pair = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Pair { config, certificate }) = pair else {
            self.metrics.shaken(ShakeResult::NoCertificate);
            tracing::debug!(%peer, "connection closed: there is no certificate yet");
            return None;
        };
        match tokio::time::timeout(HANDSHAKE_TIME, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => {
                self.metrics.shaken(ShakeResult::Done);
                Some((stream, certificate))
            }
            Ok(Err(error)) => {
                self.metrics.shaken(ShakeResult::Failed);
                tracing::debug!(%peer, %error, "handshake failed");
                None
            }
            Err(_) => {
                self.metrics.shaken(ShakeResult::TimedOut);
                tracing::debug!(%peer, "handshake timed out");
                None
            }
        }
    }

    fn stamps(&self) -> Vec<Stamp> {
        let TlsFiles { cert, key, client_ca } = &self.files;
        [Some(cert), Some(key), client_ca.as_ref()].into_iter().flatten().map(PathBuf::as_path).map(Stamp::of).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
