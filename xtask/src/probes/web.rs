//! HTTP answers, TLS errors and ports.

use super::Verdict;
use crate::model::expectation::Answer;

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

/// What is expected, in words.
pub(crate) fn expected(answer: &Answer) -> String {
    let status = if answer.status.is_empty() {
        "2xx or 3xx".to_owned()
    } else {
        answer.status.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    };
    match &answer.contains {
        Some(text) => format!("{status} with «{text}»"),
        None => status,
    }
}

/// Judges an answer. `tailnet` is the zone that a service of the domain must not send people to.
pub(crate) fn judge(answer: &Answer, tailnet: Option<&str>, response: &Response) -> Verdict {
    let Response { status, location, body } = response;
    let good = if answer.status.is_empty() { (200..400).contains(status) } else { answer.status.contains(status) };
    let seen = match location {
        Some(location) => format!("{status} to {location}"),
        None => status.to_string(),
    };
    let leaves = location.as_deref().zip(tailnet).is_some_and(|(location, zone)| {
        host(location).is_some_and(|host| host == zone || host.ends_with(&format!(".{zone}")))
    });
    if !good {
        let said: String = body.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect();
        return Verdict::bad(if said.is_empty() { seen } else { format!("{seen}: {said}") });
    }
    if leaves {
        return Verdict::bad(format!("{seen}: the domain sends people to the tailnet's name"));
    }
    match answer.contains.as_deref().filter(|text| !body.contains(text)) {
        Some(text) => Verdict::bad(format!("{seen} without «{text}»")),
        None => Verdict::Fine(seen),
    }
}

/// Is it worth asking again?
pub(crate) fn is_busy(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// A transport's error in words.
pub(crate) fn explain(error: &str) -> String {
    let causes = [
        ("Expired", "the certificate has expired"),
        ("NotValidYet", "the certificate is not valid yet"),
        ("not valid yet", "the certificate is not valid yet"),
        ("NotValidForName", "the certificate is for another name"),
        ("certificate not valid for name", "the certificate is for another name"),
        ("CaUsedAsEndEntity", "the certificate is self-signed"),
        ("BadSignature", "the certificate was not signed by whom it names"),
        ("UnknownIssuer", "the certificate is self-signed, or by an authority that this machine does not trust"),
        ("certificate expired", "the certificate has expired"),
        ("host not found", "the name does not resolve"),
        ("failed to lookup address", "the name does not resolve"),
        ("Connection refused", "connection refused"),
        ("InvalidContentType", "it does not speak TLS"),
        ("close_notify", "it hung up"),
        ("unexpected end of file", "it hung up"),
        ("Connection reset", "it hung up"),
        ("timed out", "no answer in time"),
        // What a socket with a limit says.
        ("Resource temporarily unavailable", "no answer in time"),
        ("timeout", "no answer in time"),
    ];
    let cause = causes.iter().find(|(word, _)| error.contains(word));
    cause.map_or_else(|| error.to_owned(), |(_, meaning)| (*meaning).to_owned())
}

/// The host of an address, without its port.
pub(crate) fn host(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once(':').filter(|(_, port)| port.chars().all(|c| c.is_ascii_digit()));
    Some(host.map_or(authority, |(host, _)| host)).filter(|host| !host.is_empty())
}

/// The host and port that an `https` address connects to.
pub(crate) fn secure_address(url: &str) -> Option<(&str, u16)> {
    let rest = url.strip_prefix("https://")?.split(['/', '?', '#']).next()?;
    let port = rest.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(443);
    Some((host(url)?, port))
}

/// What a port said after it took the connection; PostgreSQL's answers `S` or `N` to a request for TLS.
pub(crate) fn judge_port(port: u16, said: &[u8]) -> Verdict {
    match (port, said) {
        (5432, [b'S' | b'N', ..]) => Verdict::Fine("PostgreSQL answers".to_owned()),
        (5432, _) => Verdict::bad("it takes connections, and what answers is not PostgreSQL"),
        _ => Verdict::Fine("takes connections".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        let response = |status, location: Option<&str>, body: &str| Response {
            status,
            location: location.map(str::to_owned),
            body: body.to_owned(),
        };
        let any = Answer::default();
        let judged = |answer: &Answer, response| judge(answer, Some("tail.ts.net"), &response);
        assert!(judged(&any, response(204, None, "")).is_fine());
        assert!(judged(&any, response(302, Some("/login"), "")).is_fine());
        assert_eq!(judged(&any, response(404, None, "Unknown service")).seen(), "404: Unknown service");
        assert!(judged(&any, response(302, Some("https://a.tail.ts.net/x"), "")).seen().contains("tailnet's name"));
        let page = Answer { status: vec![200], contains: Some("<ak-".into()) };
        assert!(judged(&page, response(200, None, "<html><ak-flow")).is_fine());
        assert_eq!(judged(&page, response(200, None, "hello")).seen(), "200 without «<ak-»");
        assert!(!judged(&page, response(302, None, "<ak-")).is_fine());
    }

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(host("https://a.example:8443/x"), Some("a.example"));
        assert_eq!(secure_address("https://a.example/x:1"), Some(("a.example", 443)));
        assert_eq!(secure_address("http://a.example/"), None);
    }
}
