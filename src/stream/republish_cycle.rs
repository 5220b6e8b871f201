//! Whether streams would republish to each other in a circle, for ever. nats-server looks at each stream alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StreamConfig;
use crate::types::subject;

/// A stream by its place in a list, and the subjects of what it stores.
type Node = (usize, String);

/// Whether what `config` stores goes round for ever: streams store what others republish, or take from others. `all` are
/// the account's streams; one of the same name is what `config` replaces.
pub fn returns(config: &Arc<StreamConfig>, all: &[Arc<StreamConfig>]) -> bool {
    let streams: Vec<&Arc<StreamConfig>> =
        all.iter().filter(|other| other.name != config.name).chain([config]).collect();
    if streams.iter().all(|stream| stream.republish.is_none()) {
        return false;
    }
    // Where what a node stores gets to, and whether by republishing.
    let mut ways: BTreeMap<Node, Vec<(Node, bool)>> = BTreeMap::new();
    let own = streams.len() - 1;
    let starts: Vec<&str> = match config.subjects.is_empty() {
        true => vec![">"],
        false => config.subjects.iter().map(String::as_str).collect(),
    };
    let mut open: Vec<Node> = starts.into_iter().map(|subject| (own, subject.to_owned())).collect();
    while let Some(node) = open.pop() {
        if ways.contains_key(&node) {
            continue;
        }
        let onwards = onwards(&streams, &node);
        open.extend(onwards.iter().map(|(next, _)| next.clone()));
        ways.insert(node, onwards);
    }
    let is_circle = |from: &Node, to: &Node| {
        let (mut seen, mut open) = (vec![to], vec![to]);
        while let Some(node) = open.pop() {
            if node == from {
                return true;
            }
            for (next, _) in &ways[node] {
                if !seen.contains(&next) {
                    seen.push(next);
                    open.push(next);
                }
            }
        }
        false
    };
    // Circles of sources alone are a matter of their own.
    ways.iter().any(|(from, onwards)| onwards.iter().any(|(to, republished)| *republished && is_circle(from, to)))
}

fn onwards(streams: &[&Arc<StreamConfig>], (at, stored): &Node) -> Vec<(Node, bool)> {
    let stream = streams[*at];
    // Under what subject it stores them is anybody's guess when it transforms them.
    let stored = if stream.subject_transform.is_some() { ">" } else { stored };
    let meets = |filter: &str| filter.is_empty() || subject::overlaps(filter.as_bytes(), stored.as_bytes());
    let out = stream.republish.as_ref().filter(|republish| meets(&republish.source));
    let out = out.map(|republish| widest(&republish.destination));
    let mut onwards = Vec::new();
    for (to, other) in streams.iter().enumerate() {
        if let Some(out) = &out
            && other.subjects.iter().any(|taken| subject::overlaps(taken.as_bytes(), out.as_bytes()))
        {
            onwards.push(((to, out.clone()), true));
        }
        for origin in other.mirror.iter().chain(&other.sources) {
            if origin.external.is_none() && origin.name == stream.name && meets(&origin.filter_subject) {
                let kept = if origin.subject_transforms.is_empty() { stored } else { ">" };
                onwards.push(((to, kept.to_owned()), false));
            }
        }
    }
    onwards
}

/// A filter for all that a transform's destination may become.
fn widest(destination: &str) -> String {
    let mut tokens = Vec::new();
    for token in destination.split('.') {
        if token.contains("{{") && !token.to_ascii_lowercase().contains("wildcard") {
            // It may become any number of tokens.
            tokens.push(">");
            break;
        }
        // `$1`, but not `$KV`.
        let digits = token.strip_prefix('$').unwrap_or_default();
        let is_wildcard = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        tokens.push(if token.contains("{{") || is_wildcard { "*" } else { token });
    }
    tokens.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(json: &str) -> Arc<StreamConfig> {
        let config: StreamConfig = serde_json::from_str(json).unwrap();
        Arc::new(config.check_create(false).unwrap())
    }

    #[test]
    fn what_comes_back_is_a_circle() {
        let a = r#"{"name":"A","subjects":["a.>"],"republish":{"src":"a.>","dest":"b.>"}}"#;
        for (others, expected) in [
            (&[][..], false),
            (&[r#"{"name":"B","subjects":["b.>"]}"#], false),
            (&[r#"{"name":"B","subjects":["b.>"],"republish":{"src":"b.>","dest":"a.>"}}"#], true),
            (&[r#"{"name":"B","subjects":["b.*"],"republish":{"src":"b.*","dest":"a.{{wildcard(1)}}"}}"#], true),
            (&[r#"{"name":"B","subjects":["b.*"],"republish":{"src":"b.*","dest":"{{split(1,-)}}"}}"#], true),
            (&[r#"{"name":"B","subjects":["b.>"],"republish":{"src":"b.>","dest":"c.>"}}"#], false),
            (&[r#"{"name":"B","subjects":["c.>"],"republish":{"src":"c.>","dest":"a.>"}}"#], false),
            (&[r#"{"name":"A","subjects":["b.>"],"republish":{"src":"b.>","dest":"a.>"}}"#], false),
            (
                &[
                    r#"{"name":"B","subjects":["b.>"],"republish":{"src":"b.>","dest":"c.>"}}"#,
                    r#"{"name":"C","subjects":["c.>"],"republish":{"src":"c.>","dest":"a.>"}}"#,
                ],
                true,
            ),
            (&[r#"{"name":"B","sources":[{"name":"A"}],"republish":{"src":">","dest":"a.>"}}"#], true),
            (&[r#"{"name":"B","mirror":{"name":"A"},"republish":{"src":"a.x","dest":"b.y"}}"#], false),
            (&[r#"{"name":"B","subjects":["b.>"],"republish":{"src":"c.>","dest":"a.>"}}"#], false),
        ] {
            let others: Vec<_> = others.iter().map(|json| stream(json)).collect();
            assert_eq!(returns(&stream(a), &others), expected, "{others:?}");
        }
        let b = stream(r#"{"name":"B","subjects":["b.x"],"republish":{"src":"b.x","dest":"a.x"}}"#);
        let part = r#"{"name":"A","subjects":["a.*"],"republish":{"src":"a.y","dest":"b.y"}}"#;
        assert!(!returns(&stream(part), std::slice::from_ref(&b)));
        let sourcing = |source: &str, destination: &str| {
            let republish = format!(r#""republish":{{"src":"{source}","dest":"{destination}"}}"#);
            stream(&format!(r#"{{"name":"A","subjects":["a.*"],"sources":[{{"name":"B"}}],{republish}}}"#))
        };
        let plain = [stream(r#"{"name":"B","subjects":["b.>"]}"#)];
        assert!(returns(&sourcing(">", "b.>"), &plain));
        assert!(!returns(&sourcing("a.*", "b.{{wildcard(1)}}"), &plain));
        // A destination in a bucket is not one that begins with anything.
        let bucket = [stream(r#"{"name":"KV_b","subjects":["$KV.b.>"]}"#)];
        let into = r#"{"name":"A","subjects":["A.>","B.>"],"republish":{"src":"A.>","dest":"$KV.b.>"}}"#;
        assert!(!returns(&stream(into), &bucket));
        let taker = stream(r#"{"name":"T","sources":[{"name":"P"}],"republish":{"src":">","dest":"p.>"}}"#);
        assert!(returns(&stream(r#"{"name":"P","subjects":["p.>"]}"#), &[taker]));
    }
}
