//! Pages of the lists of a user's API.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use prost_reflect::Kind;
use serde_json::json;
use tonic::Code;

use crate::own_api::compile;
use crate::support::client::json as to_json;
use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, settings, upstream};

const NUMBERED: &str = r#"
syntax = "proto3";
package acme.v1;
import "drawbridge/v1/options.proto";
import "google/api/annotations.proto";

option (drawbridge.v1.file) = { family: "acme" };

service JobService {
  rpc ListJobs(ListJobsRequest) returns (ListJobsResponse) {
    option (google.api.http) = { get: "/jobs" };
    option (drawbridge.v1.method).paging = {STYLE items: "results" TOTAL};
    option idempotency_level = NO_SIDE_EFFECTS;
  }
  rpc StreamJobs(ListJobsRequest) returns (stream StreamJobsResponse) {
    option (google.api.http) = { get: "/jobs" };
    option (drawbridge.v1.method).pages = "ListJobs";
  }
}
message ListJobsRequest {
  int32 page_size = 1;
  string page_token = 2 [(drawbridge.v1.field).name = "page"];
}
message ListJobsResponse {
  int32 count = 1;
  repeated Job results = 2;
  string next_page_token = 3 [(drawbridge.v1.field).gateway_only = true];
}
message StreamJobsResponse { Job job = 1; }
message Job { int32 id = 1; }
"#;

/// As AWX and Django answer: 404 for the page behind a full last one.
#[tokio::test]
async fn missing_page_ends_a_numbered_list() {
    for (total, count, end, requests) in [
        ("", 6, None, 3),
        // No request for a page that cannot exist.
        ("total: \"count\" total_counts_items: true", 6, None, 2),
        ("total: \"count\"", 0, None, 3),
        // By the total, more items follow.
        (
            "total: \"count\" total_counts_items: true",
            9,
            Some(Code::NotFound),
            3,
        ),
        ("total: \"count\"", 3, Some(Code::NotFound), 3),
    ] {
        let recorder = Recorder::start(move |seen| {
            if seen.path() == "/" {
                return Answer::json(200, &json!({}));
            }
            let page = seen.pairs().into_iter().find(|(name, _)| name == "page");
            let page: i32 = page.map_or(1, |(_, page)| page.parse().unwrap());
            match page {
                1 | 2 => {
                    let ids = (page * 3 - 2..=page * 3).map(|id| json!({"id": id}));
                    let ids: Vec<_> = ids.collect();
                    Answer::json(200, &json!({"count": count, "results": ids}))
                }
                _ => Answer::json(404, &json!({"detail": "Invalid page."})),
            }
        })
        .await;
        let mut settings = settings(vec![upstream("awx", "acme", &recorder.url())]);
        settings.descriptors = vec![numbered("style: PAGING_STYLE_PAGE", total)];
        let gateway = Gateway::start(settings).await;
        let lists = || {
            let seen = recorder.take();
            seen.iter().filter(|seen| seen.path() == "/jobs").count()
        };
        let request = json!({"page_size": 3});
        let stream = gateway.client.watch("JobService/StreamJobs", request, &[]);
        let mut stream = stream.await.unwrap();
        let mut ids = Vec::new();
        let got = loop {
            match stream.next().await {
                Some(Ok(job)) => ids.push(to_json(&job)["job"]["id"].as_i64().unwrap()),
                Some(Err(status)) => break Some(status.code()),
                None => break None,
            }
        };
        assert_eq!((ids, got), ((1..=6).collect(), end), "{total} {count}");
        assert_eq!(lists(), requests, "{total} {count}");

        // The pages by hand.
        let page = |token: &'static str| {
            let request = json!({"page_size": 3, "page_token": token});
            gateway.client.call("JobService/ListJobs", request)
        };
        let second = to_json(&page("2").await.unwrap());
        let token = second["next_page_token"].as_str().unwrap_or_default();
        assert_eq!(
            token,
            if requests == 3 { "3" } else { "" },
            "{total} {count}"
        );
        // The page before shows whether a total says that more follow.
        if end.is_none() && requests == 3 {
            assert_eq!(to_json(&page("3").await.unwrap()), json!({}));
        } else {
            assert_eq!(page("3").await.unwrap_err().code(), Code::NotFound);
        }
        assert_eq!(page("5").await.unwrap_err().code(), Code::NotFound);
        // A stream that begins at a page is not the end of a list that does not exist.
        let from = |token: &'static str| {
            let request = json!({"page_size": 3, "page_token": token});
            let stream = gateway.client.watch("JobService/StreamJobs", request, &[]);
            async { stream.await?.next().await.transpose() }
        };
        match end.is_none() && requests == 3 {
            true => assert!(from("3").await.unwrap().is_none(), "{total} {count}"),
            false => assert_eq!(from("3").await.unwrap_err().code(), Code::NotFound),
        }
        assert_eq!(from("5").await.unwrap_err().code(), Code::NotFound);
        let beyond = gateway
            .client
            .call("JobService/ListJobs", json!({"page_token": "0"}));
        assert_eq!(beyond.await.unwrap_err().code(), Code::NotFound);
    }
}

