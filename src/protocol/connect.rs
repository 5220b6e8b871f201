//! The JSON bodies of CONNECT and INFO.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::error::ProtocolError;

/// Newest client protocol: the client understands INFO at any time.
pub const PROTOCOL_INFO: i64 = 1;

/// The options of CONNECT (nats-server `ClientOpts`).
///
/// `Debug` shows no secrets.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Connect {
    /// Whether the client receives its own publishes.
    pub echo: bool,
    /// Whether every operation is answered with +OK.
    pub verbose: bool,
    /// Whether publish subjects are checked.
    pub pedantic: bool,
    pub tls_required: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nkey: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jwt: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sig: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_token: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pass: String,
    pub name: String,
    pub lang: String,
    pub version: String,
    /// 0, or [`PROTOCOL_INFO`].
    pub protocol: i64,
    /// An account to sandbox into; refused, as in nats-server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub new_account: bool,
    pub headers: bool,
    /// Whether a request nobody listens to is answered with status 503. Needs `headers`.
    pub no_responders: bool,
}

impl Default for Connect {
    /// What a modern client says.
    fn default() -> Connect {
        Connect {
            verbose: false,
            pedantic: false,
            protocol: PROTOCOL_INFO,
            headers: true,
            no_responders: true,
            ..Connect::assumed()
        }
    }
}

impl Connect {
    /// What a server assumes of a client before, and of every field left out of, its CONNECT (nats-server `defaultOpts`).
    pub fn assumed() -> Connect {
        Connect {
            echo: true,
            verbose: true,
            pedantic: true,
            tls_required: false,
            nkey: String::new(),
            jwt: String::new(),
            sig: String::new(),
            auth_token: String::new(),
            user: String::new(),
            pass: String::new(),
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            protocol: 0,
            account: String::new(),
            new_account: false,
            headers: false,
            no_responders: false,
        }
    }

    /// Takes over the fields `body` gives and leaves the others, as Go's `json.Unmarshal` does: field names in any case,
    /// `null` changes nothing, unknown fields are ignored, the last of a repeated field counts.
    ///
    /// # Errors
    /// `BadJson` when it is no JSON object or a field has the wrong type; then `self` is partly changed and of no use.
    pub fn merge(&mut self, body: &[u8]) -> Result<(), ProtocolError> {
        // Go reads bytes that are not UTF-8 as replacement characters.
        let text = String::from_utf8_lossy(body);
        let mut deserializer = serde_json::Deserializer::from_str(&text);
        Merge(self).deserialize(&mut deserializer).map_err(|_| ProtocolError::BadJson)?;
        deserializer.end().map_err(|_| ProtocolError::BadJson)
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("name", &self.name)
            .field("lang", &self.lang)
            .field("version", &self.version)
            .field("protocol", &self.protocol)
            .field("user", &self.user)
            .field("echo", &self.echo)
            .field("verbose", &self.verbose)
            .field("pedantic", &self.pedantic)
            .field("headers", &self.headers)
            .field("no_responders", &self.no_responders)
            .finish_non_exhaustive()
    }
}

struct Merge<'a>(&'a mut Connect);

impl<'de> DeserializeSeed<'de> for Merge<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Merge<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object of CONNECT options")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let connect = self.0;
        while let Some(mut name) = fields.next_key::<Cow<'_, str>>()? {
            name.to_mut().make_ascii_lowercase();
            match name.as_ref() {
                "echo" => set(&mut fields, &mut connect.echo)?,
                "verbose" => set(&mut fields, &mut connect.verbose)?,
                "pedantic" => set(&mut fields, &mut connect.pedantic)?,
                "tls_required" => set(&mut fields, &mut connect.tls_required)?,
                "nkey" => set(&mut fields, &mut connect.nkey)?,
                "jwt" => set(&mut fields, &mut connect.jwt)?,
                "sig" => set(&mut fields, &mut connect.sig)?,
                "auth_token" => set(&mut fields, &mut connect.auth_token)?,
                "user" => set(&mut fields, &mut connect.user)?,
                "pass" => set(&mut fields, &mut connect.pass)?,
                "name" => set(&mut fields, &mut connect.name)?,
                "lang" => set(&mut fields, &mut connect.lang)?,
                "version" => set(&mut fields, &mut connect.version)?,
                "protocol" => set(&mut fields, &mut connect.protocol)?,
                "account" => set(&mut fields, &mut connect.account)?,
                "new_account" => set(&mut fields, &mut connect.new_account)?,
                "headers" => set(&mut fields, &mut connect.headers)?,
                "no_responders" => set(&mut fields, &mut connect.no_responders)?,
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        Err(E::custom("not an object"))
    }
}

fn set<'de, A: MapAccess<'de>, T: Deserialize<'de>>(fields: &mut A, field: &mut T) -> Result<(), A::Error> {
    if let Some(value) = fields.next_value::<Option<T>>().map_err(A::Error::custom)? {
        *field = value;
    }
    Ok(())
}

