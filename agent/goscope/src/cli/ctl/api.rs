//! The agent's API as a client sees it, over any stream: one request at a time, a stream kept as long as both sides keep it.
//!
//! What the agent refuses is told in its own words. A limit that says when to come back is waited for, up to [`PATIENCE`].

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use goscope_analysis::text::printable;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::link::Link;
use crate::cluster::forward::Words;
use crate::cluster::problem::bounded;
use crate::gate::refuse::X_GOSCOPE_CODE;
use crate::token::Token;

/// How long an answer may take to begin. Nothing that is asked here waits for a profile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a body may be silent.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer that is read as a whole.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// The longest wait that a limit may ask for; a longer one is told.
const PATIENCE: Duration = Duration::from_secs(10);
/// Waits for limits of one request.
const WAITS_MAX: u32 = 10;
const AGENT: &str = concat!("goscope-ctl/", env!("CARGO_PKG_VERSION"));

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{0}")]
    Refused(Refusal),
    /// There was no answer, or none of this API.
    #[error("{0}")]
    Broken(String),
}

/// A refusal, in the agent's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The stable code, if the answer is one of goscope.
    pub(super) code: Option<String>,
    pub(super) said: String,
    retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} ({}, status {})", self.said, bounded(code), self.status)?,
            None => write!(f, "{} (status {})", self.said, self.status)?,
        }
        if self.status == StatusCode::NOT_FOUND.as_u16() && self.code.as_deref() == Some("unknown_route") {
            f.write_str("; the agent is older than this command")?;
        }
        match self.retry_after {
            Some(after) => write!(f, "; try again in {} s", after.as_secs()),
            None => Ok(()),
        }
    }
}

/// A problem document, RFC 9457.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ProblemDocument {
    title: Option<String>,
    detail: Option<String>,
    code: Option<String>,
}

/// A client of one agent.
pub(super) struct Api {
    link: Link,
    authorization: HeaderValue,
    open: Option<SendRequest<Full<Bytes>>>,
    words: Option<Words>,
}

impl Api {
    pub(super) fn new(link: Link, token: &Token) -> Self {
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
            .expect("a token has only letters, digits and _");
        authorization.set_sensitive(true);
        Self { link, authorization, open: None, words: None }
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// No answer, a refusal, or an answer that is not such a document.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ApiError> {
        let answer = self.send(&Method::GET, path, None).await?;
        self.document(answer).await
    }

