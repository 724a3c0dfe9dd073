//! `(drawbridge.v1.file).health_check`: the rpc that shows whether an upstream serves the API
//! of the file and accepts the credentials.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost_reflect::DescriptorPool;

use super::Method;
use super::diagnostics::{Diagnostics, Options};
use super::left_out::{LeftOut, LeftOutReason};
use crate::api::drawbridge::v1::FileRules;
use crate::call::Idempotency;
use crate::schema::Diagnostic;

const OPTION: &str = "(drawbridge.v1.file).health_check";

/// The health check that a file names.
pub(super) struct Named {
    file: String,
    package: String,
    family: String,
    rpc: String,
}

/// Returns the health checks that the files of a set name.
pub(super) fn named(pool: &DescriptorPool, options: &Options) -> Vec<Named> {
    pool.files()
        .filter_map(|file| {
            // An option that cannot be read is reported with the services of its file.
            let rules = options.read(&file.options(), "drawbridge.v1.file");
            let rules: FileRules = rules.ok().flatten()?;
            let package = file.package_name().to_owned();
            (!rules.health_check.is_empty()).then(|| Named {
                file: file.name().to_owned(),
                family: match &*rules.family {
                    "" => package.clone(),
                    family => family.to_owned(),
                },
                package,
                rpc: rules.health_check,
            })
        })
        .collect()
}

/// Returns the health check of each family that has one. Reports names of rpcs that cannot be
/// one, and families with several.
pub(super) fn compile(
    named: Vec<Named>,
    methods: &HashMap<Box<str>, Arc<Method>>,
    left_out: &BTreeMap<Box<str>, LeftOut>,
    all: &mut Vec<Diagnostic>,
) -> BTreeMap<Box<str>, Arc<Method>> {
    let mut found: BTreeMap<Box<str>, Arc<Method>> = BTreeMap::new();
    for Named {
        file,
        package,
        family,
        rpc,
    } in named
    {
        let mut diagnostics = Diagnostics {
            element: file.clone(),
            file,
            all,
        };
        let path = match package.is_empty() {
            true => format!("/{}", rpc.replacen('.', "/", 1)),
            false => format!("/{package}.{}", rpc.replacen('.', "/", 1)),
        };
        let Some(method) = methods.get(&*path) else {
            let rpc_left_out = left_out.get(&*path);
            if rpc_left_out.is_some_and(|rpc| rpc.reason == LeftOutReason::NotSelected) {
                continue;
            }
            let problem = format!(
                "`{rpc}` is not an rpc of the package {package}, or is itself invalid: write \
                 `Service.Rpc`"
            );
            diagnostics.report(OPTION, problem);
            continue;
        };
        if let Err(problem) = check(method, &family) {
            diagnostics.report(OPTION, format!("`{rpc}` {problem}"));
        } else if let Some(other) = found.get(&*family) {
            // Several sets can contain the file.
            if other.path == method.path {
                continue;
            }
            let problem = format!(
                "the family {family} has the health check {} already: remove one",
                &other.path[1..]
            );
            diagnostics.report(OPTION, problem);
        } else {
            found.insert(family.into(), method.clone());
        }
    }
    found
}

/// Returns why the gateway cannot call the rpc at any time, with an empty request.
fn check(method: &Method, family: &str) -> Result<(), String> {
    let is_read = match method.idempotency {
        Idempotency::NoSideEffects => true,
        Idempotency::Idempotent => matches!(method.verb.as_str(), "GET" | "HEAD"),
        Idempotency::NonIdempotent => false,
    };
    if *method.family != *family {
        return Err(format!("is an rpc of the family {}", method.family));
    }
    if method.is_stream() || method.upload.is_some() || method.action.is_some() {
        return Err("is not one call: name a unary rpc".to_owned());
    }
    if !is_read {
        return Err(format!(
            "is a {} that may change something: name a read, with the idempotency_level \
             NO_SIDE_EFFECTS",
            method.verb
        ));
    }
    if method.anonymous {
        return Err("sends no credential: name an rpc that needs it".to_owned());
    }
    method
        .bind(b"", "")
        .map(|_| ())
        .map_err(|error| format!("must have no required field: {error}"))
}