/// The body of INFO, in nats-server's field order. Written by the broker, read by its client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    pub server_id: String,
    pub server_name: String,
    pub version: String,
    pub proto: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_commit: String,
    /// nats-server's Go version. Clients show it, and some want it there.
    pub go: String,
    pub host: String,
    pub port: u16,
    pub headers: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auth_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_verify: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_available: bool,
    pub max_payload: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub jetstream: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub client_id: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_urls: Vec<String>,
    /// Lame duck mode: the server is about to go, connect elsewhere.
    #[serde(rename = "ldm", skip_serializing_if = "std::ops::Not::not")]
    pub lame_duck: bool,
    /// True in the INFO that answers the first PING after CONNECT.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub connect_info: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_account: String,
    #[serde(rename = "acc_is_sys", skip_serializing_if = "std::ops::Not::not")]
    pub is_system_account: bool,
    /// JetStream API level.
    #[serde(skip_serializing_if = "is_zero")]
    pub api_lvl: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Info {
    /// Reads the body of an INFO; unknown fields are ignored.
    ///
    /// # Errors
    /// `BadJson` when it is no JSON object or a field has the wrong type.
    pub fn parse(body: &[u8]) -> Result<Info, ProtocolError> {
        // A derived struct would also read an array of its fields in order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(ProtocolError::BadJson);
        }
        serde_json::from_slice(body).map_err(|_| ProtocolError::BadJson)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Option<Connect>) {
        let mut connect = Connect::assumed();
        let result = connect.merge(body.as_bytes());
        assert_eq!(result.ok().map(|()| connect), expected, "{body}");
    }

    #[test]
    fn merges_as_go_does() {
        let assumed = Connect::assumed();
        check("{}", Some(assumed.clone()));
        check("null", Some(assumed.clone()));
        check(" { } ", Some(assumed.clone()));
        check(r#"{"nope":[1,{}],"name":null,"verbose":null}"#, Some(assumed.clone()));
        check(r#"{"verbose":false}"#, Some(Connect { verbose: false, ..assumed.clone() }));
        check(r#"{"VERBOSE":false,"Name":"n"}"#, Some(Connect { verbose: false, name: "n".into(), ..assumed.clone() }));
        check(r#"{"echo":true,"echo":false}"#, Some(Connect { echo: false, ..assumed.clone() }));
        check(r#"{"name":"a\"b\u00e9"}"#, Some(Connect { name: "a\"b\u{e9}".into(), ..assumed }));
        for body in [
            "",
            "x",
            "{",
            "[]",
            "5",
            "true",
            "\"x\"",
            "{}{}",
            "{} x",
            r#"{"a":1,}"#,
            r#"{"verbose":1}"#,
            r#"{"verbose":"true"}"#,
            r#"{"name":5}"#,
            r#"{"protocol":1.5}"#,
            r#"{"protocol":99999999999999999999}"#,
        ] {
            check(body, None);
        }
    }

    #[test]
    fn reads_bytes_that_are_not_utf8() {
        let mut connect = Connect::assumed();
        assert_eq!(connect.merge(b"{\"name\":\"\xff\"}"), Ok(()));
        assert_eq!(connect.name, "\u{fffd}");
    }

    #[test]
    fn nesting_costs_no_stack() {
        let body = format!("{}1{}", "{\"x\":".repeat(100_000), "}".repeat(100_000));
        assert!(Connect::assumed().merge(body.as_bytes()).is_ok());
        assert!(Connect::assumed().merge("[".repeat(100_000).as_bytes()).is_err());
        assert!(Connect::assumed().merge("{\"name\":[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn debug_shows_no_secrets() {
        let connect = Connect {
            pass: "canary".into(),
            auth_token: "canary".into(),
            jwt: "canary".into(),
            sig: "canary".into(),
            nkey: "canary".into(),
            ..Connect::default()
        };
        assert!(!format!("{connect:?}").contains("canary"));
    }

    #[test]
    fn a_client_reads_what_the_server_writes() {
        let info = Info { server_id: "S".into(), max_payload: 8, client_id: 7, lame_duck: true, ..Info::default() };
        let json = serde_json::to_vec(&info).unwrap();
        assert_eq!(Info::parse(&json), Ok(info));
        assert_eq!(
            String::from_utf8(serde_json::to_vec(&Info::default()).unwrap()).unwrap(),
            r#"{"server_id":"","server_name":"","version":"","proto":0,"go":"","host":"","port":0,"headers":false,"max_payload":0}"#
        );
        let mut read = Connect::assumed();
        read.merge(&serde_json::to_vec(&Connect::default()).unwrap()).unwrap();
        assert_eq!(read, Connect::default());
    }
}
