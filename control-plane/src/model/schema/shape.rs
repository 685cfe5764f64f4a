//! The language of the tables, and the check of a value against them.

use serde_json::{Map, Value};

use super::report::{Report, describe, enumerate, quote, suggest};
use crate::model::Duration;

/// What a value must be.
#[derive(Debug)]
pub(super) enum Shape {
    /// A mapping with known fields.
    Object(&'static Object),
    /// A list.
    List(&'static List),
    /// A mapping from text to text.
    Labels(&'static Labels),
    /// Text that passes the check.
    Text(TextCheck),
    /// A duration within bounds.
    Duration(Duration, Duration),
    /// A whole number within bounds.
    Integer(u64, u64),
    /// A number within bounds.
    Decimal(u32, u32),
    /// `true` or `false`.
    Bool,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Not checked.
    Any,
}

/// Says what is wrong with a text, and what is allowed.
pub(super) type TextCheck = fn(&str) -> Result<(), String>;

/// Checks fields of a mapping against each other.
pub(super) type Rule = fn(&Map<String, Value>, &mut Report);

/// A mapping with known fields.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) fields: &'static [Field],
    rule: Option<Rule>,
}

/// A field of an [`Object`].
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    required: bool,
}

/// A list.
#[derive(Debug)]
pub(super) struct List {
    pub(super) item: Shape,
    pub(super) min: usize,
    pub(super) max: usize,
    /// Fields in which no two items may agree; "" means the item as a whole.
    pub(super) unique: &'static [&'static str],
}

/// A mapping from text to text.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) key: TextCheck,
    pub(super) value: TextCheck,
    pub(super) max: usize,
}

impl Field {
    pub(super) const fn required(name: &'static str, shape: Shape) -> Self {
        let required = true;
        Self {
            name,
            shape,
            required,
        }
    }

    /// May be left out; `null` is the same as leaving it out.
    pub(super) const fn optional(name: &'static str, shape: Shape) -> Self {
        let required = false;
        Self {
            name,
            shape,
            required,
        }
    }
}

impl Object {
    pub(super) const fn new(fields: &'static [Field]) -> Self {
        Self { fields, rule: None }
    }

    pub(super) const fn with_rule(fields: &'static [Field], rule: Rule) -> Self {
        let rule = Some(rule);
        Self { fields, rule }
    }

    /// Whether an empty mapping passes.
    pub(super) fn needs_nothing(&self) -> bool {
        self.fields.iter().all(|field| !field.required)
    }

    /// The message for where the mapping as a whole is missing.
    pub(super) fn missing(&self) -> String {
        let required = self
            .fields
            .iter()
            .filter(|field| field.required)
            .map(|field| field.name);
        format!(
            "is missing; it needs {}",
            enumerate(&required.collect::<Vec<_>>())
        )
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.fields.iter().map(|field| field.name).collect()
    }

    fn check(&self, members: &Map<String, Value>, report: &mut Report) {
        for field in self.fields {
            report.within(field.name, |report| match members.get(field.name) {
                Some(Value::Null) | None if field.required => {
                    report.problem(format!("is missing; expected {}", field.shape.expected()))
                }
                Some(Value::Null) | None => {}
                Some(value) => field.shape.check(value, report),
            });
        }
        for name in members.keys() {
            if !self.fields.iter().any(|field| field.name == name) {
                report.problem_at(name, unknown_field(name, &self.names()));
            }
        }
        if let Some(rule) = self.rule {
            rule(members, report);
        }
    }
}

fn unknown_field(name: &str, known: &[&str]) -> String {
    if name == "<<" {
        return "merge keys are not supported; write the fields out".to_owned();
    }
    match suggest(name, known) {
        Some(meant) => format!("unknown field {}; did you mean \"{meant}\"?", quote(name)),
        None => format!(
            "unknown field {}; known here are {}",
            quote(name),
            enumerate(known)
        ),
    }
}

impl Shape {
    /// Reports everything that is wrong with the value.
    pub(super) fn check(&self, value: &Value, report: &mut Report) {
        match (self, value) {
            (Self::Any, _) | (Self::Bool, Value::Bool(_)) => {}
            (Self::Object(object), Value::Object(members)) => object.check(members, report),
            (Self::List(list), Value::Array(items)) => list.check(items, report),
            (Self::Labels(labels), Value::Object(members)) => labels.check(members, report),
            (Self::Text(check), Value::String(text)) => report_error(check(text), report),
            (Self::Duration(min, max), Value::String(text)) => {
                report_error(check_duration(text, *min, *max), report);
            }
            (Self::OneOf(words), Value::String(text)) => {
                report_error(check_word(text, words), report)
            }
            (Self::Integer(min, max), Value::Number(number))
                if number
                    .as_u64()
                    .is_some_and(|number| (*min..=*max).contains(&number)) => {}
            (Self::Decimal(min, max), Value::Number(number))
                if number.as_f64().is_some_and(|number| {
                    (f64::from(*min)..=f64::from(*max)).contains(&number)
                }) => {}
            _ => {
                let hint = self
                    .hint(value)
                    .map(|hint| format!("; {hint}"))
                    .unwrap_or_default();
                report.problem(format!(
                    "expected {}, found {}{hint}",
                    self.expected(),
                    describe(value)
                ));
            }
        }
    }

