//! What can go wrong, and a proxy before a server that lets it go wrong with one request of all.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Before or after who is asked has acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum When {
    Before,
    After,
}

/// What goes wrong with one command or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Who asks is killed.
    Killed(When),
    /// Who asks is interrupted.
    Interrupted(When),
    /// Who is asked is killed; the connection is closed.
    Dies(When),
    /// Exit code 1; 500.
    Refuses(When),
    /// No answer for longer than anybody waits.
    Hangs(When),
    /// Half of an answer.
    Cut,
    /// From here on nobody is there.
    Gone,
}

impl Fault {
    pub(crate) const ALL: [Self; 12] = [
        Self::Killed(When::Before),
        Self::Killed(When::After),
        Self::Interrupted(When::Before),
        Self::Interrupted(When::After),
        Self::Dies(When::Before),
        Self::Dies(When::After),
        Self::Refuses(When::Before),
        Self::Refuses(When::After),
        Self::Hangs(When::Before),
        Self::Hangs(When::After),
        Self::Cut,
        Self::Gone,
    ];

    /// As the script has it.
    pub(crate) fn word(self) -> String {
        let (word, when) = match self {
            Self::Killed(when) => ("killed", Some(when)),
            Self::Interrupted(when) => ("interrupted", Some(when)),
            Self::Dies(when) => ("dies", Some(when)),
            Self::Refuses(when) => ("refuses", Some(when)),
            Self::Hangs(when) => ("hangs", Some(when)),
            Self::Cut => ("cut", None),
            Self::Gone => ("gone", None),
        };
        match when {
            Some(When::Before) => format!("{word}-before"),
            Some(When::After) => format!("{word}-after"),
            None => word.to_owned(),
        }
    }
}

/// What goes wrong with which request, of all proxies that share it.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) fault: Mutex<Option<(usize, Fault)>>,
    /// The requests so far, and whether there was a body in the answer.
    pub(crate) seen: Mutex<Vec<(String, bool)>>,
    pub(crate) came: AtomicBool,
    /// Who is killed or interrupted; nobody once it has ended, since its number may soon be another's.
    pub(crate) victim: Mutex<Option<Pid>>,
}

impl Plan {
    /// What goes wrong with the next request, and its place among all.
    fn turn(&self, request: &str) -> (usize, Option<Fault>) {
        let mut seen = locked(&self.seen);
        let at = seen.len();
        seen.push((request.to_owned(), false));
        let fault = match *locked(&self.fault) {
            Some((place, fault)) if place == at || (fault == Fault::Gone && place < at) => Some(fault),
            _ => None,
        };
        if fault.is_some() {
            self.came.store(true, Ordering::SeqCst);
        }
        (at, fault)
    }

    fn signal(&self, signal: Signal) {
        // Held meanwhile: it does not end for good before this is over.
        let victim = locked(&self.victim);
        if let Some(pid) = *victim {
            kill_process(pid, signal).unwrap_or_default();
        }
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A proxy before one server; it answers until dropped.
pub(crate) struct Proxy {
    pub(crate) url: String,
    address: String,
    over: Arc<AtomicBool>,
}

impl Proxy {
    /// Before the server at `url`.
    pub(crate) fn before(url: &str, plan: &Arc<Plan>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let upstream = url.trim_start_matches("http://").to_owned();
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, plan) = (Arc::clone(&over), Arc::clone(plan));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (plan, upstream) = (Arc::clone(&plan), upstream.clone());
                // A client that goes away in the middle is what this is for.
                std::thread::spawn(move || drop(serve(&plan, &upstream, client)));
            }
        });
        Self { url: format!("http://{address}"), address, over }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(&self.address));
    }
}

/// One request on one connection: so each has a place of its own.
fn serve(plan: &Plan, upstream: &str, mut client: TcpStream) -> std::io::Result<()> {
    let Some(head) = read_head(&mut client)? else { return Ok(()) };
    let request = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let (at, fault) = plan.turn(&request);
    match fault {
        Some(Fault::Killed(When::Before)) => {
            plan.signal(Signal::KILL);
            return Ok(());
        }
        Some(Fault::Dies(When::Before) | Fault::Gone) => return Ok(()),
        Some(Fault::Interrupted(When::Before)) => plan.signal(Signal::INT),
        Some(Fault::Hangs(When::Before)) => return hang(&mut client),
        _ => {}
    }
    let body = read_body(&head, &mut client)?;
    if fault == Some(Fault::Refuses(When::Before)) {
        return answer(&mut client, ILL);
    }
    let whole = forward(upstream, &head, &body)?;
    let start = whole.windows(4).position(|four| four == b"\r\n\r\n").map_or(whole.len(), |at| at + 4);
    locked(&plan.seen)[at].1 = start < whole.len();
    match fault {
        Some(Fault::Killed(_)) => plan.signal(Signal::KILL),
        Some(Fault::Interrupted(When::After)) => plan.signal(Signal::INT),
        Some(Fault::Dies(_)) => return Ok(()),
        Some(Fault::Refuses(_)) => return answer(&mut client, ILL),
        Some(Fault::Hangs(_)) => return hang(&mut client),
        Some(Fault::Cut) => return answer(&mut client, &whole[..usize::midpoint(start, whole.len())]),
        _ => {}
    }
    answer(&mut client, &whole)
}

const ILL: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\nConnection: close\r\n\r\nill";

fn answer(client: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    client.write_all(bytes)?;
    client.shutdown(Shutdown::Write)
}

/// Until whoever waits gives up.
fn hang(client: &mut TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut some = [0; 4096];
    while client.read(&mut some)? > 0 {}
    Ok(())
}

/// The head of a request with the empty line; nothing where none comes.
fn read_head(client: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match client.read(&mut byte)? {
            0 => return Ok(None),
            _ => head.push(byte[0]),
        }
    }
    String::from_utf8(head).map(Some).map_err(|_| ErrorKind::InvalidData.into())
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let pairs = head.lines().filter_map(|line| line.split_once(':'));
    pairs.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
}

/// The body as it came, with the lengths of its chunks where it has them.
fn read_body(head: &str, client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    if header(head, "expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = Vec::new();
    if header(head, "transfer-encoding").is_some() {
        while !(body.ends_with(b"0\r\n\r\n") && (body.len() == 5 || body.ends_with(b"\r\n0\r\n\r\n"))) {
            let mut some = [0; 4096];
            match client.read(&mut some)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => body.extend(&some[..count]),
            }
        }
        return Ok(body);
    }
    let length = header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    body.resize(length, 0);
    client.read_exact(&mut body)?;
    Ok(body)
}

/// The whole answer. Each request has a connection of its own here too, so that its end is the answer's.
fn forward(upstream: &str, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream)?;
    let kept = head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let head: String = kept.flat_map(|line| [line, "\r\n"]).collect();
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    server.write_all(body)?;
    let mut whole = Vec::new();
    server.read_to_end(&mut whole)?;
    Ok(whole)
}
