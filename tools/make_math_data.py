#!/usr/bin/env python3
"""Makes math word problems with worked solutions, in the columns of nvidia/OpenMathInstruct-2 and the hub's folder layout.

    python tools/make_math_data.py --out math_data [--rows 6000] [--test_rows 600] [--seed 42]

Needs reasoning-gym and pyarrow (tools/setup.sh puts both into .venv). The same arguments give the same rows. Splits:
train_1M (--rows rows), train (a superset: those rows and a third more), test; no problem's text is in both train and test.
problem_source names the generator and a difficulty, for example gsm_symbolic/easy.
"""
import argparse
import math
import pathlib
import re
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import reasoning_gym
from reasoning_gym.arithmetic.gsm_symbolic.gsm_symbolic import tasks_ok

# Share of each kind, in per cent of the rows.
SHARES = {
    "gsm_symbolic/easy": 25, "gsm_symbolic/medium": 20,
    "chain_sum/easy": 12, "chain_sum/medium": 10, "chain_sum/hard": 5,
    "fraction_simplification/easy": 9, "fraction_simplification/medium": 4,
    "simple_equations/easy": 10, "simple_equations/medium": 5,
}

# Templates of gsm_symbolic that are left out: an unclear question, a step that is wrong or unexplained (75, 82, 99, 70),
# decimals with rounding noise (46, 66, …), or currencies that do not agree (15).
UNSUITABLE = {11, 14, 15, 21, 24, 25, 27, 28, 46, 49, 51, 52, 53, 55, 60, 66, 70, 75, 82, 83, 84, 85, 89, 92, 93, 99}

# reasoning-gym's settings for the other generators.
CONFIGS = {
    "chain_sum/easy": dict(min_terms=2, max_terms=3, min_digits=1, max_digits=1),
    "chain_sum/medium": dict(min_terms=2, max_terms=3, min_digits=2, max_digits=2),
    "chain_sum/hard": dict(min_terms=4, max_terms=5, min_digits=1, max_digits=3),
    "fraction_simplification/easy": dict(min_value=1, max_value=15, min_factor=2, max_factor=12, styles=("plain",)),
    "fraction_simplification/medium": dict(min_value=5, max_value=60, min_factor=6, max_factor=30, styles=("plain",)),
    "simple_equations/easy": dict(min_terms=2, max_terms=2, min_value=1, max_value=12),
    "simple_equations/medium": dict(min_terms=2, max_terms=3, min_value=2, max_value=20),
}

FINAL = "The final answer is \\boxed{%s}."


def tidy_number(text):
    """486.0 -> 486; thousands commas stay as the problem writes them."""
    return re.sub(r"(?<![\d.])(\d+)\.0(?!\d)", r"\1", text)


def evaluate(expression):
    """Value of an arithmetic expression with units between its numbers, or None if it is none."""
    text = re.sub(r"[£€$]", "", expression).replace("×", "*").replace("÷", "/")
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"(?<=[\d) ])x(?=[ \d(])", "*", text)
    text = re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", text)
    text = re.sub(r"/?\s*[A-Za-z][A-Za-z'\-/ ]*", " ", text)  # units, "items/box"
    if not re.fullmatch(r"[\d\s.+\-*/()]+", text) or not re.search(r"\d", text):
        return None
    try:
        return eval(text, {"__builtins__": {}})  # only digits, operators and brackets are left
    except (SyntaxError, TypeError, ZeroDivisionError):
        return None


def equations_hold(line):
    """Every "left = right" of the line that can be computed is true. Returns how many there were, or None if one is false."""
    count = 0
    for sentence in re.split(r"(?<=[a-z\d])[.,:;](?=\s|$)|\bwhich is\b|\bso\b|\bor\b", line):
        parts = sentence.split("=")
        for left, right in zip(parts, parts[1:]):
            # The expression is the tail of the left side that begins with a number.
            start = re.search(r"[(£€$]?\d[^A-Za-z]*(?:[A-Za-z'\-/ ]*[-+*/x×÷(][^A-Za-z]*\d[^=]*)*$", left.strip())
            value = evaluate(start.group(0)) if start else None
            result = re.match(r"\s*[£€$]?(-?[\d,]+(?:\.\d+)?)(%?)", right)
            if value is None or result is None:
                continue
            wanted = float(result.group(1).rstrip(",").replace(",", "")) / (100 if result.group(2) else 1)
            if not math.isclose(value, wanted, rel_tol=1e-9) and not math.isclose(value * 100, wanted, rel_tol=1e-9):
                return None
            count += 1
    return count


