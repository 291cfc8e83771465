//! Names, versions, tags, digests, references, amounts: what is taken prints as it was written.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use crate::headers;
use crate::model::ansible::Word;
use crate::model::cleaning::attached_to;
use crate::model::config::{Endpoint, KubeContext};
use crate::model::digest::Digest;
use crate::model::expectation::duration;
use crate::model::image::split_reference;
use crate::model::name::ContainerName;
use crate::model::parity::{ChartName, ChartRepository, ChartVersion, Wanted};
use crate::model::plan::Phase;
use crate::model::quantity::{bytes, canonical, millicores};
use crate::model::tag::{GitTag, ImageTag};
use crate::model::uses::Uses;
use crate::model::version::{Bump, Version};
use crate::model::workflow::words;
use crate::model::{suggest, trial};
use crate::tools::ansible::More;
use crate::tools::catalog::parse_version;
use crate::tools::nix::real_path;

pub(crate) fn text(text: &str) {
    for is_name in [
        prints_back::<ContainerName>,
        prints_back::<GitTag>,
        prints_back::<ImageTag>,
        prints_back::<Version>,
        prints_back::<Digest>,
        prints_back::<Word>,
        prints_back::<KubeContext>,
        prints_back::<ChartName>,
        prints_back::<ChartVersion>,
    ] {
        // A word of a command line may not be an option, a part of a path not lead elsewhere.
        if is_name(text) {
            assert!(!text.is_empty() && !text.starts_with('-') && text != "..", "{text:?}");
            assert!(!text.contains(|c: char| c.is_whitespace() || c.is_control() || "$`'\"\\;&|<>*?".contains(c)));
        }
    }
    prints_the_same::<Endpoint>(text);
    prints_the_same::<ChartRepository>(text);
    drop((text.parse::<Wanted>(), text.parse::<Phase>()));
    if let Ok(version) = text.parse::<Version>() {
        assert!([Bump::Patch, Bump::Minor, Bump::Major].into_iter().all(|bump| version.bumped(bump) >= version));
    }
    references(text);
    amounts(text);
    answers(text);
    calls(text);
}

/// Is it one? Then it prints as it was.
fn prints_back<T: FromStr + Display>(text: &str) -> bool {
    text.parse::<T>().is_ok_and(|value| {
        assert_eq!(value.to_string(), text);
        true
    })
}

/// What it prints means the same.
fn prints_the_same<T: FromStr<Err = String> + Display + Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().as_ref(), Ok(&value));
    }
}

fn references(text: &str) {
    let (image, tag) = split_reference(text);
    let whole = tag.map_or_else(|| image.to_owned(), |tag| format!("{image}:{tag}"));
    assert_eq!(text.split('@').next(), Some(whole.as_str()));
    let mut uses = Uses::default();
    uses.add_reference(text, "fuzz");
    if let Some(tag) = tag {
        assert_eq!(uses.of_tag(image, tag), Some("fuzz"));
    }
    for digest in uses.digests() {
        assert!(text.contains(digest.as_str()) && digest.to_string().parse().as_ref() == Ok(digest));
    }
    if let Some(digest) = attached_to(text) {
        assert!(text.starts_with(&digest.as_str().replace(':', "-")));
    }
    if let Some(near) = suggest::only_near(text, ["authentik", "redis"]) {
        assert_eq!(suggest::only_near(near, ["authentik", "redis"]), Some(near));
    }
}

fn amounts(text: &str) {
    let same = canonical("memory", text);
    assert_eq!(canonical("memory", &same), same, "{text}");
    assert_eq!(bytes(&same), bytes(text), "{text} is {same}");
    let same = canonical("cpu", text);
    assert_eq!((canonical("cpu", &same), millicores(&same)), (same.clone(), millicores(text)), "{text} is {same}");
    if let Ok(duration) = duration(text) {
        assert!(duration.as_secs() > 0);
        let again = crate::model::expectation::duration(&format!("{}s", duration.as_secs()));
        assert_eq!(again, Ok(duration));
    }
    if let Some(numbers) = parse_version(text) {
        let plain = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        assert_eq!(parse_version(&plain), Some(numbers));
    }
}

/// What a registry writes beside its answers.
fn answers(text: &str) {
    if let Some(url) = headers::bearer(text) {
        assert!(url.contains('?') && text.starts_with("Bearer "));
        assert!(url.to_ascii_lowercase().starts_with("https://") || headers::is_plainer(&url, "https://r.example"));
    }
    assert!(headers::next_page(text).is_none_or(|path| path.starts_with('/') && text.contains(&path)));
    let registry: Endpoint = "https://r.example".parse().expect("an address");
    let location = headers::location(text, &registry);
    assert!(location.ends_with(text) || location.starts_with("https://r.example/"), "{location}");
    assert!(headers::arrived(text).is_none_or(|bytes| bytes != 1));
}

/// Words of command lines that others have written.
fn calls(text: &str) {
    if let Ok(words) = words(text, "redis-v1.0.0") {
        assert!(!words.iter().any(|word| word.contains(['$', '`', ';', '|'])), "{words:?}");
    }
    let given: Vec<String> = text.split(' ').map(str::to_owned).collect();
    if let Ok(more) = More::parse(&given) {
        let shown = format!("{more:?}");
        assert!(given.iter().all(|word| shown.contains(&format!("{word:?}"))), "{shown} of {text}");
    }
    let values = [("A".to_owned(), "1".to_owned())].into();
    let expanded = trial::expand(text, &values);
    assert!(text.contains("$(") || expanded == text);
    assert!(real_path("/nix/store/x", Some(text)).ends_with("nix/store/x"));
}
