//! Hitachi Query Language: filters and orders of lists (docs/apis/jp1ao.md, "HQL").
//!
//! ```text
//! filter     = all { "or" all }
//! all        = test { "and" test }
//! test       = "(" filter ")" | member operator value | member ["not"] "in" "[" value { "," value } "]"
//! member     = name | "[" name "]"
//! value      = "'" text with '' for a quote "'" | digits | true | false
//! ```
//!
//! The precedence of `and` and `or` is undocumented; here `and` binds more tightly.

use std::cmp::Ordering;
use std::time::SystemTime;

use serde_json::Value;

use super::list::{Kind, ListSchema};
use super::time_format;

/// Maximum length of a filter.
const MAX_FILTER_BYTES: usize = 16 << 10;
/// Maximum nesting of parentheses.
const MAX_DEPTH: usize = 32;

/// A filter that is valid for its members.
#[derive(Debug, PartialEq)]
pub enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Compare(&'static str, Operator, Literal),
    In(&'static str, Vec<Literal>, bool),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operator {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Starts,
    Ends,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Number(u64),
    Text(String),
    Time(SystemTime),
    Bool(bool),
}

impl Literal {
    /// Compares the member's value with the literal; `None` if the kinds differ.
    fn order(&self, value: &Value) -> Option<Ordering> {
        match self {
            Self::Number(number) => Some(value.as_u64()?.cmp(number)),
            Self::Text(text) => Some(value.as_str()?.cmp(text)),
            Self::Bool(bool) => Some(value.as_bool()?.cmp(bool)),
            Self::Time(time) => Some(parse_time(value)?.cmp(time)),
        }
    }
}

/// Parses a time of a response, also with an offset without a colon.
pub fn parse_time(value: &Value) -> Option<SystemTime> {
    let text = value.as_str()?;
    match text.strip_suffix("+0900") {
        Some(text) => time_format::parse(&format!("{text}+09:00"), true),
        None => time_format::parse(text, true),
    }
}

impl Filter {
    /// Parses a filter. Fails with a message.
    pub fn read(text: &str, shape: &ListSchema) -> Result<Self, String> {
        if text.len() > MAX_FILTER_BYTES {
            return Err(format!("longer than {MAX_FILTER_BYTES} bytes"));
        }
        let tokens = tokens(text)?;
        let mut parser = Parser {
            tokens: &tokens,
            shape,
        };
        let filter = parser.any(0)?;
        match parser.tokens.first() {
            None => Ok(filter),
            Some(token) => Err(format!("{token:?} is not expected")),
        }
    }

    pub fn holds(&self, item: &Value) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.holds(item)),
            Self::Any(filters) => filters.iter().any(|filter| filter.holds(item)),
            // A missing value is neither equal nor unequal.
            Self::In(member, literals, negated) => {
                let orders = || literals.iter().map(|literal| literal.order(&item[*member]));
                match negated {
                    false => orders().any(|order| order == Some(Ordering::Equal)),
                    true => orders().all(|order| order.is_some_and(Ordering::is_ne)),
                }
            }
            Self::Compare(member, operator, literal) => {
                let value = &item[*member];
                let text = || {
                    Some((
                        value.as_str()?,
                        match literal {
                            Literal::Text(text) => text.as_str(),
                            _ => return None,
                        },
                    ))
                };
                match operator {
                    Operator::Starts => text().is_some_and(|(value, text)| value.starts_with(text)),
                    Operator::Ends => text().is_some_and(|(value, text)| value.ends_with(text)),
                    _ => literal.order(value).is_some_and(|order| match operator {
                        Operator::Equal => order.is_eq(),
                        Operator::NotEqual => order.is_ne(),
                        Operator::Greater => order.is_gt(),
                        Operator::Less => order.is_lt(),
                        Operator::GreaterOrEqual => order.is_ge(),
                        _ => order.is_le(),
                    }),
                }
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(u64),
    Operator(Operator),
    Open,
    Close,
    OpenList,
    CloseList,
    Comma,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let symbol = [
            ("<>", Token::Operator(Operator::NotEqual)),
            ("!=", Token::Operator(Operator::NotEqual)),
            (">=", Token::Operator(Operator::GreaterOrEqual)),
            ("<=", Token::Operator(Operator::LessOrEqual)),
            ("=", Token::Operator(Operator::Equal)),
            (">", Token::Operator(Operator::Greater)),
            ("<", Token::Operator(Operator::Less)),
            ("(", Token::Open),
            (")", Token::Close),
            ("[", Token::OpenList),
            ("]", Token::CloseList),
            (",", Token::Comma),
        ]
        .into_iter()
        .find(|(symbol, _)| rest.starts_with(symbol));
        let length = match (symbol, first) {
            (Some((symbol, token)), _) => {
                tokens.push(token);
                symbol.len()
            }
            (None, '\'') => {
                let (text, length) = quoted(rest)?;
                tokens.push(Token::Text(text));
                length
            }
            (None, '0'..='9') => {
                let length = span(rest, |c| c.is_ascii_alphanumeric());
                let number = rest[..length].parse();
                tokens.push(Token::Number(
                    number.map_err(|_| format!("{} is no number", &rest[..length]))?,
                ));
                length
            }
            (None, 'a'..='z' | 'A'..='Z' | '_') => {
                let length = span(rest, |c| c.is_ascii_alphanumeric() || c == '_');
                tokens.push(Token::Word(rest[..length].to_owned()));
                length
            }
            (None, other) => return Err(format!("{other:?} is not expected")),
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn span(text: &str, of: impl Fn(char) -> bool) -> usize {
    text.find(|c| !of(c)).unwrap_or(text.len())
}

/// Returns the text between quotes, and its length with them.
fn quoted(text: &str) -> Result<(String, usize), String> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' if chars.next_if(|(_, next)| *next == '\'').is_some() => out.push('\''),
            '\'' => return Ok((out, at + 1)),
            other => out.push(other),
        }
    }
    Err("a quote is not closed".to_owned())
}

