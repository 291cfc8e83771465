//! Stand-in for what is behind a name: web servers with certificates of every kind, reached directly or through a proxy.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Nothing,
    Expired,
    NotYet,
    OtherName,
    SelfSigned,
    /// By an authority that nobody trusts.
    Stranger,
    /// Three days are left.
    Ending,
}

/// An authority of the test's own.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What a request is answered with: by its method, its host, its path and its body.
pub(crate) type Handler = Arc<dyn Fn(&str, &str, &str, &str) -> String + Send + Sync>;

impl Authority {
    pub(crate) fn new() -> Self {
        Self::called("an authority of a test")
    }

    fn called(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn config(&self, names: &[&str], flaw: Flaw) -> Arc<ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let names = if flaw == Flaw::OtherName { vec!["other.example".to_owned()] } else { names };
        let mut params = CertificateParams::new(names).expect("names");
        let day = Duration::from_secs(86400);
        let today = std::time::SystemTime::now();
        let (start, end) = match flaw {
            Flaw::Expired => (today - day * 90, today - day),
            Flaw::NotYet => (today + day, today + day * 90),
            Flaw::Ending => (today - day * 87, today + day * 3),
            _ => (today - day, today + day * 89),
        };
        (params.not_before, params.not_after) = (start.into(), end.into());
        let key = KeyPair::generate().expect("a key");
        let certificate = match flaw {
            Flaw::SelfSigned => params.self_signed(&key),
            Flaw::Stranger => params.signed_by(&key, &Self::called("nobody that is trusted").issuer),
            _ => params.signed_by(&key, &self.issuer),
        };
        let chain: Vec<CertificateDer<'static>> = vec![certificate.expect("a certificate").der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("protocols").with_no_client_auth();
        Arc::new(builder.with_single_cert(chain, key).expect("a certificate with its key"))
    }

    /// Serves these names; as a proxy it takes whatever it is asked to reach for itself. The port is of loopback.
    pub(crate) fn serve(&self, names: &[&str], flaw: Flaw, handler: Handler) -> u16 {
        let config = self.config(names, flaw);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, handler) = (Arc::clone(&config), Arc::clone(&handler));
                std::thread::spawn(move || drop(converse(stream, config, &handler)));
            }
        });
        port
    }
}

fn converse(mut stream: TcpStream, config: Arc<ServerConfig>, handler: &Handler) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut first = [0];
    stream.peek(&mut first)?;
    if first == *b"C" {
        // CONNECT name:port HTTP/1.1, up to the empty line.
        let mut end = [0; 4];
        while end != *b"\r\n\r\n" {
            end.rotate_left(1);
            stream.read_exact(&mut end[3..])?;
        }
        stream.write_all(b"HTTP/1.1 200 here\r\n\r\n")?;
    }
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let (mut host, mut length) = (String::new(), 0);
        loop {
            let mut header = String::new();
            stream.read_line(&mut header)?;
            let lower = header.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("host:") {
                value.trim().clone_into(&mut host);
            }
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if header.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let answer = handler(&method, &host, &path, &String::from_utf8_lossy(&body));
        stream.get_mut().write_all(answer.as_bytes())?;
    }
}

/// A whole answer.
pub(crate) fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
