//! A registry in memory, over HTTP: tags, manifests, indexes, referrers, DELETE. It holds what the tests put into it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiny_http::{Header, Method, Request, Response, Server};

/// One repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) tags: BTreeMap<String, String>,
    /// Digest to the manifest's bytes.
    pub(crate) manifests: BTreeMap<String, String>,
}

impl Repository {
    /// Puts a manifest in; gives its digest.
    pub(crate) fn push(&mut self, manifest: &serde_json::Value) -> String {
        use sha2::Digest as _;
        let text = manifest.to_string();
        let digest = format!("sha256:{:x}", sha2::Sha256::digest(&text));
        self.manifests.insert(digest.clone(), text);
        digest
    }

    /// The digests that a manifest names under `key`, an object or a list of them.
    pub(crate) fn named(&self, digest: &str, key: &str) -> Vec<String> {
        let Some(text) = self.manifests.get(digest) else { return Vec::new() };
        let value: serde_json::Value = serde_json::from_str(text).expect("what was pushed is JSON");
        let list = value[key].as_array().cloned().unwrap_or_else(|| vec![value[key].clone()]);
        list.iter().filter_map(|one| one["digest"].as_str()).map(str::to_owned).collect()
    }
}

/// After how many removals somebody else acts, and what they do.
pub(crate) type Rival = (usize, fn(&mut State));

/// All of a registry.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) repositories: BTreeMap<String, Repository>,
    /// Repositories whose referrers are listed.
    pub(crate) lists_referrers: BTreeSet<String>,
    /// Answers 405 to DELETE.
    pub(crate) is_read_only: bool,
    /// Every DELETE that was answered, in order.
    pub(crate) deleted: Vec<String>,
    /// What somebody else does once so many have been removed.
    pub(crate) rival: Option<Rival>,
}

/// Answers until dropped.
pub(crate) struct RegistryInMemory {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    server: Arc<Server>,
}

impl RegistryInMemory {
    pub(crate) fn start() -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").expect("a free port"));
        let url = format!("http://{}", server.server_addr());
        let state = Arc::new(Mutex::new(State::default()));
        for _ in 0..4 {
            let (server, state) = (Arc::clone(&server), Arc::clone(&state));
            std::thread::spawn(move || {
                for request in server.incoming_requests() {
                    answer(&mut state.lock().unwrap_or_else(PoisonError::into_inner), request);
                }
            });
        }
        Self { url, state, server }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RegistryInMemory {
    fn drop(&mut self) {
        self.server.unblock();
    }
}

fn answer(state: &mut State, request: Request) {
    let path = request.url().split('?').next().unwrap_or_default().to_owned();
    let (status, body) = match (request.method(), path.strip_prefix("/v2/")) {
        (Method::Get, Some("_catalog")) => {
            let names: Vec<&String> = state.repositories.keys().collect();
            (200, serde_json::json!({"repositories": names}).to_string())
        }
        (method, Some(path)) => inside(state, method, path),
        _ => (404, String::new()),
    };
    let mut response = Response::from_string(body).with_status_code(status);
    response.add_header(Header::from_bytes("content-type", "application/json").expect("a header"));
    drop(request.respond(response));
}

fn inside(state: &mut State, method: &Method, path: &str) -> (u16, String) {
    let nothing = (404, String::new());
    if let Some(name) = path.strip_suffix("/tags/list") {
        let Some(repository) = state.repositories.get(name) else { return nothing };
        let tags: Vec<&String> = repository.tags.keys().collect();
        return (200, serde_json::json!({"name": name, "tags": tags}).to_string());
    }
    if let Some((name, digest)) = path.split_once("/referrers/") {
        let Some(repository) = state.repositories.get(name).filter(|_| state.lists_referrers.contains(name)) else {
            return nothing;
        };
        let attached =
            repository.manifests.keys().filter(|other| repository.named(other, "subject").iter().any(|s| s == digest));
        let list: Vec<_> = attached.map(|digest| serde_json::json!({"digest": digest})).collect();
        return (200, serde_json::json!({"manifests": list}).to_string());
    }
    let Some((name, reference)) = path.split_once("/manifests/") else { return nothing };
    let Some(repository) = state.repositories.get_mut(name) else { return nothing };
    let digest = repository.tags.get(reference).cloned().unwrap_or_else(|| reference.to_owned());
    match method {
        Method::Get => repository.manifests.get(&digest).map_or(nothing, |text| (200, text.clone())),
        Method::Delete if state.is_read_only => (405, String::new()),
        Method::Delete if repository.manifests.remove(&digest).is_some() => {
            // As docker-registry does it: every tag of the digest goes with it.
            repository.tags.retain(|_, other| *other != digest);
            state.deleted.push(digest);
            if let Some((_, act)) = state.rival.filter(|(after, _)| *after == state.deleted.len()) {
                act(state);
            }
            (202, String::new())
        }
        _ => nothing,
    }
}