def gsm_rows(rng):
    """Endless rows of gsm_symbolic; those whose steps do not compute are left out."""
    generators = reasoning_gym.create_dataset("gsm_symbolic", size=1, seed=0).generators
    tasks = [task for task in tasks_ok if task not in UNSUITABLE]
    while True:
        task = rng.choice(tasks)
        example = generators[task](Random(rng.getrandbits(63)), 1.0)
        problem, answer = example["question"].strip(), str(example["answer"]).strip()
        lines = [tidy_number(line.strip()) for line in example["metadata"]["answer_cot"].splitlines()]
        lines = [line for line in lines if line and not line.startswith("####")]
        counts = [equations_hold(line) for line in lines]
        if None in counts or re.search(r"\d\.\d{3}", problem + "".join(lines)) or not re.fullmatch(r"-?\d+", answer):
            continue
        # A solution that never states its answer is not worked out.
        if not re.search(r"(?<![\d.])" + re.escape(answer) + r"(?![\d])", lines[-1].replace(",", "")):
            continue
        lines = [line if line.endswith((".", ":")) else line + "." for line in lines]
        steps = len(lines)
        difficulty = "easy" if steps <= 2 and sum(counts) <= 2 else "medium"
        yield f"gsm_symbolic/{difficulty}", problem, "\n".join(lines), answer


def solve_chain_sum(entry):
    terms = re.findall(r"[+-]|\d+", entry["metadata"]["expression"])
    total, lines = int(terms[0]), []
    for sign, term in zip(terms[1::2], terms[2::2]):
        result = total + int(term) if sign == "+" else total - int(term)
        lines.append(f"{total} {sign} {term} = {result}")
        total = result
    problem = f"What is {entry['metadata']['expression']}?"
    return problem, "\n".join(lines), str(total)


def solve_fraction(entry):
    meta = entry["metadata"]
    top, bottom = meta["numerator"], meta["denominator"]
    divisor = math.gcd(top, bottom)
    answer = f"{top // divisor}/{bottom // divisor}"
    lines = [f"The greatest common divisor of {top} and {bottom} is {divisor}.",
             f"{top} / {divisor} = {top // divisor} and {bottom} / {divisor} = {bottom // divisor}."]
    if divisor == 1:
        return None
    return f"Simplify the fraction {top}/{bottom} to its lowest terms.", "\n".join(lines), answer


