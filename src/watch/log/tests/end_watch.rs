//! Tests of the watch that ends a log.

use tokio::time::Instant;

use super::*;

/// The watch that ends a log: these messages, each after a pause, without an outcome except
/// for the last one.
fn end_watch(pauses: &'static [u64]) -> EndWatch {
    let messages = pauses
        .iter()
        .enumerate()
        .map(move |(number, pause)| async move {
            tokio::time::sleep(S(*pause)).await;
            let is_last = number + 1 == pauses.len();
            Ok(Bytes::from(if is_last { "final" } else { "pending" }))
        });
    let messages = tokio_stream::iter(messages).then(|message| message);
    let decode = |message: &[u8]| match message {
        b"final" => Some(Outcome::Succeeded),
        _ => Some(Outcome::Unspecified),
    };
    EndWatch::with(
        Box::new(WatchStream::log(Box::pin(messages))),
        Box::new(decode),
    )
}

/// A resource that is final already ends its log at once; after one that has just become final
/// the log is read again after a pause, since its last entries may be written later.
#[tokio::test(start_paused = true)]
async fn log_of_a_final_resource_ends_without_a_pause() {
    for text in [false, true] {
        for (pauses, waits, late) in [
            (&[0][..], false, ""),
            (&[0, 0], true, " 3"),
            (&[0, 30], true, " 3"),
        ] {
            let log = Arc::new(ScriptedLog {
                text,
                ..ScriptedLog::default()
            });
            log.add(&["1", "2"]);
            let start = StartAt::Position(Position::new(None, text));
            let source = || -> Arc<dyn LogSource> { log.clone() };
            let end = Some(end_watch(pauses));
            let watches = watches();
            let stream = watches.open_log(Client::default(), key(), start, end, None, source);
            let mut stream = stream.await.unwrap();
            let final_at = Instant::now() + pauses.iter().map(|pause| S(*pause)).sum();
            let entry = log.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(final_at + Duration::from_millis(1)).await;
                entry.add(&["3"]);
            });
            let (mut sent, mut outcome) = (String::new(), None);
            while let Some(message) = stream.next().await {
                let message = Message::decode(message.unwrap()).unwrap();
                sent.extend(message.item.map(|item| format!(" {item}")));
                outcome = message.event.map(|event| event.outcome());
            }
            assert_eq!(outcome, Some(Outcome::Succeeded), "{pauses:?}");
            let case = format!("text: {text}, {pauses:?}");
            assert_eq!(sent, format!(" 1 2{late}"), "{case}");
            let waited = Instant::now() - final_at;
            assert_eq!(waited > Duration::ZERO, waits, "{case}: {waited:?}");
            assert!(waited < S(2), "{case}: {waited:?}");
        }
    }
}
