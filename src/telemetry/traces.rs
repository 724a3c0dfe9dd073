//! OpenTelemetry traces over OTLP, configured by the `OTEL_*` variables.

use http::HeaderValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithTonicConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::transport::{Certificate, ClientTlsConfig};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::downstream::Downstream;
use crate::telemetry::RpcProtocol;
use drawbridge_transcoder::contract::Method;

/// The target of all exported spans.
pub const TARGET: &str = "drawbridge::rpc";

/// The variables with the endpoint, the more specific first.
const ENDPOINT: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const PROTOCOL: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const CERTIFICATE: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
];

/// What the `OTEL_*` variables say that the SDK does not read itself.
#[derive(Debug)]
pub(super) struct Settings {
    has_tls: bool,
    /// The certificates to trust in addition to the system's, in PEM.
    ca: Option<Vec<u8>>,
    has_service_name: bool,
}

impl Settings {
    /// Reads the variables; None if traces are not exported.
    ///
    /// # Errors
    ///
    /// Says which variable is wrong, and what to do: traces cannot be exported.
    pub(super) fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let get = |name: &'static str| Some((name, env(name).filter(|v| !v.is_empty())?));
        let first = |names: [&'static str; 2]| names.into_iter().find_map(get);
        if env("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let Some((name, endpoint)) = first(ENDPOINT) else {
            return Ok(None);
        };
        if let Some((name, protocol)) = first(PROTOCOL)
            && protocol != "grpc"
        {
            return Err(format!(
                "{name}={protocol}: traces are only exported with grpc: unset it or set it to grpc"
            ));
        }
        // The value may contain a password.
        let url = url::Url::parse(&endpoint).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.host_str().is_some_and(|h| !h.is_empty())
        });
        let Some(url) = url else {
            return Err(format!(
                "{name} is not the URL of a collector: set it to http://HOST:4317 or \
                 https://HOST:4317"
            ));
        };
        let ca = match first(CERTIFICATE) {
            Some((name, path)) => {
                Some(std::fs::read(&path).map_err(|e| format!("{name}: {path}: {e}"))?)
            }
            None => None,
        };
        Ok(Some(Self {
            has_tls: url.scheme() == "https",
            ca,
            has_service_name: get("OTEL_SERVICE_NAME").is_some(),
        }))
    }
}

/// Exports spans to a collector.
#[derive(Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Creates the exporter if the environment names an endpoint. The OpenTelemetry SDK reads
    /// endpoint, headers, timeout and sampling itself; the protocol is always gRPC. Opens no
    /// connection.
    ///
    /// # Errors
    ///
    /// Fails for another protocol than gRPC, and for an invalid endpoint.
    pub(super) fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let Some(settings) = Settings::from_env(env)? else {
            return Ok(None);
        };
        opentelemetry::global::set_text_map_propagator(
            opentelemetry_sdk::propagation::TraceContextPropagator::new(),
        );
        let mut exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic();
        if settings.has_tls {
            let mut tls = ClientTlsConfig::new().with_enabled_roots();
            if let Some(pem) = settings.ca {
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            exporter = exporter.with_tls_config(tls);
        }
        let exporter = exporter
            .build()
            .map_err(|e| format!("cannot start the OpenTelemetry exporter: {e}"))?;
        let mut resource = Resource::builder();
        if !settings.has_service_name {
            resource = resource.with_service_name("drawbridge");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self { provider }))
    }

    /// Returns the layer that passes spans of [`TARGET`] to the exporter.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("drawbridge"))
            .with_filter(tracing_subscriber::filter::filter_fn(|meta| {
                meta.target() == TARGET
            }))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // An unreachable collector must not prevent the gateway from stopping.
        let _ = self.provider.shutdown();
    }
}

