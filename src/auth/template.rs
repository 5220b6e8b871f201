//! Permissions of a scoped signing key that are completed by what its user is: `{{name()}}`, `{{subject()}}`,
//! `{{account-name()}}`, `{{account-subject()}}`, `{{tag(x)}}`, `{{account-tag(x)}}` (nats-server
//! `processUserPermissionsTemplate`). Different: a name or tag that is a wildcard is no value, or whoever may name a user could
//! lift what the key is bound to.

use super::claims::{JwtPermissions, JwtSubjects};
use crate::types::subject;

/// Subjects that one list may become (nats-server `maxPermTemplateSubjectExpansions`).
const SUBJECTS_MAX: usize = 4096;

/// Who the permissions are for.
pub(super) struct Person<'a> {
    pub(super) name: &'a str,
    pub(super) subject: &'a str,
    pub(super) tags: &'a [String],
    pub(super) account_name: &'a str,
    pub(super) account_subject: &'a str,
    pub(super) account_tags: &'a [String],
}

/// The permissions as they are for this user.
///
/// # Errors
/// When a template is not known, or a denial would come to nothing: a user of whom it is not known what it may not do is
/// not let in.
pub(super) fn filled(permissions: &JwtPermissions, person: &Person<'_>) -> Result<JwtPermissions, &'static str> {
    let subjects = |stated: &JwtSubjects| {
        let allow = list(&stated.allow, person, false)?;
        let mut deny = list(&stated.deny, person, true)?;
        // Nothing is left of what was allowed: that is nothing, not everything.
        if !stated.allow.is_empty() && allow.is_empty() {
            deny.push(">".to_owned());
        }
        Ok::<_, &'static str>(JwtSubjects { allow, deny })
    };
    Ok(JwtPermissions {
        publish: subjects(&permissions.publish)?,
        subscribe: subjects(&permissions.subscribe)?,
        resp: permissions.resp.clone(),
    })
}

fn list(texts: &[String], person: &Person<'_>, each_counts: bool) -> Result<Vec<String>, &'static str> {
    if !texts.iter().any(|text| next_template(text).is_some()) {
        return Ok(texts.to_vec());
    }
    let mut filled = Vec::new();
    for text in texts {
        for subject in variants(text, person, each_counts, SUBJECTS_MAX - filled.len())? {
            match subject::is_valid(subject.as_bytes()) {
                true => filled.push(subject),
                false if each_counts => return Err("a template makes no valid subject"),
                false => {}
            }
        }
    }
    Ok(filled)
}

/// One subject for each combination of the values that its templates have, at most `max`.
fn variants(text: &str, person: &Person<'_>, each_counts: bool, max: usize) -> Result<Vec<String>, &'static str> {
    let mut templates: Vec<(&str, Vec<String>)> = Vec::new();
    let mut rest = text;
    while let Some((template, behind)) = next_template(rest) {
        let mut values = values(template[2..template.len() - 2].trim(), person)?;
        let (before, all) = (values.len(), |value: &String| subject::has_wildcard(value.as_bytes()));
        values.retain(|value| !all(value));
        if values.len() < before && each_counts {
            return Err("the value of a template is a wildcard");
        }
        if values.is_empty() && each_counts {
            return Err("a template has no value");
        }
        if values.is_empty() {
            return Ok(Vec::new());
        }
        templates.push((template, values));
        rest = behind;
    }
    let count = templates.iter().try_fold(1usize, |count, (_, values)| count.checked_mul(values.len()));
    if count.is_none_or(|count| count > max) {
        return Err("templates make too many subjects");
    }
    let mut variants = vec![text.to_owned()];
    for (template, values) in &templates {
        let with = |variant: &String| values.iter().map(|value| variant.replace(template, value)).collect::<Vec<_>>();
        variants = variants.iter().flat_map(with).collect();
    }
    Ok(variants)
}

/// The first `{{…}}` and what stands behind it.
fn next_template(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    while let Some(start) = text[from..].find("{{").map(|at| at + from) {
        let inner = &text[start + 2..];
        match inner.find('}') {
            Some(length) if length > 0 && inner[length..].starts_with("}}") => {
                let end = start + 2 + length + 2;
                return Some((&text[start..end], &text[end..]));
            }
            _ => from = start + 1,
        }
    }
    None
}

fn values(operation: &str, person: &Person<'_>) -> Result<Vec<String>, &'static str> {
    let one = |text: &str| Ok(vec![text.to_owned()]);
    let lower = operation.to_ascii_lowercase();
    match &*lower {
        "name()" => return one(person.name),
        "subject()" => return one(person.subject),
        "account-name()" => return one(person.account_name),
        "account-subject()" => return one(person.account_subject),
        _ => {}
    }
    let argument = |function: &str| lower.strip_prefix(function)?.strip_suffix(')');
    let tagged = |tags: &[String], tag: &str| {
        let prefix = format!("{tag}:");
        Ok(tags.iter().filter_map(|tag| tag.strip_prefix(&prefix).map(str::to_owned)).collect())
    };
    match (argument("tag("), argument("account-tag(")) {
        (Some(tag), _) => tagged(person.tags, tag),
        (_, Some(tag)) => tagged(person.account_tags, tag),
        _ => Err("a template is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person<'a>(tags: &'a [String], account_tags: &'a [String]) -> Person<'a> {
        Person { name: "myname", subject: "UUU", tags, account_name: "accname", account_subject: "AAA", account_tags }
    }

    /// As nats-server's `TestJWTTemplates` has them.
    #[test]
    fn templates_become_what_the_user_is() {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<String>>();
        let tags = owned(&["foo:foo1", "foo:foo2", "bar:bar1", "bar:bar2", "bar:bar3"]);
        let account_tags = owned(&["acc:acc1", "acc:acc2"]);
        let check = |allow: &[&str], deny: &[&str], expected: Result<(&[&str], &[&str]), &str>| {
            let publish = JwtSubjects { allow: owned(allow), deny: owned(deny) };
            let stated = JwtPermissions { publish, ..JwtPermissions::default() };
            let found = filled(&stated, &person(&tags, &account_tags)).map(|permissions| permissions.publish);
            let expected = expected.map(|(allow, deny)| JwtSubjects { allow: owned(allow), deny: owned(deny) });
            assert_eq!(found, expected, "{allow:?} {deny:?}");
        };
        check(
            &["{{tag(foo)}}.none.{{tag(bar)}}"],
            &["{{ TAG(foo) }}.{{account-tag(acc)}}"],
            Ok((
                &[
                    "foo1.none.bar1",
                    "foo1.none.bar2",
                    "foo1.none.bar3",
                    "foo2.none.bar1",
                    "foo2.none.bar2",
                    "foo2.none.bar3",
                ],
                &["foo1.acc1", "foo1.acc2", "foo2.acc1", "foo2.acc2"],
            )),
        );
        check(
            &["foo.{{name()}}.{{Subject()}}.{{account-name()}}.{{account-subject()}}.bar"],
            &[],
            Ok((&["foo.myname.UUU.accname.AAA.bar"], &[])),
        );
        check(&["KV_{{tag(foo)}}", "plain"], &[], Ok((&["KV_foo1", "KV_foo2", "plain"], &[])));
        // What is allowed by a tag that is not there is nothing; what is denied by it cannot be known.
        check(&["{{tag(NOT_THERE)}}"], &["x"], Ok((&[], &["x", ">"])));
        check(&[], &["{{tag(NOT_THERE)}}"], Err("a template has no value"));
        check(&["{{other()}}"], &[], Err("a template is not known"));
        check(&["a.{{}}.b", "{x}", "{{x"], &[], Ok((&["a.{{}}.b", "{x}", "{{x"], &[])));
        let many = "{{tag(bar)}}.".repeat(8) + "x";
        check(&[&many], &[], Err("templates make too many subjects"));
    }

    #[test]
    fn a_name_makes_no_subject_of_what_is_none() {
        let tags = Vec::new();
        let blank = Person { name: "a b", ..person(&tags, &tags) };
        let publish = JwtSubjects { allow: vec!["x.{{name()}}".into()], deny: vec![] };
        let filled = filled(&JwtPermissions { publish, ..JwtPermissions::default() }, &blank).unwrap();
        assert_eq!((filled.publish.allow, filled.publish.deny), (vec![], vec![">".to_owned()]));
    }

    #[test]
    fn a_name_is_no_wildcard() {
        let tags = vec!["t:*".to_owned(), "t:a.>".to_owned(), "t:b".to_owned()];
        let star = Person { name: "*", ..person(&tags, &tags) };
        let filled = |allow: &str, deny: &[&str]| {
            let deny = deny.iter().map(|&text| text.into()).collect();
            let publish = JwtSubjects { allow: vec![allow.into()], deny };
            filled(&JwtPermissions { publish, ..JwtPermissions::default() }, &star).map(|filled| filled.publish.allow)
        };
        assert_eq!(filled("x.{{name()}}.*", &[]), Ok(vec![]));
        assert_eq!(filled("x.{{tag(t)}}", &[]), Ok(vec!["x.b".to_owned()]));
        assert!(filled("x", &["x.{{name()}}"]).is_err() && filled("x", &["x.{{tag(t)}}"]).is_err());
    }
}
