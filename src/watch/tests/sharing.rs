//! Joining, sharing and leaving poll loops.

use super::*;

#[tokio::test(start_paused = true)]
async fn streams_with_equal_keys_share_one_poll() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut streams = Vec::new();
    for _ in 0..1_000 {
        streams.push(watches.join(&source).await);
    }
    for stream in &mut streams {
        assert_eq!(next(stream).await, "INITIAL 1");
    }
    assert_eq!(source.polls(), 1);
    assert_eq!(
        watches.stats(),
        Stats {
            open_streams: 1_000,
            loops: 1,
            polls_total: 1
        }
    );
    for text in ["2", "3"] {
        source.returns(&[text]);
        let before = source.encoded.load(Ordering::Relaxed);
        for stream in &mut streams {
            assert_eq!(next(stream).await, format!("MODIFIED {text}"));
        }
        assert_eq!(
            source.encoded.load(Ordering::Relaxed) - before,
            1,
            "encoded once"
        );
    }
    assert_eq!(source.poll_times(), [0, 1_000, 2_000]);

    drop(streams);
    run_tasks().await;
    let stats = watches.stats();
    assert_eq!((stats.open_streams, stats.loops), (0, 0));
    tokio::time::sleep(S(60)).await;
    assert_eq!(source.polls(), 3, "polling has stopped");
    assert_eq!(Arc::strong_count(&source), 1, "the source is dropped");

    let mut again = watches.join(&source).await;
    assert_eq!(next(&mut again).await, "INITIAL 3");
    source.returns(&["4"]);
    assert_eq!(next(&mut again).await, "MODIFIED 4");
}

#[tokio::test(start_paused = true)]
async fn stream_that_joins_during_the_first_round_waits_for_it() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &[]));
    source.script(Script::Delayed(S(2), items(&["1"])));
    let (a, b) = tokio::join!(watches.join(&source), watches.join(&source));
    for mut stream in [a, b] {
        assert_eq!(next(&mut stream).await, "INITIAL 1");
    }
    assert_eq!(source.polls(), 1);
}

#[tokio::test(start_paused = true)]
async fn streams_with_different_credentials_share_no_loop() {
    let watches = watches();
    let (mine, yours) = (
        ScriptedSource::of(false, &["mine"]),
        ScriptedSource::of(false, &["yours"]),
    );
    let open = |credential, source: &Arc<ScriptedSource>| {
        let (watches, source) = (watches.clone(), Arc::clone(source));
        async move {
            watches
                .open(
                    Client::default(),
                    key("/thing", credential),
                    false,
                    None,
                    || source.clone(),
                )
                .await
                .unwrap()
        }
    };
    let (mut a, mut b) = (open(1, &mine).await, open(2, &yours).await);
    assert_eq!(next(&mut a).await, "INITIAL mine");
    assert_eq!(next(&mut b).await, "INITIAL yours");
    assert_eq!(watches.stats().loops, 2);
    assert_eq!((mine.polls(), yours.polls()), (1, 1));
}

#[test]
fn keys_differ_in_every_field() {
    let changes: [fn(&mut Key); 13] = [
        |_| {},
        |key| key.upstream = "other".into(),
        |key| key.instances.0 = 1,
        |key| key.instances.1 = 1,
        |key| key.operation = "test.v1.ThingService/WatchOther".into(),
        |key| key.verb = http::Method::POST,
        |key| key.path = "/other".to_owned(),
        |key| key.project = Some(1..1),
        |key| key.query = "a=1".to_owned(),
        |key| key.body = Some(Bytes::from_static(b"{}")),
        |key| key.credential = CredentialId([9; 32]),
        |key| key.language = Some(http::HeaderValue::from_static("ja")),
        |key| key.discriminator = vec![1],
    ];
    let mut keys = HashSet::new();
    for change in changes {
        let mut key = key("/thing", 0);
        change(&mut key);
        keys.insert(key);
    }
    assert_eq!(keys.len(), changes.len());
}