/// Creates the span of a call, a child of the client's span. The `traceparent` that is sent to
/// the upstream becomes that of this span.
pub fn server_span(
    method: &Method,
    protocol: RpcProtocol,
    client: &mut Downstream,
) -> tracing::Span {
    // Source: OpenTelemetry, "Semantic conventions for RPC", which knows no gRPC-Web.
    let system = match protocol {
        RpcProtocol::Grpc | RpcProtocol::GrpcWeb => "grpc",
        RpcProtocol::Connect => "connect_rpc",
    };
    let span = tracing::info_span!(
        target: TARGET,
        "rpc",
        otel.name = &method.path[1..],
        otel.kind = "server",
        rpc.system = system,
        rpc.service = &*method.service,
        rpc.method = &*method.name,
        rpc.grpc.status_code = tracing::field::Empty,
        drawbridge.upstream = tracing::field::Empty,
    );
    opentelemetry::global::get_text_map_propagator(|propagator| {
        let _ = span.set_parent(propagator.extract(&Parent(client)));
        propagator.inject_context(&span.context(), &mut Child(client));
    });
    span
}

struct Parent<'a>(&'a Downstream);

impl opentelemetry::propagation::Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.0.traceparent.as_ref()?.to_str().ok(),
            "tracestate" => self.0.tracestate.as_ref()?.to_str().ok(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

struct Child<'a>(&'a mut Downstream);

impl opentelemetry::propagation::Injector for Child<'_> {
    fn set(&mut self, key: &str, value: String) {
        let value = HeaderValue::try_from(value).ok().filter(|v| !v.is_empty());
        match key {
            "traceparent" => self.0.traceparent = value,
            "tracestate" => self.0.tracestate = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        Settings::from_env(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn endpoint_is_a_url_of_http_or_https() {
        const GENERAL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        for (variables, has_tls) in [
            (vec![], None),
            (vec![(GENERAL, "")], None),
            (
                vec![(GENERAL, "nonsense"), ("OTEL_SDK_DISABLED", "True")],
                None,
            ),
            (vec![(GENERAL, "http://collector:4317")], Some(false)),
            (vec![(GENERAL, "https://collector")], Some(true)),
            (
                vec![(GENERAL, "nonsense"), (TRACES, "https://c:4317/")],
                Some(true),
            ),
            (
                vec![
                    (GENERAL, "http://c"),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ],
                Some(false),
            ),
        ] {
            let settings = read(&variables).unwrap();
            assert_eq!(settings.map(|s| s.has_tls), has_tls, "{variables:?}");
        }
        for (variables, want) in [
            (
                vec![(GENERAL, "nonsense")],
                "OTEL_EXPORTER_OTLP_ENDPOINT is not the URL",
            ),
            (
                vec![(GENERAL, "collector:4317")],
                "set it to http://HOST:4317 or https://",
            ),
            (
                vec![(TRACES, "grpc://c:4317")],
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is not",
            ),
            (vec![(TRACES, "u:s3cret@c:4317")], "is not the URL"),
            (vec![(TRACES, "http://")], "is not the URL"),
            (
                vec![
                    (GENERAL, "http://c"),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                ],
                "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf: traces are only exported with grpc",
            ),
            (
                vec![
                    (GENERAL, "https://c"),
                    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem"),
                ],
                "OTEL_EXPORTER_OTLP_CERTIFICATE: /nowhere.pem: ",
            ),
        ] {
            let problem = read(&variables).unwrap_err();
            assert!(problem.contains(want), "{problem}");
            assert!(!problem.contains("s3cret"), "{problem}");
        }
    }

    /// TLS needs features of two crates, and a name that TLS can verify.
    #[tokio::test]
    async fn exporter_is_created_for_http_and_https() {
        for url in [
            "http://collector.test:4317",
            "https://collector.test:4317",
            "https://[::1]",
        ] {
            let env = |name: &str| (name == ENDPOINT[1]).then(|| url.to_owned());
            // The SDK reads the process's variables: here its default endpoint.
            assert!(Exporter::from_env(&env).unwrap().is_some(), "{url}");
        }
    }
}
