//! Tokens: `gsc_`, 32 base62 characters of randomness (190 bits), 6 base62 characters of checksum.
//!
//! The prefix lets secret scanners find leaked tokens, the checksum (CRC-32 of the 32 characters, as GitHub's tokens have it) lets them and us tell
//! a token from a typing mistake without asking anyone. Only the SHA-256 of a token is ever stored; [`mod@file`] reads the files that hold
//! it. The one exception is `goscope run`, which keeps its own token in a file of mode 0600 ([`keep`]).

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};

pub mod file;
pub mod tier;

use tier::TierSet;

pub const PREFIX: &str = "gsc_";
/// The environment variable that holds a token file's text, for an agent that can mount no file.
pub const ENV_TOKENS: &str = "GOSCOPE_TOKENS";
const RANDOM_CHARS: usize = 32;
const CHECK_CHARS: usize = 6;
/// Bytes of a token.
pub const TOKEN_BYTES: usize = PREFIX.len() + RANDOM_CHARS + CHECK_CHARS;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A token in clear. `Debug` hides it; there is no `Display`, so that it is printed only on purpose.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a token begins with {PREFIX}")]
    Prefix,
    #[error("a token has {TOKEN_BYTES} characters, this one has {0}")]
    Length(usize),
    #[error("a token has only letters and digits after {PREFIX}")]
    Alphabet,
    #[error("the token's checksum does not fit; it was probably mistyped or cut")]
    Checksum,
}

impl Token {
    /// A new token from the system's random numbers.
    ///
    /// # Errors
    /// The system has none to give.
    pub fn generate() -> io::Result<Self> {
        let random = SystemRandom::new();
        let mut text = String::with_capacity(TOKEN_BYTES);
        text.push_str(PREFIX);
        let mut bytes = [0u8; 64];
        while text.len() < PREFIX.len() + RANDOM_CHARS {
            random.fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
            // Six bits choose one of 64; the two that stand for nothing are thrown away, so that no character is likelier than another.
            let chosen = bytes.iter().filter_map(|byte| BASE62.get(usize::from(byte & 63)));
            text.extend(chosen.take(PREFIX.len() + RANDOM_CHARS - text.len()).map(|byte| char::from(*byte)));
        }
        let check = checksum(&text.as_bytes()[PREFIX.len()..]);
        text.extend(check.map(char::from));
        Ok(Self(text))
    }

    /// Reads a token; surrounding white space is not accepted.
    ///
    /// # Errors
    /// Not a token, or a mistyped one. The error never holds the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if text.len() != TOKEN_BYTES {
            return Err(TokenError::Length(text.chars().count()));
        }
        if !body.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(TokenError::Alphabet);
        }
        let (random, check) = body.as_bytes().split_at(RANDOM_CHARS);
        if checksum(random) == check { Ok(Self(text.to_owned())) } else { Err(TokenError::Checksum) }
    }

    /// The token in clear, to be shown to its owner once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn sha256(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The SHA-256 of a token: what is stored and compared. `Debug` hides it, because whoever has it can test guesses against it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = [0; 32];
        sum.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(sum)
    }

    /// Reads 64 hexadecimal digits of either case.
    #[must_use]
    pub fn parse_hex(text: &str) -> Option<Self> {
        let mut sum = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, pair) in sum.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte =
                u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?, 16).ok()?;
        }
        Some(Self(sum))
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// The token that `goscope run` keeps for its owner: read from `clear_path`, or made there on the first start (mode 0600), with its entry in
/// `entry_path` written to match. A token file that lost its entry, or has that of another token, is written again.
///
/// # Errors
/// A file cannot be read or written, or `clear_path` holds something that is no token (it is left alone).
pub fn keep(clear_path: &Path, entry_path: &Path, name: &str, tiers: TierSet) -> io::Result<Token> {
    let token = match fs::read_to_string(clear_path) {
        Ok(text) => {
            make_private(clear_path)?;
            Token::parse(text.trim()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = Token::generate()?;
            if create_private(clear_path, &format!("{}\n", token.reveal()))? {
                token
            } else {
                // Another start, at the same moment, was quicker: its token is the one that people will read.
                let text = fs::read_to_string(clear_path)?;
                Token::parse(text.trim()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
            }
        }
        Err(error) => return Err(error),
    };
    let wanted = file::document(&file::entry(name, token.sha256(), tiers, &[], None));
    if !fs::read_to_string(entry_path).is_ok_and(|found| found == wanted) {
        write_private(entry_path, &wanted)?;
    }
    Ok(token)
}

/// Takes from others what a copy or an editor may have given them.
fn make_private(path: &Path) -> io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 == 0 {
        return Ok(());
    }
    permissions.set_mode(permissions.mode() & 0o700);
    fs::set_permissions(path, permissions)
}

/// As [`write_private`], but leaves a file that is there already; `false` then.
fn create_private(path: &Path, text: &str) -> io::Result<bool> {
    let mut ours = path.as_os_str().to_owned();
    ours.push(format!(".{}.new", std::process::id()));
    let ours = Path::new(&ours);
    write_private(ours, text)?;
    let linked = fs::hard_link(ours, path);
    fs::remove_file(ours)?;
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // A file system without links.
        Err(_) => write_private(path, text).map(|()| true),
    }
}

