//! What the repository says, typed. Pure: text in, values and findings out.

pub(crate) mod ansible;
pub(crate) mod config;
pub(crate) mod declaration;
pub(crate) mod difference;
pub(crate) mod digest;
pub(crate) mod expectation;
pub(crate) mod failure;
pub(crate) mod finding;
pub(crate) mod fix;
pub(crate) mod grammar;
pub(crate) mod graph;
pub(crate) mod image;
pub(crate) mod inventory;
pub(crate) mod kustomization;
pub(crate) mod name;
pub(crate) mod repo;
pub(crate) mod secret;
pub(crate) mod source;
pub(crate) mod suggest;
pub(crate) mod tag;
pub(crate) mod version;
pub(crate) mod waiver;
pub(crate) mod workflow;
pub(crate) mod world;
pub(crate) mod yaml;
