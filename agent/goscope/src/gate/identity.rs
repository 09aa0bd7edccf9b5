//! Who asks: reading credentials and finding the token they belong to.
//!
//! A token may come as `Authorization: Bearer`, as the password of `Authorization: Basic` (what `go tool pprof` sends for a URL with user
//! information), or as `X-Debug-Token`. Whatever is presented must be right: a wrong credential is never passed over for another one.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use jiff::Timestamp;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::refuse::{Code, Refusal};
use crate::token::file::Entry;
use crate::token::{Digest, PREFIX, Token, TokenError};

static X_DEBUG_TOKEN: HeaderName = HeaderName::from_static("x-debug-token");
/// Bytes of one credential header. Tokens need less than a hundred, minted ones will need a few hundred.
const CREDENTIAL_BYTES_MAX: usize = 4096;
/// Credential headers in one request.
const CREDENTIALS_MAX: usize = 4;
/// Characters of a Basic user name that are kept for the audit line.
const USER_CHARS_MAX: usize = 64;

/// Every token that is known at one moment.
#[derive(Debug, Default)]
pub struct TokenSet {
    entries: Vec<Arc<Entry>>,
}

impl TokenSet {
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { entries: entries.into_iter().map(Arc::new).collect() }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Compares with every entry, each in constant time, so that the time tells neither whether nor where there was a match.
    fn find(&self, digest: &Digest) -> Option<&Arc<Entry>> {
        let mut place = u64::MAX;
        for (index, entry) in (0u64..).zip(&self.entries) {
            let equal: Choice = entry.sha256.bytes().ct_eq(digest.bytes());
            place.conditional_assign(&index, equal);
        }
        usize::try_from(place).ok().and_then(|place| self.entries.get(place))
    }
}

/// The token that was presented, and what came with it.
#[derive(Clone, Debug)]
pub struct Identity {
    pub entry: Arc<Entry>,
    /// The user name of Basic: whoever shares a token says who they are; nothing checks it.
    pub user: Option<String>,
}

/// Finds out who asks.
///
/// # Errors
/// 401: no credential, one that is not known, not yet or no longer valid, or several that disagree.
pub fn identify(headers: &HeaderMap, tokens: &TokenSet, now: Timestamp) -> Result<Identity, Refusal> {
    let presented = presented(headers)?;
    let Some(entry) = tokens.find(&presented.digest) else {
        return Err(Refusal::new(Code::BadCredential, complaint(&presented.token)));
    };
    if let Some(start) = entry.not_before.filter(|start| now < *start) {
        return Err(Refusal::new(
            Code::TokenNotYetValid,
            format!("the token {} is not valid before {start}", entry.name),
        ));
    }
    if let Some(end) = entry.expires.filter(|end| now >= *end) {
        return Err(Refusal::new(Code::TokenExpired, format!("the token {} expired at {end}", entry.name)));
    }
    Ok(Identity { entry: Arc::clone(entry), user: presented.user })
}

struct Presented<'h> {
    digest: Digest,
    token: Cow<'h, [u8]>,
    user: Option<String>,
}

/// The one credential of a request. Several that carry the same token are one.
fn presented(headers: &HeaderMap) -> Result<Presented<'_>, Refusal> {
    let authorizations = headers.get_all(AUTHORIZATION).iter().map(authorization);
    let own = headers.get_all(&X_DEBUG_TOKEN).iter().map(|value| plain(value.as_bytes().into(), None));
    let mut all = authorizations.chain(own);
    let Some(first) = all.next() else {
        let sentence = "a token is needed; send it as the password (http://me:TOKEN@host/…), as Authorization: Bearer or as X-Debug-Token";
        return Err(Refusal::new(Code::NoCredential, sentence));
    };
    let mut first = first?;
    for (count, other) in all.enumerate() {
        let other = other?;
        if count + 2 > CREDENTIALS_MAX || other.digest != first.digest {
            return Err(Refusal::new(
                Code::CredentialsDisagree,
                "several credentials were sent and they are not the same token",
            ));
        }
        first.user = first.user.or(other.user);
    }
    Ok(first)
}

fn authorization(value: &HeaderValue) -> Result<Presented<'_>, Refusal> {
    let bad = |sentence: &'static str| Refusal::new(Code::BadCredential, sentence);
    let value = value.as_bytes();
    let space =
        value.iter().position(|b| *b == b' ').ok_or_else(|| bad("the Authorization header holds no credential"))?;
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii();
    if rest.is_empty() || rest.len() > CREDENTIAL_BYTES_MAX {
        return Err(bad("the Authorization header holds no credential"));
    }
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return plain(rest.into(), None);
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Err(bad("the Authorization header must be of the kind Bearer or Basic"));
    }
    let decoded = STANDARD.decode(rest).map_err(|_| bad("the Basic credential is not valid base64"))?;
    let colon = decoded.iter().position(|b| *b == b':').ok_or_else(|| bad("the Basic credential has no colon"))?;
    let (user, password) = decoded.split_at(colon);
    let password = password.strip_prefix(b":").unwrap_or_default();
    if password.is_empty() {
        return Err(bad("the password is empty; the token belongs there: http://me:TOKEN@host/…"));
    }
    plain(password.to_vec().into(), Some(user))
}

fn plain<'h>(token: Cow<'h, [u8]>, user: Option<&[u8]>) -> Result<Presented<'h>, Refusal> {
    if token.is_empty() || token.len() > CREDENTIAL_BYTES_MAX {
        return Err(Refusal::new(Code::BadCredential, "the credential is empty or far too long"));
    }
    Ok(Presented { digest: Digest::of(&token), token, user: user.and_then(user_detail) })
}

/// What is wrong with a token that is not known, as far as it can be seen.
fn complaint(token: &[u8]) -> &'static str {
    match std::str::from_utf8(token).map(Token::parse) {
        Ok(Ok(_)) => "this token is not known here",
        Ok(Err(TokenError::Checksum)) => "this token was mistyped or cut: its checksum does not fit",
        _ => "this is not a token of goscope (gsc_ and 38 letters and digits)",
    }
}

/// The user name as it may stand in an audit line. A token typed in the wrong place must not.
fn user_detail(user: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(user).ok()?;
    let good = !text.is_empty() && !text.contains(PREFIX) && text.chars().all(|c| !c.is_control());
    good.then(|| text.chars().take(USER_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests;
