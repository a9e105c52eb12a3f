#!/usr/bin/env python3
"""Makes a data set of plain text from the Python sources on this machine: the standard library and the installed packages.

    python tools/make_source_data.py --out source_data [--rows 64000] [--characters 1200] [--seed 0]

A row is a piece of a file that begins and ends at a line; rows are shuffled. Text for runs from scratch that is real and
needs no download; what it holds depends on what is installed.
"""
import argparse
import json
import pathlib
import random
import sys
import sysconfig


def pieces(text, characters):
    piece = ""
    for line in text.splitlines(keepends=True):
        if piece and len(piece) + len(line) > characters:
            yield piece
            piece = ""
        piece += line[:characters]
    if piece.strip():
        yield piece


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=64000)
    parser.add_argument("--characters", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows, seen = [], set()
    for folder in dict.fromkeys(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib")):
        for file in sorted(pathlib.Path(folder).rglob("*.py")):
            if len(rows) >= 3 * args.rows:
                break
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            for piece in pieces(text, args.characters):
                # Generated files and copies of packages repeat themselves.
                if len(piece) > 200 and hash(piece) not in seen:
                    seen.add(hash(piece))
                    rows.append(piece)
    if len(rows) < args.rows:
        print(f"{args.out}: the sources here give {len(rows)} rows of the {args.rows} asked for", file=sys.stderr)
    random.Random(args.seed).shuffle(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "train.jsonl", "w", encoding="utf-8") as stream:
        for row in rows[:args.rows]:
            stream.write(json.dumps({"text": row}) + "\n")
    print(f"{args.out}: {len(rows[:args.rows])} rows")


if __name__ == "__main__":
    main()
