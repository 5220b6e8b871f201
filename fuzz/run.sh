#!/usr/bin/env bash
# Fuzzes on stable rustc.
#
#   fuzz/run.sh                      every target for 10 seconds
#   fuzz/run.sh <target> [seconds]   one target, 60 seconds unless told
#   fuzz/run.sh <target> <file>      replays one input
#
# The seeds in corpus/ stay as they are; what a run finds goes to target/corpus/, and inputs that fail to artifacts/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# What `cargo fuzz` passes, without its nightly-only sanitizer: libFuzzer needs the coverage counters only.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
export CARGO_TARGET_DIR=target
# With a target named, build scripts and macros are built without those flags.
host=$(rustc -vV | sed -n 's/^host: //p')
targets=$(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' Cargo.toml)

build() {
    cargo build --quiet --locked --release --target "$host" "$@"
}

fuzz() {
    local target=$1 seconds=$2
    local arguments=(-max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1)
    mkdir -p "target/corpus/$target" "artifacts/$target"
    if [ -f "dictionaries/$target.dict" ]; then
        arguments+=(-dict="dictionaries/$target.dict")
    fi
    local corpora=("target/corpus/$target")
    if [ -d "corpus/$target" ]; then
        corpora+=("corpus/$target")
    fi
    echo "fuzz $target for $seconds s"
    if ! "target/$host/release/$target" "${arguments[@]}" -artifact_prefix="artifacts/$target/" "${corpora[@]}" \
        >"target/$target.log" 2>&1; then
        tail -n 40 "target/$target.log"
        echo "fuzz $target failed; replay with: fuzz/run.sh $target fuzz/artifacts/$target/<file>"
        return 1
    fi
    grep -E 'stat::(number_of_executed_units|average_exec_per_sec)' "target/$target.log"
}

case $# in
0)
    build
    for target in $targets; do
        fuzz "$target" 10
    done
    ;;
1 | 2)
    build --bin "$1"
    if [ -f "${2:-}" ]; then
        "target/$host/release/$1" "$2"
    elif [ -f "../${2:-}" ]; then
        "target/$host/release/$1" "../$2"
    else
        fuzz "$1" "${2:-60}"
    fi
    ;;
*)
    sed -n '2,8p' "$0"
    exit 2
    ;;
esac
