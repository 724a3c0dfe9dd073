//! How streams end.

use super::*;

#[tokio::test(start_paused = true)]
async fn final_state_ends_the_stream() {
    for (text, last) in [
        ("done", "MODIFIED done [SUCCEEDED]"),
        ("broken", "MODIFIED broken [FAILED]"),
    ] {
        let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
        let mut stream = watches.join(&source).await;
        assert_eq!(next(&mut stream).await, "INITIAL 1");
        source.returns(&[text]);
        assert_eq!(all(&mut stream, 3).await, [last, "END", "END"]);
        run_tasks().await;
        assert_eq!(watches.stats().loops, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn state_that_is_final_at_first_is_sent_and_ends_the_stream() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["done"]));
    let mut stream = watches.join(&source).await;
    assert_eq!(
        all(&mut stream, 2).await,
        ["INITIAL done [SUCCEEDED]", "END"]
    );
    tokio::time::sleep(S(60)).await;
    assert_eq!(source.polls(), 1);
    assert_eq!(
        watches.stats().loops,
        0,
        "although the stream is not dropped yet"
    );
}

#[tokio::test(start_paused = true)]
async fn stream_with_follow_continues_after_a_final_state() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut ends = watches.join(&source).await;
    let mut slow = watches.join(&source).await;
    let mut following = watches.join_following(&source).await;
    for stream in [&mut ends, &mut slow, &mut following] {
        assert_eq!(next(stream).await, "INITIAL 1");
    }
    source.returns(&["done"]);
    assert_eq!(
        all(&mut ends, 2).await,
        ["MODIFIED done [SUCCEEDED]", "END"]
    );
    assert_eq!(next(&mut following).await, "MODIFIED done [SUCCEEDED]");

    let mut late = watches.join(&source).await;
    assert_eq!(all(&mut late, 2).await, ["INITIAL done [SUCCEEDED]", "END"]);

    source.returns(&["2"]);
    assert_eq!(next(&mut following).await, "MODIFIED 2");
    let mut joined = watches.join(&source).await;
    assert_eq!(next(&mut joined).await, "INITIAL 2");
    // The final state is the last one for this stream, however slow its client.
    assert_eq!(
        all(&mut slow, 2).await,
        ["MODIFIED done [SUCCEEDED]", "END"]
    );
    assert_silent(&mut joined, S(20)).await;

    drop(following);
    source.returns(&["broken"]);
    assert_eq!(
        all(&mut joined, 2).await,
        ["MODIFIED broken [FAILED]", "END"]
    );
    assert_eq!(watches.stats().loops, 0, "without a stream that follows");
}

#[tokio::test(start_paused = true)]
async fn stream_with_follow_ends_at_a_state_without_successor() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["broken"]));
    let mut following = watches.join_following(&source).await;
    let mut slow = watches.join_following(&source).await;
    assert_eq!(next(&mut following).await, "INITIAL broken [FAILED]");
    source.returns(&["again"]);
    assert_eq!(next(&mut following).await, "MODIFIED again");
    source.returns(&["final"]);
    assert_eq!(
        all(&mut following, 2).await,
        ["MODIFIED final [SUCCEEDED]", "END"]
    );
    // The state from before is sent first.
    let sent = [
        "INITIAL broken [FAILED]",
        "MODIFIED final [SUCCEEDED]",
        "END",
    ];
    assert_eq!(all(&mut slow, 3).await, sent);
    let mut late = watches.join_following(&source).await;
    assert_eq!(
        all(&mut late, 2).await,
        ["INITIAL final [SUCCEEDED]", "END"]
    );
    assert_eq!(watches.stats().loops, 0);
}

