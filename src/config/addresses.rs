//! What addresses and URLs may look like.
//!
//! Each rule refuses what the data plane could not serve, and says what to write instead.
//!
//! Pure. RFC 3986 §3.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use super::parse::is_host;
use super::rules::{Parsed, Wrong, quoted, wrong};
use super::{Endpoint, ListenAddress, Location, Protocol, TrustedPeer};

/// Where clients connect: an IP address and a port, or the path of a Unix socket.
pub(super) const LISTEN: Parsed<ListenAddress> = Parsed {
    wanted: "an address, for example 127.0.0.1:8080, or unix:/run/trunkline.sock",
    pattern: r"^(unix:/.+|.+:[0-9]+)$",
    parse: |text| match text.strip_prefix("unix:") {
        Some(path) => unix_path(text, "unix:", path).map(ListenAddress::Unix),
        None => address(text).map(ListenAddress::Tcp),
    },
};

/// An IP address and a port, or `none`.
pub(super) const ADDRESS_OR_NONE: Parsed<Option<SocketAddr>> = Parsed {
    wanted: "an address, for example 127.0.0.1:9900, or none",
    pattern: r"^(none|.+:[0-9]+)$",
    parse: |text| if text == "none" { Ok(None) } else { address(text).map(Some) },
};

/// `scheme://host:port` or `scheme+unix:/path`, weight 1.
pub(super) const ENDPOINT: Parsed<Endpoint> = Parsed {
    wanted: "a URL, for example h2c://10.0.0.11:9000",
    pattern: r"^((h2c|http1?)\+unix:/.+|(h2c|h2|http1|https?)://[^/?#@]+:[0-9]+)$",
    parse: endpoint,
};

/// An address, a network, or `unix`.
pub(super) const TRUSTED_PEER: Parsed<TrustedPeer> = Parsed {
    wanted: "a network, an address, or unix, for example 10.0.0.0/8",
    pattern: r"^(unix|[0-9A-Fa-f.:]+(/[0-9]+)?)$",
    parse: trusted_peer,
};

fn address(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let found = quoted(text);
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return wrong(format!("{found} has no port"), format!("write {}", SocketAddr::new(ip, 8080)));
    }
    if let Ok(port) = text.trim_start_matches("*:").trim_start_matches(':').parse::<u16>() {
        let (any, local) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST);
        return wrong(
            format!("{found} has no IP address"),
            format!("write {local}:{port} for this machine only, or {any}:{port} for every interface"),
        );
    }
    if let Some((ip, port)) = text.rsplit_once(':')
        && ip.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        && !port.is_empty()
    {
        return wrong(format!("{found}: {} is not a port", quoted(port)), "write a port from 0 to 65535; 0 is any");
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return wrong(
            format!("{found} has a name where an IP address is needed"),
            format!("write {}:{port} or [{}]:{port}", Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
        );
    }
    if text.contains("://") {
        return wrong(format!("{found} is a URL"), "write IP:PORT, for example 127.0.0.1:8080");
    }
    if text.starts_with('/') {
        return wrong(format!("{found} is a path"), format!("write unix:{text}"));
    }
    wrong(format!("{found} is not an address"), "write IP:PORT, for example 127.0.0.1:8080 or [::1]:8080")
}

/// The path of a Unix socket in `text`, behind `before`.
fn unix_path(text: &str, before: &str, path: &str) -> Result<PathBuf, Wrong> {
    let found = quoted(text);
    let plain = path.trim_start_matches('/');
    if !path.starts_with('/') || path.starts_with("//") || plain.is_empty() || path.ends_with('/') {
        let plain = plain.trim_end_matches('/');
        let example = if plain.is_empty() { "run/app.sock" } else { plain };
        return wrong(format!("{found} has no absolute path of a file"), format!("write {before}/{example}"));
    }
    if path.contains('\0') || path.len() > UNIX_PATH_BYTES_MAX {
        return wrong(
            format!("{found} cannot be a socket"),
            format!("write a path of at most {UNIX_PATH_BYTES_MAX} bytes: the kernel keeps no more of it"),
        );
    }
    Ok(PathBuf::from(path))
}

/// `sun_path` in unix(7), without the byte that ends it.
const UNIX_PATH_BYTES_MAX: usize = 107;

