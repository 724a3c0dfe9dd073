//! Floods of frames, and streams that are opened and abandoned.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::support::{Gateway, Honest, Reply, Upstream, eventually, frames, raw, within};

const MIB: u64 = 1 << 20;
const GET: &str = "openstack.orchestration.v1.SoftwareDeploymentService/GetSoftwareDeployment";
const WATCH: &str = "openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment";

/// How much one flood sends, if the gateway does not close the connection before.
const FLOOD_BYTES: u64 = 4 * MIB;

/// Sends a flood of each kind, one after the other, while the honest client is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_cost_neither_memory_nor_service() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&upstream.heat(""));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let head = frames::call(GET);
    let stream_of = |number: u32| 2 * number + 1;
    let large = frames::header_block(&[("x-filling", &"x".repeat(8_000))]);

    type Flood<'a> = Box<dyn FnMut(u32) -> Vec<u8> + 'a>;
    let floods: Vec<(&str, Flood<'_>)> = vec![
        (
            "rapid reset",
            Box::new(|n| {
                let stream = stream_of(n);
                let mut bytes = frames::frame(frames::HEADERS, frames::END_HEADERS, stream, &head);
                bytes.extend(frames::frame(frames::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
                bytes
            }),
        ),
        (
            "CONTINUATION",
            Box::new(|n| match n {
                0 => frames::frame(frames::HEADERS, 0, 1, &head),
                _ => frames::frame(frames::CONTINUATION, 0, 1, &large),
            }),
        ),
        (
            "empty CONTINUATION",
            Box::new(|n| match n {
                0 => frames::frame(frames::HEADERS, 0, 1, &head),
                _ => frames::frame(frames::CONTINUATION, 0, 1, &[]),
            }),
        ),
        (
            "PING",
            Box::new(|_| frames::frame(frames::PING, 0, 0, &[1; 8]).repeat(100)),
        ),
        (
            "SETTINGS",
            Box::new(|_| {
                frames::frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]).repeat(100)
            }),
        ),
        (
            "acknowledgements of pings that were not sent",
            Box::new(|_| frames::frame(frames::PING, frames::ACK, 0, &[1; 8]).repeat(100)),
        ),
        (
            "sizes of the table of headers",
            Box::new(|n| {
                let size = if n % 2 == 0 { [0; 4] } else { [0, 1, 0, 0] };
                let setting = [[0, 1].as_slice(), &size].concat();
                frames::frame(frames::SETTINGS, 0, 0, &setting).repeat(100)
            }),
        ),
        (
            "PRIORITY",
            Box::new(|n| {
                let stream = stream_of(n % 1_000);
                frames::frame(frames::PRIORITY, 0, stream, &[0, 0, 0, 0, 16]).repeat(100)
            }),
        ),
        (
            "GOAWAY",
            Box::new(|_| frames::frame(frames::GOAWAY, 0, 0, &[0; 8]).repeat(100)),
        ),
        (
            "frames of an unknown kind",
            Box::new(|_| frames::frame(0xee, 0xff, 0, &[]).repeat(100)),
        ),
        (
            "padding",
            Box::new(|n| match n {
                0 => frames::frame(frames::HEADERS, frames::END_HEADERS, 1, &head),
                _ => frames::frame(
                    frames::DATA,
                    frames::PADDED,
                    1,
                    &[[255].as_slice(), &[0; 255]].concat(),
                )
                .repeat(50),
            }),
        ),
        (
            "headers that are references",
            Box::new(|n| {
                let mut block = head.clone();
                // `accept-charset` of the static table, thousands of times.
                block.resize(16_000, 0x8f);
                let stream = stream_of(n);
                frames::frame(frames::HEADERS, frames::END_HEADERS, stream, &block)
            }),
        ),
        (
            "empty DATA",
            Box::new(|n| match n {
                0 => frames::frame(frames::HEADERS, frames::END_HEADERS, 1, &head),
                _ => frames::frame(frames::DATA, 0, 1, &[]).repeat(100),
            }),
        ),
        (
            "WINDOW_UPDATE",
            Box::new(|_| frames::frame(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(100)),
        ),
        (
            "requests that are abandoned by RST_STREAM from the gateway",
            Box::new(|n| {
                let stream = stream_of(n);
                // A DATA frame on a stream that has ended is an error of the stream.
                let flags = frames::END_HEADERS | frames::END_STREAM;
                let mut bytes = frames::frame(frames::HEADERS, flags, stream, &head);
                bytes.extend(frames::frame(frames::DATA, 0, stream, b"x"));
                bytes
            }),
        ),
    ];
    for (name, mut flood) in floods {
        let since = std::time::Instant::now();
        let stream = frames::connect(gateway.grpc).await;
        let mut number = 0;
        let next = || {
            number += 1;
            flood(number - 1)
        };
        let sending = frames::flood(stream, next, FLOOD_BYTES);
        within(name, sending).await;
        honest.succeeds(1).await;
        println!("{name}: {} ms", since.elapsed().as_millis());
    }
    honest.finish().await;
    gateway.assert_peak_below(before, 64 * MIB);
    gateway.recovers(before).await;
    let in_flight = gateway.metric("drawbridge_rpc_calls_in_flight").await;
    assert!(in_flight < 1.0, "{in_flight}");
}

