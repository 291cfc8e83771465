//! Release versions: `vX.Y.Z`, nothing more.

use std::fmt;
use std::str::FromStr;

/// A release version. Ordered by its numbers, not by its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
}

/// Which number of a version moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Bump {
    /// v1.2.3 becomes v1.2.4
    Patch,
    /// v1.2.3 becomes v1.3.0
    Minor,
    /// v1.2.3 becomes v2.0.0
    Major,
}

impl Version {
    /// What a container that was never released starts with.
    pub(crate) const FIRST: Self = Self { major: 1, minor: 0, patch: 0 };

    /// The next version; saturates, so it never wraps to an older one.
    pub(crate) fn bumped(self, bump: Bump) -> Self {
        let Self { major, minor, patch } = self;
        match bump {
            Bump::Patch => Self { patch: patch.saturating_add(1), ..self },
            Bump::Minor => Self { major, minor: minor.saturating_add(1), patch: 0 },
            Bump::Major => Self { major: major.saturating_add(1), minor: 0, patch: 0 },
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || "expected vX.Y.Z, as in v1.0.0".to_owned();
        let numbers = text.strip_prefix('v').ok_or_else(shape)?;
        let parts: Vec<&str> = numbers.split('.').collect();
        let [major, minor, patch] = parts[..] else { return Err(shape()) };
        Ok(Self { major: number(major)?, minor: number(minor)?, patch: number(patch)? })
    }
}

fn number(text: &str) -> Result<u32, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("expected vX.Y.Z with three numbers, as in v1.0.0".to_owned());
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err("a number of a version has no leading zero".to_owned());
    }
    text.parse().map_err(|_| "a number of the version is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips_and_order_is_numeric(a: [u32; 3], b: [u32; 3]) {
            let make = |[major, minor, patch]: [u32; 3]| Version { major, minor, patch };
            prop_assert_eq!(make(a).to_string().parse::<Version>(), Ok(make(a)));
            prop_assert_eq!(make(a).cmp(&make(b)), a.cmp(&b));
        }

        #[test]
        fn whatever_parses_prints_as_it_was(text in "v?[0-9]{0,3}(\\.[0-9]{0,3}){0,3}(-rc1)?") {
            if let Ok(version) = text.parse::<Version>() {
                prop_assert_eq!(version.to_string(), text);
            }
        }

        #[test]
        fn a_bump_is_newer(a in 0..9_000u32, b in 0..9_000u32, c in 0..9_000u32) {
            let version = Version { major: a, minor: b, patch: c };
            for bump in [Bump::Patch, Bump::Minor, Bump::Major] {
                prop_assert!(version.bumped(bump) > version);
            }
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in [
            "",
            "v",
            "v1",
            "1.0.0",
            "v1.0",
            "v01.2.3",
            "v1.0.0-rc1",
            "v1.0.0.0",
            "v1..0",
            "v1.0.+1",
            "V1.0.0",
            "v1.0.99999999999",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
