//! A message head, kept as it was written: order, case and repetition of its fields.
//!
//! RFC 9112 §3-§6.

use std::fmt;

use super::{Broken, Framing};

/// A start line and its fields.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    /// `GET / HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub start: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// Reads a head that ends with its empty line.
    pub fn parse(bytes: &[u8]) -> Result<Self, Broken> {
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("a head that is not text", bytes))?;
        let mut lines = text.strip_suffix("\r\n\r\n").unwrap_or(text).split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        if start.is_empty() || start.contains(['\r', '\n', '\0']) {
            return Err(malformed("start line", bytes));
        }
        let fields = lines.map(parse_field).collect::<Result<_, _>>()?;
        Ok(Self { start, fields })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// All values of a field, in order.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    pub fn status(&self) -> Result<u16, Broken> {
        let status = self.start.strip_prefix("HTTP/1.1 ").or_else(|| self.start.strip_prefix("HTTP/1.0 "));
        let status =
            status.and_then(|rest| rest.get(..3).filter(|_| matches!(rest.as_bytes().get(3), None | Some(b' '))));
        let status = status.and_then(|digits| digits.parse().ok()).filter(|status| (100..1000).contains(status));
        status.ok_or_else(|| malformed("status line", self.start.as_bytes()))
    }

    /// Whether the sender closes the connection after this message.
    pub fn is_closing(&self) -> bool {
        let options = || self.headers("connection").flat_map(|value| value.split(','));
        let has = |option: &str| options().any(|value| value.trim().eq_ignore_ascii_case(option));
        has("close") || (self.start.contains("HTTP/1.0") && !has("keep-alive"))
    }

    /// RFC 9112 §6.3, for the answer to `method`.
    pub fn response_framing(&self, method: &str) -> Result<Framing, Broken> {
        let status = self.status()?;
        let is_tunnel = status == 101 || (method == "CONNECT" && (200..300).contains(&status));
        if method == "HEAD" || status < 200 || status == 204 || status == 304 || is_tunnel {
            return Ok(Framing::None);
        }
        Ok(self.framing()?.unwrap_or(Framing::UntilClose))
    }

    pub fn request_framing(&self) -> Result<Framing, Broken> {
        Ok(self.framing()?.unwrap_or(Framing::None))
    }

    fn framing(&self) -> Result<Option<Framing>, Broken> {
        let codings: Vec<&str> = self.headers("transfer-encoding").collect();
        let lengths: Vec<&str> = self.headers("content-length").collect();
        match (codings.as_slice(), lengths.as_slice()) {
            ([], []) => Ok(None),
            (["chunked"], []) => Ok(Some(Framing::Chunked)),
            ([], [length]) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length = length.parse().map_err(|_| malformed("content-length", length.as_bytes()))?;
                Ok(Some(Framing::Length(length)))
            }
            _ => Err(malformed("framing", format!("{self:?}").as_bytes())),
        }
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.start, self.fields)
    }
}

/// Reads `name: value`; also for trailers.
pub fn parse_field(line: &str) -> Result<(String, String), Broken> {
    let (name, value) = line.split_once(':').ok_or_else(|| malformed("field line", line.as_bytes()))?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) || value.contains(['\r', '\n', '\0']) {
        return Err(malformed("field line", line.as_bytes()));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

pub fn malformed(what: &str, bytes: &[u8]) -> Broken {
    Broken::Malformed(format!("{what}: {}", bytes.escape_ascii()))
}
