//! The page at `/`.

use super::source::Identity;

/// Links to the endpoints. Nothing in it comes from a client; the name is the operator's, escaped all the same.
pub fn page(identity: &Identity) -> String {
    let name = escape(&identity.server_name);
    let version = env!("CARGO_PKG_VERSION");
    let links: String = [
        ("healthz", "Health probe"),
        ("varz", "Server and counters"),
        ("connz", "Connections"),
        ("connz?subs=detail", "Connections with their subscriptions"),
        ("jsz?streams=1&amp;consumers=1&amp;config=1", "Streams and consumers"),
        ("subsz?subs=1", "Subscriptions"),
        ("accountz", "Accounts"),
        ("accstatz", "Accounts' figures"),
        ("metrics", "All of it for Prometheus"),
    ]
    .iter()
    .map(|(path, title)| format!("<li><a href=\"./{path}\">{title}</a> <code>/{path}</code></li>\n"))
    .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>natterjack {name}</title>\n\
         <style>body {{ font: 16px/1.6 system-ui, sans-serif; margin: 3rem auto; max-width: 42rem; padding: 0 1rem }}\n\
         code {{ color: #777; font-size: 85% }} a {{ color: #1a6b3c }}\n\
         @media (prefers-color-scheme: dark) {{ body {{ background: #15181a; color: #ddd }} a {{ color: #6fd39b }} }}\n\
         </style>\n</head>\n<body>\n<h1>natterjack {version}</h1>\n<p>Server <code>{name}</code></p>\n\
         <ul>\n{links}</ul>\n</body>\n</html>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
