//! `[listener.headers]` and `[identity.headers]`: what backends are told of clients, under which names.
//! In: the section as written. Out: `ToldFields`. No name may be one that HTTP itself has a use for.

use gateway_core::http::limits as http_limits;
use gateway_core::http::message::{
    FORWARDED, FORWARDED_FOR, FixedField, ForwardedFormat, Part, ToldFields,
    is_connection_specific, is_name, is_value,
};
use gateway_x509::file;

use super::diagnostics::{Diagnostics, Location};
use super::raw::{RawHeaderFile, RawHeaders, Text};
use super::value::{Field, Pairs, Spanned, TextOrTable};

/// Checks the section; `Some(None)` if there is none.
pub(super) fn check(
    field: Field<RawHeaders>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<ToldFields>> {
    let raw = match field {
        Field::Absent => return Some(None),
        given => given.given()?.value,
    };
    let RawHeaders {
        location,
        tenant,
        identity,
        certificate,
        forwarded,
        uri,
        dns,
        cn,
        ou,
        issuer,
        fingerprint,
        set,
    } = raw;
    let mut names = Names {
        location: &location,
        taken: Vec::new(),
        is_sound: true,
    };
    let tenant = names.take("tenant", tenant, diagnostics);
    let written = [
        ("identity", identity, Part::Identity),
        ("certificate", certificate, Part::ForwardedClientCert),
        ("uri", uri, Part::Uri),
        ("dns", dns, Part::Dns),
        ("cn", cn, Part::CommonName),
        ("ou", ou, Part::OrganizationalUnit),
        ("issuer", issuer, Part::Issuer),
        ("fingerprint", fingerprint, Part::Fingerprint),
    ];
    let mut parts = Vec::new();
    for (key, field, part) in written {
        let name = names.take(key, field, diagnostics);
        parts.extend(name.map(|name| (name, part)));
    }
    let fixed = fixed(&mut names, set, diagnostics);
    let is_sound = names.is_sound;
    let forwarded = diagnostics.optional(&location, "forwarded", forwarded, |text| {
        let name = text.to_ascii_lowercase();
        match name.as_bytes() {
            FORWARDED_FOR => Ok(ForwardedFormat::XForwarded),
            FORWARDED => Ok(ForwardedFormat::Forwarded),
            _ => Err("must be \"X-Forwarded-For\" or \"Forwarded\"".to_owned()),
        }
    })?;
    is_sound.then_some(Some(ToldFields {
        tenant,
        parts,
        forwarded,
        fixed: fixed?,
    }))
}

/// The names of a section so far.
struct Names<'l> {
    location: &'l Location,
    taken: Vec<Box<[u8]>>,
    is_sound: bool,
}

impl Names<'_> {
    /// The name that stands under a key.
    fn take(
        &mut self,
        key: &str,
        field: Field<Text>,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Box<[u8]>> {
        let item = match field {
            Field::Absent => return None,
            Field::Wrong => {
                self.is_sound = false;
                return None;
            }
            Field::Given(item) => item,
        };
        match self.add(&item.value) {
            Ok(name) => Some(name),
            Err(expectation) => {
                diagnostics.wrong(self.location, key, &item, expectation);
                self.is_sound = false;
                None
            }
        }
    }

    /// Takes a name that no other key has.
    fn add(&mut self, written: &str) -> Result<Box<[u8]>, String> {
        let name = name(written)?;
        // Servers that read `_` as `-` would see one name twice.
        let canonical = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
        let same = |other: &[u8]| other.iter().map(canonical).eq(name.iter().map(canonical));
        if self.taken.iter().any(|other| same(other)) {
            return Err("is named twice".to_owned());
        }
        self.taken.push(name.clone());
        Ok(name)
    }
}

/// The name of a field that the gateway may write, in lower case.
pub(super) fn name(written: &str) -> Result<Box<[u8]>, String> {
    let name = written.to_ascii_lowercase();
    let bytes = name.as_bytes();
    if !is_name(bytes) || bytes.len() > http_limits::HEADER_NAME_BYTES_MAX {
        return Err(format!(
            "must be the name of a header, of at most {} letters, digits or !#$%&'*+-.^_`|~",
            http_limits::HEADER_NAME_BYTES_MAX
        ));
    }
    let is_of_http = is_connection_specific(bytes)
        || matches!(
            bytes,
            b"host"
                | b"content-length"
                | b"content-type"
                | b"content-encoding"
                | b"te"
                | b"trailer"
                | b"expect"
        );
    // gRPC has its own use for the one, and takes base64 in the other (its protocol over HTTP/2, "Requests").
    if is_of_http || bytes.starts_with(b"grpc-") || bytes.ends_with(b"-bin") {
        return Err("is a name that HTTP or gRPC has another use for: choose another".to_owned());
    }
    Ok(bytes.into())
}

/// Fields that are the same for all clients.
fn fixed(
    names: &mut Names<'_>,
    field: Field<Pairs<TextOrTable<RawHeaderFile>>>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<FixedField>> {
    let pairs = match field {
        Field::Absent => return Some(Vec::new()),
        given => given.given()?.value.0,
    };
    let location = Location {
        label: names.location.key("set"),
        line: names.location.line,
    };
    let mut fields = Vec::new();
    let count = pairs.len();
    for (written, item) in pairs {
        let line = item.line;
        let (value, is_secret) = match item.value {
            TextOrTable::Text(text) => (Some(text.into_bytes()), false),
            TextOrTable::Table(raw) => (content(raw, diagnostics), true),
        };
        let name = names.add(&written);
        let field = name.and_then(|name| {
            let value = value.unwrap_or_default();
            match is_value(&value) {
                true => Ok(FixedField {
                    name,
                    value: value.into(),
                    is_secret,
                }),
                false => Err("must be one line, without white space at its ends".to_owned()),
            }
        });
        match field {
            Ok(field) => fields.push(field),
            Err(expectation) => diagnostics.refuse(line, location.key(&written), expectation),
        }
    }
    (fields.len() == count).then_some(fields)
}

/// The first line of a file: most editors end it.
fn content(raw: RawHeaderFile, diagnostics: &mut Diagnostics<'_>) -> Option<Vec<u8>> {
    let location = raw.location;
    let missing = "name the file that the value is in";
    let written = raw.file.clone().given();
    let path =
        diagnostics.required(
            &location,
            "file",
            raw.file,
            missing,
            |text| Ok(text.clone()),
        )?;
    let path = diagnostics.resolve(&path);
    match file::file(&path, http_limits::HEADER_VALUE_BYTES_MAX) {
        Ok(mut bytes) => {
            while bytes
                .last()
                .is_some_and(|last| matches!(last, b'\n' | b'\r'))
            {
                bytes.pop();
            }
            Some(bytes)
        }
        Err(error) => {
            if let Some(item) = written {
                refuse_file(&location, &item, error, diagnostics);
            }
            None
        }
    }
}

fn refuse_file(
    location: &Location,
    item: &Spanned<String>,
    error: impl std::fmt::Display,
    diagnostics: &mut Diagnostics<'_>,
) {
    diagnostics.wrong(location, "file", item, error);
}
