//! Body of the create, update, preview and validate requests (docs/apis/heat.md,
//! "Stacks").

use serde_json::{Map, Value, json};

use super::super::message::Response;
use super::parameters::Parameters;
use super::resource_plugins::MAX_RESOURCES;
use super::stack::{Stack, StackDefinition};
use super::template::{Environment, Fault, Template};
use super::{
    Context, attribute_error, bad_request, boolean_of, limit, limit_exceeded, malformed,
    not_supported, value_error,
};

/// Kind of request.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum RequestKind {
    Create,
    Put,
    Patch,
    Validate,
}

/// A parsed body.
pub(super) struct StackRequest {
    name: Value,
    pub template: Option<Template>,
    pub environment: Environment,
    pub files: Map<String, Value>,
    tags: Option<Vec<String>>,
    timeout_mins: Option<i64>,
    disable_rollback: Option<bool>,
    clear_parameters: Vec<String>,
    /// Resources of an abandoned stack.
    pub adopted: Option<Value>,
}

impl StackRequest {
    /// Parses the body with the checks of Heat's API, in its order.
    pub fn read(context: &Context, place: RequestKind) -> Result<Self, Response> {
        let body = context.body()?;
        let name = body.get("stack_name");
        if place == RequestKind::Create && name.is_none() {
            return Err(bad_request("No stack name specified"));
        }
        if place == RequestKind::Create && body.get("converge").is_some() {
            return Err(bad_request(
                "converge flag only supported in stack update (or update preview) request.",
            ));
        }
        let adopted = match body.get("adopt_stack_data") {
            None => None,
            Some(Value::String(text)) => Some(adoptable(text)?),
            Some(_) => return Err(malformed()),
        };
        let from = adopted.as_ref().unwrap_or(&Value::Null);
        let template = match (from.get("template"), body.get("template")) {
            (Some(template), _) => Some(Template::read(template)?),
            (None, Some(Value::Null)) | (None, None) => match body.get("template_url") {
                Some(url) if body.get("template").is_none() => return Err(template_url_error(url)),
                _ if place == RequestKind::Patch => None,
                _ => return Err(bad_request("No template specified")),
            },
            (None, Some(template)) => Some(Template::read(template)?),
        };
        let mut environment = match from.get("environment") {
            Some(environment) => Environment::read(environment)?,
            None => Environment::read(body.get("environment").unwrap_or(&Value::Null))?,
        };
        match body.get("parameters") {
            None => {}
            Some(Value::Object(given)) => environment.parameters.extend(given.clone()),
            Some(_) => return Err(malformed()),
        }
        let files = match body.get("files") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(files)) => files.clone(),
            Some(_) => return Err(attribute_error()),
        };
        if place == RequestKind::Validate {
            return Ok(Self::of(template, environment, files));
        }
        let timeout_mins = match body.get("timeout_mins") {
            None | Some(Value::Null) => None,
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
                Some(minutes(&number.to_string())?)
            }
            Some(Value::String(text)) => Some(minutes(text)?),
            Some(_) => return Err(bad_request("Only integer is acceptable by 'timeout_mins'.")),
        };
        let disable_rollback = match body.get("disable_rollback") {
            None | Some(Value::Null) => None,
            Some(value) => Some(boolean_of(value).ok_or_else(value_error)?),
        };
        let tags = match body.get("tags") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(tags(text)?),
            Some(_) => return Err(attribute_error()),
        };
        if adopted.is_some() && !context.settings.adopt_and_abandon {
            return Err(not_supported("Stack Adopt"));
        }
        let cleared = body["clear_parameters"].as_array().into_iter().flatten();
        let clear_parameters = cleared
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        Ok(Self {
            name: name.cloned().unwrap_or_default(),
            tags,
            timeout_mins,
            disable_rollback,
            clear_parameters,
            adopted: adopted.map(|data| data["resources"].clone()),
            ..Self::of(template, environment, files)
        })
    }

    fn of(template: Option<Template>, environment: Environment, files: Map<String, Value>) -> Self {
        Self {
            name: Value::Null,
            template,
            environment,
            files,
            tags: None,
            timeout_mins: None,
            disable_rollback: None,
            clear_parameters: Vec::new(),
            adopted: None,
        }
    }

    /// A stack's name: a letter, then at most 254 letters, digits, `_`, `-`, `.`.
    pub fn name(&self) -> Result<&str, Response> {
        let refused = |message: String| Fault::new("StackValidationFailed", message).to_response();
        let Some(name) = self.name.as_str() else {
            let shown = super::resource_types::repr(&self.name);
            return Err(refused(format!(
                "Invalid stack name {shown}, must be a string"
            )));
        };
        let mut chars = name.chars();
        let fine = chars.next().is_some_and(|c| c.is_ascii_alphabetic())
            && chars.all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
            && name.len() <= 255;
        match fine {
            true => Ok(name),
            false => Err(refused(format!(
                "Invalid stack name {name} must contain only alphanumeric or \"_-.\" characters, must start with alpha and must be 255 characters or less."
            ))),
        }
    }

    /// Sets the given members that are not part of the plan.
    pub fn apply_settings(&self, stack: &mut Stack) {
        if let Some(tags) = &self.tags {
            stack.tags = tags.clone();
        }
        if let Some(minutes) = self.timeout_mins {
            stack.timeout_mins = Some(minutes).filter(|minutes| *minutes > 0);
        }
        if let Some(disabled) = self.disable_rollback {
            stack.disable_rollback = disabled;
        }
    }

    /// Builds the plan of a new stack.
    pub fn plan(&self, place: RequestKind) -> Result<StackDefinition, Response> {
        self.plan_over(&StackDefinition::default(), place)
    }

    /// Builds the plan over the current one: a patch keeps what it does not mention.
    pub fn plan_over(
        &self,
        present: &StackDefinition,
        place: RequestKind,
    ) -> Result<StackDefinition, Response> {
        let patched = place == RequestKind::Patch;
        let template = match &self.template {
            Some(template) => template.clone(),
            None => present.template.clone(),
        };
        let mut environment = self.environment.clone();
        let mut files = self.files.clone();
        if patched {
            let merged = |old: &Map<String, Value>, new: &Map<String, Value>| {
                let mut both = old.clone();
                both.extend(new.clone());
                both
            };
            let old = &present.environment;
            environment = Environment {
                parameters: merged(&old.parameters, &environment.parameters),
                parameter_defaults: merged(
                    &old.parameter_defaults,
                    &environment.parameter_defaults,
                ),
                registry: merged(&old.registry, &environment.registry),
            };
            for name in &self.clear_parameters {
                environment.parameters.shift_remove(name);
            }
            files = merged(&present.files, &files);
        }
        let known = |kind: &str| files.contains_key(kind);
        template
            .check(&known)
            .map_err(|fault| fault.to_response())?;
        if template.resources().count() > MAX_RESOURCES {
            return Err(limit_exceeded("Maximum resources per stack exceeded."));
        }
        let parameters =
            Parameters::read(&template, &environment).map_err(|fault| fault.to_response())?;
        template
            .check_outputs()
            .map_err(|fault| fault.to_response())?;
        Ok(StackDefinition {
            template,
            environment,
            files,
            parameters,
        })
    }
}

