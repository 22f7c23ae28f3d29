#!/usr/bin/env python3
"""The examples in Python, each run with little data that is made here, and what they promise: ctest: plain"""
import difflib
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import bed

bed.need_torch()
EXAMPLES = os.path.join(bed.SOURCE, "examples", "python")
PROGRAM = os.path.abspath(os.path.join(bed.BUILD, "gapless"))
LINES_MAX = 120     # of an example
CHANGED_MAX = 3     # lines of a loop in plain PyTorch
SHARED = ("datasets.py", "networks.py") # by the examples


class Examples(unittest.TestCase):
    def run_one(self, *words):
        done = subprocess.run([sys.executable, os.path.join(EXAMPLES, words[0]), *words[1:]], capture_output=True, text=True,
                              timeout=280, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def accuracy(self, text):
        return float(re.search(r"^accuracy ([0-9.]+) %$", text, re.M).group(1))

    def test_mnist(self):
        self.assertGreater(self.accuracy(self.run_one("mnist.py", "--data", "synthetic", "--epochs", "2")), 90)

    def test_mnist_by_two(self):
        """The same file, by the launcher."""
        with tempfile.TemporaryDirectory(prefix="gapless-examples-") as folder:
            done = subprocess.run([PROGRAM, "run", "-n", "2", "--out", folder, os.path.join(EXAMPLES, "mnist.py"), "--data",
                                   "synthetic", "--epochs", "2"], capture_output=True, text=True, timeout=280, check=False,
                                  env=dict(os.environ, PYTHON=sys.executable))
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertTrue(os.path.exists(os.path.join(folder, "model.safetensors")))
            found = re.findall(r"^\[([01])\] accuracy ([0-9.]+) %$", done.stdout, re.M)
        self.assertEqual(sorted(rank for rank, _ in found), ["0", "1"], done.stdout)
        self.assertTrue(all(float(share) > 90 for _, share in found), found)

    def test_cifar_resnet(self):
        text = self.run_one("cifar_resnet.py", "--data", "synthetic", "--depth", "8", "--epochs", "3", "--batch", "32", "--lr", "0.05")
        self.assertIn("epoch 3: loss", text)
        self.assertGreater(self.accuracy(text), 40)

    def test_language_model(self):
        text = self.run_one("language_model.py", "--text", "synthetic", "--gradients", "120", "--width", "32", "--layers", "1")
        self.assertLess(float(re.search(r"^([0-9.]+) nats a character", text, re.M).group(1)), 2.5) # ln 27 is 3.3, ln 2 the best

    def test_local_steps(self):
        for steps in "16", "adaptive":
            text = self.run_one("local_steps.py", "--data", "synthetic", "--epochs", "3", "--steps", steps)
            self.assertGreater(self.accuracy(text), 80)

    def test_imagenet_resnet50(self):
        try:
            from PIL import Image
        except ImportError:
            self.skipTest("python3-pil is not installed")
        folder = tempfile.mkdtemp(prefix="gapless-pictures-")
        try:
            for part in "train", "val":
                for name, colour in ("n01", (200, 30, 30)), ("n02", (30, 30, 200)):
                    os.makedirs(os.path.join(folder, part, name))
                    for i in range(2):
                        Image.new("RGB", (70 + 10 * i, 60), colour).save(os.path.join(folder, part, name, f"{i}.JPEG"))
            text = self.run_one("imagenet_resnet50.py", folder, "--epochs", "1", "--batch", "2", "--size", "64")
            self.accuracy(text)
        finally:
            shutil.rmtree(folder)

    def test_lengths(self):
        for path in glob.glob(os.path.join(EXAMPLES, "*.py")):
            with open(path, encoding="utf-8") as file:
                lines = len(file.readlines())
            if os.path.basename(path) not in SHARED:
                self.assertLess(lines, LINES_MAX, path)

    def test_lines_changed(self):
        """From mnist_plain.py to mnist.py: an import, and CHANGED_MAX lines of the loop; indentation apart."""
        code = []
        for name in "mnist_plain.py", "mnist.py":
            with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
                text = file.read().split('"""', 2)[2] # without what it says of itself
            code.append([line.strip() for line in text.splitlines()])
        new = [line[2:] for line in difflib.ndiff(*code) if line.startswith("+ ")]
        self.assertIn("import gapless", new)
        new.remove("import gapless")
        self.assertTrue(0 < len(new) <= CHANGED_MAX, new)


bed.main()