struct Parser<'a> {
    tokens: &'a [Token],
    shape: &'a ListSchema,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Result<&'a Token, String> {
        let (first, rest) = self.tokens.split_first().ok_or("it ends too early")?;
        self.tokens = rest;
        Ok(first)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Word(text)) if text.eq_ignore_ascii_case(word));
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn expect(&mut self, wanted: &Token) -> Result<(), String> {
        let token = self.next()?;
        (token == wanted)
            .then_some(())
            .ok_or_else(|| format!("{token:?} in place of {wanted:?}"))
    }

    fn any(&mut self, depth: usize) -> Result<Filter, String> {
        if depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH}"));
        }
        let mut filters = vec![self.all(depth)?];
        while self.word("or") {
            filters.push(self.all(depth)?);
        }
        Ok(Filter::Any(filters))
    }

    fn all(&mut self, depth: usize) -> Result<Filter, String> {
        let mut filters = vec![self.test(depth)?];
        while self.word("and") {
            filters.push(self.test(depth)?);
        }
        Ok(Filter::All(filters))
    }

    fn test(&mut self, depth: usize) -> Result<Filter, String> {
        if self.tokens.first() == Some(&Token::Open) {
            self.next()?;
            let filter = self.any(depth + 1)?;
            self.expect(&Token::Close)?;
            return Ok(filter);
        }
        let (member, kind) = self.member()?;
        let negated = self.word("not");
        if self.word("in") {
            self.expect(&Token::OpenList)?;
            let mut literals = vec![self.literal(member, kind)?];
            loop {
                match self.next()? {
                    Token::Comma => literals.push(self.literal(member, kind)?),
                    Token::CloseList => return Ok(Filter::In(member, literals, negated)),
                    token => return Err(format!("{token:?} within a list")),
                }
            }
        }
        if negated {
            return Err("`not` without `in`".to_owned());
        }
        let operator = self.operator()?;
        let fits = match operator {
            Operator::Equal | Operator::NotEqual => true,
            Operator::Starts | Operator::Ends => matches!(kind, Kind::Text | Kind::Enum),
            _ => kind != Kind::Bool,
        };
        if !fits {
            return Err(format!("{member} has no {operator:?}"));
        }
        Ok(Filter::Compare(
            member,
            operator,
            self.literal(member, kind)?,
        ))
    }

    /// Parses a filterable member, bare or in brackets.
    fn member(&mut self) -> Result<(&'static str, Kind), String> {
        let bracketed = self.tokens.first() == Some(&Token::OpenList);
        if bracketed {
            self.next()?;
        }
        let Token::Word(name) = self.next()? else {
            return Err("a member is missing".to_owned());
        };
        if bracketed {
            self.expect(&Token::CloseList)?;
        }
        self.shape.comparable(name)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        Ok(match self.next()? {
            Token::Operator(operator) => *operator,
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "eq" => Operator::Equal,
                "ne" => Operator::NotEqual,
                "gt" => Operator::Greater,
                "lt" => Operator::Less,
                "ge" => Operator::GreaterOrEqual,
                "le" => Operator::LessOrEqual,
                "starts" => Operator::Starts,
                "ends" => Operator::Ends,
                _ => return Err(format!("{word} is no operator")),
            },
            token => return Err(format!("{token:?} is no operator")),
        })
    }

    /// Parses a value of the member's kind, quoted or bare accordingly.
    fn literal(&mut self, member: &str, kind: Kind) -> Result<Literal, String> {
        let literal = match (kind, self.next()?) {
            (Kind::Long, Token::Number(number)) => Some(Literal::Number(*number)),
            (Kind::Text | Kind::Enum, Token::Text(text)) => Some(Literal::Text(text.clone())),
            (Kind::Time, Token::Text(text)) => time_format::parse(text, true).map(Literal::Time),
            (Kind::Bool, Token::Word(word)) => match word.as_str() {
                "true" | "TRUE" => Some(Literal::Bool(true)),
                "false" | "FALSE" => Some(Literal::Bool(false)),
                _ => None,
            },
            _ => None,
        };
        literal.ok_or_else(|| format!("the value is not one of {member}"))
    }
}

