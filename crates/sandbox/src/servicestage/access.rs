//! Authentication and authorization: a token of IAM or a request signed with an access
//! key, for the project of the path. Source: docs/apis/servicestage.md,
//! "Authentication".

use http::{Method, StatusCode};

use super::errors::gateway;
use crate::message::{Answer, Ask};
use crate::{
    ACCESS_KEY, PROJECT_ID, SECRET_KEY, SECURITY_TOKEN, TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY,
    USERNAME, World, keystone, signature,
};

/// Maximum size of a request body at the API gateway (docs/apis/servicestage.md,
/// "Codes").
const MAX_BODY: usize = 12 << 20;

/// Returns the user's name if the user may call this method in the project.
pub fn caller(world: &World, ask: &Ask, project: &str) -> Result<&'static str, Answer> {
    let (user, own, may_write) = match keystone::token(world, ask) {
        Some(token) => (
            token.user.name(),
            token.project.map_or("", |project| project.id),
            token.may_write(),
        ),
        None if ask.header("authorization").is_none() && ask.header("x-auth-token").is_some() => {
            return Err(refused("decrypt token fail"));
        }
        None => {
            verify(world, ask)?;
            (USERNAME, PROJECT_ID, true)
        }
    };
    if own != project {
        return Err(forbidden("The project is not yours."));
    }
    // Calls of a regional service name the project a second time.
    if ask.header("x-project-id").is_some_and(|id| id != project) {
        return Err(forbidden("X-Project-Id is not the path's project."));
    }
    if !may_write && ask.method != Method::GET {
        return Err(forbidden("You may look, but not touch."));
    }
    if ask.body.len() > MAX_BODY {
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
pub fn signed(world: &World, ask: &Ask) -> bool {
    verify(world, ask).is_ok()
}

fn verify(world: &World, ask: &Ask) -> Result<(), Answer> {
    let token = ask.header("x-security-token");
    // Temporary keys are valid only with their token, permanent ones only without.
    let (secret, lasting) = match signature::access_key(&ask.headers) {
        Some(ACCESS_KEY) => (SECRET_KEY, token.is_none()),
        Some(TEMPORARY_ACCESS_KEY) => (TEMPORARY_SECRET_KEY, token == Some(SECURITY_TOKEN)),
        // Verified with some key, so that an unknown access key fails like a wrong
        // signature.
        _ => (SECRET_KEY, false),
    };
    let request = signature::Request {
        method: &ask.method,
        target: &ask.target,
        headers: &ask.headers,
        body: &ask.body,
    };
    match signature::verify(request, secret, Some(world.clock.now())) {
        Ok(()) if lasting => Ok(()),
        // Text of the fixtures; the gateway does not report the exact reason.
        _ => Err(refused("verify aksk signature fail")),
    }
}

fn refused(why: &str) -> Answer {
    gateway(
        StatusCode::UNAUTHORIZED,
        "0301",
        &format!("Incorrect IAM authentication information: {why}"),
    )
}

fn forbidden(message: &str) -> Answer {
    gateway(StatusCode::FORBIDDEN, "0302", message)
}
