//! `drawbridge describe`: prints a service, an rpc, a message or an enum of a running gateway as
//! proto text with comments.

use std::fmt::Write as _;

use clap::Args;
use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, ServiceDescriptor,
};
use serde_json::{Map, Value, json};

use super::client::failure::Failure;
use super::client::gateway::Gateway;
use super::client::names::{self, Found};
use super::client::options::ConnectionOptions;
use super::client::reflection::Api;
use super::client::rules::{self, MethodKind};
use super::client::text::sanitize;
use super::client::{comments, exit_code, variable};

/// Arguments of `drawbridge describe`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  drawbridge describe StackService
  drawbridge describe StackService/GetStack
  drawbridge describe Stack
  drawbridge describe drawbridge.v1.WatchEventType

Exit codes: 0 described, 1 the gateway responded an error, 2 no such symbol, or no gateway, \
130 Ctrl-C.")]
pub struct Options {
    /// A service, an rpc, a message, an enum or a field; leading parts of the name may be left
    /// out where that is unambiguous.
    #[arg(value_name = "SYMBOL")]
    symbol: String,
    #[command(flatten)]
    connection: ConnectionOptions,
}

/// Prints the description, and returns the exit code.
pub async fn run(options: &Options) -> u8 {
    tokio::select! {
        result = describe(options) => match result {
            Ok(text) => {
                super::print_text(&text);
                exit_code::SUCCEEDED
            }
            Err(failure) => {
                failure.print();
                failure.code
            }
        },
        _ = tokio::signal::ctrl_c() => exit_code::INTERRUPTED,
    }
}

async fn describe(options: &Options) -> Result<String, Failure> {
    names::check(&options.symbol)?;
    let gateway = Gateway::connect(&options.connection, &variable).await;
    let gateway = gateway.map_err(Failure::unknown)?;
    let api = Api::load(&gateway, None).await?;
    let symbols = symbols(&api);
    let names: Vec<&str> = symbols.iter().map(|(name, _)| &**name).collect();
    let wanted = &options.symbol;
    match names::find(wanted, &names) {
        Found::One(index) => Ok(symbols[index].1.text()),
        Found::Several(several) => Err(Failure::unknown(names::ambiguous(wanted, &several))),
        Found::None(_) => {
            let is_field = |symbol: &Symbol| matches!(symbol, Symbol::Field(_));
            // Of fields there are thousands.
            let known = symbols.iter().filter(|(_, symbol)| !is_field(symbol));
            let known: Vec<&str> = known.map(|(name, _)| &**name).collect();
            let similar = names::similar(wanted, &known);
            let similar: Vec<&str> = similar
                .into_iter()
                .map(|name| names::shortened(name, &names))
                .collect();
            let hint = names::did_you_mean(&similar);
            let name = sanitize(wanted);
            Err(Failure::unknown(match hint.is_empty() {
                true => format!("no symbol {name}; `drawbridge ls` lists the services"),
                false => format!("no symbol {name}{hint}"),
            }))
        }
    }
}

/// What can be described.
enum Symbol {
    Service(ServiceDescriptor),
    Method(MethodDescriptor),
    Message(MessageDescriptor),
    Enum(EnumDescriptor),
    Field(FieldDescriptor),
}

/// Returns all symbols with their full names: services, rpcs and types before fields, which are
/// found only by the name of their message.
fn symbols(api: &Api) -> Vec<(String, Symbol)> {
    let mut symbols = Vec::new();
    for service in api.services() {
        symbols.push((
            service.full_name().to_owned(),
            Symbol::Service(service.clone()),
        ));
        for method in service.methods() {
            symbols.push((names::full_name(&method), Symbol::Method(method)));
        }
    }
    for message in api.pool().all_messages() {
        if message.is_map_entry() {
            continue;
        }
        for field in message.fields() {
            let symbol = Symbol::Field(field.clone());
            symbols.push((field.full_name().to_owned(), symbol));
        }
        symbols.push((message.full_name().to_owned(), Symbol::Message(message)));
    }
    for kind in api.pool().all_enums() {
        symbols.push((kind.full_name().to_owned(), Symbol::Enum(kind)));
    }
    symbols
}

