//! What a client sees of the gateway: the services, rpcs and upstreams that the policy allows it.

use std::sync::Arc;

use drawbridge_transcoder::contract::GATEWAY_SERVICES;
use drawbridge_transcoder::json::wire::{self, Value};
use prost::Message as _;
use prost_types::SourceCodeInfo;

use crate::downstream::Identity;
use crate::policy::Policy;

/// Numbers in `google.protobuf.FileDescriptorProto`, `ServiceDescriptorProto` and
/// `MethodDescriptorProto`. Source: google/protobuf/descriptor.proto.
const PACKAGE: u32 = 2;
const SERVICE: u32 = 6;
const SOURCE_CODE_INFO: u32 = 9;
const NAME: u32 = 1;
const METHOD: u32 = 2;

/// What one client sees. An extension of requests; absent where clients may do everything.
#[derive(Clone, Debug)]
pub(super) struct Visibility {
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) policy: Arc<Policy>,
}

impl Visibility {
    /// Returns whether the client may use an rpc by this upstream or, without a name, by any.
    pub(super) fn method(&self, path: &str, upstream: Option<&str>) -> bool {
        self.policy
            .may_use(self.identity.as_deref(), path, upstream)
    }

    /// Returns whether the client may use a service. Those of gRPC itself and of the gateway are
    /// for all.
    pub(super) fn service(&self, service: &str) -> bool {
        let mut paths = self.policy.paths();
        GATEWAY_SERVICES.contains(&service)
            || paths.any(|path| is_of(path, service) && self.method(path, None))
    }

    /// Returns whether the client may see a symbol; only those of services and rpcs are hidden.
    pub(super) fn symbol(&self, symbol: &str) -> bool {
        if self.policy.paths().any(|path| is_of(path, symbol)) {
            return self.service(symbol);
        }
        let Some((service, method)) = symbol.rsplit_once('.') else {
            return true;
        };
        let path = format!("/{service}/{method}");
        !self.policy.has_method(&path) || self.method(&path, None)
    }

    /// Returns an encoded file without the services and rpcs that the client may not use; none if
    /// it cannot be read.
    pub(super) fn file(&self, encoded: &[u8]) -> Option<Vec<u8>> {
        let mut package = "";
        for item in wire::fields(encoded) {
            if let (PACKAGE, Value::Bytes(name)) = item.ok()? {
                package = std::str::from_utf8(name).ok()?;
            }
        }
        let mut out = Vec::with_capacity(encoded.len());
        // Of each service and rpc, its new index; none if it is hidden.
        let mut services: Vec<Option<NewIndices>> = Vec::new();
        let mut comments = None;
        let mut is_changed = false;
        for item in wire::fields(encoded) {
            match item.ok()? {
                (SERVICE, Value::Bytes(service)) => {
                    let kept = self.service_of_file(package, service)?;
                    is_changed |= kept.is_changed;
                    let index = services.iter().flatten().count() as i32;
                    services.push(kept.is_visible.then_some((index, kept.methods)));
                    if kept.is_visible {
                        wire::write_bytes(&mut out, SERVICE, &kept.encoded);
                    }
                }
                (SOURCE_CODE_INFO, Value::Bytes(info)) => comments = Some(info),
                (number, value) => wire::write_value(&mut out, number, value),
            }
        }
        if !is_changed {
            return Some(encoded.to_vec());
        }
        if let Some(info) = comments {
            let info = SourceCodeInfo::decode(info).ok()?;
            wire::write_bytes(
                &mut out,
                SOURCE_CODE_INFO,
                &moved(info, &services).encode_to_vec(),
            );
        }
        Some(out)
    }

    fn service_of_file(&self, package: &str, service: &[u8]) -> Option<KeptService> {
        let name = name(service)?;
        let full = match package {
            "" => name.to_owned(),
            package => format!("{package}.{name}"),
        };
        let is_own = GATEWAY_SERVICES.contains(&&*full) || full.starts_with("grpc.");
        let mut kept = KeptService {
            encoded: Vec::with_capacity(service.len()),
            methods: Vec::new(),
            is_visible: is_own,
            is_changed: false,
        };
        let mut index = 0;
        for item in wire::fields(service) {
            match item.ok()? {
                (METHOD, Value::Bytes(method)) => {
                    let path = format!("/{full}/{}", self::name(method)?);
                    let is_visible = is_own || self.method(&path, None);
                    kept.is_visible |= is_visible;
                    kept.is_changed |= !is_visible;
                    kept.methods.push(is_visible.then_some(index));
                    if is_visible {
                        index += 1;
                        wire::write_bytes(&mut kept.encoded, METHOD, method);
                    }
                }
                (number, value) => wire::write_value(&mut kept.encoded, number, value),
            }
        }
        // A service without an rpc cannot be used.
        kept.is_changed |= !kept.is_visible;
        Some(kept)
    }
}

/// The new index of a service, and those of its rpcs; none for those that are hidden.
type NewIndices = (i32, Vec<Option<i32>>);

/// A service of a file, without the rpcs that are hidden.
struct KeptService {
    encoded: Vec<u8>,
    methods: Vec<Option<i32>>,
    is_visible: bool,
    is_changed: bool,
}

