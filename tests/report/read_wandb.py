"""Prints what an offline run's file holds, as JSON: {"id": …, "config": {…}, "history": [[step, {…}], …], "summary": {…}, "exit_code": N}.

usage: read_wandb.py FILE

The file is a log of LevelDB's form: after a header of 7 bytes, blocks of 32 KiB with records of crc32, length and type (1 whole,
2 first, 3 middle, 4 last), each a protobuf of the package wandb.
"""

import json
import struct
import sys

from wandb.proto import wandb_internal_pb2

BLOCK = 32768


def messages(data):
    at, parts = 7, b""
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def items(entries):
    return {entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}


found = {"config": {}, "history": [], "summary": {}}
for message in messages(open(sys.argv[1], "rb").read()):
    record = wandb_internal_pb2.Record()
    record.ParseFromString(message)
    kind = record.WhichOneof("record_type")
    if kind == "run":
        found.update(id=record.run.run_id, project=record.run.project, name=record.run.display_name, tags=list(record.run.tags))
        found["config"].update(items(record.run.config.update))
    elif kind == "config":
        found["config"].update(items(record.config.update))
    elif kind == "history":
        values = items(record.history.item)
        found["history"].append([values["_step"], values])
    elif kind == "summary":
        found["summary"].update(items(record.summary.update))
    elif kind == "exit":
        found["exit_code"] = record.exit.exit_code
print(json.dumps(found))
