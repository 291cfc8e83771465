//! A push of 100 layers and 1 GB beside skopeo's, to the same registry: `cargo bench --bench push`.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark starts programs and fails by panicking"
)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

/// Layers of store paths; one more is what is in none.
const PATHS: usize = 99;

/// Bytes of each.
const SIZE: u64 = 10_200_000;

/// Larger files would make layers uneven.
const LARGEST: u64 = 4_000_000;

/// What is measured, in this order: each finds what the one before has left.
const CASES: [&str; 3] = ["first push", "unchanged", "one small layer changed"];

/// Who pushes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Ours,
    SkopeoArchive,
    SkopeoFolder,
}

impl Who {
    const ALL: [Self; 3] = [Self::Ours, Self::SkopeoArchive, Self::SkopeoFolder];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "cargo xtask registry push",
            Self::SkopeoArchive => "gzip, skopeo copy docker-archive:",
            Self::SkopeoFolder => "skopeo copy dir:",
        }
    }
}

/// What a push has cost.
#[derive(Clone, Copy)]
struct Cost {
    took: Duration,
    /// Of all processors together.
    processor: Duration,
    /// The most memory and the most temporary bytes that it had at once.
    memory: u64,
    temporary: u64,
}

/// An image in every form that is pushed.
struct Image {
    conf: String,
    /// What nix-build leaves of an image: skopeo 1.9 misreads gzip, so it is unpacked first, and newer ones do that
    /// themselves.
    archive: PathBuf,
    /// Finished layers, not compressed, each named by its digest.
    folder: PathBuf,
}

struct Bench {
    folder: PathBuf,
    /// As it is, and with another note in it.
    images: [Image; 2],
}