fn endpoint(text: &str) -> Result<Endpoint, Wrong> {
    let found = quoted(text);
    if let Some((scheme, path)) = text.split_once("+unix:") {
        let protocol = match scheme {
            "h2c" => Protocol::H2c,
            "http1" => Protocol::Http1,
            "http" => Protocol::Http,
            "h2" | "https" => {
                let clear = if scheme == "h2" { "h2c" } else { "http" };
                return wrong(
                    format!("{found}: TLS is not spoken over Unix sockets"),
                    format!("write {clear}+unix:{path}"),
                );
            }
            _ => return wrong(format!("{found}: unsupported scheme {}", quoted(scheme)), UNIX_SCHEMES),
        };
        let location = Location::Unix(unix_path(text, &format!("{scheme}+unix:"), path)?);
        return Ok(Endpoint { protocol, location, weight: 1 });
    }
    if let Some(path) = text.strip_prefix("unix:") {
        let label = format!("write h2c+unix:{path} for HTTP/2, or http1+unix:{path} for HTTP/1.1");
        return wrong(format!("{found} does not say what is spoken there"), label);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let rest = if text.is_empty() { "10.0.0.11:9000" } else { text };
        return wrong(
            format!("{found} has no scheme"),
            format!("write h2c://{rest} for HTTP/2, or http1://{rest} for HTTP/1.1"),
        );
    };
    let protocol = match scheme {
        "h2c" => Protocol::H2c,
        "h2" => Protocol::H2Tls,
        "http1" => Protocol::Http1,
        "http" => Protocol::Http,
        "https" => Protocol::Https,
        _ => return wrong(format!("{found}: unsupported scheme {}", quoted(scheme)), SCHEMES),
    };
    if let Some(at) = rest.rfind('@') {
        return wrong(
            format!("{found} has a user name"),
            format!("write {scheme}://{}; credentials go into request_headers", &rest[at + 1..]),
        );
    }
    if let Some(at) = rest.find(['/', '?', '#']) {
        return wrong(
            format!("{found} has a path or a query"),
            format!("write {scheme}://{}; a path goes into a route's rewrite", &rest[..at]),
        );
    }
    let (host, port) = match rest.rsplit_once(':') {
        // In `::1` the last colon belongs to the address.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        _ if rest.parse::<Ipv6Addr>().is_ok() => {
            return wrong(
                format!("{found} has an IPv6 address without brackets"),
                format!("write host:port, for example {scheme}://[{rest}]:9000"),
            );
        }
        _ => {
            let rest = if rest.is_empty() { "127.0.0.1" } else { rest };
            return wrong(
                format!("{found} has no port"),
                format!("write host:port, for example {scheme}://{rest}:9000"),
            );
        }
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => match inner.parse::<Ipv6Addr>() {
            Ok(ip) => ip.to_string(),
            Err(_) => return wrong(format!("{found}: {} is not an IPv6 address", quoted(inner)), "write [::1]:9000"),
        },
        None if is_host(host) => host.to_ascii_lowercase(),
        None => {
            return wrong(
                format!("{found}: {} is not a host name", quoted(host)),
                format!("write host:port, for example {scheme}://10.0.0.11:9000"),
            );
        }
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !rest.ends_with(|c: char| !c.is_ascii_digit()) && !rest.contains('+') => {
            Ok(Endpoint { protocol, location: Location::Host { host, port }, weight: 1 })
        }
        _ => wrong(format!("{found}: {} is not a port", quoted(port)), "write a port from 1 to 65535"),
    }
}

const UNIX_SCHEMES: &str =
    "schemes are h2c+unix: (HTTP/2), http1+unix: (HTTP/1.1) and http+unix: (what the service speaks)";
const SCHEMES: &str = "schemes are h2c:// (HTTP/2), h2:// (HTTP/2 over TLS), http1:// (HTTP/1.1), and http:// and \
                       https:// (what the service speaks)";

/// A host with or without a port, as Host carries it.
pub(super) fn is_authority(text: &str) -> bool {
    let with_port = |text: &str| endpoint(&format!("h2c://{text}")).is_ok();
    is_host(text) || with_port(text) || with_port(&format!("{text}:1"))
}

