#!/usr/bin/env python3
# ctest: plain
"""Every command of README.md and docs/*.md is run, with short settings where it takes long; what needs devices that are
not here has to be refused in the words that the documents have for it. README's C is cut from the example. Run as:
test_commands.py SOURCE BUILD

The table below has a row for each command, as it stands in a block of sh, without its comment. A command that the
table has not, and a row that no document has, are failures: this is how both stay whole."""
import glob
import os
import re
import shutil
import subprocess
import sys

SOURCE, BUILD = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
PROGRAM = os.environ.get("GAPLESS_PROGRAM", os.path.join(BUILD, "gapless"))
WORK = os.path.join(BUILD, "tests", "test_commands")
BOUND_S = 300  # on one command; each takes a second or two on an idle machine
DATA = "/usr/share/datasets/fashion-mnist"

# What a machine without such devices says; each of these texts has to stand in the document named.
RDMA = ("docs/rdma.md", ["this build has no RDMA", "the RDMA connection manager is not there",
                         "no RDMA device has this address", "no RDMA device leads to", "no master at"])
GPU = ("docs/gpu.md", ["GPUs need the plugin libgapless_cuda.so", "no NVIDIA driver: libcuda.so.1 was not found",
                       "the NVIDIA driver sees no GPU here", "the driver is not ready", "there is no GPU",
                       "the libcuda.so.1 found is the toolkit's stub", "libnccl is not installed"])


class Row:
    def __init__(self, short=None, says=None, codes=(0,), refused=(), background=False):
        self.short = short            # what is run in its place; None: the command as it is
        self.says = says              # a pattern that its output has to have
        self.codes = codes
        self.refused = refused        # pairs (document, texts): it has to fail with one of the texts
        self.background = background  # goes on while the rows behind it run


