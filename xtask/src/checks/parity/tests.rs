//! Small charts against small manifests: what is a difference, and what is none.

use super::*;
use crate::model::source::Source;
use crate::model::yaml;

fn objects(text: &str) -> Vec<Object> {
    let source = Source::new("t.yaml", text);
    let nodes = yaml::parse(&source).unwrap();
    nodes.into_iter().filter_map(|node| Object::of_template(node, "web", source.place(0, 0))).collect()
}

/// The lines of what differs between two texts of manifests.
fn lines(chart: &str, ours: &str) -> Vec<String> {
    let (chart, ours) = (objects(chart), objects(ours));
    let side = |objects| Side { objects, prefix: "web" };
    compare(side(&chart), side(&ours)).differences.iter().map(ToString::to_string).collect()
}

/// A Deployment called `name` with more in its container and its pod.
fn workload(name: &str, container: &str, pod: &str) -> String {
    format!(
        "---\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  template:\n    metadata: {{labels: {{component: server}}}}\n    spec:\n      containers: [{{name: a, args: [server]{container}}}]\n      {pod}\n"
    )
}

#[test]
fn what_is_written_otherwise_and_means_the_same_is_no_difference() {
    for (chart, ours) in [
        (workload("web-server", "", ""), workload("other", "", "")),
        (workload("a", ", env: [{name: X, value: '1'}]", ""), workload("a", ", env: [{name: X, value: \"1\"}]", "")),
        (
            workload("a", ", resources: {limits: {cpu: 1000m, memory: 1Gi}}", ""),
            workload("a", ", resources: {limits: {cpu: '1', memory: 1024Mi}, requests: {cpu: 1, memory: 1Gi}}", ""),
        ),
        (
            workload(
                "a",
                ", ports: [{name: http, containerPort: 80}], livenessProbe: {httpGet: {path: /, port: 80}}",
                "",
            ),
            workload(
                "a",
                ", ports: [{name: http, containerPort: 80, protocol: TCP}], livenessProbe: {httpGet: {path: /, port: http}, periodSeconds: 10}",
                "",
            ),
        ),
        (
            workload("a", ", securityContext: {runAsUser: 1, privileged: false}", ""),
            workload("a", "", "securityContext: {runAsUser: 1}"),
        ),
        (workload("a", "", "enableServiceLinks: true"), workload("a", "", "terminationGracePeriodSeconds: 30")),
        (workload("a", ", resources: {}, volumeMounts: []", "volumes: []"), workload("a", "", "")),
    ] {
        assert_eq!(lines(&chart, &ours), Vec::<String>::new(), "{chart}{ours}");
    }
}

#[test]
fn the_environment_is_what_the_container_gets() {
    let secret = "---\nkind: Secret\nmetadata: {name: conf}\ndata: {A: YQ==, B: Yg==, DB_PASSWORD: eA==}\n";
    let chart =
        secret.to_owned() + &workload("a", ", envFrom: [{secretRef: {name: conf}}], env: [{name: B, value: c}]", "");
    let same = "---\nkind: ExternalSecret\nmetadata: {name: x}\nspec: {target: {name: y, template: {data: {A: a, DB_PASSWORD: '{{ .p }}'}}}}\n";
    let ours = same.to_owned() + &workload("a", ", envFrom: [{secretRef: {name: y}}], env: [{name: B, value: c}]", "");
    assert_eq!(lines(&chart, &ours), Vec::<String>::new());
    let plain =
        workload("a", ", env: [{name: A, value: a}, {name: B, value: c}, {name: DB_PASSWORD, value: hunter2}]", "");
    assert_eq!(lines(&chart, &plain), ["server/env/DB_PASSWORD: (secret) -> (plain, not shown)"]);
    // One that the chart only names is ours.
    let named = workload("a", ", envFrom: [{secretRef: {name: y}}], env: [{name: B, value: c}]", "");
    assert_eq!(lines(&named, &ours), Vec::<String>::new());
    let unknown = workload("a", ", envFrom: [{secretRef: {name: z}}], env: [{name: B, value: c}]", "");
    assert_eq!(
        lines(&unknown, &workload("a", ", env: [{name: B, value: c}]", "")),
        ["server/env-from/z: Secret -> none"]
    );
}