/// A client that sends pings and reads no byte: its connection ends with the write timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_without_reading_is_cut_off() {
    let upstream = Upstream::plain();
    let settings = "[server]\nresponse_write_timeout_secs = 1\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.heat("")));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = frames::connect(gateway.grpc).await;
        let pings = frames::frame(frames::PING, 0, 0, &[1; 8]).repeat(1_000);
        streams.push(tokio::spawn(async move {
            while stream.write_all(&pings).await.is_ok() {}
        }));
    }
    for stream in streams {
        within("the gateway closes the connection", stream)
            .await
            .unwrap();
    }
    honest.finish().await;
    gateway.assert_peak_below(before, 64 * MIB);
    gateway.recovers(before).await;
}

/// Watches that are opened and abandoned, in order and with their connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_watches_leave_nothing() {
    let upstream = Upstream::start(|_| {
        Reply::ok(r#"{"software_deployment":{"id":"d","status":"IN_PROGRESS"}}"#)
    });
    let gateway = Gateway::start(&upstream.heat(""));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    for round in 0..10 {
        let connection = raw::connect(gateway.grpc).await.unwrap();
        let mut watches = Vec::new();
        for number in 0..100 {
            let watch = raw::attack(WATCH);
            let message = raw::string_field(2, &format!("d{round}-{}", number % 10));
            watches.push(connection.send(watch, message).await.unwrap());
        }
        // The first ones of some rounds have sent a message.
        if round % 2 == 0 {
            let first = raw::head(watches.remove(0)).await.unwrap();
            assert!(first.into_body().data().await.unwrap().is_ok());
        }
        match round % 3 {
            0 => drop(watches),
            1 => drop(connection),
            _ => {
                // The gateway closes connections of which many requests were reset before it
                // has accepted them.
                for watch in watches {
                    raw::head(watch).await.unwrap();
                }
                let call = raw::request("grpc.health.v1.Health/Check");
                assert_eq!(connection.unary(call, b"").await.unwrap().code, 0);
            }
        }
    }
    eventually("no stream is left", async || {
        let streams = gateway.metric("drawbridge_open_streams").await;
        let loops = gateway.metric("drawbridge_watch_poll_loops").await;
        (streams + loops < 1.0).then_some(())
    })
    .await;
    honest.finish().await;
    gateway.assert_peak_below(before, 64 * MIB);
    gateway.recovers(before).await;
    // Polls have ended, too.
    let polls = upstream.requests();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(upstream.requests(), polls);
}
