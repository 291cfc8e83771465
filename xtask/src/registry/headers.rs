//! What a registry writes into the headers of its answers: text to values, and nothing else.

use crate::model::config::Endpoint;

/// The address of the token server that a `Bearer` challenge names, with its question.
pub(crate) fn bearer(challenge: &str) -> Option<String> {
    let parameters = challenge.strip_prefix("Bearer ")?;
    let find = |name: &str| parameters.split_once(&format!("{name}=\""))?.1.split('"').next();
    // To take a blob over from another repository needs a scope of each.
    let words = |name: &'static str| {
        let text = find(name).unwrap_or_default();
        text.split(' ').filter(|word| !word.is_empty()).map(move |word| format!("{name}={word}")).collect::<Vec<_>>()
    };
    Some(format!("{}?{}", find("realm")?, [words("service"), words("scope")].concat().join("&")))
}

/// Would credentials that the registry gets encrypted go to its token server in the clear?
pub(crate) fn is_plainer(realm: &str, endpoint: &str) -> bool {
    let is_encrypted = |url: &str| url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    is_encrypted(endpoint) && !is_encrypted(realm)
}

/// The path of the next page that a `Link` names.
pub(crate) fn next_page(link: &str) -> Option<String> {
    let (target, relation) = link.split_once('>')?;
    (relation.contains("next")).then(|| target.trim_start_matches('<').to_owned()).filter(|path| path.starts_with('/'))
}

/// `0-1023` and `bytes=0-1023` are 1024 bytes; `0-0` is how registries write that there are none.
pub(crate) fn arrived(range: &str) -> Option<u64> {
    let last: u64 = range.rsplit('-').next()?.trim().parse().ok()?;
    if last == 0 { Some(0) } else { last.checked_add(1) }
}

/// Where an upload goes on. A proxy may not have told the registry how it is reached.
pub(crate) fn location(named: &str, endpoint: &Endpoint) -> String {
    let own = format!("{}://{}/", if endpoint.secure { "http" } else { "https" }, endpoint.authority);
    match named.strip_prefix(&own) {
        Some(rest) => format!("{endpoint}/{rest}"),
        None if named.starts_with('/') => format!("{endpoint}{named}"),
        None => named.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_names_where_to_ask() {
        let challenge = r#"Bearer realm="https://r/token",service="r",scope="repository:a/b:pull""#;
        assert_eq!(bearer(challenge).as_deref(), Some("https://r/token?service=r&scope=repository:a/b:pull"));
        let two = r#"Bearer realm="https://r/token",service="r",scope="repository:a/b:pull,push repository:c:pull""#;
        let asked = "https://r/token?service=r&scope=repository:a/b:pull,push&scope=repository:c:pull";
        assert_eq!(bearer(two).as_deref(), Some(asked));
        assert_eq!(bearer("Basic realm=\"x\""), None);
        assert!(
            is_plainer("http://r/token", "https://r")
                && is_plainer("ftp://r", "https://r")
                && is_plainer("", "https://r")
        );
        assert!(!is_plainer("HTTPS://r/token", "https://r") && !is_plainer("http://r/token", "http://r"));
    }

    #[test]
    fn pages_and_uploads_go_on_at_the_same_registry() {
        assert_eq!(next_page("</v2/a/tags/list?last=b>; rel=\"next\"").as_deref(), Some("/v2/a/tags/list?last=b"));
        assert_eq!(next_page("<https://other/v2/>; rel=\"next\""), None);
        let endpoint = "https://r.example:5000".parse().unwrap();
        for named in ["/v2/a?x=1", "http://r.example:5000/v2/a?x=1", "https://r.example:5000/v2/a?x=1"] {
            assert_eq!(location(named, &endpoint), "https://r.example:5000/v2/a?x=1");
        }
    }

    #[test]
    fn what_has_arrived_is_counted() {
        assert_eq!([arrived("0-1023"), arrived("bytes=0-1023"), arrived("0-0")], [Some(1024), Some(1024), Some(0)]);
        assert_eq!([arrived(""), arrived("0-"), arrived("0-x"), arrived("0-18446744073709551615")], [None; 4]);
    }
}
