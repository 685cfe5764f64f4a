#![allow(clippy::unwrap_used)]
mod seeds;

use std::path::Path;

use super::TARGETS;

/// The seeds of the fuzz targets, where no fuzzer is at hand.
#[test]
fn every_target_takes_its_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds");
    for (name, target) in TARGETS {
        let mut count = 0;
        for seed in std::fs::read_dir(seeds.join(name)).unwrap() {
            target(&std::fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}

/// Seeds cut short and with a byte changed: the nearest neighbours of what is well-formed.
#[test]
fn every_target_takes_what_is_nearly_a_seed() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds");
    for (name, target) in TARGETS {
        for seed in std::fs::read_dir(seeds.join(name)).unwrap() {
            let seed = std::fs::read(seed.unwrap().path()).unwrap();
            for at in 0..seed.len() {
                target(&seed[..at]);
                for change in [0x00, 0x01, 0x20, 0x80, 0xff] {
                    let mut changed = seed.clone();
                    changed[at] ^= change;
                    target(&changed);
                }
            }
        }
    }
}
