#!/usr/bin/env python3
"""Models of PyTorch as workloads of gapless simulate, those of bench/studies among them: ctest: plain"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import bed

bed.need_torch()
PROGRAM = os.path.abspath(os.path.join(bed.BUILD, "gapless"))
STUDIES = os.path.join(os.path.abspath(bed.SOURCE), "bench", "studies")

WORKLOAD = '''
import torch
import gapless.workload

class Bad(gapless.workload.Workload):
    batch, epoch = 4, 50
    def __init__(self, seed, how="no"):
        torch.manual_seed(seed)
        self.how = how
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3, momentum=None if how == "momentum" else 0.1))
        if how == "double":
            self.model.double()
    def loss(self, number):
        if self.how == "error":
            raise ValueError("no such sample")
        if self.how == "zero":
            self.model.zero_grad(set_to_none=True)
        return self.model(torch.randn(4, 4)).square().mean()
    def measure(self, part):
        return self.model(torch.ones(4, 4)).square().mean(), None, 1

gapless.workload.serve(Bad)
'''


class Workloads(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="gapless-workloads-")

    def tearDown(self):
        self.folder.cleanup()

    def simulate(self, workload, out, *more):
        done = subprocess.run([PROGRAM, "simulate", "--workload", workload, "--out", os.path.join(self.folder.name, out),
                               "--evaluate-every", "0", "--warmup", "0", "--quiet", *more],
                              env=dict(os.environ, PYTHON=sys.executable), capture_output=True, text=True, timeout=280,
                              check=False)
        return done

    def read(self, out, name):
        with open(os.path.join(self.folder.name, out, name), "rb") as file:
            return file.read()

    def same_by_threads(self, workload, *more):
        for threads in "1", "2":
            done = self.simulate(workload, threads, "--threads", threads, *more)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.read("1", "model.safetensors"), self.read("2", "model.safetensors"))
        return json.loads(self.read("1", "result.json"))

    def test_resnet(self):
        result = self.same_by_threads(os.path.join(STUDIES, "resnet.py") + " batch=16 data=synthetic", "--workers", "4", "--rule",
                                      "dana-ga", "--lr", "0.05", "--epochs", "0.25")
        self.assertEqual(result["parameters"], 75290 + 2 * (3 * 16 + 2 * 32 + 2 * 64)) # running means and variances
        self.assertGreater(result["final_accuracy"], 0.05)
        header = self.read("1", "model.safetensors")
        self.assertIn(b"stem.1.running_mean", header)

    def test_language(self):
        result = self.same_by_threads(os.path.join(STUDIES, "language.py") + " width=32 layers=1 data=synthetic", "--workers", "4",
                                      "--rule", "dana-lga-adamw", "--lr", "0.003", "--epochs", "2")
        self.assertIsNone(result["final_accuracy"])
        self.assertLess(result["final_loss"], 3.29) # ln 27: it has learnt something

    def test_failures(self):
        path = os.path.join(self.folder.name, "bad.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(WORKLOAD)
        done = self.simulate(path, "good", "--rule", "asgd", "--epochs", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        for how, says in (("error", "ValueError: no such sample"), ("zero", "do not call zero_grad"),
                          ("momentum", "momentum"), ("double", "float64"), ("x y", "NAME=VALUE")):
            done = self.simulate(f"{path} how={how}", "bad", "--rule", "asgd", "--epochs", "1")
            self.assertEqual(done.returncode in (1, 2), True, (how, done))
            self.assertIn(says, done.stderr)

    def test_alone(self):
        """Without the simulator it says how it is used."""
        done = subprocess.run([sys.executable, os.path.join(STUDIES, "resnet.py")], capture_output=True, text=True, timeout=100,
                              check=False, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 1)
        self.assertIn("gapless simulate --workload", done.stderr)


bed.main()
