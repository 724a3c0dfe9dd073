//! Annotations of an rpc, as far as a client needs them.

use prost_reflect::{
    DynamicMessage, EnumValueDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, ReflectMessage as _,
};

/// The message of a file that an API sends or receives unchanged.
pub(in crate::cli) const HTTP_BODY: &str = "google.api.HttpBody";
/// The message that each message of a watch has.
const WATCH_EVENT: &str = "drawbridge.v1.WatchEvent";

/// What an rpc does with its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum MethodKind {
    Unary,
    Watch,
    Stream,
    Upload,
    Download,
}

impl MethodKind {
    pub(in crate::cli) fn of(method: &MethodDescriptor) -> Self {
        let is_file = |field: &str| rule(method, field).is_some();
        match (method.is_client_streaming(), method.is_server_streaming()) {
            (true, _) if is_file("upload") => Self::Upload,
            (_, true) if event_field(&method.output()).is_some() => Self::Watch,
            (_, true) if is_file("download") => Self::Download,
            (false, _) if is_http_body(&method.output()) => Self::Download,
            (false, false) => Self::Unary,
            _ => Self::Stream,
        }
    }

    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Watch => "watch",
            Self::Stream => "stream",
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }
}

/// Returns whether a stream ends by itself: that of a REST call, or a watch with a final state.
pub(in crate::cli) fn ends(method: &MethodDescriptor) -> bool {
    if !method.is_server_streaming() {
        return true;
    }
    match rule(method, "watch") {
        Some(watch) => {
            let has = |name| text(&watch, name).is_some();
            let is_log = watch.has_field_by_name("log") || watch.has_field_by_name("text_log");
            match is_log {
                true => has("ends_with") && !has("until_final"),
                false => has("state") && !has("key"),
            }
        }
        None => route(method).is_some(),
    }
}

fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == HTTP_BODY
}

/// Returns whether a message is the event of a watch.
pub(in crate::cli) fn is_event(message: &MessageDescriptor) -> bool {
    message.full_name() == WATCH_EVENT
}

/// Returns the field of the event in a message of a watch.
pub(in crate::cli) fn event_field(message: &MessageDescriptor) -> Option<FieldDescriptor> {
    message.fields().find(|field| match field.kind() {
        Kind::Message(kind) => !field.is_list() && kind.full_name() == WATCH_EVENT,
        _ => false,
    })
}

/// Returns a message among the options of an rpc in `drawbridge.v1.method`, if it is set.
pub(in crate::cli) fn rule(method: &MethodDescriptor, name: &str) -> Option<DynamicMessage> {
    let pool = method.parent_pool();
    let extension = pool.get_extension_by_name("drawbridge.v1.method")?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let rules = options.get_extension(&extension);
    let rules = rules.as_message()?;
    let field = rules.descriptor().get_field_by_name(name)?;
    if !rules.has_field(&field) {
        return None;
    }
    rules.get_field(&field).as_message().cloned()
}

/// Returns a text among the members of an option.
pub(in crate::cli) fn text(rule: &DynamicMessage, name: &str) -> Option<String> {
    let value = rule.get_field_by_name(name)?;
    let text = value.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns the REST call of an rpc, `GET /v1/stacks`, if it is annotated.
pub(in crate::cli) fn route(method: &MethodDescriptor) -> Option<String> {
    let extension = method
        .parent_pool()
        .get_extension_by_name("google.api.http")?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let http = options.get_extension(&extension);
    let http = http.as_message()?;
    ["get", "put", "post", "delete", "patch"]
        .into_iter()
        .find_map(|verb| {
            let field = http.descriptor().get_field_by_name(verb)?;
            // Members of a oneof: unset ones are empty.
            let path = http.get_field(&field).as_str()?.to_owned();
            (!path.is_empty()).then(|| format!("{} {path}", verb.to_uppercase()))
        })
        .map(|route| super::text::sanitize(&route))
}

/// Returns the text of an enum value in the REST API, where an annotation names it.
pub(in crate::cli) fn enum_text(value: &EnumValueDescriptor) -> Option<String> {
    let pool = value.parent_pool();
    let extension = pool.get_extension_by_name("drawbridge.v1.enum_value")?;
    let options = value.options();
    let rules = options.get_extension(&extension);
    text(rules.as_message()?, "name")
}

/// Returns whether the elements of a list are the segments of URLs.
pub(in crate::cli) fn has_url_pattern(field: &FieldDescriptor) -> bool {
    let pool = field.parent_pool();
    let Some(extension) = pool.get_extension_by_name("drawbridge.v1.field") else {
        return false;
    };
    let options = field.options();
    let rules = options.get_extension(&extension);
    rules
        .as_message()
        .is_some_and(|rules| text(rules, "url_pattern").is_some())
}

/// Returns the behaviors of a field, such as `REQUIRED`.
pub(in crate::cli) fn behaviors(field: &FieldDescriptor) -> Vec<String> {
    let name = "google.api.field_behavior";
    let Some(extension) = field.parent_pool().get_extension_by_name(name) else {
        return Vec::new();
    };
    let options = field.options();
    let values = options.get_extension(&extension);
    let Kind::Enum(kind) = extension.kind() else {
        return Vec::new();
    };
    let values = values.as_list().unwrap_or_default().iter();
    let values = values.filter_map(|value| kind.get_value(value.as_enum_number()?));
    values.map(|value| value.name().to_owned()).collect()
}
