# List the recipes
default:
    @just --list --unsorted

# Serve on 127.0.0.1:8080, with nothing installed
run:
    cargo run -p app

# Deploy, replace and roll back on a real systemd host, under load (root)
demo:
    cargo demo

# Every test, on real hosts (root)
test:
    cargo test

# Make the one file that is shipped; its path is the last line
bundle LABEL='':
    @cargo bundle {{ if LABEL == '' { '' } else { quote(LABEL) } }}

# What CI checks before the tests: format, lints, hooks, documentation
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    shellcheck hooks/* .ci/run
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --all-features
