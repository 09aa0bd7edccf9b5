use super::*;

/// Walks `a` (integer 1..=9), `name` (text), `on` (boolean), `list` (texts), `in.rate` (a notation that wants `r`).
fn walk(text: &str) -> (String, Vec<String>) {
    let mistakes = Mistakes::default();
    let value = match parse(text) {
        Ok(value) => value,
        Err(mistake) => return (String::new(), vec![mistake.to_string()]),
    };
    let read = {
        let mut file = value.walk(&mistakes);
        file.renamed("oldName", "name");
        let a = file.take("a").and_then(|item| item.integer(1..=9));
        let name = file.take("name").and_then(|item| item.string());
        let on = file.take("on").and_then(|item| item.boolean());
        let list = file
            .take("list")
            .and_then(|item| item.list())
            .map(|items| items.iter().filter_map(Item::string).map(str::to_owned).collect::<Vec<_>>());
        let mut section = file.section("in");
        let wants_r = |text: &str| if text == "r" { Ok(1) } else { Err("expected r") };
        let rate = section.take("rate").and_then(|item| item.parsed(wants_r));
        format!("{a:?} {name:?} {on:?} {list:?} {rate:?}")
    };
    (read, mistakes.into_vec().iter().map(ToString::to_string).collect())
}

#[test]
fn values_as_written() {
    let cases = [
        ("", "None None None None None"),
        ("# only a comment\n", "None None None None None"),
        (
            "a: 7\nname: x\non: true\nlist: [p, q]\nin: { rate: r }",
            r#"Some(7) Some("x") Some(true) Some(["p", "q"]) Some(1)"#,
        ),
        // Numbers and truth values stay as written where text is wanted.
        ("name: 0e12", r#"None Some("0e12") None None None"#),
        ("name: 1e999", r#"None Some("1e999") None None None"#),
        ("name: 00123", r#"None Some("00123") None None None"#),
        ("name: 0x1F", r#"None Some("0x1F") None None None"#),
        (
            "name: 123456789012345678901234567890123456789012345",
            r#"None Some("123456789012345678901234567890123456789012345") None None None"#,
        ),
        ("name: yes", r#"None Some("yes") None None None"#),
        ("name: true", r#"None Some("true") None None None"#),
        ("name: 2027-01-01T00:00:00Z", r#"None Some("2027-01-01T00:00:00Z") None None None"#),
        ("name: '1'\nlist: [ 1, ä 2 , 3.50 ]", r#"None Some("1") None Some(["1", "ä 2", "3.50"]) None"#),
        ("in:\n  # rate: r\n", "None None None None None"),
    ];
    for (text, expected) in cases {
        assert_eq!(walk(text), (expected.to_owned(), Vec::new()), "{text}");
    }
}

#[test]
fn every_mistake_with_its_place() {
    let cases: &[(&str, &[&str])] = &[
        (
            "a: 10\nname: [x]\non: yes\nlist: p\nin: 5\n",
            &[
                "a: expected an integer from 1 to 9, found \"10\" (line 1)",
                "name: expected text, found a list (line 2)",
                "on: expected true or false, found \"yes\" (line 3)",
                "list: expected a list, found \"p\" (line 4)",
                "in: expected a mapping, found \"5\" (line 5)",
            ],
        ),
        (
            "in:\n  rate: q\n  rat: r\n",
            &["in.rate: expected r (line 2)", "in.rat: unknown key (line 3); did you mean \"rate\"?"],
        ),
        (
            "list: [a, {b: 1}]\nzzzz: 1",
            &["list[1]: expected text, found a mapping (line 1)", "zzzz: unknown key (line 2)"],
        ),
        ("a: 1\na: 2", &["a: given twice (line 2)"]),
        ("NAME: x", &["NAME: unknown key (line 1); did you mean \"name\"?"]),
        ("oldName: x", &["oldName: is now called \"name\" (line 1)"]),
        (
            "name:\nlist:",
            &["name: expected text, found nothing (line 1)", "list: expected a list, found nothing (line 2)"],
        ),
        ("<<: {a: 1}", &["<<: unknown key (line 1)"]),
        ("- a", &["expected a mapping, found a list (line 1)"]),
        ("a: -1", &["a: expected an integer from 1 to 9, found \"-1\" (line 1)"]),
        ("? [x]\n: 1", &["[…]: unknown key (line 1)"]),
    ];
    for (text, expected) in cases {
        assert_eq!(walk(text).1, *expected, "{text}");
    }
}

#[test]
fn missing_keys_are_named() {
    let value = parse("tokens:\n  - { b: 1 }").unwrap();
    let mistakes = Mistakes::default();
    for item in value.walk(&mistakes).take("tokens").unwrap().list().unwrap() {
        assert!(item.map().require("name").is_none());
    }
    let all: Vec<_> = mistakes.into_vec().iter().map(ToString::to_string).collect();
    assert_eq!(all, ["tokens[0].name: missing (line 2)", "tokens[0].b: unknown key (line 2)"]);
}

#[test]
fn foreign_text_is_bounded() {
    for text in ["a: [", "a: 1\n b: 2", "a: &x [*x]", "a: 1\n---\nb: 2\n", "\u{0}"] {
        assert!(parse(text).is_err(), "{text:?}");
    }
    assert!(parse(&"[".repeat(200)).is_err());
    assert!(parse(&format!("a: {}", "x".repeat(FILE_BYTES_MAX))).is_err());
    let bomb = format!("a: &a [x]\nb: [{}]", vec!["*a"; 1000].join(","));
    assert!(parse(&bomb).is_err());
}
