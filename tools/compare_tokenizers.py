#!/usr/bin/env python3
"""Our tokenizer beside Hugging Face's: the ids of random strings and of given text, and the speed on one core.

    pip install tokenizers
    LLMFP8_NUM_THREADS=1 python tools/compare_tokenizers.py DIR [--strings 100000] [--seed 7] [--text FILE.jsonl]

DIR holds tokenizer.json. Random strings mix scripts, marks, spaces, digits, special tokens and contractions; --text takes
lines of {"text": ...} and is timed too: ours with its JSON in and out, theirs the encoding alone. Exit code 1 where ids differ.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer  # noqa: E402

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "bin", "llm-fp8")
PRINTABLE = list(range(0x20, 0x7F))
# Ranges of code points that tokenizers have been seen to treat apart.
SCRIPTS = [
    PRINTABLE,
    [*range(0x09, 0x0E), *[0x20] * 20, 0x85, 0xA0, 0x1680, 0x200B, 0x2028, 0x2029, 0x3000, 0xFEFF],  # white space
    [*range(0xA1, 0x250)],  # Latin
    [*range(0x300, 0x370)],  # combining marks
    [*range(0x370, 0x700)],  # Greek to Arabic
    [*range(0x900, 0xE80)],  # scripts of India
    [*range(0x1100, 0x1200), *range(0xAC00, 0xAC80)],  # Hangul, parts and syllables
    [*range(0x3040, 0x3100), *range(0x4E00, 0x5000)],  # Japanese, Chinese
    [*range(0x1F300, 0x1F650), 0x200D, 0xFE0F, 0x1F3FB],  # emoji and what joins them
    [*range(0x2150, 0x2190), *range(0x660, 0x66A), *range(0xFF10, 0xFF1A), 0xB2, 0xB3, 0xB9],  # numbers
    [*range(0x1E900, 0x1E950)],  # letters beyond the first plane
    [*range(0xE000, 0xE010), 0xFFFF, 0x10FFFF, 0xFFFD, 0],  # private, no characters
    [*range(0xF900, 0xFA20), *range(0xFB00, 0xFB10), 0x212B, 0x2126, 0x1E9B, 0x17F, 0x131, 0x130],  # normal forms, case
]
PIECES = ["'s", "'S", "'\u017f", "'LL", "'re", "\r\n", "\n\n", "  ", "   \n", "\t\t", "123", "4567", "<|eot_id|>", "<|im_end|>",
          "<|begin_of_text|>", " the", "Hello", "don't", "I'VE", "n\u0303", "e\u0301"]


def random_string(rng):
    parts = []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 40])):
        if rng.random() < 0.3:
            parts.append(rng.choice(PIECES))
        else:
            script = rng.choice(SCRIPTS) if rng.random() < 0.6 else PRINTABLE
            parts.append("".join(chr(rng.choice(script)) for _ in range(rng.randint(1, 6))))
    return "".join(parts)


def ours(folder, texts):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    start = time.perf_counter()
    done = subprocess.run([PROGRAM, "tokenize", "--tokenizer", folder], input=lines, stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - start
    return [json.loads(line)["ids"] for line in done.stdout.splitlines()], seconds


def theirs(folder, texts):
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    start = time.perf_counter()
    ids = []
    for i in range(0, len(texts), 1000):
        ids += [row.ids for row in tokenizer.encode_batch_fast(texts[i:i + 1000], add_special_tokens=False)]
    return ids, time.perf_counter() - start


def compare(what, folder, texts):
    (mine, my_seconds), (wanted, their_seconds) = ours(folder, texts), theirs(folder, texts)
    different = [text for text, a, b in zip(texts, mine, wanted, strict=True) if a != b]
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{what}: {len(different)} of {len(texts)} differ; {size / my_seconds:.1f} MB/s here, {size / their_seconds:.1f} MB/s "
          f"there, ratio {their_seconds / my_seconds:.1f}")
    for text in different[:3]:
        print("  ", ascii(text))
    return not different


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--strings", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--text", help="a file of {\"text\": ...} lines")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    equal = compare("random strings", given.folder, [random_string(rng) for _ in range(given.strings)])
    if given.text:
        with open(given.text, encoding="utf-8") as lines:
            equal &= compare(given.text, given.folder, [json.loads(line)["text"] for line in lines])
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
