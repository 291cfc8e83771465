//! Kubernetes' own programs: a control plane and a node on one machine. Settings as the programs want them, with reasons.

use super::{Invocation, line};

/// Where things of the rehearsed cluster are.
pub(crate) struct Layout<'a> {
    /// The folder of everything below.
    pub(crate) folder: &'a str,
    /// The node's address, which must not be a loopback one.
    pub(crate) address: &'a str,
    /// The control group that all pods are in.
    pub(crate) cgroup: &'a str,
}

/// The API server's port on loopback.
pub(crate) const API_PORT: u16 = 6443;

/// The name that the node has in the cluster.
pub(crate) const NODE: &str = "ringtail";

/// Pods get addresses of this network.
pub(crate) const PODS: &str = "10.244.0.0/24";

/// Where containerd listens; `/run` is the rehearsal's own.
pub(crate) const SOCKET: &str = "/run/containerd.sock";

impl Layout<'_> {
    /// etcd without waiting for the disk: what it holds is thrown away.
    pub(crate) fn etcd(&self) -> Invocation {
        let data = format!("--data-dir={}/etcd", self.folder);
        let client = ["--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"];
        let peer = [
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=default=http://127.0.0.1:2380",
        ];
        line!("etcd {data} {client...} {peer...} --unsafe-no-fsync")
    }

    pub(crate) fn api_server(&self) -> Invocation {
        let Self { folder, address, .. } = self;
        let port = format!("--secure-port={API_PORT}");
        let own = [
            format!("--tls-cert-file={folder}/pki/apiserver.crt"),
            format!("--tls-private-key-file={folder}/pki/apiserver.key"),
            format!("--token-auth-file={folder}/pki/tokens.csv"),
            format!("--service-account-key-file={folder}/pki/accounts.pub"),
            format!("--service-account-signing-key-file={folder}/pki/accounts.key"),
            // Without a certificate of its own it may not ask the kubelet for logs, nor exec.
            format!("--kubelet-client-certificate={folder}/pki/kubelet-client.crt"),
            format!("--kubelet-client-key={folder}/pki/kubelet-client.key"),
            format!("--advertise-address={address}"),
        ];
        let fixed = [
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=127.0.0.1",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged",
            // By the node's name it would have to be in a DNS.
            "--kubelet-preferred-address-types=InternalIP",
        ];
        line!("kube-apiserver {port} {own...} {fixed...}")
    }

    pub(crate) fn controllers(&self) -> Invocation {
        let folder = self.folder;
        let own = [
            format!("--kubeconfig={folder}/kubeconfig"),
            format!("--service-account-private-key-file={folder}/pki/accounts.key"),
            format!("--root-ca-file={folder}/pki/ca.crt"),
        ];
        line!(
            "kube-controller-manager {own...} --cluster-cidr=10.244.0.0/16 --allocate-node-cidrs=true --leader-elect=false"
        )
    }

    pub(crate) fn scheduler(&self) -> Invocation {
        let kubeconfig = format!("--kubeconfig={}/kubeconfig", self.folder);
        line!("kube-scheduler {kubeconfig} --leader-elect=false")
    }

    /// The limits on tracked connections belong to the machine, and stay as they are.
    pub(crate) fn proxy(&self) -> Invocation {
        let kubeconfig = format!("--kubeconfig={}/kubeconfig", self.folder);
        let name = format!("--hostname-override={NODE}");
        let limits = [
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ];
        line!("kube-proxy {kubeconfig} {name} --proxy-mode=iptables --cluster-cidr=10.244.0.0/16 {limits...}")
    }

    pub(crate) fn kubelet(&self) -> Invocation {
        let Self { folder, address, .. } = self;
        let own = [
            format!("--config={folder}/kubelet.yaml"),
            format!("--kubeconfig={folder}/kubeconfig"),
            format!("--root-dir={folder}/kubelet"),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={address}"),
        ];
        line!("kubelet {own...}")
    }

    /// A kubelet that takes the machine as it is: any control groups, swap, a disk that is nearly full.
    pub(crate) fn kubelet_configuration(&self) -> String {
        let Self { folder, address, cgroup } = self;
        format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
failCgroupV1: false
enforceNodeAllocatable: []
failSwapOn: false
localStorageCapacityIsolation: false
containerRuntimeEndpoint: unix://{SOCKET}
clusterDNS: [{address}]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
address: {address}
healthzPort: 0
podLogsDir: {folder}/podlogs
authentication: {{x509: {{clientCAFile: {folder}/pki/ca.crt}}, anonymous: {{enabled: false}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
evictionHard: {{memory.available: 0%, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}}
imageGCHighThresholdPercent: 100
# A rehearsal breaks things on purpose and does not wait five minutes for the next try.
crashLoopBackOff: {{maxContainerRestartPeriod: 5s}}
featureGates: {{KubeletCrashLoopBackOffMax: true}}
"
        )
    }

    /// How everything, kubectl included, finds the cluster; `contexts` all mean this one. The authority's certificate and
    /// a token are for an API server; who asks through a door needs none.
    pub(crate) fn kubeconfig(server: &str, credentials: Option<(&str, &str)>, contexts: &[&str]) -> String {
        let (authority, user) = credentials.map_or_else(Default::default, |(authority, token)| {
            (format!(", certificate-authority-data: {authority}"), format!("token: {token}"))
        });
        let entry = |name: &&str| format!("- {{name: {name}, context: {{cluster: stage, user: admin}}}}\n");
        let contexts_text: String = contexts.iter().map(entry).collect();
        let current = contexts.first().copied().unwrap_or_default();
        format!(
            "apiVersion: v1
kind: Config
clusters: [{{name: stage, cluster: {{server: '{server}'{authority}}}}}]
users: [{{name: admin, user: {{{user}}}}}]
contexts:
{contexts_text}current-context: {current}
"
        )
    }

    pub(crate) fn containerd(&self) -> Invocation {
        let config = format!("{}/containerd.toml", self.folder);
        line!("containerd --config {config}")
    }

    /// Root, state and network of its own; images come from the rehearsal's registry by the names of production.
    pub(crate) fn containerd_configuration(&self) -> String {
        let folder = self.folder;
        format!(
            "version = 2
root = '{folder}/containerd'
state = '/run/containerd-state'
[grpc]
  address = '{SOCKET}'
[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = '{PAUSE}'
  restrict_oom_score_adj = true
  [plugins.'io.containerd.grpc.v1.cri'.cni]
    bin_dir = '/usr/lib/cni'
    conf_dir = '{folder}/cni'
  [plugins.'io.containerd.grpc.v1.cri'.registry]
    config_path = '{folder}/registries'
"
        )
    }

    /// Pods hang on a bridge of their own.
    pub(crate) fn network(&self) -> String {
        let data = format!("{}/ipam", self.folder);
        format!(
            r#"{{"cniVersion": "0.4.0", "name": "stage", "plugins": [
  {{"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {{"type": "host-local", "dataDir": "{data}", "ranges": [[{{"subnet": "{PODS}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#
        )
    }

    /// The DNS: the names of the stage, then those of the cluster.
    pub(crate) fn corefile(&self, context: &str) -> String {
        let Self { folder, address, .. } = self;
        format!(
            ".:53 {{
  bind {address}
  errors
  hosts {folder}/hosts {{
    fallthrough
    reload 1s
  }}
  kubernetes cluster.local {{
    kubeconfig {folder}/kubeconfig {context}
  }}
}}
"
        )
    }

    pub(crate) fn coredns(&self) -> Invocation {
        let file = format!("{}/Corefile", self.folder);
        line!("coredns -conf {file}")
    }

    /// Where containerd asks for the images of `registry`.
    pub(crate) fn mirror(registry: &str, port: u16) -> String {
        format!(
            "server = 'https://{registry}'\n[host.'http://127.0.0.1:{port}']\n  capabilities = ['pull', 'resolve']\n"
        )
    }
}

/// The image that holds a pod together; the stand-in operators use it for programs of the host as well.
pub(crate) const PAUSE: &str = "blumeops.stand-in/host:1";

/// Brings the images of an archive into the node.
pub(crate) fn import(archive: &str) -> Invocation {
    line!("ctr --address {SOCKET} --namespace k8s.io images import {archive}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout<'_> = Layout { folder: "/stage", address: "100.99.0.2", cgroup: "rehearsal-x" };

    #[test]
    fn everything_stays_in_the_folder_and_on_its_addresses() {
        let all = [LAYOUT.etcd(), LAYOUT.api_server(), LAYOUT.controllers(), LAYOUT.kubelet(), LAYOUT.proxy()];
        for invocation in all {
            for argument in invocation.args.iter().filter(|argument| argument.contains("=/")) {
                assert!(argument.contains("=/stage/"), "{argument}");
            }
            assert!(!invocation.to_string().contains("0.0.0.0:"), "{invocation}");
        }
        let kubeconfig = Layout::kubeconfig("https://127.0.0.1:6443", Some(("QQ==", "token")), &["a", "b"]);
        assert!(kubeconfig.contains("current-context: a\n") && kubeconfig.matches("cluster: stage").count() == 2);
    }
}