fn trusted_peer(text: &str) -> Result<TrustedPeer, Wrong> {
    if text == "unix" {
        return Ok(TrustedPeer::Unix);
    }
    let found = quoted(text);
    let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
    let Ok(ip) = ip.parse::<IpAddr>() else {
        return wrong(
            format!("{found} is not an address"),
            "write an address, a network such as 10.0.0.0/8, or unix; names are not resolved here",
        );
    };
    let widest = IpNet::from(ip).max_prefix_len();
    let length = match prefix.map(str::parse::<u8>) {
        None => widest,
        Some(Ok(length)) if length <= widest => length,
        Some(_) => return wrong(format!("{found} is not a network"), format!("write {ip}/0 to {ip}/{widest}")),
    };
    let network = IpNet::new(ip, length).expect("the length has been checked");
    if network.trunc().addr() != ip {
        let label = format!("write {} for the network, or {ip} for the address", network.trunc());
        return wrong(format!("{found} is an address within a network"), label);
    }
    // Addresses are compared as IPv4 wherever they can be.
    let mapped = match ip.to_canonical() {
        IpAddr::V4(v4) if ip.is_ipv6() && length >= MAPPED_BITS => Ipv4Net::new(v4, length - MAPPED_BITS).ok(),
        _ => None,
    };
    Ok(TrustedPeer::Network(mapped.map_or(network, IpNet::V4)))
}

/// RFC 4291 §2.5.5.2: what stands before the IPv4 address in `::ffff:0:0/96`.
const MAPPED_BITS: u8 = 96;

#[cfg(test)]
mod tests {
    use super::super::parse::tests::said;
    use super::*;

