//! «Did you mean»: the nearest of the names that exist.

/// The candidate most like `word`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR: f64 = 0.75;
    let scored = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    scored.filter(|&(score, _)| score >= NEAR).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// The only candidate that can be meant: a slip of one or two letters away, and no other is near at all.
pub(crate) fn only_near<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const SLIP: usize = 2;
    let near = |candidate: &&str| {
        let letters = strsim::osa_distance(word, candidate);
        letters <= SLIP && letters * 3 <= candidate.chars().count().max(3)
    };
    let mut found: Vec<&str> = candidates.into_iter().filter(near).collect();
    found.sort_unstable();
    found.dedup();
    if let [only] = found[..] { Some(only) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let known = ["authentik", "redis", "dex"];
        assert_eq!(nearest("autentik", known), Some("authentik"));
        assert_eq!(nearest("rdis", known), Some("redis"));
        assert_eq!(nearest("postgres", known), None);
    }

    #[test]
    fn two_that_can_be_meant_are_none() {
        assert_eq!(only_near("htpp", ["http", "https", "metrics"]), Some("http"));
        assert_eq!(only_near("webb-a", ["web-a", "webs-a"]), None);
        assert_eq!(only_near("db", ["dc", "dx", "redis"]), None);
        assert_eq!(only_near("autentik", ["authentik", "authentik", "dex"]), Some("authentik"));
    }
}
