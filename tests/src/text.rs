//! Comparing crash texts of two runs: what differs from run to run is replaced by a mark.

/// Hexadecimal numbers become `0x?`, the numbers of goroutines, threads and ports `?`.
#[must_use]
pub fn shape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars().peekable();
    let mut previous = ' ';
    while let Some(c) = rest.next() {
        if c == '0' && rest.peek() == Some(&'x') && !previous.is_ascii_alphanumeric() {
            rest.next();
            while rest.next_if(char::is_ascii_hexdigit).is_some() {}
            out.push_str("0x?");
            // A trailing question mark says that the value may be dead; whether it does is not ours to compare.
            rest.next_if_eq(&'?');
        } else {
            out.push(c);
        }
        previous = c;
    }
    let out = mask_after(&out, "goroutine ");
    let out = mask_after(&out, " m=");
    mask_after(&out, "127.0.0.1:")
}

fn mask_after(text: &str, lead: &str) -> String {
    let mut out = String::new();
    let mut parts = text.split(lead);
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        out.push_str(lead);
        let tail = part.trim_start_matches(|c: char| c.is_ascii_digit());
        if tail.len() < part.len() {
            out.push('?');
        }
        out.push_str(tail);
    }
    out
}

/// The head of a death: from its first line to the end of the first goroutine block.
#[must_use]
pub fn head_of_death(stderr: &str) -> Option<String> {
    let starts = ["panic: ", "fatal error: ", "SIG"];
    let mut lines = stderr.lines().skip_while(|line| !starts.iter().any(|s| line.starts_with(s))).peekable();
    lines.peek()?;
    let mut head = String::new();
    let mut in_block = false;
    for line in lines {
        in_block |= line.starts_with("goroutine ");
        if in_block && line.is_empty() {
            break;
        }
        head.push_str(line);
        head.push('\n');
    }
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::{head_of_death, shape};

    #[test]
    fn shape_hides_what_differs_between_runs() {
        let one = "goroutine 21 [running]:\nmain.f(0xc000034ec8?, 0x1)\n\tmain.go:12 +0x1d\n";
        let two = "goroutine 7 [running]:\nmain.f(0x1921a8ec2ec8, 0x2?)\n\tmain.go:12 +0x1e\n";
        assert_eq!(shape(one), shape(two));
        assert_ne!(shape(one), shape(&one.replace("main.go:12", "main.go:13")));
        assert_eq!(shape("serving 127.0.0.1:50404: x"), "serving 127.0.0.1:?: x");
    }

    #[test]
    fn head_of_death_ends_with_the_first_block() {
        let text = "log\npanic: x\n\ngoroutine 1 [running]:\nmain.f()\n\tm.go:1\n\ngoroutine 2 [select]:\n";
        assert_eq!(head_of_death(text).as_deref(), Some("panic: x\n\ngoroutine 1 [running]:\nmain.f()\n\tm.go:1\n"));
        assert_eq!(head_of_death("log\n"), None);
    }
}
