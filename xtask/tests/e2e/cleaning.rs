//! `registry clean` with a real registry, real git, and a kubectl that answers as clusters would.

use serde_json::{Value, json};

use crate::around::tool;
use crate::stage::{Done, Registry, Stage};

const CONFIG: &str = r#"
//- containers/tiny/default.nix
{ }
//- argocd/apps/one.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: one, namespace: argocd}
spec:
  source: {repoURL: x, path: argocd/manifests/one, targetRevision: main}
  destination: {server: "https://ringtail.example:6443", namespace: one}
//- argocd/manifests/one/kustomization.yaml
resources: [deployment.yaml]
images:
  - name: registry.example/blumeops/tiny
//- argocd/manifests/one/deployment.yaml
kind: Deployment
spec: {template: {spec: {containers: [{name: a, image: "registry.example/blumeops/tiny:kustomized"}]}}}
//- xtask/blumeops.toml
[registry]
host = "registry.example"
namespace = "blumeops"
[clusters.indri]
server = "https://indri.example:6443"
architecture = "arm64"
context = "minikube-indri"
[clusters.ringtail]
server = "https://ringtail.example:6443"
architecture = "amd64"
context = "k3s-ringtail"
"#;

const NAME: &str = "blumeops/tiny";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A stage whose registry removes what it is told to.
fn stage() -> Stage {
    tool("kubectl");
    let mut stage = Stage::of(CONFIG);
    stage.registry = Registry::start_with_storage("delete: {enabled: true}");
    stage
}

/// What a registry is told, by hand: blobs and manifests that no builder would make.
struct Pusher<'a>(&'a Registry);

impl Pusher<'_> {
    fn blob(&self, bytes: &str) -> String {
        let digest = digest(bytes);
        let start = ureq::post(format!("{}/v2/{NAME}/blobs/uploads/", self.0.url)).send_empty().unwrap();
        let location = start.headers()["location"].to_str().unwrap().to_owned();
        let mark = if location.contains('?') { '&' } else { '?' };
        ureq::put(format!("{location}{mark}digest={digest}")).send(bytes).unwrap();
        digest
    }

    fn put(&self, reference: &str, kind: &str, text: &str) -> String {
        let url = format!("{}/v2/{NAME}/manifests/{reference}", self.0.url);
        ureq::put(url).header("content-type", kind).send(text).unwrap();
        digest(text)
    }

    /// An image under a tag; the same content is the same digest.
    fn image(&self, tag: &str, content: &str) -> String {
        let config = format!("{{\"architecture\":\"amd64\",\"content\":\"{content}\"}}");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": self.blob(&config)},
        });
        let text = manifest.to_string();
        let digest = digest(&text);
        self.put(if tag.is_empty() { &digest } else { tag }, MANIFEST, &text)
    }

    fn index(&self, tag: &str, children: &[&str]) -> String {
        let child = |digest: &&str| {
            let size = self.0.get(&format!("/v2/{NAME}/manifests/{digest}")).len();
            json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": {"architecture": "amd64", "os": "linux"}})
        };
        let children: Vec<Value> = children.iter().map(child).collect();
        self.put(tag, INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).to_string())
    }
}

fn digest(text: &str) -> String {
    use sha2::Digest as _;
    format!("sha256:{:x}", sha2::Sha256::digest(text))
}

/// Runs with a stand-in of kubectl: `indri` and `ringtail` are what it answers for each cluster.
fn clean(stage: &Stage, (indri, ringtail): (&str, &str), args: &[&str]) -> Done {
    let script = format!("case \"$*\" in\n  *minikube-indri*) {indri} ;;\n  *k3s-ringtail*) {ringtail} ;;\nesac");
    stage.program("kubectl", &script);
    let mut command = stage.xtask(&[&["registry", "clean"], args].concat());
    command.env("PATH", stage.shadowed_path()).output().unwrap().into()
}

/// The answer of a cluster whose pods have these images, by name and by what its engine calls them.
fn pods(images: &[(&str, &str)]) -> String {
    let pod = |(image, id): &(&str, &str)| {
        json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"image": image}]},
            "status": {"containerStatuses": [{"image": image, "imageID": id}]}})
    };
    let items: Vec<Value> = images.iter().map(pod).collect();
    format!("echo '{}'", json!({"kind": "List", "items": items}))
}

