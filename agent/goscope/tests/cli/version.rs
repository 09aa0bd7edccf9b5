use goscope::version;

use super::{goscope, said};

#[test]
fn version_names_commit_target_and_tls_provider() {
    for flag in ["--version", "-V"] {
        let (status, stdout, stderr) = said(goscope(&[flag]));
        assert_eq!((status, stderr.as_str()), (Some(0), ""));
        assert_eq!(stdout, format!("goscope {}\n", version::LONG));
    }
}
