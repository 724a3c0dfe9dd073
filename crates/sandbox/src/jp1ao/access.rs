//! Who calls: users, roles, HTTP Basic and HSSO tokens (`jp1ao.md` 0.3, d).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::{JP1AO_OPERATOR, JP1AO_OUTSIDER, JP1AO_PASSWORD, JP1AO_USERNAME};

/// A token dies this long after its issue.
const TOKEN_TTL: Duration = Duration::from_secs(1000);

/// What a user may do; each may do what those before it may.
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
    /// The service groups that the user sees; none: all of them.
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
        groups: Some(&[super::stock::DEFAULT_GROUP]),
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

/// Signs the tokens, so that none has to be kept: each answer issues one.
pub struct Tokens {
    /// None only if the system has no random numbers; then only Basic works.
    key: Option<hmac::Key>,
}

impl Tokens {
    pub fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &SystemRandom::new());
        Self { key: key.ok() }
    }

    /// The user whom an `authorization` names, if it is good.
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

    /// The next token: `<40 hex digits>_<base64>_V0810`.
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

/// Stands for whoever could not be told.
pub fn nobody() -> &'static User {
    &USERS[2]
}
