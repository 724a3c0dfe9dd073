use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use super::*;
use crate::error::Fault;

const DOCS: &str = include_str!("../../../docs/errors.md");

fn text() -> String {
    "x".to_owned()
}

fn fault(http_status: u16, code: Code, not_processed: bool, transient: bool) -> Error {
    Error::Upstream(Box::new(Fault {
        code,
        reason: String::new(),
        domain: "heat",
        message: text(),
        http_status,
        request_id: None,
        retry_after: None,
        not_processed,
        transient,
        is_unrelated: false,
        credential_rejected: false,
        fields: Vec::new(),
        metadata: Vec::new(),
        locale: None,
        in_success: false,
    }))
}

/// One error of each variant, and more of those whose row depends on their values. A new
/// variant must be added: `every_variant_has_a_row_in_this_test` counts them.
fn errors() -> Vec<Error> {
    let problem = text;
    let stream = |code| Error::RequestStream {
        code,
        problem: problem(),
    };
    let overload = |code| Error::Overload {
        code,
        problem: problem(),
        retry_after: Duration::ZERO,
    };
    let credential = |code| Error::Credential {
        code,
        problem: problem(),
    };
    let login = |failure| Error::Login {
        failure,
        problem: problem(),
        retry_after: None,
    };
    let not_delivered = |code| Error::ResponseNotDelivered {
        code,
        problem: problem(),
        retry_after: None,
    };
    vec![
        Error::Binding {
            field: text(),
            problem: problem(),
        },
        Error::FieldViolations(Vec::new()),
        stream(Code::ResourceExhausted),
        stream(Code::Cancelled),
        Error::RequestNotReceived {
            code: Code::DeadlineExceeded,
            problem: problem(),
        },
        Error::RequestTooLarge { limit: 1 },
        Error::MetadataTooLarge { size: 2, limit: 1 },
        Error::UnknownMethod(text()),
        Error::Malformed(text()),
        Error::NotServed("".into()),
        Error::Unsupported {
            family: Arc::from("heat"),
            dialect: Arc::from("rts"),
        },
        Error::UnknownUpstream(text()),
        Error::NotConfigured(text()),
        overload(Code::Unavailable),
        overload(Code::ResourceExhausted),
        credential(Code::Unauthenticated),
        credential(Code::FailedPrecondition),
        Error::IssuerKeysUnknown,
        Error::PermissionDenied(Box::new(crate::error::PolicyDenial {
            problem: problem(),
            identity: "".into(),
            rule: None,
        })),
        Error::PlaintextCredentials {
            is_from_catalog: true,
        },
        login(LoginFailure::Rejected),
        login(LoginFailure::NotPossible),
        login(LoginFailure::Unavailable),
        login(LoginFailure::Failed),
        Error::Deadline { sent: false },
        Error::Deadline { sent: true },
        Error::StreamDeadline,
        Error::Connect(text()),
        Error::Certificate(text()),
        Error::NoResponse(text()),
        Error::OutcomeUnknown(text()),
        Error::ResponseTooLarge { limit: 1 },
        not_delivered(Code::ResourceExhausted),
        not_delivered(Code::DeadlineExceeded),
        fault(404, Code::NotFound, false, false),
        fault(409, Code::Aborted, false, true),
        fault(429, Code::ResourceExhausted, true, true),
        fault(503, Code::Unavailable, false, true),
        Error::decode("a", text()),
        Error::not_the_resource(text()),
        Error::ErrorInSuccess {
            problem: problem(),
            request_id: None,
        },
        Error::ListRestarted,
        Error::SlowReader {
            marker: text().into(),
            retry_after: Duration::ZERO,
        },
        Error::ConnectionTooOld,
        Error::Draining,
        Error::UpstreamChanged,
    ]
}

fn variant(error: &Error) -> String {
    let debug = format!("{error:?}");
    let end = debug.find(|c: char| !c.is_alphanumeric());
    debug[..end.unwrap_or(debug.len())].to_owned()
}