#[tokio::test(start_paused = true)]
async fn stream_that_joins_gets_the_current_state_without_a_poll() {
    let (watches, source) = (watches(), ScriptedSource::of(true, &["a=1"]));
    let mut first = watches.join(&source).await;
    assert_eq!(all(&mut first, 2).await, ["INITIAL a=1", "BOOKMARK"]);
    source.returns(&["a=2", "b=1"]);
    assert_eq!(all(&mut first, 2).await, ["MODIFIED a=2", "ADDED b=1"]);
    let (polls, at) = (source.polls(), Instant::now());
    let mut joined = watches.join(&source).await;
    assert_eq!(
        all(&mut joined, 3).await,
        ["INITIAL a=2", "INITIAL b=1", "BOOKMARK"]
    );
    assert_eq!((source.polls(), at.elapsed()), (polls, S(0)));
    source.returns(&["a=2"]);
    for stream in [&mut first, &mut joined] {
        assert_eq!(next(stream).await, "DELETED b=1");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_that_joins_during_a_round_waits_for_it() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut first = watches.join(&source).await;
    assert_eq!(next(&mut first).await, "INITIAL 1");
    for script in ["1", "2"] {
        source.script(Script::Delayed(S(2), items(&[script])));
        let before = source.polls();
        while source.polls() == before {
            tokio::time::sleep(MS(1)).await;
        }
        let (polls, at) = (source.polls(), Instant::now());
        let mut joined = watches.join(&source).await;
        assert_eq!(next(&mut joined).await, format!("INITIAL {script}"));
        assert_eq!(source.polls(), polls);
        assert!(at.elapsed() >= MS(1_990), "sent {:?} later", at.elapsed());
    }
    assert_eq!(next(&mut first).await, "MODIFIED 2");
}

#[tokio::test(start_paused = true)]
async fn final_state_from_before_the_rpc_is_read_again() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut following = watches.join_following(&source).await;
    assert_eq!(next(&mut following).await, "INITIAL 1");
    source.returns(&["done"]);
    assert_eq!(next(&mut following).await, "MODIFIED done [SUCCEEDED]");
    assert_silent(&mut following, S(10)).await;
    // The state is still final, or has changed since the last poll.
    let (polls, at) = (source.polls(), Instant::now());
    let mut joined = watches.join(&source).await;
    assert_eq!(
        all(&mut joined, 2).await,
        ["INITIAL done [SUCCEEDED]", "END"]
    );
    source.returns(&["2"]);
    let mut joined = watches.join(&source).await;
    assert_eq!(next(&mut joined).await, "INITIAL 2");
    assert_eq!((source.polls(), at.elapsed()), (polls + 2, S(0)));
    source.returns(&["broken"]);
    assert_eq!(
        all(&mut joined, 2).await,
        ["MODIFIED broken [FAILED]", "END"]
    );
    // The poll fails: so does the rpc, as without other streams.
    source.fails(down());
    let error = watches.try_join(&source).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    source.returns(&["done"]);
    let mut joined = watches.join(&source).await;
    assert_eq!(
        all(&mut joined, 2).await,
        ["INITIAL done [SUCCEEDED]", "END"]
    );
    assert_eq!(watches.stats().loops, 1);
}

