//! What the CAs of others wrote once, kept in `recorded/`: certificates and lists that no library here made.
//! In: those files, good until 2036. Out: who gets in with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tests::{Backend, Behaviour, Credentials, World};

/// A recorded file.
fn recorded(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/recorded");
    folder.join(name)
}

/// A recorded certificate with its key, which git does not keep from others' eyes.
fn credentials(world: &World, name: &str) -> Credentials {
    let key = world
        .folder()
        .join(format!("{}.key", name.replace('/', "-")));
    fs::copy(recorded(&format!("{name}.key")), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    Credentials {
        certificate: recorded(&format!("{name}.pem")),
        key,
    }
}

#[test]
fn the_list_that_step_ca_wrote_shuts_out_whom_it_revoked_and_nobody_else() {
    let world = World::new();
    let backend = Backend::start(Behaviour::Echo);
    let list = format!("crl = [{:?}]", recorded("step-ca/list.der"));
    let gateway = world
        .setup()
        .client_ca(&recorded("step-ca/intermediate.pem"))
        .route("edge", &list, &[backend.address()], "")
        .start();
    let good = credentials(&world, "step-ca/good");
    let mut client = world
        .client()
        .credentials(&good)
        .connect(gateway.address())
        .unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
    let revoked = credentials(&world, "step-ca/revoked");
    let client = world.client().credentials(&revoked);
    client.refused(gateway.address());
    let reason = [("listener", "edge"), ("reason", "revoked")];
    gateway.wait_for("portcullis_handshake_failures_total", &reason, 1);
}
