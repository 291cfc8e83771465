//! Sixty and a thousand checks beside the shell's way, one after the other: `cargo bench --bench health`.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark starts programs and fails by panicking"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The slowest check: three of each run never answer.
const SLOWEST: Duration = Duration::from_secs(5);

fn main() {
    let address = serve();
    for count in [60, 1000] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &address, count);
        let (took, memory) = ours(folder.path());
        println!(
            "{count} checks, three to a time-out: {:.2} s, {:.2} of the slowest; at most {memory} MB",
            took.as_secs_f64(),
            took.as_secs_f64() / SLOWEST.as_secs_f64()
        );
    }
    let started = Instant::now();
    for number in 0..60 {
        let mut curl = Command::new("curl");
        curl.args(["-sf", "--max-time", "5", "-o", "/dev/null"]).arg(url(&address, number, 60));
        curl.status().unwrap();
    }
    println!("60 checks by curl, one after the other: {:.2} s", started.elapsed().as_secs_f64());
}

fn url(address: &str, number: usize, count: usize) -> String {
    let hangs = number % (count / 3) == count / 6;
    let wait = if hangs { "hang".to_owned() } else { (20 + number * 37 % 281).to_string() };
    format!("http://{address}/{wait}")
}

/// Waits as many milliseconds as the path says.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = move || {
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap_or_default();
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                let wait = text.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
                std::thread::sleep(wait.parse().map_or(Duration::from_secs(30), Duration::from_millis));
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
            };
            std::thread::Builder::new().stack_size(128 << 10).spawn(answer).unwrap();
        }
    });
    address
}

fn write(folder: &Path, address: &str, count: usize) {
    std::fs::create_dir_all(folder.join("argocd")).unwrap();
    std::fs::create_dir_all(folder.join("xtask")).unwrap();
    let check = |number| format!("[[checks]]\nname = \"check-{number}\"\nurl = \"{}\"\n", url(address, number, count));
    std::fs::write(folder.join("xtask/blumeops.toml"), (0..count).map(check).collect::<String>()).unwrap();
}

/// How long it takes, and the most memory that it has had.
fn ours(folder: &Path) -> (Duration, u64) {
    let started = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["services-check", "--format", "json", "--root"]).arg(folder).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        most = most.max(peak.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    (started.elapsed(), most / 1024)
}
