//! Namespaces, addresses and mounts: a machine within the machine, gone with its last process.

use std::path::Path;

use super::{Invocation, line};

/// Runs `inner` as the whole world of its own processes, mounts and networks. Whoever kills this ends all of it.
pub(crate) fn enclosed(inner: Invocation) -> Invocation {
    let Invocation { program, args, .. } = &inner;
    let own = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"];
    // The first process of such a world is the parent of all orphans: dumb-init buries them.
    let outer = line!("setpriv --pdeathsig KILL unshare {own...} dumb-init --single-child -- {program} {args...}");
    Invocation { program: outer.program, args: outer.args, ..inner }
}

/// A world of its own starts without even loopback.
pub(crate) fn loopback() -> Invocation {
    line!("ip link set lo up")
}

/// A bridge called `name` that has `addresses`, and the way to everywhere.
pub(crate) fn bridge(name: &str, addresses: &[&str]) -> Vec<Invocation> {
    let mut lines = vec![line!("ip link add {name} type bridge"), line!("ip link set {name} up")];
    lines.extend(addresses.iter().map(|address| {
        let address = format!("{address}/24");
        line!("ip addr add {address} dev {name}")
    }));
    // Nothing is there, but programs want to have a route before they choose an address.
    lines.push(line!("ip route add default dev {name}"));
    lines
}

/// What is sent to `address` at `port` comes to `to`, from here and from pods.
pub(crate) fn redirect(address: &str, port: u16, to: u16) -> Vec<Invocation> {
    let (port, to) = (port.to_string(), to.to_string());
    let rule = |chain: &str| {
        line!(
            "iptables --table nat --append {chain} --destination {address} --protocol tcp --dport {port} --jump REDIRECT --to-ports {to}"
        )
    };
    vec![rule("OUTPUT"), rule("PREROUTING")]
}

/// `file` in place of what is at `path`.
pub(crate) fn bind(file: &str, path: &Path) -> Invocation {
    line!("mount --bind {file} {path}")
}

/// An empty folder in place of what is at `path`.
pub(crate) fn empty(path: &str) -> Invocation {
    line!("mount --types tmpfs tmpfs {path}")
}

#[cfg(test)]
mod tests {
    use super::super::line;
    use super::{bridge, enclosed};

    #[test]
    fn what_runs_inside_ends_with_what_started_it() {
        let shown = enclosed(line!("xtask rehearse")).to_string();
        assert!(shown.starts_with("setpriv --pdeathsig KILL unshare --mount --net --pid"), "{shown}");
        assert!(
            shown.contains("--kill-child") && shown.ends_with("dumb-init --single-child -- xtask rehearse"),
            "{shown}"
        );
        assert_eq!(bridge("node0", &["100.99.0.1"])[2].to_string(), "ip addr add 100.99.0.1/24 dev node0");
    }
}
