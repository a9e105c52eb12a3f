#!/usr/bin/env python3
"""Makes tests/golden/jinja.tar.xz: what jinja2, set up by transformers, makes of the templates in tests/text/jinja_cases.txt
and of the chat templates of the golden tokenizers.

    python tools/make_jinja_goldens.py TOKENIZERS    (transformers and jinja2 needed; the folder that holds llama-3.1 and qwen2.5)

One JSON line each: template, variables (the name of a set in variables.json, or an object), and text, or error where Python
raises. The clock stands at 2024-07-26."""
import datetime
import io
import json
import lzma
import pathlib
import sys
import tarfile

import transformers.utils.chat_template_utils as chat_template_utils

ROOT = pathlib.Path(__file__).resolve().parent.parent


class StoppedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


chat_template_utils.datetime = StoppedClock

CASES = {
    "a": 1, "b": 2.5, "s": "Héllo wörld", "t": "  x y\n z ", "l": [3, 1, 2], "w": ["b", "A", "c"],
    "d": {"k": 1, "items": 2, "z": [1, {"q": None}]}, "n": None, "y": True,
    "m": [{"role": "user", "content": "hi", "n": 2}, {"role": "assistant", "content": "yo", "n": 1},
          {"role": "user", "content": "ß'\"\\\n\u200b", "n": 3}],
    "e": [], "big": 12345678901234, "neg": -7, "f": 1e22, "g": 0.1, "uni": "日本語 text", "q": "it's", "dq": 'say "x"',
    "bs": 'it\'s "x"'}

TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a \"city\" <b>",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Städte"},
                                                    "days": {"type": ["integer", "null"]}}, "required": ["city"]}}}]
CALL = {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2}}}


def conversations():
    def user(text): return {"role": "user", "content": text}
    def assistant(text, **more): return {"role": "assistant", "content": text, **more}
    chats = [
        {"messages": [user("Hi there"), assistant("Hello! "), user("  Sum 1+1? ")]},
        {"messages": [{"role": "system", "content": "Be terse. "}, user("Hi"), assistant("Yo"), user("Why?"), assistant("So.\n")]},
        {"messages": [user("Weather in Köln?"), assistant("", tool_calls=[CALL]),
                      {"role": "tool", "content": "{\"t\": 20}", "tool_call_id": "call00001"}, assistant("20 C")], "tools": TOOLS},
        {"messages": []},
        {"messages": [{"role": "user"}]},
    ]
    for chat in chats:
        for prompt in (False, True):
            yield {"tools": None, "documents": None, "bos_token": "<|begin_of_text|>", "eos_token": "<|end|>",
                   "add_generation_prompt": prompt, **chat}


def render(template, variables):
    try:
        compiled = chat_template_utils._cached_compile_jinja_template(template)
        return {"text": compiled.render(**json.loads(json.dumps(variables)))}
    except Exception as error:  # whatever Python raises
        return {"error": type(error).__name__}


def rows(tokenizers):
    for line in (ROOT / "tests/text/jinja_cases.txt").read_text().split("\n"):
        if line:
            template = line.replace("\\n", "\n")
            yield {"template": template, "variables": "cases", **render(template, CASES)}
    for name in ("llama-3.1", "qwen2.5"):
        folder = pathlib.Path(tokenizers) / name
        plain, packed = folder / "tokenizer_config.json", folder / "tokenizer_config.json.xz"
        config = json.loads(plain.read_text() if plain.exists() else lzma.open(packed, "rt").read())
        for variables in conversations():
            template = config["chat_template"]
            yield {"template": template, "variables": variables, **render(template, variables)}


def main():
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(sys.argv[1]))
    with tarfile.open(ROOT / "tests/golden/jinja.tar.xz", "w:xz") as archive:
        for name, text in (("jinja/cases.jsonl", lines), ("jinja/variables.json", json.dumps(CASES, ensure_ascii=False))):
            data = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


main()
