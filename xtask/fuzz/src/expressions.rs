//! What images declare, in Nix and in Dockerfiles.

use crate::assert_within;
use crate::model::declaration::{Declaration, of_dockerfile, of_nix};
use crate::model::source::Source;

pub(crate) fn text(text: &str) {
    let nix = |text: &str| of_nix(&Source::new("containers/fuzz/default.nix", text));
    let docker = |text: &str| of_dockerfile(&Source::new("containers/fuzz/Dockerfile", text));
    if let Some(declared) = nix(text) {
        within(&declared);
        // Nothing that is said behind it changes what is declared.
        let commented = nix(&format!("{text}\n# config = {{ }};\n")).expect("it is read with a comment, too");
        assert_eq!(said(&commented), said(&declared));
    }
    let declared = docker(text);
    within(&declared);
    if !text.contains('\r') {
        assert_eq!(said(&docker(&text.replace('\n', "\r\n"))), said(&declared));
    }
    let of_base = docker(&format!("{text}\n\nFROM scratch\n"));
    if !text.trim_end().ends_with('\\') {
        assert_eq!(said(&of_base), (None, None, None, None, None));
    }
}

fn within(declared: &Declaration) {
    assert_within(&declared.place);
    declared.places.values().for_each(assert_within);
    for name in declared.places.keys() {
        assert_within(&declared.place_of(&["none", name]));
    }
}

type Said<'a> = (
    Option<&'a Vec<String>>,
    Option<&'a Vec<String>>,
    Option<&'a Vec<String>>,
    Option<&'a Vec<String>>,
    Option<&'a str>,
);

/// Everything but where it is said.
fn said(declared: &Declaration) -> Said<'_> {
    let Declaration { entrypoint, cmd, env, ports, user, .. } = declared;
    (entrypoint.as_ref(), cmd.as_ref(), env.as_ref(), ports.as_ref(), user.as_deref())
}
