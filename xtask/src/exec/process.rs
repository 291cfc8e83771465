//! What the processes of a container do, as the kernel tells: users, ports, mounts, memory.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) program: String,
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// What was seen at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// The first process, then the others.
    pub(crate) processes: Vec<Identity>,
    pub(crate) tcp: Vec<SocketAddr>,
    pub(crate) udp: Vec<SocketAddr>,
    pub(crate) root_is_read_only: bool,
    /// How often the kernel has ended a process for want of memory.
    pub(crate) killed: u64,
}

/// Owner and mode of a folder; nothing where it can't be read.
pub(crate) fn owner(path: &Path) -> Option<(u32, u32, u32)> {
    path.metadata().ok().map(|metadata| (metadata.uid(), metadata.gid(), metadata.mode()))
}

/// The most files that we may have open, where an engine would ask for more than we may give.
pub(crate) fn file_limit() -> Option<u64> {
    /// What podman asks for.
    const ASKED: u64 = 1 << 20;
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.filter(|most| *most < ASKED)
}

/// Text that nobody can guess: 256 bits in hexadecimal.
///
/// # Errors
/// The kernel gives none.
pub(crate) fn random() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

/// By which address whoever is at `other` reaches this machine; nothing is sent.
///
/// # Errors
/// There is no way there.
pub(crate) fn address_for(other: IpAddr) -> std::io::Result<IpAddr> {
    let any = if other.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect((other, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// What this machine is called.
pub(crate) fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Looks at the container whose first process is `pid`.
///
/// # Errors
/// It has ended.
#[cfg(target_os = "linux")]
pub(crate) fn look(pid: i32) -> Result<Look, String> {
    use procfs::net::{TcpState, UdpState};
    use procfs::process::{Process, all_processes};
    let words = |error: procfs::ProcError| error.to_string();
    let first = Process::new(pid).map_err(words)?;
    let space = |process: &Process| {
        let all = process.namespaces().ok()?;
        all.0.get(std::ffi::OsStr::new("pid")).map(|space| space.identifier)
    };
    let own = space(&first).ok_or("its namespaces can't be read")?;
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/gid_map")).unwrap_or_default();
    let identity = |process: &Process| {
        let status = process.status().ok()?;
        let (user, group) = (inside(&map, status.euid)?, inside(&groups, status.egid)?);
        Some(Identity { program: status.name, user, group })
    };
    let others = all_processes().map_err(words)?.flatten();
    let others = others.filter(|process| process.pid != pid && space(process) == Some(own));
    let mut processes: Vec<Identity> = identity(&first).into_iter().collect();
    processes.extend(others.filter_map(|process| identity(&process)));
    let listens = |entry: &procfs::net::TcpNetEntry| entry.state == TcpState::Listen;
    let tcp = first.tcp().map_err(words)?.into_iter().chain(first.tcp6().unwrap_or_default());
    let udp = first.udp().unwrap_or_default().into_iter().chain(first.udp6().unwrap_or_default());
    let mounts = first.mountinfo().map_err(words)?;
    let root = mounts.into_iter().find(|mount| mount.mount_point == Path::new("/"));
    Ok(Look {
        processes,
        tcp: tcp.filter(listens).map(|entry| entry.local_address).collect(),
        udp: udp.filter(|entry| entry.state == UdpState::Close).map(|entry| entry.local_address).collect(),
        root_is_read_only: root.is_some_and(|root| root.mount_options.contains_key("ro")),
        killed: killed(&first),
    })
}

/// Everywhere else containers run in a virtual machine, which hides them.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub(crate) fn look(_: i32) -> Result<Look, String> {
    Err("the processes of a container can be seen on Linux only".to_owned())
}

/// An outside number as the container has it: the identity where it has no users of its own.
fn inside(map: &str, outside: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (inner, outer, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let offset = outside.checked_sub(outer).filter(|offset| *offset < count)?;
        Some(inner + offset)
    })
}

#[cfg(target_os = "linux")]
fn killed(process: &procfs::process::Process) -> u64 {
    let groups = process.cgroups().map(|groups| groups.0).unwrap_or_default();
    let counts = groups.iter().filter_map(|group| {
        let (folder, file) = match group.controllers.iter().any(|name| name == "memory") {
            true => ("/sys/fs/cgroup/memory", "memory.oom_control"),
            false if group.hierarchy == 0 => ("/sys/fs/cgroup", "memory.events"),
            false => return None,
        };
        let text = std::fs::read_to_string(format!("{folder}{}/{file}", group.pathname)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok())
    });
    counts.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_translated() {
        assert_eq!(inside("0 0 4294967295\n", 65534), Some(65534));
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!([inside(map, 1000), inside(map, 165_533), inside(map, 5)], [Some(0), Some(65534), None]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn we_see_ourselves() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let look = look(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(look.tcp.contains(&listener.local_addr().unwrap()));
        assert_eq!(look.processes[0].user, rustix::process::geteuid().as_raw());
        assert!(super::look(i32::MAX).is_err());
    }
}