/// Returns whether a gRPC path is that of an rpc of this service.
fn is_of(path: &str, service: &str) -> bool {
    let rest = path
        .strip_prefix('/')
        .and_then(|path| path.strip_prefix(service));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

fn name(message: &[u8]) -> Option<&str> {
    match wire::last(message, NAME) {
        Ok(Some(Value::Bytes(name))) => std::str::from_utf8(name).ok(),
        _ => None,
    }
}

/// Returns the comments of a file whose services and rpcs have these new indices.
fn moved(mut info: SourceCodeInfo, services: &[Option<NewIndices>]) -> SourceCodeInfo {
    let at = |index: i32| usize::try_from(index).unwrap_or(usize::MAX);
    info.location.retain_mut(|location| {
        let [field, service, rest @ ..] = &mut *location.path else {
            return true;
        };
        if *field != SERVICE as i32 {
            return true;
        }
        let Some(Some((index, methods))) = services.get(at(*service)) else {
            return false;
        };
        *service = *index;
        if let [field, method, ..] = rest
            && *field == METHOD as i32
        {
            let Some(Some(index)) = methods.get(at(*method)) else {
                return false;
            };
            *method = *index;
        }
        true
    });
    info
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;
    use prost_types::FileDescriptorProto;

    use super::*;
    use crate::policy::{Pattern, Rule, Subject, compile};

    const SERVICE_NAME: &str = "openstack.orchestration.v1.StackService";

    fn visibility(methods: &[&str]) -> Visibility {
        let contract = crate::contract::with_built_in(&[]).unwrap();
        let rule = Rule {
            name: String::new(),
            place: String::new(),
            identities: vec![Pattern::new("*")],
            upstreams: Vec::new(),
            services: Vec::new(),
            methods: methods.iter().map(|name| Pattern::new(name)).collect(),
            read_only: false,
            fields: Vec::new(),
        };
        let subject = Subject {
            methods: &contract.methods(),
            upstreams: &[],
        };
        Visibility {
            identity: Identity::parse("token:a").map(Arc::new),
            policy: Arc::new(compile(&[rule], subject).unwrap()),
        }
    }

    #[test]
    fn only_what_may_be_used_is_visible() {
        let some = visibility(&["GetStack", "WatchStack"]);
        for (symbol, want) in [
            (SERVICE_NAME, true),
            ("openstack.orchestration.v1.StackService.GetStack", true),
            ("openstack.orchestration.v1.StackService.DeleteStack", false),
            ("openstack.orchestration.v1.TemplateService", false),
            ("openstack.orchestration.v1.DeleteStackRequest", true),
            ("openstack.orchestration.v1.Stack", true),
            ("drawbridge.v1.GatewayService", true),
            ("grpc.health.v1.Health", true),
        ] {
            assert_eq!(some.symbol(symbol), want, "{symbol}");
        }
        assert!(some.service(SERVICE_NAME));
        assert!(!some.service("openstack.orchestration.v1.TemplateService"));
        assert!(some.service("drawbridge.v1.GatewayService"));
    }

    #[test]
    fn files_keep_options_and_comments_of_what_is_visible() {
        let pool = DescriptorPool::decode(crate::contract::BUILT_IN).unwrap();
        let file = pool
            .get_service_by_name(SERVICE_NAME)
            .unwrap()
            .parent_file();
        let encoded = file.encode_to_vec();
        let seen = visibility(&["GetStack", "WatchStack"])
            .file(&encoded)
            .unwrap();
        assert!(seen.len() < encoded.len());
        let comments = |file: &FileDescriptorProto| {
            let service = file
                .service
                .iter()
                .position(|s| s.name() == "StackService")
                .unwrap();
            let method = file.service[service].method.iter();
            let method = method
                .clone()
                .position(|m| m.name() == "WatchStack")
                .unwrap();
            let path = [6, service as i32, 2, method as i32];
            let info = file.source_code_info.as_ref().unwrap();
            let location = info.location.iter().find(|l| l.path == path).unwrap();
            location.leading_comments().to_owned()
        };
        let (before, after) = (
            FileDescriptorProto::decode(&*encoded).unwrap(),
            FileDescriptorProto::decode(&*seen).unwrap(),
        );
        assert!(!comments(&before).is_empty());
        assert_eq!(comments(&after), comments(&before));
        let methods = after.service[0].method.iter().map(|m| m.name());
        assert_eq!(methods.collect::<Vec<_>>(), ["GetStack", "WatchStack"]);
        let info = after.source_code_info.as_ref().unwrap();
        let deleted = info.location.iter().filter(|location| {
            let text = location.leading_comments();
            location.path.starts_with(&[6]) && text.contains("Deletes a stack")
        });
        assert_eq!(deleted.count(), 0);
        // The options are extensions, which decoding would lose.
        let at = seen.windows(18).any(|bytes| bytes == b"/v1/{project_id}/s");
        assert!(at, "the route of GetStack");
        let all = visibility(&["*"]).file(&encoded);
        assert_eq!(all.unwrap(), encoded);
    }
}
