//! Tidy rule about names: no two types of a crate share one if both can be named from outside their modules.
//! In: the sources of every crate. Out: the names that such types share.

use command::root;

use super::assert_none;
use crate::house::names::shared;
use crate::house::source::crates;

#[test]
fn one_name_is_one_type() {
    let crates = crates(&root()).unwrap();
    assert!(crates.len() > 10, "{} crates", crates.len());
    let mut complaints = Vec::new();
    for name in shared(&crates).iter().filter(|name| name.seen_outside) {
        complaints.push(format!(
            "{}: {} in {}",
            name.in_crate,
            name.name,
            name.modules.join(", ")
        ));
    }
    assert_none("a name means one thing", &complaints);
}
