//! `proto`: makes the code of `dislog-proto` anew from its .proto files, or compares it.
//!
//! The generated code is checked in, so that building Dislog does not need a protobuf compiler; it
//! is made by `protox`, so that making it does not need one from elsewhere.

use std::fs;
use std::path::Path;

use prost::Message as _;

const CRATE: &str = "crates/dislog-proto";
const FILES: [&str; 2] = ["log/v1/log.proto", "log/v1/admin.proto"];
const CODE: &str = "log.v1.rs";
const DESCRIPTORS: &str = "log.v1.bin";

/// Writes the generated files, or with `--check` complains about those that would be others.
pub(crate) fn run(root: &Path, check: bool) -> Result<(), String> {
    let made = tempfile::tempdir().map_err(|error| error.to_string())?;
    generate(&root.join(CRATE).join("proto"), made.path())?;
    let place = root.join(CRATE).join("src/generated");
    for name in [CODE, DESCRIPTORS] {
        let (new, old) = (made.path().join(name), place.join(name));
        let new = fs::read(&new).map_err(|error| format!("{}: {error}", new.display()))?;
        if fs::read(&old).ok().as_ref() == Some(&new) {
            continue;
        }
        if check {
            let old = old.display();
            return Err(format!("{old} is not what the .proto files give: run cargo xtask-proto"));
        }
        fs::write(&old, new).map_err(|error| format!("{}: {error}", old.display()))?;
    }
    Ok(())
}

fn generate(protos: &Path, out: &Path) -> Result<(), String> {
    let descriptors = protox::compile(FILES, [protos])
        .map_err(|error| format!("{}: {error}", protos.display()))?;
    let place = out.join(DESCRIPTORS);
    fs::write(&place, descriptors.encode_to_vec())
        .map_err(|error| format!("{}: {error}", place.display()))?;
    tonic_prost_build::configure()
        .bytes(".")
        // It holds a secret: what is printed of it is up to `lib.rs`.
        .skip_debug(["log.v1.CreateTokenResponse"])
        .out_dir(out)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .map_err(|error| format!("{}: {error}", protos.display()))
}
