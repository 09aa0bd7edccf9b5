use proptest::prelude::*;

use super::*;
use crate::store::meta::Trigger;
use crate::target::profile::{Route, Seconds};

const ALICE: Canceller<'_> = Canceller { name: "alice", is_admin: false };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn request(profile: Profile, debug: Option<u8>) -> Request {
    let route = Route { profile, seconds: None, debug, gc: None };
    Request { route, trigger: Trigger::Api, requested_by: "alice".into(), reason: None }
}

/// A request that is like no other of a different `n`.
fn nth(profile: Profile, n: u64) -> Request {
    let mut request = request(profile, None);
    request.route.seconds = Some(Seconds { text: n.to_string(), millis: n * 1000 });
    request
}

fn id(n: u64) -> ArtifactId {
    ArtifactId::new(at(0), &n.to_string())
}

fn submit(book: &mut Book, request: Request, n: u64) -> ArtifactId {
    let taken = book.submit(request, id(n), at(0)).expect("there is room");
    assert!(!taken.joined);
    taken.operation.id
}

#[test]
fn what_asks_the_target_for_the_same_is_joined_until_it_has_ended() {
    let mut book = Book::default();
    let first = submit(&mut book, request(Profile::Heap, None), 1);
    let mut by_bob = request(Profile::Heap, None);
    by_bob.requested_by = "bob".into();
    by_bob.reason = Some("too fat".into());
    let joined = book.submit(by_bob, id(2), at(1)).unwrap();
    assert!(joined.joined && joined.operation.id == first && joined.operation.request.requested_by == "alice");
    submit(&mut book, request(Profile::Heap, Some(1)), 3);
    submit(&mut book, request(Profile::Allocs, None), 4);
    book.start(at(2)).unwrap();
    assert!(book.submit(request(Profile::Heap, None), id(5), at(3)).unwrap().joined, "it runs");
    book.finish(&first, End::Cancelled, at(4));
    assert_ne!(submit(&mut book, request(Profile::Heap, None), 6), first);
}

#[test]
fn one_cpu_profile_and_one_trace_run_at_a_time() {
    let mut book = Book::default();
    let [cpu1, cpu2] = [1, 2].map(|n| submit(&mut book, nth(Profile::Cpu, n), n));
    let [trace1, trace2] = [3, 4].map(|n| submit(&mut book, nth(Profile::Trace, n), n));
    let [heap1, heap2, heap3] = [5, 6, 7].map(|n| submit(&mut book, nth(Profile::Heap, n), n));
    let mut started = Vec::new();
    while let Some(operation) = book.start(at(1)) {
        started.push(operation.id);
    }
    assert_eq!(started, [cpu1.clone(), trace1.clone(), heap1, heap2.clone()]);
    book.finish(&heap2, End::Cancelled, at(2));
    assert_eq!(book.start(at(2)).map(|o| o.id), Some(heap3));
    book.finish(&trace1, End::Failed("x".into()), at(3));
    assert_eq!(book.start(at(3)).map(|o| o.id), Some(trace2));
    assert_eq!(book.start(at(3)), None);
    book.finish(&cpu1, End::Cancelled, at(4));
    assert_eq!(book.start(at(4)).map(|o| o.id), Some(cpu2));
}

#[test]
fn times_tell_how_far_it_is() {
    let mut book = Book::default();
    let known = submit(&mut book, request(Profile::Heap, None), 1);
    assert_eq!(book.find(&known).unwrap().created, at(0));
    assert_eq!(book.start(at(5)).unwrap().state, State::Running { started: at(5) });
    let end = End::Stored { artifact: id(9), bytes: 4096 };
    book.finish(&known, end.clone(), at(7));
    let ended = State::Ended { started: Some(at(5)), ended: at(7), end };
    assert_eq!(book.find(&known).unwrap().state, ended);
    book.finish(&known, End::Cancelled, at(8));
    assert_eq!(book.find(&known).unwrap().state, ended, "an end is final");
}