#[test]
fn what_is_on_one_side_only_is_told_once() {
    let more = workload("a", "", "") + &workload("b", ", env: [{name: X, value: '1'}]", "").replace("server", "worker");
    assert_eq!(lines(&more, &workload("a", "", "")), ["worker: Deployment -> none"]);
    let map = "---\nkind: ConfigMap\nmetadata: {name: web-a}\ndata: {x: '1', y: '2'}\n";
    assert_eq!(
        lines(&workload("a", "", ""), &(map.to_owned() + &workload("a", "", ""))),
        ["ConfigMap/a: none -> ConfigMap"]
    );
    let other = map.replace("web-a", "a").replace("'2'", "'3'");
    let (left, right) = (map.to_owned() + &workload("a", "", ""), other + &workload("a", "", ""));
    assert_eq!(lines(&left, &right), ["ConfigMap/a/data.y: 2 -> 3"]);
    let side_car = workload("a", "", "").replace("[server]}", "[server]}, {name: helper, env: [{name: X}]}");
    assert_eq!(lines(&side_car, &workload("a", "", "")), ["server/container/helper: a container -> none"]);
}

#[test]
fn services_and_permissions_are_those_of_the_workload() {
    let service = |name: &str, port: u16, target: &str| {
        format!(
            "---\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{component: server}}, ports: [{{port: {port}, targetPort: {target}}}]}}\n"
        )
    };
    let web = workload("a", ", ports: [{name: http, containerPort: 8000}]", "");
    let one = service("x", 80, "http") + &service("y", 81, "http") + &web;
    let two = service("z", 80, "8000") + &service("z2", 81, "http") + &web;
    assert_eq!(lines(&one, &two), Vec::<String>::new());
    assert_eq!(lines(&one, &(service("x", 80, "http") + &web)), ["server/service/81: to http -> none"]);
    let roles = "---\nkind: Role\nmetadata: {name: r}\nrules: [{apiGroups: ['', apps], resources: [pods], verbs: [list, get]}]\n---\nkind: RoleBinding\nmetadata: {name: b}\nroleRef: {kind: Role, name: r}\nsubjects: [{kind: ServiceAccount, name: s}]\n";
    let account = workload("a", "", "serviceAccountName: s");
    assert_eq!(
        lines(&(roles.to_owned() + &account), &account),
        [
            "server/permission/namespace/apps/pods: get, list -> none",
            "server/permission/namespace/core/pods: get, list -> none"
        ]
    );
}

#[test]
fn what_was_accepted_and_has_changed_is_one_finding() {
    let (chart, ours) = (objects(&workload("a", "", "hostNetwork: true")), objects(&workload("a", "", "")));
    let side = |objects| Side { objects, prefix: "web" };
    let compared = compare(side(&chart), side(&ours));
    let judge = |accepted: &str| {
        let text = format!("[[accepted]]\nreason = \"so\"\ndifferences = [{accepted}]\n");
        let settings = Settings::parse(&Source::new("x.toml", &text)).unwrap();
        let place = Source::new("k.yaml", "").place(0, 0);
        let judged = super::judge(&compared.differences, &settings, ("x.toml", &place));
        judged.findings.iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    assert_eq!(judge(""), ["parity-pod"]);
    assert_eq!(judge("\"server/pod/hostNetwork: true -> none\""), Vec::<&str>::new());
    assert_eq!(judge("\"server/pod/hostNetwork: false -> none\""), ["parity-pod"]);
    assert_eq!(
        judge("\"server/pod/hostNetwork: true -> none\", \"server/pod/hostPID: true -> none\""),
        ["parity-accepted-unused"]
    );
}
