//! What accounts show each other: exports, imports, and the routes that follow from them.
//!
//! Source: nats-server `server/accounts.go`. An import of a stream leads messages from the exporter's subjects into the
//! importer's; an import of a service leads requests the other way, and their answers back.

use std::time::Duration;

use super::book::AccountSpec;
use crate::types::{Timestamp, Transform, subject, wildcards};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shared {
    #[default]
    Stream,
    Service,
}

impl Shared {
    fn name(self) -> &'static str {
        match self {
            Shared::Stream => "stream",
            Shared::Service => "service",
        }
    }
}

/// How many answers a request gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Responses {
    #[default]
    One,
    /// Many, until nothing comes for a while, or an empty one.
    Many,
}

/// How long an answer is waited for (nats-server `DEFAULT_SERVICE_EXPORT_RESPONSE_THRESHOLD`).
pub const RESPONSE_WAIT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    pub kind: Shared,
    pub subject: String,
    /// Who may import it; empty for everybody.
    pub accounts: Vec<String>,
    /// Only activated imports may.
    pub needs_activation: bool,
    /// The number of the token that has to be the importing account's name, from 1; 0 for none.
    pub account_token: usize,
    /// Of a service: traces of other accounts' messages go on behind it.
    pub allow_trace: bool,
    pub responses: Responses,
    pub response_wait: Option<Duration>,
    /// Of a service with one answer: how long it takes is told.
    pub latency: Option<Latency>,
}

/// Which requests to a service are measured, and where that is told in the exporter's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Of a hundred requests so many, whatever their headers say; 0 for those alone whose headers are sampled.
    pub percent: u8,
    pub subject: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    pub kind: Shared,
    /// The exporting account.
    pub account: String,
    /// What it is called there.
    pub subject: String,
    /// What it is called here; empty for the same.
    pub to: String,
    /// Of a stream: what stands before the subject here. Excludes `to`.
    pub prefix: String,
    /// Of a service: who asks is told in full.
    pub share: bool,
    /// Of a stream: traces of its messages go on in this account.
    pub allow_trace: bool,
    /// The exporter has signed that it may, and for how long.
    pub activated: Option<Span>,
}

/// A stretch of time, its end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    from: Timestamp,
    until: Timestamp,
}

impl Span {
    const ALWAYS: Span = Span { from: Timestamp(i64::MIN), until: Timestamp(i64::MAX) };

    /// From and until seconds since 1970; 0 for no such bound.
    pub(super) fn of_seconds(from: i64, until: i64) -> Span {
        let at = |seconds: i64| Timestamp(seconds.saturating_mul(1_000_000_000));
        Span {
            from: if from == 0 { Span::ALWAYS.from } else { at(from) },
            until: if until == 0 { Span::ALWAYS.until } else { at(until) },
        }
    }

    /// Whether there is a time outside of it.
    pub fn is_bounded(self) -> bool {
        self != Span::ALWAYS
    }

    pub fn contains(self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }
}

/// Where messages leave an account for another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub kind: Shared,
    /// The account they leave, and the subjects on which they do.
    pub from: String,
    pub filter: String,
    pub into: String,
    pub rewrite: Rewrite,
    /// Of a service.
    pub responses: Responses,
    pub response_wait: Duration,
    pub share: bool,
    pub latency: Option<Latency>,
    /// Traces see where messages go from there.
    pub allow_trace: bool,
    /// When it may be gone.
    pub open: Span,
}

/// What becomes of the subject on the way.
#[derive(Clone, Debug, PartialEq)]
pub enum Rewrite {
    Same,
    Literal(String),
    /// The transform, and its destination as it is written.
    Transform(Transform, String),
}

/// Accounts that do not fit together, in nats-server's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharingError {
    #[error("{account:?} account not defined for {kind} {what}")]
    NoAccount { account: String, kind: &'static str, what: &'static str },
    #[error("Error adding {kind} {what} {subject:?}: {reason}")]
    Bad { kind: &'static str, what: &'static str, subject: String, reason: String },
    #[error("Error adding service latency sampling for {service:?} on subject {subject:?}: {reason}")]
    Latency { service: String, subject: String, reason: &'static str },
}

impl SharingError {
    /// What a config file says about it.
    pub fn word(&self) -> &str {
        match self {
            SharingError::NoAccount { account, .. } => account,
            SharingError::Bad { subject, .. } | SharingError::Latency { subject, .. } => subject,
        }
    }
}

