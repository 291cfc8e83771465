//! That everything fits its schemas is remembered beside what is rendered: an unchanged repository costs a hash.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::exec::{env, fs};
use crate::model::digest::Digest;
use crate::model::repo::Repo;
use crate::model::world::{Rendered, World, is_yaml};

/// Has this build of the program found these very objects to fit their schemas?
pub(super) fn is_known(repo: &Repo, rendered: &BTreeMap<String, Rendered>) -> bool {
    mark(repo, rendered).is_file()
}

/// Keeps it for the next run. Without a folder to keep it in, that run decodes again.
pub(super) fn remember(world: &World) {
    if !world.facts.is_decoded {
        drop(fs::write(&mark(&world.repo, &world.facts.rendered), ""));
    }
}

/// Named by everything the answer depends on: the schemas are in the program or among the objects.
fn mark(repo: &Repo, rendered: &BTreeMap<String, Rendered>) -> PathBuf {
    let mut text = env::build();
    for (folder, rendered) in rendered {
        if let Rendered::Text(source) = rendered {
            text.extend([folder, "\0", &*source.text, "\0"]);
        }
    }
    for file in repo.files.iter().filter(|file| file.path.starts_with("argocd/") && is_yaml(&file.path)) {
        text.extend([&*file.path, "\0", &*file.text, "\0"]);
    }
    let digest = Digest::of(text.as_bytes());
    env::cache_folder().join("decoded").join(&digest.as_str()["sha256:".len()..])
}
