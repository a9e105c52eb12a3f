"""Stands in for the W&B SDK: appends what it is told to the file FAKE_WANDB_LOG, which plays the server too.

FAKE_WANDB: how it misbehaves.
  import   cannot be imported          login  nobody is logged in
  network  init() fails                hang   init() never returns
  slow     init() takes half a second  stuck  finish() never returns
"""

import json
import math
import os
import time

_fault = os.environ.get("FAKE_WANDB", "")
if _fault == "import":
    raise RuntimeError("half of the package is missing")


class UsageError(Exception):
    pass


class CommError(Exception):
    pass


class Settings:
    def __init__(self, **values):
        self.values = values
        self.sync_dir = "/fake-folder"


def _readable(value):
    """A float that JSON does not have as {"float": "nan"}, so that it differs from the text."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {name: _readable(entry) for name, entry in value.items()}
    return value


def _write(entry):
    with open(os.environ["FAKE_WANDB_LOG"], "a") as file:
        file.write(json.dumps(_readable(entry)) + "\n")


def _next_step():
    try:
        with open(os.environ["FAKE_WANDB_LOG"]) as file:
            steps = [json.loads(line).get("step", -1) for line in file]
        return max(steps, default=-1) + 1
    except FileNotFoundError:
        return 0


class _Summary:
    def __setitem__(self, name, value):
        _write({"summary": name, "value": value})


class _Run:
    def __init__(self, settings):
        self.offline = os.environ.get("WANDB_MODE") == "offline"
        self.disabled = False
        self.url = None if self.offline else "fake://run"
        self.settings = settings
        self.summary = _Summary()
        self.step = 0 if self.offline else _next_step()

    def log(self, values, step):
        _write({"values": values, "step": step})

    def finish(self, exit_code):
        if _fault == "stuck":
            time.sleep(1000)
        _write({"finish": exit_code})


def init(**arguments):
    if _fault == "login":
        raise UsageError("No API key configured. Use `wandb login` to log in.")
    if _fault == "network":
        raise CommError("no such host")
    if _fault == "hang":
        time.sleep(1000)
    if _fault == "slow":
        time.sleep(0.5)
    settings = arguments.pop("settings")
    _write({"init": arguments, "settings": settings.values, "pid": os.getpid()})
    return _Run(settings)
