//! HTTP: one agent, limits on every phase, retries where the server or the network asks for them.

use std::time::Duration;

use anyhow::Result;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::signal;
use crate::model::failure::Failure;

/// How often a request is made before it is given up.
const TRIES: u32 = 4;

/// A server's own delay is honoured up to this.
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// A client for one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: Agent,
}

/// One GET request.
pub(crate) struct Request<'a> {
    pub(crate) url: &'a str,
    pub(crate) accept: &'a str,
    pub(crate) authorization: Option<&'a str>,
    /// Tried again when the server can't be reached; off where the answer is only wanted at once.
    pub(crate) patient: bool,
}

impl Client {
    pub(crate) fn new() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(20)))
            .timeout_global(Some(Duration::from_secs(60)))
            .user_agent("blumeops-xtask")
            .build();
        Self { agent: config.new_agent() }
    }

    /// The server's answer, whatever its status; 429 and 5xx only after [`TRIES`] of them.
    ///
    /// # Errors
    /// The server could not be reached, or a signal came.
    pub(crate) fn get(&self, request: &Request<'_>) -> Result<Response<Body>> {
        let mut delay = Duration::from_millis(400);
        for last in (0..TRIES).map(|n| n + 1 == TRIES) {
            let mut builder = self.agent.get(request.url).header(header::ACCEPT, request.accept);
            if let Some(authorization) = request.authorization {
                builder = builder.header(header::AUTHORIZATION, authorization);
            }
            match builder.call() {
                Ok(response) if last || !busy(response.status().as_u16()) => return Ok(response),
                Ok(response) => signal::sleep(server_delay(&response).unwrap_or(delay))?,
                Err(error) if last || !request.patient => {
                    return Err(Failure::environment(format!("can't reach {}: {error}", request.url)).into());
                }
                Err(_) => signal::sleep(delay)?,
            }
            delay *= 2;
        }
        Err(Failure::environment(format!("can't reach {}", request.url)).into())
    }
}

fn busy(status: u16) -> bool {
    status == 429 || (500..600).contains(&status)
}

fn server_delay(response: &Response<Body>) -> Option<Duration> {
    let seconds: u64 = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_DELAY))
}
