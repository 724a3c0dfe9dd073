//! Keystone v3, which also serves as Huawei's IAM: login, validation and revocation of
//! tokens.
//!
//! Recorded from Keystone 30.0.0: `tests/fixtures/heat/auth.tokens.*.json`, and
//! tests/real-heat/OBSERVED.md, "Tokens". IAM's differences: docs/apis/servicestage.md,
//! "Token".

use std::collections::HashMap;
use std::time::SystemTime;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::message::{Request, Response, microseconds};
use super::{
    APPLICATION_CREDENTIAL_ID, APPLICATION_CREDENTIAL_NAME, APPLICATION_CREDENTIAL_SECRET, DOMAIN,
    OTHER_PROJECT_ID, OTHER_USERNAME, PASSWORD, PROJECT_ID, PROJECT_NAME, READER_USERNAME, REGION,
    USERNAME, Upstreams, heat, lock, servicestage,
};

/// Maximum number of tokens; beyond it the one that expires first is deleted.
const MAX_TOKENS: usize = 10_000;

const REQUIRES_AUTHENTICATION: &str = "The request you have made requires authentication.";

#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    id: &'static str,
    pub name: &'static str,
    pub project: Project,
    roles: &'static [Role],
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Project {
    pub id: &'static str,
    name: &'static str,
}

impl User {
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// Name and id of a role.
type Role = (&'static str, &'static str);

const READER: Role = ("reader", "1376f1c0d33748888359f13212f89523");
const MEMBER: Role = ("member", "c4b46fbe51d24679aae16e459e544557");
const OWNER: Role = ("heat_stack_owner", "67195470cedf4c279aac4a73d7668daa");

const DEMO: Project = Project {
    id: PROJECT_ID,
    name: PROJECT_NAME,
};
const OTHER: Project = Project {
    id: OTHER_PROJECT_ID,
    name: "other",
};

static USERS: [User; 3] = [
    User {
        id: "2e42ee283c754c869a4766d5758ec091",
        name: USERNAME,
        project: DEMO,
        roles: &[MEMBER, READER, OWNER],
    },
    User {
        id: "5b0a7c1e92d84f6fa3e1d40c7b6f8e25",
        name: OTHER_USERNAME,
        project: OTHER,
        roles: &[MEMBER, READER, OWNER],
    },
    User {
        id: "9c3f5e7a1b2d4c68a0e9f8d7c6b5a493",
        name: READER_USERNAME,
        project: DEMO,
        roles: &[READER],
    },
];

/// Issued tokens by their text.
#[derive(Default)]
pub(super) struct Tokens(HashMap<String, Token>);

/// Identity and rights of a token.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub user: &'static User,
    /// `None` for an unscoped token.
    pub project: Option<Project>,
    method: &'static str,
    issued: SystemTime,
    expires: SystemTime,
    audit: String,
}

impl Token {
    /// Checks for a role that permits writing.
    pub fn may_write(&self) -> bool {
        self.user.roles.iter().any(|role| *role != READER)
    }

    /// Checks whether an application credential was used.
    pub fn by_application_credential(&self) -> bool {
        self.method == "application_credential"
    }
}

/// Returns the token of a request if it is valid.
pub(super) fn token(upstreams: &Upstreams, request: &Request) -> Option<Token> {
    lookup(upstreams, request.header("x-auth-token")?)
}

fn lookup(upstreams: &Upstreams, token: &str) -> Option<Token> {
    let tokens = lock(&upstreams.keystone);
    let found = tokens.0.get(token)?;
    (found.expires > upstreams.clock.now()).then(|| found.clone())
}

pub(super) fn handle(upstreams: &Upstreams, request: &Request) -> Response {
    route(upstreams, request)
        .unwrap_or_else(|refused| refused)
        .with_header("x-openstack-request-id", format!("req-{}", Uuid::new_v4()))
        .with_header("vary", "X-Auth-Token")
}