#[tokio::test(start_paused = true)]
async fn final_state_of_a_round_begun_before_the_rpc_does_not_end_its_stream() {
    for followed in [false, true] {
        let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
        let mut first = watches.join(&source).await;
        let mut following = None;
        if followed {
            following = Some(watches.join_following(&source).await);
        }
        assert_eq!(next(&mut first).await, "INITIAL 1");
        source.script(Script::Delayed(S(2), items(&["done"])));
        let before = source.polls();
        while source.polls() == before {
            tokio::time::sleep(MS(1)).await;
        }
        source.returns(&["2"]);
        let (a, b) = tokio::join!(watches.join(&source), watches.join(&source));
        for mut joined in [a, b] {
            assert_eq!(next(&mut joined).await, "INITIAL 2", "{followed}");
        }
        assert_eq!(
            all(&mut first, 2).await,
            ["MODIFIED done [SUCCEEDED]", "END"]
        );
        assert_eq!(source.polls(), before + 2, "one read for both");
        if let Some(mut following) = following {
            // It skips the final state.
            assert_eq!(all(&mut following, 2).await, ["INITIAL 1", "MODIFIED 2"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stream_that_joins_as_the_last_one_leaves_is_served() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut stream = watches.join(&source).await;
    for text in ["1", "2", "3"] {
        source.returns(&[text]);
        // No task has run in between: the loop has not noticed.
        drop(stream);
        stream = watches.join(&source).await;
        assert!(next(&mut stream).await.starts_with("INITIAL"));
        source.returns(&["next"]);
        assert_eq!(next(&mut stream).await, "MODIFIED next");
        // The loop has noticed.
        drop(stream);
        run_tasks().await;
        assert_eq!(watches.stats().loops, 0);
        source.returns(&[text]);
        stream = watches.join(&source).await;
        assert_eq!(next(&mut stream).await, format!("INITIAL {text}"));
    }
}

#[tokio::test(start_paused = true)]
async fn loop_with_a_new_stream_is_not_removed() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let stream = watches.join(&source).await;
    let there = || {
        let loops = watches.0.lock();
        let (key, shared) = loops.snapshots.iter().next().expect("one loop");
        (Arc::clone(key), Arc::clone(shared))
    };
    let (key, shared) = there();
    assert!(
        !watches.0.remove_if_unused(&key, &shared),
        "it has a stream"
    );
    drop(stream);
    let stream = watches.join(&source).await;
    assert!(
        !watches.0.remove_if_unused(&key, &shared),
        "it has a stream again"
    );
    drop(stream);
    assert!(watches.0.remove_if_unused(&key, &shared));

    // A removed loop does not remove a new one with the same key.
    let _anew = watches.join(&source).await;
    assert!(!Arc::ptr_eq(&shared, &there().1));
    watches.0.remove_if(&key, &shared, || true);
    assert_eq!(watches.stats().loops, 1);
}

#[test]
fn loop_dropped_by_a_stopped_runtime_is_removed() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let _entered = handle.enter();
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let source = || SnapshotLoop::new(source.clone());
    let key = Arc::new(key("/thing", 0));
    let subscription = watches
        .0
        .subscribe(Client::default(), &key, false, source)
        .unwrap();
    assert_eq!(watches.stats().loops, 0);
    assert!(matches!(
        subscription.published.borrow().phase,
        shared_loop::Phase::Ended(..)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn loops_end_after_concurrent_joins_and_leaves() {
    let watches = Watches::new(Settings::default());
    let source = ScriptedSource::of(false, &["1"]);
    let mut comers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (watches, source) = (watches.clone(), Arc::clone(&source));
        comers.spawn(async move {
            for round in 0..200 {
                let mut stream = watches.join(&source).await;
                assert_eq!(next(&mut stream).await, "INITIAL 1");
                if round % 3 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    while let Some(done) = comers.join_next().await {
        done.expect("each stream has a message");
    }
    let gone = async {
        while watches.stats().loops > 0 || Arc::strong_count(&source) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(S(30), gone)
        .await
        .expect("loops end with their last watcher");
    assert_eq!(watches.stats().open_streams, 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_stream_ends_its_loop_in_every_state() {
    let (watches, source) = (watches(), ScriptedSource::with(true, true, &["a=1", "b=1"]));
    // Before the first poll is over.
    source.script(Script::Delayed(S(5), items(&["a=1", "b=1"])));
    assert!(
        tokio::time::timeout(S(1), watches.join(&source))
            .await
            .is_err()
    );
    run_tasks().await;
    assert_eq!(watches.stats().loops, 0, "the poll is cancelled");
    source.returns(&["a=1", "b=1"]);
    // Unread; within the items; waiting; within a step, a difference, the last messages.
    for reads in 0..9 {
        source.returns(&["a=1", "b=1"]);
        let mut stream = watches.join(&source).await;
        for _ in 0..reads.min(3) {
            next(&mut stream).await;
        }
        if reads >= 3 {
            assert_silent(&mut stream, MS(100)).await;
        }
        if reads >= 4 {
            source.returns(&["a=2", "b=2", "c=2"]);
            next(&mut stream).await;
        }
        if reads >= 5 {
            source.returns(&["a=3", "b=3"]);
            tokio::time::sleep(S(2)).await;
            source.returns(&["a=4", "b=4"]);
            tokio::time::sleep(S(2)).await;
            all(&mut stream, 3).await;
        }
        if reads >= 6 {
            source.fails(fault(Code::NotFound, None));
            all(&mut stream, reads - 4).await;
        }
        drop(stream);
        run_tasks().await;
        let stats = watches.stats();
        assert_eq!((stats.open_streams, stats.loops), (0, 0), "{reads}");
        assert_eq!(Arc::strong_count(&source), 1, "{reads}");
    }
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_poll_ends_only_its_streams() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut stream = watches.join(&source).await;
    source.script(Script::Panics);
    assert_eq!(
        all(&mut stream, 3).await,
        [
            "INITIAL 1",
            "ERROR no response: the poll loop has stopped",
            "END"
        ]
    );
    assert!(watches.try_join(&source).await.is_err());
    source.returns(&["2"]);
    assert_eq!(next(&mut watches.join(&source).await).await, "INITIAL 2");
}

#[tokio::test(start_paused = true)]
async fn streams_and_loops_are_limited() {
    let watches = watches_with(Settings {
        max_streams: 3,
        max_poll_loops: 2,
        ..Settings::default()
    });
    let source = ScriptedSource::of(false, &["1"]);
    let open = |path| {
        let (watches, source) = (watches.clone(), Arc::clone(&source));
        async move {
            watches
                .open(Client::default(), key(path, 0), false, None, || {
                    source.clone()
                })
                .await
        }
    };
    let mut streams = vec![open("/a").await.unwrap(), open("/b").await.unwrap()];
    let refusal = |result: Result<WatchStream, Error>| match result.err() {
        Some(Error::Overload { code, problem, .. }) => {
            assert_eq!(code, Code::ResourceExhausted);
            problem
        }
        other => panic!("{other:?}"),
    };
    assert!(refusal(open("/c").await).contains("`watch.max_poll_loops`"));
    streams.push(open("/a").await.unwrap());
    assert!(refusal(open("/a").await).contains("`watch.max_streams`"));
    // List streams count too.
    let place = || {
        watches
            .streams()
            .acquire(Client::default())
            .map(|_| unreachable!("all are taken"))
    };
    assert!(refusal(place()).contains("`watch.max_streams`"));
    streams.clear();
    run_tasks().await;
    streams.push(open("/c").await.unwrap());
    assert_eq!(watches.stats().open_streams, 1);
    let places = [
        watches.streams().acquire(Client::default()).unwrap(),
        watches.streams().acquire(Client::default()).unwrap(),
    ];
    assert!(refusal(open("/c").await).contains("too many streams"));
    drop(places);
    assert_eq!(watches.stats().open_streams, 1);
    watches.drain();
    assert!(matches!(
        watches.streams().acquire(Client::default()).err(),
        Some(Error::Draining)
    ));
}

#[tokio::test(start_paused = true)]
async fn client_leaves_streams_and_loops_to_others() {
    let client = |number| Client::from(ClientKey::test(number));
    for (max_streams, max_poll_loops, setting) in [
        (8, 100, "`watch.max_streams`"),
        (100, 8, "`watch.max_poll_loops`"),
    ] {
        let watches = watches_with(Settings {
            max_streams,
            max_poll_loops,
            ..Settings::default()
        });
        let source = ScriptedSource::of(false, &["1"]);
        let mut number = 0;
        let mut open = |client| {
            number += 1;
            let key = key(&format!("/{number}"), 0);
            let (watches, source) = (watches.clone(), Arc::clone(&source));
            async move { (watches.open(client, key, false, None, || source.clone())).await }
        };
        let mut streams = Vec::new();
        for _ in 0..6 {
            streams.push(open(client(1)).await.unwrap());
        }
        match open(client(1)).await.err() {
            Some(Error::Overload { code, problem, .. }) => {
                assert_eq!(code, Code::ResourceExhausted);
                assert!(problem.contains("of this client"), "{problem}");
                assert!(problem.contains(setting), "{problem}");
            }
            other => panic!("{other:?}"),
        }
        // A loop that another client has started counts for that one.
        let other = open(client(2)).await.unwrap();
        let shared = key("/8", 0);
        let joined = watches.open(client(1), shared, false, None, || source.clone());
        assert_eq!(joined.await.is_ok(), max_streams > 8);
        drop(other);
        // What a client returns is free for it again.
        streams.pop();
        run_tasks().await;
        streams.push(open(client(1)).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn open_watches_are_listed_with_those_that_cannot_be_read_first() {
    let watches = watches();
    let open = async |path: &str, source: &Arc<ScriptedSource>| {
        let source = || -> Arc<dyn SnapshotSource> { source.clone() };
        let stream = watches
            .open(Client::default(), key(path, 0), false, None, source)
            .await;
        tokio::time::sleep(MS(10)).await;
        stream.unwrap()
    };
    let (list, resource) = (
        ScriptedSource::of(true, &["a", "b"]),
        ScriptedSource::of(false, &["busy"]),
    );
    let _streams = (
        open("/list", &list).await,
        open("/one", &resource).await,
        open("/one", &resource).await,
        open("/two", &ScriptedSource::of(false, &["final"])).await,
    );
    list.fails(down());
    tokio::time::sleep(S(5)).await;
    let (total, listed) = watches.open_watches(2);
    assert_eq!(total, 2, "a final resource is polled no more");
    let summary = listed.iter().map(|watch| {
        let observed = watch.observed.as_ref().unwrap();
        (
            &*watch.path,
            watch.streams,
            observed.is_unconfirmed,
            observed.progress.clone(),
        )
    });
    let busy = Progress::Resource(Some("busy".to_owned()), Outcome::Pending);
    assert_eq!(
        summary.collect::<Vec<_>>(),
        [
            ("/list", 1, true, Progress::List(2)),
            ("/one", 2, false, busy)
        ]
    );
    let (total, listed) = watches.open_watches(1);
    assert_eq!((total, listed.len()), (2, 1));
}
