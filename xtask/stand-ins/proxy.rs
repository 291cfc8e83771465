//! A proxy in front of a registry: counts what is sent, and breaks what it is told to break.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Fine,
    /// Answered with this status, and with a delay of no time.
    Refused(u16),
    /// The connection breaks before the registry hears of it.
    Lost,
    /// The registry gets half of the body; nobody gets an answer.
    Torn,
    /// The registry does it; half of the answer comes back.
    Unanswered,
}

/// A request that has come.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Bytes of its body.
    pub(crate) sent: usize,
    /// What the registry answered; nothing when it was not asked or its answer did not come.
    pub(crate) status: Option<u16>,
}

/// Forwards until the process ends.
pub(crate) struct Proxy {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Is told the number of a request, its method and its path.
type Decide = dyn Fn(usize, &str, &str) -> Fate + Send + Sync;

impl Proxy {
    /// In front of the registry at `real`.
    pub(crate) fn start(real: &str, decide: impl Fn(usize, &str, &str) -> Fate + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let real = real.trim_start_matches("http://").to_owned();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (list, decide): (_, Arc<Decide>) = (Arc::clone(&seen), Arc::new(decide));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (real, list, decide) = (real.clone(), Arc::clone(&list), Arc::clone(&decide));
                // A client that is killed breaks its connection: that is what this is for.
                std::thread::spawn(move || forward(client, &real, &list, &*decide).unwrap_or_default());
            }
        });
        Self { url, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of all bodies.
    pub(crate) fn sent(&self) -> usize {
        self.seen().iter().map(|seen| seen.sent).sum()
    }
}

/// One request of a connection, which ends with it.
fn forward(client: TcpStream, real: &str, list: &Mutex<Vec<Seen>>, decide: &Decide) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let mut words = head.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let length =
        head.to_lowercase().split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let length: usize = length.unwrap_or_default();
    let number = {
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Seen { method: method.clone(), path: path.clone(), sent: 0, status: None });
        list.len() - 1
    };
    let note = |change: &dyn Fn(&mut Seen)| change(&mut list.lock().unwrap_or_else(PoisonError::into_inner)[number]);
    let fate = decide(number, &method, &path);
    let wanted = if fate == Fate::Torn { length / 2 } else { length };
    let mut body = Vec::new();
    let mut piece = vec![0; 64 << 10];
    while body.len() < wanted {
        let room = piece.len().min(wanted - body.len());
        let count = reader.read(&mut piece[..room])?;
        if count == 0 {
            break;
        }
        body.extend_from_slice(&piece[..count]);
        note(&|seen| seen.sent += count);
    }
    let mut client = client;
    match fate {
        Fate::Refused(status) => {
            let answer =
                format!("HTTP/1.1 {status} X\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            client.write_all(answer.as_bytes())?;
            return client.shutdown(Shutdown::Both);
        }
        Fate::Lost => return client.shutdown(Shutdown::Both),
        Fate::Fine | Fate::Torn | Fate::Unanswered => {}
    }
    let mut registry = TcpStream::connect(real)?;
    registry.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes())?;
    registry.write_all(&body)?;
    if fate == Fate::Torn || body.len() < wanted {
        registry.shutdown(Shutdown::Both)?;
        return client.shutdown(Shutdown::Both);
    }
    let mut answer = Vec::new();
    registry.read_to_end(&mut answer)?;
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok());
    note(&|seen| seen.status = status);
    let end = if fate == Fate::Unanswered { 20.min(answer.len()) } else { answer.len() };
    client.write_all(&answer[..end])?;
    client.shutdown(Shutdown::Both)
}