#[tokio::test(start_paused = true)]
async fn not_found_ends_the_stream_as_annotated() {
    let gone = "ERROR deleted since it was last read: NotFound";
    for (ends_well, list, want) in [
        (false, false, &[gone, "END"][..]),
        (true, false, &["DELETED a=1 [SUCCEEDED]", "END"]),
        (false, true, &["BOOKMARK", gone, "END"]),
        (
            true,
            true,
            &["BOOKMARK", "DELETED a=1", "DELETED b=1", "END"],
        ),
    ] {
        let things: &[&str] = if list { &["a=1", "b=1"] } else { &["a=1"] };
        let (watches, source) = (watches(), ScriptedSource::with(list, ends_well, things));
        let mut stream = watches.join(&source).await;
        for thing in things {
            assert_eq!(next(&mut stream).await, format!("INITIAL {thing}"));
        }
        source.fails(fault(Code::NotFound, None));
        assert_eq!(all(&mut stream, want.len()).await, want);
        assert_eq!(
            source.poll_times(),
            [0, 1_000, 2_000],
            "soon after the first one"
        );
        assert_eq!(watches.stats().loops, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn last_state_is_sent_before_the_deletion() {
    let (watches, source) = (watches(), ScriptedSource::with(false, true, &["1"]));
    let mut slow = watches.join(&source).await;
    assert_eq!(next(&mut slow).await, "INITIAL 1");
    source.returns(&["2"]);
    tokio::time::sleep(MS(1_500)).await;
    source.fails(fault(Code::NotFound, None));
    tokio::time::sleep(S(9)).await;
    assert_eq!(
        all(&mut slow, 3).await,
        ["MODIFIED 2", "DELETED 2 [SUCCEEDED]", "END"]
    );
}

#[tokio::test(start_paused = true)]
async fn drain_ends_all_streams() {
    let (watches, source) = (watches(), ScriptedSource::of(true, &["a=1", "b=1"]));
    let mut waits = watches.join(&source).await;
    assert_eq!(
        all(&mut waits, 3).await,
        ["INITIAL a=1", "INITIAL b=1", "BOOKMARK"]
    );
    let mut in_the_middle = watches.join(&source).await;
    assert_eq!(next(&mut in_the_middle).await, "INITIAL a=1");
    let hangs = ScriptedSource::of(false, &[]);
    hangs.script(Script::Delayed(S(20), Vec::new()));
    let opens = watches.open(Client::default(), key("/other", 0), false, None, || {
        hangs.clone()
    });
    let drains = async {
        run_tasks().await;
        watches.drain();
    };
    let (opened, ()) = tokio::join!(opens, drains);
    assert!(matches!(opened.err(), Some(Error::Draining)));
    run_tasks().await;
    for stream in [&mut waits, &mut in_the_middle] {
        assert_eq!(
            all(stream, 2).await,
            ["ERROR the gateway is stopping", "END"]
        );
    }
    assert!(matches!(
        watches.try_join(&source).await.err(),
        Some(Error::Draining)
    ));
    drop((waits, in_the_middle));
    let stats = watches.stats();
    assert_eq!((stats.open_streams, stats.loops), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn stream_ends_at_its_deadline() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let deadline = Some(Deadline::after(S(5)));
    let open = |path, source: &Arc<ScriptedSource>| {
        let (watches, source) = (watches.clone(), Arc::clone(source));
        async move {
            watches
                .open(Client::default(), key(path, 0), false, deadline, || {
                    source.clone()
                })
                .await
        }
    };
    let mut bounded = open("/thing", &source).await.unwrap();
    let mut endless = watches.join(&source).await;
    let passed = "ERROR the deadline of the stream passed";
    assert_eq!(all(&mut bounded, 3).await, ["INITIAL 1", passed, "END"]);
    assert_eq!(START.get().unwrap().elapsed(), S(5));
    assert_eq!(next(&mut endless).await, "INITIAL 1");
    source.returns(&["2"]);
    assert_eq!(
        next(&mut endless).await,
        "MODIFIED 2",
        "other streams continue"
    );

    // The deadline also ends the wait for the first message.
    let hangs = ScriptedSource::of(false, &[]);
    hangs.script(Script::Delayed(S(20), Vec::new()));
    let error = open("/other", &hangs).await.err();
    assert!(matches!(error, Some(Error::Deadline { .. })), "{error:?}");
}
