//! Tests of the budget and its shares.

use super::*;

const MIB: usize = 1 << 20;

#[test]
fn client_gets_half_and_what_is_free_is_shared_with_the_next_ones() {
    let budget = MemoryBudget::new(60 * MIB);
    let fill = |memory: &Memory| {
        let mut held = Vec::new();
        let end = loop {
            match memory.reserve(MIB / 2) {
                Ok(reservation) => held.push(reservation),
                Err(exhausted) => break exhausted,
            }
        };
        (held.len() as u64 / 2, end, held)
    };
    let mut all = Vec::new();
    // Half; a third of the rest is free after the second client, and so on.
    for (client, want) in [(1, 30), (2, 14), (3, 7), (4, 3)] {
        let memory = budget.open(client);
        let (mib, end, held) = fill(&memory);
        assert_eq!(end, Exhausted::Client, "{client}");
        assert!((want..=want + 1).contains(&mib), "{client}: {mib}");
        // Another connection of the client gets short calls.
        let again = budget.open(client);
        let short = again.reserve(20 << 10).unwrap();
        assert_eq!(again.reserve(MIB).unwrap_err(), Exhausted::Client);
        all.push((memory, held, again, short));
    }
    let stats = budget.stats();
    assert_eq!((stats.rejected_by_client, stats.rejected_by_budget), (8, 0));
    assert!(stats.used < stats.limit);
    drop(all);
    assert_eq!(budget.stats().used, 0);
}

#[test]
fn short_calls_of_one_client_on_many_connections_leave_a_quarter() {
    for (bytes, of_all) in [(20 << 10, 0.75), (200 << 10, 0.625), (MIB, 0.5)] {
        let budget = MemoryBudget::new(60 * MIB);
        let mut accounts = Vec::new();
        let end = loop {
            let memory = budget.open(1);
            match memory.reserve(bytes) {
                Ok(reservation) => accounts.push((memory, reservation)),
                Err(exhausted) => break exhausted,
            }
        };
        let stats = budget.stats();
        let used = stats.used as f64 / stats.limit as f64;
        assert_eq!(end, Exhausted::Client, "{bytes}");
        assert!(used > of_all - 0.02 && used <= of_all, "{bytes}: {used}");
        // The next client gets its half of the rest, and the first one no more.
        let (other, mut held) = (budget.open(2), 0);
        let mut reservation = other.empty();
        while reservation.resize(held + MIB).is_ok() {
            held += MIB;
        }
        assert!(held >= 7 * MIB, "{bytes}: {held}");
        assert!(budget.open(1).reserve(bytes).is_err());
    }
}

/// Two clients that draw as much as they can and return it in turn hold at most half each, and
/// one that held more while it was alone does not keep it.
#[test]
fn client_holds_at_most_half_while_others_wait() {
    for bytes in [20 << 10, 200 << 10, MIB] {
        let budget = MemoryBudget::new(60 * MIB);
        let mut held = [Vec::new(), Vec::new()];
        let draw = |held: &mut Vec<_>, client| {
            let memory = budget.open(client);
            let reserved = memory.reserve(bytes);
            reserved.map(|reservation| held.push((memory, reservation)))
        };
        while draw(&mut held[0], 1).is_ok() {}
        // Each returns its oldest and tries to draw twice as often as it returns.
        for _ in 0..60 * MIB / bytes {
            for client in [0, 1] {
                if held[client].len() > 1 {
                    held[client].remove(0);
                }
                for _ in 0..2 {
                    let _ = draw(&mut held[client], client as u64 + 1);
                }
            }
        }
        let [one, two] = held.map(|held| held.len() * bytes);
        let most = one.max(two) as f64 / (60 * MIB) as f64;
        assert!(most <= 0.5, "{bytes}: {one} and {two}");
        assert!(one.abs_diff(two) <= 3 * MIB, "{bytes}: {one} and {two}");
    }
}

#[test]
fn reservation_grows_shrinks_and_stays_as_it_was_after_an_error() {
    let budget = MemoryBudget::new(16 * MIB);
    let memory = budget.open(1);
    let mut reservation = memory.reserve(MIB).unwrap();
    reservation.resize(3 * MIB).unwrap();
    assert_eq!(reservation.resize(9 * MIB), Err(Exhausted::Client));
    assert_eq!(reservation.bytes(), 3 * MIB);
    reservation.replace(MIB).unwrap();
    assert_eq!(reservation.bytes(), 4 * MIB);
    reservation.resize(1).unwrap();
    assert!(budget.stats().used < 128 << 10);
    // Without an account nothing is limited.
    let free = Memory::default().reserve(usize::MAX).unwrap();
    assert_eq!(budget.stats().rejected_by_client, 1);
    drop(free);
}

