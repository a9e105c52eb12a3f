"""Prints what the package tensorboard finds below a folder, as JSON: {"scalars": {tag: [[step, value, time], …]}, "texts": {tag: text}}.

usage: read_events.py FOLDER
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
events.Reload()
tags = events.Tags()
scalars = {tag: [[e.step, e.value, e.wall_time] for e in events.Scalars(tag)] for tag in tags["scalars"]}
texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in tags["tensors"]}
print(json.dumps({"scalars": scalars, "texts": texts}))
