#!/usr/bin/env bash
# What FP8 costs in loss: the same model from the same random weights on the same text (Python sources),
# in bf16 and in every FP8 recipe.
# Prints the mean loss over the last 50 steps beside bf16's; each run's metrics.jsonl stays in PARITY_DIR, and
# tools/plot_losses.py draws them. On a GPU; on two cores it takes days.
# Environment: PARITY_STEPS (1000), PARITY_ROWS (64 a step), PARITY_DIR (parity_output), PARITY_RUNS (names below, all),
# PARITY_BIN (where the programs are, .), PYTHON (.venv's, else python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly steps=${PARITY_STEPS:-1000} rows=${PARITY_ROWS:-64} out=${PARITY_DIR:-parity_output} bin=${PARITY_BIN:-.}
readonly like=${PARITY_MODEL:-models/SmolLM2-135M-Instruct.Q4_1.gguf} data=${PARITY_DATA:-data/parity}
if [[ -z ${PYTHON:-} ]]; then [[ -x .venv/bin/python ]] && PYTHON=.venv/bin/python || PYTHON=python3; fi

train() {  # train FOLDER MODEL [FLAGS...]
  local folder=$1 model=$2
  shift 2
  "$bin/train_fp8" --model_name "$model" --dataset_name "$data" --split_name train --dataset_text_field text --loss_on all \
    --batch_size "$rows" --max_seq_length 384 --log_dir "$folder/logs" --output_dir "$folder" --overwrite --save_interval 0 --eval_interval 0 --quiet "$@"
}

run() {  # run NAME [FLAGS...]
  local name=$1
  shift
  case " ${PARITY_RUNS:-$name} " in *" $name "*) ;; *) return ;; esac
  echo "$name: $*"
  train "$out/$name" "$out/random" --learning_rate 6e-4 --num_warmup_steps 100 --max_steps "$steps" --log_interval 1 "$@"
  rm -f "$out/$name"/*.safetensors
}

mkdir -p "$out"
if [[ ! -f $data/train.jsonl ]]; then
  "$PYTHON" tools/make_source_data.py --out "$data" --rows $((steps * rows * 10 / 9 + rows))
fi
if [[ ! -f $out/random/model.safetensors ]]; then
  # One step, for the folder that it writes.
  train "$out/like" "$like" --mixed_precision bf16 --max_steps 1 --batch_size 1
  "$PYTHON" tools/make_random_model.py --like "$out/like" --out "$out/random"
  rm -rf "$out/like"
fi
fp8=(--mixed_precision fp8 --fp8_strict --fp8_emulate --fp8_scenario)
run bf16 --mixed_precision bf16
run bf16_other_order --mixed_precision bf16 --seed 7
run default "${fp8[@]}" default
run hybrid "${fp8[@]}" hybrid
run current "${fp8[@]}" current
run mxfp8 "${fp8[@]}" mxfp8
run default_fp8_head "${fp8[@]}" default --fp8_lm_head
"$PYTHON" tools/plot_losses.py "$out" --base bf16
