//! The body of a request: JSON, small, and all of it there.

use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::gate::refuse::{Code, Refusal};

/// Bytes of a body. What is sent here has less than a thousand.
pub const BODY_BYTES_MAX: u64 = 64 << 10;
/// Time that a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Reads a body into `T`.
///
/// # Errors
/// 400 what is no JSON of that shape, or did not arrive in time; 413 what is too long.
pub async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let limit = usize::try_from(BODY_BYTES_MAX).unwrap_or(usize::MAX);
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(body, limit).collect()).await;
    let bytes = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => return Err(Refusal::new(Code::BadBody, "the body ended before its length was reached")),
        Err(_) => {
            let sentence = format!("the body did not arrive within {} s", BODY_TIME.as_secs());
            return Err(Refusal::new(Code::BadBody, sentence));
        }
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(Code::BadBody, format!("the body is not what is expected here: {error}")))
}

/// 413.
pub(super) fn too_large() -> Refusal {
    Refusal::new(Code::BodyTooLarge, format!("the body is longer than the {BODY_BYTES_MAX} bytes that are read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        kind: String,
    }

    async fn code(text: String) -> Result<Wish, Code> {
        read(Body::from(text)).await.map_err(|refusal| refusal.code)
    }

    #[tokio::test]
    async fn only_json_of_the_shape_and_within_the_bound() {
        assert_eq!(code(r#"{"kind":"heap"}"#.into()).await, Ok(Wish { kind: "heap".into() }));
        for text in ["", "{", "[]", r#"{"kind":1}"#, r#"{"kind":"heap","else":1}"#, r#"{"kind":"heap"} x"#] {
            assert_eq!(code(text.into()).await, Err(Code::BadBody), "{text}");
        }
        let wish = r#"{"kind":"heap"}"#;
        let pad = |bytes: usize| format!("{wish}{}", " ".repeat(bytes - wish.len()));
        let limit = usize::try_from(BODY_BYTES_MAX).unwrap();
        assert!(code(pad(limit)).await.is_ok(), "as long as allowed");
        assert_eq!(code(pad(limit + 1)).await, Err(Code::BodyTooLarge), "one byte more");
    }
}