#[test]
fn what_waits_is_cancelled_at_once_and_what_runs_is_told() {
    let mut book = Book::default();
    let [running, waiting] = [1, 2].map(|n| submit(&mut book, nth(Profile::Cpu, n), n));
    book.start(at(1)).unwrap();
    assert!(matches!(book.cancel(&waiting, ALICE, at(2)), Some(Cancel::Done(o)) if o.has_ended()));
    assert!(
        matches!(book.cancel(&waiting, ALICE, at(3)), Some(Cancel::Late(o)) if o.state == State::Ended { started: None, ended: at(2), end: End::Cancelled })
    );
    assert!(matches!(book.cancel(&running, ALICE, at(3)), Some(Cancel::Tell(o)) if !o.has_ended()));
    assert_eq!(book.cancel(&id(7), ALICE, at(3)), None);
}

/// Who asks for a capture that runs, one after the other.
type Askers = &'static [&'static str];
/// Who cancels it, one after the other, and what that does: `left`, `tell` or `foreign`. `admin` is one.
type Cancels = &'static [(&'static str, &'static str)];

#[test]
fn only_the_last_of_those_who_want_it_or_an_admin_ends_it() {
    let table: [(Askers, Cancels); 6] = [
        (&["alice"], &[("alice", "tell")]),
        (&["alice"], &[("bob", "foreign"), ("admin", "tell")]),
        (&["alice", "bob"], &[("alice", "left"), ("alice", "left"), ("eve", "foreign"), ("bob", "tell")]),
        (&["alice", "bob"], &[("bob", "left"), ("alice", "tell"), ("alice", "tell"), ("bob", "tell")]),
        (&["alice", "alice"], &[("alice", "left"), ("alice", "tell")]),
        (&["alice", "bob", "bob"], &[("bob", "left"), ("admin", "tell")]),
    ];
    for (askers, cancels) in table {
        let mut book = Book::default();
        for name in askers {
            let mut request = request(Profile::Heap, None);
            request.requested_by = (*name).to_owned();
            book.submit(request, id(1), at(0)).unwrap();
        }
        book.start(at(1)).unwrap();
        assert_eq!(book.find(&id(1)).unwrap().wanted(), askers.len() as u64);
        for (n, (name, expected)) in cancels.iter().enumerate() {
            let by = Canceller { name, is_admin: *name == "admin" };
            let done = match book.cancel(&id(1), by, at(2)).unwrap() {
                Cancel::Left(operation) if operation.wanted() > 0 => "left",
                Cancel::Tell(operation) if operation.wanted() == 0 => "tell",
                Cancel::Foreign => "foreign",
                other => panic!("{other:?}"),
            };
            assert_eq!(done, *expected, "{askers:?} {cancels:?} {n}");
        }
        // What is being cut is joined by nobody: they would wait for what somebody else has cancelled.
        assert!(!book.submit(request(Profile::Heap, None), id(2), at(3)).unwrap().joined, "{askers:?}");
        book.finish(&id(1), End::Cancelled, at(4));
        assert!(matches!(book.cancel(&id(1), ALICE, at(5)), Some(Cancel::Late(_))));
        let eve = Canceller { name: "eve", is_admin: false };
        assert_eq!(book.cancel(&id(1), eve, at(5)), Some(Cancel::Foreign));
    }
}

#[test]
fn a_queue_that_is_full_refuses_but_still_joins() {
    let mut book = Book::default();
    for n in 1..=QUEUED_MAX as u64 {
        submit(&mut book, nth(Profile::Cpu, n), n);
    }
    assert_eq!(book.submit(nth(Profile::Cpu, 99), id(99), at(0)), Err(Full));
    assert!(book.submit(nth(Profile::Cpu, 3), id(98), at(0)).unwrap().joined);
    // What runs does not wait.
    book.start(at(1)).unwrap();
    submit(&mut book, nth(Profile::Cpu, 99), 99);
    assert_eq!((book.queued(), book.submit(nth(Profile::Cpu, 100), id(100), at(0))), (QUEUED_MAX, Err(Full)));
}

