//! What programs and servers say.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::model::expectation::{Answer, Ask};
use crate::model::image::{Declared, ImageConfig, RunConfig};
use crate::model::parity::Settings;
use crate::model::secret::Secret;
use crate::model::source::Source;
use crate::model::{image, pods};
use crate::probes::web::Response;
use crate::probes::{certificate, container, flow, remote, scrapes, web};
use crate::tools::{ansible, argocd, catalog, docker_tools, engine, git, helm, kubectl, kustomize, nix, op};

pub(crate) fn text(text: &str) {
    of_git(text);
    of_nix(text);
    of_kubectl(text);
    of_others(text);
    of_servers(text);
}

fn of_git(text: &str) {
    assert!(git::parse_status(text).iter().chain(&git::parse_names(text)).all(|path| text.contains(path.as_str())));
    assert!(git::parse_names(text).iter().all(|name| !name.is_empty() && !name.contains('\0')));
    for (tag, object) in git::parse_local_tags(text).into_iter().chain(git::parse_ls_remote(text).tags) {
        assert!(text.contains(&format!("refs/tags/{tag}")) && text.contains(&object));
    }
    for (branch, object) in git::parse_heads(text) {
        assert!(text.contains(&format!("{object}\trefs/heads/{branch}")));
    }
    for (path, content) in git::parse_history(text) {
        assert!(text.contains(&format!("+++ b/{path}")) && (content.is_empty() || content.ends_with('\n')));
    }
    // Where in its file a change is does not matter.
    assert_eq!(git::changes(&format!("@@ -1 +1 @@\n{text}")), git::changes(text));
    let _: bool = git::all_are_there(text);
}

fn of_nix(text: &str) {
    let root = Path::new("/r");
    for input in nix::parse_inputs(text, root) {
        assert!(text.contains(&input) && !input.starts_with('/'));
    }
    assert!(nix::without_talk(text).iter().all(|line| text.contains(line.as_str())));
    assert!(nix::parse_store_path(text).is_none_or(|path| text.trim() == path));
    assert!(nix::parse_failed_derivation(text).is_none_or(|path| !path.contains('\'')));
    drop(text.lines().map(nix::parse_progress).collect::<Vec<_>>());
    drop(serde_json::from_str::<Declared>(text));
    if let Ok(Some(layered)) = docker_tools::Layered::parse(text) {
        let digests = vec![crate::model::digest::Digest::of(b""); layered.comments().len()];
        let bytes = layered.configuration(&digests).expect("as many digests as layers");
        let named = image::layers(&bytes).expect("a configuration");
        assert!(named.iter().zip(&layered.comments()).all(|(layer, comment)| layer.comment == *comment));
        assert_eq!(named.len(), digests.len());
    }
}

fn of_kubectl(text: &str) {
    let reasons = kubectl::reasons(text);
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| !reason.trim().is_empty()));
    let _: bool = reasons.iter().any(|reason| kubectl::concerns_all(reason));
    assert!(!kubectl::reason(text).is_empty());
    let kinds = kubectl::unknown_kinds(text);
    assert!(kinds.iter().all(|(version, kind)| text.contains(version) && text.contains(kind)));
    let objects = kubectl::parse_objects(text);
    if let (Ok(list), Ok(objects)) = (kubectl::parse_list(text), &objects) {
        assert_eq!(&list, objects);
    }
    drop((kubectl::parse_secret(text, "a").map_err(drop).is_ok(), pods::parse(text)));
}

fn of_others(text: &str) {
    drop((argocd::parse(text), argocd::parse_list(text).map(|all| all.iter().map(argocd::State::words).count())));
    for (name, host) in ansible::parse_inventory(text).unwrap_or_default() {
        let mut groups = host.groups.clone();
        groups.sort();
        groups.dedup();
        assert!(groups.len() == host.groups.len() && groups.iter().any(|group| group == "all"), "{name}: {groups:?}");
    }
    let tags = ansible::parse_tags(text);
    assert!(tags.is_sorted() && tags.iter().all(|tag| !tag.is_empty() && text.contains(tag.as_str())));
    drop(ansible::parse_ping(text));
    assert!(text.lines().all(|line| ansible::parse_event(line).is_none() || ansible::is_event(line)));
    drop((engine::parse_state(text), engine::parse_image(text), engine::parse_error(text)));
    assert!(engine::parse_images(text).iter().all(|(image, run)| image.ends_with(&format!(":{run}"))));
    drop((op::parse(text), op::value(text, "a").is_ok(), op::trouble(text)));
    drop((helm::remedy(text), kustomize::cannot(text), catalog::parse_version(text)));
    assert!(!kustomize::parse_error(text).is_empty());
    drop((serde_json::from_str::<ImageConfig>(text), image::layers(text.as_bytes())));
    if let Ok(config) = serde_json::from_str::<RunConfig>(text) {
        let again = serde_json::to_string(&config).expect("JSON");
        assert_eq!(serde_json::from_str::<RunConfig>(&again).expect("what was written"), config);
    }
    drop(Settings::parse(&Source::new("xtask/parity/fuzz.toml", text)));
}

fn of_servers(text: &str) {
    let age = Duration::from_secs(60);
    for ask in [
        Ask::Answers,
        Ask::Launchd { label: "a".into(), scheduled: true },
        Ask::Systemd { unit: "a".into() },
        Ask::Brew { service: "a".into() },
        Ask::File { path: "a".into(), max_age: age },
        Ask::Tailscale,
    ] {
        let verdict = remote::judge(&ask, text);
        // Half an answer is no good one.
        assert!(!verdict.is_fine() || ask == Ask::Answers || text.contains("@@ "));
    }
    drop((scrapes::series(text), scrapes::judge("a", &["b".to_owned()], text), flow::admin(text)));
    assert!(web::host(text).is_none_or(|host| !host.is_empty() && text.contains(host)));
    assert!(web::secure_address(text).is_none_or(|(host, _)| text.contains(host)));
    assert!(!web::explain(text).is_empty() || text.is_empty());
    let response = Response { status: 200, location: Some(text.to_owned()), body: text.to_owned() };
    drop(web::judge(&Answer::default(), Some("tail.ts.net"), &response));
    drop((web::judge_port(5432, text.as_bytes()), container::judge_start(Some(1), text)));
    drop(certificate::judge(text.as_bytes(), Timestamp::UNIX_EPOCH));
    if let Ok(challenge) = serde_json::from_str::<Value>(text) {
        drop(flow::step(&challenge, &Secret::new("pw"), &[]));
    }
}
