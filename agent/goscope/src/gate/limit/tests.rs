use super::*;
use proptest::prelude::*;

const START: u64 = 1_000_000;

fn limit(rate_per_kilosecond: u64, burst: u32) -> LimitConfig {
    LimitConfig { rate_per_kilosecond, burst, nodelay: true, dry_run: false }
}

/// Sends one request; a refusal gives the milliseconds to wait, an admission is charged.
fn send(limiter: &mut Limiter<u32>, key: u32, at_ms: u64) -> Result<Duration, u64> {
    match limiter.check(&key, START + at_ms) {
        Verdict::Pass { delay } => {
            limiter.charge(&key, START + at_ms);
            Ok(delay)
        }
        Verdict::Refuse { retry_after } => Err(u64::try_from(retry_after.as_millis()).unwrap()),
        Verdict::RefuseDryRun => Err(0),
    }
}

/// Times in milliseconds and what is expected: `None` admitted, `Some(ms)` refused with that wait.
fn check(config: LimitConfig, requests: &[(u64, Option<u64>)]) {
    let mut limiter = Limiter::new(config);
    for (number, (at_ms, expected)) in requests.iter().enumerate() {
        assert_eq!(send(&mut limiter, 7, *at_ms).err(), *expected, "request {number} at {at_ms} ms of {config:?}");
    }
}

#[test]
fn nginx_tables() {
    // 1/s without burst: one per second, to the millisecond.
    check(limit(1000, 0), &[(0, None), (0, Some(1000)), (999, Some(1)), (1000, None), (1001, Some(999)), (2000, None)]);
    // 1/s burst=5 nodelay: the first is free, then five of burst.
    check(
        limit(1000, 5),
        &[
            (0, None),
            (0, None),
            (0, None),
            (0, None),
            (0, None),
            (0, None),
            (0, Some(1000)),
            (500, Some(500)),
            (1000, None),
            (1000, Some(1000)),
            (3000, None),
            (3000, None),
            (3000, Some(1000)),
        ],
    );
    // 30/m is 500 thousandths a second: one in two seconds.
    check(limit(500, 0), &[(0, None), (1000, Some(1000)), (1999, Some(1)), (2000, None)]);
    // 1/m is 16 thousandths a second, rounded down as nginx does: 62.5 s instead of 60.
    check(limit(16, 0), &[(0, None), (60_000, Some(2500)), (62_499, Some(1)), (62_500, None)]);
    // 3 r/s: 333 ms take off 999 thousandths only.
    check(limit(3000, 0), &[(0, None), (333, Some(1)), (334, None), (667, Some(1)), (668, None)]);
    // A quiet key has no credit: excess never falls below nothing.
    check(limit(1000, 1), &[(0, None), (3_600_000, None), (3_600_000, None), (3_600_000, Some(1000))]);
}

#[test]
fn without_nodelay_the_burst_waits() {
    let mut limiter = Limiter::new(LimitConfig { nodelay: false, ..limit(2000, 3) });
    let delays: Vec<_> = (0..5).map(|_| send(&mut limiter, 1, 0).map(|delay| delay.as_millis())).collect();
    assert_eq!(delays, [Ok(0), Ok(500), Ok(1000), Ok(1500), Err(500)]);
}

#[test]
fn a_refusal_charges_nothing() {
    let mut limiter = Limiter::new(limit(1000, 0));
    assert!(send(&mut limiter, 1, 0).is_ok());
    for at_ms in 0..1000 {
        assert!(send(&mut limiter, 1, at_ms).is_err());
    }
    assert!(send(&mut limiter, 1, 1000).is_ok());
}

#[test]
fn a_dry_run_refuses_and_charges_nothing() {
    let mut limiter = Limiter::new(LimitConfig { dry_run: true, ..limit(1000, 0) });
    limiter.charge(&1, START);
    assert_eq!(limiter.check(&1, START), Verdict::RefuseDryRun);
    assert_eq!(limiter.check(&1, START + 1000), Verdict::Pass { delay: Duration::ZERO });
}