fn route(upstreams: &Upstreams, request: &Request) -> Result<Response, Response> {
    let segments = request.segments();
    let rest = match segments[..] {
        ["identity", "v3", ref rest @ ..] | ["v3", ref rest @ ..] => rest,
        // `GET /identity`: the supported versions.
        ["identity"] | ["identity", ""] => {
            let versions = json!({"versions": {"values": [version(upstreams)]}});
            return Ok(Response::json(StatusCode::MULTIPLE_CHOICES, versions));
        }
        _ => return Err(not_found()),
    };
    match (&request.method, rest) {
        (&Method::GET, [] | [""]) => Ok(Response::ok(json!({"version": version(upstreams)}))),
        (&Method::POST, ["auth", "tokens"]) => login(upstreams, request),
        (&Method::GET, ["auth", "tokens"]) => validate(upstreams, request),
        (&Method::DELETE, ["auth", "tokens"]) => revoke(upstreams, request),
        (&Method::GET, ["projects"]) => projects(upstreams, request),
        (_, [] | [""] | ["auth", "tokens"] | ["projects"]) => Err(error_response(
            StatusCode::METHOD_NOT_ALLOWED,
            "The method is not allowed for the requested URL.",
        )),
        _ => Err(not_found()),
    }
}

fn version(upstreams: &Upstreams) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{}/identity/v3/", upstreams.base)}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}

/// `POST /auth/tokens`: 201 with the token in `X-Subject-Token`, never in the body.
fn login(upstreams: &Upstreams, request: &Request) -> Result<Response, Response> {
    let body: Value = serde_json::from_slice(&request.body).map_err(|_| expecting("valid JSON"))?;
    let auth = body
        .get("auth")
        .and_then(Value::as_object)
        .ok_or_else(|| expecting("auth"))?;
    let token = identify(upstreams, auth)?;
    let value = format!(
        "gAAAAA{}{}",
        Uuid::new_v4().simple(),
        Uuid::new_v4().simple()
    );
    let catalog = request.query.iter().all(|(key, _)| key != "nocatalog");
    let response = Response::json(StatusCode::CREATED, describe(upstreams, &token, catalog))
        .with_header("x-subject-token", &value)
        .with_header(
            "x-iam-trace-id",
            format!("token_{}", Uuid::new_v4().simple()),
        );
    let mut tokens = lock(&upstreams.keystone);
    if tokens.0.len() >= MAX_TOKENS {
        let now = upstreams.clock.now();
        tokens.0.retain(|_, token| token.expires > now);
        let first = tokens
            .0
            .iter()
            .min_by_key(|(_, token)| token.expires)
            .map(|(value, _)| value.clone());
        if let Some(first) = first.filter(|_| tokens.0.len() >= MAX_TOKENS) {
            tokens.0.remove(&first);
        }
    }
    tokens.0.insert(value, token);
    Ok(response)
}

/// Returns the token data for the user and project of a login.
fn identify(upstreams: &Upstreams, auth: &Map<String, Value>) -> Result<Token, Response> {
    let identity = auth.get("identity").ok_or_else(|| expecting("identity"))?;
    let methods = identity["methods"]
        .as_array()
        .ok_or_else(|| expecting("methods"))?;
    let [method] = &methods[..] else {
        return Err(unauthorized(upstreams));
    };
    let now = upstreams.clock.now();
    let ttl_end = now + upstreams.settings.token_ttl;
    let (user, method, expires, fixed) = match method.as_str() {
        Some("password") => {
            let given = &identity["password"]["user"];
            let user = named_user(given)?.ok_or_else(|| unauthorized(upstreams))?;
            if given["password"].as_str() != Some(PASSWORD) {
                return Err(unauthorized(upstreams));
            }
            (user, "password", ttl_end, None)
        }
        Some("application_credential") => {
            let given = &identity["application_credential"];
            match given["id"].as_str() {
                Some(APPLICATION_CREDENTIAL_ID) => {}
                // Keystone 30 returns 404 for an unknown id, 401 for a wrong secret.
                Some(id) => {
                    let message = format!("Could not find Application Credential: {id}.");
                    return Err(error_response(StatusCode::NOT_FOUND, &message));
                }
                None => {
                    let user = named_user(&given["user"])?;
                    if given["name"].as_str() != Some(APPLICATION_CREDENTIAL_NAME)
                        || user.is_none_or(|user| user.name != USERNAME)
                    {
                        return Err(unauthorized(upstreams));
                    }
                }
            }
            if given["secret"].as_str() != Some(APPLICATION_CREDENTIAL_SECRET) {
                return Err(unauthorized(upstreams));
            }
            (&USERS[0], "application_credential", ttl_end, Some(DEMO))
        }
        Some("token") => {
            let given = identity["token"]["id"]
                .as_str()
                .ok_or_else(|| expecting("token"))?;
            let old = lookup(upstreams, given).ok_or_else(|| unauthorized(upstreams))?;
            // The expiry does not change, and a token of an application credential
            // cannot be exchanged. Source: docs/apis/heat.md, "Keystone v3".
            if old.by_application_credential() {
                return Err(error_response(
                    StatusCode::FORBIDDEN,
                    "Rescoping a token is not permitted for this token.",
                ));
            }
            (old.user, "token", old.expires, None)
        }
        _ => return Err(unauthorized(upstreams)),
    };
    let project = match fixed {
        Some(project) => Some(project),
        None => scope(upstreams, auth.get("scope"), user)?,
    };
    let audit = Uuid::new_v4().simple().to_string()[..22].to_owned();
    Ok(Token {
        user,
        project,
        method,
        issued: now,
        expires,
        audit,
    })
}