/// The rows as they are in the source. `sent` and `transient` show `-` for false.
const ROWS: &str = "\
Binding              InvalidArgument    INVALID_FIELD           -    -         Never        Client    -
FieldViolations      InvalidArgument    INVALID_FIELD           -    -         Never        Client    -
RequestStream        ResourceExhausted  FILE_TOO_LARGE          -    -         Never        All       -
RequestStream        Cancelled          STREAM_BROKEN           -    -         Never        All       -
RequestNotReceived   DeadlineExceeded   REQUEST_NOT_RECEIVED    -    -         Never        All       -
RequestTooLarge      ResourceExhausted  REQUEST_TOO_LARGE       -    -         Never        All       -
MetadataTooLarge     ResourceExhausted  METADATA_TOO_LARGE      -    -         Never        All       -
UnknownMethod        Unimplemented      UNKNOWN_METHOD          -    -         Never        Client    -
Malformed            InvalidArgument    MALFORMED_REQUEST       -    -         Never        All       -
NotServed            Unimplemented      RPC_NOT_SERVED          -    -         Never        All       -
Unsupported          Unimplemented      DIALECT_LACKS_OPERATION -    -         Never        All       prefix
UnknownUpstream      InvalidArgument    UNKNOWN_UPSTREAM        -    -         Never        All       -
NotConfigured        FailedPrecondition NOT_CONFIGURED          -    -         Never        All       -
Overload             Unavailable        CIRCUIT_BREAKER_OPEN    -    transient Never        All       prefix
Overload             ResourceExhausted  OVERLOADED              -    transient Never        All       prefix
Credential           Unauthenticated    CREDENTIALS_REJECTED    -    -         Never        All       prefix
Credential           FailedPrecondition LOGIN_NOT_POSSIBLE      -    -         Never        All       prefix
IssuerKeysUnknown    Unavailable        ISSUER_KEYS_UNKNOWN     -    transient Never        All       -
PermissionDenied     PermissionDenied   POLICY_DENIED           -    -         Never        All       -
PlaintextCredentials FailedPrecondition PLAINTEXT_CREDENTIALS   -    -         Never        All       prefix
Login                FailedPrecondition LOGIN_REJECTED          -    -         Never        Operators prefix
Login                FailedPrecondition LOGIN_NOT_POSSIBLE      -    -         Never        Operators prefix
Login                Unavailable        LOGIN_UNAVAILABLE       -    transient Never        Operators prefix
Login                Unavailable        LOGIN_UNAVAILABLE       -    transient Never        Operators prefix
Deadline             DeadlineExceeded   DEADLINE_EXCEEDED       -    transient Never        All       prefix
Deadline             DeadlineExceeded   DEADLINE_EXCEEDED       sent transient Never        All       prefix
StreamDeadline       DeadlineExceeded   DEADLINE_EXCEEDED       sent transient Never        All       prefix
Connect              Unavailable        CANNOT_CONNECT          -    transient Always       All       prefix
Certificate          Unavailable        CERTIFICATE_NOT_TRUSTED -    transient Never        All       prefix
NoResponse           Unavailable        NO_RESPONSE             sent transient IfIdempotent All       prefix
OutcomeUnknown       Unknown            OUTCOME_UNKNOWN         sent -         Never        All       prefix
ResponseTooLarge     ResourceExhausted  RESPONSE_TOO_LARGE      sent -         Never        All       prefix
ResponseNotDelivered ResourceExhausted  RESPONSE_NOT_DELIVERED  sent transient Never        All       prefix
ResponseNotDelivered DeadlineExceeded   RESPONSE_NOT_DELIVERED  sent -         Never        All       prefix
Upstream             NotFound           HTTP_404                sent -         Never        Client    -
Upstream             Aborted            HTTP_409                sent transient IfIdempotent Client    -
Upstream             ResourceExhausted  HTTP_429                -    transient Always       Client    -
Upstream             Unavailable        HTTP_503                sent transient IfIdempotent Client    prefix
Decode               Internal           UNREADABLE_RESPONSE     sent -         Never        All       prefix
NotTheResource       Internal           UNREADABLE_RESPONSE     sent -         Never        All       prefix
ErrorInSuccess       InvalidArgument    ERROR_IN_SUCCESS        sent -         Never        Client    -
ListRestarted        Aborted            LIST_RESTARTED          sent transient Never        All       prefix
SlowReader           Aborted            SLOW_READER             sent transient Never        All       prefix
ConnectionTooOld     Unavailable        CONNECTION_TOO_OLD      -    transient Never        All       -
Draining             Unavailable        DRAINING                -    transient Never        All       -
UpstreamChanged      Unavailable        UPSTREAM_CHANGED        -    transient Never        All       prefix
";

