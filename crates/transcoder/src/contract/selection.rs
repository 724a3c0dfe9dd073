//! Selects the rpcs of a descriptor set that are served.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_reflect::ServiceDescriptor;
use prost_types::FileDescriptorSet;

use super::GATEWAY_SERVICES;

/// Which rpcs of a descriptor set are served. An entry is the full name of an rpc, a service
/// or a package: `acme.v1.Orders.GetOrder` or `acme.v1.Orders/GetOrder`, `acme.v1.Orders`,
/// `acme.v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The rpcs to serve. Empty: all.
    pub include: Vec<String>,
    /// The rpcs to leave out, of those that `include` selects.
    pub exclude: Vec<String>,
}

impl Selection {
    /// Returns whether the rpc of this full name is served.
    pub(super) fn selects(&self, rpc: &str) -> bool {
        let in_any = |entries: &[String]| entries.iter().any(|entry| covers(entry, rpc));
        (self.include.is_empty() || in_any(&self.include)) && !in_any(&self.exclude)
    }

    /// Returns whether `include` has the rpc itself.
    pub(super) fn names(&self, rpc: &str) -> bool {
        self.include.iter().any(|entry| same(entry, rpc))
    }
}

/// Returns whether the gateway implements the service itself.
pub(super) fn is_own(service: &ServiceDescriptor) -> bool {
    GATEWAY_SERVICES.contains(&service.full_name())
}

/// Returns whether an entry is this element, or contains it.
pub(super) fn covers(entry: &str, element: &str) -> bool {
    let inner = element
        .get(..entry.len())
        .is_some_and(|start| same(entry, start));
    inner && (element.len() == entry.len() || element[entry.len()..].starts_with('.'))
}

/// Returns whether an entry is this element.
pub(super) fn same(entry: &str, element: &str) -> bool {
    entry.len() == element.len()
        && entry
            .bytes()
            .zip(element.bytes())
            .all(|(a, b)| a == b || (a, b) == (b'/', b'.'))
}

/// Returns the names that the entries of a [`Selection`] can have: all packages, services and
/// rpcs of an encoded descriptor set. None for bytes that are not a descriptor set.
pub fn selectable(descriptor_set: &[u8]) -> Option<BTreeSet<String>> {
    let set = FileDescriptorSet::decode(descriptor_set).ok()?;
    let mut names = BTreeSet::new();
    for file in &set.file {
        let package = file.package();
        for service in &file.service {
            let full_name = match package {
                "" => service.name().to_owned(),
                package => format!("{package}.{}", service.name()),
            };
            for rpc in &service.method {
                names.insert(format!("{full_name}.{}", rpc.name()));
            }
            names.insert(full_name);
            // A package and those that contain it.
            let ends = package.match_indices('.').map(|(at, _)| at);
            for end in ends.chain([package.len()]).filter(|end| *end > 0) {
                names.insert(package[..end].to_owned());
            }
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_select_packages_services_and_rpcs() {
        for (include, exclude, want) in [
            (&[][..], &[][..], true),
            (&["a.v1.S.Get"], &[], true),
            (&["a.v1.S/Get"], &[], true),
            (&["a.v1.S"], &[], true),
            (&["a.v1"], &[], true),
            (&["a"], &[], true),
            (&["b", "a.v1.S.Get"], &[], true),
            (&["a.v1.S.Ge"], &[], false),
            (&["a.v1.S.GetAll"], &[], false),
            (&["a.v"], &[], false),
            (&["S.Get"], &[], false),
            (&["a/v1.S.Get"], &[], true),
            (&[], &["a.v1.S.Get"], false),
            (&[], &["a.v1.S"], false),
            (&[], &["a.v1.T"], true),
            (&["a.v1.S"], &["a.v1.S/Get"], false),
            (&["a.v1.S.Get"], &["a.v1"], false),
        ] {
            let owned = |entries: &[&str]| entries.iter().map(|e| (*e).to_owned()).collect();
            let selection = Selection {
                include: owned(include),
                exclude: owned(exclude),
            };
            assert_eq!(selection.selects("a.v1.S.Get"), want, "{selection:?}");
        }
        assert!(!covers("aé", "a.v1"), "not at a character boundary");
    }
}
