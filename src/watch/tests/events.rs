//! The messages of a stream.

use super::*;

#[tokio::test(start_paused = true)]
async fn slow_client_gets_the_newest_state() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut slow = watches.join(&source).await;
    assert_eq!(next(&mut slow).await, "INITIAL 1");
    for text in ["2", "3", "4"] {
        source.returns(&[text]);
        tokio::time::sleep(S(1)).await;
    }
    assert_eq!(next(&mut slow).await, "MODIFIED 4");
    for text in ["5", "4"] {
        source.returns(&[text]);
        tokio::time::sleep(S(1)).await;
    }
    // The state has changed and changed back.
    assert_silent(&mut slow, S(5)).await;
    source.returns(&["done"]);
    tokio::time::sleep(S(5)).await;
    source.returns(&["1"]);
    tokio::time::sleep(S(5)).await;
    assert_eq!(
        all(&mut slow, 2).await,
        ["MODIFIED done [SUCCEEDED]", "END"]
    );
}

#[tokio::test(start_paused = true)]
async fn bookmark_is_sent_per_interval() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &["1"]));
    let mut stream = watches.join(&source).await;
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    let start = Instant::now();
    for bookmark in 1..=3 {
        let message = stream.next().await.unwrap().unwrap();
        let event = Message::decode(message).unwrap().event.unwrap();
        assert_eq!(event.r#type(), WatchEventType::Bookmark);
        assert_eq!(start.elapsed().as_secs(), bookmark * 30);
        // Observed within the longest interval.
        let seconds = event.observed_at.unwrap().seconds as u64;
        assert!((bookmark * 30 - 4..=bookmark * 30).contains(&seconds));
    }
    assert_eq!(watches.stats().polls_total as usize, source.polls());
}

#[tokio::test(start_paused = true)]
async fn extreme_bookmark_intervals_are_clamped() {
    for (interval, want) in [(S(0), S(1)), (Duration::MAX, S(86_400))] {
        let watches = watches_with(Settings {
            bookmark_interval: interval,
            ..Settings::default()
        });
        let source = ScriptedSource::of(false, &["1"]);
        let mut stream = watches.join(&source).await;
        assert_eq!(next(&mut stream).await, "INITIAL 1");
        assert_silent(&mut stream, want - MS(500)).await;
        assert_eq!(next(&mut stream).await, "BOOKMARK");
    }
}

#[tokio::test(start_paused = true)]
async fn list_is_sent_item_by_item() {
    let (watches, source) = (watches(), ScriptedSource::of(true, &["a=1", "b=1", "c=1"]));
    let mut stream = watches.join(&source).await;
    assert_eq!(
        all(&mut stream, 4).await,
        ["INITIAL a=1", "INITIAL b=1", "INITIAL c=1", "BOOKMARK"]
    );
    source.returns(&["c=1", "b=1", "a=1"]);
    assert_silent(&mut stream, S(10)).await;
    source.returns(&["d=1", "c=1", "b=2"]);
    assert_eq!(
        all(&mut stream, 3).await,
        ["ADDED d=1", "MODIFIED b=2", "DELETED a=1"]
    );
    source.returns(&["d=1", "c=1", "b=2", "d=2"]);
    assert_eq!(
        next(&mut stream).await,
        "MODIFIED d=2",
        "the last item of a key"
    );
    source.returns(&["done"]);
    assert_eq!(
        all(&mut stream, 4).await,
        [
            "ADDED done [SUCCEEDED]",
            "DELETED c=1",
            "DELETED b=2",
            "DELETED d=2"
        ]
    );
    // A final item does not make a list final.
    source.returns(&[]);
    assert_eq!(next(&mut stream).await, "DELETED done [SUCCEEDED]");
    assert_silent(&mut stream, S(20)).await;
}

#[tokio::test(start_paused = true)]
async fn empty_list_is_sent_as_a_bookmark() {
    let (watches, source) = (watches(), ScriptedSource::of(true, &[]));
    let mut stream = watches.join(&source).await;
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    source.returns(&["a=1"]);
    assert_eq!(next(&mut stream).await, "ADDED a=1");
}

#[tokio::test(start_paused = true)]
async fn slow_client_of_a_list_gets_the_difference() {
    let (watches, source) = (watches(), ScriptedSource::of(true, &["a=1", "b=1"]));
    let mut slow = watches.join(&source).await;
    assert_eq!(next(&mut slow).await, "INITIAL a=1");
    for state in [&["a=2", "b=1", "x=1"][..], &["a=2", "x=2"], &["a=3", "c=1"]] {
        source.returns(state);
        tokio::time::sleep(S(1)).await;
    }
    // One more poll confirms the deletions.
    tokio::time::sleep(S(1)).await;
    assert_eq!(
        all(&mut slow, 5).await,
        [
            "INITIAL b=1",
            "BOOKMARK",
            "MODIFIED a=3",
            "ADDED c=1",
            "DELETED b=1"
        ]
    );
    assert_silent(&mut slow, S(20)).await;
}

#[tokio::test(start_paused = true)]
async fn started_is_sent_before_any_end() {
    let draining = "ERROR the gateway is stopping";
    let late = "ERROR the deadline passed; the upstream may have acted";
    for (drains, passes, read_first, want) in [
        (true, false, false, draining),
        (false, true, false, late),
        (true, true, false, late),
        (true, false, true, draining),
        (false, true, true, late),
    ] {
        let (watches, source) = (watches(), ScriptedSource::started_by_call());
        source.script(Script::Delayed(S(20), Vec::new()));
        let mut stream = watches.started(&source, Some(Deadline::after(S(5))));
        let mut sent = Vec::new();
        if read_first {
            sent.push(next(&mut stream).await);
        }
        if drains {
            run_tasks().await;
            watches.drain();
            run_tasks().await;
        }
        if passes {
            tokio::time::sleep(S(5)).await;
        }
        sent.extend(all(&mut stream, 3 - sent.len()).await);
        let case = (drains, passes, read_first);
        assert_eq!(sent, ["STARTED", want, "END"], "{case:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn deletion_found_by_the_first_poll_is_sent() {
    let (watches, source) = (watches(), ScriptedSource::of(false, &[]));
    source.script(Script::Deleted(items(&["done"]).remove(0)));
    let mut stream = watches.join(&source).await;
    assert_eq!(
        all(&mut stream, 2).await,
        ["DELETED done [SUCCEEDED]", "END"]
    );
}

#[tokio::test(start_paused = true)]
async fn equivalent_item_is_not_a_change() {
    let (watches, source) = (watches(), ScriptedSource::of(true, &["a=1 2", "b=1 2"]));
    let mut stream = watches.join(&source).await;
    all(&mut stream, 3).await;
    source.returns(&["b=1 2", "2 a=1"]);
    assert_silent(&mut stream, S(10)).await;
    source.returns(&["b=1 3", "2 a=1"]);
    assert_eq!(next(&mut stream).await, "MODIFIED b=1 3");
    assert_silent(&mut stream, S(10)).await;
}
