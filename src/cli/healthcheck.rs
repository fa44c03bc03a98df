//! `trunkline healthcheck`: asks a running process whether it is ready, for images without a shell or curl.
//!
//! Exit code 0 or 1 and nothing else, because that is all that container runtimes know. It asks `/readyz`: a process
//! that does not answer there is neither ready nor alive.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::config_file::ConfigFile;

#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    #[command(flatten)]
    file: ConfigFile,
    /// Ask here instead of at the configuration's admin.probes or admin.address
    #[arg(long, value_name = "ADDR", env = "TRUNKLINE_HEALTHCHECK_ADDRESS")]
    address: Option<SocketAddr>,
}

pub(super) fn healthcheck(arguments: &Healthcheck) -> Result<(), Failure> {
    let address = match arguments.address {
        Some(address) => address,
        None => configured(&arguments.file).map_err(Failure::Runtime)?,
    };
    let address = reachable(address);
    match status(address) {
        Ok(200) => Ok(()),
        Ok(status) => Err(Failure::Runtime(format!("not ready: http://{address}{PATH} answered {status}"))),
        Err(error) => Err(Failure::Runtime(format!("not ready: http://{address}{PATH}: {error}"))),
    }
}

fn configured(file: &ConfigFile) -> Result<SocketAddr, String> {
    let admin = file.admin().map_err(|errors| {
        format!("cannot tell where to ask; give --address, or a configuration whose `admin` is right:\n{errors}")
    })?;
    admin.probes.or(admin.address).ok_or_else(|| "neither admin.probes nor admin.address is configured".to_owned())
}

/// Listening on every interface includes loopback, which is the one to ask.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

fn status(address: SocketAddr) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // In one write: whoever answers before the end of a request may have closed before the next.
    stream.write_all(format!("GET {PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    // `HTTP/1.1 200` is all that is needed; the process may close before the rest is read.
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let status = line.strip_prefix(b"HTTP/1.1 ").and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1.1"))
}

const PATH: &str = "/readyz";
/// Below the 3 seconds that probes usually have.
const TIMEOUT: Duration = Duration::from_secs(2);
