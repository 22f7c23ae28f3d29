"""A model of PyTorch as a workload of ``gapless simulate`` and ``gapless study``.

The simulator has the real master, rules and workers, under a clock that is computed; what it
asks for is a gradient. A file that gives it one looks like this::

    import torch
    import gapless.workload

    class Digits(gapless.workload.Workload):
        def __init__(self, seed, width=64):
            torch.manual_seed(seed)
            self.model = torch.nn.Sequential(...)
            self.batch, self.epoch = 32, 1875          # samples in a batch, batches in an epoch

        def loss(self, number):                        # of training batch `number`, 0, 1, 2, ...
            x, y = ...
            return torch.nn.functional.cross_entropy(self.model(x), y)

        def measure(self, part):                       # of the test set
            return mean_loss, share_right, samples

    gapless.workload.serve(Digits)

and is run by ``gapless simulate --workload "digits.py width=128" --workers 64``. The process
that computes is one of several, each with a part of the batches; they know nothing of each
other. The contract underneath, for other languages, is in cluster/workloads/workload.h.

Running averages of BatchNorm are tensors of the model with an ``average``: the master keeps
them, and moves them by each batch as one worker would have.
"""
from __future__ import annotations

import json
import math
import mmap
import os
import socket
import struct
import sys
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import _layout as layouts

_SOCKET, _MEMORY = 3, 4  # descriptors that the simulator leaves open
_REQUEST = struct.Struct("=IIQ")
_ANSWER = struct.Struct("=IIddd")
_HELLO, _INITIAL, _GRADIENT, _MEASURE = 1, 2, 3, 4

__all__ = ["Workload", "serve"]


class Workload:
    """What a file defines: see the module's head.

    ``model``: a ``torch.nn.Module`` of 32-bit floats on the CPU. ``batch``: samples in a
    gradient. ``epoch``: gradients in a pass over the data. ``parts``: into how many parts the
    test set is divided; several processes measure one each, and the result does not depend on
    how many there are.
    """

    model: Any
    batch: int = 1
    epoch: int = 1
    parts: int = 1

    def loss(self, number: int) -> Any:
        """The mean loss (a tensor of no dimension) of training batch ``number``, in training
        mode. It must depend on the number, the seed and the parameters alone; torch's random
        numbers are seeded by the first two before it is called."""
        raise NotImplementedError

    def measure(self, part: int) -> Tuple[float, Optional[float], float]:
        """Of one part of the test set, in evaluation mode and without gradients: the mean
        loss, the share of samples that are right (None: there is no such thing), and the
        number of samples, or what else weighs it among the parts."""
        raise NotImplementedError

    def groups(self) -> Optional[List[Dict[str, Any]]]:
        """Parameter groups as torch.optim takes them, where tensors differ: ``lr`` is a factor on the run's rate,
        ``weight_decay`` this group's. None: all alike."""
        return None


def serve(make: Callable[..., Workload]) -> None:
    """Answers the simulator until it is done. ``make(seed, **words)`` makes the workload; words
    are what stands behind the file's name, ``depth=20``, as int or float where they are one.
    Without a simulator it says how the file is used, and exits with 2."""
    try:
        os.fstat(_SOCKET)
        channel = socket.socket(fileno=_SOCKET)
        size = os.fstat(_MEMORY).st_size
    except OSError:
        channel, size = None, -1
    if channel is None or size < 0:
        sys.exit("this is a workload: gapless simulate --workload '%s' --workers 8" % " ".join(sys.argv))
    _Server(channel, make, _words(sys.argv[1:])).run()


def _words(arguments: List[str]) -> Dict[str, Any]:
    words: Dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.isidentifier():
            sys.exit("workload: %r is not NAME=VALUE" % argument)
        words[key] = value
        for kind in int, float:
            try:
                words[key] = kind(value)
                break
            except ValueError:
                pass
    return words