/// Finds the user that a login names, by id or by name and domain.
fn named_user(given: &Value) -> Result<Option<&'static User>, Response> {
    if let Some(id) = given["id"].as_str() {
        return Ok(USERS.iter().find(|user| user.id == id));
    }
    let name = given["name"].as_str().ok_or_else(|| expecting("user"))?;
    if !given["domain"].is_object() {
        return Err(expecting("domain in user"));
    }
    Ok(USERS
        .iter()
        .find(|user| user.name == name && in_domain(given)))
}

fn in_domain(given: &Value) -> bool {
    let domain = &given["domain"];
    domain["id"].as_str() == Some("default") || domain["name"].as_str() == Some(DOMAIN)
}

/// Finds the project that a login names; `None` for an unscoped token.
fn scope(
    upstreams: &Upstreams,
    scope: Option<&Value>,
    user: &User,
) -> Result<Option<Project>, Response> {
    let given = match scope {
        None => return Ok(None),
        Some(Value::String(text)) if text == "unscoped" => return Ok(None),
        Some(scope) => &scope["project"],
    };
    let own = user.project;
    let found = match (given["id"].as_str(), given["name"].as_str()) {
        (Some(id), _) => id == own.id,
        // In Huawei's IAM a region's project has the name of the region, and the domain
        // is optional.
        (None, Some(name)) => name == REGION || (name == own.name && in_domain(given)),
        (None, None) => false,
    };
    match found {
        true => Ok(Some(own)),
        false => Err(unauthorized(upstreams)),
    }
}

fn validate(upstreams: &Upstreams, request: &Request) -> Result<Response, Response> {
    token(upstreams, request).ok_or_else(|| unauthorized(upstreams))?;
    let subject = request.header("x-subject-token").unwrap_or_default();
    match lookup(upstreams, subject) {
        Some(token) => {
            Ok(Response::ok(describe(upstreams, &token, true))
                .with_header("x-subject-token", subject))
        }
        None => Err(error_response(
            StatusCode::NOT_FOUND,
            "Failed to validate token",
        )),
    }
}

fn revoke(upstreams: &Upstreams, request: &Request) -> Result<Response, Response> {
    token(upstreams, request).ok_or_else(|| unauthorized(upstreams))?;
    let subject = request.header("x-subject-token").unwrap_or_default();
    match lock(&upstreams.keystone).0.remove(subject) {
        Some(_) => Ok(Response::empty(StatusCode::NO_CONTENT)),
        None => Err(error_response(
            StatusCode::NOT_FOUND,
            "Failed to validate token",
        )),
    }
}

