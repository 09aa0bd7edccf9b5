//! Keeps secrets out of the command line that is recorded.
//!
//! Masked are the values of flags, `NAME=value` words and `Name: value` words whose name says that it holds a secret, the values of URL query
//! parameters named so, and passwords in the userinfo of URLs. Best effort: what is a secret under an innocent name stays, and an
//! innocent value under such a name is masked as well.

/// A name that contains one of these, in any case, holds a secret.
const SECRET_WORDS: [&str; 8] = ["password", "passwd", "secret", "token", "key", "credential", "dsn", "auth"];
const MASK: &str = "***";

/// The command line with its secrets masked.
pub(super) fn masked<'a>(command: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut value_is_secret = false;
    command
        .into_iter()
        .map(|argument| {
            let (masked, next) = masked_argument(argument, value_is_secret);
            value_is_secret = next;
            masked
        })
        .collect()
}

/// The argument masked, and whether the one after it is the value of a secret flag.
fn masked_argument(argument: &str, is_secret_value: bool) -> (String, bool) {
    if is_secret_value && !argument.starts_with('-') {
        return (MASK.to_owned(), false);
    }
    if !argument.contains(char::is_whitespace) {
        return masked_word(argument);
    }
    if let Some((name, _)) = argument.split_once(": ")
        && is_secret_name(name)
    {
        return (format!("{name}: {MASK}"), false);
    }
    // A script, as in `sh -c 'TOKEN=… ./app'`: its words, with the white space between them as it was.
    let mut masked = String::with_capacity(argument.len());
    let mut value_is_secret = false;
    for piece in argument.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end_matches(char::is_whitespace);
        if word.is_empty() {
            masked.push_str(piece);
            continue;
        }
        let (word_masked, next) =
            if value_is_secret && !word.starts_with('-') { (MASK.to_owned(), false) } else { masked_word(word) };
        masked.push_str(&word_masked);
        masked.push_str(piece.get(word.len()..).unwrap_or_default());
        value_is_secret = next;
    }
    (masked, false)
}

/// The word masked, and whether the next word is the value of a secret flag.
fn masked_word(word: &str) -> (String, bool) {
    if let Some((name, value)) = word.split_once('=')
        && is_secret_name(name)
    {
        return (if value.is_empty() { word.to_owned() } else { format!("{name}={MASK}") }, false);
    }
    let is_secret_flag = word.starts_with('-') && is_secret_name(word);
    (masked_query(&masked_userinfo(word)), is_secret_flag)
}

fn is_secret_name(name: &str) -> bool {
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let lower = name.to_ascii_lowercase();
    is_name && SECRET_WORDS.iter().any(|word| lower.contains(word))
}

/// `scheme://user:password@host` with the password masked, wherever it stands in the word. A password may hold `@`, so the last one before
/// the path counts; in http a user without a password is often a token, and masked.
fn masked_userinfo(word: &str) -> String {
    let mut masked = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("://") {
        masked.push_str(before);
        masked.push_str("://");
        // A list of URLs: the next one begins after the last separator before its scheme.
        let this = after.split_once("://").map_or(after, |(until_next, _)| until_next);
        let list_end = if this.len() < after.len() { this.rfind([',', ';']) } else { None };
        let end = after.find(['/', '?', '#', '"', '\'']).unwrap_or(after.len()).min(list_end.unwrap_or(after.len()));
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((userinfo, host)) => {
                match userinfo.split_once(':') {
                    Some((user, _)) => masked.push_str(&format!("{user}:{MASK}")),
                    None if before.ends_with("http") || before.ends_with("https") => masked.push_str(MASK),
                    None => masked.push_str(userinfo),
                }
                masked.push('@');
                masked.push_str(host);
            }
            None => masked.push_str(authority),
        }
        rest = tail;
    }
    masked.push_str(rest);
    masked
}

/// `?name=value&name=value` with the values of secret names masked.
fn masked_query(word: &str) -> String {
    let Some((before, query)) = word.split_once('?') else { return word.to_owned() };
    let parameters: Vec<String> = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret_name(name) => format!("{name}={MASK}"),
            _ => parameter.to_owned(),
        })
        .collect();
    format!("{before}?{}", parameters.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        let check = |command: &[&str], expected: &[&str]| assert_eq!(masked(command.iter().copied()), expected);
        check(&["./app", "-v", "serve"], &["./app", "-v", "serve"]);
        check(&["app", "--password=hunter2"], &["app", "--password=***"]);
        check(&["app", "--password", "hunter2", "x"], &["app", "--password", "***", "x"]);
        check(&["app", "-db.Passwd=x=y"], &["app", "-db.Passwd=***"]);
        check(&["app", "-token", "abc"], &["app", "-token", "***"]);
        check(&["app", "--api-key=abc", "--API_KEY", "def"], &["app", "--api-key=***", "--API_KEY", "***"]);
        check(&["app", "--auth", "--verbose", "serve"], &["app", "--auth", "--verbose", "serve"]);
        check(&["app", "--secret", "a", "--secret", "b"], &["app", "--secret", "***", "--secret", "***"]);
        check(&["app", "--token="], &["app", "--token="]);
        check(
            &["env", "AWS_SECRET_ACCESS_KEY=abc", "HOME=/root", "app"],
            &["env", "AWS_SECRET_ACCESS_KEY=***", "HOME=/root", "app"],
        );
        check(
            &["app", "--credentials=c", "--dsn=d", "--authorization=a"],
            &["app", "--credentials=***", "--dsn=***", "--authorization=***"],
        );
        check(&["app", "postgres://bob:pw@db/x?sslmode=off"], &["app", "postgres://bob:***@db/x?sslmode=off"]);
        check(&["app", "--db=postgres://bob:p@w@db:5432"], &["app", "--db=postgres://bob:***@db:5432"]);
        check(&["app", "http://gsc_abc@127.0.0.1/debug/"], &["app", "http://***@127.0.0.1/debug/"]);
        check(&["app", "ssh://git@host/x", "a@b"], &["app", "ssh://git@host/x", "a@b"]);
        check(&["app", "http://h/?token=t&x=1"], &["app", "http://h/?token=***&x=1"]);
        check(&["app", "redis://:pw@a,redis://:qw@b"], &["app", "redis://:***@a,redis://:***@b"]);
        check(&["curl", "-H", "Authorization: Bearer abc"], &["curl", "-H", "Authorization: ***"]);
        check(&["sh", "-c", "TOKEN=a  ./app --key b\n-v"], &["sh", "-c", "TOKEN=***  ./app --key ***\n-v"]);
        check(&["sh", "-c", "echo a: b"], &["sh", "-c", "echo a: b"]);
        check(&["app", "päss://ü:ö@ä?=&ß=1"], &["app", "päss://ü:***@ä?=&ß=1"]);
        check(&["app", ""], &["app", ""]);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(words in proptest::collection::vec("[a-z:/@?=& \\-ü\\n]{0,20}", 0..6)) {
            let count = words.len();
            proptest::prop_assert_eq!(masked(words.iter().map(String::as_str)).len(), count);
        }
    }
}
