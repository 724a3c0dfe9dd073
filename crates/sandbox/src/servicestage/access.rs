//! Who may call: a token of the IAM, or a request signed with an access key;
//! either way the path's project must be the caller's. `servicestage.md` (c).

use http::{Method, StatusCode};

use super::refusal::gateway;
use crate::plain::{Answer, Ask};
use crate::{
    ACCESS_KEY, PROJECT_ID, SECRET_KEY, SECURITY_TOKEN, TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY,
    USERNAME, World, keystone, signature,
};

/// The longest request body that the API gateway takes (a).
const MAX_BODY: usize = 12 << 20;

/// The caller's name, if it may do this to the project.
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
    // A regional service's calls name the project a second time.
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

/// Whether the request is signed with the sandbox's keys; IAM takes that too.
pub fn signed(world: &World, ask: &Ask) -> bool {
    verify(world, ask).is_ok()
}

fn verify(world: &World, ask: &Ask) -> Result<(), Answer> {
    let token = ask.header("x-security-token");
    // Temporary keys are good with their token only, and lasting ones without.
    let (secret, lasting) = match signature::access_key(&ask.headers) {
        Some(ACCESS_KEY) => (SECRET_KEY, token.is_none()),
        Some(TEMPORARY_ACCESS_KEY) => (TEMPORARY_SECRET_KEY, token == Some(SECURITY_TOKEN)),
        // Signed by nobody: checked all the same, to fail in the same way.
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
        // The fixtures' words; the gateway does not say what exactly was wrong.
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