class _Server:
    def __init__(self, channel: socket.socket, make: Callable[..., Workload], words: Dict[str, Any]):
        self.channel, self.make, self.words = channel, make, words
        self.workload: Any = None
        self.seed = 0
        self.bound = False

    def run(self) -> None:
        while True:
            request = self.channel.recv(_REQUEST.size, socket.MSG_WAITALL)
            if len(request) < _REQUEST.size:
                return  # the simulator is done
            try:
                loss, correct, weight, text = self.answer(*_REQUEST.unpack(request))
                failed = 0
            except Exception as error:  # pylint: disable=broad-except
                traceback.print_exc()
                loss = correct = weight = math.nan
                failed, text = 1, "%s: %s" % (type(error).__name__, error)
            said = text.encode()
            self.channel.sendall(_ANSWER.pack(failed, len(said), loss, correct, weight) + said)

    def answer(self, what: int, part: int, number: int) -> Tuple[float, float, float, str]:
        if what == _HELLO:
            return 0.0, 0.0, 0.0, self.hello(number)
        if not self.bound:
            self.bind()
        if what == _INITIAL:
            self.params.copy_(self.initial)
            return 0.0, 0.0, 0.0, ""
        if what == _GRADIENT:
            return self.gradient(number), 0.0, 0.0, ""
        if what == _MEASURE:
            return self.measure(part) + ("",)
        raise ValueError("the simulator asks for %d, which this version does not know" % what)

    def hello(self, seed: int) -> str:
        import torch  # late: a wrong word is found at once

        torch.set_num_threads(1)  # there is a process for each processor
        self.seed = seed
        self.workload = self.make(seed, **self.words)
        model = self.workload.model
        self.layout = layouts.of_module(self.workload.model, self.workload.groups(), lr=1.0)
        self.initial = torch.cat([entry.tensor.detach().reshape(-1).clone() for entry in self.layout.entries])
        if self.initial.device.type != "cpu":
            raise TypeError("the model is on %s; a workload's is on the CPU" % self.initial.device)
        return json.dumps({"tensors": self.layout.described(), "epoch": int(self.workload.epoch),
                           "batch": int(self.workload.batch), "parts": int(self.workload.parts)})

    def bind(self) -> None:
        """Parameters and gradients become views of the memory that both sides have."""
        import torch

        count = self.initial.numel()
        if os.fstat(_MEMORY).st_size != 8 * count:
            raise RuntimeError("the simulator has other memory than for %d parameters" % count)
        self.memory = mmap.mmap(_MEMORY, 8 * count)
        both = torch.frombuffer(self.memory, dtype=torch.float32)
        self.params, self.grad = both[:count], both[count:]
        entries = self.layout.entries
        views = list(zip(entries, layouts.views(self.params, entries), layouts.views(self.grad, entries)))
        self.averages = [(entry.tensor, value, grad) for entry, value, grad in views if entry.average > 0]
        self.weights = [(entry, grad) for entry, value, grad in views if entry.average == 0]
        for entry, value, grad in views:
            if entry.average == 0:
                entry.tensor.data, entry.tensor.grad = value, grad
        self.bound = True

    def load_averages(self) -> None:
        for buffer, value, _ in self.averages:
            buffer.copy_(value)

    def gradient(self, number: int) -> float:
        import torch

        self.workload.model.train()
        self.grad.zero_()
        self.load_averages()
        torch.manual_seed((self.seed * 1000003 + number) % (1 << 62))
        loss = self.workload.loss(number)
        loss.backward()
        for entry, grad in self.weights:  # of an unused one the zeros of above are left
            if entry.tensor.grad is None or entry.tensor.grad.data_ptr() != grad.data_ptr():
                raise RuntimeError("the gradient of %s has left its memory: do not call zero_grad" % entry.name)
        with torch.no_grad():
            for buffer, value, grad in self.averages:
                torch.sub(value, buffer, out=grad)
        return float(loss.detach())

    def measure(self, part: int) -> Tuple[float, float, float]:
        import torch

        self.workload.model.eval()
        self.load_averages()
        with torch.no_grad():
            loss, correct, weight = self.workload.measure(part)
        return float(loss), math.nan if correct is None else float(correct), float(weight)
