#!/usr/bin/env bash
# make demo: fine-tunes a real pretrained model (SmolLM2-135M-Instruct) on math problems in FP8, and shows what it learnt:
# accuracy on held-out problems before and after, and some answers. It takes as many steps as fit into the time.
#   tools/demo.sh            about DEMO_MINUTES (8) after the build
#   tools/demo.sh recipes    every FP8 recipe against bf16, for an epoch: the mean loss of the last 10 steps must lie within 3 %
# Environment: DEMO_MINUTES, DEMO_PROBLEMS (held-out problems, 200), DEMO_STEPS (0: as many as fit; recipes: an epoch, 675),
# DEMO_DIR (demo_output).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly minutes=${DEMO_MINUTES:-8} problems=${DEMO_PROBLEMS:-200} out=${DEMO_DIR:-demo_output}
readonly model=models/SmolLM2-135M-Instruct.Q4_1.gguf data=data/math
# Where time allows a hundred rows or two, many small steps teach more than few large ones: 160 rows of the problems gave
# 8.6 % right answers in steps of 8 rows, 11.9 % in steps of 4, 13.4 % in steps of 2 (600 problems, two seeds); 720 rows the
# same 23 % in steps of 8 and of 4.
batch=4
started=$(date +%s)

elapsed() { echo $(($(date +%s) - started)); }
step() { printf '\n== %s (%d s)\n' "$*" "$(elapsed)"; }
# number FILE KEY: a value of a flat JSON object.
number() { .venv/bin/python -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }

train() {  # train FOLDER STEPS [FLAGS...]
  local folder=$1 steps=$2
  shift 2
  ./train_fp8 --model_name "$model" --dataset_name "$data" --split_name train_1M --batch_size "$batch" --max_seq_length 384 \
    --learning_rate 1e-4 --num_warmup_steps 10 --max_steps "$steps" --log_interval 10 --log_dir "$out/runs" \
    --output_dir "$folder" --overwrite --save_interval 0 "$@"
}

make_data() {
  [[ -f $data/README.md ]] && return
  step "making math problems with worked solutions in $data"
  .venv/bin/python tools/make_math_data.py --out "$data"
}

# The worked solutions are 57 tokens long in the middle and 160 at 98 %; a longer answer is cut off.
answers() {  # model, file
  ./llm-fp8 eval --model "$1" --dataset_name "$data" --split test --rows "$problems" --batch_size 100 --max_new_tokens 160 --out "$2"
}

measure_speed() {  # tokens/s and tokens of a step, of three steps
  train "$out/speed" 4 --mixed_precision fp8 --eval_interval 0 --quiet 2>"$out/speed.log" || { cat "$out/speed.log" >&2; exit 1; }
  seconds_a_step=$(.venv/bin/python - "$out/speed/metrics.jsonl" <<'PY'
import json, sys
# Step 1 calibrates and warms up: the mean over the steps without it.
with open("".join(sys.argv[1])) as lines:
    records = [json.loads(line) for line in lines]
times = [r["Train/TimePerStep_ms"] for r in records if "Train/TimePerStep_ms" in r]
print(times[-1] / 1000)
PY
)
  rm -rf "$out/speed"
}

demo() {
  mkdir -p "$out"
  make_data
  step "answers of the untouched model to $problems held-out problems"
  answers "$model" "$out/before.jsonl"
  local eval_seconds steps=${DEMO_STEPS:-0}
  eval_seconds=$(elapsed)
  if ((steps == 0)); then
    step "measuring the speed of training"
    measure_speed
    # What is left of the time, less the second evaluation, loading and saving; at least 30 steps, at most an epoch. A
    # model that has learnt when to stop takes two thirds of the tokens.
    steps=$(.venv/bin/python -c "print(max(30, min(1350, int(($minutes * 60 - $(elapsed) - 0.8 * $eval_seconds - 25) / $seconds_a_step))))")
    echo "a step takes $seconds_a_step s: $steps steps fit into $minutes minutes"
  fi
  step "fine-tuning in FP8: $steps steps of $batch rows"
  train "$out/model" "$steps" --mixed_precision fp8 --eval_max_rows 32
  step "answers of the fine-tuned model to the same problems"
  answers "$out/model" "$out/after.jsonl"
  step "before and after"
  ./llm-fp8 compare "$out/before.jsonl" "$out/after.jsonl" --examples 3
  .venv/bin/python - "$out/model/metrics.jsonl" <<'PY'
import json, sys
with open(sys.argv[1]) as lines:
    losses = [r["Train/Loss"] for r in map(json.loads, lines) if "Train/Loss" in r]
print(f"training loss: {losses[0]:.3f} at step 1, {losses[-1]:.3f} at the last step")
PY
  printf '\nThe fine-tuned model is in %s (transformers and vLLM load it). Took %d s.\n' "$out/model" "$(elapsed)"
}

recipes() {
  # While the loss falls fast a recipe that lags by some steps looks far away; at the end of the epoch it does not.
  local steps=${DEMO_STEPS:-675} batch=8
  [[ $steps != 0 ]] || steps=675
  echo "five runs of $steps steps: two to three hours on two cores, a minute on a GPU; DEMO_STEPS=60 for a first look"
  mkdir -p "$out"
  make_data
  local recipe
  step "bf16, $steps steps"
  train "$out/recipe_bf16" "$steps" --mixed_precision bf16 --eval_interval 0 --log_interval 1 --quiet
  for recipe in default hybrid mxfp8 current; do
    step "$recipe, $steps steps"
    train "$out/recipe_$recipe" "$steps" --mixed_precision fp8 --fp8_scenario "$recipe" --fp8_strict --fp8_emulate --eval_interval 0 --log_interval 1 --quiet
  done
  step "mean loss of the last 10 steps"
  .venv/bin/python - "$out" default hybrid mxfp8 current <<'PY'
import json, sys

def last_losses(name):
    with open(f"{sys.argv[1]}/recipe_{name}/metrics.jsonl") as lines:
        losses = [r["Train/Loss"] for r in map(json.loads, lines) if "Train/Loss" in r]
    return sum(losses[-10:]) / len(losses[-10:])

bf16 = last_losses("bf16")
print(f"{'bf16':8} {bf16:.4f}")
failed = False
for name in sys.argv[2:]:
    loss = last_losses(name)
    failed = failed or abs(loss / bf16 - 1) > 0.03
    print(f"{name:8} {loss:.4f}  {100 * (loss / bf16 - 1):+.2f} % of bf16")
sys.exit("a recipe is more than 3 % away from bf16" if failed else 0)
PY
}

case ${1:-demo} in
  demo) demo ;;
  recipes) recipes ;;
  *) echo "error: tools/demo.sh $1: demo or recipes is wanted" >&2; exit 2 ;;
esac