fn numbered(style: &str, more: &str) -> drawbridge::contract::Source {
    compile(&NUMBERED.replace("STYLE", style).replace("TOTAL", more)).unwrap()
}

/// How the upstream of a list pages.
#[derive(Clone, Copy, Debug)]
struct Upstream {
    style: &'static str,
    /// The number of items of each page, up to the last one that exists.
    pages: &'static [usize],
    /// The member `count` of each page.
    total: i32,
    /// Each request gets the first page.
    ignores_tokens: bool,
}

impl Upstream {
    fn answer(self, token: Option<&str>) -> Answer {
        let firsts = |page: usize| -> usize { self.pages[..page].iter().sum() };
        let page = match (self.style, token) {
            _ if self.ignores_tokens => 0,
            (_, None) => 0,
            ("PAGE", Some(token)) => token.parse::<usize>().unwrap() - 1,
            // The item before the page.
            (_, Some(token)) => {
                let at: usize = token.parse().unwrap();
                let mut pages = (0..self.pages.len()).filter(|page| firsts(*page) == at);
                pages.next().unwrap_or(self.pages.len())
            }
        };
        let ids = match self.pages.get(page) {
            Some(count) => firsts(page) + 1..firsts(page) + 1 + count,
            None => 0..0,
        };
        let ids: Vec<_> = ids.map(|id| json!({"id": id})).collect();
        Answer::json(200, &json!({"count": self.total, "results": ids}))
    }
}

/// A gateway for lists of one `paging` rule.
struct Paged {
    gateway: Gateway,
    list: Arc<Mutex<Upstream>>,
    _recorder: Recorder,
}

impl Paged {
    async fn start(style: &str, more: &str, list: Upstream) -> Self {
        let list = Arc::new(Mutex::new(list));
        let served = Arc::clone(&list);
        let recorder = Recorder::start(move |seen| {
            let pairs = seen.pairs();
            let token = pairs.iter().find(|(name, _)| name == "page");
            let list = *served.lock().unwrap();
            list.answer(token.map(|(_, token)| token.as_str()))
        })
        .await;
        let mut settings = settings(vec![upstream("awx", "acme", &recorder.url())]);
        settings.descriptors = vec![numbered(&format!("style: PAGING_STYLE_{style}"), more)];
        Self {
            gateway: Gateway::start(settings).await,
            list,
            _recorder: recorder,
        }
    }
}

