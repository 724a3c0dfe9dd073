//! What each key means, by its path. `schema` adds types, ranges and defaults, which the readers
//! know.

/// The text of a key. That of a secret `KEY` is about `KEY_env` and `KEY_file`.
pub(super) fn description(path: &str) -> Option<&'static str> {
    let found = DESCRIPTIONS.iter().find(|(known, _)| *known == path);
    found.map(|(_, text)| *text)
}

/// All keys.
pub(super) const DESCRIPTIONS: &[(&str, &str)] = &[
    ("listen", "Addresses and protection of the listeners."),
    ("listen.grpc", "Address of the gRPC listener."),
    (
        "listen.admin",
        "Address of the admin listener, which serves /metrics, /livez, /readyz and a page, or \"off\".",
    ),
    ("admin", "What the admin listener serves."),
    (
        "admin.page",
        "Whether it serves a page with the state of the gateway, from which visitors can make calls. Default: on loopback only.",
    ),
    (
        "listen.tls",
        "TLS of the gRPC listener. Without this section it is plaintext.",
    ),
    (
        "listen.tls.cert_file",
        "PEM file with the certificate chain.",
    ),
    (
        "listen.tls.key_file",
        "PEM file with the private key, without a passphrase.",
    ),
    (
        "listen.tls.client_ca_file",
        "PEM file with the CA that must have issued the clients' certificates (mTLS). Default: \
         clients need no certificate.",
    ),
    (
        "listen.clients",
        "Authentication of clients. A gateway that holds credentials and listens beyond loopback \
         requires tokens, mTLS or a sidecar.",
    ),
    (
        "listen.clients.tokens_file",
        "File with the client tokens, one per line: NAME:sha256:DIGEST, as `drawbridge token NAME` \
         writes it, or the token itself. A client sends its token as the metadata \
         `drawbridge-token`, or as bearer in `authorization`.",
    ),
    (
        "listen.clients.trust_forwarded_client_cert",
        "Whether clients are named by `x-forwarded-client-cert`, which a sidecar sets. Set it only \
         where nothing but the sidecar reaches the gRPC listener: whatever else does can name \
         itself any client.",
    ),
    (
        "listen.clients.jwt",
        "JSON Web Tokens that clients send like client tokens.",
    ),
    (
        "listen.clients.jwt.issuer",
        "The only issuer that is accepted, the claim `iss`.",
    ),
    (
        "listen.clients.jwt.audiences",
        "Audiences, of which the claim `aud` must have one.",
    ),
    (
        "listen.clients.jwt.jwks_file",
        "File with the keys of the issuer, a JWK set.",
    ),
    (
        "listen.clients.jwt.jwks_url",
        "URL of the keys of the issuer, a JWK set, which is read every 5 minutes and when a token \
         has an unknown key.",
    ),
    (
        "listen.clients.jwt.jwks_ca_file",
        "PEM file with the CA of that URL, in addition to those of the system.",
    ),
    (
        "listen.clients.jwt.algorithms",
        "Algorithms of signatures that are accepted.",
    ),
    (
        "listen.clients.jwt.leeway_secs",
        "Time by which the clock of the issuer may differ.",
    ),
    (
        "listen.clients.jwt.identity_claim",
        "The claim that names the client.",
    ),
    (
        "audit",
        "Audit log: a line for each call that can change something, and for each rejection. Without \
         this section there is none.",
    ),
    (
        "audit.log",
        "Whether the lines are in the log, with the target drawbridge::telemetry::audit.",
    ),
    (
        "audit.file",
        "File to which each line is appended as JSON. It is opened again when it is moved or deleted.",
    ),
    (
        "policy",
        "What each identity may do. Without a rule, each client that is let in may do everything; \
         with one, what no rule allows is denied.",
    ),
    (
        "policy.name",
        "Name of the rule in errors and in the log. Default: \"policy 1\" by its place.",
    ),
    (
        "policy.identities",
        "The clients: \"token:ci\", \"jwt:*\", \"certificate:spiffe://example.org/*\", or a name \
         without its kind. `*` matches any text; \"anonymous\" are clients without an identity.",
    ),
    (
        "policy.upstreams",
        "Names of upstreams, with `*`. Default: all.",
    ),
    (
        "policy.services",
        "Services, with or without their packages, with `*`. Default: all.",
    ),
    (
        "policy.methods",
        "Rpcs, as \"GetStack\", \"StackService/Get*\" or with the package. Default: all.",
    ),
    (
        "policy.read_only",
        "Whether only rpcs without side effects are allowed.",
    ),
    (
        "policy.fields",
        "Fields of the request that must name the resource, each with a value or several. `*` \
         matches letters, digits, blanks and `-_.~@:+`.",
    ),
    (
        "listen.limits",
        "What one client may use: its identity on all connections; without one, its address. 0 is no \
         limit.",
    ),
    (
        "listen.limits.max_calls",
        "Maximum number of concurrent unary calls and uploads of one client.",
    ),
    (
        "listen.limits.max_streams",
        "Maximum number of open watches, list streams and downloads of one client.",
    ),
    (
        "listen.limits.calls_per_sec",
        "Maximum rate of the calls and streams of one client.",
    ),
    (
        "listen.limits.burst",
        "How many of them may come at once. 0: those of one second.",
    ),
    (
        "listen.web",
        "Calls of web pages. Without this section no browser may call; other clients are not \
         affected.",
    ),
    (
        "listen.web.allowed_origins",
        "Origins whose pages may call, such as \"https://ops.example.com\".",
    ),
    (
        "listen.web.allowed_hosts",
        "Host names by which the gateway may be called where browsers are allowed, each with or \
         without a port: protection against DNS rebinding. IP addresses and localhost always are.",
    ),
    (
        "listen.web.connect_get",
        "Whether rpcs without side effects can be called by the GET of Connect.",
    ),
    ("server", "Limits and timeouts of the gRPC listener."),
    (
        "server.max_request_bytes",
        "Maximum size of a request message, in bytes.",
    ),
    (
        "server.max_metadata_bytes",
        "Maximum size of the request metadata, in bytes; each entry counts as name, value and 32 \
         bytes.",
    ),
    (
        "server.max_memory_bytes",
        "Memory that calls may hold, in bytes: requests, responses and what is made of them. \
         0: half of the cgroup's limit, else a quarter of the RAM.",
    ),
    (
        "server.max_upload_bytes",
        "Maximum size of an uploaded file, in bytes.",
    ),
    (
        "server.max_concurrent_streams",
        "Maximum number of concurrent calls and streams on one connection.",
    ),
    (
        "server.max_connections",
        "Maximum number of connections. The limit of open descriptors may allow fewer.",
    ),
    (
        "server.max_connections_per_address",
        "Maximum number of connections from one address; of IPv6, from one network of 64 bits. \
         0: half of all connections.",
    ),
    (
        "server.preface_timeout_secs",
        "Maximum time until the preface of HTTP/2 has arrived.",
    ),
    (
        "server.connection_idle_timeout_secs",
        "Time without a call after which a connection is closed.",
    ),
    (
        "server.keepalive_interval_secs",
        "Interval of HTTP/2 pings on an idle connection.",
    ),
    (
        "server.keepalive_timeout_secs",
        "Time after which an unanswered ping closes the connection.",
    ),
    (
        "server.max_connection_age_secs",
        "Age at which a connection takes no more calls, so that clients reconnect. 0: never.",
    ),
    (
        "server.max_connection_age_grace_secs",
        "Time after that until watches and list streams of the connection end with UNAVAILABLE.",
    ),
    (
        "server.default_deadline_secs",
        "Deadline of calls that have none.",
    ),
    (
        "server.worker_threads",
        "Threads that serve calls. 0: one for each CPU that the process may use, by its affinity \
         and the cgroup's cpu.max.",
    ),
    (
        "server.drain_delay_secs",
        "Time after SIGTERM in which readiness and health fail, and connections and calls are \
         still accepted.",
    ),
    (
        "server.drain_timeout_secs",
        "Time that calls have to finish after drain_delay_secs.",
    ),
    (
        "server.health_check_interval_secs",
        "Interval of health checks of each upstream, which begin with a login. 0: never.",
    ),
    (
        "server.request_body_idle_timeout_secs",
        "Maximum time without data of a request body, and time that it may lag behind \
         min_request_bytes_per_sec.",
    ),
    (
        "server.min_request_bytes_per_sec",
        "Minimum rate of request messages and uploads, in bytes per second. 0: none.",
    ),
    (
        "server.request_timeout_secs",
        "Maximum time until a request body is complete, even if the client's deadline is later.",
    ),
    (
        "server.response_write_timeout_secs",
        "Time after which a response that the client does not read is dropped, and time that \
         reading may lag behind min_response_bytes_per_sec. After twice this time its stream is \
         reset.",
    ),
    (
        "server.min_response_bytes_per_sec",
        "Minimum rate at which clients read long responses and streams that have data for them, \
         in bytes per second. 0: none.",
    ),
    (
        "server.tls_handshake_timeout_secs",
        "Maximum duration of a TLS handshake.",
    ),
    ("watch", "Limits and timeouts of watches."),
    (
        "watch.max_streams",
        "Maximum number of open streams of watches, lists and downloads.",
    ),
    (
        "watch.max_poll_loops",
        "Maximum number of poll loops. Watches of the same resource with the same credentials \
         share one.",
    ),
    (
        "watch.bookmark_interval_secs",
        "Interval of bookmarks on a watch that has nothing else to send.",
    ),
    (
        "watch.failure_tolerance_secs",
        "Time that an upstream may be unreadable before a watch ends with an error.",
    ),
    (
        "watch.max_items",
        "Maximum number of items of a watched list.",
    ),
    (
        "upstream",
        "REST APIs to call. Clients choose one by the metadata `drawbridge-upstream: NAME`; \
         without it, the default upstream of the family serves them.",
    ),
    (
        "upstream.name",
        "Name in metadata, logs and metrics: letters, digits, '-', '_' and '.'.",
    ),
    (
        "upstream.family",
        "heat, servicestage, jp1ao, or a family of your own [[descriptors]].",
    ),
    (
        "upstream.dialect",
        "Variant of the API. Default: the first of the family.",
    ),
    (
        "upstream.default",
        "Whether clients that name no upstream get this one. The only upstream of a family always \
         is its default.",
    ),
    (
        "upstream.endpoint",
        "URL of the API. Optional for heat with a login that returns a catalog (keystone, \
         rackspace).",
    ),
    (
        "upstream.project_id",
        "Project id in paths, if the client leaves it empty. Default: that of the login.",
    ),
    (
        "upstream.ca_file",
        "PEM file with certificates to trust in addition to those of the system: of a CA, or the \
         server's own.",
    ),
    (
        "upstream.insecure_skip_verify",
        "Trusts any certificate: anyone on the network can read and change the calls.",
    ),
    (
        "upstream.allow_plaintext_credentials",
        "Sends credentials also over plaintext HTTP to another host.",
    ),
    ("upstream.connect_timeout_secs", "Maximum time to connect."),
    (
        "upstream.read_timeout_secs",
        "Maximum time without data from the upstream.",
    ),
    (
        "upstream.max_response_bytes",
        "Maximum size of a response, in bytes. Not of a download, which is passed on as it \
         arrives.",
    ),
    (
        "upstream.proxy_from_env",
        "Whether HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY apply.",
    ),
    (
        "upstream.max_concurrent_calls",
        "Maximum number of concurrent calls.",
    ),
    (
        "upstream.max_downloads",
        "Maximum number of open downloads. 0: a quarter of `max_concurrent_calls`.",
    ),
    (
        "upstream.max_queued_calls",
        "Maximum number of calls that wait for a permit.",
    ),
    (
        "upstream.max_attempts",
        "Maximum number of attempts of a call, the first included.",
    ),
    (
        "upstream.max_backoff_secs",
        "Maximum pause between two attempts.",
    ),
    (
        "upstream.circuit_breaker_failures",
        "Consecutive failures that open the circuit breaker. 0: never.",
    ),
    (
        "upstream.circuit_breaker_open_secs",
        "Time for which the open circuit breaker rejects calls.",
    ),
    (
        "upstream.auth",
        "The credentials for the calls. Secrets are never in this file: KEY_env names a variable, \
         KEY_file a file.",
    ),
    (
        "upstream.auth.kind",
        "Kind of credentials. With passthrough, the client's x-auth-token or authorization is \
         sent to the upstream.",
    ),
    (
        "upstream.auth.cloud",
        "An entry of clouds.yaml, with its login, endpoint, region and CA.",
    ),
    (
        "upstream.auth.from_env",
        "Reads the OS_* variables, or with kind = \"ak_sk\" HUAWEICLOUD_SDK_*.",
    ),
    ("upstream.auth.header", "Header of the token."),
    ("upstream.auth.token", "The token"),
    (
        "upstream.auth.auth_url",
        "URL of the identity service: Keystone's with /v3.",
    ),
    ("upstream.auth.username", "Name of the user."),
    ("upstream.auth.user_id", "Id of the user."),
    ("upstream.auth.user_domain_id", "Id of the user's domain."),
    (
        "upstream.auth.user_domain_name",
        "Name of the user's domain. Default: the domain with the id `default`.",
    ),
    ("upstream.auth.password", "The password"),
    (
        "upstream.auth.application_credential_id",
        "Id of the application credential. It determines the project.",
    ),
    (
        "upstream.auth.application_credential_name",
        "Name of the application credential, which also needs its user.",
    ),
    (
        "upstream.auth.application_credential_secret",
        "The secret of the application credential",
    ),
    ("upstream.auth.project_id", "Id of the project."),
    ("upstream.auth.project_name", "Name of the project."),
    (
        "upstream.auth.project_domain_id",
        "Id of the project's domain.",
    ),
    (
        "upstream.auth.project_domain_name",
        "Name of the project's domain. Default: the domain with the id `default`; for \
         servicestage the domain of the user.",
    ),
    (
        "upstream.auth.region",
        "Region of the endpoint in the catalog. Default: the only region.",
    ),
    (
        "upstream.auth.interface",
        "Interface of the endpoint in the catalog. Default: public.",
    ),
    ("upstream.auth.api_key", "The API key"),
    ("upstream.auth.tenant_id", "Id of the tenant."),
    ("upstream.auth.access_key", "Id of the access key (AK)."),
    ("upstream.auth.secret_key", "The secret access key (SK)"),
    (
        "upstream.auth.security_token",
        "The security token of a temporary access key",
    ),
    ("upstream.auth.domain_id", "Id of the account."),
    (
        "upstream.auth.iam_endpoint",
        "URL of IAM, which is called for the id of the project if none is set.",
    ),
    (
        "descriptors",
        "REST APIs of your own: annotated protos, compiled (`buf build -o my.binpb`).",
    ),
    ("descriptors.file", "The descriptor set."),
    (
        "descriptors.include",
        "The rpcs to serve, by full names of rpcs, services or packages. Default: all.",
    ),
    (
        "descriptors.exclude",
        "The rpcs to leave out, of those that `include` selects. Default: none.",
    ),
    ("log", "Format and level of the log."),
    ("log.format", "text, or json with one object per line."),
    (
        "log.level",
        "off, error, warn, info, debug, trace, or a filter like \
         \"drawbridge::watch=debug,info\". RUST_LOG takes precedence.",
    ),
];
