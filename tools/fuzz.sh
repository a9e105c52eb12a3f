#!/usr/bin/env bash
# `make fuzz`: every fuzzer of the build folder given, FUZZ_SECONDS (60) each, from the seeds in tests/fuzz/corpus.
# What a fuzzer learns stays in the build folder; a failing input is left there as crash-*.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${1:-build-fuzz}
seconds=${FUZZ_SECONDS:-60}

found=0
for program in "$build"/bin/fuzz_*; do
  [[ -x $program ]] || continue
  found=1
  name=$(basename "$program")
  corpus=$build/corpus/$name
  seeds=tests/fuzz/corpus/${name#fuzz_}
  mkdir -p "$corpus"
  folders=("$corpus")
  [[ -d $seeds ]] && folders+=("$seeds")
  echo "== $name, $seconds s"
  # rss_limit_mb: a size field of the file that reaches an allocation unchecked shows as a failure.
  "$program" -max_total_time="$seconds" -rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=20 -print_final_stats=1 \
    -verbosity=0 -artifact_prefix="$build/crash-$name-" "${folders[@]}"
done
((found)) || { echo "error: $build/bin holds no fuzz_* program" >&2; exit 1; }
