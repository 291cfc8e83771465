//! Services by the ports behind them, and every object that nothing else accounts for.

use super::{OBJECT, SERVICE, Sheet, Side, access, env, pairs, pod};
use crate::model::world::{Object, Ref};

/// The ports that Services lead to a workload, whatever the Services are called and however many they are.
pub(super) fn add_services(sheet: &mut Sheet, side: Side<'_>, workload: &Object, role: &str) {
    let containers = workload.pod_template().and_then(|pod| pod.get("spec"));
    let containers = containers.map_or_else(Vec::new, |spec| spec.list(&["containers"]));
    let main = pairs::main_container(&containers, role);
    for service in side.of_kind("Service").filter(|service| service.selects(workload)) {
        let kind = service.at(&["spec", "type"]).and_then(Ref::text).filter(|kind| *kind != "ClusterIP");
        let is_headless = service.at(&["spec", "clusterIP"]).and_then(Ref::text) == Some("None");
        let kind = kind.or(is_headless.then_some("headless"));
        for port in service.root().list(&["spec", "ports"]) {
            let number = port.text_at(&["port"]).unwrap_or_default();
            let target = port.text_at(&["targetPort"]).unwrap_or(number);
            let target = main.map_or(target, |main| pod::port_name(main, target));
            let protocol = port.text_at(&["protocol"]).filter(|protocol| *protocol != "TCP");
            let more: String = [protocol, kind].into_iter().flatten().flat_map(|word| [", ", word]).collect();
            sheet.add(SERVICE, (role, &format!("service/{number}")), format!("to {target}{more}"), port.place());
        }
    }
}

/// Objects that are no workload and belong to none.
pub(super) fn add_rest(sheet: &mut Sheet, side: Side<'_>) {
    let sources = env::sources(side);
    for object in side.objects.iter().filter(|object| !is_accounted_for(side, object, &sources)) {
        let (kind, name) = identity(object);
        let path = format!("{kind}/{}", side.own_name(name));
        sheet.add(OBJECT, ("", &path), &*object.kind, object.place());
        for (key, field) in object.root().entries() {
            match key {
                "apiVersion" | "kind" | "metadata" | "status" => {}
                _ if kind == "Secret" => add_names(sheet, &path, key, field),
                _ => add_fields(sheet, &path, key, field),
            }
        }
    }
}

/// An `ExternalSecret` is the Secret that it makes.
fn identity(object: &Object) -> (&str, &str) {
    match object.kind.as_str() {
        "ExternalSecret" => ("Secret", object.secret_name()),
        kind => (kind, &object.name),
    }
}

fn is_accounted_for(side: Side<'_>, object: &Object, sources: &[(&'static str, String)]) -> bool {
    let workloads = side.workloads();
    match object.kind.as_str() {
        _ if object.pod_template().is_some() => true,
        "Service" => workloads.iter().any(|workload| object.selects(workload)),
        "Secret" | "ExternalSecret" | "ConfigMap" => {
            let (kind, name) = identity(object);
            sources.iter().any(|(other, source)| *other == kind && source == name)
        }
        kind if access::KINDS.contains(&kind) => workloads.iter().any(|workload| {
            let account = access::account(workload);
            let mut bindings = access::bindings(side, &workload.namespace, account);
            let is_same = |other: &Object| std::ptr::eq(other, object);
            (kind == "ServiceAccount" && object.name == account)
                || bindings.any(|binding| is_same(binding) || access::role_of(side, binding).is_some_and(is_same))
        }),
        _ => false,
    }
}

/// Every value of an object that both sides have.
fn add_fields(sheet: &mut Sheet, parent: &str, path: &str, field: Ref<'_>) {
    let entries = field.entries();
    if entries.is_empty() {
        sheet.add(OBJECT, (parent, path), pod::value(field), field.place());
    }
    for (key, inner) in entries {
        add_fields(sheet, parent, &format!("{path}.{key}"), inner);
    }
}

/// The keys of a Secret; what is under them is nobody's business.
fn add_names(sheet: &mut Sheet, parent: &str, key: &str, field: Ref<'_>) {
    if matches!(key, "data" | "stringData") {
        for (name, value) in field.entries() {
            sheet.add(OBJECT, (parent, &format!("key/{name}")), "(secret)", value.place());
        }
    }
}