/// Writes a file that only its owner can read, or that keeps the mode it has; whoever reads it sees the old content or the new one, never a part.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.tmp", std::process::id()));
    let staged = Path::new(&staged);
    match fs::remove_file(staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(staged)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(staged, path)
}

/// CRC-32 (IEEE 802.3, as zlib has it) in six base62 digits, most significant first.
fn checksum(random: &[u8]) -> [u8; CHECK_CHARS] {
    let mut crc = u32::MAX;
    for byte in random {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let mut rest = !crc;
    let mut text = [b'0'; CHECK_CHARS];
    for place in text.iter_mut().rev() {
        *place = BASE62[rest as usize % BASE62.len()];
        rest /= 62;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Its checksum was computed with another implementation (Python: `zlib.crc32(b"0123456789ABCDEFabcdef0123456789")`).
    const KNOWN: &str = "gsc_0123456789ABCDEFabcdef01234567893AWD2x";

    #[test]
    fn generated_tokens_are_tokens_and_differ() {
        let tokens: HashSet<String> = (0..200).map(|_| Token::generate().unwrap().reveal().to_owned()).collect();
        assert_eq!(tokens.len(), 200);
        assert!(tokens.iter().all(|token| Token::parse(token).is_ok()));
        let seen: HashSet<u8> = tokens.iter().flat_map(|token| token.bytes().skip(4).take(32)).collect();
        assert_eq!(seen.len(), 62, "6400 characters show the whole alphabet");
    }

    #[test]
    fn a_kept_token_that_others_can_read_is_made_private_again() {
        let dir = tempfile::tempdir().unwrap();
        let (clear, entry) = (dir.path().join("token"), dir.path().join("tokens.yaml"));
        let first = keep(&clear, &entry, "me", TierSet::ALL).unwrap();
        fs::set_permissions(&clear, fs::Permissions::from_mode(0o644)).unwrap();
        let again = keep(&clear, &entry, "me", TierSet::ALL).unwrap();
        assert_eq!(again.reveal(), first.reveal());
        assert_eq!(fs::metadata(&clear).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_token() {
        let known = KNOWN;
        assert!(Token::parse(known).is_ok());
        let cases = [
            ("", TokenError::Prefix),
            ("ghp_0123456789ABCDEFabcdef01234567893AWD2x", TokenError::Prefix),
            ("GSC_0123456789ABCDEFabcdef01234567893AWD2x", TokenError::Prefix),
            ("gsc_", TokenError::Length(4)),
            (&known[..41], TokenError::Length(41)),
            (&format!("{known} "), TokenError::Length(43)),
            (&known.replace('A', "-"), TokenError::Alphabet),
            (&known.replace("89A", "ä9"), TokenError::Alphabet),
            (&known.replace('A', "B"), TokenError::Checksum),
            (&known.to_lowercase(), TokenError::Checksum),
        ];
        for (text, expected) in cases {
            assert_eq!(Token::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn digests() {
        let token = Token::parse(KNOWN).unwrap();
        let hex = token.sha256().hex();
        assert_eq!(hex, "ad243bb87612002328db1277929607b1307355224e1603c1e9000a2ec5b1f44f");
        assert_eq!(Digest::parse_hex(&hex.to_uppercase()), Some(token.sha256()));
        for bad in ["", "00", &hex[..63], &format!("{hex}0"), &hex.replace('a', "g"), &format!("+f{}", &hex[2..])] {
            assert_eq!(Digest::parse_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_prints_a_secret_by_accident() {
        let token = Token::parse(KNOWN).unwrap();
        assert_eq!(format!("{token:?} {:?}", token.sha256()), "Token(…) Digest(…)");
    }

    #[test]
    fn a_token_that_another_start_made_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(create_private(&path, "first").unwrap());
        assert!(!create_private(&path, "second").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn kept_for_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let (clear, entries) = (folder.path().join("token"), folder.path().join("tokens.yaml"));
        let first = keep(&clear, &entries, "owner", TierSet::ALL).unwrap();
        assert_eq!(fs::metadata(&clear).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&entries).unwrap().contains(first.reveal()));
        fs::write(&entries, "tokens: []").unwrap();
        assert_eq!(keep(&clear, &entries, "owner", TierSet::ALL).unwrap(), first);
        let read = file::parse(&fs::read_to_string(&entries).unwrap()).unwrap();
        assert_eq!((read.len(), read[0].sha256), (1, first.sha256()));
        fs::write(&clear, "something else").unwrap();
        assert_eq!(keep(&clear, &entries, "owner", TierSet::ALL).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
