"""A workload: a small decoder-only transformer that predicts the next word, or character, of the
Brown corpus (gapless-fetch-data brown).

    gapless simulate --workload "bench/studies/language.py" --rule dana-lga-adamw --workers 8

Words: vocabulary (0: characters), length (64), width (112), layers (3), batch (16), data (a folder;
synthetic: small, made here). An epoch is as many batches as pass over the text once.
"""
import os
import sys

import torch
from torch.nn import functional as F

import gapless.workload

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/python"))
import datasets  # noqa: E402
import networks  # noqa: E402

PARTS, MEASURED = 8, 32  # parts of 32 sequences each


class Language(gapless.workload.Workload):
    parts = PARTS

    def __init__(self, seed, vocabulary=0, length=64, width=112, layers=3, batch=16, data=""):
        self.text, self.valid, words = datasets.tokens(data, words=vocabulary > 0, vocabulary=vocabulary or 10000)
        torch.manual_seed(seed)
        self.model = networks.Transformer(words, length, width, layers)
        self.batch, self.length, self.words, self.seed = batch, length, words, seed
        self.epoch = len(self.text) // (batch * length)

    def predict(self, text, starts):
        at = starts[:, None] + torch.arange(self.length)
        return F.cross_entropy(self.model(text[at]).reshape(-1, self.words), text[at + 1].reshape(-1))

    def loss(self, number):  # torch's random numbers are those of seed and number
        return self.predict(self.text, torch.randint(len(self.text) - self.length - 1, (self.batch,)))

    def measure(self, part):
        every = (len(self.valid) - self.length - 1) // (PARTS * MEASURED)
        starts = (torch.arange(MEASURED) + part * MEASURED) * every
        return self.predict(self.valid, starts).item(), None, MEASURED


gapless.workload.serve(Language)
