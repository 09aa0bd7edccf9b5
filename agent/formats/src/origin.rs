//! Whose code a frame is: the user's, somebody else's, or Go's own.

use crate::Frame;

/// The folders of GOROOT/src, 1.18 to 1.27. Files tell less: a linked name lies in another package's file (`sync.fatal` in
/// `runtime/panic.go`), and -trimpath leaves of GOROOT nothing.
const STANDARD: [&str; 54] = [
    "archive",
    "arena",
    "bufio",
    "bytes",
    "cmd",
    "cmp",
    "compress",
    "container",
    "context",
    "crypto",
    "database",
    "debug",
    "embed",
    "encoding",
    "errors",
    "expvar",
    "flag",
    "fmt",
    "go",
    "hash",
    "html",
    "image",
    "index",
    "internal",
    "io",
    "iter",
    "log",
    "maps",
    "math",
    "mime",
    "net",
    "os",
    "path",
    "plugin",
    "reflect",
    "regexp",
    "runtime",
    "simd",
    "slices",
    "sort",
    "strconv",
    "strings",
    "structs",
    "sync",
    "syscall",
    "testing",
    "text",
    "time",
    "unicode",
    "unique",
    "unsafe",
    "uuid",
    "vendor",
    "weak",
];

/// Whose code a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The user's module, and `main`.
    App,
    /// Another module, vendored or from the module cache, or C code.
    Dependency,
    /// The runtime and the standard library.
    Standard,
}

impl Frame {
    /// Whose code it is. `module` is the main module's path as in the build information (`mod`); without it, whatever belongs neither to the
    /// standard library, nor to the module cache, nor to a vendor folder is taken for the user's.
    #[must_use]
    pub fn origin(&self, module: Option<&str>) -> Origin {
        let package = package_of(&self.func);
        if package == "main" {
            return Origin::App;
        }
        if self.func == "panic"
            || self.func.starts_with("_cgoexp_")
            || package.starts_with("type:")
            || package == "type"
        {
            return Origin::Standard;
        }
        if package.is_empty() {
            return Origin::Dependency;
        }
        let own = module.map(|module| is_within(package, module));
        if own == Some(true) {
            return Origin::App;
        }
        let first = package.split('/').next().unwrap_or_default();
        if first.contains('.') {
            let foreign = own == Some(false) || is_module_file(&self.file);
            return if foreign { Origin::Dependency } else { Origin::App };
        }
        // A module's path needs no dot either.
        match own {
            _ if STANDARD.binary_search(&first).is_ok() => Origin::Standard,
            Some(_) => Origin::Dependency,
            None => Origin::App,
        }
    }
}

/// `example.com/shop/cart` of `example.com/shop/cart.(*Cart).Add[...]`; empty where there is none, as for C functions.
pub(crate) fn package_of(func: &str) -> &str {
    // Type arguments and receivers hold paths of their own.
    let end = func.find(['[', '(']).unwrap_or(func.len());
    let plain = func.get(..end).unwrap_or_default();
    let last = plain.rfind('/').map_or(0, |slash| slash.saturating_add(1));
    match plain.get(last..).and_then(|element| element.find('.')) {
        Some(dot) => plain.get(..last.saturating_add(dot)).unwrap_or_default(),
        None => "",
    }
}

/// The module's packages, and their external tests.
fn is_within(package: &str, module: &str) -> bool {
    // Dots of the last element are escaped in symbols.
    let package = package.replace("%2e", ".");
    let package = package.strip_suffix("_test").unwrap_or(&package);
    package.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_module_file(file: &str) -> bool {
    file.contains("/pkg/mod/") || file.contains("@v") || file.contains("/vendor/") || file.starts_with("vendor/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_searched() {
        assert!(STANDARD.is_sorted());
    }

    #[test]
    fn packages() {
        let table = [
            ("main.main", "main"),
            ("main.(*T).M", "main"),
            ("net/http.(*conn).serve.func1", "net/http"),
            ("example.com/shop/cart.(*P[example.com/x/y.T]).Set", "example.com/shop/cart"),
            ("gopkg.in/yaml%2ev3.Unmarshal", "gopkg.in/yaml%2ev3"),
            ("main.F[example.com/x/y.T]", "main"),
            ("printf", ""),
            ("panic", ""),
        ];
        for (func, package) in table {
            assert_eq!(package_of(func), package, "{func}");
        }
    }

    #[test]
    fn origins() {
        use Origin::{App, Dependency, Standard};
        let table = [
            ("main.main", "/src/main.go", None, App),
            ("panic", "/usr/local/go/src/runtime/panic.go", None, Standard),
            ("runtime.gopark", "runtime/proc.go", None, Standard),
            ("net/http.(*conn).serve", "/usr/lib/go-1.24/src/net/http/server.go", None, Standard),
            (
                "vendor/golang.org/x/net/http/httpguts.F",
                "/usr/local/go/src/vendor/golang.org/x/net/http/httpguts/guts.go",
                None,
                Standard,
            ),
            ("example.com/shop/cart.Add", "/src/shop/cart/cart.go", None, App),
            ("example.com/shop/cart.Add", "/src/shop/cart/cart.go", Some("example.com/shop"), App),
            ("example.com/shop_test.TestX", "/src/shop/x_test.go", Some("example.com/shop"), App),
            ("example.com/shopping.F", "/src/shopping/x.go", Some("example.com/shop"), Dependency),
            ("github.com/a/b.F", "/root/go/pkg/mod/github.com/a/b@v1.2.3/f.go", None, Dependency),
            ("github.com/a/b.F", "github.com/a/b@v1.2.3/f.go", None, Dependency),
            ("github.com/a/b.F", "/src/shop/vendor/github.com/a/b/f.go", None, Dependency),
            ("shop/cart.Add", "/home/me/shop/cart/cart.go", None, App),
            ("shop/cart.Add", "shop/cart/cart.go", Some("shop"), App),
            ("shop/cart.Add", "shop/cart/cart.go", None, App),
            ("shop/cart.Add", "shop/cart/cart.go", Some("store"), Dependency),
            ("log/cart.Add", "log/cart/cart.go", Some("log"), App),
            ("sync.fatal", "/usr/local/go/src/runtime/panic.go", None, Standard),
            ("sync.fatal", "/usr/local/go/src/runtime/panic.go", Some("shop"), Standard),
            ("gopkg.in/yaml%2ev3.F", "/x/y.go", Some("gopkg.in/yaml.v3"), App),
            ("type:.eq.main.T", "<autogenerated>", None, Standard),
            ("_cgoexp_4bd8_goCallback", "_cgo_gotypes.go", None, Standard),
            ("crash_here", "/src/x.c", None, Dependency),
        ];
        for (func, file, module, origin) in table {
            let frame = Frame { func: func.to_owned(), file: file.to_owned(), ..Frame::default() };
            assert_eq!(frame.origin(module), origin, "{func} {file} {module:?}");
        }
    }
}
