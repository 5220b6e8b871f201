//! One GET of a monitoring page: plain HTTP, one answer per connection, bounded.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(10);
const BYTES_MAX: u64 = 256 << 20;

/// Reads the JSON at `path` of `base`, which is `http://host:port`.
///
/// # Errors
/// A sentence: no such URL, nobody there, no JSON.
pub async fn get(base: &str, path: &str) -> Result<Value, String> {
    let rest = base.strip_prefix("http://").ok_or("monitoring is read over http://host:port")?;
    let (host, prefix) =
        rest.trim_end_matches('/').split_once('/').map_or((rest.trim_end_matches('/'), ""), |both| both);
    let address = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:8222")
    };
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    let request = format!("GET {prefix}{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(DEADLINE, exchange).await.map_err(|_| format!("{base} does not answer"))?;
    parse(&answer.map_err(|error| format!("{base}: {error}"))?)
        .ok_or_else(|| format!("{base}{path} is no monitoring page"))
}

fn parse(answer: &[u8]) -> Option<Value> {
    let head_end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let status = std::str::from_utf8(answer.get(9..12)?).ok()?;
    (status == "200").then(|| serde_json::from_slice(&answer[head_end + 4..]).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_good_answers_are_read() {
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"a\":1}"), Some(serde_json::json!({"a": 1})));
        for bad in [&b"HTTP/1.0 404 Not Found\r\n\r\n{}"[..], b"HTTP/1.0 200 OK\r\n\r\nhello", b"", b"\r\n\r\n{}"] {
            assert_eq!(parse(bad), None);
        }
    }
}
