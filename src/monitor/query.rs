//! A request's query string, read as Go's `strconv` would and refused in its words.

/// Decoded parameters of one request; the first of a name wins.
pub struct Query(Vec<(String, String)>);

/// A parameter that cannot be read: answered with 400 and this text.
#[derive(Debug, PartialEq, Eq)]
pub struct BadQuery(pub String);

impl Query {
    pub fn parse(query: Option<&str>) -> Query {
        Query(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// Empty when absent.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub fn flag(&self, name: &str) -> Result<bool, BadQuery> {
        match self.text(name) {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            other => Err(BadQuery(format!(
                "Error decoding boolean for '{name}': strconv.ParseBool: parsing {other:?}: invalid syntax"
            ))),
        }
    }

    /// 0 when absent; negative numbers count as 0, as the endpoints treat them.
    pub fn count(&self, name: &str) -> Result<usize, BadQuery> {
        match self.text(name) {
            "" => Ok(0),
            text => text.parse::<i64>().map(|number| usize::try_from(number).unwrap_or(0)).map_err(|_| {
                BadQuery(format!("Error decoding int for '{name}': strconv.Atoi: parsing {text:?}: invalid syntax"))
            }),
        }
    }

    pub fn id(&self, name: &str) -> Result<u64, BadQuery> {
        match self.text(name) {
            "" => Ok(0),
            text => text.parse().map_err(|_| {
                BadQuery(format!(
                    "Error decoding uint64 for '{name}': strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_go_reads_them() {
        let query = Query::parse(Some("a=1&b=T&c=no&n=-4&m=7&x=1x&name=a%20b+c&a=0"));
        assert_eq!((query.flag("a"), query.flag("b"), query.flag("absent")), (Ok(true), Ok(true), Ok(false)));
        assert_eq!((query.count("n"), query.count("m"), query.count("absent")), (Ok(0), Ok(7), Ok(0)));
        assert_eq!(query.text("name"), "a b c");
        let check = |error: BadQuery, expected: &str| assert_eq!(error.0, expected);
        check(
            query.flag("c").unwrap_err(),
            "Error decoding boolean for 'c': strconv.ParseBool: parsing \"no\": invalid syntax",
        );
        check(
            query.count("x").unwrap_err(),
            "Error decoding int for 'x': strconv.Atoi: parsing \"1x\": invalid syntax",
        );
        check(
            query.id("n").unwrap_err(),
            "Error decoding uint64 for 'n': strconv.ParseUint: parsing \"-4\": invalid syntax",
        );
    }
}
