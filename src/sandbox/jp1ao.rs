//! Hitachi JP1/AO (Automation Director, Ops Center Automator): its services.
//!
//! `jp1ao.md` sections 1, 3, (a) to (e); the release and its envelope are the
//! seed's (5-jp1ao-service-release.txt). No answer here was recorded.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{Method, StatusCode};
use ring::hmac;
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use uuid::Uuid;

use super::plain::{Answer, Ask, tokyo};
use super::{JP1AO_PASSWORD, JP1AO_USERNAME, World, lock};

/// The host in every link, as in the manual's samples: not the one that answers,
/// so that a client that follows links is found out.
const FOREIGN: &str = "http://10.196.184.182:22015";
/// A token dies this long after its issue (d).
const TOKEN_TTL: Duration = Duration::from_secs(1000);
/// The page size when none is asked for (a.2, by the sister API).
const PAGE_SIZE: usize = 100;

pub(super) struct Jp1ao {
    services: Vec<Service>,
    /// Signs the tokens, so that none has to be kept: each answer issues one.
    /// None only if the system has no random numbers; then only Basic works.
    key: Option<hmac::Key>,
}

struct Service {
    id: u64,
    name: &'static str,
    description: &'static str,
    tags: &'static str,
    template: (u64, &'static str),
    group: (u64, &'static str),
    favorite: bool,
    state: &'static str,
    /// When it was last changed; none: when it was made.
    modified: Option<String>,
}

const MADE: &str = "2015-07-01T09:00:00.000+09:00";
const GROUP: (u64, &str) = (1001, "DefaultServiceGroup");
const ADD_DISK: (u64, &str) = (3001, "Add New Virtual Disk");
const ALLOCATE: (u64, &str) = (3002, "Allocate Volumes");
const START: (u64, &str) = (3003, "Start Virtual Machines");

impl Service {
    fn new(
        id: u64,
        name: &'static str,
        template: (u64, &'static str),
        state: &'static str,
    ) -> Self {
        Self {
            id,
            name,
            description: "A service of the sandbox",
            tags: "Storage",
            template,
            group: GROUP,
            favorite: false,
            state,
            modified: None,
        }
    }

    fn show(&self) -> Value {
        json!({
            "instanceID": self.id,
            "name": self.name,
            "description": self.description,
            "tags": self.tags,
            "serviceTemplateName": self.template.1,
            "createTime": MADE,
            "modifyTime": self.modified.as_deref().unwrap_or(MADE),
            "serviceState": self.state,
            "serviceGroupName": self.group.1,
            "iconURL": format!("{FOREIGN}/Automation/icon/services/{}", self.id),
            "imageURL": format!("{FOREIGN}/Automation/image/services/{}", self.id),
            "vendorName": "Hitachi, Ltd.",
            "version": "01.13.00",
            "lastSubmitTime": null,
            "favorite": self.favorite,
            "failedCount": 0,
            "completedCount": 0,
            "executedCount": 0,
            "submitCount": 0,
            "lastFailedTime": null,
            "resetTime": null,
            "latest": true,
            "supportedScheduleType": "immediate,schedule,recurrence",
            "serviceTemplateID": self.template.0,
            "serviceGroupID": self.group.0,
            "supportedActionType": "forceStop,forceRetry",
        })
    }

    /// `q` looks into these (3, list parameters).
    fn holds(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let searched = [
            self.name,
            self.description,
            self.tags,
            self.template.1,
            "Hitachi, Ltd.",
        ];
        searched
            .iter()
            .any(|member| member.to_lowercase().contains(&text))
    }

    fn tagged(&self, tags: &str) -> bool {
        let has = |wanted: &str| self.tags.split(',').any(|tag| tag.trim() == wanted.trim());
        tags.split(',').all(has)
    }
}

/// Which state an action leads to, and from which states it can (c.1).
fn transition(action: &str) -> Option<(&'static str, &'static [&'static str])> {
    match action {
        "release" => Some(("release", &["test", "maintenance", "disabled"])),
        "maintenance" => Some(("maintenance", &["release"])),
        "disable" => Some(("disabled", &["release"])),
        _ => None,
    }
}

impl Jp1ao {
    pub fn new() -> Self {
        let key =
            hmac::Key::generate(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &SystemRandom::new()).ok();
        let mut services = vec![
            Service::new(2004, "Add disks to the web servers", ADD_DISK, "test"),
            Service::new(2005, "Add disks to the databases", ADD_DISK, "release"),
            Service::new(2006, "Volumes for the archive", ALLOCATE, "maintenance"),
            Service::new(2007, "Volumes for the backup", ALLOCATE, "disabled"),
            Service::new(2008, "Start the night's machines", START, "release"),
        ];
        services[1].favorite = true;
        services[4].tags = "Server,Night shift";
        services[4].group = (1002, "Operations");
        Self { services, key }
    }

    fn service(&mut self, id: &str, ask: &Ask) -> Result<&mut Service, Answer> {
        let id = id.parse::<u64>().ok();
        // Also the answer when one may not see it (b.1).
        self.services
            .iter_mut()
            .find(|service| Some(service.id) == id)
            .ok_or_else(|| {
                let message = "The specified resource does not exist, or you do not have permission to access it.";
                refusal(ask, StatusCode::NOT_FOUND, "KNAE02102-E", message)
            })
    }

    /// The next token: `<40 hex digits>_<expiry>_V0810`.
    fn issue(&self, world: &World) -> Option<String> {
        let expiry = (world.clock.now() + TOKEN_TTL)
            .duration_since(UNIX_EPOCH)
            .ok()?
            .as_millis();
        let tag = hmac::sign(self.key.as_ref()?, expiry.to_string().as_bytes());
        let hex: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Some(format!(
            "{hex}_{}_V0810",
            BASE64_STANDARD.encode(expiry.to_string())
        ))
    }

    fn good(&self, token: &str, world: &World) -> bool {
        let checked = || {
            let (hex, rest) = token.split_once('_')?;
            let expiry = BASE64_STANDARD.decode(rest.strip_suffix("_V0810")?).ok()?;
            let tag = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok())
                .collect::<Option<Vec<u8>>>()?;
            hmac::verify(self.key.as_ref()?, &expiry, &tag).ok()?;
            let expiry = std::str::from_utf8(&expiry).ok()?.parse().ok()?;
            Some(UNIX_EPOCH + Duration::from_millis(expiry) > world.clock.now())
        };
        checked().unwrap_or(false)
    }
}

pub(super) fn answer(world: &World, ask: &Ask) -> Answer {
    let mut jp1ao = lock(&world.jp1ao);
    if !authenticated(&jp1ao, world, ask) {
        return refusal(
            ask,
            StatusCode::UNAUTHORIZED,
            "KNAE02101-E",
            "Authentication failed.",
        )
        .with("cache-control", "no-cache");
    }
    let answer = route(&mut jp1ao, world, ask)
        .unwrap_or_else(|refused| refused)
        .with("access-control-expose-headers", "WWW-Authenticate")
        .with("access-control-allow-origin", "*")
        .with(
            "access-control-allow-methods",
            "GET, POST, DELETE, PUT, HEAD, OPTIONS",
        )
        .with("access-control-allow-credentials", "true")
        .with("cache-control", "no-cache");
    // Not a challenge: the next token, on success and failure alike (d).
    match jp1ao.issue(world) {
        Some(token) => answer.with("www-authenticate", format!("HSSO {token}")),
        None => answer,
    }
}

fn authenticated(jp1ao: &Jp1ao, world: &World, ask: &Ask) -> bool {
    match ask
        .header("authorization")
        .and_then(|value| value.split_once(' '))
    {
        Some(("Basic", given)) => BASE64_STANDARD
            .decode(given)
            .is_ok_and(|given| given == format!("{JP1AO_USERNAME}:{JP1AO_PASSWORD}").into_bytes()),
        Some(("HSSO", token)) => jp1ao.good(token, world),
        _ => false,
    }
}

fn route(jp1ao: &mut Jp1ao, world: &World, ask: &Ask) -> Result<Answer, Answer> {
    let segments = ask.segments();
    let ["Automation", "v1", ref rest @ ..] = segments[..] else {
        return Err(no_route(ask));
    };
    match (&ask.method, rest) {
        (&Method::GET, ["configuration", "version"]) => Ok(Answer::ok(json!({
            "productName": "JP1/Automatic Operation",
            "productVersion": "11-00-00",
            "apiVersion": "01.01.00",
        }))),
        (&Method::GET, ["user"]) => Ok(Answer::ok(user())),
        (&Method::GET, ["objects", "Services"]) => list(jp1ao, ask),
        (&Method::GET, ["objects", "Services", id]) => {
            Ok(Answer::ok(jp1ao.service(id, ask)?.show()))
        }
        (&Method::GET, ["objects", "Services", id, "actions"]) => {
            let service = jp1ao.service(id, ask)?;
            let possible = |action: &&str| {
                transition(action).is_some_and(|(_, from)| from.contains(&service.state))
            };
            let actions: Vec<Value> = ["release", "maintenance", "disable"]
                .iter()
                .filter(|action| possible(action))
                .map(|action| document(service.id, action))
                .collect();
            Ok(Answer::ok(json!({"data": actions, "count": actions.len()})))
        }
        (&Method::GET, ["objects", "Services", id, "actions", action])
            if transition(action).is_some() =>
        {
            Ok(Answer::ok(document(jp1ao.service(id, ask)?.id, action)))
        }
        (&Method::POST, ["objects", "Services", id, "actions", action, "invoke"]) => {
            invoke(jp1ao, world, ask, id, action)
        }
        (_, ["configuration", "version"] | ["user"] | ["objects", "Services", ..]) => Err(refusal(
            ask,
            StatusCode::METHOD_NOT_ALLOWED,
            "KNAE02105-E",
            "The method is not allowed.",
        )),
        _ => Err(no_route(ask)),
    }
}

/// The V12 example spells `instanceID` here, its schema `instanceId` (2.12.1).
fn user() -> Value {
    json!({
        "userName": JP1AO_USERNAME,
        "fullName": "",
        "description": "The sandbox's user",
        "email": "",
        "accessPermission": ["User Management"],
        "resourceGroup": [{
            "instanceID": "Automation_RG_ALL",
            "name": "All Service Groups",
            "description": "",
            "accessPermission": ["View", "Execute", "Develop", "Modify", "Admin"],
        }],
    })
}

fn list(jp1ao: &Jp1ao, ask: &Ask) -> Result<Answer, Answer> {
    let bad = |name: &str| {
        let message = format!("The value of the query parameter {name} is invalid.");
        refusal(ask, StatusCode::BAD_REQUEST, "KNAE02104-E", &message)
    };
    let number = |name: &str| {
        ask.parameter(name)
            .map(str::parse::<u64>)
            .transpose()
            .map_err(|_| bad(name))
    };
    let (group, template) = (number("serviceGroupID")?, number("serviceTemplateID")?);
    let favorite = ask
        .parameter("favorite")
        .map(str::parse::<bool>)
        .transpose()
        .map_err(|_| bad("favorite"))?;
    // The sandbox does not speak HQL, and says so rather than list what was not asked for.
    if ask.parameter("HQL::filter").is_some() {
        return Err(bad("HQL::filter"));
    }
    let position = |name: &str, default: usize| match ask.parameter(name).map(str::parse::<usize>) {
        None => Ok(default),
        Some(Ok(number)) if (1..=1_000_000).contains(&number) => Ok(number),
        Some(_) => Err(bad(name)),
    };
    let (page, page_size) = (position("page", 1)?, position("pageSize", PAGE_SIZE)?);
    let mut found: Vec<Value> = jp1ao
        .services
        .iter()
        .filter(|service| group.is_none_or(|id| service.group.0 == id))
        .filter(|service| template.is_none_or(|id| service.template.0 == id))
        .filter(|service| favorite.is_none_or(|favorite| service.favorite == favorite))
        .filter(|service| ask.parameter("q").is_none_or(|text| service.holds(text)))
        .filter(|service| {
            ask.parameter("tags")
                .is_none_or(|tags| service.tagged(tags))
        })
        // No service of the sandbox has properties.
        .filter(|_| ask.parameter("propertyKey").is_none())
        .map(Service::show)
        .collect();
    sort(&mut found, ask.parameter("HQL::sortBy").unwrap_or_default());
    let (count, pages) = (found.len(), found.len().div_ceil(page_size));
    let data: Vec<Value> = found
        .into_iter()
        .skip((page - 1) * page_size)
        .take(page_size)
        .collect();
    Ok(Answer::ok(json!({
        "data": data,
        "count": count,
        "pagination": {"page": page, "pageSize": page_size, "numPages": pages},
    })))
}

/// `member [ASC|DESC]`, several separated by commas; the last is applied first.
fn sort(found: &mut [Value], by: &str) {
    for part in by.rsplit(',') {
        let mut words = part.split_whitespace();
        let Some(member) = words.next() else { continue };
        let descending = words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("desc"));
        found.sort_by(|a, b| {
            let (a, b) = (&a[member], &b[member]);
            let order = a
                .as_u64()
                .cmp(&b.as_u64())
                .then_with(|| a.as_str().cmp(&b.as_str()));
            if descending { order.reverse() } else { order }
        });
    }
}

/// The action document. Its link has a leading space and another host, both of
/// which the manual's templates show: a client must build the URL itself (1).
fn document(id: u64, action: &str) -> Value {
    json!({
        "name": action,
        "href": format!(" {FOREIGN}/Automation/v1/objects/Services/{id}/actions/{action}/invoke"),
        "method": "POST",
        "parameters": [],
    })
}

/// Carries an action out. The document must come back with its four members.
fn invoke(
    jp1ao: &mut Jp1ao,
    world: &World,
    ask: &Ask,
    id: &str,
    action: &str,
) -> Result<Answer, Answer> {
    let service = jp1ao.service(id, ask)?;
    let (to, from) = transition(action).ok_or_else(|| no_route(ask))?;
    let complete = ask.object().is_some_and(|document| {
        document.get("name").and_then(Value::as_str) == Some(action)
            && document.get("href").is_some_and(Value::is_string)
            && document.get("method").and_then(Value::as_str) == Some("POST")
            && document
                .get("parameters")
                .is_some_and(|value| value.is_array() || value.is_null())
    });
    if !complete {
        let message = "The request body is not the document of the action.";
        return Err(refusal(
            ask,
            StatusCode::BAD_REQUEST,
            "KNAE02104-E",
            message,
        ));
    }
    if !from.contains(&service.state) {
        let message = format!(
            "The service is in the status {} and cannot be changed to {to}.",
            service.state
        );
        return Err(refusal(ask, StatusCode::CONFLICT, "KNAE02103-E", &message));
    }
    let now = tokyo(world.clock.now());
    service.state = to;
    service.modified = Some(now.clone());
    // All at once: created, updated and completed are the same (1.1).
    Ok(Answer::ok(json!({
        "instanceID": Uuid::new_v4().to_string(),
        "created": now,
        "updated": now,
        "completed": now,
        "state": "success",
        "affectedResource": [format!("{FOREIGN}/Automation/v1/objects/Services/{id}")],
        "result": [],
    })))
}

fn no_route(ask: &Ask) -> Answer {
    refusal(
        ask,
        StatusCode::NOT_FOUND,
        "KNAE02102-E",
        "The specified resource does not exist.",
    )
}

/// The error body (b.1). Of the message ids only KNAE02102-E is in a source.
fn refusal(ask: &Ask, status: StatusCode, id: &str, message: &str) -> Answer {
    Answer::json(
        status,
        json!({
            "errorSource": format!("{FOREIGN}{}", ask.path),
            "message": message,
            "messageID": id,
            "application": "Automation",
        }),
    )
}
