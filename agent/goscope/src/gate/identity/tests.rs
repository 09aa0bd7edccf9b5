use super::*;
use crate::token::tier::TierSet;

const ALICE: &str = "gsc_0123456789ABCDEFabcdef01234567893AWD2x";
const NOW: &str = "2026-06-01T00:00:00Z";

fn entry(name: &str, token: &str) -> Entry {
    Entry {
        name: name.into(),
        sha256: Digest::of(token.as_bytes()),
        tiers: TierSet::ALL,
        allow: Vec::new(),
        expires: None,
        not_before: None,
    }
}

fn basic(user_and_password: &str) -> String {
    format!("Basic {}", STANDARD.encode(user_and_password))
}

fn ask_at(headers: &[(&str, &str)], tokens: &TokenSet) -> Result<(String, Option<String>), Code> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    let identity = identify(&map, tokens, NOW.parse().unwrap()).map_err(|refusal| refusal.code)?;
    Ok((identity.entry.name.to_string(), identity.user))
}

fn ask(headers: &[(&str, &str)]) -> Result<(String, Option<String>), Code> {
    let other = Token::generate().unwrap();
    ask_at(headers, &TokenSet::new(vec![entry("bob", other.reveal()), entry("alice", ALICE)]))
}

#[test]
fn one_token_in_every_form() {
    let alice = |user: Option<&str>| Ok(("alice".to_owned(), user.map(str::to_owned)));
    let bearer = format!("Bearer {ALICE}");
    assert_eq!(ask(&[("authorization", &bearer)]), alice(None));
    assert_eq!(ask(&[("authorization", &format!("bEaReR   {ALICE} "))]), alice(None));
    assert_eq!(ask(&[("x-debug-token", ALICE)]), alice(None));
    assert_eq!(ask(&[("authorization", &basic(&format!("me:{ALICE}")))]), alice(Some("me")));
    assert_eq!(ask(&[("authorization", &basic(&format!(":{ALICE}")))]), alice(None));
    assert_eq!(ask(&[("authorization", &basic(&format!("me:{ALICE}"))), ("x-debug-token", ALICE)]), alice(Some("me")));
    assert_eq!(
        ask(&[("authorization", &bearer), ("authorization", &basic(&format!("me:{ALICE}")))]),
        alice(Some("me"))
    );
}

#[test]
fn a_token_as_user_name_never_reaches_the_audit_line() {
    let (_, user) = ask(&[("authorization", &basic(&format!("{ALICE}:{ALICE}")))]).unwrap();
    assert_eq!(user, None);
    for (name, expected) in [("a\nb", None), ("", None), ("ä", Some("ä"))] {
        assert_eq!(user_detail(name.as_bytes()).as_deref(), expected);
    }
    assert_eq!(user_detail(&[0xff]), None);
    assert_eq!(user_detail("x".repeat(100).as_bytes()).map(|user| user.len()), Some(64));
}

#[test]
fn whatever_is_presented_must_be_right() {
    let other = Token::generate().unwrap();
    let bearer = format!("Bearer {ALICE}");
    let wrong = format!("Bearer {}", other.reveal());
    let long = format!("Bearer {}", "a".repeat(CREDENTIAL_BYTES_MAX + 1));
    let cases: &[(&[(&str, &str)], Code)] = &[
        (&[], Code::NoCredential),
        (&[("cookie", "token=x")], Code::NoCredential),
        (&[("authorization", "")], Code::BadCredential),
        (&[("authorization", "Bearer")], Code::BadCredential),
        (&[("authorization", "Bearer ")], Code::BadCredential),
        (&[("authorization", ALICE)], Code::BadCredential),
        (&[("authorization", &wrong)], Code::BadCredential),
        (&[("authorization", &format!("Bearer {}", &ALICE[..41]))], Code::BadCredential),
        (&[("authorization", &format!("Bearer {ALICE}x"))], Code::BadCredential),
        (&[("authorization", &format!("Token {ALICE}"))], Code::BadCredential),
        (&[("authorization", &format!("Bearer {ALICE}, Bearer {ALICE}"))], Code::BadCredential),
        (&[("authorization", &format!("Negotiate {ALICE}"))], Code::BadCredential),
        (&[("authorization", "Basic !!!!")], Code::BadCredential),
        (&[("authorization", &basic("nocolon"))], Code::BadCredential),
        (&[("authorization", &basic(&format!("{ALICE}:")))], Code::BadCredential),
        (&[("authorization", &basic(&format!("me:{ALICE}:")))], Code::BadCredential),
        (&[("authorization", &basic(&format!("me: {ALICE}")))], Code::BadCredential),
        (&[("authorization", &long)], Code::BadCredential),
        (&[("x-debug-token", "")], Code::BadCredential),
        (&[("authorization", &bearer), ("authorization", &wrong)], Code::CredentialsDisagree),
        (&[("authorization", &bearer), ("x-debug-token", other.reveal())], Code::CredentialsDisagree),
        (&[("authorization", &wrong), ("x-debug-token", ALICE)], Code::CredentialsDisagree),
        (&[("authorization", "Digest x"), ("x-debug-token", ALICE)], Code::BadCredential),
        (&[("x-debug-token", ALICE), ("x-debug-token", "")], Code::BadCredential),
        (&[("x-debug-token", ALICE); 5], Code::CredentialsDisagree),
    ];
    for (headers, expected) in cases {
        assert_eq!(ask(headers), Err(*expected), "{headers:?}");
    }
    assert_eq!(ask_at(&[("x-debug-token", ALICE)], &TokenSet::default()), Err(Code::BadCredential));
}

#[test]
fn validity_in_time() {
    let at = |text: &str| Some(text.parse().unwrap());
    let cases = [
        (None, None, Ok(())),
        (at("2026-05-01T00:00:00Z"), at("2026-07-01T00:00:00Z"), Ok(())),
        (at(NOW), None, Ok(())),
        (at("2026-06-01T00:00:01Z"), None, Err(Code::TokenNotYetValid)),
        (None, at("2026-06-01T00:00:01Z"), Ok(())),
        (None, at(NOW), Err(Code::TokenExpired)),
        (None, at("2020-01-01T00:00:00Z"), Err(Code::TokenExpired)),
    ];
    for (not_before, expires, expected) in cases {
        let tokens = TokenSet::new(vec![Entry { not_before, expires, ..entry("alice", ALICE) }]);
        assert_eq!(ask_at(&[("x-debug-token", ALICE)], &tokens).map(drop), expected, "{not_before:?} {expires:?}");
    }
}

#[test]
fn complaints_help_without_telling_secrets() {
    let refuse = |token: &str| {
        let mut map = HeaderMap::new();
        map.insert(X_DEBUG_TOKEN.clone(), HeaderValue::from_str(token).unwrap());
        identify(&map, &TokenSet::default(), Timestamp::now()).unwrap_err().sentence
    };
    assert_eq!(refuse(ALICE), "this token is not known here");
    assert_eq!(refuse(&ALICE.replace('A', "B")), "this token was mistyped or cut: its checksum does not fit");
    assert_eq!(refuse("secret"), "this is not a token of goscope (gsc_ and 38 letters and digits)");
}
