#!/usr/bin/env python3
"""How long a run stands still when its master is killed: gapless train, kill -9, until an observer sees the master that was
started again apply gradients.

    OPENBLAS_CORETYPE=Haswell python3 bench/python/restart.py build/gapless [RUNS]

Prints the seconds from the kill to the second look that shows more updates than the first: an upper bound, of looks that
take some hundredths of a second each."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

WORKERS = 4


def states(folder):
    return [name for name in os.listdir(folder) if name.endswith(".safetensors")] if os.path.isdir(folder) else []


def look(program, address):
    """What an observer sees; None: no master is there."""
    line = subprocess.run([program, "observe", "--master", address, "--once", "--json", "--connect-timeout", "0.05"],
                          capture_output=True, text=True)
    try:
        return json.loads(line.stdout)
    except ValueError:
        return None


def stand_still(program, folder, address):
    run = subprocess.Popen([program, "train", "--data", "synthetic", "--workers", str(WORKERS), "--epochs", "400", "--quiet",
                            "--save-every", "1000updates", "--out", folder, "--address", address],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not states(os.path.join(folder, "state")):
        time.sleep(0.05)
    with open(f"/proc/{run.pid}/task/{run.pid}/children") as children:
        master = int(children.read().split()[0])
    os.kill(master, signal.SIGKILL)
    killed = time.monotonic()
    before, ret = None, None
    while ret is None and run.poll() is None:
        seen = look(program, address)
        if seen is None or seen["workers"] == 0 or not os.path.exists(os.path.join(folder, "state", "epoch")):
            continue
        if before is not None and seen["updates"] > before:
            ret = time.monotonic() - killed
        before = seen["updates"]
    run.send_signal(signal.SIGTERM)
    run.wait()
    return ret


def main():
    program = os.path.abspath(sys.argv[1])
    for i in range(int(sys.argv[2]) if len(sys.argv) > 2 else 5):
        with tempfile.TemporaryDirectory() as folder:
            took = stand_still(program, os.path.join(folder, "run"), f"shm:restart-{os.getpid()}-{i}")
        print("the run ended" if took is None else f"{took:.2f} s", flush=True)


if __name__ == "__main__":
    main()