/// Parses the output of `abandon` from text.
fn adoptable(text: &str) -> Result<Value, Response> {
    let wrong = |why: &str| bad_request(&format!("Invalid adopt data: {why}"));
    let data: Value = match serde_json::from_str(text) {
        Ok(data @ Value::Object(_)) => data,
        _ => return Err(wrong("The template is not a JSON object or YAML mapping.")),
    };
    match data.get("template") {
        Some(_) => Ok(data),
        None => Err(wrong("'template'")),
    }
}

/// Error for a template URL: the sandbox never fetches one.
fn template_url_error(url: &Value) -> Response {
    let url = url.as_str().unwrap_or_default();
    match url.split_once(':') {
        Some(("http" | "https", _)) => {
            bad_request("Could not retrieve template: Failed to retrieve template")
        }
        Some((scheme, _)) => bad_request(&format!(
            "Could not retrieve template: Invalid URL scheme {scheme}"
        )),
        None => bad_request("Could not retrieve template: Invalid URL scheme "),
    }
}

fn minutes(text: &str) -> Result<i64, Response> {
    let minutes = limit(text, "timeout_mins")?;
    i64::try_from(minutes).map_err(|_| malformed())
}

/// Maximum length of a tag.
const MAX_TAG_CHARS: usize = 80;

