//! `observe`: another configuration file, tried on live traffic before it is put in force.
//! In: its path. Out: the whole of it, checked like the one in force, or its errors at the key's line.

use std::sync::Arc;

use super::Loaded;
use super::checked::Config;
use super::listener::CheckedListener;
use super::raw::Text;
use super::report::{Place, Report};
use super::value::Field;

/// Loads the configuration that is observed; `None` when it is wrong.
pub fn check(
    place: &Place,
    field: Field<Text>,
    listeners: &[CheckedListener],
    report: &mut Report<'_>,
) -> Option<Option<Arc<Config>>> {
    let item = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    // Itself would lead to itself, and any other that observes one to a chain that nobody can oversee.
    if report.is_observed {
        let text = "must not stand in a configuration that is observed itself";
        report.wrong(place, "observe", &item, text);
        return None;
    }
    let path = report.resolve(&item.value);
    let Loaded { config, .. } = match super::load_observed(&path) {
        Ok(loaded) => loaded,
        Err(errors) => {
            let files = errors.files().iter().cloned();
            files.for_each(|snapshot| report.note(snapshot));
            errors
                .again_at()
                .into_iter()
                .for_each(|at| report.turns_at(at));
            for error in errors.as_slice() {
                let text = format_args!("cannot be used: {error}");
                report.wrong(place, "observe", &item, text);
            }
            return None;
        }
    };
    let files = config.files.iter().cloned();
    files.for_each(|snapshot| report.note(snapshot));
    config
        .again_at
        .into_iter()
        .for_each(|at| report.turns_at(at));
    let checked = listeners.iter().filter_map(|known| known.checked.as_ref());
    for listener in checked {
        let name = &listener.name;
        if config.listeners.iter().all(|other| other.name != *name) {
            let text =
                format_args!("has no listener \"{name}\": nothing is reported about its clients");
            report.warn(item.line, &place.key("observe"), text);
        }
    }
    Some(Some(Arc::new(config)))
}
