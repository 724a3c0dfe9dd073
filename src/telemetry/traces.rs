//! OpenTelemetry traces over OTLP, configured by the `OTEL_*` variables.

use http::HeaderValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::downstream::Downstream;
use drawbridge_transcoder::contract::Method;

/// The target of all exported spans.
pub const TARGET: &str = "drawbridge::rpc";

/// Exports spans to a collector.
#[derive(Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Creates the exporter if the environment names an endpoint. The OpenTelemetry SDK reads
    /// endpoint, headers, timeout and sampling itself; the protocol is always gRPC.
    ///
    /// # Errors
    ///
    /// Fails for another protocol than gRPC, and for an invalid endpoint.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let set = |name: &str| env(name).is_some_and(|v| !v.is_empty());
        if env("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        if !set("OTEL_EXPORTER_OTLP_ENDPOINT") && !set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            return Ok(None);
        }
        for name in [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ] {
            if let Some(protocol) = env(name).filter(|p| !p.is_empty() && p != "grpc") {
                return Err(format!(
                    "{name}={protocol}: traces are only exported with grpc: unset it or set it to grpc"
                ));
            }
        }
        opentelemetry::global::set_text_map_propagator(
            opentelemetry_sdk::propagation::TraceContextPropagator::new(),
        );
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .build()
            .map_err(|e| format!("cannot start the OpenTelemetry exporter: {e}"))?;
        let mut resource = Resource::builder();
        if !set("OTEL_SERVICE_NAME") {
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
pub fn server_span(method: &Method, client: &mut Downstream) -> tracing::Span {
    let span = tracing::info_span!(
        target: TARGET,
        "rpc",
        otel.name = &method.path[1..],
        otel.kind = "server",
        rpc.system = "grpc",
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
