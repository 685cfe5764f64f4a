//! Tells the linker to keep relocations in their short form.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |what| std::env::var(what).unwrap_or_default();
    if target("CARGO_CFG_TARGET_OS") == "linux" && target("CARGO_CFG_TARGET_ENV") == "gnu" {
        // Half a megabyte of the file and of the memory of each sidecar. A linker that does not know it says so and goes on.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
