//! Tiers: what a token may ask for.

use std::fmt;

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Index, heap, allocs, goroutine and goroutineleak up to `debug=1`, threadcreate, mutex, block, symbol.
    Basic,
    /// CPU profiles.
    Cpu,
    /// Execution traces.
    Trace,
    /// Every goroutine's stack (`debug=2`), which stops the world and shows arguments.
    Dump,
    /// `/debug/vars`.
    Vars,
    /// The command line, which may hold secrets.
    Cmdline,
    /// Stored artifacts and incidents.
    Artifacts,
    /// Start captures.
    Capture,
    /// Pin and delete.
    Admin,
}

impl Tier {
    pub const EVERY: [Self; 9] = [
        Self::Basic,
        Self::Cpu,
        Self::Trace,
        Self::Dump,
        Self::Vars,
        Self::Cmdline,
        Self::Artifacts,
        Self::Capture,
        Self::Admin,
    ];

    /// As written in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Cpu => "cpu",
            Self::Trace => "trace",
            Self::Dump => "dump",
            Self::Vars => "vars",
            Self::Cmdline => "cmdline",
            Self::Artifacts => "artifacts",
            Self::Capture => "capture",
            Self::Admin => "admin",
        }
    }

    /// # Errors
    /// Not a tier; the sentence lists them.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::EVERY.into_iter().find(|tier| tier.name() == text).ok_or_else(|| {
            let names = Self::EVERY.map(Self::name).join(", ");
            format!("expected a tier ({names}), found {:?}", text.chars().take(40).collect::<String>())
        })
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of tiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierSet(u16);

impl TierSet {
    pub const ALL: Self = Self((1 << Tier::EVERY.len()) - 1);

    #[must_use]
    pub fn with(self, tier: Tier) -> Self {
        Self(self.0 | tier.bit())
    }

    #[must_use]
    pub fn without(self, tier: Tier) -> Self {
        Self(self.0 & !tier.bit())
    }

    #[must_use]
    pub fn contains(self, tier: Tier) -> bool {
        self.0 & tier.bit() != 0
    }

    /// In the order of [`Tier::EVERY`].
    pub fn iter(self) -> impl Iterator<Item = Tier> {
        Tier::EVERY.into_iter().filter(move |tier| self.contains(*tier))
    }
}

impl FromIterator<Tier> for TierSet {
    fn from_iter<I: IntoIterator<Item = Tier>>(tiers: I) -> Self {
        tiers.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        assert!(Tier::EVERY.into_iter().all(|tier| Tier::parse(tier.name()) == Ok(tier)));
        for text in ["", "Basic", "root", "basic "] {
            assert!(Tier::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sets() {
        let set: TierSet = [Tier::Cpu, Tier::Basic].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Tier::Basic, Tier::Cpu]);
        assert!(set.contains(Tier::Cpu) && !set.contains(Tier::Admin) && !set.without(Tier::Cpu).contains(Tier::Cpu));
        assert_eq!(TierSet::ALL.iter().count(), 9);
    }
}