    /// Sends a document and takes one.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) async fn post<T: DeserializeOwned>(&mut self, path: &str, body: &Value) -> Result<T, ApiError> {
        let answer = self.send(&Method::POST, path, Some(body)).await?;
        self.document(answer).await
    }

    /// Deletes, and takes no document.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub(super) async fn delete(&mut self, path: &str) -> Result<(), ApiError> {
        let answer = self.send(&Method::DELETE, path, None).await?;
        let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect();
        // Read to its end only so that the stream stays usable.
        drop(tokio::time::timeout(SILENCE_TIMEOUT, body).await);
        Ok(())
    }

    /// Asks for bytes, which come with the answer's headers.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub(super) async fn download(&mut self, path: &str) -> Result<Download, ApiError> {
        let answer = self.send(&Method::GET, path, None).await?;
        let (parts, body) = answer.into_parts();
        Ok(Download { headers: parts.headers, body, from: self.link.name() })
    }

    async fn document<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> Result<T, ApiError> {
        let broken = |what: &str| ApiError::Broken(format!("{} {what}", self.link.name()));
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
        let body = tokio::time::timeout(ANSWER_TIMEOUT, body)
            .await
            .map_err(|_| broken("stopped in the middle of its answer"))?;
        let bytes = body.map_err(|_| broken("broke off its answer, or it is too long"))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|error| {
            let error = bounded(&error.to_string());
            broken(&format!("answers something else than expected ({error}); is it goscope?"))
        })
    }

    async fn send(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, ApiError> {
        let mut waits = 0;
        loop {
            let answer = self.exchange(method, path, body).await?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            let refusal = refusal(answer).await;
            match refusal.retry_after {
                Some(after) if refusal.status == 429 && after <= PATIENCE && waits < WAITS_MAX => {
                    waits += 1;
                    tokio::time::sleep(after.max(Duration::from_secs(1))).await;
                }
                _ => return Err(ApiError::Refused(refusal)),
            }
        }
    }

    /// One request and the head of its answer. A kept stream that the other side has closed meanwhile is opened anew.
    async fn exchange(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, ApiError> {
        let mut kept = self.open.take();
        loop {
            let is_kept = kept.is_some();
            let mut sender = match kept.take() {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            if sender.ready().await.is_err() && is_kept {
                continue;
            }
            let request = self.request(method, path, body)?;
            match tokio::time::timeout(ANSWER_TIMEOUT, sender.try_send_request(request)).await {
                Ok(Ok(answer)) => {
                    self.open = Some(sender);
                    return Ok(answer);
                }
                // Given back unsent: it is safe to send it again.
                Ok(Err(error)) if is_kept && error.message().is_some() => {}
                Ok(Err(error)) => return Err(self.broken(&error.into_error()).await),
                Err(_) => {
                    let seconds = ANSWER_TIMEOUT.as_secs();
                    return Err(ApiError::Broken(format!("{} does not answer within {seconds} s", self.link.name())));
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, ApiError> {
        let (stream, words) = self.link.open().await.map_err(|error| ApiError::Broken(format!("{error:#}")))?;
        self.words = words;
        let (sender, connection) = match handshake(TokioIo::new(stream)).await {
            Ok(opened) => opened,
            Err(error) => return Err(self.broken(&error).await),
        };
        // Ends with the stream; what it fails with is seen by the request.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, ApiError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.link.host())
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "*/*")
            .header(AUTHORIZATION, self.authorization.clone());
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        request.body(Full::new(bytes)).map_err(|error| ApiError::Broken(format!("the request cannot be made: {error}")))
    }

    /// Why a stream broke: the node knows best, if there is one.
    async fn broken(&mut self, error: &hyper::Error) -> ApiError {
        let words = match self.words.take() {
            Some(words) => words.problem().await,
            None => None,
        };
        ApiError::Broken(words.unwrap_or_else(|| {
            let name = self.link.name();
            if error.is_parse() {
                format!("{name} does not speak HTTP; is it goscope?")
            } else {
                format!("{name} closed the connection without an answer")
            }
        }))
    }
}

/// Bytes on their way, with the headers that announce them.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) headers: HeaderMap,
    body: Incoming,
    from: String,
}

impl Download {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The stream broke before the end, or is silent.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let frame = tokio::time::timeout(SILENCE_TIMEOUT, self.body.frame()).await;
            let frame = frame.map_err(|_| {
                ApiError::Broken(format!("{} sends nothing more since {} s", self.from, SILENCE_TIMEOUT.as_secs()))
            })?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(_)) => return Err(ApiError::Broken(format!("{} broke off in the middle", self.from))),
            }
        }
    }
}

async fn refusal(answer: Response<Incoming>) -> Refusal {
    let (parts, body) = answer.into_parts();
    let body = tokio::time::timeout(SILENCE_TIMEOUT, Limited::new(body, REFUSAL_BYTES_MAX).collect()).await;
    let bytes = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    read_refusal(parts.status, &parts.headers, &bytes)
}

/// A problem document, or the sentence of the gate, or whatever else stands in between us and the agent.
fn read_refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let document: ProblemDocument = serde_json::from_slice(body).unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("goscope: ").unwrap_or(line);
    let is_text = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/plain"));
    let said = document
        .detail
        .or(document.title)
        .or_else(|| Some(line.to_owned()).filter(|line| is_text && !line.is_empty()))
        .unwrap_or_else(|| status.canonical_reason().unwrap_or("refused").to_owned());
    Refusal {
        status: status.as_u16(),
        code: document.code.or_else(|| headers.get(&X_GOSCOPE_CODE)?.to_str().ok().map(str::to_owned)),
        said: printable(said.trim()).chars().take(1000).collect(),
        retry_after: header(RETRY_AFTER).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
    }
}

#[cfg(test)]
pub(super) mod tests;
