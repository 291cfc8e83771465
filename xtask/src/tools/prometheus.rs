//! Prometheus: the server that is written to, and the agent that scrapes for it.

use super::{Invocation, line};

/// The server, as its Deployment starts it.
pub(crate) fn serve(configuration: &str, data: &str, address: &str) -> Invocation {
    let own = [
        format!("--config.file={configuration}"),
        format!("--storage.tsdb.path={data}"),
        format!("--web.listen-address={address}"),
    ];
    line!("prometheus {own...} --web.enable-remote-write-receiver --log.level=warn")
}

/// An agent keeps nothing but what it has not yet written elsewhere.
pub(crate) fn agent(configuration: &str, data: &str, address: &str) -> Invocation {
    let own = [
        format!("--config.file={configuration}"),
        format!("--storage.agent.path={data}"),
        format!("--web.listen-address={address}"),
    ];
    line!("prometheus --enable-feature=agent {own...} --log.level=warn")
}
