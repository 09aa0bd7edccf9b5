//! What a Go program needs so that goscope can reach its debug endpoints.

use crate::config::TargetAddress;

/// Three lines of Go that serve `net/http/pprof` on `address`: what to import, then what to put first in `main`. They compile as they are.
#[must_use]
pub fn opening(address: &TargetAddress) -> [String; 3] {
    match address {
        TargetAddress::Tcp(address) => [
            "import \"net/http\"".to_owned(),
            "import _ \"net/http/pprof\"".to_owned(),
            format!("go http.ListenAndServe(\"{address}\", nil) // first line of main"),
        ],
        // The socket of a program that crashed is still there, and would keep the next one from listening.
        TargetAddress::Unix(path) => {
            let path = path.display().to_string();
            [
                "import (\"net\"; \"net/http\"; _ \"net/http/pprof\"; \"os\")".to_owned(),
                format!("os.Remove({path:?}) // first lines of main"),
                format!("if l, err := net.Listen(\"unix\", {path:?}); err == nil {{ go http.Serve(l, nil) }}"),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_stands_in_it() {
        let tcp = opening(&TargetAddress::Tcp("[::1]:6060".parse().unwrap()));
        assert_eq!(tcp[2], "go http.ListenAndServe(\"[::1]:6060\", nil) // first line of main");
        let unix = opening(&TargetAddress::Unix("/run/app/d.sock".into()));
        assert_eq!(unix[1], "os.Remove(\"/run/app/d.sock\") // first lines of main");
        assert!(unix[2].contains("net.Listen(\"unix\", \"/run/app/d.sock\")"));
    }
}
