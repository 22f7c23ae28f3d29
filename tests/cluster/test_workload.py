#!/usr/bin/env python3
"""A workload of one's own under gapless simulate and gapless study: Python that needs nothing but Python.

The same bits whatever the number of threads, what it measures in result.json, its failures said and the run ended, options
that do not go with it, a study that finds it beside its file and goes on where it was stopped.
"""
import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

program = os.path.abspath(os.path.join(sys.argv[2], "gapless"))
environment = dict({k: v for k, v in os.environ.items() if not k.startswith("GAPLESS_")}, PYTHON=sys.executable)
folder = tempfile.TemporaryDirectory(prefix="gapless-workload-")
faults = 0

# Least squares in 20 dimensions, each batch with its own noise; the last tensor is a running average of 1.
WORKLOAD = '''
import json, mmap, os, random, socket, struct, sys, time
channel = socket.socket(fileno=3)
words = dict(word.split("=") for word in sys.argv[1:])
size, floats, seed = int(words.get("size", 20)), None, 0
while True:
    request = channel.recv(16, socket.MSG_WAITALL)
    if len(request) < 16:
        break
    what, part, number = struct.unpack("=IIQ", request)
    failed, text, loss, correct, weight = 0, b"", 0.0, 0.0, 1.0
    if what == 1:
        seed = number
        text = json.dumps({"tensors": [{"name": "x", "shape": [size // 4, 4]}, {"name": "b", "shape": [2], "rate": 0.5},
                                       {"name": "seen", "shape": [1], "average": 0.1}],
                           "epoch": 100, "batch": 8, "parts": 3}).encode()
    else:
        if floats is None:
            floats = memoryview(mmap.mmap(4, os.fstat(4).st_size)).cast("f")
        count = len(floats) // 2
        x, g = floats[:count], floats[count:]
        if what == 2:
            for i in range(count):
                x[i] = 2.0 + seed
        elif what == 3:
            if number == int(words.get("fail", -1)):
                failed, text = 1, b"ValueError: this batch cannot be read"
            if number == int(words.get("die", -1)):
                os.kill(os.getpid(), 9)
            time.sleep(float(words.get("sleep", 0)))
            noise = random.Random(seed * 1000 + number)
            for i in range(count - 1):
                g[i] = x[i] - 1.0 + noise.uniform(-0.1, 0.1)
                loss += (x[i] - 1.0) ** 2 / 2
            g[count - 1] = x[count - 1] - (0.9 * x[count - 1] + 0.1 * 1.0)
        else:
            loss, correct, weight = sum((v - 1.0) ** 2 for v in x) / count + part, 0.25 * part, part + 1.0
    channel.sendall(struct.pack("=IIddd", failed, len(text), loss, correct, weight) + text)
'''


def path(name):
    return os.path.join(folder.name, name)


def check(what, holds, shown=""):
    global faults
    if not holds:
        faults += 1
        print("FAILED: %s %s" % (what, shown))


def gapless(*arguments, **more):
    return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, timeout=250,
                          cwd=folder.name, check=False, **more)


def simulate(out, words="", *more):
    done = gapless("simulate", "--workload", (path("least.py") + " " + words).strip(), "--workers", "8", "--lr", "0.05",
                   "--epochs", "4", "--warmup", "0", "--rule", "dana-ga", "--out", path(out), *more)
    result = None
    if done.returncode == 0:
        with open(path(out) + "/result.json", encoding="utf-8") as file:
            result = json.load(file)
    return done, result


def read(name):
    with open(path(name), "rb") as file:
        return file.read()


