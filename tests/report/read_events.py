"""Prints what the package tensorboard finds below a folder, as JSON: {"scalars": {tag: [[step, value, time], …]}, "server": the
same as [[step, value], …] by the reader of TensorBoard's server, "texts": {tag: text}}.

usage: read_events.py FOLDER
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as ServerAccumulator
from tensorboard.util.tensor_util import make_ndarray

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
events.Reload()
tags = events.Tags()
scalars = {tag: [[e.step, e.value, e.wall_time] for e in events.Scalars(tag)] for tag in tags["scalars"]}
texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in tags["tensors"]}
server = ServerAccumulator(sys.argv[1], size_guidance={"tensors": 0})
server.Reload()
served = {tag: [[e.step, float(make_ndarray(e.tensor_proto))] for e in server.Tensors(tag)] for tag in tags["scalars"]}
print(json.dumps({"scalars": scalars, "server": served, "texts": texts}))