fn main() {
    let folder = PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/push"));
    fs::create_dir_all(folder.join("root/containers")).unwrap();
    fs::create_dir_all(folder.join("root/xtask")).unwrap();
    let configuration = "[registry]\nhost = \"registry.example\"\nnamespace = \"blumeops\"\n";
    fs::write(folder.join("root/xtask/blumeops.toml"), configuration).unwrap();
    println!("making the image from this machine's own programs");
    let images = ["first", "second"].map(|note| image(&folder, note));
    run(&mut Command::new("sync"));
    let bench = Bench { folder, images };
    let size = size(&bench.images[0].folder);
    println!("{} layers, {:.2} GB uncompressed; registry, pushes and all on one machine\n", PATHS + 1, giga(size));
    println!(
        "| what | who | cold cache | warm cache | processors, warm | memory at most | temporary at most | sent |\n|---|---|---|---|---|---|---|---|"
    );
    let costs = Who::ALL.map(|who| {
        let [cold, warm] = [true, false].map(|cold| bench.pushes(who, cold));
        (who, cold, warm, bench.sent(who))
    });
    for (case, what) in CASES.iter().enumerate() {
        for (who, cold, warm, sent) in &costs {
            let most = |of: fn(&Cost) -> u64| mega(of(&cold[case]).max(of(&warm[case])));
            let processor = warm[case].processor.as_secs_f64();
            let (cold, warm) = (cold[case].took.as_secs_f64(), warm[case].took.as_secs_f64());
            let (memory, temporary) = (most(|cost| cost.memory), most(|cost| cost.temporary));
            let (who, sent) = (who.name(), mega(sent[case]));
            println!(
                "| {what} | {who} | {cold:.3} s | {warm:.3} s | {processor:.2} s | {memory:.1} MB | {temporary:.1} MB | {sent:.2} MB |"
            );
        }
    }
    println!();
    for (who, cold, warm, _) in &costs[1..] {
        let mut line = format!("times as long as ours, {}:", who.name());
        for (case, what) in CASES.iter().enumerate() {
            let times = |theirs: &Cost, ours: &Cost| theirs.took.as_secs_f64() / ours.took.as_secs_f64();
            let (cold, warm) = (times(&cold[case], &costs[0].1[case]), times(&warm[case], &costs[0].2[case]));
            write!(line, " {what} {cold:.1} cold, {warm:.1} warm;").unwrap();
        }
        println!("{}", line.trim_end_matches(';'));
    }
    nix2container();
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn giga(bytes: u64) -> f64 {
    mega(bytes) / 1e3
}

/// Its skopeo is a patched one; the patch and what it needs are Go modules.
fn nix2container() {
    let mut list = Command::new("go");
    list.args(["list", "-m", "github.com/nlewo/nix2container@latest"]).env("GOFLAGS", "-mod=mod").current_dir("/");
    let why = match list.output() {
        Ok(output) if output.status.success() => {
            "the Go module proxy has it, but this benchmark has never built it".to_owned()
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "),
        Err(error) => format!("go: {error}"),
    };
    println!("nix2container's skopeo: not measured: {why}");
    println!(
        "skopeo copy dir: has what nix2container's has, finished layers with known digests, and need not make them"
    );
}

/// Builds the image with Nix and the stand-in nixpkgs, and brings it into the forms that others push.
fn image(folder: &Path, note: &str) -> Image {
    let layers: String = contents().iter().enumerate().fold(String::new(), |mut text, (number, files)| {
        let files: Vec<String> = files.iter().map(|file| format!("\"{}\"", file.display())).collect();
        writeln!(text, "(layer \"{number:03}\" [ {} ])", files.join(" ")).unwrap();
        text
    });
    let expression = format!(
        r#"let
  pkgs = import {}/stand-ins/nixpkgs {{ }};
  layer = number: files: derivation {{
    name = "layer-${{number}}";
    inherit number files;
    system = builtins.currentSystem;
    builder = "/bin/bash";
    args = [ "-c" ''mkdir -p $out/share && n=0 && for file in $files; do n=$((n + 1)); {{ cat $file; echo $number; }} > $out/share/$number-$n; done'' ];
    PATH = "/usr/bin:/bin";
  }};
in
pkgs.dockerTools.buildLayeredImage {{
  name = "blumeops/bench";
  maxLayers = {};
  contents = [ {layers} ];
  extraCommands = "echo {note} > note";
}}
"#,
        env!("CARGO_MANIFEST_DIR"),
        PATHS + 2
    );
    let file = folder.join("image.nix");
    fs::write(&file, expression).unwrap();
    let build = |more: &[&str]| {
        let mut build = Command::new("nix-build");
        build
            .args(["--no-out-link", "--quiet"])
            .arg(&file)
            .args(more)
            .env("NIX_REMOTE", store(folder))
            .stderr(Stdio::inherit());
        build.env("NIX_CONFIG", "sandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64 /etc/ld.so.cache\nbuild-users-group =\nsubstituters =");
        run(&mut build).trim().to_owned()
    };
    let (conf, packed) = (build(&["-A", "stream.conf"]), build(&[]));
    let archive = folder.join("nix").join(packed.trim_start_matches('/'));
    let (plain, layout) = (folder.join("plain.tar"), folder.join(format!("{note}.dir")));
    run(&mut unpack(&archive, &plain));
    drop(fs::remove_dir_all(&layout));
    let (from, to) = (format!("docker-archive:{}", plain.display()), format!("dir:{}", layout.display()));
    run(Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", &from, &to]));
    fs::remove_file(plain).unwrap();
    Image { conf, archive, folder: layout }
}

fn unpack(archive: &Path, plain: &Path) -> Command {
    let mut gzip = Command::new("gzip");
    gzip.args(["--decompress", "--stdout"]).arg(archive).stdout(File::create(plain).unwrap());
    gzip
}

fn store(folder: &Path) -> String {
    format!("local?root={}", folder.join("nix").display())
}

/// For each layer, files of this machine: programs and libraries, in an order that is always the same.
fn contents() -> Vec<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["/usr/bin", "/usr/lib"] {
        files(Path::new(folder), &mut found);
    }
    found.sort();
    // A small machine's files come again: each layer adds its number to them.
    let mut files = found.iter().cycle();
    let mut layer = || {
        let mut size = 0;
        let mut layer = Vec::new();
        while size < SIZE {
            let (path, length) = files.next().expect("this machine has programs");
            size += length;
            layer.push(path.clone());
        }
        layer
    };
    (0..PATHS).map(|_| layer()).collect()
}

fn files(folder: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        let plain = entry.path().to_str().is_some_and(|path| !path.contains([' ', '"', '$', '\\', '\'']));
        if metadata.is_dir() {
            files(&entry.path(), found);
        } else if metadata.is_file() && plain && (20_000..LARGEST).contains(&metadata.len()) {
            found.push((entry.path(), metadata.len()));
        }
    }
}

impl Bench {
    /// One push after the other, into a registry that is empty at first.
    fn pushes(&self, who: Who, cold: bool) -> Vec<Cost> {
        let registry = Registry::start(&self.folder);
        let image = |case: usize| &self.images[usize::from(case == 2)];
        (0..CASES.len())
            .map(|case| {
                self.settle(image(case), cold);
                self.measured(self.push(who, image(case), &registry.address, case))
            })
            .collect()
    }

    /// What is sent by each of the same pushes.
    fn sent(&self, who: Who) -> Vec<u64> {
        let registry = Registry::start(&self.folder);
        let (address, counted) = relay(&registry.address);
        let mut before = 0;
        (0..CASES.len())
            .map(|case| {
                self.measured(self.push(who, &self.images[usize::from(case == 2)], &address, case));
                let all = counted.load(Ordering::SeqCst);
                let sent = all - before;
                before = all;
                sent
            })
            .collect()
    }

    /// The commands of a push, to be run one after the other.
    fn push(&self, who: Who, image: &Image, registry: &str, case: usize) -> Vec<Command> {
        let tag = if case == 2 { "v1.0.1-nix" } else { "v1.0.0-nix" };
        let plain = self.temporary().join("plain.tar");
        let mut command;
        if who == Who::Ours {
            command = Command::new(env!("CARGO_BIN_EXE_xtask"));
            command.args(["registry", "push", &image.conf, &format!("blumeops/bench:{tag}"), "--root"]);
            command.arg(self.folder.join("root")).env("NIX_REMOTE", store(&self.folder));
            command.env("BLUMEOPS_REGISTRY_URL", format!("http://{registry}"));
        } else {
            let from = match who {
                Who::SkopeoFolder => format!("dir:{}", image.folder.display()),
                _ => format!("docker-archive:{}", plain.display()),
            };
            command = Command::new("skopeo");
            command.args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--format",
                "v2s2",
                "--dest-tls-verify=false",
                &from,
            ]);
            command.arg(format!("docker://{registry}/blumeops/bench:{tag}"));
        }
        command.env("TMPDIR", self.temporary()).stdout(Stdio::null()).stderr(Stdio::null());
        if who == Who::SkopeoArchive { vec![unpack(&image.archive, &plain), command] } else { vec![command] }
    }

    fn temporary(&self) -> PathBuf {
        let folder = self.folder.join("temporary");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Has the image's files in memory, or none of them.
    fn settle(&self, image: &Image, cold: bool) {
        let mut all = vec![image.archive.clone()];
        let mut folders = vec![image.folder.clone(), self.folder.join("nix/nix/store")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    all.push(entry.path());
                }
            }
        }
        for path in all {
            let mut file = File::open(&path).unwrap();
            if cold {
                fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            } else {
                std::io::copy(&mut file, &mut std::io::sink()).unwrap();
            }
        }
    }

    fn measured(&self, commands: Vec<Command>) -> Cost {
        let mut cost = Cost { took: Duration::ZERO, processor: Duration::ZERO, memory: 0, temporary: 0 };
        for mut command in commands {
            let started = Instant::now();
            let mut child = command.spawn().unwrap();
            let (mut round, mut processor) = (0_u32, Duration::ZERO);
            let status = loop {
                cost.memory = cost.memory.max(peak(child.id()));
                processor = processor.max(used(child.id()));
                if round.is_multiple_of(20) {
                    cost.temporary = cost.temporary.max(size(&self.temporary()));
                }
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                round += 1;
                std::thread::sleep(Duration::from_millis(1));
            };
            cost.took += started.elapsed();
            cost.processor += processor;
            assert!(status.success(), "{command:?} failed");
        }
        drop(fs::remove_dir_all(self.temporary()));
        cost
    }
}

