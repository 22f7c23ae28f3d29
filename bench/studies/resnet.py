"""A workload: a residual network with batch norm on CIFAR-10, with the usual augmentation.

    gapless simulate --workload "bench/studies/resnet.py depth=8 batch=128" --rule dana-ga --workers 32

Words: depth (8), widen (1), batch (128), data (a folder; synthetic: small, made here).
"""
import os
import sys

import torch
from torch.nn import functional as F

import gapless.workload

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/python"))
import datasets  # noqa: E402
import networks  # noqa: E402

PARTS = 10


class Resnet(gapless.workload.Workload):
    parts = PARTS

    def __init__(self, seed, depth=8, widen=1, batch=128, data=""):
        (self.x, self.y), (self.test_x, self.test_y) = datasets.cifar10(data)
        torch.manual_seed(seed)
        self.model = networks.ResNet(depth, widen)
        self.batch, self.epoch, self.seed = batch, len(self.x) // batch, seed
        self.order = (-1, None)

    def samples(self, number):
        """Of a batch: each epoch has another order."""
        epoch, at = divmod(number, self.epoch)
        if self.order[0] != epoch:
            shuffle = torch.Generator().manual_seed(self.seed * 1000 + epoch)
            self.order = (epoch, torch.randperm(len(self.x), generator=shuffle))
        return self.order[1][at * self.batch:(at + 1) * self.batch]

    def loss(self, number):
        rows = self.samples(number)
        x = datasets.shifted_and_flipped(self.x[rows]).contiguous(memory_format=torch.channels_last)  # a tenth faster
        return F.cross_entropy(self.model(x), self.y[rows])

    def measure(self, part):
        size = len(self.test_x) // PARTS
        x, y = [t[part * size:(part + 1) * size] for t in (self.test_x, self.test_y)]
        out = self.model(x)
        return F.cross_entropy(out, y).item(), (out.argmax(1) == y).float().mean().item(), size


gapless.workload.serve(Resnet)
