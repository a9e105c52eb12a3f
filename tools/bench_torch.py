#!/usr/bin/env python3
"""The same training step as bench_train in PyTorch and HF transformers, on the CPU, in bf16: same weights, same tokens.

  tools/bench_torch.py --model FOLDER [--batches 8x140,12x200] [--threads 1,2] [--steps 3] [--variants ...] [--json]

A step is forward, backward, clipping to norm 1 and torch.optim.AdamW, with the loss over every real token. Variants:
  padded    rows padded to the longest, attention mask, labels -100 on padding; bf16 weights
  packed    all rows in one, positions starting anew: no padding is computed; bf16 weights
  autocast  padded, fp32 weights under bf16 autocast: what Accelerate's --mixed_precision bf16 does
Tokens/s count real tokens only. Prints "not compared" and exits with 0 where torch or transformers is missing.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time


def make_rows(rows, mean, vocab):
    """The batch of bench/bench_train.cpp."""
    state, batch = 42, []
    for row in range(rows):
        tokens = []
        for _ in range(mean + row * 37 % 81 - 40):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            tokens.append((state >> 8) % vocab)
        batch.append(tokens)
    return batch


def inputs_of(torch, rows, variant):
    if variant == "packed":
        flat = [t for row in rows for t in row]
        positions = [i for row in rows for i in range(len(row))]
        # The model shifts labels by one: a row's last token must not learn the next row's first.
        labels = [-100 if i == 0 else t for row in rows for i, t in enumerate(row)]
        return {"input_ids": torch.tensor([flat]), "position_ids": torch.tensor([positions]),
                "labels": torch.tensor([labels])}
    longest = max(map(len, rows))
    pad = lambda row, value: row + [value] * (longest - len(row))
    return {"input_ids": torch.tensor([pad(r, 0) for r in rows]), "labels": torch.tensor([pad(r, -100) for r in rows]),
            "attention_mask": torch.tensor([pad([1] * len(r), 0) for r in rows])}


def measure(torch, transformers, args, batch, threads, variant, clock):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    dtype = torch.float32 if variant == "autocast" else torch.bfloat16
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa")
    model.train()
    rows = make_rows(*map(int, batch.split("x")), model.config.vocab_size)
    inputs = inputs_of(torch, rows, variant)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=args.fused)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=variant == "autocast"):
            loss = model(**inputs, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    first_loss, best = step(), float("inf")
    for _ in range(args.steps):
        start = clock()
        step()
        best = min(best, clock() - start)
    tokens = sum(map(len, rows))
    return {"batch": batch, "tokens": tokens, "threads": threads, "variant": variant, "seconds_per_step": best,
            "tokens_per_second": tokens / best, "first_loss": first_loss, "load_average": os.getloadavg()[0],
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def in_process_of_its_own(args, batch, threads, variant):
    """So that memory and thread teams start fresh."""
    command = [sys.executable, __file__, "--model", args.model, "--steps", str(args.steps), "--one", batch, str(threads), variant]
    command += ["--fused"] * args.fused + ["--cpu-time"] * args.cpu_time
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout) if run.returncode == 0 else None


def main():
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description="the training step of bench_train in PyTorch")
    parser.add_argument("--model", required=True, help="a folder in HF layout")
    parser.add_argument("--batches", default="8x140,12x200")
    parser.add_argument("--threads", default=",".join(map(str, sorted({1, cores}))))
    parser.add_argument("--variants", default="padded,packed,autocast")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that is not; the fastest counts")
    parser.add_argument("--fused", action="store_true", help="the optimizer's fused kernel instead of its default")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one core, for a busy machine")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=3, metavar=("BATCH", "THREADS", "VARIANT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cpu_time:
        args.threads = "1"
    clock = time.process_time if args.cpu_time else time.perf_counter
    try:
        import torch
        import transformers
    except ImportError as error:
        print(f"not compared with PyTorch: {error}", file=sys.stderr)
        return 0
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if args.one:
        batch, threads, variant = args.one
        print(json.dumps(measure(torch, transformers, args, batch, int(threads), variant, clock)))
        return 0

    results = []
    for batch in args.batches.split(","):
        for threads in map(int, args.threads.split(",")):
            for variant in args.variants.split(","):
                result = in_process_of_its_own(args, batch, threads, variant)
                if result is None:
                    return 1
                results.append(result)
                if not args.json:
                    print(f"{batch:>8} {result['tokens']:6d} tokens  {threads:3d} cores  {variant:8s} "
                          f"{result['seconds_per_step']:8.3f} s/step {result['tokens_per_second']:7.0f} tokens/s  "
                          f"{result['peak_memory_bytes'] / 1e9:5.2f} GB  first loss {result['first_loss']:.4f}", flush=True)
    if args.json:
        print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__,
                          "clock": "processor" if args.cpu_time else "wall", "results": results}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
