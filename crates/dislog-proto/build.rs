//! Compiles the .proto files with protox, so that no `protoc` is needed on the machine.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["proto/log/v1/log.proto", "proto/log/v1/admin.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("log_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        // It holds a secret: what is printed of it is up to `lib.rs`.
        .skip_debug(["log.v1.CreateTokenResponse"])
        .compile_fds(descriptors)?;
    Ok(())
}