#[test]
fn what_ended_first_is_forgotten_first() {
    let mut book = Book::default();
    let slow = submit(&mut book, nth(Profile::Cpu, 0), 0);
    book.start(at(0)).unwrap();
    for n in 1..=REMEMBERED_MAX as u64 {
        let known = submit(&mut book, nth(Profile::Heap, n), n);
        book.start(at(0)).unwrap();
        book.finish(&known, End::Cancelled, at(1000 - i64::try_from(n).unwrap()));
    }
    assert!((1..=REMEMBERED_MAX as u64).all(|n| book.find(&id(n)).is_some()));
    book.finish(&slow, End::Cancelled, at(5000));
    assert!(book.find(&id(REMEMBERED_MAX as u64)).is_none(), "the one with the earliest end");
    assert!(book.find(&slow).is_some() && book.find(&id(1)).is_some());
}

#[test]
fn a_stop_ends_what_waits() {
    let mut book = Book::default();
    let [running, waiting] = [1, 2].map(|n| submit(&mut book, nth(Profile::Cpu, n), n));
    book.start(at(1)).unwrap();
    let closed = book.close(&End::Failed("stopped".into()), at(2));
    assert_eq!(closed.iter().map(|o| &o.id).collect::<Vec<_>>(), [&waiting]);
    assert!(!book.find(&running).unwrap().has_ended());
}

#[derive(Clone, Debug)]
enum Step {
    Submit(Profile, u64),
    Start,
    Finish(usize),
    Cancel(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let profile = prop::sample::select(vec![Profile::Cpu, Profile::Trace, Profile::Heap, Profile::Goroutine]);
    let step = prop_oneof![
        4 => (profile, 0_u64..8).prop_map(|(profile, n)| Step::Submit(profile, n)),
        3 => Just(Step::Start),
        2 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::Cancel),
    ];
    prop::collection::vec(step, 0..900)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done in whatever order: bounds hold, nobody wants the same twice, and nothing that could begin is left waiting.
    #[test]
    fn bounds_hold(steps in steps()) {
        let mut book = Book::default();
        for (now, step) in steps.into_iter().enumerate() {
            let now = at(i64::try_from(now).unwrap());
            let pick = |n: usize| book.operations.get(n % book.operations.len().max(1)).map(|o| o.id.clone());
            match step {
                Step::Submit(profile, n) => drop(book.submit(nth(profile, n), ArtifactId::new(now, "x"), now)),
                Step::Start => drop(book.start(now)),
                Step::Finish(n) => {
                    if let Some(id) = pick(n).filter(|id| book.find(id).is_some_and(Operation::is_running)) {
                        book.finish(&id, End::Cancelled, now);
                    }
                }
                Step::Cancel(n) => {
                    if let Some(id) = pick(n) {
                        book.cancel(&id, Canceller { name: "alice", is_admin: n % 2 == 0 }, now);
                    }
                }
            }
            let running = |profile| book.operations.iter().filter(|o| o.is_running() && o.request.route.profile == profile).count();
            prop_assert!(running(Profile::Cpu) <= 1 && running(Profile::Trace) <= 1);
            prop_assert!(running(Profile::Heap) + running(Profile::Goroutine) <= Lane::Other.width());
            prop_assert!(book.queued() <= QUEUED_MAX);
            prop_assert!(book.operations.iter().filter(|o| o.has_ended()).count() <= REMEMBERED_MAX);
            let is_wanted = |o: &&Operation| !o.has_ended() && o.wanted() > 0;
            let live: Vec<&Route> = book.operations.iter().filter(is_wanted).map(|o| &o.request.route).collect();
            prop_assert!(live.iter().enumerate().all(|(i, route)| !live.iter().skip(i + 1).any(|other| other == route)));
        }
        while book.start(at(10_000)).is_some() {}
        for waiting in book.operations.iter().filter(|o| o.state == State::Queued) {
            let lane = Lane::of(&waiting.request);
            prop_assert_eq!(book.operations.iter().filter(|o| o.is_running() && Lane::of(&o.request) == lane).count(), lane.width());
        }
    }
}
