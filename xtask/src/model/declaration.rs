//! What an image declares, as far as its Nix expression or Dockerfile says it outright.

use std::collections::BTreeMap;

use rnix::ast::{self, HasEntry as _};
use rowan::ast::AstNode as _;

use super::source::{Place, Source};
use super::tag::BuildKind;

/// What the text says; nothing where it takes an evaluation, or a base image, to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declaration {
    /// Where it says so.
    pub(crate) place: Place,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) env: Option<Vec<String>>,
    /// Numbers, without the protocol.
    pub(crate) ports: Option<Vec<String>>,
    pub(crate) user: Option<String>,
    /// Where each of its parts is written; ports by their number.
    pub(crate) places: BTreeMap<String, Place>,
}

/// Declarations by the image's name and how it is built.
pub(crate) type Declarations = BTreeMap<(String, BuildKind), Declaration>;

impl Declaration {
    /// Where one of these is written, or else the whole.
    pub(crate) fn place_of(&self, names: &[&str]) -> Place {
        names.iter().find_map(|name| self.places.get(*name)).unwrap_or(&self.place).clone()
    }
}

/// Reads the one `config = { … }` of an image's expression. What is computed stays unknown, but for the store paths
/// inside of texts.
pub(crate) fn of_nix(source: &Source) -> Option<Declaration> {
    let parsed = rnix::Root::parse(&source.text);
    if !parsed.errors().is_empty() {
        return None;
    }
    let named = |entry: &ast::AttrpathValue| names(entry) == ["config"];
    let mut configs = parsed.syntax().descendants().filter_map(ast::AttrpathValue::cast).filter(named);
    let (Some(config), None) = (configs.next(), configs.next()) else { return None };
    let Some(ast::Expr::AttrSet(set)) = config.value() else { return None };
    // What it inherits is not known here.
    if set.inherits().next().is_some() {
        return None;
    }
    let start = usize::from(config.syntax().text_range().start());
    let mut declared = Declaration {
        place: source.place(start, start + "config".len()),
        entrypoint: Some(Vec::new()),
        cmd: Some(Vec::new()),
        env: Some(Vec::new()),
        ports: Some(Vec::new()),
        user: Some(String::new()),
        places: BTreeMap::new(),
    };
    for entry in set.attrpath_values() {
        let path = names(&entry);
        let value = entry.value();
        declared.places.extend(written(&entry, source));
        match path.first().map(String::as_str) {
            Some("Entrypoint") => declared.entrypoint = value.and_then(texts),
            Some("Cmd") => declared.cmd = value.and_then(texts),
            Some("Env") => declared.env = value.and_then(texts),
            Some("User") => declared.user = value.and_then(text).filter(|user| !user.contains("${")),
            Some("ExposedPorts") => declared.ports = value.filter(|_| path.len() == 1).and_then(ports),
            _ => {}
        }
    }
    Some(declared)
}

/// Why a text can't be read as Nix.
pub(crate) fn mistake(source: &Source) -> Option<String> {
    rnix::Root::parse(&source.text).errors().first().map(ToString::to_string)
}

/// Where an entry is written, and the ports in it.
fn written(entry: &ast::AttrpathValue, source: &Source) -> Vec<(String, Place)> {
    let at = |entry: &ast::AttrpathValue| {
        let range = entry.syntax().text_range();
        source.first_line(usize::from(range.start()), usize::from(range.end()))
    };
    let named = |entry: &ast::AttrpathValue| {
        let name = names(entry).first().map(|name| name.split('/').next().unwrap_or_default().to_owned());
        name.map(|name| (name, at(entry)))
    };
    let inner = match entry.value() {
        Some(ast::Expr::AttrSet(set)) => set.attrpath_values().filter_map(|entry| named(&entry)).collect(),
        _ => Vec::new(),
    };
    named(entry).into_iter().chain(inner).collect()
}

/// The path in front of `=`; empty where a part of it is computed.
fn names(entry: &ast::AttrpathValue) -> Vec<String> {
    let name = |attr| match attr {
        ast::Attr::Ident(ident) => Some(ident.ident_token()?.text().to_owned()),
        ast::Attr::Str(string) => text(ast::Expr::Str(string)),
        ast::Attr::Dynamic(_) => None,
    };
    let path = entry.attrpath().map(|path| path.attrs().map(name).collect::<Option<Vec<_>>>());
    path.flatten().unwrap_or_default()
}

