//! Compiles `proto/outrigger/**.proto` into `proto/src/generated/` with protox: no `protoc` is needed.
//!
//! `cargo run -p outrigger-proto --features codegen --bin generate` from anywhere in the workspace. CI runs it and fails
//! where it changes a file.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = root.join("src/generated");
    std::fs::create_dir_all(&out)?;
    let files = ["dataplane", "identity", "api", "telemetry", "budget"]
        .map(|name| root.join(format!("outrigger/{name}/v1/{name}.proto")));
    let descriptors = protox::compile(&files, [root])?;
    let bytes = {
        use prost::Message as _;
        descriptors.encode_to_vec()
    };
    std::fs::write(out.join("descriptors.bin"), bytes)?;
    tonic_prost_build::configure()
        .build_transport(true)
        .out_dir(&out)
        .compile_fds(descriptors)?;
    println!("wrote {}", out.display());
    Ok(())
}