#[test]
fn a_clock_that_stands_or_steps_back_admits_nothing_extra() {
    let mut limiter = Limiter::new(limit(1000, 0));
    limiter.charge(&1, START);
    assert!(matches!(limiter.check(&1, START - 500), Verdict::Refuse { .. }));
    limiter.charge(&1, START - 500);
    assert!(matches!(limiter.check(&1, START), Verdict::Refuse { .. }));
}

/// Checks the list against the index and returns the keys, newest first.
fn keys(limiter: &Limiter<u32>) -> Vec<u32> {
    let mut keys = Vec::new();
    let (mut at, mut newer) = (limiter.newest, NONE);
    while let Some(node) = limiter.nodes.get(at) {
        assert_eq!((node.newer, limiter.index.get(&node.key)), (newer, Some(&at)));
        keys.push(node.key);
        (newer, at) = (at, node.older);
    }
    assert_eq!((limiter.oldest, keys.len()), (newer, limiter.index.len()));
    assert_eq!(keys.len(), limiter.nodes.len());
    keys
}

#[test]
fn a_new_key_pushes_out_two_quiet_ones() {
    let mut limiter = Limiter::with_keys_max(limit(1000, 5), 100);
    for key in 1..=4 {
        limiter.charge(&key, START);
    }
    limiter.charge(&5, START + 59_999);
    assert_eq!(keys(&limiter), [5, 4, 3, 2, 1]);
    limiter.charge(&6, START + 60_000);
    assert_eq!(keys(&limiter), [6, 5, 4, 3]);
    // Looked at is young again, though refused or not charged.
    limiter.check(&3, START + 60_000);
    assert_eq!(keys(&limiter), [3, 6, 5, 4]);
}

#[test]
fn a_key_whose_excess_has_not_run_off_stays() {
    let mut limiter = Limiter::with_keys_max(limit(10, 5), 100);
    limiter.charge(&1, START);
    limiter.charge(&1, START);
    limiter.charge(&2, START + 99_999);
    assert_eq!(keys(&limiter), [2, 1]);
    limiter.charge(&3, START + 100_000);
    assert_eq!(keys(&limiter), [3, 2]);
}

#[test]
fn a_full_table_drops_the_oldest_by_force() {
    let mut limiter = Limiter::with_keys_max(limit(1000, 5), 3);
    for key in 1..=5 {
        limiter.charge(&key, START);
    }
    assert_eq!(keys(&limiter), [5, 4, 3]);
    assert_eq!(Limiter::<u32>::new(limit(1000, 0)).keys_max, 10_000);
}

proptest! {
    /// The wait that a refusal names is honest: admitted then, refused one millisecond before.
    #[test]
    fn retry_after_is_honest(rate in 1u64..20_000, burst in 0u32..4, gaps in prop::collection::vec(0u64..3000, 1..40)) {
        let mut limiter = Limiter::new(limit(rate, burst));
        let mut now = 0;
        for gap in gaps {
            now += gap;
            if let Err(wait) = send(&mut limiter, 1, now) {
                prop_assert!(wait >= 1);
                prop_assert!(matches!(limiter.check(&1, START + now + wait - 1), Verdict::Refuse { .. }), "too long");
                prop_assert!(matches!(limiter.check(&1, START + now + wait), Verdict::Pass { .. }), "too short");
            }
        }
    }

    #[test]
    fn list_and_index_agree(steps in prop::collection::vec((0u32..12, 0u64..50_000, any::<bool>()), 1..200)) {
        let mut limiter = Limiter::with_keys_max(limit(1000, 1), 5);
        let mut now = START;
        for (key, gap, charge) in steps {
            now += gap;
            if charge { limiter.charge(&key, now) } else { limiter.check(&key, now); }
            prop_assert!(keys(&limiter).len() <= 5);
        }
    }
}