/// The routes of all imports that hold, and why others do not: an export or import is not valid, no export allows it, or
/// imports go in a circle.
pub fn routes(accounts: &[AccountSpec]) -> (Vec<Route>, Vec<SharingError>) {
    let find = |name: &str| accounts.iter().find(|account| account.name == name);
    let mut errors = Vec::new();
    for account in accounts {
        errors.extend(account.exports.iter().filter_map(|export| measured(export, account).err()));
    }
    for export in accounts.iter().flat_map(|account| &account.exports) {
        let kind = export.kind.name();
        if let Some(missing) = export.accounts.iter().find(|name| find(name).is_none()) {
            errors.push(SharingError::NoAccount { account: missing.clone(), kind, what: "export" });
        }
        let bad = |reason: &str| SharingError::Bad {
            kind,
            what: "export",
            subject: export.subject.clone(),
            reason: reason.to_owned(),
        };
        if !subject::is_valid(export.subject.as_bytes()) {
            errors.push(bad("invalid subject"));
        }
        if export.account_token > 0 {
            match export.subject.split('.').nth(export.account_token - 1) {
                Some("*") => {}
                _ => errors.push(bad("account token position needs to be a wildcard '*'")),
            }
        }
    }
    let mut routes: Vec<Route> = Vec::new();
    for account in accounts {
        for import in &account.imports {
            let kind = import.kind.name();
            let Some(exporter) = find(&import.account) else {
                errors.push(SharingError::NoAccount { account: import.account.clone(), kind, what: "import" });
                continue;
            };
            match route(account, import, exporter, &routes) {
                Ok(route) => routes.push(route),
                Err(reason) => {
                    let subject = import.subject.clone();
                    errors.push(SharingError::Bad { kind, what: "import", subject, reason });
                }
            }
        }
    }
    (routes, errors)
}

/// What of an export of `account` is measured, when it can be (nats-server `TrackServiceExportWithSampling`).
fn measured<'a>(export: &'a Export, account: &AccountSpec) -> Result<Option<&'a Latency>, SharingError> {
    let Some(latency) = export.latency.as_ref().filter(|_| export.kind == Shared::Service) else { return Ok(None) };
    let is_service = |other: &Export| other.kind == Shared::Service && covers(&other.subject, &latency.subject);
    let reason = if latency.percent > 100 {
        "bad sampling percentage, should be 1-100"
    } else if !subject::is_valid_literal(latency.subject.as_bytes()) || account.exports.iter().any(is_service) {
        "invalid publish subject"
    } else if export.responses != Responses::One {
        "bad service response type"
    } else {
        return Ok(Some(latency));
    };
    let (service, subject) = (export.subject.clone(), latency.subject.clone());
    Err(SharingError::Latency { service, subject, reason })
}

/// The route of one import, when it fits those before it.
fn route(account: &AccountSpec, import: &Import, exporter: &AccountSpec, others: &[Route]) -> Result<Route, String> {
    let there = &import.subject;
    let here = match (&*import.to, &*import.prefix) {
        ("", "") => there.clone(),
        ("", prefix) if subject::has_wildcard(prefix.as_bytes()) => {
            return Err("stream import prefix can not contain wildcard tokens".to_owned());
        }
        ("", prefix) => format!("{}.{there}", prefix.trim_end_matches('.')),
        (to, _) => to.to_owned(),
    };
    let here_filter = wildcards::plain(&here);
    let valid = |text: &str| subject::is_valid(text.as_bytes());
    if !valid(there) || !valid(&here_filter) {
        return Err("invalid subject".to_owned());
    }
    let export = exporter.exports.iter().find(|export| {
        export.kind == import.kind && covers(&export.subject, there) && allows(export, import, &account.name)
    });
    let Some(export) = export else { return Err(format!("{} import not authorized", import.kind.name())) };
    let has_wildcard = subject::has_wildcard(there.as_bytes());
    let no_transform = |error: String| {
        let kind = import.kind.name();
        format!("failed to create mapping transform for {kind} import subject from {there:?} to {here:?}: {error}")
    };
    let forward = || Transform::reversible(there, &wildcards::numbered(&here)).map_err(|e| no_transform(e.to_string()));
    let (from, filter, into, rewrite) = match import.kind {
        Shared::Stream => {
            let rewrite = match (has_wildcard, here == *there) {
                (_, true) => Rewrite::Same,
                (false, _) => Rewrite::Literal(here.clone()),
                (true, _) => forward()?.map_or(Rewrite::Same, |transform| Rewrite::Transform(transform, here.clone())),
            };
            (&exporter.name, there.clone(), &account.name, rewrite)
        }
        Shared::Service => {
            let rewrite = match (has_wildcard, here == *there) {
                (_, true) => Rewrite::Same,
                (false, _) => Rewrite::Literal(there.clone()),
                (true, _) => {
                    forward()?;
                    let (source, back) = wildcards::reversed(there, &wildcards::numbered(&here));
                    let transform = Transform::new(&source, &back).map_err(|e| no_transform(e.to_string()))?;
                    transform.map_or(Rewrite::Same, |transform| Rewrite::Transform(transform, back))
                }
            };
            (&account.name, here_filter.clone(), &exporter.name, rewrite)
        }
    };
    for other in others.iter().filter(|other| other.kind == import.kind) {
        if other.from == *from && other.into == *into && other.filter == filter {
            return Err(match import.kind {
                Shared::Stream => "stream import already exists".to_owned(),
                Shared::Service => format!(
                    "duplicate service import subject {here:?}, previously used in import for account {:?}, subject {:?}",
                    import.account, other.filter
                ),
            });
        }
    }
    let (arrives, leaves) = match import.kind {
        Shared::Stream => (&here_filter, there),
        Shared::Service => (there, &here_filter),
    };
    if leads_to(others, import.kind, into, arrives, from, leaves, &mut Vec::new()) {
        return Err("import forms a cycle".to_owned());
    }
    Ok(Route {
        kind: import.kind,
        from: from.clone(),
        filter,
        into: into.clone(),
        rewrite,
        responses: export.responses,
        response_wait: export.response_wait.unwrap_or(RESPONSE_WAIT),
        share: import.share,
        latency: measured(export, exporter).ok().flatten().cloned(),
        allow_trace: match import.kind {
            Shared::Stream => import.allow_trace,
            Shared::Service => export.allow_trace,
        },
        open: if export.needs_activation { import.activated.unwrap_or(Span::ALWAYS) } else { Span::ALWAYS },
    })
}