def runs():
    one, result = simulate("one", "", "--threads", "1")
    check("it runs", one.returncode == 0, one)
    if result is None:
        return
    check("it learns", result["training_loss"] < 2.0, result["training_loss"])
    check("its measure is weighted", abs(result["final_accuracy"] - (0 + 0.25 * 2 + 0.5 * 3) / 6) < 1e-9, result)
    check("its loss is weighted", abs(result["final_loss"] - (0 + 1 * 2 + 2 * 3) / 6) < 0.05, result["final_loss"])
    check("it is described", result["model"] == "least" and result["batch"] == 8 and result["data"] is None and
          "least.py" in result["workload"] and result["updates"] == 400, result)
    again, _ = simulate("three", "", "--threads", "3")
    check("it runs with three threads", again.returncode == 0, again)
    for name in "metrics.jsonl", "model.safetensors":
        check("the same bits with three: " + name, read("one/" + name) == read("three/" + name))
    header = read("one/model.safetensors")
    check("the average is near 1", abs(memoryview(header[-4:]).cast("f")[0] - 1.0) < 0.1, header[-4:])
    other, result = simulate("words", "size=40", "--seed", "2")
    check("words and seed reach it", result is not None and result["parameters"] == 43, other)
    local, result = simulate("local", "", "--local-steps", "4", "--inner", "sgd", "--rule", "asgd", "--lr", "0.15",
                             "--inner-lr", "0.1")
    check("local steps", result is not None and result["training_loss"] < 8.0, local)
    check("local steps leave the average an average",
          abs(memoryview(read("local/model.safetensors")[-4:]).cast("f")[0] - 1.0) < 0.1 if result else False)


def failures():
    for words, says in ("fail=30", "ValueError: this batch cannot be read"), ("die=30", "ended by signal 9"):
        done, _ = simulate("bad", words)
        check(words, done.returncode == 1 and says in done.stderr, done)
    for option in ["--data", "synthetic"], ["--model", "mlp:64"], ["--batch", "16"]:
        done, _ = simulate("never", "", *option)
        check("%s does not go with it" % option[0], done.returncode == 2 and "do not go together" in done.stderr, done)
    check("a refused start leaves no folder", not os.path.exists(path("never")))
    done = gapless("simulate", "--workload", "nowhere.py")
    check("no such file", done.returncode != 0 and "cannot be read" in done.stderr, done)


def ctrl_c():
    """The run ends in order, and no child is left."""
    running = subprocess.Popen([program, "simulate", "--workload", path("least.py") + " sleep=0.05", "--threads", "2", "--epochs",
                                "50", "--out", path("stopped")], env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if os.path.exists(path("stopped/metrics.jsonl")):
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    text = running.communicate(timeout=120)
    check("Ctrl-C", running.returncode == 130 and os.path.exists(path("stopped/result.json")), (running.returncode, text))
    left = []
    for entry in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(entry, "rb") as file:
                left += [entry] if path("least.py").encode() in file.read() else []
        except OSError:
            pass
    check("no process is left", not left, left)


def study():
    os.mkdir(path("studies"))
    with open(path("studies/least.py"), "w", encoding="utf-8") as file:
        file.write(WORKLOAD)
    with open(path("studies/two.ini"), "w", encoding="utf-8") as file:
        file.write("[study]\ntitle = two\n[run]\nworkload = least.py size=8\nepochs = 2\nlr = 0.05\n[grid]\n"
                   "rule = nag-asgd dana-ga\nworkers = 2 4\n")
    done = gapless("study", "studies/two.ini", "--out", path("study"), "--quiet")
    check("a study", done.returncode == 0, done)
    found = glob.glob(path("study/cells/*/result.json"))
    check("four runs", len(found) == 4, found)
    with open(path("study/study.csv"), encoding="utf-8") as file:
        rows = file.read().splitlines()
    check("its table", len(rows) == 5 and "least" in rows[1], rows[:2])
    times = {name: os.stat(name).st_mtime_ns for name in found}
    done = gapless("study", "studies/two.ini", "--out", path("study"), "--quiet")
    check("nothing is run again", done.returncode == 0 and times == {name: os.stat(name).st_mtime_ns for name in found}, done)
    with open(path("studies/bad.ini"), "w", encoding="utf-8") as file:
        file.write("[study]\ntitle = bad\n[run]\n\nworkload = gone.py\n[grid]\nrule = asgd\n")
    done = gapless("study", "studies/bad.ini", "--out", path("bad-study"))
    check("a study without its workload", done.returncode != 0 and "gone.py" in done.stderr, done)


with open(path("least.py"), "w", encoding="utf-8") as least:
    least.write(WORKLOAD)
runs()
failures()
ctrl_c()
study()
print("%d faults" % faults)
sys.exit(1 if faults else 0)
