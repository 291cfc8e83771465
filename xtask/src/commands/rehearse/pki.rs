//! The rehearsal's own authority, which everything on the stage trusts, and nothing outside it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::exec::workspace::Workspace;

/// Signs for the time of a rehearsal; its key is in the workspace, for the Caddies that use it as their root.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Made anew, with certificate and key in `pki/`.
    ///
    /// # Errors
    /// The workspace can't be written.
    pub(super) fn new(workspace: &Workspace) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "BlumeOps rehearsal");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("no key")?;
        private(workspace, "pki/ca.key", &key.serialize_pem())?;
        let issuer = CertifiedIssuer::self_signed(params, key).context("no authority")?;
        workspace.write("pki/ca.crt", &issuer.pem())?;
        Ok(Self { issuer })
    }

    /// The authority's certificate.
    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// `pki/NAME.crt` and `.key`, for a server and client of these names and addresses.
    ///
    /// # Errors
    /// A name is none, or the workspace can't be written.
    pub(super) fn issue(&self, workspace: &Workspace, name: &str, names: &[&str], group: Option<&str>) -> Result<()> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).context("a name of a certificate")?;
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().context("no key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("no certificate")?;
        workspace.write(&format!("pki/{name}.crt"), &certificate.pem())?;
        private(workspace, &format!("pki/{name}.key"), &key.serialize_pem())
    }
}

/// A key, readable by its owner alone.
pub(super) fn private(workspace: &Workspace, path: &str, text: &str) -> Result<()> {
    workspace.write(path, text)?;
    std::fs::set_permissions(workspace.path(path), Permissions::from_mode(0o600)).context("can't protect a key")
}
