//! «Did you mean»: the nearest of the names that exist.

/// The candidate most like `word`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR: f64 = 0.75;
    let scored = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    scored.filter(|&(score, _)| score >= NEAR).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
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
}
