//! Users, roles, HTTP Basic and HSSO tokens (docs/apis/jp1ao.md, "Role letters" and
//! "Authentication and transport").

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::{JP1AO_OPERATOR, JP1AO_OUTSIDER, JP1AO_PASSWORD, JP1AO_USERNAME};

/// Lifetime of a token.
const TOKEN_TTL: Duration = Duration::from_secs(1000);

/// Roles; each includes the rights of the previous ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Submit,
    Modify,
    Develop,
    Admin,
}

#[derive(Debug)]
pub struct User {
    pub name: &'static str,
    pub full_name: &'static str,
    pub role: Role,
    /// Accessible service groups; `None` for all.
    groups: Option<&'static [u64]>,
}

static USERS: [User; 3] = [
    User {
        name: JP1AO_USERNAME,
        full_name: "Administrator",
        role: Role::Admin,
        groups: None,
    },
    User {
        name: JP1AO_OPERATOR,
        full_name: "",
        role: Role::Submit,
        groups: Some(&[super::preload::DEFAULT_GROUP]),
    },
    User {
        name: JP1AO_OUTSIDER,
        full_name: "",
        role: Role::Submit,
        groups: Some(&[]),
    },
];

impl User {
    pub fn sees(&self, group: u64) -> bool {
        self.groups.is_none_or(|groups| groups.contains(&group))
    }

    pub fn sees_nothing(&self) -> bool {
        self.groups.is_some_and(<[u64]>::is_empty)
    }

    pub fn sees_all(&self) -> bool {
        self.groups.is_none()
    }
}

/// Signs tokens, one for each response, so that none has to be stored.
pub struct Tokens {
    /// `None` if the system has no random numbers; then only Basic works.
    key: Option<hmac::Key>,
}

impl Tokens {
    pub fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &SystemRandom::new());
        Self { key: key.ok() }
    }

    /// Returns the user of a valid `authorization` header.
    pub fn user(&self, authorization: Option<&str>, now: SystemTime) -> Option<&'static User> {
        match authorization?.split_once(' ')? {
            ("Basic", given) => {
                let given = BASE64_STANDARD.decode(given).ok()?;
                USERS
                    .iter()
                    .find(|user| given == format!("{}:{JP1AO_PASSWORD}", user.name).into_bytes())
            }
            ("HSSO", token) => self.holder(token, now),
            _ => None,
        }
    }

    /// Issues a token: `<40 hex digits>_<base64>_V0810`.
    pub fn issue(&self, user: &User, now: SystemTime) -> Option<String> {
        let expiry = (now + TOKEN_TTL)
            .duration_since(UNIX_EPOCH)
            .ok()?
            .as_millis();
        let said = format!("{}:{expiry}", user.name);
        let tag = hmac::sign(self.key.as_ref()?, said.as_bytes());
        let hex: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Some(format!("{hex}_{}_V0810", BASE64_STANDARD.encode(said)))
    }

    fn holder(&self, token: &str, now: SystemTime) -> Option<&'static User> {
        let (hex, rest) = token.split_once('_')?;
        let said = BASE64_STANDARD.decode(rest.strip_suffix("_V0810")?).ok()?;
        let tag = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok())
            .collect::<Option<Vec<u8>>>()?;
        hmac::verify(self.key.as_ref()?, &said, &tag).ok()?;
        let (name, expiry) = std::str::from_utf8(&said).ok()?.split_once(':')?;
        let alive = UNIX_EPOCH + Duration::from_millis(expiry.parse().ok()?) > now;
        USERS.iter().find(|user| alive && user.name == name)
    }
}

/// Placeholder for the user of an unauthenticated request.
pub fn placeholder_user() -> &'static User {
    &USERS[2]
}