def solve_equation(entry):
    """c0 ± k*x = r  or  k*x ± c0 = r."""
    equation, x = entry["metadata"]["equation"], entry["metadata"]["variable"]
    left, right = equation.split(" = ")
    tokens = re.findall(rf"[+-]?\s*\d+\*{x}|[+-]?\s*{x}|[+-]?\s*\d+", left)
    k, c = 0, 0
    for token in (token.replace(" ", "") for token in tokens):
        if token.endswith(x):
            factor = token[:-1].rstrip("*")
            k += int(factor) if re.search(r"\d", factor) else int(factor + "1")
        else:
            c += int(token)
    r = int(right)
    if k == 0 or (r - c) % k or "".join(tokens).replace(" ", "") != left.replace(" ", ""):
        return None
    term = x if k == 1 else f"-{x}" if k == -1 else f"{k}*{x}"
    lines = []
    if c > 0:
        lines.append(f"Subtract {c} from both sides: {term} = {r} - {c} = {r - c}.")
    elif c < 0:
        lines.append(f"Add {-c} to both sides: {term} = {r} + {-c} = {r - c}.")
    if k != 1:
        divided = f"{r - c} / {k}" if k > 0 else f"{r - c} / ({k})"
        lines.append(f"Divide both sides by {k}: {x} = {divided} = {(r - c) // k}.")
    return entry["question"], "\n".join(lines), str((r - c) // k)


SOLVERS = {"chain_sum": solve_chain_sum, "fraction_simplification": solve_fraction, "simple_equations": solve_equation}


def generated_rows(kind, rng):
    """Endless rows of one of the kinds in CONFIGS, checked against reasoning-gym's own answer."""
    name = kind.split("/")[0]
    while True:
        data = reasoning_gym.create_dataset(name, size=1000, seed=rng.getrandbits(31), **CONFIGS[kind])
        for entry in data:
            solved = SOLVERS[name](entry)
            if solved is None:
                continue
            assert solved[2] == entry["answer"], (kind, entry, solved)
            yield (kind, *solved)


def collect(quota, seed):
    """Distinct problems, quota[kind] of each kind."""
    taken, rows = set(), {kind: [] for kind in quota}

    def add(row):
        kind, problem, solution, answer = row
        text = " ".join(problem.split())
        if len(rows[kind]) < quota[kind] and text not in taken:
            taken.add(text)
            rows[kind].append({"problem": problem, "generated_solution": f"{solution}\n{FINAL % answer}",
                               "expected_answer": answer, "problem_source": kind})

    sources = {kind: generated_rows(kind, Random(f"{seed} {kind}")) for kind in CONFIGS}
    sources["gsm_symbolic"] = gsm_rows(Random(f"{seed} gsm_symbolic"))
    for name, source in sources.items():
        kinds = [kind for kind in quota if kind == name or kind.startswith(name + "/")]
        tries = 0
        while any(len(rows[kind]) < quota[kind] for kind in kinds):
            add(next(source))
            tries += 1
            if tries > 200 * (sum(quota[kind] for kind in kinds) + 100):
                raise SystemExit(f"error: {name} has too few distinct problems for --rows; ask for fewer")
    return rows


def quotas(count):
    """SHARES of `count` rows; the rounding goes to the first kind."""
    quota = {kind: count * share // 100 for kind, share in SHARES.items()}
    quota[next(iter(quota))] += count - sum(quota.values())
    return quota


def write_split(folder, split, rows):
    shards = 2 if len(rows) > 1000 else 1
    for shard in range(shards):
        part = rows[len(rows) * shard // shards:len(rows) * (shard + 1) // shards]
        table = pa.Table.from_pylist(part, schema=pa.schema([(name, pa.string()) for name in part[0]]))
        pq.write_table(table, folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet", row_group_size=1000)


def write_readme(folder, splits, seed):
    lines = ["---", "license: apache-2.0", "task_categories:", "- question-answering", "configs:", "- config_name: default",
             "  data_files:"]
    for split in splits:
        lines += [f"  - split: {split}", f"    path: data/{split}-*"]
    lines += ["---", "", "# Math problems with worked solutions", "",
              f"Made by `tools/make_math_data.py --seed {seed}` from the generators of reasoning-gym "
              f"{reasoning_gym.__version__}. `train` holds every row of `train_1M` and more; `test` shares no problem with "
              "either.", ""]
    lines += [f"- {split}: {len(rows)} rows" for split, rows in splits.items()]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write (must not hold other data)")
    parser.add_argument("--rows", type=int, default=6000, help="rows of train_1M (default %(default)s)")
    parser.add_argument("--test_rows", type=int, default=600, help="rows of test (default %(default)s)")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    if args.rows < 100 or args.test_rows < 20:
        parser.error("--rows must be at least 100 and --test_rows at least 20")

    test_quota, first_quota, rest_quota = quotas(args.test_rows), quotas(args.rows), quotas(args.rows // 3)
    rows = collect({kind: test_quota[kind] + first_quota[kind] + rest_quota[kind] for kind in SHARES}, args.seed)
    test, first, rest = [], [], []
    for kind, kind_rows in rows.items():
        # Kinds whose problems run out soon would otherwise keep their rarest problems for the end.
        Random(f"{args.seed} parts {kind}").shuffle(kind_rows)
        a, b = test_quota[kind], test_quota[kind] + first_quota[kind]
        test += kind_rows[:a]
        first += kind_rows[a:b]
        rest += kind_rows[b:]
    for name, part in (("test", test), ("first", first), ("rest", rest)):
        Random(f"{args.seed} order {name}").shuffle(part)

    splits = {"train_1M": first, "train": first + rest, "test": test}
    assert not {row["problem"] for row in test} & {row["problem"] for row in splits["train"]}
    (args.out / "data").mkdir(parents=True, exist_ok=True)
    for old in (args.out / "data").glob("*.parquet"):
        old.unlink()
    for split, split_rows in splits.items():
        write_split(args.out / "data", split, split_rows)
    write_readme(args.out, splits, args.seed)
    print(f"{args.out}: " + ", ".join(f"{split} {len(split_rows)} rows" for split, split_rows in splits.items()))


if __name__ == "__main__":
    main()
