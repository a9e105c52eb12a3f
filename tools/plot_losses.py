#!/usr/bin/env python3
"""Losses of several runs beside one of them: a table, and curves (an .svg or .png; needs matplotlib).

    python tools/plot_losses.py FOLDER --base NAME [--out FILE]

FOLDER holds a folder a run, each with its metrics.jsonl. Means are over 50 steps.
"""
import argparse
import json
import pathlib
import sys

WINDOW = 50


def losses_of(file):
    with open(file) as lines:
        records = [json.loads(line) for line in lines]
    return [r["Train/Loss"] for r in records if "Train/Loss" in r]


def mean_before(losses, step):
    window = losses[max(0, step - WINDOW):step]
    return sum(window) / len(window)


def table(runs, base):
    length = min(len(losses) for losses in runs.values())
    marks = [step for step in (100, 200, 300, 500, 700, 1000, 1500, 2000) if step < length] + [length]
    print(f"{'mean loss up to step':24}" + "".join(f"{step:>16}" for step in marks))
    for name, losses in runs.items():
        cells = []
        for step in marks:
            mean, of_base = mean_before(losses, step), mean_before(runs[base], step)
            cells.append(f"{mean:9.4f}" + (f"{100 * (mean / of_base - 1):+6.2f}%" if name != base else " " * 7))
        print(f"{name:24}" + "".join(cells))


def draw(runs, base, file):
    import matplotlib
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "losses"
    matplotlib.rcParams["svg.fonttype"] = "none"  # letters stay letters
    from matplotlib import pyplot
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 2), layout="constrained")
    length = min(len(losses) for losses in runs.values())
    steps = range(WINDOW, length + 1, max(1, length // 100))
    for name, losses in runs.items():
        means = [mean_before(losses, step) for step in steps]
        above.plot(steps, means, label=name, linewidth=1)
        if name != base:
            below.plot(steps, [100 * (m / mean_before(runs[base], s) - 1) for m, s in zip(means, steps)], linewidth=1,
                       color=above.lines[-1].get_color())
    above.set_ylabel(f"loss, mean of {WINDOW} steps")
    above.legend(fontsize="small")
    below.set_ylabel(f"% above {base}")
    below.axhline(0, color="grey", linewidth=0.5)
    below.set_ylim(-3, 3)
    below.set_xlabel("step")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    runs = {file.parent.name: losses_of(file) for file in sorted(args.folder.glob("*/metrics.jsonl"))}
    runs = {name: losses for name, losses in runs.items() if losses}
    if args.base not in runs:
        sys.exit(f"error: {args.folder} has no run {args.base}; found: {', '.join(runs) or 'none'}")
    runs = {args.base: runs.pop(args.base), **runs}
    table(runs, args.base)
    if args.out:
        draw(runs, args.base, args.out)


if __name__ == "__main__":
    main()