/// Whether what arrives in one account on a subject may come out of another on some other.
fn leads_to<'a>(
    routes: &'a [Route],
    kind: Shared,
    at: &str,
    arrives: &str,
    account: &str,
    leaves: &str,
    seen: &mut Vec<&'a Route>,
) -> bool {
    if at == account && subject::overlaps(arrives.as_bytes(), leaves.as_bytes()) {
        return true;
    }
    let onwards = |route: &&Route| {
        route.kind == kind && route.from == at && subject::overlaps(route.filter.as_bytes(), arrives.as_bytes())
    };
    for route in routes.iter().filter(onwards) {
        if seen.iter().any(|other| std::ptr::eq(*other, route)) {
            continue;
        }
        seen.push(route);
        let next = match &route.rewrite {
            Rewrite::Same => route.filter.clone(),
            Rewrite::Literal(text) => text.clone(),
            // All that it may become.
            Rewrite::Transform(_, destination) => wildcards::plain(destination),
        };
        if leads_to(routes, kind, &route.into, &next, account, leaves, seen) {
            return true;
        }
    }
    false
}

/// Whether every subject that `inner` matches is matched by `outer`.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(left), Some(right)) if left == right => {}
            _ => return false,
        }
    }
}

fn allows(export: &Export, import: &Import, importer: &str) -> bool {
    if export.needs_activation {
        return import.activated.is_some();
    }
    if export.account_token > 0 {
        return import.subject.split('.').nth(export.account_token - 1) == Some(importer);
    }
    export.accounts.is_empty() || export.accounts.iter().any(|name| name == importer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, exports: Vec<Export>, imports: Vec<Import>) -> AccountSpec {
        AccountSpec { name: name.to_owned(), exports, imports, ..AccountSpec::default() }
    }

    fn export(kind: Shared, subject: &str, accounts: &[&str]) -> Export {
        let accounts = accounts.iter().map(|&name| name.to_owned()).collect();
        Export { kind, subject: subject.to_owned(), accounts, ..Export::default() }
    }

    fn import(kind: Shared, account: &str, subject: &str, to: &str) -> Import {
        Import { kind, account: account.into(), subject: subject.into(), to: to.into(), ..Import::default() }
    }

    fn routes(accounts: &[AccountSpec]) -> Result<Vec<Route>, SharingError> {
        let (routes, errors) = super::routes(accounts);
        errors.into_iter().next().map_or(Ok(routes), Err)
    }

    #[test]
    fn an_import_is_a_route_when_its_export_allows_it() {
        use Shared::{Service, Stream};
        let check = |exports: Vec<Export>, import: Import, expected: Result<(&str, &str), &str>| {
            let routes = routes(&[account("A", exports, vec![]), account("B", vec![], vec![import.clone()])]);
            let found = routes.as_ref().map(|routes| {
                let rewrite = match &routes[0].rewrite {
                    Rewrite::Same => "same".to_owned(),
                    Rewrite::Literal(text) => text.clone(),
                    Rewrite::Transform(_, destination) => destination.clone(),
                };
                (routes[0].filter.clone(), rewrite)
            });
            match (found, expected) {
                (Ok((filter, rewrite)), Ok(expected)) => assert_eq!((&*filter, &*rewrite), expected, "{import:?}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, expected) => panic!("{import:?}: {found:?}, not {expected:?}"),
            }
        };
        let all = || vec![export(Stream, "s.>", &[]), export(Service, "q.>", &[])];
        check(all(), import(Stream, "A", "s.x", ""), Ok(("s.x", "same")));
        check(all(), import(Stream, "A", "s.x", "t"), Ok(("s.x", "t")));
        check(all(), import(Stream, "A", "s.>", "t.>"), Ok(("s.>", "t.>")));
        check(all(), import(Stream, "A", "s.*.*", "t.$2.$1"), Ok(("s.*.*", "t.$2.$1")));
        let prefixed = Import { prefix: "p".into(), ..import(Stream, "A", "s.>", "") };
        check(all(), prefixed.clone(), Ok(("s.>", "p.s.>")));
        check(all(), Import { prefix: "p.*".into(), ..prefixed }, Err("can not contain wildcard tokens"));
        check(all(), import(Service, "A", "q.x", "ask"), Ok(("ask", "q.x")));
        check(all(), import(Service, "A", "q.*.*", "ask.$2.$1"), Ok(("ask.*.*", "q.$2.$1")));
        check(all(), import(Service, "A", "q.>", ""), Ok(("q.>", "same")));
        check(all(), import(Stream, "A", "t.>", ""), Err("stream import not authorized"));
        check(all(), import(Service, "A", "s.x", ""), Err("service import not authorized"));
        check(all(), import(Stream, "A", ">", ""), Err("stream import not authorized"));
        check(all(), import(Stream, "C", "s", ""), Err("\"C\" account not defined for stream import"));
        check(all(), import(Service, "A", "q.*", "ask"), Err("failed to create mapping transform"));
        check(vec![export(Stream, "s", &["B"])], import(Stream, "A", "s", ""), Ok(("s", "same")));
        check(vec![export(Stream, "s", &["A"])], import(Stream, "A", "s", ""), Err("not authorized"));
        check(vec![export(Stream, "s", &["Z"])], import(Stream, "A", "s", ""), Err("not defined for stream export"));
        let token = |subject: &str, account_token| vec![Export { account_token, ..export(Service, subject, &[]) }];
        check(token("q.*.>", 2), import(Service, "A", "q.B.x", ""), Ok(("q.B.x", "same")));
        check(token("q.*.>", 2), import(Service, "A", "q.C.x", ""), Err("not authorized"));
        check(token("q.*.>", 1), import(Service, "A", "q.B.x", ""), Err("needs to be a wildcard"));
    }

    #[test]
    fn services_with_one_answer_are_measured_where_that_can_be_told() {
        let check = |percent, subject: &str, responses, expected: Option<&str>| {
            let latency = Some(Latency { percent, subject: subject.into() });
            let exports = vec![Export { latency: latency.clone(), responses, ..export(Shared::Service, "q.>", &[]) }];
            let importer = account("B", vec![], vec![import(Shared::Service, "A", "q.x", "")]);
            let (routes, errors) = super::routes(&[account("A", exports, vec![]), importer]);
            assert_eq!(routes[0].latency, latency.filter(|_| expected.is_none()));
            let expected = expected.map(|reason| {
                format!("Error adding service latency sampling for \"q.>\" on subject {subject:?}: {reason}")
            });
            assert_eq!(errors.first().map(ToString::to_string), expected);
        };
        check(100, "m", Responses::One, None);
        check(0, "m.x", Responses::One, None);
        check(101, "m", Responses::One, Some("bad sampling percentage, should be 1-100"));
        check(1, "m.*", Responses::One, Some("invalid publish subject"));
        check(1, "q.m", Responses::One, Some("invalid publish subject"));
        check(1, "m", Responses::Many, Some("bad service response type"));
    }

    #[test]
    fn a_circle_is_refused() {
        use Shared::{Service, Stream};
        for kind in [Stream, Service] {
            let all = || vec![export(kind, ">", &[])];
            let three = |last: &str| {
                [
                    account("A", all(), vec![import(kind, "B", "x", "")]),
                    account("B", all(), vec![import(kind, "C", "x", "")]),
                    account("C", all(), vec![import(kind, "A", last, "")]),
                ]
            };
            assert_eq!(routes(&three("y")).unwrap().len(), 3);
            let error = routes(&three("x")).unwrap_err();
            assert!(error.to_string().ends_with("import forms a cycle"), "{error}");
        }
        let twice = vec![import(Stream, "A", "x", ""), import(Stream, "A", "x", "y")];
        let error = routes(&[account("A", vec![export(Stream, "x", &[])], vec![]), account("B", vec![], twice)]);
        assert!(error.unwrap_err().to_string().contains("already exists"));
    }
}