fn unused(done: &Done) -> Vec<String> {
    let value: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}{}", done.stdout, done.stderr));
    let all = value["result"]["repositories"].as_array().unwrap().iter();
    let unused = all.flat_map(|one| one["unused"].as_array().unwrap().clone());
    unused.map(|one| one["digest"].as_str().unwrap().to_owned()).collect()
}

fn is_there(stage: &Stage, reference: &str) -> bool {
    let url = format!("{}/v2/{NAME}/manifests/{reference}", stage.registry.url);
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let accept = format!("{MANIFEST}, {INDEX}");
    agent.get(url).header("accept", accept).call().unwrap().status() == 200
}

fn pin(stage: &Stage, tag: &str, digest: &str) {
    let text = format!(
        "resources: [deployment.yaml]\nimages:\n  - name: registry.example/{NAME}\n    newTag: {tag}\n    digest: {digest}\n"
    );
    stage.write("argocd/manifests/one/kustomization.yaml", &text);
}

const IDLE: &str =
    "echo '{\"items\":[{\"kind\":\"Pod\",\"metadata\":{\"name\":\"dns\",\"namespace\":\"kube-system\"}}]}'";

#[test]
fn everybody_keeps_what_they_use_and_the_rest_goes() {
    let stage = stage();
    let push = Pusher(&stage.registry);
    // Twelve releases; the first two are one digest, and so are the third and the newest.
    let mut releases =
        vec![push.image("v1.0.0-nix", "a"), push.image("v1.1.0-nix", "a"), push.image("v1.2.0-nix", "z")];
    releases.extend((3..11).map(|n| push.image(&format!("v1.{n}.0-nix"), &format!("r{n}"))));
    releases.push(push.image("v1.11.0-nix", "z"));
    let (amd, arm) = (push.image("", "amd"), push.image("", "arm"));
    let index = push.index("v1.0.0", &[&amd, &arm]);
    push.image("v2.0.0", "newest of its kind");
    // Main has pinned 3, 4 and 5 in turn, a branch on the remote alone pins 6.
    for (n, digest) in releases.iter().enumerate().take(6).skip(3) {
        pin(&stage, &format!("v1.{n}.0-nix"), digest);
        stage.commit_and_push(&format!("pin {n}"));
    }
    stage.git(&["switch", "--quiet", "-c", "feature"]);
    pin(&stage, "v1.6.0-nix", &releases[6]);
    stage.commit("a branch");
    stage.git(&["push", "--quiet", "origin", "feature"]);
    stage.git(&["switch", "--quiet", "main"]);
    stage.git(&["branch", "--quiet", "-D", "feature"]);
    stage.git(&["update-ref", "-d", "refs/remotes/origin/feature"]);
    // A pod runs the eighth by tag through another door, one a part of the index by digest.
    let indri = pods(&[("10.0.0.1:5050/blumeops/tiny:v1.8.0-nix", "sha256:0")]);
    let ringtail = pods(&[("registry.example/blumeops/tiny", &format!("registry.example/blumeops/tiny@{arm}"))]);
    let before = stage.state();
    let refs = stage.git(&["for-each-ref"]);
    let args = ["--keep", "2", "--format", "json"];
    let done = clean(&stage, (&indri, &ringtail), &args).expect(0, &[]);
    // 0 and 1 are one digest; 2 is the newest; 3 is more than two pins ago; 10 is one of the last two.
    let mut expected = vec![releases[0].clone(), releases[3].clone(), releases[7].clone(), releases[9].clone()];
    expected.sort();
    let mut found = unused(&done);
    found.sort();
    assert_eq!(found, expected, "{}", done.stdout);
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    crate::reports::assert_documented("registry clean", &value["result"]);
    let commands = clean(&stage, (&indri, &ringtail), &["--keep", "2", "--dry-run"]).expect(0, &[]).stdout;
    assert_eq!(commands.lines().filter(|line| line.starts_with("curl --fail ")).count(), 4, "{commands}");
    let shown = clean(&stage, (&indri, &ringtail), &["--keep", "2", "--verbose"]).expect(0, &[]).stdout;
    for words in
        ["nothing was removed; --delete does", "v1.0.0-nix v1.1.0-nix", "of branch origin/feature", "Pod n/p in indri"]
    {
        assert!(shown.contains(words), "no «{words}» in {shown}");
    }
    assert_eq!(stage.state(), before, "nothing was changed");
    clean(&stage, (&indri, &ringtail), &["--keep", "2", "--delete"]).expect(0, &["4 manifests removed"]);
    for (n, digest) in releases.iter().enumerate() {
        assert_eq!(is_there(&stage, digest), ![0, 1, 3, 7, 9].contains(&n), "release {n}");
    }
    assert!(is_there(&stage, "v1.2.0-nix") && is_there(&stage, "v1.11.0-nix"));
    assert!([index, amd, arm].iter().all(|digest| is_there(&stage, digest)));
    let again = clean(&stage, (&indri, &ringtail), &["--keep", "2", "--delete"]).expect(0, &[]);
    assert!(again.stdout.contains("nothing uses 0\n"), "{}", again.stdout);
    assert_eq!(stage.git(&["for-each-ref"]), refs);
    stage.assert_nothing_runs();
}