#[tokio::test]
async fn streams_read_all_items_of_a_list_or_fail() {
    const TOTAL: &str = "total: \"count\"";
    const ITEMS: &str = "total: \"count\" total_counts_items: true";
    const KEY: &str = "key: \"id\"";
    let list = |style, pages, total| Upstream {
        style,
        pages,
        total,
        ignores_tokens: false,
    };
    let mut gateways = HashMap::new();
    let repeated = |style, pages, total| Upstream {
        ignores_tokens: true,
        ..list(style, pages, total)
    };
    for (upstream_list, more, want, end) in [
        // The total says that more follow.
        (
            list("OFFSET", &[3, 3], 9),
            TOTAL,
            6,
            Some((Code::Internal, "6 of 9")),
        ),
        (
            list("OFFSET", &[0], 9),
            TOTAL,
            0,
            Some((Code::Internal, "0 of 9")),
        ),
        (list("PAGE", &[3, 0, 3], 3), TOTAL, 6, None),
        (list("PAGE", &[3, 0, 3], 6), ITEMS, 6, None),
        (
            list("PAGE", &[3, 3], 9),
            ITEMS,
            6,
            Some((Code::Internal, "6 of 9")),
        ),
        // The API ignores the page size.
        (list("PAGE", &[5, 5, 2], 0), "", 12, None),
        (list("OFFSET", &[5, 5, 5], 0), "", 15, None),
        (list("MARKER", &[5, 5, 2], 0), KEY, 12, None),
        // Its own limit is smaller.
        (list("PAGE", &[2, 2, 1], 0), "", 5, None),
        (list("OFFSET", &[2, 2], 0), "", 4, None),
        // It ignores the token, or does not page.
        (repeated("PAGE", &[5], 0), "", 5, None),
        (repeated("OFFSET", &[5], 0), "", 5, None),
        (repeated("MARKER", &[5], 0), KEY, 5, None),
        (repeated("PAGE", &[2], 0), KEY, 2, None),
        (repeated("PAGE", &[3], 0), "", 3, Some((Code::Aborted, ""))),
        (
            repeated("OFFSET", &[3], 0),
            KEY,
            3,
            Some((Code::Aborted, "")),
        ),
        (
            repeated("MARKER", &[3], 0),
            KEY,
            3,
            Some((Code::Aborted, "")),
        ),
        (
            repeated("OFFSET", &[3], 9),
            TOTAL,
            3,
            Some((Code::Aborted, "")),
        ),
        (
            repeated("PAGE", &[5], 12),
            ITEMS,
            5,
            Some((Code::Aborted, "")),
        ),
    ] {
        let case = format!("{upstream_list:?} {more}");
        let rule = (upstream_list.style, more);
        let Paged { gateway, list, .. } = match gateways.entry(rule) {
            Entry::Occupied(started) => started.into_mut(),
            Entry::Vacant(place) => place.insert(Paged::start(rule.0, more, upstream_list).await),
        };
        *list.lock().unwrap() = upstream_list;
        let request = json!({"page_size": 3});
        let stream = gateway.client.watch("JobService/StreamJobs", request, &[]);
        let (mut ids, mut got) = (Vec::new(), None);
        match stream.await {
            Err(status) => got = Some(status),
            Ok(mut stream) => {
                while let Some(job) = stream.next().await {
                    match job {
                        Ok(job) => ids.push(to_json(&job)["job"]["id"].as_i64().unwrap()),
                        Err(status) => got = Some(status),
                    }
                }
            }
        }
        assert_eq!(ids, (1..=want).collect::<Vec<_>>(), "{case}");
        match (got, end) {
            (None, None) => {}
            (Some(status), Some((code, text))) => {
                assert_eq!(status.code(), code, "{case}: {status:?}");
                assert!(status.message().contains(text), "{case}: {status:?}");
            }
            (got, _) => panic!("{case}: {got:?}"),
        }

        // A client that follows the tokens of unary pages comes to an end, too.
        let (mut token, mut read) = (String::new(), 0);
        for _ in 0..9 {
            let request = json!({"page_size": 3, "page_token": token});
            let page = match gateway.client.call("JobService/ListJobs", request).await {
                Ok(page) => to_json(&page),
                Err(status) => {
                    assert!(end.is_some(), "{case}: {status:?}");
                    break;
                }
            };
            read += page["results"].as_array().map_or(0, Vec::len);
            token = page["next_page_token"].as_str().unwrap_or_default().into();
            if token.is_empty() {
                break;
            }
        }
        if end.is_none() && upstream_list.pages[0] >= 3 {
            assert_eq!(
                (read, &*token),
                (usize::try_from(want).unwrap(), ""),
                "{case}"
            );
        }
    }
    for paged in gateways.into_values() {
        paged.gateway.running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn negative_page_size_is_rejected() {
    let recorder = Recorder::fixed(Answer::json(200, &json!({"results": []}))).await;
    let url = recorder.url();
    let mut settings = settings(vec![
        upstream("own", "acme", &url),
        upstream("heat", "heat", &url),
        upstream("servicestage", "servicestage", &url),
        upstream("jp1ao", "jp1ao", &url),
    ]);
    settings.descriptors = vec![numbered("style: PAGING_STYLE_PAGE", "")];
    let gateway = Gateway::start(settings).await;
    recorder.take();
    let packages = [
        "acme.v1",
        "openstack.orchestration.v1",
        "huaweicloud.servicestage.v3",
        "hitachi.automation.v1",
    ];
    let methods = packages.map(|package| gateway.client.methods(package));
    let mut checked = 0;
    for method in methods.iter().flatten() {
        let name = format!("{}/{}", method.parent_service().full_name(), method.name());
        let sizes: &[&str] = match &*name {
            "huaweicloud.servicestage.v3.JobService/GetJob"
            | "huaweicloud.servicestage.v3.JobService/WatchJob" => &["limit", "offset"],
            _ => &["page_size"],
        };
        for size in sizes {
            if method.input().get_field_by_name(size).is_none() {
                continue;
            }
            // The path is complete.
            let input = method.input();
            let texts = input.fields().filter(|field| {
                field.kind() == Kind::String && !field.is_list() && field.name() != "page_token"
            });
            let mut request: serde_json::Map<_, _> = texts
                .map(|field| (field.name().to_owned(), json!("x")))
                .collect();
            request.insert((*size).to_owned(), json!(-1));
            let client = &gateway.client;
            let status = match method.is_server_streaming() {
                true => client.watch(&name, request.into(), &[]).await.err(),
                false => client.call(&name, request.into()).await.err(),
            };
            let status = status.unwrap_or_else(|| panic!("{name}: {size} was accepted"));
            assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
            assert!(status.message().contains(size), "{name}: {status:?}");
            checked += 1;
        }
    }
    assert!(checked >= 30, "{checked}");
    assert_eq!(recorder.take().len(), 0);
    gateway.running.stop().await.unwrap();
}
