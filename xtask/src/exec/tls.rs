//! TLS: the certificate that a server shows, once it has been verified as every request verifies it.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// The certificate of `host` in DER.
///
/// # Errors
/// Why there is no connection, in the words of the library.
pub(crate) fn certificate(host: &str, port: u16, limit: Duration) -> Result<Vec<u8>, String> {
    let mut stream = connect(host, port, limit)?;
    let name = host.to_owned().try_into().map_err(|_| format!("{host} is not a name"))?;
    let mut connection = ClientConnection::new(config()?, name).map_err(|error| error.to_string())?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(|error| error.to_string())?;
    }
    let shown = connection.peer_certificates().and_then(|chain| chain.first());
    shown.map(|certificate| certificate.to_vec()).ok_or_else(|| "it shows no certificate".to_owned())
}

/// A connection, from whichever address answers first in order, with the rest of `limit` for every read and write.
///
/// # Errors
/// The name does not resolve or nobody answers.
pub(crate) fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let end = Instant::now() + limit;
    let addresses = (host, port).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                let left = Some(end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
                let set = stream.set_read_timeout(left).and_then(|()| stream.set_write_timeout(left));
                return set.map(|()| stream).map_err(|error| error.to_string());
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Reading the machine's authorities takes a while: once is enough.
fn config() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let make = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let builder = builder.with_platform_verifier().map_err(|error| error.to_string())?;
        Ok(Arc::new(builder.with_no_client_auth()))
    };
    CONFIG.get_or_init(make).clone()
}
