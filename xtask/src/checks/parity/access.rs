//! What a workload may do through the API server, whatever the roles that allow it are called.

use std::collections::{BTreeMap, BTreeSet};

use super::{PERMISSION, Sheet, Side};
use crate::model::source::Place;
use crate::model::world::{Object, Ref};

/// Kinds that say who may do what.
pub(super) const KINDS: [&str; 5] = ["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];

pub(super) fn add(sheet: &mut Sheet, side: Side<'_>, workload: &Object, role: &str) {
    let Some(pod) = workload.pod_template().and_then(|pod| pod.get("spec")) else { return };
    let account = account(workload);
    let own = side.of_kind("ServiceAccount").find(|object| object.name == account);
    let named = pod.get("serviceAccountName").unwrap_or(pod).place();
    let whose = if account == "default" { "the namespace's default" } else { "one of its own" };
    sheet.add(PERMISSION, (role, "permission/account"), whose, named.clone());
    let said = pod.get("automountServiceAccountToken");
    let said = said.or_else(|| own.and_then(|own| own.at(&["automountServiceAccountToken"])));
    let token = if said.and_then(Ref::text) == Some("false") { "not mounted" } else { "mounted" };
    sheet.add(PERMISSION, (role, "permission/token"), token, said.map_or(named, Ref::place));
    for (path, (verbs, place)) in granted(side, workload, account) {
        let verbs = verbs.into_iter().collect::<Vec<_>>().join(", ");
        sheet.add(PERMISSION, (role, &format!("permission/{path}")), verbs, place);
    }
}

/// The name of its service account.
pub(super) fn account(workload: &Object) -> &str {
    let pod = workload.pod_template().and_then(|pod| pod.get("spec"));
    pod.and_then(|pod| pod.text_at(&["serviceAccountName"])).unwrap_or("default")
}

/// The bindings that mean an account.
pub(super) fn bindings<'a>(side: Side<'a>, namespace: &'a str, account: &'a str) -> impl Iterator<Item = &'a Object> {
    let is_meant = move |subject: Ref<'_>| {
        let text = |key: &str| subject.text_at(&[key]);
        text("kind") == Some("ServiceAccount")
            && text("name") == Some(account)
            && text("namespace").is_none_or(|other| other == namespace)
    };
    let all = side.of_kind("RoleBinding").chain(side.of_kind("ClusterRoleBinding"));
    all.filter(move |binding| binding.root().list(&["subjects"]).into_iter().any(is_meant))
}

/// The role that a binding gives, if this side has it.
pub(super) fn role_of<'a>(side: Side<'a>, binding: &Object) -> Option<&'a Object> {
    let text = |key: &str| binding.at(&["roleRef", key]).and_then(Ref::text);
    let (kind, name) = (text("kind"), text("name"));
    side.objects.iter().find(|object| Some(object.kind.as_str()) == kind && Some(object.name.as_str()) == name)
}

/// Scope, group and resource to the verbs that are allowed.
fn granted(side: Side<'_>, workload: &Object, account: &str) -> BTreeMap<String, (BTreeSet<String>, Place)> {
    let mut all = BTreeMap::<String, (BTreeSet<String>, Place)>::new();
    for binding in bindings(side, &workload.namespace, account) {
        let scope = if binding.kind == "RoleBinding" { "namespace" } else { "cluster" };
        let Some(role) = role_of(side, binding) else {
            let name = binding.at(&["roleRef", "name"]).and_then(Ref::text).unwrap_or("?");
            let bound = (BTreeSet::from(["bound".to_owned()]), binding.place());
            all.insert(format!("{scope}/role {name}"), bound);
            continue;
        };
        for rule in role.root().list(&["rules"]) {
            let texts = |key: &str| -> Vec<String> {
                rule.list(&[key]).into_iter().filter_map(Ref::text).map(str::to_owned).collect()
            };
            let only = texts("resourceNames");
            let only = if only.is_empty() { String::new() } else { format!(" {}", only.join(" ")) };
            let group = |group: &String| if group.is_empty() { "core".to_owned() } else { group.clone() };
            let groups: Vec<String> = texts("apiGroups").iter().map(group).collect();
            let mut paths = texts("nonResourceURLs");
            for resource in texts("resources") {
                paths.extend(groups.iter().map(|group| format!("{group}/{resource}{only}")));
            }
            for path in paths {
                let entry = all.entry(format!("{scope}/{path}"));
                entry.or_insert_with(|| (BTreeSet::new(), rule.place())).0.extend(texts("verbs"));
            }
        }
    }
    all
}