fn tags(text: &str) -> Result<Vec<String>, Response> {
    let tags: Vec<String> = text.split(',').map(|tag| tag.trim().to_owned()).collect();
    match tags.iter().find(|tag| tag.chars().count() > MAX_TAG_CHARS) {
        Some(long) => Err(bad_request(&format!(
            "Invalid tag, \"{long}\" is longer than {MAX_TAG_CHARS} characters"
        ))),
        None => Ok(tags),
    }
}

/// `POST /validate`: returns the template's parameters, or its error.
pub(super) fn validate(_: &mut super::Heat, context: &Context) -> Result<Response, Response> {
    let nested = super::boolean_parameter(context, "show_nested", ".")?.unwrap_or(false);
    let given = StackRequest::read(context, RequestKind::Validate)?;
    if let Some(codes) = context.request.parameter("ignore_errors")
        && codes.split(',').any(|code| code.trim() != "99001")
    {
        // Observed: the response is the exception, as Python prints it.
        return Ok(Response::ok(json!(
            "<HTTPBadRequest at 0x7f0000000000 400 Bad Request>"
        )));
    }
    let template = given.template.clone().unwrap_or_default();
    let known = |kind: &str| given.files.contains_key(kind);
    template
        .check(&known)
        .map_err(|fault| fault.to_validate_response())?;
    for (name, definition) in template.resources() {
        let kind = definition["type"].as_str().unwrap_or_default();
        let known = super::resource_types::properties(kind);
        let given = definition["properties"].as_object().into_iter().flatten();
        let unknown = given
            .map(|(property, _)| property)
            .find(|it| !known.contains_key(*it));
        if let Some(unknown) = unknown
            && super::resource_types::exists(kind)
            && kind != "OS::Heat::None"
        {
            return Err(bad_request(&format!(
                "Property error: resources.{name}.properties: Unknown Property {unknown}"
            )));
        }
    }
    let mut shown = described(&template, &given.environment);
    if nested && let Some(inner) = nested_parameters(&template, &given, 0) {
        shown["NestedParameters"] = inner;
    }
    shown["Environment"] = given.environment.show();
    Ok(Response::ok(shown))
}

fn described(template: &Template, environment: &Environment) -> Value {
    let mut shown = json!({
        "Description": template.description(),
        "Parameters": super::parameters::describe(template, environment),
    });
    if let Some(groups) = template.raw.get("parameter_groups") {
        shown["ParameterGroups"] = groups.clone();
    }
    shown
}

/// Describes the parameters of nested templates among the files.
fn nested_parameters(template: &Template, given: &StackRequest, depth: usize) -> Option<Value> {
    let mut found = Map::new();
    for (name, definition) in template.resources().filter(|_| depth < 5) {
        let kind = definition["type"].as_str().unwrap_or_default();
        let Some(Value::String(text)) = given.files.get(kind) else {
            continue;
        };
        let Ok(inner) = super::template::nested(text) else {
            continue;
        };
        let mut shown = described(&inner, &Environment::default());
        shown["Type"] = json!(kind);
        if let Some(more) = nested_parameters(&inner, given, depth + 1) {
            shown["NestedParameters"] = more;
        }
        found.insert(name.clone(), shown);
    }
    (!found.is_empty()).then_some(Value::Object(found))
}
