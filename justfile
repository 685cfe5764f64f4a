# Recipes for daily work. `just` without arguments lists them.

default:
    @just --list

# What CI runs before the tests.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests.
test:
    cargo test --workspace

# The quickstart, verifying itself.
quickstart:
    cargo run --release --bin quickstart -- --check

# Makes the code generated from proto/ again.
generate:
    cargo run -p outrigger-proto --features codegen --bin generate

# Against peers, in one run (see tests/bench/README.md).
bench *ARGS:
    cargo run --release -p outrigger-tests --bin bench -- {{ARGS}}

# What .ci does, from the start.
ci:
    bash .ci/run