/// One member of an order.
#[derive(Debug, PartialEq)]
pub struct SortKey {
    pub member: &'static str,
    pub kind: Kind,
    pub descending: bool,
}

impl SortKey {
    /// Missing values come first.
    pub fn compare(&self, a: &Value, b: &Value) -> Ordering {
        let (a, b) = (&a[self.member], &b[self.member]);
        let ordering = match self.kind {
            Kind::Long => a.as_u64().cmp(&b.as_u64()),
            Kind::Bool => a.as_bool().cmp(&b.as_bool()),
            Kind::Time => parse_time(a).cmp(&parse_time(b)),
            _ => a.as_str().cmp(&b.as_str()),
        };
        if self.descending {
            ordering.reverse()
        } else {
            ordering
        }
    }
}

/// Parses `member [ASC|DESC]`, separated by commas.
pub fn order(text: &str, shape: &ListSchema) -> Result<Vec<SortKey>, String> {
    text.split(',')
        .map(|part| {
            let words: Vec<&str> = part.split_whitespace().collect();
            let (name, descending) = match words[..] {
                [name] => (name, false),
                [name, way] if way.eq_ignore_ascii_case("asc") => (name, false),
                [name, way] if way.eq_ignore_ascii_case("desc") => (name, true),
                _ => return Err(format!("{part:?} is no order")),
            };
            let name = name
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'))
                .unwrap_or(name);
            let (member, kind) = shape.comparable(name)?;
            Ok(SortKey {
                member,
                kind,
                descending,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LIST_SCHEMA: ListSchema = ListSchema {
        members: &[
            ("instanceID", Kind::Long),
            ("name", Kind::Text),
            ("status", Kind::Enum),
            ("favorite", Kind::Bool),
            ("startTime", Kind::Time),
            ("tags", Kind::Other),
        ],
        searched: &[],
        equal: &[],
    };

    #[test]
    fn filters() {
        let item = json!({
            "instanceID": 2015, "name": "it's 日本 (a) and %2F", "status": "failed", "favorite": true,
            "startTime": "2026-01-02T03:04:05.678+0900", "tags": "a,b",
        });
        for (filter, want) in [
            ("instanceID = 2015", true),
            ("instanceID eq 2015", true),
            ("[instanceID]=2015", true),
            ("instanceID <> 2015", false),
            ("instanceID != 2014", true),
            ("instanceID gt 2014 and instanceID lt 2016", true),
            ("instanceID>=2015 and instanceID<=2015", true),
            ("instanceID in [1, 2015]", true),
            ("instanceID not in [1, 2015]", false),
            ("name = 'it''s 日本 (a) and %2F'", true),
            ("name starts 'it''s'", true),
            ("name ends '%2F'", true),
            ("name starts '日本'", false),
            ("name gt 'a'", true),
            ("name = ''", false),
            ("favorite = true", true),
            ("favorite ne TRUE", false),
            ("startTime ge '2026-01-01T18:04:05.678Z'", true),
            ("startTime lt '2026-01-02T03:04:05.678+09:00'", false),
            (
                "(status in ['failed','canceled']) and (instanceID = 2015)",
                true,
            ),
            ("status = 'x' or favorite = true and name starts 'it'", true),
            (
                "(status = 'x' or favorite = true) and name starts 'no'",
                false,
            ),
            ("((((status = 'failed'))))", true),
            ("STATUS = 'failed'", false),
            ("status EQ 'failed'", true),
        ] {
            match Filter::read(filter, &LIST_SCHEMA) {
                Ok(read) => assert_eq!(read.holds(&item), want, "{filter}"),
                Err(error) => assert_eq!(filter, "STATUS = 'failed'", "{error}"),
            }
        }
        // A missing value is in no list, and `not in` does not match it either.
        for filter in [
            "instanceID != 1",
            "name not in ['a']",
            "startTime lt '2100-01-01T00:00:00Z'",
        ] {
            assert!(
                !Filter::read(filter, &LIST_SCHEMA)
                    .unwrap()
                    .holds(&json!({"name": null})),
                "{filter}"
            );
        }
    }

    #[test]
    fn invalid_filters_are_rejected() {
        let deep = format!("{}instanceID=1{}", "(".repeat(5000), ")".repeat(5000));
        let long = format!("name='{}'", "x".repeat(MAX_FILTER_BYTES));
        for filter in [
            "",
            " ",
            "x",
            "instanceID",
            "instanceID =",
            "instanceID = 'a'",
            "instanceID = -1",
            "instanceID = 1.5",
            "instanceID = 1x",
            "instanceID = 99999999999999999999",
            "name = 1",
            "name = unquoted",
            "name = 'open",
            "name = \"double\"",
            "name like 'a'",
            "name = 'a' and",
            "name = 'a' or or name = 'b'",
            "name = 'a')",
            "(name = 'a'",
            "not name = 'a'",
            "name not 'a'",
            "name in []",
            "name in ['a'",
            "name in 'a'",
            "name in ['a' 'b']",
            "unknown = 1",
            "tags = 'a'",
            "favorite = 'true'",
            "favorite = True",
            "favorite gt true",
            "instanceID starts 1",
            "startTime = '2026'",
            "startTime starts '2026'",
            "startTime = '2026-01-02T03:04:05.678+0900'",
            "[name = 'a'",
            "name] = 'a'",
            "name = 'a'; drop",
            "name == 'a'",
            "日本 = 1",
            "'a' = name",
            &deep,
            &long,
        ] {
            assert!(Filter::read(filter, &LIST_SCHEMA).is_err(), "{filter:.40}");
        }
    }

    #[test]
    fn orders() {
        let read = |text| {
            let order = order(text, &LIST_SCHEMA).ok()?;
            Some(
                order
                    .iter()
                    .map(|by| (by.member, by.descending))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(read("name"), Some(vec![("name", false)]));
        assert_eq!(
            read("status DESC, [name] asc"),
            Some(vec![("status", true), ("name", false)])
        );
        for wrong in ["", "name up", "tags", "nothing", "name,", "name ASC DESC"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_input_does_not_panic(text in ".{0,80}", pieces in proptest::collection::vec(0usize..14, 0..30)) {
            const PIECES: [&str; 14] = [
                "name ", "'", "''", "[", "]", "(", ")", "in ", "not ", "and ", "= ", "日", "1", ",",
            ];
            let made: String = pieces.iter().map(|at| PIECES[*at]).collect();
            for text in [&text, &made] {
                if let Ok(filter) = Filter::read(text, &LIST_SCHEMA) {
                    filter.holds(&json!({"name": "x"}));
                }
                let _ = order(text, &LIST_SCHEMA);
            }
        }

        /// A quoted text is equal to the original, whatever it contains.
        #[test]
        fn quoted_text_is_data(text in ".{0,60}") {
            let filter = format!("name = '{}'", text.replace('\'', "''"));
            let read = Filter::read(&filter, &LIST_SCHEMA).unwrap();
            let holds = read.holds(&json!({"name": text}));
            proptest::prop_assert!(holds);
        }
    }
}