fn text(value: ast::Expr) -> Option<String> {
    let ast::Expr::Str(string) = value else { return None };
    let part = |part| match part {
        ast::InterpolPart::Literal(text) => text,
        ast::InterpolPart::Interpolation(_) => "${…}".to_owned(),
    };
    Some(string.normalized_parts().into_iter().map(part).collect())
}

fn texts(value: ast::Expr) -> Option<Vec<String>> {
    let ast::Expr::List(list) = value else { return None };
    list.items().map(text).collect()
}

fn ports(value: ast::Expr) -> Option<Vec<String>> {
    let ast::Expr::AttrSet(set) = value else { return None };
    let port = |entry| match names(&entry).as_slice() {
        [name] => Some(name.split('/').next().unwrap_or_default().to_owned()),
        _ => None,
    };
    set.inherits().next().is_none().then(|| set.attrpath_values().map(port).collect()).flatten()
}

/// Reads the last stage of a Dockerfile. What it leaves out is the base image's affair and stays unknown.
pub(crate) fn of_dockerfile(source: &Source) -> Declaration {
    let mut declared = Declaration {
        place: source.place(0, 0),
        entrypoint: None,
        cmd: None,
        env: None,
        ports: None,
        user: None,
        places: BTreeMap::new(),
    };
    let text = source.text.replace("\\\n", " ");
    for line in text.lines().map(str::trim) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let known = Some(rest.trim()).filter(|rest| !rest.contains('$'));
        let list = || serde_json::from_str(known?).ok();
        match word.to_ascii_uppercase().as_str() {
            "FROM" => {
                let place = source.find(line);
                declared = Declaration {
                    place,
                    entrypoint: None,
                    cmd: None,
                    env: None,
                    ports: None,
                    user: None,
                    places: BTreeMap::new(),
                };
            }
            "ENTRYPOINT" => declared.entrypoint = list(),
            "CMD" => declared.cmd = list(),
            "USER" => declared.user = known.map(str::to_owned),
            "EXPOSE" => {
                let named = known.map(|rest| rest.split_whitespace().filter_map(|port| port.split('/').next()));
                match (named, &mut declared.ports) {
                    (Some(named), Some(ports)) => ports.extend(named.map(str::to_owned)),
                    (named, ports) => *ports = named.map(|named| named.map(str::to_owned).collect()),
                }
            }
            _ => {}
        }
    }
    declared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nix(config: &str) -> Option<Declaration> {
        let text = format!("{{ pkgs }}:\n# config = {{ }}\npkgs.dockerTools.buildImage {{\n  config = {config};\n}}\n");
        of_nix(&Source::new("containers/a/default.nix", &text))
    }

    #[test]
    fn what_stands_there_is_read_and_what_is_computed_is_not() {
        let all = nix(
            "{ Entrypoint = [ \"${pkgs.a}/bin/a\" ]; User = \"65534\"; ExposedPorts = { \"80/tcp\" = { }; }; Env = x; }",
        )
        .unwrap();
        assert_eq!(all.place.line_column(), (4, 3));
        assert_eq!(all.entrypoint.unwrap(), ["${…}/bin/a"]);
        assert_eq!((all.user.as_deref(), all.ports.unwrap().join(" ")), (Some("65534"), "80".to_owned()));
        assert_eq!((all.env, all.cmd), (None, Some(Vec::new())));
        assert!(nix("base // { }").is_none() && nix("{ inherit User; }").is_none() && nix("{ ").is_none());
        assert_eq!(nix("{ User = \"${user}\"; }").unwrap().user, None);
    }

    #[test]
    fn the_last_stage_of_a_dockerfile() {
        let text = "FROM a AS build\nUSER root\nEXPOSE 1\nFROM b\nEXPOSE 80/tcp 81\nEXPOSE 82\nENTRYPOINT [\"/a\", \\\n  \"b\"]\nCMD run $it\n";
        let all = of_dockerfile(&Source::new("containers/a/Dockerfile", text));
        assert_eq!((all.user, all.cmd, all.ports.unwrap().join(" ")), (None, None, "80 81 82".to_owned()));
        assert_eq!(all.entrypoint.unwrap(), ["/a", "b"]);
    }
}