# In the order of the documents, so that a command finds what the one before it left.
TABLE = {
    # README.md
    "./quickstart": Row(short="./quickstart --help", says="train +\\(the default\\)"),  # .ci/run and the next row run it
    "./quickstart test": Row(short="./quickstart test --help", says="run all tests"),
    "build/gapless train --workers 32 --rule nag-asgd --out runs/nag": Row(
        short="build/gapless train --workers 4 --rule nag-asgd --out runs/nag --epochs 0.2", says="test accuracy"),
    "build/gapless train --workers 32 --rule dana-ga --out runs/dana": Row(
        short="build/gapless train --workers 4 --rule dana-ga --out runs/dana --epochs 0.2", says="test accuracy"),
    "build/gapless report runs/nag runs/dana": Row(says="report.html"),
    "build/gapless evaluate runs/dana/model.safetensors": Row(says="accuracy"),
    "build/gapless run --ranks 8 train.py": Row(
        short=f"build/gapless run --ranks 2 '{BUILD}/tests/test_cluster_run' rank steps=50", says="gradients dropped"),
    "build/gapless simulate --workers 128 --rule dana-lga": Row(
        short="build/gapless simulate --workers 128 --rule dana-lga --epochs 0.2", says="test accuracy"),
    "build/gapless study bench/studies/rate.ini": Row(
        short="build/gapless study bench/studies/rate.ini --dry-run", says="378"),
    "cmake --install build --prefix /usr/local": Row(short=f"cmake --install '{BUILD}' --prefix prefix", says="bin/gapless"),
    "build/gapless master --address shm:demo --epochs 20 --out runs/demo &": Row(
        short="build/gapless master --address shm:demo --epochs 6 --out runs/demo", says="result.json", background=True),
    "build/gapless worker --master shm:demo &": Row(
        short="build/gapless worker --master shm:demo", says="gradients", background=True),
    "build/gapless observe --master shm:demo": Row(says="updates"),
    "head -c 32 /dev/urandom | base64 > run.token; chmod 600 run.token": Row(),
    "build/gapless doctor": Row(says="machine", codes=(0, 1)),
    "build/gapless master --transport verbs --listen 10.0.0.1 --token-file run.token --workers 8 --out runs/rdma": Row(
        refused=[RDMA]),
    "build/gapless worker --transport verbs --master 10.0.0.1 --token-file run.token": Row(refused=[RDMA]),
    "build/gapless train --device cuda": Row(refused=[GPU]),
    "build/gapless worker --master verbs:10.0.0.1 --token-file run.token --group nccl --device cuda:all": Row(
        refused=[RDMA, GPU]),
    "build/gapless plan --parameters 25.6M --workers 64 --link 400Gb --batch-time 120ms": Row(says="updates"),
    # docs/data.md
    "gapless train --data csv:table.csv:label=species --model mlp:16 --epochs 30 --out runs/table": Row(says="test accuracy"),
    "gapless evaluate runs/table/model.safetensors": Row(says="samples +60, test of csv:.*table.csv"),
    "gapless evaluate runs/table/model.safetensors --data csv:more.csv:label=species --part all": Row(
        says="samples +150, all of csv:more.csv"),
    # docs/gpu.md
    "gapless train --device cuda --workers 8": Row(refused=[GPU]),
    "gapless train --device cuda --worker-device cuda:all": Row(refused=[GPU]),
    "gapless master --device cuda:0,1 --transport verbs --listen 10.0.0.1 --token-file run.token": Row(refused=[RDMA, GPU]),
    "gapless worker --device cuda:1 --master verbs:10.0.0.1 --token-file run.token": Row(refused=[RDMA, GPU]),
    "gapless worker --device cuda:all --group nccl --master verbs:10.0.0.1 --token-file run.token": Row(refused=[RDMA, GPU]),
    "gapless train --worker-device cuda:all --group nccl --rule ssgd": Row(refused=[GPU]),
    "gapless plan --parameters 25.6M --workers 64 --link 400Gb --batch-time 120ms": Row(says="updates"),
    "gapless plan": Row(says="parameters"),
    "gapless plan --parameters 25.6M --rule all --gpu a100": Row(says="dana-lga"),
    "gapless plan --parameters 25.6M --measured gpu-acceptance.json --link measured": Row(
        says="gpu-acceptance.json", codes=(1, 2)),  # the file comes from hardware
    # docs/hardware-acceptance.md
    "gapless bench gpu --accept --out accept": Row(refused=[GPU]),
    "gapless bench gpu --accept --rdma 10.0.0.1 --out accept": Row(refused=[GPU]),
    "ib_write_bw -R -F --use_cuda=0 --use_cuda_dmabuf -s 8388608 -D 5 --report_gbits": Row(short=":"),  # of perftest, on
    "ib_write_bw -R -F -s 8388608 -D 5 --report_gbits 10.0.0.1": Row(short=":"),  # hardware; tests/vm/perftest.sh
    # docs/python.md
    "./quickstart build": Row(short="./quickstart --help", says="install what is missing and build"),
    "cmake --build build --target wheel": Row(short=":"),  # tests/python/test_wheel.sh
    # docs/rdma.md
    "gapless doctor": Row(says="machine", codes=(0, 1)),
    "gapless master --transport verbs --listen 10.0.0.1 --token-file run.token --workers 8 --out runs/first": Row(
        refused=[RDMA]),
    "gapless worker --transport verbs --master 10.0.0.1 --token-file run.token": Row(refused=[RDMA]),
    "gapless bench transport --transport verbs --listen 10.0.0.1": Row(refused=[RDMA]),
    "gapless bench transport --transport verbs --listen 10.0.0.1 --only-server --token-file run.token": Row(refused=[RDMA]),
    "gapless bench transport --transport verbs --server 10.0.0.1 --token-file run.token": Row(refused=[RDMA]),
    "gapless bench transport --transport verbs --server 10.0.0.1 --token-file run.token --ops write --sizes 64K "
    "--json": Row(refused=[RDMA]),
    # docs/simulate.md
    'gapless simulate --workload "bench/studies/resnet.py depth=8" --workers 32 --rule dana-ga --epochs 1': Row(
        short=":"),  # tests/python/test_workloads.py, with data that is made there
    # docs/resume.md
    "build/gapless train --rule dana-ga --save-every 1000updates --out runs/long": Row(
        short="build/gapless train --rule dana-ga --save-every 100updates --out runs/long --data synthetic --epochs 8 --workers 2",
        says="test accuracy"),
    "build/gapless train --resume runs/long": Row(says="test accuracy"),
    "build/gapless inspect runs/long": Row(says="every checksum is right"),
    "build/gapless export runs/long --format npy --out runs/parameters": Row(says="4 tensors, after"),
    "build/gapless train --init runs/long/model.safetensors --lr 0.001 --out runs/more": Row(
        short="build/gapless train --init runs/long/model.safetensors --lr 0.001 --out runs/more --data synthetic --epochs 1 --workers 2",
        says="test accuracy"),
    # docs/rules.md
    "gapless rules": Row(says="dana-lga"),
    "gapless rules --json": Row(says='"bytes_per_parameter"'),
    "gapless train --workers 8 --rule dn --local-steps 16": Row(
        short="gapless train --workers 4 --rule dn --local-steps 16 --epochs 0.2", says="test accuracy"),
    "gapless simulate --workers 32 --rule dana-ga --lr 0.1 --local-steps 16 --inner sgd --inner-lr 0.05": Row(
        short="gapless simulate --workers 8 --rule dana-ga --lr 0.1 --local-steps 16 --inner sgd --inner-lr 0.05 --epochs 0.2",
        says="test accuracy"),
    "gapless simulate --workers 32 --rule ssgd --local-steps 16": Row(
        short="gapless simulate --workers 8 --rule ssgd --local-steps 16 --epochs 0.2", says="test accuracy"),
    "gapless simulate --workers 32 --rule dn --local-steps 16 --clock heterogeneous --adapt-steps": Row(
        short="gapless simulate --workers 8 --rule dn --local-steps 16 --clock heterogeneous --adapt-steps --epochs 0.2",
        says="test accuracy"),
    # docs/run.md
    "gapless run --ranks 8 train.py --epochs 10": Row(
        short=f"gapless run --ranks 2 '{BUILD}/tests/test_cluster_run' rank steps=50", says="gradients dropped"),
    "gapless run --ranks 8 --rule dana-lga-adamw --lr 0.0005 --out runs/mine train.py --epochs 10": Row(
        short=f"gapless run --ranks 8 --rule dana-lga-adamw --lr 0.0005 --out runs/mine '{BUILD}/tests/test_cluster_run' rank "
        "steps=50", says="runs/mine"),
    # docs/simulate.md
    "gapless simulate --workers 128 --rule dana-lga --out runs/many": Row(
        short="gapless simulate --workers 128 --rule dana-lga --out runs/many --epochs 0.2", says="test accuracy"),
    'gapless simulate --workers 32 --clock heterogeneous --latency 0.001 --bandwidth 10 --events "4s kill 3; 6s join"': Row(
        short='gapless simulate --workers 32 --clock heterogeneous --latency 0.001 --bandwidth 10 --epochs 1 '
        '--events "40ms kill 3; 60ms join"', says="1 lost"),
    "gapless report runs/many": Row(says="report.html"),
    "gapless train --workers 8 --record strange.txt --out runs/strange": Row(
        short="gapless train --workers 3 --record strange.txt --out runs/strange --epochs 0.2"),
    "gapless simulate --replay strange.txt --out runs/again": Row(
        short="gapless simulate --replay strange.txt --out runs/again && "
        "cmp runs/strange/model.safetensors runs/again/model.safetensors"),
    "gapless study bench/studies/first.ini --out runs/comparison": Row(
        short="sed -e 's/^epochs.*/epochs = 0.1/' -e 's/^rule = .*/rule = ga ssgd/' bench/studies/first.ini > first.ini && "
        "gapless study first.ini --out runs/comparison", says="ssgd"),
    "gapless study bench/studies/rate.ini --dry-run": Row(says="378"),
    "gapless report runs/comparison runs/many": Row(says="report.html"),
}