/// `GET /projects?name=`: lets a client with access keys and a region's name find its
/// project id. Accepts a signature or a token.
fn projects(upstreams: &Upstreams, request: &Request) -> Result<Response, Response> {
    let own = match token(upstreams, request) {
        Some(token) => token.user.project,
        None if servicestage::signed(upstreams, request) => DEMO,
        None => return Err(unauthorized(upstreams)),
    };
    let name = request.parameter("name").unwrap_or(own.name);
    let found = match name == own.name || name == REGION {
        true => json!([{
            "id": own.id, "name": name, "domain_id": "default", "parent_id": "default",
            "enabled": true, "is_domain": false, "description": "",
        }]),
        false => json!([]),
    };
    Ok(Response::ok(json!({
        "projects": found,
        "links": {"next": null, "previous": null, "self": format!("{}/v3/projects", upstreams.base)},
    })))
}

/// Builds the body of a login or a validation.
fn describe(upstreams: &Upstreams, token: &Token, catalog: bool) -> Value {
    let domain = json!({"id": "default", "name": DOMAIN});
    let user = token.user;
    let mut body = json!({
        "methods": [token.method],
        "user": {"domain": domain, "id": user.id, "name": user.name, "password_expires_at": null},
        "audit_ids": [token.audit],
        "expires_at": microseconds(token.expires),
        "issued_at": microseconds(token.issued),
    });
    if let Some(project) = token.project {
        body["project"] = json!({"domain": domain, "id": project.id, "name": project.name});
        body["is_domain"] = json!(false);
        body["roles"] = user
            .roles
            .iter()
            .map(|(name, id)| json!({"id": id, "name": name}))
            .collect();
        if catalog {
            body["catalog"] = json!([
                service(
                    "1399db816371462c91dfa148c8a0c02c",
                    "identity",
                    "keystone",
                    &format!("{}/identity/v3", upstreams.base)
                ),
                service(
                    "883bc2625afe4ed6a15fdd777e75fb0f",
                    "orchestration",
                    "heat",
                    &heat::endpoint(&upstreams.base, project.id)
                ),
            ]);
        }
    }
    if token.by_application_credential() {
        body["application_credential"] = json!({
            "id": APPLICATION_CREDENTIAL_ID, "name": APPLICATION_CREDENTIAL_NAME, "restricted": true,
        });
    }
    json!({"token": body})
}

fn service(id: &str, kind: &str, name: &str, url: &str) -> Value {
    let endpoint = |interface: &str| {
        let id = Uuid::new_v4().simple().to_string();
        json!({"id": id, "interface": interface, "region_id": REGION, "url": url, "region": REGION})
    };
    let endpoints = ["public", "internal", "admin"].map(endpoint);
    json!({"endpoints": endpoints, "id": id, "type": kind, "name": name})
}

fn unauthorized(upstreams: &Upstreams) -> Response {
    error_response(StatusCode::UNAUTHORIZED, REQUIRES_AUTHENTICATION)
        .with_header("www-authenticate", challenge(upstreams))
}

/// Value of `WWW-Authenticate` in a 401, also in Heat's.
pub(super) fn challenge(upstreams: &Upstreams) -> String {
    format!("Keystone uri=\"{}/identity/v3\"", upstreams.base)
}

/// Heat's response to a missing or invalid token, sent by its token middleware
/// (`auth.heat.missing_token.json`).
pub(super) fn invalid_token_response(upstreams: &Upstreams) -> Response {
    let error = json!({"code": 401, "title": "Unauthorized", "message": REQUIRES_AUTHENTICATION});
    Response::json(StatusCode::UNAUTHORIZED, json!({"error": error}))
        .with_header("www-authenticate", challenge(upstreams))
}

fn not_found() -> Response {
    error_response(
        StatusCode::NOT_FOUND,
        "The requested URL was not found on the server.",
    )
}

fn expecting(what: &str) -> Response {
    error_response(
        StatusCode::BAD_REQUEST,
        &match what {
            "domain in user" => format!("Expecting to find {what}. {MALFORMED}"),
            _ => format!("Expecting to find {what} in request body. {MALFORMED}"),
        },
    )
}

const MALFORMED: &str = "The server could not comply with the request since it is either malformed or otherwise \
                         incorrect. The client is assumed to be in error.";

fn error_response(status: StatusCode, message: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    Response::json(
        status,
        json!({"error": {"code": status.as_u16(), "message": message, "title": title}}),
    )
}
