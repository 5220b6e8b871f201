//! Server URLs: `nats://[user:pass@|token@]host[:port]`, the scheme (`nats` or `tls`) and port optional.

use super::ClientError;

/// Where to dial and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    pub host: String,
    pub port: u16,
    pub user: Option<String>,
    pub pass: Option<String>,
    pub token: Option<String>,
    /// The scheme is `tls`.
    pub tls: bool,
}

impl ServerUrl {
    /// One or more with commas between them.
    ///
    /// # Errors
    /// As [`ServerUrl::parse`].
    pub fn parse_list(urls: &str) -> Result<Vec<ServerUrl>, ClientError> {
        urls.split(',').map(|url| ServerUrl::parse(url.trim())).collect()
    }

    /// # Errors
    /// [`ClientError::BadUrl`] for another scheme than `nats` and `tls`, an empty host or a port that is no number. The text of the
    /// error holds no credentials.
    pub fn parse(url: &str) -> Result<ServerUrl, ClientError> {
        let tls = url.starts_with("tls://");
        let rest = match url.split_once("://") {
            Some(("nats" | "tls", rest)) => rest,
            Some((scheme, _)) => {
                let scheme = scheme.rsplit('@').next().unwrap_or_default();
                return Err(ClientError::BadUrl { url: format!("{scheme}://...: only nats:// and tls:// are known") });
            }
            None => url,
        };
        let rest = rest.trim_end_matches('/');
        let (identity, address) = match rest.rsplit_once('@') {
            Some((identity, address)) => (Some(identity), address),
            None => (None, rest),
        };
        let bad = || ClientError::BadUrl { url: address.to_owned() };
        // What follows the colon may be a password whose host has been forgotten.
        let bad_port = |host: &str| ClientError::BadUrl { url: format!("{host}:...: a port is a number") };
        let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(bad)?)),
            None => match address.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(bad());
        }
        let port = match port {
            Some(text) => text.parse().map_err(|_| bad_port(host))?,
            None => 4222,
        };
        let (user, pass, token) = match identity.map(|identity| identity.split_once(':')) {
            None => (None, None, None),
            Some(Some((user, pass))) => (Some(decode(user)), Some(decode(pass)), None),
            Some(None) => (None, None, identity.map(decode)),
        };
        Ok(ServerUrl { host: host.to_owned(), port, user, pass, token, tls })
    }

    /// `host:port`, without the identity.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        match escape.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let check = |url: &str, address: &str, user: Option<&str>, pass: Option<&str>, token: Option<&str>| {
            let parsed = ServerUrl::parse(url).unwrap();
            assert_eq!(parsed.address(), address, "{url}");
            assert_eq!(parsed.user.as_deref(), user, "{url}");
            assert_eq!(parsed.pass.as_deref(), pass, "{url}");
            assert_eq!(parsed.token.as_deref(), token, "{url}");
        };
        check("nats://127.0.0.1:4222", "127.0.0.1:4222", None, None, None);
        check("localhost", "localhost:4222", None, None, None);
        check("nats://me:p%40ss@box:1/", "box:1", Some("me"), Some("p@ss"), None);
        check("nats://s3cr3t@box", "box:4222", None, None, Some("s3cr3t"));
        check("nats://[::1]:7", "[::1]:7", None, None, None);
        assert!(ServerUrl::parse("tls://h").unwrap().tls);
        let list = ServerUrl::parse_list("nats://me:it@a, b:5,tls://c").unwrap();
        assert_eq!(list.iter().map(ServerUrl::address).collect::<Vec<_>>(), ["a:4222", "b:5", "c:4222"]);
        assert!(ServerUrl::parse_list("a,").is_err());
        for bad in ["http://x", "nats://", "nats://:4222", "nats://h:port", "a b"] {
            assert!(ServerUrl::parse(bad).is_err(), "{bad}");
        }
        for bad in ["nats://me:s3cret", "me:s3cret@http://box", "nats://me:x,s3cret@box", "nats://me:s3cret@:1"] {
            let error = ServerUrl::parse_list(bad).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
