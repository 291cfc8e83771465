//! The real program against real git, Nix, skopeo and an OCI registry. What is missing fails with how to get it.

#![expect(clippy::disallowed_methods, reason = "tests start programs themselves")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod around;
mod browser;
mod checks;
mod cleaning;
mod damage;
mod dry_run;
mod faults;
mod foreign;
mod health;
mod interrupted;
mod interruptions;
mod leaks;
mod live;
mod operations;
mod parity;
mod plan;
mod provision;
#[path = "../../stand-ins/proxy.rs"]
mod proxy;
mod push;
mod refusals;
mod rehearsal;
mod releases;
mod repairs;
mod report;
mod reports;
mod secrets;
mod smoke;
mod stage;
#[path = "../../stand-ins/servers.rs"]
mod stand_ins;
mod strangers;
#[path = "../../stand-ins/tls.rs"]
mod tls;
mod troubles;
mod unnamed;
mod whole;
#[path = "../../stand-ins/faults.rs"]
mod wrong;
