//! docker-registry: an OCI registry on loopback, for rehearsals.

use std::net::SocketAddr;
use std::path::Path;

use super::{Invocation, line};

/// Serves what `configuration` names.
pub(crate) fn serve(configuration: &str) -> Invocation {
    line!("docker-registry serve {configuration}")
}

/// A registry that keeps its blobs in `folder` and listens on loopback only.
pub(crate) fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
}

/// The same blobs for others than us, who may only read them.
pub(crate) fn read_only(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {folder}}}, maintenance: {{readonly: {{enabled: true}}}}}}\nhttp: {{addr: '{address}'}}\n"
    )
}
