"""What `--metrics` serves: each line as the text format of Prometheus has it, histograms that add up, and a server that
neither a junk request nor a silent peer stops. Where promtool is installed, it looks, too."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

PROGRAM = os.environ.get("GAPLESS_PROGRAM") or (os.path.join(sys.argv[2], "gapless") if len(sys.argv) > 2 else None)
if PROGRAM is None or not os.access(PROGRAM, os.X_OK):
    print("SKIP: the program is not built (GAPLESS_PROGRAM)")
    sys.exit(77)

SAMPLE = re.compile(r'(gapless_[a-z_]+)(\{[a-z]+="[^"\\]*"(?:,[a-z]+="[^"\\]*")*\})? (NaN|[+-]Inf|-?[0-9][0-9.e+-]*)$')


def parse(text):
    """Samples by name: a list of labels and value. Each name has help and type, once and before its samples."""
    kinds, samples, helped = {}, {}, set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in helped, line
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helped and name not in kinds and kind in ("counter", "gauge", "histogram"), line
            assert (kind == "counter") == name.endswith("_total"), line
            kinds[name] = kind
        else:
            found = SAMPLE.match(line)
            assert found, line
            name = re.sub("_(bucket|sum|count)$", "", found[1]) if found[1] not in kinds else found[1]
            assert name == list(kinds)[-1], f"{line} stands behind {list(kinds)[-1]}"
            labels = dict(re.findall('([a-z]+)="([^"]*)"', found[2] or ""))
            samples.setdefault(found[1], []).append((labels, float(found[3])))
    return samples


def check_histogram(samples, name):
    for labels, count in samples[name + "_count"]:
        mine = [(float(of["le"]), n) for of, n in samples[name + "_bucket"] if of["worker"] == labels["worker"]]
        assert mine == sorted(mine) and len({le for le, _ in mine}) == len(mine), "edges grow"
        assert [n for _, n in mine] == sorted(n for _, n in mine), "buckets are sums"
        assert mine[-1] == (float("inf"), count), "the last has all"


def ask(port, request):
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.sendall(request)
        answer = b""
        while more := peer.recv(65536):
            answer += more
    return answer


def look(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return answer.read().decode()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def first_look(port, run):
    end = time.time() + 60
    while time.time() < end and run.poll() is None:
        try:
            if parse(look(port))["gapless_gradients_total"][0][1] > 0:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("no metrics")


def check(port, run):
    first_look(port, run)
    silent = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(8)]
    text = look(port)  # behind all of them: they are closed after two seconds
    samples = parse(text)
    check_histogram(samples, "gapless_worker_lag")
    check_histogram(samples, "gapless_worker_gap_rms")
    assert samples["gapless_workers"] == [({}, 2.0)]
    assert {of["worker"] for of, _ in samples["gapless_worker_gradients_total"]} == {"0", "1"}
    # Workers are read after the run, of which a gradient more may have come by then: so against a later look.
    by_workers, at = sum(n for _, n in samples["gapless_worker_gradients_total"]), samples["gapless_gradients_total"]
    while (later := parse(look(port))["gapless_gradients_total"]) == at:
        assert run.poll() is None
        time.sleep(0.05)
    assert 0 < by_workers <= later[0][1]
    check_dashboard(samples)
    for one in silent:
        one.close()
    assert ask(port, b"POST /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert ask(port, b"GET /etc/passwd HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404 ")
    assert ask(port, b"GET /" + 2042 * b"x").startswith(b"HTTP/1.1 431 ")
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "metrics"], input=text.encode(), check=True, timeout=30)


def check_dashboard(samples):
    """The names that the dashboard asks for are served, but for what a master alone knows."""
    source = sys.argv[1] if len(sys.argv) > 1 else "."
    with open(os.path.join(source, "contrib/grafana/gapless.json"), encoding="utf-8") as file:
        asked = {t["expr"] for p in json.load(file)["panels"] for t in p["targets"]}
    names = set(re.findall("gapless_[a-z_]+", " ".join(asked)))
    assert len(names) > 8 and names - set(samples) <= {"gapless_peers_refused_total"}, names - set(samples)


port = free_port()
with tempfile.TemporaryDirectory(prefix="gapless-test-") as folder:
    run = subprocess.Popen([PROGRAM, "train", "--data", "synthetic", "--workers", "2", "--epochs", "100000", "--quiet",
                            "--out", folder + "/run", "--metrics", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    try:
        check(port, run)
    finally:
        run.send_signal(signal.SIGINT)
        run.wait(60)
for bad in "9464", "localhost:http", "127.0.0.1:", "1.2.3.4.5:1":
    code = subprocess.run([PROGRAM, "master", "--data", "synthetic", "--metrics", bad], stderr=subprocess.PIPE, text=True)
    assert code.returncode == 2 and "--metrics must be ADDRESS:PORT" in code.stderr, code.stderr