/// User and system time, in the hundredths of a second in which Linux tells them.
fn used(process: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

fn peak(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kilo =
        text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    kilo.unwrap_or(0) * 1024
}

fn size(folder: &Path) -> u64 {
    let one = |path: PathBuf| {
        let metadata = path.symlink_metadata().ok();
        metadata.map_or(0, |metadata| if metadata.is_dir() { size(&path) } else { metadata.len() })
    };
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| one(entry.path())).sum()
}

/// Debian's docker-registry with nothing in it.
struct Registry {
    address: String,
    folder: PathBuf,
    child: Child,
}

impl Registry {
    fn start(folder: &Path) -> Self {
        let folder = folder.join("registry");
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let place = folder.display();
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}/blobs}}}}\nhttp: {{addr: '{address}'}}\n"
        );
        fs::write(folder.join("registry.yml"), text).unwrap();
        let mut serve = Command::new("docker-registry");
        serve.arg("serve").arg(folder.join("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let child = serve.spawn().expect("docker-registry is missing: cargo xtask setup --yes --for tests");
        while TcpStream::connect(&address).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { address, folder, child }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Another address of the registry, where what is sent to it is counted.
fn relay(registry: &str) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sent = Arc::new(AtomicU64::new(0));
    let (registry, counter) = (registry.to_owned(), Arc::clone(&sent));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&registry).unwrap();
            let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                drop(std::io::copy(&mut answers, &mut back));
                drop(back.shutdown(Shutdown::Both));
            });
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || count(client, server, &counter));
        }
    });
    (address, sent)
}

fn count(mut client: TcpStream, mut server: TcpStream, counter: &AtomicU64) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length) = client.read(&mut piece) {
        if length == 0 || server.write_all(&piece[..length]).is_err() {
            break;
        }
        counter.fetch_add(length as u64, Ordering::SeqCst);
    }
    drop(server.shutdown(Shutdown::Both));
}

/// Runs to success; gives its stdout.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
