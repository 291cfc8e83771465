//! What our images declare, against what the manifests ask of them.

use std::collections::BTreeMap;

use super::Rule;
use crate::model::declaration::{self, Declaration, Declarations};
use crate::model::finding::Finding;
use crate::model::image::split_reference;
use crate::model::tag::BuildKind;
use crate::model::world::{Object, Ref, World};

const EXPRESSION: &str = "containers/web/default.nix";

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "image-ports",
        about: "A container of one of our images has ports that the image declares, or that its settings name.",
        why: "Nothing listens there; the image's declaration or the manifest was left behind.",
        breaks: (EXPRESSION, "\"8000/tcp\"", "\"9000/tcp\""),
        check: ports,
    },
    Rule {
        code: "image-user",
        about: "The user of one of our images fits the pod's securityContext.",
        why: "The kubelet refuses root, and a name it can't judge, where runAsNonRoot is set; another number can't write what the image prepared for its own.",
        breaks: (EXPRESSION, "User = \"65534\"", "User = \"nobody\""),
        check: user,
    },
    Rule {
        code: "image-args",
        about: "A container of one of our images gets args that go behind the image's entrypoint.",
        why: "The program is started with its own name as argument, or an argument is started as a program.",
        breaks: ("argocd/manifests/job/job.yaml", "args: [once]", "args: [web, once]"),
        check: args,
    },
];

/// What each of our images declares, by its name and how it is built.
fn declarations(world: &World) -> &Declarations {
    world.declarations.get_or_init(|| declared(world))
}

fn declared(world: &World) -> Declarations {
    let Ok(home) = world.repo.home() else { return BTreeMap::new() };
    let read = |path: &str| {
        let (name, file) = path.strip_prefix("containers/")?.split_once('/')?;
        let container = world.repo.containers.iter().find(|container| container.name.as_str() == name)?;
        let source = world.repo.files.iter().find(|file| &*file.path == path)?;
        let (kind, declared) = match file {
            "default.nix" => (BuildKind::Nix, declaration::of_nix(source)?),
            "Dockerfile" => (BuildKind::Dockerfile, declaration::of_dockerfile(source)),
            _ => return None,
        };
        Some(((home.image(&container.name), kind), declared))
    };
    world.repo.files.iter().filter_map(|file| read(&file.path)).collect()
}

/// Our images' declarations that can't be read off their text.
pub(crate) fn unread(world: &World) -> Vec<String> {
    let known = declarations(world);
    let Ok(home) = world.repo.home() else { return Vec::new() };
    let nix = world.repo.containers.iter().filter(|container| container.kinds.contains(&BuildKind::Nix));
    let unread = nix.filter(|container| !known.contains_key(&(home.image(&container.name), BuildKind::Nix)));
    let told = |path: String| {
        let source = world.repo.file(&path);
        match source.and_then(declaration::mistake) {
            Some(why) => format!("{path}: it can't be read as Nix: {why}"),
            None => format!("{path}: what it declares is computed"),
        }
    };
    unread.map(|container| told(container.expression())).collect()
}

/// Every container of an object that runs one of our images, with what that declares.
fn ours<'a>(object: &'a Object, known: &'a Declarations) -> Vec<(Ref<'a>, &'a Declaration)> {
    let declared = |container: &Ref<'a>| {
        let (image, tag) = split_reference(container.text_at(&["image"])?);
        let kinds = match tag {
            Some(tag) if tag.ends_with("-nix") => vec![BuildKind::Nix],
            // A placeholder says nothing of how it is built.
            Some("kustomized") | None => vec![BuildKind::Nix, BuildKind::Dockerfile],
            Some(_) => vec![BuildKind::Dockerfile],
        };
        kinds.into_iter().find_map(|kind| known.get(&(image.to_owned(), kind)))
    };
    object.containers().into_iter().filter_map(|container| Some((container, declared(&container)?))).collect()
}

/// Is a port named by a setting of the image or the manifest, as `0.0.0.0:8000` or `8000`?
fn is_set(container: Ref<'_>, declared: &Declaration, port: &str) -> bool {
    let names = |text: &str| text.rsplit([':', '=']).next() == Some(port);
    let env = container.get("env").map_or_else(Vec::new, Ref::items);
    let mut values = env.into_iter().filter_map(|env| env.text_at(&["value"]));
    let lists = ["args", "command"].into_iter().filter_map(|key| container.get(key)).flat_map(Ref::items);
    let image = declared.env.iter().flatten().map(String::as_str);
    values.any(names) || lists.filter_map(Ref::text).chain(image).any(names)
}

