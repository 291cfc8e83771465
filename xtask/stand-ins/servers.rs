//! Stand-ins for servers that can't be had here: Forgejo's API, a registry that is ill, who gives tokens for one.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tiny_http::{Header, Request, Response, Server};

/// Answers until dropped.
pub(crate) struct StandIn {
    pub(crate) url: String,
    server: Arc<Server>,
}

impl StandIn {
    /// Answers every request with what `answer` gives for its path: a status and a body.
    pub(crate) fn serve(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Self {
        Self::handle(move |request| {
            let (status, body) = answer(request.url());
            drop(request.respond(Response::from_string(body).with_status_code(status)));
        })
    }

    /// A web server of the files in a folder, as a repository of charts is.
    pub(crate) fn files(folder: std::path::PathBuf) -> Self {
        Self::handle(move |request| {
            let file = folder.join(request.url().trim_start_matches('/'));
            drop(match std::fs::File::open(file) {
                Ok(file) => request.respond(Response::from_file(file)),
                Err(_) => request.respond(Response::from_string("").with_status_code(404)),
            });
        })
    }

    fn handle(handler: impl Fn(Request) + Send + 'static) -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").expect("a free port"));
        let url = format!("http://{}", server.server_addr());
        let listening = Arc::clone(&server);
        std::thread::spawn(move || listening.incoming_requests().for_each(handler));
        Self { url, server }
    }

    /// Forgejo, whose one run has this status and whose job left this log.
    pub(crate) fn forge(status: &'static str, commit: &str, tag: &str, log: &'static str) -> Self {
        let run = format!(
            r#"{{"workflow_runs":[{{"id":7,"status":"{status}","commit_sha":"{commit}","workflow_id":"build-container-nix.yaml","prettyref":"{tag}"}}]}}"#
        );
        Self::serve(move |path| match path {
            path if path.contains("/actions/runs?") => (200, run.clone()),
            path if path.ends_with("/actions/runs/7/jobs") => (200, r#"[{"id":9,"status":"failure"}]"#.to_owned()),
            path if path.ends_with("/actions/jobs/9/logs") => (200, log.to_owned()),
            _ => (404, String::new()),
        })
    }

    /// The registry at `real`, but its first `failures` answers are 503.
    pub(crate) fn flaky(real: String, failures: usize) -> (Self, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let stand_in = Self::handle(move |request| {
            if counter.fetch_add(1, Ordering::SeqCst) < failures {
                drop(request.respond(Response::from_string("ill").with_status_code(503)));
            } else {
                forward(&real, request);
            }
        });
        (stand_in, asked)
    }
}

/// Gives a registry's tokens to who comes with the right password: to do what is asked for, signed with its key.
pub(crate) struct TokenServer {
    stand_in: StandIn,
    certificate: std::path::PathBuf,
    asked: Receiver<String>,
}

impl TokenServer {
    const NAME: &str = "token server stand-in";

    /// For `login`, which is `USER:PASSWORD`; its key and certificate are in `folder`.
    pub(crate) fn start(folder: &Path, login: &str) -> Self {
        let (key, certificate) = (folder.join("token.key"), folder.join("token.crt"));
        let mut request = Command::new("openssl");
        request.args(["req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", "/CN=tokens", "-keyout"]);
        let made = request.arg(&key).arg("-out").arg(&certificate).output().expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let pem = std::fs::read_to_string(&certificate).expect("a certificate");
        let chain: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let wanted = format!("Basic {}", STANDARD.encode(login));
        let (sender, asked) = channel();
        let stand_in = StandIn::handle(move |request| {
            let login = request.headers().iter().find(|header| header.field.equiv("Authorization"));
            let body = if login.is_some_and(|login| login.value.as_str() == wanted) {
                drop(sender.send(request.url().to_owned()));
                Response::from_string(json!({ "token": token(request.url(), &key, &chain) }).to_string())
            } else {
                Response::from_string("{}").with_status_code(401)
            };
            drop(request.respond(body));
        });
        Self { stand_in, certificate, asked }
    }

    /// The registry's configuration.
    pub(crate) fn configuration(&self) -> String {
        let (realm, name, certificate) = (&self.stand_in.url, Self::NAME, self.certificate.display());
        format!(
            "auth: {{token: {{realm: {realm}/token, service: test, issuer: {name}, rootcertbundle: {certificate}}}}}\n"
        )
    }

    /// What it was asked for since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

/// A JSON Web Token that allows what a question asks for.
fn token(question: &str, key: &Path, chain: &str) -> String {
    let (_, parameters) = question.split_once('?').expect("a question");
    let scopes = parameters.split('&').filter_map(|parameter| parameter.strip_prefix("scope="));
    let access: Vec<Value> = scopes
        .map(|scope| {
            let [kind, name, actions]: [&str; 3] = scope.split(':').collect::<Vec<_>>().try_into().expect("a scope");
            json!({ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() })
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({
        "iss": TokenServer::NAME, "aud": "test", "sub": "", "iat": now, "nbf": now - 60, "exp": now + 300,
        "jti": "1", "access": access,
    });
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [chain] });
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let mut sign = Command::new("openssl");
    let signing = sign.args(["dgst", "-sha256", "-sign"]).arg(key).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut signing = signing.expect("openssl");
    write!(signing.stdin.take().expect("a pipe"), "{header}.{claims}").expect("openssl reads");
    let signature = signing.wait_with_output().expect("a signature").stdout;
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Hands a GET on.
fn forward(real: &str, request: Request) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut call = agent.get(format!("{real}{}", request.url()));
    for header in request.headers().iter().filter(|header| header.field.equiv("Accept")) {
        call = call.header("accept", header.value.as_str());
    }
    let mut answer = call.call().expect("the real registry answers");
    let mut body = Vec::new();
    answer.body_mut().as_reader().read_to_end(&mut body).expect("a whole answer");
    let mut response = Response::from_data(body).with_status_code(answer.status().as_u16());
    for name in ["content-type", "docker-content-digest"] {
        if let Some(value) = answer.headers().get(name) {
            response.add_header(Header::from_bytes(name, value.as_bytes()).expect("a header"));
        }
    }
    drop(request.respond(response));
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.unblock();
    }
}
