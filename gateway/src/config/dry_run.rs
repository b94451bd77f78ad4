//! `observe`: another configuration file, in a dry run on live traffic before it is put in force.
//! In: its path. Out: the whole of it, checked like the one in force, or its errors at the key's line.

use std::sync::Arc;

use super::Loaded;
use super::checked::Config;
use super::diagnostics::{Diagnostics, Location};
use super::listener::CheckedListener;
use super::raw::Text;
use super::value::Field;

/// Loads the configuration for the dry run; `None` when it is wrong.
pub fn check(
    location: &Location,
    field: Field<Text>,
    listeners: &[CheckedListener],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<Arc<Config>>> {
    let item = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    // It could lead to itself, or to a chain of files that no operator can oversee.
    if diagnostics.is_dry_run {
        let text = "must not stand in a configuration that is observed itself";
        diagnostics.wrong(location, "observe", &item, text);
        return None;
    }
    let path = diagnostics.resolve(&item.value);
    let Loaded { config, .. } = match super::load_for_dry_run(&path) {
        Ok(loaded) => loaded,
        Err(errors) => {
            let files = errors.files().iter().cloned();
            files.for_each(|snapshot| diagnostics.note(snapshot));
            errors
                .again_at()
                .into_iter()
                .for_each(|at| diagnostics.turns_at(at));
            for error in errors.as_slice() {
                let text = format_args!("cannot be used: {error}");
                diagnostics.wrong(location, "observe", &item, text);
            }
            return None;
        }
    };
    let files = config.files.iter().cloned();
    files.for_each(|snapshot| diagnostics.note(snapshot));
    config
        .again_at
        .into_iter()
        .for_each(|at| diagnostics.turns_at(at));
    let checked = listeners.iter().filter_map(|known| known.checked.as_ref());
    for listener in checked {
        let name = &listener.name;
        if config.listeners.iter().all(|other| other.name != *name) {
            let text =
                format_args!("has no listener \"{name}\": nothing is reported about its clients");
            diagnostics.warn(item.line, &location.key("observe"), text);
        }
    }
    Some(Some(Arc::new(config)))
}