#[test]
fn attached_reservation_ends_with_the_last_part_of_the_bytes() {
    let budget = MemoryBudget::new(8 * MIB);
    let memory = budget.open(1);
    let bytes = memory.reserve(MIB).unwrap().attach(vec![7; MIB]);
    let part = bytes.slice(10..20);
    drop(bytes);
    assert!(budget.stats().used >= MIB as u64);
    assert_eq!(part, [7; 10][..]);
    drop(part);
    assert!(budget.stats().used < MIB as u64);
    // What a call's own reservation covers needs none.
    assert_eq!(memory.reserve_long(SHORT_BYTES).unwrap().bytes(), 0);
    assert!(memory.reserve_long(SHORT_BYTES + 1).unwrap().bytes() > SHORT_BYTES);
}

#[test]
fn concurrent_reservations_stay_below_the_bounds_and_are_all_returned() {
    let budget = MemoryBudget::new(4 * MIB);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let budget = budget.clone();
            let shared = budget.open(9);
            scope.spawn(move || {
                let own = budget.open(thread.into());
                let mut random = fastrand::Rng::with_seed(u64::from(thread));
                let mut held = Vec::new();
                for _ in 0..20_000 {
                    let memory = if random.bool() { &own } else { &shared };
                    match random.u8(..3) {
                        0 => held.clear(),
                        _ => held.extend(memory.reserve(random.usize(..300_000))),
                    }
                    let stats = budget.stats();
                    assert!(stats.used <= stats.limit, "{stats:?}");
                }
            });
        }
    });
    assert_eq!(budget.stats().used, 0);
}

/// Polls once.
fn poll<'a>(future: &mut std::pin::Pin<Box<dyn Future<Output = Turn<'a>> + 'a>>) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut cx).is_ready()
}

#[test]
fn long_conversions_of_one_client_leave_turns_to_the_next() {
    let budget = MemoryBudget::new(8 * MIB);
    let (one, two) = (budget.open(1), budget.open(2));
    let of_one_elsewhere = budget.open(1);
    let long = LONG_BYTES + 1;
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut running = Vec::new();
    for _ in 0..cores {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(one.turn(long)).poll(&mut cx) {
            std::task::Poll::Ready(turn) => running.push(turn),
            std::task::Poll::Pending => panic!("a core is free"),
        }
    }
    let mut waiting: Vec<std::pin::Pin<Box<dyn Future<Output = Turn<'_>>>>> = vec![
        Box::pin(one.turn(long)),
        Box::pin(of_one_elsewhere.turn(long)),
        Box::pin(two.turn(long)),
    ];
    assert!(waiting.iter_mut().all(|turn| !poll(turn)));
    // A short one needs none.
    assert!(poll(&mut (Box::pin(two.turn(LONG_BYTES)) as _)));
    drop(running.pop());
    let is_next: Vec<bool> = waiting.iter_mut().map(poll).collect();
    assert_eq!(is_next, [false, false, true]);
}

/// Writes a string as JSON, without its quotes. Returns the length.
fn escaped(text: &str) -> usize {
    let mut out = Vec::new();
    for c in text.chars() {
        if !drawbridge_transcoder::output_limit::has_room(&mut out, 6) {
            break;
        }
        out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
    }
    out.len()
}

#[test]
fn output_of_a_conversion_is_reserved_as_it_grows() {
    let budget = MemoryBudget::new(16 * MIB);
    let memory = budget.open(1);
    // A string of control characters becomes JSON six times as long.
    let converted = |length: usize| {
        let text = "\u{1}".repeat(length);
        let json = memory.convert(text.len(), || escaped(&text))?;
        Ok::<_, Exhausted>((json.0, memory.keep(json.1, length)?))
    };
    let (json, kept) = converted(MIB).unwrap();
    assert_eq!((json, kept.bytes()), (6 * MIB, MIB));
    drop(kept);
    assert_eq!(converted(2 * MIB).unwrap_err(), Exhausted::Client);
    assert_eq!(budget.stats().rejected_by_client, 1);
    // Short ones are part of their call, and those that only become long are not.
    let (_, kept) = converted(100).unwrap();
    assert_eq!(kept.bytes(), 0);
    let (json, kept) = memory
        .convert(3_000, || escaped(&"\u{1}".repeat(3_000)))
        .unwrap();
    assert!(json == 18_000 && kept.bytes() >= json, "{}", kept.bytes());
}