    /// What is allowed.
    fn expected(&self) -> String {
        match self {
            Self::Object(_) | Self::Labels(_) => "a mapping".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Text(_) => "text".to_owned(),
            Self::Duration(..) => "a duration, for example 250ms, 10s or 1m30s".to_owned(),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Decimal(min, max) => format!("a number from {min} to {max}"),
            Self::Bool => "true or false".to_owned(),
            Self::OneOf(words) => enumerate_or(words),
            Self::Any => "a value".to_owned(),
        }
    }

    /// How to write what was probably meant.
    fn hint(&self, found: &Value) -> Option<String> {
        match (self, found) {
            (Self::Text(_) | Self::OneOf(_), Value::Number(_) | Value::Bool(_)) => {
                Some(format!("put it in quotes: \"{found}\""))
            }
            (Self::Duration(..), Value::Number(number)) => {
                Some(format!("add a unit: {number}s or {number}ms"))
            }
            (Self::Integer(..), Value::String(text)) if text.parse::<u64>().is_ok() => {
                Some("write it without quotes".to_owned())
            }
            (Self::Bool, Value::String(text)) => match text.to_lowercase().as_str() {
                "yes" | "on" | "true" => Some("write true".to_owned()),
                "no" | "off" | "false" => Some("write false".to_owned()),
                _ => None,
            },
            (Self::List(_), Value::String(_) | Value::Number(_)) => {
                Some(format!("write [{found}]"))
            }
            (Self::List(_), Value::Object(_)) => Some("begin each item with \"- \"".to_owned()),
            _ => None,
        }
    }
}

fn report_error(result: Result<(), String>, report: &mut Report) {
    if let Err(message) = result {
        report.problem(message);
    }
}

fn enumerate_or(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

fn check_duration(text: &str, min: Duration, max: Duration) -> Result<(), String> {
    let duration: Duration = text.parse().map_err(|error| format!("{error}"))?;
    if duration < min {
        Err(format!(
            "the duration \"{text}\" is too short; allowed are {min} to {max}"
        ))
    } else if duration > max {
        Err(format!(
            "the duration \"{text}\" is too long; allowed are {min} to {max}"
        ))
    } else {
        Ok(())
    }
}

fn check_word(text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) {
        return Ok(());
    }
    let found = quote(text);
    if let [only] = words {
        return Err(format!("{found} is not known; allowed is {only}"));
    }
    let meant = suggest(text, words)
        .map(|meant| format!("; did you mean \"{meant}\"?"))
        .unwrap_or_default();
    Err(format!(
        "{found} is not known; allowed are {}{meant}",
        enumerate(words)
    ))
}

impl List {
    fn check(&self, items: &[Value], report: &mut Report) {
        let (min, max) = (self.min, self.max);
        if items.len() < min {
            report.problem(format!("the list is empty; it needs at least {min} item"));
        } else if items.len() > max {
            report.problem(format!(
                "the list has {} items; at most {max} are allowed",
                items.len()
            ));
            return;
        }
        for (index, item) in items.iter().enumerate() {
            report.within_item(index, |report| self.item.check(item, report));
        }
        for field in self.unique {
            check_unique(items, field, report);
        }
    }
}

fn check_unique(items: &[Value], field: &str, report: &mut Report) {
    let value = |item: &'_ Value| {
        let value = if field.is_empty() {
            Some(item)
        } else {
            item.get(field)
        };
        value.filter(|value| !value.is_null()).map(Value::to_string)
    };
    let mut first = std::collections::HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let Some(value) = value(item) else { continue };
        let Some(earlier) = first.get(&value) else {
            first.insert(value, index);
            continue;
        };
        let list = report.path();
        report.within_item(index, |report| {
            if field.is_empty() {
                report.problem(format!("the same as {list}[{earlier}]; give it once"));
            } else {
                report.problem_at(
                    field,
                    format!("the same {field} as {list}[{earlier}]; each must have its own"),
                );
            }
        });
    }
}

impl Labels {
    fn check(&self, members: &Map<String, Value>, report: &mut Report) {
        if members.len() > self.max {
            report.problem(format!(
                "it has {} entries; at most {} are allowed",
                members.len(),
                self.max
            ));
            return;
        }
        for (key, value) in members {
            report.within(key, |report| {
                report_error((self.key)(key), report);
                Shape::Text(self.value).check(value, report);
            });
        }
    }
}
