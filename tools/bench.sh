#!/usr/bin/env bash
# `make bench`: runs every benchmark program that was built, one after the other, so that each has all cores.
# Arguments go to each program. LLMFP8_BENCH_MODEL tells them the model (default: the demo's).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LLMFP8_BENCH_MODEL=${LLMFP8_BENCH_MODEL:-$PWD/models/SmolLM2-135M-Instruct.Q4_1.gguf}

found=0
for program in build/bin/bench_*; do
  [[ -x $program ]] || continue
  found=1
  echo "== $(basename "$program")"
  "$program" "$@"
done
((found)) || { echo "error: build/bin holds no bench_* program" >&2; exit 1; }
