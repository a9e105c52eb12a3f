#!/usr/bin/env python3
"""Copies a model folder with fresh random weights, for runs from scratch.

    python tools/make_random_model.py --like saved_model --out random_model [--seed 0]

Matrices are drawn from N(0, initializer_range of config.json, else 0.02), norms are 1 and biases 0, in bf16. The same
seed gives the same weights. Needs numpy.
"""
import argparse
import json
import pathlib
import shutil
import struct

import numpy as np


def shapes_of(file):
    with open(file, "rb") as stream:
        size = struct.unpack("<Q", stream.read(8))[0]
        header = json.loads(stream.read(size))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def to_bf16(values):
    """float32 to bfloat16, to the nearest even, as uint16."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def fresh(name, shape, random, deviation):
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return random.standard_normal(shape, np.float32) * np.float32(deviation)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    shapes = {}
    for file in sorted(args.like.glob("*.safetensors")):
        shapes.update(shapes_of(file))
    if not shapes:
        parser.error(f"{args.like} has no .safetensors file")
    config = json.loads((args.like / "config.json").read_text())
    args.out.mkdir(parents=True, exist_ok=True)
    for file in args.like.iterdir():
        if file.is_file() and ".safetensors" not in file.name and file.stat().st_size < 64 << 20:
            shutil.copy(file, args.out)

    random = np.random.default_rng(args.seed)
    header, end = {}, 0
    for name in sorted(shapes):
        begin, end = end, end + 2 * int(np.prod(shapes[name]))
        header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(args.out / "model.safetensors", "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in header:
            stream.write(to_bf16(fresh(name, shapes[name], random, config.get("initializer_range", 0.02))).tobytes())
    print(f"{args.out}: {end // 2:,} random weights")


if __name__ == "__main__":
    main()
