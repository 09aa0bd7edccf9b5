//! The shop's faults, and what each must look like from outside.

use crate::go::Flavour;

/// One fault of the shop.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// As in `-fault NAME` and `/fault/NAME`.
    pub name: &'static str,
    /// The build that it needs.
    pub flavour: Flavour,
    /// `kind` of the incident.
    pub kind: &'static str,
    pub reason: Reason,
    pub end: End,
    /// A function that must be among the frames of the faulting goroutine; empty for deaths without words.
    pub function: &'static str,
    /// Address space that the shop may use, in KiB, as `ulimit -v` takes it.
    pub address_space_kib: Option<u32>,
    /// Whether the head of the report is the same in each run, apart from numbers.
    pub deterministic: bool,
}

/// `reason` of the incident.
#[derive(Clone, Copy, Debug)]
pub enum Reason {
    Is(&'static str),
    Begins(&'static str),
    OneOf(&'static [&'static str]),
    NotEmpty,
}

impl Reason {
    /// Whether `text` is this reason.
    #[must_use]
    pub fn matches(self, text: &str) -> bool {
        match self {
            Self::Is(expected) => text == expected,
            Self::Begins(lead) => text.starts_with(lead) && !text.contains('\n'),
            Self::OneOf(all) => all.contains(&text),
            Self::NotEmpty => !text.is_empty(),
        }
    }
}

/// How the shop ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Status(i32),
    /// The fault does not kill. When this text was on stderr, SIGQUIT does (status 2).
    Quit(&'static str),
    /// The fault is told, and does not kill. When this text was on stderr, SIGTERM does.
    Term(&'static str),
}

const PANIC: Fault = Fault {
    name: "",
    flavour: Flavour::Plain,
    kind: "panic",
    reason: Reason::NotEmpty,
    end: End::Status(2),
    function: "",
    address_space_kib: None,
    deterministic: true,
};

const FATAL: Fault = Fault { kind: "fatal", deterministic: false, ..PANIC };

const QUIT: Fault = Fault {
    kind: "signal",
    reason: Reason::Is("SIGQUIT: quit"),
    end: End::Quit("fault raised"),
    deterministic: false,
    ..PANIC
};

const SILENT: Fault = Fault { kind: "exit", deterministic: false, ..PANIC };

/// All faults.
pub const ALL: [Fault; 19] = [
    Fault {
        name: "nil",
        reason: Reason::Is("runtime error: invalid memory address or nil pointer dereference"),
        function: "example.com/shop/internal/fault.nilDereference",
        ..PANIC
    },
    Fault {
        name: "index",
        reason: Reason::Is("runtime error: index out of range [7] with length 3"),
        function: "example.com/shop/internal/fault.index",
        ..PANIC
    },
    Fault {
        name: "custom-error",
        reason: Reason::Is("order 4711 cannot be booked: permission denied"),
        function: "example.com/shop/internal/fault.customError",
        ..PANIC
    },
    Fault {
        name: "repanic",
        reason: Reason::Is("the warehouse does not answer"),
        function: "example.com/shop/internal/fault.repanic",
        ..PANIC
    },
    Fault {
        name: "chain",
        reason: Reason::Is("the roll-back failed too"),
        function: "example.com/shop/internal/fault.chain",
        ..PANIC
    },
    Fault {
        name: "multiline",
        reason: Reason::Begins("the price table is inconsistent:"),
        function: "example.com/shop/internal/fault.multiline",
        ..PANIC
    },
    Fault {
        name: "handler",
        kind: "http_panic",
        reason: Reason::Is("assignment to entry in nil map"),
        end: End::Term("fault raised"),
        function: "main.(*shop).panicHandler",
        deterministic: false,
        ..PANIC
    },
    Fault {
        name: "map-writes",
        reason: Reason::Is("concurrent map writes"),
        function: "example.com/shop/internal/fault.updateStock",
        ..FATAL
    },
    Fault {
        name: "deadlock",
        reason: Reason::Is("all goroutines are asleep - deadlock!"),
        function: "main.main",
        ..FATAL
    },
    Fault {
        name: "stack-overflow",
        reason: Reason::Is("stack overflow"),
        function: "example.com/shop/internal/fault.descend",
        ..FATAL
    },
    Fault { name: "goroutine-leak", ..QUIT },
    Fault { name: "lock", ..QUIT },
    Fault {
        name: "oom",
        reason: Reason::OneOf(&["out of memory", "runtime: out of memory", "runtime: cannot allocate memory"]),
        function: "example.com/shop/internal/fault.hoardMore",
        address_space_kib: Some(1_500_000),
        ..FATAL
    },
    Fault { name: "gc-pressure", end: End::Quit("raising fault"), ..QUIT },
    Fault { name: "cpu-spin", end: End::Quit("raising fault"), ..QUIT },
    Fault { name: "exit", reason: Reason::Is("exit status 3"), end: End::Status(3), ..SILENT },
    Fault { name: "log-fatal", reason: Reason::Is("exit status 1"), end: End::Status(1), ..SILENT },
    Fault {
        name: "cgo-segv",
        flavour: Flavour::Cgo,
        kind: "signal",
        reason: Reason::Is("SIGSEGV: segmentation violation"),
        function: "example.com/shop/internal/fault._Cfunc_shop_segv",
        ..PANIC
    },
    Fault {
        name: "race",
        flavour: Flavour::Race,
        kind: "race",
        end: End::Term("fault raised"),
        deterministic: false,
        ..PANIC
    },
];

/// A fault by its name.
///
/// # Panics
/// There is none of that name.
#[must_use]
pub fn named(name: &str) -> Fault {
    *ALL.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no fault {name}"))
}
