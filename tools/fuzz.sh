#!/usr/bin/env bash
# `make fuzz`: builds and runs every fuzzer of the build folder given, FUZZ_SECONDS (60) each, from the seeds in tests/fuzz/corpus.
# What a fuzzer learns stays in the build folder; a failing input is left there as crash-*.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${1:-build-fuzz}
seconds=${FUZZ_SECONDS:-60}

mapfile -t targets < <(ninja -C "$build" -t targets all | sed -n 's#^\(bin/fuzz_[^:]*\):.*#\1#p')
((${#targets[@]})) || { echo "error: $build has no fuzz_* target" >&2; exit 1; }
ninja -C "$build" "${targets[@]}"

for target in "${targets[@]}"; do
  program=$build/$target
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