impl Symbol {
    fn text(&self) -> String {
        let mut out = Proto::default();
        match self {
            Self::Service(service) => out.service(service),
            Self::Method(method) => {
                out.line(&format!("package {};", method.parent_file().package_name()));
                out.text.push('\n');
                out.method(method);
                for message in [method.input(), method.output()] {
                    if !message.full_name().starts_with("google.") {
                        out.text.push('\n');
                        out.message(&message);
                    }
                }
                out.text += &format!("\nExample:\n  {}\n", example(method));
            }
            Self::Message(message) => {
                out.line(&format!("package {};", message.package_name()));
                out.text.push('\n');
                out.message(message);
            }
            Self::Enum(kind) => {
                out.line(&format!("package {};", kind.package_name()));
                out.text.push('\n');
                out.enumeration(kind);
            }
            Self::Field(field) => {
                out.line(&format!("message {}:", field.parent_message().full_name()));
                out.text.push('\n');
                out.field(field);
            }
        }
        out.text
    }
}

/// Proto text.
#[derive(Default)]
struct Proto {
    text: String,
    depth: usize,
}

impl Proto {
    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{:1$}{line}", "", self.depth * 2);
    }

    fn comment(&mut self, file: &FileDescriptor, path: &[i32]) {
        for line in comments::of(file, path).lines() {
            self.line(format!("// {line}").trim_end());
        }
    }

    fn service(&mut self, service: &ServiceDescriptor) {
        self.line(&format!("package {};", service.package_name()));
        self.text.push('\n');
        self.comment(&service.parent_file(), service.path());
        self.line(&format!("service {} {{", service.name()));
        self.depth += 1;
        for (number, method) in service.methods().enumerate() {
            if number > 0 {
                self.text.push('\n');
            }
            self.method(&method);
        }
        self.depth -= 1;
        self.line("}");
    }

    fn method(&mut self, method: &MethodDescriptor) {
        self.comment(&method.parent_file(), method.path());
        let stream = |is_stream| if is_stream { "stream " } else { "" };
        let package = method.parent_file().package_name().to_owned();
        let start = format!(
            "rpc {}({}{}) returns ({}{})",
            method.name(),
            stream(method.is_client_streaming()),
            relative(&package, method.input().full_name()),
            stream(method.is_server_streaming()),
            relative(&package, method.output().full_name()),
        );
        match rules::route(method) {
            Some(route) => self.line(&format!("{start};  // {route}")),
            None => self.line(&format!("{start};")),
        }
    }

    fn message(&mut self, message: &MessageDescriptor) {
        self.comment(&message.parent_file(), message.path());
        if message.fields().len() == 0 {
            self.line(&format!("message {} {{}}", message.name()));
            return;
        }
        self.line(&format!("message {} {{", message.name()));
        self.depth += 1;
        let mut oneofs = Vec::new();
        for field in message.fields() {
            let oneof = field
                .containing_oneof()
                .filter(|oneof| !oneof.is_synthetic());
            match oneof {
                None => self.field(&field),
                Some(oneof) if oneofs.contains(&oneof) => {}
                Some(oneof) => {
                    self.comment(&message.parent_file(), oneof.path());
                    self.line(&format!("oneof {} {{", oneof.name()));
                    self.depth += 1;
                    for field in oneof.fields() {
                        self.field(&field);
                    }
                    self.depth -= 1;
                    self.line("}");
                    oneofs.push(oneof);
                }
            }
        }
        for nested in message
            .child_messages()
            .filter(|nested| !nested.is_map_entry())
        {
            self.text.push('\n');
            self.message(&nested);
        }
        for nested in message.child_enums() {
            self.text.push('\n');
            self.enumeration(&nested);
        }
        self.depth -= 1;
        self.line("}");
    }

    fn field(&mut self, field: &FieldDescriptor) {
        self.comment(&field.parent_file(), field.path());
        let package = field.parent_message().package_name().to_owned();
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => format!(
                "map<{}, {}>",
                type_name(&package, &entry.map_entry_key_field().kind()),
                type_name(&package, &entry.map_entry_value_field().kind())
            ),
            kind => type_name(&package, &kind),
        };
        let is_optional = field
            .containing_oneof()
            .is_some_and(|oneof| oneof.is_synthetic());
        let label = match field.cardinality() {
            Cardinality::Repeated if !field.is_map() => "repeated ",
            Cardinality::Required => "required ",
            _ if is_optional => "optional ",
            _ => "",
        };
        let behaviors = rules::behaviors(field);
        let options: Vec<String> = behaviors
            .iter()
            .map(|name| format!("(google.api.field_behavior) = {name}"))
            .collect();
        let options = match options.is_empty() {
            true => String::new(),
            false => format!(" [{}]", options.join(", ")),
        };
        let (name, number) = (field.name(), field.number());
        self.line(&format!("{label}{kind} {name} = {number}{options};"));
    }

    fn enumeration(&mut self, kind: &EnumDescriptor) {
        self.comment(&kind.parent_file(), kind.path());
        self.line(&format!("enum {} {{", kind.name()));
        self.depth += 1;
        for value in kind.values() {
            self.comment(&value.parent_file(), value.path());
            self.line(&format!("{} = {};", value.name(), value.number()));
        }
        self.depth -= 1;
        self.line("}");
    }
}