#[test]
fn rows_are_as_documented() {
    let errors = errors();
    assert_eq!(errors.len(), ROWS.lines().count());
    for (error, want) in errors.iter().zip(ROWS.lines()) {
        let row = error.row();
        let mark = |set: bool, mark| if set { mark } else { "-" };
        let got = format!(
            "{:<20} {:<18} {:<23} {:<4} {:<9} {:<12} {:<9} {}",
            variant(error),
            format!("{:?}", row.code),
            row.reason,
            mark(row.sent, "sent"),
            mark(row.transient, "transient"),
            format!("{:?}", row.retry),
            format!("{:?}", row.audience),
            mark(row.names_upstream, "prefix"),
        );
        assert_eq!(got, want);
    }
}

/// Counts the variants in the source, since nothing else lists them.
#[test]
fn every_variant_has_a_row_in_this_test() {
    let source = include_str!("../../error.rs");
    let body = source.split("pub enum Error {").nth(1).unwrap();
    let body = body.split("\n}\n").next().unwrap();
    let in_source: BTreeSet<String> = body
        .lines()
        .filter_map(|line| {
            line.strip_prefix("    ")
                .filter(|l| l.starts_with(char::is_uppercase))
        })
        .map(|line| {
            line.chars()
                .take_while(|c| c.is_alphanumeric())
                .collect::<String>()
        })
        .collect();
    let tested: BTreeSet<String> = errors().iter().map(variant).collect();
    assert_eq!(in_source, tested);
}

/// What can be retried is transient and either idempotent or certainly not processed.
#[test]
fn only_transient_errors_are_retried() {
    for error in errors() {
        let row = error.row();
        assert!(row.retry == Retry::Never || row.transient, "{error:?}");
        assert!(row.retry != Retry::Always || !row.sent, "{error:?}");
    }
}

#[test]
fn log_omits_texts_that_are_for_the_client_only() {
    for error in errors() {
        let row = error.row();
        let logged = error.log_text() == error.to_string();
        assert_eq!(logged, row.audience != Audience::Client, "{error:?}");
    }
}

/// `docs/errors.md` lists each reason of the gateway itself once.
#[test]
fn documented_reasons_are_the_reasons_of_the_table() {
    let section = DOCS.split("## Reasons\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let documented: BTreeSet<(String, String)> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(reason, rest)| (reason, rest.split(" | ").nth(1).unwrap_or_default()))
        .map(|(reason, sent)| (reason.to_owned(), sent.to_owned()))
        .collect();
    let mut rows: BTreeSet<(String, String)> = BTreeSet::new();
    let own = errors();
    let own = own
        .iter()
        .filter(|error| !matches!(error, Error::Upstream(_)));
    for error in own.clone() {
        let reason = error.row().reason.into_owned();
        let both = own
            .clone()
            .any(|other| other.row().reason == reason && other.row().sent != error.row().sent);
        let sent = match (both, error.row().sent) {
            (true, _) => "either",
            (false, true) => "true",
            (false, false) => "false",
        };
        rows.insert((reason, sent.to_owned()));
    }
    assert_eq!(documented, rows);
}
