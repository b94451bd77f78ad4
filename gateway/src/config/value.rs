//! Values as written: typed, with the line and the text they came from.
//! In: a parsed TOML table. Out: `Field`s; a value of a wrong type and an unknown key are reported and the rest is read on.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::diagnostics::{Diagnostics, Location};

/// A value with where it came from.
#[derive(Debug, Clone)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// As written, shortened to one line.
    pub written: String,
    /// Line, counted from one.
    pub line: usize,
}

/// What stands under a key.
#[derive(Debug, Clone)]
pub enum Field<T> {
    /// Nothing.
    Absent,
    /// Something of the wrong type, which has been reported.
    Wrong,
    /// A value.
    Given(Spanned<T>),
}

impl<T> Field<T> {
    /// The value, if there is a usable one.
    pub fn given(self) -> Option<Spanned<T>> {
        match self {
            Field::Given(item) => Some(item),
            Field::Absent | Field::Wrong => None,
        }
    }
}

/// A type that values can have.
pub trait Value: Sized {
    /// What to write: `must be a string such as "10s"`.
    const EXPECTED: &'static str;

    /// Reads the value; `None` when its type is wrong. `location` is the value's own: its label names the key.
    fn read(
        value: &DeValue<'_>,
        location: Location,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self>;
}

/// A value that is taken whatever it is.
#[derive(Debug, Clone)]
pub struct Anything;

impl Value for Anything {
    const EXPECTED: &'static str = "takes any value";

    fn read(_: &DeValue<'_>, _: Location, _: &mut Diagnostics<'_>) -> Option<Self> {
        Some(Anything)
    }
}

impl Value for String {
    const EXPECTED: &'static str = "must be a string in quotes";

    fn read(value: &DeValue<'_>, _: Location, _: &mut Diagnostics<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "must be true or false";

    fn read(value: &DeValue<'_>, _: Location, _: &mut Diagnostics<'_>) -> Option<Self> {
        value.as_bool()
    }
}

impl Value for i64 {
    const EXPECTED: &'static str = "must be a whole number";

    fn read(value: &DeValue<'_>, _: Location, _: &mut Diagnostics<'_>) -> Option<Self> {
        let number = value.as_integer()?;
        i64::from_str_radix(number.as_str(), number.radix()).ok()
    }
}

impl Value for Vec<Spanned<String>> {
    const EXPECTED: &'static str = "must be an array of strings";

    fn read(value: &DeValue<'_>, _: Location, diagnostics: &mut Diagnostics<'_>) -> Option<Self> {
        let text = |element: &toml::Spanned<DeValue<'_>>| {
            let value = element.get_ref().as_str()?.to_owned();
            Some(spanned(value, element.span(), diagnostics))
        };
        value.as_array()?.iter().map(text).collect()
    }
}

/// On, off, or one of several ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoolOrText {
    /// `true` or `false`.
    Bool(bool),
    /// The name of a way.
    Text(String),
}

impl Value for BoolOrText {
    const EXPECTED: &'static str = "must be true, false or a string in quotes";

    fn read(value: &DeValue<'_>, _: Location, _: &mut Diagnostics<'_>) -> Option<Self> {
        let text = || value.as_str().map(|text| BoolOrText::Text(text.to_owned()));
        value.as_bool().map(BoolOrText::Bool).or_else(text)
    }
}

/// One text, or several in an array.
#[derive(Debug, Clone)]
pub struct OneOrMore(pub Vec<Spanned<String>>);

impl Value for OneOrMore {
    const EXPECTED: &'static str = "must be a string in quotes, or an array of strings";

    fn read(
        value: &DeValue<'_>,
        location: Location,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return Vec::read(value, location, diagnostics).map(OneOrMore);
        };
        Some(OneOrMore(vec![Spanned {
            value: text.to_owned(),
            written: format!("{text:?}"),
            line: location.line,
        }]))
    }
}

/// A text, or a table that says more.
#[derive(Debug, Clone)]
pub enum TextOrTable<T> {
    /// The text.
    Text(String),
    /// The table.
    Table(T),
}

impl<T: Section> Value for TextOrTable<T> {
    const EXPECTED: &'static str = "must be a string in quotes, or a table";

    fn read(
        value: &DeValue<'_>,
        location: Location,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        match value.as_str() {
            Some(text) => Some(TextOrTable::Text(text.to_owned())),
            None => {
                let table = value.as_table()?;
                Some(TextOrTable::Table(section(table, location, diagnostics)))
            }
        }
    }
}

/// A table whose keys are the user's own, in the order of their names.
#[derive(Debug, Clone)]
pub struct Pairs<T>(pub Vec<(String, Spanned<T>)>);

impl<T: Value> Value for Pairs<T> {
    const EXPECTED: &'static str = "must be a table";

    fn read(
        value: &DeValue<'_>,
        location: Location,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let mut pairs = Vec::new();
        for (key, value) in value.as_table()? {
            let name = key.get_ref().to_string();
            let line = diagnostics.line(key.span().start);
            let label = location.key(&name.escape_debug().to_string());
            let found = spanned((), value.span(), diagnostics);
            let own = Location { label, line };
            match T::read(value.get_ref(), own, diagnostics) {
                Some(read) => pairs.push((
                    name,
                    Spanned {
                        value: read,
                        written: found.written,
                        line,
                    },
                )),
                None => diagnostics.wrong(&location, &name, &found, T::EXPECTED),
            }
        }
        Some(Pairs(pairs))
    }
}

