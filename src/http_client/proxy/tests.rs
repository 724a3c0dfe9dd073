use super::*;

fn proxies(variables: &[(&str, &str)]) -> Proxies {
    let variables = variables.iter();
    Proxies::new(variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn found(proxies: &Proxies, url: &str) -> String {
    match proxies.find(&Url::parse(url).expect(url)) {
        Ok(proxy) => proxy.map_or_else(|| "direct".to_owned(), Url::to_string),
        Err(error) => error.to_string(),
    }
}

/// The columns of the other tools are compared with them in the second test stage.
#[test]
fn what_any_usual_reading_excludes_is_excluded() {
    let table = include_str!("../../../tests/fixtures/config/no_proxy.tsv");
    for row in table.lines().skip(1) {
        let [no_proxy, url, urllib, requests, curl, want] = row.split('\t').collect::<Vec<_>>()[..]
        else {
            panic!("{row:?}");
        };
        let proxies = proxies(&[("all_proxy", "http://p.test:3128"), ("no_proxy", no_proxy)]);
        let got = match &*found(&proxies, url) {
            "direct" => "direct",
            "http://p.test:3128/" => "proxy",
            other => panic!("{row:?}: {other}"),
        };
        assert_eq!(got, want, "{row:?}");
        if [urllib, requests, curl].contains(&"direct") {
            assert_eq!(got, "direct", "{row:?}");
        }
    }
}

#[test]
fn variables_have_a_precedence() {
    let [a, b, c] = ["http://a.test:1", "http://b.test:2", "http://c.test:3"];
    for (variables, http, https) in [
        (&[][..], "direct", "direct"),
        (&[("HTTP_PROXY", a)], a, "direct"),
        (&[("https_proxy", a)], "direct", a),
        (&[("ALL_PROXY", a), ("HTTPS_PROXY", b)], a, b),
        (&[("ALL_PROXY", a), ("all_proxy", b)], b, b),
        (&[("HTTP_PROXY", a), ("http_proxy", b)], b, "direct"),
        (&[("HTTP_PROXY", a), ("http_proxy", "")], "direct", "direct"),
        (
            &[("HTTP_PROXY", a), ("http_proxy", ""), ("ALL_PROXY", c)],
            c,
            c,
        ),
        (
            &[("HTTP_PROXY", a), ("REQUEST_METHOD", "GET")],
            "direct",
            "direct",
        ),
        (&[("http_proxy", a), ("REQUEST_METHOD", "GET")], a, "direct"),
        (
            &[("ALL_PROXY", a), ("NO_PROXY", "x,h.test")],
            "direct",
            "direct",
        ),
        (&[("ALL_PROXY", a), ("no_proxy", "h.test:80")], "direct", a),
        // All lists apply.
        (
            &[("ALL_PROXY", a), ("no_proxy", ""), ("NO_PROXY", "h.test")],
            "direct",
            "direct",
        ),
        (
            &[("ALL_PROXY", a), ("no_proxy", "x"), ("NO_PROXY", "h.test")],
            "direct",
            "direct",
        ),
        (
            &[("ALL_PROXY", a), ("No_Proxy", "h.test")],
            "direct",
            "direct",
        ),
        (&[("ALL_PROXY", "a.test:1")], a, a),
        (
            &[("ALL_PROXY", " u:p@a.test:1 ")],
            "http://u:p@a.test:1",
            "http://u:p@a.test:1",
        ),
    ] {
        let proxies = proxies(variables);
        for (url, want) in [("http://h.test/v1", http), ("https://h.test/v1", https)] {
            let got = found(&proxies, url);
            assert_eq!(got.trim_end_matches('/'), want, "{variables:?} {url}");
        }
    }
}

#[test]
fn unusable_proxy_is_an_error_without_its_password() {
    for (value, want) in [
        (
            "socks5://u:hunter2@p.test",
            "ALL_PROXY has a proxy of the kind socks5",
        ),
        (
            "http://u:hunter2@p test",
            "ALL_PROXY is not the URL of a proxy",
        ),
        ("http://", "ALL_PROXY is not the URL of a proxy"),
    ] {
        let proxies = proxies(&[("ALL_PROXY", value), ("NO_PROXY", "10.0.0.1")]);
        let got = found(&proxies, "https://h.test/");
        assert!(got.contains(want) && !got.contains("hunter2"), "{got}");
        assert_eq!(found(&proxies, "https://10.0.0.1/"), "direct");
    }
}

#[test]
fn patterns_match_in_linear_steps() {
    for (text, pattern, want) in [
        ("", "", true),
        ("", "*", true),
        ("a", "", false),
        ("abc", "a*c", true),
        ("abc", "*b*", true),
        ("abcbc", "a*bc", true),
        ("abc", "a*b", false),
        ("abc", "**abc**", true),
        ("ab", "abc", false),
        ("api1.test:80", "api*.test:80", true),
        // 2^30 steps, if each `*` tried all places.
        (&"a".repeat(60), &("*a".repeat(30) + "*b"), false),
    ] {
        let got = matches(text.as_bytes(), pattern.as_bytes());
        assert_eq!(got, want, "{text} {pattern}");
    }
}