fn ports(world: &World, findings: &mut Vec<Finding>) {
    let known = declarations(world);
    for (container, declared) in world.objects().flat_map(|(_, object)| ours(object, known)) {
        // An image that declares none leaves it to the manifest.
        let Some(exposed) = declared.ports.as_ref().filter(|ports| !ports.is_empty()) else { continue };
        let listed = container.get("ports").map_or_else(Vec::new, Ref::items);
        let numbers: Vec<Ref<'_>> = listed.into_iter().filter_map(|port| port.get("containerPort")).collect();
        for number in &numbers {
            let text = number.text().unwrap_or_default();
            if !exposed.iter().any(|port| port == text) && !is_set(container, declared, text) {
                let message = format!("the image does not declare port {text}: it has {}", exposed.join(", "));
                let finding = Finding::error("image-ports", message).at(number.place());
                // The one that no container's port answers may be the slip.
                let other = exposed.iter().find(|port| !numbers.iter().any(|number| number.text() == Some(port)));
                let names = [other.map_or("", String::as_str), "ExposedPorts"];
                findings.push(finding.also(declared.place_of(&names), "the image"));
            }
        }
        for value in container.get("env").map_or_else(Vec::new, Ref::items).into_iter().filter(|_| !numbers.is_empty())
        {
            let listens = value.text_at(&["name"]).is_some_and(|name| name.contains("LISTEN"));
            let Some(address) = value.get("value").filter(|_| listens) else { continue };
            let Some((_, port)) = address.text().and_then(|text| text.rsplit_once(':')) else { continue };
            if port.parse::<u16>().is_ok() && !numbers.iter().any(|number| number.text() == Some(port)) {
                let message = format!("it listens on port {port}, which is none of the container's");
                findings.push(Finding::error("image-ports", message).at(address.place()));
            }
        }
    }
}

fn user(world: &World, findings: &mut Vec<Finding>) {
    let known = declarations(world);
    for (_, object) in world.objects() {
        let pod = object.pod_template().and_then(|pod| pod.at(&["spec", "securityContext"]));
        for (container, declared) in ours(object, known) {
            let field = |key: &str| container.at(&["securityContext", key]).or(pod.and_then(|pod| pod.get(key)));
            let refused = field("runAsNonRoot").filter(|value| value.text() == Some("true"));
            let image = declared.user.as_deref().map(|user| user.split(':').next().unwrap_or_default());
            let asked = field("runAsUser");
            let found = match (asked.and_then(Ref::text), image) {
                (Some("0"), _) if refused.is_some() => Some("runAsUser is root".to_owned()),
                (None, Some("" | "0" | "root")) if refused.is_some() => Some("the image's user is root".to_owned()),
                (None, Some(name)) if refused.is_some() && name.parse::<u32>().is_err() => {
                    Some(format!("the image's user is {name}, a name of which the kubelet can't tell"))
                }
                (Some(asked), Some(user)) if user.parse::<u32>().is_ok_and(|user| user != 0) && user != asked => {
                    Some(format!("the image is made for user {user}, not {asked}"))
                }
                // A name is no number that can be compared, and no good where it has to be one.
                (Some(_), Some(name)) if !["", "0", "root"].contains(&name) && name.parse::<u32>().is_err() => {
                    Some(format!("the image's user is {name}, a name and no number"))
                }
                _ => None,
            };
            if let Some(message) = found {
                let place = asked.or(refused).unwrap_or(container).place();
                let finding = Finding::error("image-user", message).at(place);
                findings.push(finding.also(declared.place_of(&["User"]), "the image"));
            }
        }
    }
}

fn args(world: &World, findings: &mut Vec<Finding>) {
    let known = declarations(world);
    for (container, declared) in world.objects().flat_map(|(_, object)| ours(object, known)) {
        let first = |key: &str| container.get(key).and_then(|list| list.items().first().copied());
        let Some(entrypoint) = &declared.entrypoint else { continue };
        let is_program =
            |word: &str| entrypoint.iter().any(|part| part.rsplit('/').next() == Some(word) || part == word);
        let found = match (first("command"), first("args"), &declared.cmd) {
            (Some(command), ..) => {
                let text = command.text().unwrap_or_default();
                let is_argument =
                    !entrypoint.is_empty() && declared.cmd.iter().flatten().next().is_some_and(|cmd| cmd == text);
                is_argument.then(|| (command, format!("{text} is an argument of the entrypoint, not a program")))
            }
            (None, Some(args), _) => {
                let text = args.text().unwrap_or_default();
                is_program(text).then(|| (args, format!("the entrypoint already is {text}")))
            }
            (None, None, Some(cmd)) if cmd.is_empty() && entrypoint.is_empty() => {
                Some((container.get("image").unwrap_or(container), "the image says nothing of what to run".to_owned()))
            }
            _ => None,
        };
        if let Some((value, message)) = found {
            let finding = Finding::error("image-args", message).at(value.place());
            findings.push(finding.also(declared.place_of(&["Entrypoint"]), "the image"));
        }
    }
}