/// A table with known keys; made by `raw::section!`.
pub trait Section: Sized {
    /// Every key, in the order of the reference.
    const KEYS: &'static [&'static str];

    /// Reads the table's keys.
    fn read(table: &mut Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Self;
}

/// Reads a section, and reports what it does not know.
pub fn section<S: Section>(
    table: &DeTable<'_>,
    location: Location,
    diagnostics: &mut Diagnostics<'_>,
) -> S {
    let entries = table
        .iter()
        .map(|(key, value)| (key.get_ref().as_ref(), (key.span().start, value)));
    let mut table = Table {
        location,
        entries: entries.collect(),
    };
    let section = S::read(&mut table, diagnostics);
    table.refuse_the_rest(S::KEYS, diagnostics);
    section
}

/// A section given once: `[tls]`.
impl<S: Section> Value for S {
    const EXPECTED: &'static str = "must be a table";

    fn read(
        value: &DeValue<'_>,
        location: Location,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        Some(section(value.as_table()?, location, diagnostics))
    }
}

/// A section given any number of times: `[[listener]]`.
#[derive(Debug, Clone)]
pub struct Sections<S>(pub Vec<S>);

impl<S: Section> Value for Sections<S> {
    const EXPECTED: &'static str = "must be an array of tables, each under its own [[heading]]";

    fn read(
        value: &DeValue<'_>,
        location: Location,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let mut sections = Vec::new();
        for (index, element) in value.as_array()?.iter().enumerate() {
            let table = element.get_ref().as_table()?;
            let name = table.get("name").and_then(|name| name.get_ref().as_str());
            let label = match name {
                Some(name) => format!("{} \"{}\"", location.label, name.escape_debug()),
                None => format!(
                    "{} {}",
                    location.label,
                    diagnostics.sections_before + index + 1
                ),
            };
            let line = diagnostics.line(element.span().start);
            sections.push(section(table, Location { label, line }, diagnostics));
        }
        Some(Sections(sections))
    }
}

impl<S> Field<Sections<S>> {
    /// The sections; none when the key is absent, `None` when its value is wrong.
    pub fn sections(self) -> Option<Vec<S>> {
        match self {
            Field::Absent => Some(Vec::new()),
            Field::Wrong => None,
            Field::Given(item) => Some(item.value.0),
        }
    }
}

/// A table whose keys are taken one by one.
#[derive(Debug)]
pub struct Table<'t, 'i> {
    location: Location,
    entries: BTreeMap<&'t str, (usize, &'t toml::Spanned<DeValue<'i>>)>,
}

impl Table<'_, '_> {
    /// Where the table stands.
    pub fn location(&self) -> Location {
        self.location.clone()
    }

    /// Takes the value of a key; reports a wrong type.
    pub fn take<T: Value>(&mut self, key: &str, diagnostics: &mut Diagnostics<'_>) -> Field<T> {
        let Some((key_offset, value)) = self.entries.remove(key) else {
            return Field::Absent;
        };
        let line = diagnostics.line(key_offset);
        let location = Location {
            label: self.location.key(key),
            line,
        };
        match T::read(value.get_ref(), location, diagnostics) {
            Some(read) => Field::Given(Spanned {
                line,
                ..spanned(read, value.span(), diagnostics)
            }),
            None => {
                let found = spanned((), value.span(), diagnostics);
                let found = Spanned { line, ..found };
                diagnostics.wrong(&self.location, key, &found, T::EXPECTED);
                Field::Wrong
            }
        }
    }

    fn refuse_the_rest(self, known: &[&str], diagnostics: &mut Diagnostics<'_>) {
        for (key, (key_offset, _)) in self.entries {
            let line = diagnostics.line(key_offset);
            let guess = nearest(key, known)
                .map_or(String::new(), |near| format!(", did you mean `{near}`?"));
            let known = known.join(", ");
            let key = self.location.key(&key.escape_debug().to_string());
            diagnostics.refuse(
                line,
                key,
                format_args!("unknown key{guess} (the keys here: {known})"),
            );
        }
    }
}

/// A value with its location in the text.
pub(super) fn spanned<T>(
    value: T,
    span: std::ops::Range<usize>,
    diagnostics: &Diagnostics<'_>,
) -> Spanned<T> {
    Spanned {
        value,
        line: diagnostics.line(span.start),
        written: diagnostics.written(span),
    }
}

/// The known key that a mistyped one was most likely meant to be.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, near) = known
        .iter()
        .map(|candidate| (edit_distance(key, candidate), *candidate))
        .min()?;
    (distance <= 2.max(near.len() / 3)).then_some(near)
}

/// Levenshtein's distance, row by row.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, left_character) in left.chars().enumerate() {
        let mut diagonal = index;
        row[0] = index + 1;
        for (column, right_character) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(left_character != *right_character);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_keys_find_their_meaning() {
        let known = ["name", "address", "handshake_timeout", "idle_timeout"];
        assert_eq!(
            nearest("handshake_timout", &known),
            Some("handshake_timeout")
        );
        assert_eq!(nearest("adress", &known), Some("address"));
        assert_eq!(
            nearest("handshake-timeout", &known),
            Some("handshake_timeout")
        );
        assert_eq!(nearest("colour_of_the_sky", &known), None);
    }

    #[test]
    fn edit_distance_counts_changes() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }
}
