"""``Worker(..., overlap=True)``: a gradient goes to the master piece by piece, as backward is done with each parameter.

Backward goes from the last layer to the first. A range of the flat vector goes out once all parameters in it are done, but
for the first range, which goes with :meth:`gapless.Worker.step`; so the master works, and a network moves bytes, while the
rest is still computed. The bits of one worker are the same. It pays where a gradient takes long on its way, not over
shared memory: see docs/python.md.

It needs

- one ``backward()`` for a step (with ``accumulate=N`` the last of N, counted by :meth:`gapless.Worker.batches`), after which
  nobody changes gradients: clipping in place is found and refused;
- a rule that applies a gradient range by range: no synchronous one, no ``clip_norm``, no gate of the whole gradient;
- a model on the host. Parameters are copied at each pull, since the engine's change while backward still reads them.

A worker that leaves between backward and step leaves a gradient that is applied in part, and its batch is not dealt again.
"""

from __future__ import annotations

from typing import Any, Callable, List

from . import _layout as layouts
from . import _library as lib
from .errors import NotSupported, StepError

_SHARE, _LEAST, _MOST = 16, 1 << 14, 1 << 20


def range_elements(layout: layouts.Layout) -> int:
    """Elements of a range, such that there is something to overlap: a sixteenth of the model, from 16 Ki to 1 Mi."""
    return min(max(layout.count // _SHARE, _LEAST), _MOST)


def _when_done(p: Any, call: Callable[..., None]) -> List[Any]:
    """Has ``call`` called once in each backward, when all of the gradient of ``p`` is in ``p.grad``. Returns what must be kept."""
    if hasattr(p, "register_post_accumulate_grad_hook"): # torch 2.1
        return [p.register_post_accumulate_grad_hook(call)]
    import torch

    with torch.enable_grad():
        node = p.expand_as(p).grad_fn.next_functions[0][0] # adds to p.grad, after all uses of p have been summed
    return [node.register_hook(call), node]


class Overlap:
    """The hooks of a worker. ``begun``: something of the present gradient may be at the master."""

    def __init__(self, worker: Any) -> None:
        status = worker._lib.worker_push_range(worker._handle, 0, 0, worker._error_ref)
        if status < 0:
            error = worker._error.text.decode("utf-8", "replace")
            another = "" if "as a whole" not in error else (", or take a rule that is applied range by range (dana-ga; or "
                                                             "gate=\"tensor\" with an lga rule of Adam)")
            raise NotSupported(f"overlap=True: {error}; leave overlap out{another}")
        self._worker = worker
        self.begun = False
        self._version = 0
        self._kept: List[Any] = []
        self._done: List[bool] = []
        at = 0
        for i, (entry, row) in enumerate(zip(worker.layout.parameters, worker._watch.rows)):
            self._kept.append(_when_done(entry.tensor, self._hook(i, at, entry.count, row[0], row[1], entry.name)))
            self._done.append(False)
            at += entry.count

    def _hook(self, i: int, at: int, count: int, p: Any, grad: Any, name: str) -> Callable[..., None]:
        worker = self._worker
        push, handle, error = worker._lib.worker_push_range, worker._handle, worker._error_ref

        def done(*_: Any) -> None:
            more = worker.accumulate > 1 and worker._parts != worker.accumulate # batches to be added
            if more or worker._closed or not worker.running:
                return
            if self._done[i]:
                raise StepError(f"backward() reached parameter '{name}' a second time before worker.step(): with overlap=True its "
                                "gradient went to the master the first time. Sum the losses and call backward() once; to add up "
                                "several batches, say accumulate=N; or leave overlap out")
            if p.grad is not grad:
                if worker._facade is None:
                    worker._watch.look() # says what happened to it
                worker._gather()
            self._done[i] = self.begun = True
            self._version = grad._version
            status = push(handle, at, count, error)
            if status < 0:
                worker._fail(status)

        return done

    def renewed(self) -> None:
        """The next gradient begins."""
        self.begun = False
        self._done = [False] * len(self._done)

    def look(self) -> None:
        """StepError where a gradient was changed after backward."""
        if self.begun and self._worker._grad._version != self._version:
            raise StepError("gradients were changed after backward(), and with overlap=True they were at the master by then: clip "
                            "gradients by hand without overlap")

    def close(self) -> None:
        """Takes the hooks away."""
        for kept in self._kept:
            kept[0].remove()
        self._kept = []
