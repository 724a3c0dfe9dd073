//! Authentication and authorization: a token of IAM or a request signed with an access
//! key, for the project of the path. Source: docs/apis/servicestage.md,
//! "Authentication".

use http::{Method, StatusCode};

use super::errors::gateway;
use crate::message::{Request, Response};
use crate::{
    ACCESS_KEY, PROJECT_ID, SECRET_KEY, SECURITY_TOKEN, TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY,
    USERNAME, Upstreams, keystone, signature,
};

/// Maximum size of a request body at the API gateway (docs/apis/servicestage.md,
/// "Codes").
const MAX_BODY_BYTES: usize = 12 << 20;

/// Returns the user's name if the user may call this method in the project.
pub fn authorize(
    upstreams: &Upstreams,
    request: &Request,
    project: &str,
) -> Result<&'static str, Response> {
    let (user, own, may_write) = match keystone::token(upstreams, request) {
        Some(token) => (
            token.user.name(),
            token.project.map_or("", |project| project.id),
            token.may_write(),
        ),
        None if request.header("authorization").is_none()
            && request.header("x-auth-token").is_some() =>
        {
            return Err(unauthorized("decrypt token fail"));
        }
        None => {
            verify(upstreams, request)?;
            (USERNAME, PROJECT_ID, true)
        }
    };
    if own != project {
        return Err(forbidden("The project is not yours."));
    }
    // Calls of a regional service name the project a second time.
    if request
        .header("x-project-id")
        .is_some_and(|id| id != project)
    {
        return Err(forbidden("X-Project-Id is not the path's project."));
    }
    if !may_write && request.method != Method::GET {
        return Err(forbidden("You may look, but not touch."));
    }
    if request.body.len() > MAX_BODY_BYTES {
        return Err(gateway(
            StatusCode::PAYLOAD_TOO_LARGE,
            "0201",
            "Request entity too large.",
        ));
    }
    Ok(user)
}

/// Returns whether the request is signed with one of the sandbox's keys; IAM accepts
/// this too.
pub fn signed(upstreams: &Upstreams, request: &Request) -> bool {
    verify(upstreams, request).is_ok()
}

fn verify(upstreams: &Upstreams, request: &Request) -> Result<(), Response> {
    let token = request.header("x-security-token");
    // Temporary keys are valid only with their token, permanent ones only without.
    let (secret, lasting) = match signature::access_key(&request.headers) {
        Some(ACCESS_KEY) => (SECRET_KEY, token.is_none()),
        Some(TEMPORARY_ACCESS_KEY) => (TEMPORARY_SECRET_KEY, token == Some(SECURITY_TOKEN)),
        // Verified with some key, so that an unknown access key fails like a wrong
        // signature.
        _ => (SECRET_KEY, false),
    };
    let request = signature::Request {
        method: &request.method,
        target: &request.target,
        headers: &request.headers,
        body: &request.body,
    };
    match signature::verify(request, secret, Some(upstreams.clock.now())) {
        Ok(()) if lasting => Ok(()),
        // Text of the fixtures; the gateway does not report the exact reason.
        _ => Err(unauthorized("verify aksk signature fail")),
    }
}

fn unauthorized(why: &str) -> Response {
    gateway(
        StatusCode::UNAUTHORIZED,
        "0301",
        &format!("Incorrect IAM authentication information: {why}"),
    )
}

fn forbidden(message: &str) -> Response {
    gateway(StatusCode::FORBIDDEN, "0302", message)
}
