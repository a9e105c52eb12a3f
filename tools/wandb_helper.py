"""The side process of --use_wandb: reads a run's metrics.jsonl and hands it to the official W&B SDK.

Started by src/report/wandb_sink.cpp, which carries this text inside the program and sends it over the socket `channel`,
descriptor 3; then it is one JSON object a packet. Standard output and error are a log file.
  in    {"project": …, "metrics": FILE, …}                     what run this is; once
        {"end": BYTES}                                         the file is whole lines up to there
        {"end": BYTES, "summary": {…}, "exit_code": 0}         the run is over
  out   {"run": {"mode": …, "url": …, "folder": …}}            the SDK has taken the run
        {"read": BYTES}                                        the SDK has everything up to there
        {"finished": true}                                     and has passed it on
        {"error": "missing" | "login" | "failed", "text": …}   followed by the end of this process
The values lie in the file alone, so a packet that gets lost is made good by the next one, and a process that takes the
place of another begins at the beginning: steps that the server has already are left out.
"""

import json
import os
import signal
import sys
import traceback

LARGEST_PACKET = 1 << 20
NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}

channel = globals()["channel"]


def send(message):
    try:
        channel.send(json.dumps(message).encode())
    except OSError:
        pass  # the training process has gone; recv() says so too


def receive():
    """The next packet; empty when the training process has gone."""
    try:
        return channel.recv(LARGEST_PACKET)
    except ConnectionResetError:  # it went without reading what it had been sent
        return b""


def stop(error, text):
    traceback.print_exc()
    sys.stderr.flush()
    send({"error": error, "text": " ".join(text.split())[:500]})
    # Not exit(): what the SDK has registered for the end of a process may wait for the network.
    os._exit(1)


def import_sdk():
    # `python -c` looks for modules in the working directory first, and W&B keeps a folder `wandb` in it.
    sys.path[:] = [folder for folder in sys.path if folder]
    try:
        import wandb
    except ModuleNotFoundError as error:
        stop("missing" if error.name == "wandb" else "failed", str(error))
    if not hasattr(wandb, "init"):
        stop("missing", "a folder named wandb is no SDK")
    return wandb


def open_run(wandb, start):
    try:
        return wandb.init(
            project=start["project"],
            name=start["name"] or None,
            id=start["id"],
            resume="allow",
            tags=start["tags"] or None,
            config=start["config"],
            dir=start["folder"],
            settings=wandb.Settings(console="off"),  # what this process prints is not the run's output
        )
    except Exception as error:
        is_login = type(error).__name__ in ("UsageError", "AuthenticationError") and "api key" in str(error).lower()
        stop("login" if is_login else "failed", f"{type(error).__name__}: {error}")


class Feed:
    """Copies lines of metrics.jsonl to the run."""

    def __init__(self, run, path):
        self.run = run
        self.file = open(path, "rb")
        self.position = 0
        self.step = run.step  # lower ones are refused by the SDK with a warning each

    def copy(self, end):
        while end is None or self.position < end:
            line = self.file.readline()
            if not line.endswith(b"\n"):
                self.file.seek(self.position)
                return
            self.position += len(line)
            try:
                self.log(json.loads(line))
            except ValueError:  # half a line, where an earlier process of the run was killed
                print(f"{self.file.name}: no JSON before byte {self.position}: {line[:80]}", flush=True)

    def log(self, record):
        step, time = record.pop("step"), record.pop("time")
        values = {}
        for name, value in record.items():
            if isinstance(value, str) and value not in NOT_FINITE:
                self.run.summary[name] = value
            else:
                values[name] = NOT_FINITE.get(value, value) if isinstance(value, str) else value
        if values and step >= self.step:
            self.step = step
            self.run.log({**values, "_timestamp": time}, step=step)


def finish(run, request):
    for name, value in request.get("summary", {}).items():
        run.summary[name] = NOT_FINITE.get(value, value) if isinstance(value, str) else value
    run.finish(exit_code=request.get("exit_code", 1))


def follow(run, path):
    feed = Feed(run, path)
    while True:
        packet = receive()
        if not packet:  # without a word about how it ended: such a run has failed
            feed.copy(None)
            finish(run, {})
            return
        request = json.loads(packet)
        feed.copy(request["end"])
        send({"read": feed.position})
        if "exit_code" in request:
            finish(run, request)
            send({"finished": True})
            return


def main():
    # Those are for the training process. This one ends when it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    packet = receive()
    if not packet:
        return
    start = json.loads(packet)
    try:
        wandb = import_sdk()
        run = open_run(wandb, start)
        mode = "offline" if run.offline else "disabled" if run.disabled else "online"
        folder = os.path.abspath(run.settings.sync_dir) if mode == "offline" else ""
        send({"run": {"mode": mode, "url": run.url or "", "folder": folder}})
        follow(run, start["metrics"])
    except Exception as error:
        stop("failed", f"{type(error).__name__}: {error}")


main()
