//! Whether an identified request may have what it asks for: its address and its tier.

use std::net::IpAddr;

use super::refuse::{Code, Refusal};
use crate::config::AddressRule;
use crate::token::file::Entry;
use crate::token::tier::Tier;

/// Asks the gate's own address list, the token's, and the token's tiers.
///
/// # Errors
/// 403 with the list or the tier that is missing.
pub fn permit(address: IpAddr, gate_rules: &[AddressRule], entry: &Entry, tier: Tier) -> Result<(), Refusal> {
    let address = address.to_canonical();
    if !admitted(address, gate_rules) {
        return Err(Refusal::new(Code::AddressDenied, format!("the address {address} is not admitted by gate.allow")));
    }
    if !admitted(address, &entry.allow) {
        let sentence = format!("the token {} may not be used from the address {address}", entry.name);
        return Err(Refusal::new(Code::AddressDenied, sentence));
    }
    has_tier(entry, tier)
}

/// Asks the token's tiers only: for what shows in a request's body, after the request was permitted.
///
/// # Errors
/// 403 with the tier that is missing.
pub fn has_tier(entry: &Entry, tier: Tier) -> Result<(), Refusal> {
    if !entry.tiers.contains(tier) {
        let has: Vec<_> = entry.tiers.iter().map(Tier::name).collect();
        let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
        let sentence = format!("this needs the tier {tier}; the token {} has {has}", entry.name);
        return Err(Refusal::new(Code::TierMissing, sentence));
    }
    Ok(())
}

/// First match decides; an empty list admits everyone, a list without a match refuses. An IPv4-mapped IPv6 address counts as IPv4.
#[must_use]
pub fn admitted(address: IpAddr, rules: &[AddressRule]) -> bool {
    let address = address.to_canonical();
    rules.is_empty() || rules.iter().find(|rule| rule.network.contains(&address)).is_some_and(|rule| !rule.deny)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::parse_address_rule;
    use crate::token::Digest;

    /// Addresses and whether they are admitted.
    type Verdicts = &'static [(&'static str, bool)];

    fn rules(texts: &[&str]) -> Vec<AddressRule> {
        texts.iter().map(|text| parse_address_rule(text).unwrap()).collect()
    }

    #[test]
    fn ordered_lists() {
        let cases: &[(&[&str], Verdicts)] = &[
            (&[], &[("127.0.0.1", true), ("8.8.8.8", true), ("::1", true)]),
            (
                &["127.0.0.0/8"],
                &[("127.0.0.1", true), ("::ffff:127.0.0.1", true), ("126.255.255.255", false), ("::1", false)],
            ),
            (&["::ffff:10.0.0.0/104"], &[("10.1.1.1", true), ("::ffff:10.1.1.1", true), ("11.0.0.0", false)]),
            (&["!10.1.0.0/16", "10.0.0.0/8"], &[("10.1.2.3", false), ("10.2.0.0", true), ("9.0.0.1", false)]),
            (&["10.0.0.0/8", "!10.1.0.0/16"], &[("10.1.2.3", true)]),
            (&["!10.0.0.0/8"], &[("10.0.0.1", false), ("11.0.0.1", false)]),
            (&["!10.0.0.0/8", "0.0.0.0/0", "::/0"], &[("10.0.0.1", false), ("11.0.0.1", true), ("fe80::1", true)]),
            (&["0.0.0.0/0"], &[("::ffff:1.2.3.4", true), ("::1", false)]),
            (&["::/0"], &[("1.2.3.4", false), ("::ffff:1.2.3.4", false), ("::2", true)]),
        ];
        for (list, addresses) in cases {
            for (address, expected) in *addresses {
                assert_eq!(admitted(address.parse().unwrap(), &rules(list)), *expected, "{address} by {list:?}");
            }
        }
    }

    #[test]
    fn address_and_tier() {
        let entry = |allow: &[&str]| Entry {
            name: "alice".into(),
            sha256: Digest::of(b""),
            tiers: [Tier::Basic, Tier::Cpu].into_iter().collect(),
            allow: rules(allow),
            expires: None,
            not_before: None,
        };
        let here: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let ask = |gate: &[&str], own: &[&str], tier| {
            permit(here, &rules(gate), &entry(own), tier).map_err(|refusal| refusal.sentence.into_owned())
        };
        assert_eq!(ask(&[], &[], Tier::Basic), Ok(()));
        assert_eq!(ask(&["127.0.0.0/8"], &["127.0.0.1"], Tier::Cpu), Ok(()));
        assert_eq!(
            ask(&["10.0.0.0/8"], &[], Tier::Basic),
            Err("the address 127.0.0.1 is not admitted by gate.allow".to_owned())
        );
        assert_eq!(
            ask(&[], &["10.0.0.0/8"], Tier::Basic),
            Err("the token alice may not be used from the address 127.0.0.1".to_owned())
        );
        assert_eq!(
            ask(&[], &[], Tier::Trace),
            Err("this needs the tier trace; the token alice has basic, cpu".to_owned())
        );
    }
}
