//! Stand-ins for servers that can't be had here: Forgejo's API, and a registry that is ill.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
