#!/usr/bin/env python3
"""A large data set, and what a run over it costs before its first step and in memory (docs/data.md).

  measure_large_data.py make FILE.parquet ROWS ROWS_OF_A_GROUP     words of docs/data.md as problem and generated_solution (pyarrow)
  measure_large_data.py run OUTPUT_DIR SECONDS train_fp8 …         prints when the first step was done and the most that was resident
"""
import random
import subprocess
import sys
import time
from pathlib import Path


def make(path, rows, group):
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = random.Random(1)
    words = (Path(__file__).parent.parent / "docs/data.md").read_text().split()

    def text(count):
        first = draw.randrange(len(words) - count)
        return " ".join(words[first : first + count])

    schema = pa.schema([("problem", pa.string()), ("generated_solution", pa.string())])
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        for first in range(0, rows, group):
            numbers = range(first, min(rows, first + group))
            problems = [f"Problem {i}: {text(18)} with {draw.random()}?" for i in numbers]
            solutions = [f"We have {draw.randrange(10**9)}. {text(62 + draw.randrange(20))} so \\boxed{{{i}}}." for i in numbers]
            writer.write_table(pa.table([problems, solutions], schema=schema), row_group_size=group)


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run(output, seconds, command):
    start, first_step, full, most = time.time(), None, None, {}
    log = Path(f"{output}.err")
    with log.open("w") as err:
        program = subprocess.Popen([*command, "--output_dir", output], stderr=err)
    while program.poll() is None and time.time() - start < seconds:
        for line in Path(f"/proc/{program.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssAnon", "RssFile"):
                most[name] = max(most.get(name, 0), int(value.split()[0]) / 1e6)
        steps, passed = lines_of(Path(output) / "metrics.jsonl"), time.time() - start
        first_step = first_step or (passed if steps else None)
        full = full or (passed if "kept in" in log.read_text() else None)
        time.sleep(0.1)
    program.terminate()
    program.wait()
    shown = lambda value: "not seen" if value is None else f"after {value:.1f} s"
    print(f"first step {shown(first_step)}; all rows on the disk {shown(full)}; at most resident, GB:",
          ", ".join(f"{name} {value:.2f}" for name, value in most.items()))


if len(sys.argv) == 5 and sys.argv[1] == "make":
    make(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
elif len(sys.argv) > 4 and sys.argv[1] == "run":
    run(sys.argv[2], float(sys.argv[3]), sys.argv[4:])
else:
    sys.exit(__doc__)
