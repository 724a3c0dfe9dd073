//! Failed polls, and the pauses between polls.

use super::*;

#[tokio::test(start_paused = true)]
async fn first_failure_is_the_response_to_the_rpc() {
    for error in [
        fault(Code::NotFound, None),
        fault(Code::Unavailable, None),
        down(),
    ] {
        let (watches, source) = (watches(), ScriptedSource::of(false, &[]));
        source.fails(error.clone());
        let (a, b) = tokio::join!(watches.try_join(&source), watches.try_join(&source));
        for got in [a, b] {
            assert_eq!(got.err().unwrap().to_string(), error.to_string());
        }
        assert_eq!(source.polls(), 1);
        let stats = watches.stats();
        assert_eq!((stats.open_streams, stats.loops), (0, 0));
        source.returns(&["1"]);
        assert_eq!(next(&mut watches.join(&source).await).await, "INITIAL 1");
    }
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_tolerated_and_reported() {
    for error in [
        down(),
        Error::NoResponse("reset".to_owned()),
        Error::Deadline { sent: true },
        fault(Code::Unavailable, None),
        fault(Code::ResourceExhausted, None),
        unrelated_not_found(),
    ] {
        let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
        let mut stream = watches.join(&source).await;
        assert_eq!(next(&mut stream).await, "INITIAL 1");
        tokio::time::sleep(MS(3_000)).await; // Polls at 0, 1 and 2.5 s.
        source.fails(error);
        // Sent at once, and again with each bookmark.
        let unconfirmed = "BOOKMARK unconfirmed since 2";
        assert_eq!(all(&mut stream, 2).await, [unconfirmed; 2]);
        let mut joined = watches.join(&source).await;
        assert_eq!(next(&mut joined).await, "INITIAL 1 unconfirmed since 2");

        source.returns(&["1"]);
        for stream in [&mut stream, &mut joined] {
            assert_eq!(next(stream).await, "BOOKMARK");
        }
        source.fails(down());
        assert!(next(&mut stream).await.contains("unconfirmed"));
        source.returns(&["2"]);
        assert_eq!(next(&mut stream).await, "MODIFIED 2");
        assert_silent(&mut stream, S(20)).await;
    }
}

/// The lines of a log.
#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn failed_and_successful_polls_are_logged_with_the_rpc() {
    let log = LogLines::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut stream = watches.join(&source).await;
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    source.fails(down());
    assert!(next(&mut stream).await.contains("unconfirmed"));
    source.returns(&["1"]);
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    let lines = || {
        let log = String::from_utf8(std::mem::take(&mut *log.0.lock().unwrap())).unwrap();
        for line in log.lines() {
            assert!(
                line.contains("operation=\"test.v1.ThingService/WatchThing\""),
                "{line}"
            );
        }
        let kinds = log
            .lines()
            .map(|line| match line.contains("cannot be read") {
                true => "begins",
                false => "ends",
            });
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(lines(), ["begins", "ends"]);

    // One line when it begins and one when it ends, whatever happens in between.
    for scripts in [
        vec![Script::NotFound],
        vec![
            Script::Fails(down()),
            Script::NotFound,
            Script::Fails(down()),
        ],
        vec![Script::NotFound, Script::Fails(down())],
    ] {
        for script in scripts {
            source.script(script);
            let polls = source.polls();
            while source.polls() == polls {
                tokio::time::sleep(MS(100)).await;
            }
            run_tasks().await;
        }
        source.returns(&["1"]);
        let polls = source.polls();
        while source.polls() == polls {
            tokio::time::sleep(MS(100)).await;
        }
        run_tasks().await;
        assert_eq!(lines(), ["begins", "ends"]);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_before_the_first_read_are_logged_in_pairs() {
    let log = LogLines::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let (watches, source) = (watches(), ScriptedSource::started_by_call());
    source.fails(down());
    let mut stream = watches.started(&source, None);
    assert_eq!(next(&mut stream).await, "STARTED");
    tokio::time::sleep(S(3)).await;
    source.returns(&["1"]);
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("cannot be read").count(), 1, "{log}");
    assert_eq!(log.matches("can be read again").count(), 1, "{log}");
}

#[tokio::test(start_paused = true)]
async fn failures_are_tolerated_up_to_the_limit() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut streams = [watches.join(&source).await, watches.join(&source).await];
    source.fails(down());
    for stream in &mut streams {
        assert_eq!(
            all(stream, 2).await,
            ["INITIAL 1", "BOOKMARK unconfirmed since 0"]
        );
    }
    let failing_since = Instant::now();
    for stream in &mut streams {
        let mut sent = next(stream).await;
        while sent.starts_with("BOOKMARK") {
            sent = next(stream).await;
        }
        assert_eq!(sent, "ERROR cannot connect: refused");
        assert_eq!(next(stream).await, "END");
    }
    assert_eq!(failing_since.elapsed().as_secs(), 60);
    assert_eq!(watches.stats().loops, 0);
}

#[tokio::test(start_paused = true)]
async fn permanent_failure_ends_all_streams_at_once() {
    for error in [
        fault(Code::PermissionDenied, None),
        fault(Code::Unauthenticated, None),
        Error::decode("status", "a number"),
        // Not about one response: the list is too long, or its pages do not continue.
        Error::decode("", "the list has more items than 10000"),
    ] {
        let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
        let mut streams = [
            watches.join(&source).await,
            watches.join_following(&source).await,
        ];
        source.fails(error.clone());
        for stream in &mut streams {
            let want = ["INITIAL 1".to_owned(), format!("ERROR {error}")];
            assert_eq!(all(stream, 2).await, want);
        }
        assert_eq!((source.polls(), watches.stats().loops), (2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn success_that_is_not_the_resource_neither_ends_a_watch_nor_deletes() {
    let Error::Upstream(not_found) = fault(Code::NotFound, None) else {
        unreachable!()
    };
    // 409 is a success by `also_success`.
    let in_success = [200, 409].map(|http_status| {
        Error::Upstream(Box::new(Fault {
            http_status,
            in_success: true,
            ..(*not_found).clone()
        }))
    });
    let missing = Error::not_the_resource("not the requested resource: `items` is missing");
    for error in [missing].into_iter().chain(in_success) {
        for list in [false, true] {
            let (watches, source) = (watches(), ScriptedSource::with(list, true, &["1"]));
            let mut stream = watches.join_following(&source).await;
            assert_eq!(next(&mut stream).await, "INITIAL 1");
            source.fails(error.clone());
            loop {
                let message = next(&mut stream).await;
                match message.starts_with("BOOKMARK") {
                    true if message.contains("unconfirmed") => break,
                    true => {}
                    false => panic!("{list} {error}: {message}"),
                }
            }
            source.returns(&["1", "2"]);
            let changed = next(&mut stream).await;
            assert!(!changed.contains("DELETED"), "{changed}");
            assert!(!changed.contains("ERROR"), "{changed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_until_a_change() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut stream = watches.join(&source).await;
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    assert_silent(&mut stream, S(17)).await;
    source.returns(&["2"]);
    assert_eq!(next(&mut stream).await, "MODIFIED 2");
    assert_silent(&mut stream, S(2)).await;
    assert_eq!(
        source.poll_times(),
        [
            0, 1_000, 2_500, 4_750, 8_125, 12_125, 16_125, 20_125, 21_125
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn retry_after_extends_the_pause() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut stream = watches.join(&source).await;
    source.fails(fault(Code::Unavailable, Some(S(20))));
    assert_eq!(
        all(&mut stream, 2).await,
        ["INITIAL 1", "BOOKMARK unconfirmed since 0"]
    );
    source.returns(&["1"]);
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    assert_eq!(source.poll_times(), [0, 1_000, 21_000]);

    source.fails(fault(Code::Unavailable, Some(S(3_600))));
    assert_eq!(
        next(&mut stream).await,
        "ERROR Unavailable",
        "beyond the tolerance"
    );
}

/// No poll comes before the `Retry-After` of a successful one, not even a requested one.
#[tokio::test(start_paused = true)]
async fn retry_after_of_a_success_extends_the_pause() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    source.script(Script::RetryAfter("20", items(&["1"])));
    let mut stream = watches.join(&source).await;
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    assert_silent(&mut stream, S(19)).await;
    let mut other = watches.join(&source).await;
    assert_eq!(next(&mut other).await, "INITIAL 1");
    source.returns(&["2"]);
    assert_eq!(next(&mut stream).await, "MODIFIED 2");
    assert_eq!(source.poll_times()[..2], [0, 20_000]);
    source.returns(&["3"]);
    assert_eq!(next(&mut stream).await, "MODIFIED 3");
    assert_eq!(source.poll_times()[2], 21_000);
}

#[tokio::test(start_paused = true)]
async fn poll_that_hangs_fails_after_the_timeout() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut stream = watches.join(&source).await;
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    source.script(Script::Delayed(S(3_600), Vec::new()));
    tokio::time::sleep(S(2)).await;
    // A regular bookmark; then the poll that began after a second has failed.
    let sent = all(&mut stream, 2).await;
    assert_eq!(sent, ["BOOKMARK", "BOOKMARK unconfirmed since 0"]);
    source.returns(&["2"]);
    assert_eq!(next(&mut stream).await, "MODIFIED 2");
}

#[tokio::test(start_paused = true)]
async fn first_polls_after_a_started_call_may_fail() {
    let watches = watches();
    let source = ScriptedSource::started_by_call();
    let begin = || watches.started(&source, None);
    source.fails(down());
    let mut stream = begin();
    assert_eq!(next(&mut stream).await, "STARTED");
    // Bookmarks are sent before the first state.
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    source.script(Script::NotFound);
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    source.returns(&["1"]);
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    source.returns(&["done"]);
    assert_eq!(
        all(&mut stream, 2).await,
        ["MODIFIED done [SUCCEEDED]", "END"]
    );

    for (script, want) in [
        (
            Script::Fails(fault(Code::PermissionDenied, None)),
            &["ERROR PermissionDenied"][..],
        ),
        (
            Script::Fails(down()),
            &["BOOKMARK", "BOOKMARK", "ERROR cannot connect: refused"],
        ),
        (
            Script::Deleted(items(&["done"]).remove(0)),
            &["DELETED done [SUCCEEDED]", "END"],
        ),
        (
            Script::Panics,
            &["ERROR no response: the poll loop has stopped", "END"],
        ),
    ] {
        source.script(script);
        let mut stream = begin();
        assert_eq!(next(&mut stream).await, "STARTED");
        assert_eq!(all(&mut stream, want.len()).await, want);
        drop(stream);
        run_tasks().await;
        assert_eq!(watches.stats().loops, 0);
    }
    let stream = begin();
    drop(stream);
    run_tasks().await;
    assert_eq!(watches.stats().open_streams, 0);
}

#[tokio::test(start_paused = true)]
async fn state_is_unconfirmed_while_the_resource_is_missing() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut stream = watches.join(&source).await;
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    source.script(Script::NotFound);
    assert_eq!(next(&mut stream).await, "BOOKMARK unconfirmed since 0");
    source.returns(&["1"]);
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    source.script(Script::Deleted(items(&["1"]).remove(0)));
    assert_eq!(all(&mut stream, 2).await, ["DELETED 1", "END"]);
}

#[tokio::test(start_paused = true)]
async fn item_marked_poll_soon_keeps_the_pause_short() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["poll_soon"]));
    let mut stream = watches.join(&source).await;
    assert_eq!(next(&mut stream).await, "INITIAL poll_soon");
    assert_silent(&mut stream, MS(4_500)).await;
    assert_eq!(source.poll_times(), [0, 1_000, 2_000, 3_000, 4_000]);
}