    #[test]
    fn endpoints_are_scheme_host_and_port() {
        for (text, shown) in [
            ("h2c://10.0.0.11:9000", "h2c://10.0.0.11:9000"),
            ("h2://API.internal:443", "h2://api.internal:443"),
            ("http1://[::1]:8080", "http1://[::1]:8080"),
            ("h2c://my_service:1", "h2c://my_service:1"),
            ("http://a:80", "http://a:80"),
            ("https://a:443", "https://a:443"),
            ("h2c+unix:/run/app.sock", "h2c+unix:/run/app.sock"),
            ("http1+unix:/run/a b@c?d", "http1+unix:/run/a b@c?d"),
            ("http+unix:/x", "http+unix:/x"),
        ] {
            assert_eq!(endpoint(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn wrong_endpoints_say_what_to_write() {
        for (text, answer) in [
            (
                "10.0.0.1:9000",
                "`10.0.0.1:9000` has no scheme; write h2c://10.0.0.1:9000 for HTTP/2, or http1://10.0.0.1:9000 for HTTP/1.1",
            ),
            (
                "dns://a:1",
                "`dns://a:1`: unsupported scheme `dns`; schemes are h2c:// (HTTP/2), h2:// (HTTP/2 over TLS), http1:// (HTTP/1.1), and http:// and https:// (what the service speaks)",
            ),
            ("h2c://a", "`h2c://a` has no port; write host:port, for example h2c://a:9000"),
            (
                "h2c://::1",
                "`h2c://::1` has an IPv6 address without brackets; write host:port, for example h2c://[::1]:9000",
            ),
            ("h2c://[::1]", "`h2c://[::1]` has no port; write host:port, for example h2c://[::1]:9000"),
            ("h2c://u:p@a:1", "`h2c://u:p@a:1` has a user name; write h2c://a:1; credentials go into request_headers"),
            ("h2c://a:1/x", "`h2c://a:1/x` has a path or a query; write h2c://a:1; a path goes into a route's rewrite"),
            ("h2c://a:1?x", "`h2c://a:1?x` has a path or a query; write h2c://a:1; a path goes into a route's rewrite"),
            ("h2c://a:0", "`h2c://a:0`: `0` is not a port; write a port from 1 to 65535"),
            ("h2c://a:+1", "`h2c://a:+1`: `+1` is not a port; write a port from 1 to 65535"),
            ("h2c://a:65536", "`h2c://a:65536`: `65536` is not a port; write a port from 1 to 65535"),
            (
                "h2c://a b:1",
                "`h2c://a b:1`: `a b` is not a host name; write host:port, for example h2c://10.0.0.11:9000",
            ),
            (
                "unix:/run/a.sock",
                "`unix:/run/a.sock` does not say what is spoken there; write h2c+unix:/run/a.sock for HTTP/2, or http1+unix:/run/a.sock for HTTP/1.1",
            ),
            ("h2c+unix:run/a", "`h2c+unix:run/a` has no absolute path of a file; write h2c+unix:/run/a"),
            ("h2c+unix:///run/a/", "`h2c+unix:///run/a/` has no absolute path of a file; write h2c+unix:/run/a"),
            ("http+unix:", "`http+unix:` has no absolute path of a file; write http+unix:/run/app.sock"),
            ("h2+unix:/a", "`h2+unix:/a`: TLS is not spoken over Unix sockets; write h2c+unix:/a"),
            ("https+unix:/a", "`https+unix:/a`: TLS is not spoken over Unix sockets; write http+unix:/a"),
            (
                "tcp+unix:/a",
                "`tcp+unix:/a`: unsupported scheme `tcp`; schemes are h2c+unix: (HTTP/2), http1+unix: (HTTP/1.1) and http+unix: (what the service speaks)",
            ),
            ("h2c://[x]:1", "`h2c://[x]:1`: `x` is not an IPv6 address; write [::1]:9000"),
        ] {
            assert_eq!(said(endpoint(text)), answer);
        }
    }

    #[test]
    fn wrong_addresses_say_what_to_write() {
        for (text, answer) in [
            (
                ":8080",
                "`:8080` has no IP address; write 127.0.0.1:8080 for this machine only, or 0.0.0.0:8080 for every interface",
            ),
            (
                "8080",
                "`8080` has no IP address; write 127.0.0.1:8080 for this machine only, or 0.0.0.0:8080 for every interface",
            ),
            ("localhost:80", "`localhost:80` has a name where an IP address is needed; write 127.0.0.1:80 or [::1]:80"),
            ("::1", "`::1` has no port; write [::1]:8080"),
            ("10.0.0.1", "`10.0.0.1` has no port; write 10.0.0.1:8080"),
            ("http://1.2.3.4:80", "`http://1.2.3.4:80` is a URL; write IP:PORT, for example 127.0.0.1:8080"),
            ("127.0.0.1:99999", "`127.0.0.1:99999`: `99999` is not a port; write a port from 0 to 65535; 0 is any"),
            ("[::1]:http", "`[::1]:http`: `http` is not a port; write a port from 0 to 65535; 0 is any"),
            ("unix:/a", "`unix:/a` is not an address; write IP:PORT, for example 127.0.0.1:8080 or [::1]:8080"),
        ] {
            assert_eq!(said(address(text)), answer);
        }
    }

    #[test]
    fn clients_connect_to_an_address_or_to_a_path() {
        let listen = |text: &str| (LISTEN.parse)(text);
        for text in ["127.0.0.1:80", "[::1]:80", "unix:/run/trunkline.sock"] {
            assert_eq!(listen(text).unwrap().to_string(), text);
        }
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX - 1));
        assert_eq!(listen(&long).unwrap().to_string(), long);
        for (text, answer) in [
            ("unix:", "`unix:` has no absolute path of a file; write unix:/run/app.sock"),
            ("unix:a.sock", "`unix:a.sock` has no absolute path of a file; write unix:/a.sock"),
            ("unix://run/a.sock", "`unix://run/a.sock` has no absolute path of a file; write unix:/run/a.sock"),
            ("/run/a.sock", "`/run/a.sock` is a path; write unix:/run/a.sock"),
            (
                ":80",
                "`:80` has no IP address; write 127.0.0.1:80 for this machine only, or 0.0.0.0:80 for every interface",
            ),
        ] {
            assert_eq!(said(listen(text)), answer);
        }
        assert!(
            said(listen(&format!("{long}x"))).ends_with("a path of at most 107 bytes: the kernel keeps no more of it")
        );
    }

    #[test]
    fn trusted_peers_are_networks_addresses_or_unix() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1/32", "10.0.0.1"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1"),
            ("FD00::/8", "fd00::/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::/0", "::/0"),
            ("unix", "unix"),
        ] {
            assert_eq!(trusted_peer(text).unwrap().to_string(), shown);
        }
        let names = "write an address, a network such as 10.0.0.0/8, or unix; names are not resolved here";
        for (text, answer) in [
            ("10.0.0.0/33", "`10.0.0.0/33` is not a network; write 10.0.0.0/0 to 10.0.0.0/32"),
            ("fd00::/x", "`fd00::/x` is not a network; write fd00::/0 to fd00::/128"),
            (
                "10.1.0.0/8",
                "`10.1.0.0/8` is an address within a network; write 10.0.0.0/8 for the network, or 10.1.0.0 for the address",
            ),
            ("lb.internal", &format!("`lb.internal` is not an address; {names}")),
            ("10.0.0.1:80", &format!("`10.0.0.1:80` is not an address; {names}")),
            ("", &format!("`` is not an address; {names}")),
        ] {
            assert_eq!(said(trusted_peer(text)), answer);
        }
    }
}