faults = []


def fault(where, text, output=""):
    faults.append(where)
    print(f"FAILED: {where}: {text}")
    if output:
        print("    " + "\n    ".join(output.strip().splitlines()[-12:]))


def blocks(path):
    """The fenced blocks of a document: (line, language, text)."""
    with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
        text = file.read()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M):
        yield text.count("\n", 0, found.start()) + 2, found.group(1), found.group(2)


def bare(line):
    """A line without the comment at its end."""
    return re.sub(r"\s+#\s.*$", "", line).rstrip()


def judge(where, row, code, output):
    if row.refused:
        texts = [text for _, some in row.refused for text in some]
        if code in (0, 124):
            fault(where, f"was not refused, but ended with {code}", output)
        elif not any(text in output for text in texts):
            fault(where, "is refused in words that no document has", output)
    elif code not in row.codes:
        fault(where, f"ended with {code}", output)
    elif row.says and not re.search(row.says, output):
        fault(where, f"does not say '{row.says}'", output)


def start(line):
    return subprocess.Popen(["sh", "-c", line], cwd=WORK, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    try:
        output, _ = process.communicate(timeout=BOUND_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return 124, process.communicate()[0]
    return process.returncode, output


def prepare():
    """A folder that looks like a checkout after ./quickstart, in which commands leave what they like."""
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(os.path.join(WORK, "build"))
    os.symlink(PROGRAM, os.path.join(WORK, "build", "gapless"))
    os.symlink(os.path.join(SOURCE, "bench"), os.path.join(WORK, "bench"))
    os.symlink(os.path.join(SOURCE, "quickstart"), os.path.join(WORK, "quickstart"))
    for name, rows in (("table.csv", 300), ("more.csv", 150)):  # of docs/data.md
        with open(os.path.join(WORK, name), "w", encoding="utf-8") as file:
            file.write("length,width,species\n")
            file.writelines(f"{i % 3 * 2 + i * 7 % 10 / 10},{i * 13 % 17 / 17 - i % 3},{'abc'[i % 3]}\n" for i in range(rows))


def check_documents():
    """What is refused is explained, blocks say what they are, README's C is the example's."""
    for path, texts in (RDMA, GPU):
        with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
            document = file.read()
        for text in texts:
            if text not in document:
                fault(path, f"does not explain '{text}'")
    with open(os.path.join(SOURCE, "examples/c/own_model.c"), encoding="utf-8") as file:
        example = [line.strip() for line in file]
    snippets = [text for _, language, text in blocks("README.md") if language == "c"]
    for text in snippets:
        lines = [line.strip() for line in text.splitlines()]
        first, rest = lines[0], lines[2:]
        at = [i for i in range(len(example)) if example[i:i + len(rest)] == rest]
        if first not in example or not at:
            fault("README.md", "its C is not a piece of examples/c/own_model.c")
    if not snippets:
        fault("README.md", "has no C")
    with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
        lines = file.read().count("\n")
    if lines > 180:
        fault("README.md", f"has {lines} lines; 180 are allowed")


def check_links(path):
    """Relative links lead to files of the source."""
    with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
        text = re.sub(r"^```.*?^```$", "", file.read(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target and not os.path.exists(os.path.join(SOURCE, os.path.dirname(path), target)):
            fault(path, f"a link to {target}, which is not there")


def run_all(documents):
    seen, running, count = set(), [], 0
    for path in documents:
        for number, language, text in blocks(path):
            if language == "":
                fault(f"{path}:{number - 1}", "a block without a language: sh, c, text or ini")
            if language != "sh":
                continue
            for i, line in enumerate(text.splitlines()):
                command = bare(line)
                where = f"{path}:{number + i}: {command}"
                if command == "" or command in seen:
                    continue
                if command not in TABLE:
                    fault(where, "the table of tests/docs/test_commands.py has no such command: add a row")
                    continue
                seen.add(command)
                row = TABLE[command]
                process = start(row.short or command)
                count += 1
                if row.background:
                    running.append((where, row, process))
                else:
                    judge(where, row, *finish(process))
            for where, row, process in running:
                judge(where, row, *finish(process))
            running = []
    for command in TABLE:
        if command not in seen:
            fault(command, "is in the table, and in no document")
    return count


def main():
    if not glob.glob(os.path.join(DATA, "train-images*")):
        print("SKIP: dataset-fashion-mnist is not installed")
        return 77
    prepare()
    documents = ["README.md"] + sorted(os.path.relpath(path, SOURCE) for path in glob.glob(os.path.join(SOURCE, "docs/*.md")))
    check_documents()
    for path in documents + ["CONTRIBUTING.md", "SECURITY.md", "bench/results/README.md", "bench/studies/README.md"]:
        check_links(path)
    count = run_all(documents)
    print(f"{count} commands of {len(documents)} documents, {len(faults)} faults")
    return 1 if faults else 0


ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GAPLESS_")}
ENVIRONMENT["PATH"] = os.path.join(WORK, "build") + os.pathsep + ENVIRONMENT.get("PATH", "")

if __name__ == "__main__":
    sys.exit(main())
