# List the recipes
default:
    @just --list --unsorted

# Serve on 127.0.0.1:8080, with nothing installed
run:
    cargo run -p app

# Twenty deployments and rollbacks on a real systemd host, under every kind of load (root)
demo:
    cargo demo

# Every test, on real hosts (root)
test:
    cargo test

# Make the one file that is shipped; its path is the last line
bundle LABEL='':
    @cargo bundle {{ if LABEL == '' { '' } else { quote(LABEL) } }}

# Copy a bundle to hosts over ssh and deploy it there, one after the other: `just ship user@host…`, `just ship --rollback user@host…`
ship *ARGS:
    @cargo ship {{ ARGS }}

# Upload a bundle of this commit to an S3 bucket and register it with CodeDeploy; its last line is the revision
push BUCKET *ARGS:
    @cargo codedeploy push {{ quote(BUCKET) }} {{ ARGS }}

# Deploy the revision that was registered last to a deployment group and watch it, or another one: `--revision s3://BUCKET/KEY`
deploy GROUP *ARGS:
    @cargo codedeploy deploy {{ quote(GROUP) }} {{ ARGS }}

# Stop what is being deployed to a deployment group, and deploy the revision before; again, and it goes further back
rollback GROUP *ARGS:
    @cargo codedeploy rollback {{ quote(GROUP) }} {{ ARGS }}

# Watch a deployment that goes on
watch ID *ARGS:
    @cargo codedeploy watch {{ quote(ID) }} {{ ARGS }}

# What CI checks before the tests: format, lints, scripts, patches, documentation, template, workflows
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    shellcheck hooks/* .ci/run .ci/lint crates/rig/tests/sabotage crates/releases/src/ship/*.sh crates/rig/aws/*.sh crates/rig/src/fleet/stop-start/*.sh crates/rig/src/bench/peers/*.sh
    git apply --check crates/serve/tests/cures/*.patch
    git apply --check crates/rig/tests/defects/*.patch
    git apply --check crates/rig/tests/hosts/agent/breaks/*.patch
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --all-features
    .ci/lint

# Each kind of client over 110 activations of a real host, and all at once with 2,000 connections;
# `just lossless --soak 10`: all at once for ten minutes
#
# Load a host with each kind of client, and lose nothing (root, 20 min)
lossless *ARGS:
    cargo run --quiet --package rig -- lossless {{ ARGS }}

# Each verb killed at each of its steps, or the disk failing there, power cuts, bad bundles and releases, ten deployments at once;
# then nothing is broken, nothing lost, and the next deployment and a boot heal it; `just torture --every 10 boot prune` for a part
#
# Everything that may happen to a host, under load (root, an hour and a half)
torture *ARGS:
    cargo run --quiet --package rig -- torture {{ ARGS }}

# Deploy a bundle to a fresh host as CodeDeploy's agent does: each event, its time, the end of its output, its error code (root)
agent BUNDLE *ARGS:
    @cargo run --quiet --package rig -- agent {{ quote(BUNDLE) }} {{ ARGS }}

# Killed, restarted, out of time, a full disk, a bad unzip; each ends with a deployment that succeeds;
# `just scenarios --short` for one of each kind, `just scenarios zip` by name
#
# Everything that CodeDeploy's agent may do to our bundle, under load (root)
scenarios *ARGS:
    cargo run --quiet --package rig -- scenarios {{ ARGS }}

# With a bad release, its rollback, and a host lost in the middle; beside them hosts that are deregistered first, and hosts that
# stop and start; the table goes into the README, latency over time into target/fleet/
#
# Five hosts behind HAProxy, deployed to as CodeDeploy's configurations go over a fleet (root, 6 min)
fleet:
    cargo run --quiet --package rig -- fleet

# What was reported as done is there, whole, and the host comes up and takes the next deployment
#
# Cut the power at 200 moments of deployments and rollbacks (root, 5 min)
powercut *ARGS:
    cargo run --quiet --package rig -- powercut {{ ARGS }}

# systemd 247, 252 and 257, made once by debootstrap; the matrix goes into the README
#
# The whole story of one bundle on each system, Debian 11 to 13 (root, 5 min)
systems:
    cargo run --quiet --package rig -- systems

# A thousand deployments in a row under load: at the end the host holds what it held after ten (root, 10 min)
soak *ARGS:
    cargo run --quiet --package rig -- soak {{ ARGS }}

# What it learns goes into the corpus
#
# Feed manifests and archives that nobody would write to what reads them, a minute each (a nightly compiler, cargo-fuzz)
fuzz SECONDS='60':
    command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz
    for target in manifest archive; do cargo +nightly fuzz run --fuzz-dir crates/releases/fuzz --target-dir target/fuzz \
        $target -- -max_total_time={{ SECONDS }} -max_len=40960 -print_final_stats=1 || exit 1; done

# Each kind of client over 110 activations, one kind at a time; `just table --server stock` for axum::serve (20 min)
table *ARGS:
    cargo run --quiet --package rig -- table {{ ARGS }}

# Put one deliberate defect after the other into the store's code, and see its campaign find it (root, 30 min)
defects *NAMES:
    crates/rig/tests/sabotage crates/rig/tests/defects {{ NAMES }}

# Break each thing that the stand-in for CodeDeploy's agent does, and see its test fail (root, an hour)
breaks *NAMES:
    crates/rig/tests/sabotage crates/rig/tests/hosts/agent/breaks {{ NAMES }}

# Take each cure of the drain out, and see its test fail
cures *NAMES:
    crates/rig/tests/sabotage --or-hang crates/serve/tests/cures {{ NAMES }}

# What a release costs the clients, requests per second of processor time, deployments, hardening, handing over, size and growth;
# the report goes to target/bench. `just bench serving` for one chapter, `just bench --short` to see that it works,
# `just bench --publish` to put the last whole run into the tree and the README
#
# Measure all of it beside its peers (root, two hours)
bench *ARGS:
    cargo run --quiet --package rig -- bench {{ ARGS }}
