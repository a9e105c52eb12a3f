#!/usr/bin/env bash
# `make bench`: runs every benchmark program that was built, one after the other, so that each has all cores; then the
# same training step in PyTorch, where a Python with torch and transformers is found. docs/performance_cpu.md explains them.
# Arguments go to each program: --threads 1,2  --cpu-time  --json (one JSON document a program, on standard output).
# Environment: LLMFP8_BENCH_MODEL (default: the demo's model), LLMFP8_BENCH_PYTHON (default: .venv's, else python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LLMFP8_BENCH_MODEL=${LLMFP8_BENCH_MODEL:-$PWD/models/SmolLM2-135M-Instruct.Q4_1.gguf}

# An HF folder with the model's weights: the model itself, or what one step at learning rate 0 exports.
hf_folder() {
  if [[ -d $LLMFP8_BENCH_MODEL ]]; then
    echo "$LLMFP8_BENCH_MODEL"
    return
  fi
  for ((i = 0; i < 16; ++i)); do echo '{"text": "One and one are two."}'; done >"$work/rows.jsonl"
  build/bin/train_fp8 --model_name "$LLMFP8_BENCH_MODEL" --dataset_name "$work/rows.jsonl" --dataset_text_field text \
    --mixed_precision bf16 --max_seq_length 32 --batch_size 1 --max_steps 1 --learning_rate 0 --eval_max_rows 1 \
    --output_dir "$work/model" --log_dir "$work/runs" --save_interval 0 --quiet >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
  echo "$work/model"
}

compare_with_torch() {
  local python=${LLMFP8_BENCH_PYTHON:-}
  [[ -n $python ]] || python=$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)
  echo "== the same step in PyTorch" >&2
  if ! "$python" -c 'import torch, transformers' 2>/dev/null; then
    echo "torch and transformers are not installed: not compared (LLMFP8_BENCH_PYTHON names another Python)" >&2
    return
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  local folder
  folder=$(hf_folder)
  "$python" tools/bench_torch.py --model "$folder" "$@"
}

found=0
for program in build/bin/bench_*; do
  [[ -x $program ]] || continue
  found=1
  echo "== $(basename "$program")" >&2
  "$program" "$@"
done
((found)) || { echo "error: build/bin holds no bench_* program" >&2; exit 1; }
compare_with_torch "$@"