#[test]
fn who_cannot_be_asked_stops_it_and_is_named() {
    let stage = stage();
    let push = Pusher(&stage.registry);
    (0..9).for_each(|n| drop(push.image(&format!("v1.{n}.0-nix"), &format!("r{n}"))));
    let before = stage.state();
    let refused = |answers: (&str, &str), words: &[&str]| {
        for args in [&[][..], &["--delete"], &["--dry-run"]] {
            clean(&stage, answers, args)
                .expect(2, &[&["nothing was judged", "the registry is as it was"], words].concat());
        }
        assert_eq!(stage.state(), before);
    };
    let down = "echo 'Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout' >&2; exit 1";
    refused((down, IDLE), &["indri could not be asked: the API server did not answer in time"]);
    refused((IDLE, "exit 3"), &["ringtail could not be asked: kubectl failed and gave no reason"]);
    refused((down, down), &["indri could not be asked", "ringtail could not be asked"]);
    refused((IDLE, "echo '{\"items\":[]}'"), &["ringtail could not be asked: it says that it runs no pod at all"]);
    refused((IDLE, "echo '{\"items\":[{\"kind\"'"), &["ringtail could not be asked: half an answer"]);
    let forge = stage.path("forge.git");
    std::fs::rename(&forge, stage.path("gone.git")).unwrap();
    for args in [&[][..], &["--delete"]] {
        clean(&stage, (IDLE, IDLE), args).expect(2, &["git could not be asked: origin does not answer"]);
    }
    std::fs::rename(stage.path("gone.git"), forge).unwrap();
    let config = stage.read("xtask/blumeops.toml");
    stage.write("xtask/blumeops.toml", &config.replace("context = \"k3s-ringtail\"\n", ""));
    clean(&stage, (IDLE, IDLE), &[]).expect(2, &["names no context for the cluster ringtail"]);
    stage.write("xtask/blumeops.toml", &config);
    crate::unnamed::kubeconfig(&stage, "https://another.example:6443");
    refused((IDLE, IDLE), &["the context k3s-ringtail leads to https://another.example:6443"]);
    std::fs::remove_file(stage.path("home/.kube/config")).unwrap();
    stage.git(&["switch", "--quiet", "-c", "broken"]);
    stage.write("argocd/manifests/one/kustomization.yaml", "images: [\n");
    stage.commit("broken");
    stage.git(&["switch", "--quiet", "main"]);
    clean(&stage, (IDLE, IDLE), &[]).expect(2, &["of branch broken can't be read, so what it pins is not known"]);
}

#[test]
fn a_registry_that_does_not_delete_says_so_and_keeps_all() {
    let mut stage = stage();
    stage.registry = Registry::start();
    let push = Pusher(&stage.registry);
    (0..9).for_each(|n| drop(push.image(&format!("v1.{n}.0-nix"), &format!("r{n}"))));
    clean(&stage, (IDLE, IDLE), &["--delete"]).expect(
        2,
        &["the registry answered 405: it removes nothing", "storage.delete.enabled", "0 of 4 manifests are removed"],
    );
    assert_eq!(stage.registry.tags(NAME).len(), 9);
    clean(&stage, (IDLE, IDLE), &["nothere"]).expect(1, &["nothing was judged: "]);
}
