//! curl, only ever shown: what a request of ours comes to for who wants to paste it.

use super::{Invocation, line};

/// Removes what `url` names; credentials come from the caller's own `.netrc`.
pub(crate) fn delete(url: &str) -> Invocation {
    line!("curl --fail --silent --show-error --netrc-optional --request DELETE {url}")
}
