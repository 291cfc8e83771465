//! All that a registry has under a name, as far as it can be listed: tags, what they name, and what belongs to that.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::Deserialize;

use super::{MANIFESTS, Registry, body, json, next_page};
use crate::exec::parallel;
use crate::model::cleaning::{self, Holding, Holdings};
use crate::model::digest::Digest;
use crate::model::failure::Failure;

/// So many requests at once.
const AT_ONCE: usize = 8;

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Vec<String>,
}

#[derive(Deserialize)]
struct RawHolding {
    config: Option<Named>,
    #[serde(default)]
    manifests: Vec<Named>,
    subject: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    digest: String,
}

impl Registry {
    /// Every repository, where the registry tells; nothing where it does not.
    ///
    /// # Errors
    /// The registry can't be reached or answers with something else.
    pub(crate) fn repositories(&self) -> Result<Option<Vec<String>>> {
        let mut all = Vec::new();
        let mut page = Some("/v2/_catalog?n=1000".to_owned());
        while let Some(path) = page {
            let Some(mut response) = self.get(&path, "application/json")? else { return Ok(None) };
            page = next_page(&response).filter(|next| *next != path);
            all.extend(json::<Catalog>(&mut response, &path)?.repositories);
        }
        Ok(Some(all))
    }

    /// What each tag names now.
    ///
    /// # Errors
    /// The registry can't be reached, says no, or answers with something else.
    pub(crate) fn tagged(&self, repository: &str) -> Result<BTreeMap<String, Digest>> {
        let tags = self.tags(repository)?;
        let digests = parallel::map(&tags, AT_ONCE, |tag| self.manifest(repository, tag));
        let mut tagged = BTreeMap::new();
        for (tag, manifest) in tags.into_iter().zip(digests) {
            // A tag that is gone since names nothing.
            tagged.extend(manifest?.map(|manifest| (tag, manifest.digest)));
        }
        Ok(tagged)
    }

    /// Tags, manifests, what they are made of and what is attached to them. `more` are digests that may be there
    /// without a tag: no registry lists those.
    ///
    /// # Errors
    /// As [`Self::tagged`].
    pub(crate) fn holdings(&self, repository: &str, more: &BTreeSet<Digest>) -> Result<Holdings> {
        let tags = self.tagged(repository)?;
        let mut manifests = BTreeMap::<Digest, Holding>::new();
        let mut wanted: BTreeSet<Digest> = tags.values().chain(more).cloned().collect();
        // What a signature is attached to may be in use without a tag of its own.
        wanted.extend(tags.keys().filter_map(|tag| cleaning::attached_to(tag)));
        let mut lists_referrers = true;
        while !wanted.is_empty() {
            let list: Vec<Digest> = std::mem::take(&mut wanted).into_iter().collect();
            let found = parallel::map(&list, AT_ONCE, |digest| self.holding(repository, digest));
            for (digest, holding) in list.into_iter().zip(found) {
                let Some(holding) = holding? else { continue };
                wanted.extend(holding.children.iter().chain(&holding.subject).cloned());
                if lists_referrers {
                    match self.referrers(repository, &digest)? {
                        Some(referrers) => wanted.extend(referrers),
                        None => lists_referrers = false,
                    }
                }
                manifests.insert(digest, holding);
            }
            wanted.retain(|digest| !manifests.contains_key(digest));
        }
        Ok(Holdings { tags, manifests })
    }

    /// What a manifest is made of and attached to; nothing where it is not there.
    fn holding(&self, repository: &str, digest: &Digest) -> Result<Option<Holding>> {
        let path = format!("/v2/{repository}/manifests/{digest}");
        let Some(mut response) = self.get(&path, MANIFESTS)? else { return Ok(None) };
        let bytes = body(&mut response, &path)?;
        let raw: RawHolding = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::environment(format!("{}{path}: not a manifest: {error}", self.endpoint)))?;
        let read = |named: Named| self.read(&named, &path);
        Ok(Some(Holding {
            config: raw.config.map(read).transpose()?,
            children: raw.manifests.into_iter().map(read).collect::<Result<_, _>>()?,
            subject: raw.subject.map(read).transpose()?,
        }))
    }

    /// What is attached to a manifest; nothing where the registry does not list that.
    fn referrers(&self, repository: &str, digest: &Digest) -> Result<Option<Vec<Digest>>> {
        let path = format!("/v2/{repository}/referrers/{digest}");
        let Some(mut response) = self.get(&path, "application/vnd.oci.image.index.v1+json")? else { return Ok(None) };
        let index: RawHolding = json(&mut response, &path)?;
        index.manifests.iter().map(|named| self.read(named, &path)).collect::<Result<_>>().map(Some)
    }

    /// The digest that the answer to `path` names.
    fn read(&self, named: &Named, path: &str) -> Result<Digest> {
        let what = |why| Failure::environment(format!("{}{path}: {why}", self.endpoint));
        Ok(named.digest.parse().map_err(what)?)
    }
}