/// Returns the name of a type as a file of this package writes it.
fn relative<'n>(package: &str, name: &'n str) -> &'n str {
    let rest = name.strip_prefix(package);
    rest.and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
}

fn type_name(package: &str, kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => relative(package, message.full_name()).to_owned(),
        Kind::Enum(kind) => relative(package, kind.full_name()).to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    }
}

/// Returns a call of the rpc with its required fields, or else with the first field that is in
/// the path and has no default.
fn example(method: &MethodDescriptor) -> String {
    let input = method.input();
    let is_required = |field: &FieldDescriptor| {
        let behaviors = rules::behaviors(field);
        behaviors.iter().any(|name| name == "REQUIRED")
    };
    let route = rules::route(method).unwrap_or_default();
    let is_in_path = |field: &FieldDescriptor| {
        field.name() != "project_id" && route.contains(&format!("{{{}}}", field.name()))
    };
    let mut fields: Vec<FieldDescriptor> = input.fields().filter(is_required).collect();
    if fields.is_empty() {
        fields.extend(input.fields().find(is_in_path));
    }
    let members: Map<String, Value> = fields
        .iter()
        .map(|field| (field.name().to_owned(), placeholder(field)))
        .collect();
    let name = names::short_name(method);
    let verb = match MethodKind::of(method) {
        MethodKind::Watch => "watch",
        _ => "call",
    };
    let file = match MethodKind::of(method) {
        MethodKind::Upload => " --data-file FILE",
        MethodKind::Download => " -o FILE",
        // As pasted it must not block.
        _ if !rules::ends(method) => " --timeout 30s",
        _ => "",
    };
    match members.is_empty() {
        true => format!("drawbridge {verb} {name}{file}"),
        false => format!(
            "drawbridge {verb} {name} '{}'{file}",
            Value::Object(members)
        ),
    }
}

/// Returns a value of the type of a field.
fn placeholder(field: &FieldDescriptor) -> Value {
    if field.is_map() {
        return json!({});
    }
    if field.is_list() {
        return json!([]);
    }
    match field.kind() {
        Kind::Message(_) => json!({}),
        Kind::Enum(kind) => {
            let value = kind.values().find(|value| value.number() != 0);
            json!(value.map_or(String::new(), |value| value.name().to_owned()))
        }
        Kind::String => json!("..."),
        Kind::Bytes => json!(""),
        Kind::Bool => json!(true),
        _ => json!(1),
    }
}
