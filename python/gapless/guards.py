"""What a module must be like, and what must not happen to it while a worker has it.

Every check raises :class:`gapless.errors.ModelError` with the parameter's name, what is wrong, and what to do.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Tuple

from .errors import ModelError, StepError

_WRAPPERS = {
    "DistributedDataParallel": "it averages gradients over all processes at every step, for which all wait; Gapless takes "
                               "its place: give the module inside, model.module",
    "FullyShardedDataParallel": "it keeps a piece of every parameter in each process; a worker of Gapless needs whole "
                                "parameters: give the module before FSDP wraps it",
    "FSDPModule": "it keeps a piece of every parameter in each process; a worker of Gapless needs whole parameters: do "
                  "not call fully_shard on it",
    "DataParallel": "it copies the module to several GPUs at every step; start a worker for each GPU in place of it, and "
                    "give the module inside, model.module",
}


def unwrapped(model: Any) -> Any:
    """The module inside a torch.compile wrapper, else the same one; refuses wrappers that keep gradients to themselves."""
    while hasattr(model, "_orig_mod"):
        model = model._orig_mod
    for kind in type(model).__mro__:
        if kind.__name__ in _WRAPPERS:
            raise ModelError(f"the model is a {kind.__name__}: {_WRAPPERS[kind.__name__]}")
    return model


def plain_name(name: str) -> str:
    """The name in state_dict without what torch.compile puts into it, of modules inside, too."""
    return name.replace("_orig_mod.", "")


def shaped(name: str, p: Any) -> None:
    """Refuses a parameter of a lazy module that has seen no batch yet."""
    import torch

    if isinstance(p, torch.nn.parameter.UninitializedParameter):
        raise ModelError(f"parameter '{name}' has no shape yet: run one batch through the model before Worker")


def parameter(name: str, p: Any) -> None:
    """Refuses a parameter that cannot be part of a flat vector of 32-bit floats."""
    import torch

    if getattr(p, "device_mesh", None) is not None:
        raise ModelError(f"parameter '{name}' is a DTensor, a piece of it is here: a worker needs whole parameters")
    if p.dtype != torch.float32:
        raise ModelError(f"parameter '{name}' is of {p.dtype}: parameters are 32-bit floats here, so call model.float() "
                         "before Worker; for mixed precision, compute under torch.autocast")
    if p.layout != torch.strided:
        raise ModelError(f"parameter '{name}' has the layout {p.layout}: dense parameters are needed")
    if not p.is_contiguous():
        raise ModelError(f"parameter '{name}' is not contiguous, strides {tuple(p.stride())}: give it contiguous memory "
                         "before Worker (p.data = p.data.contiguous()); inputs may be channels_last, parameters not")


def modules(model: Any) -> None:
    """Refuses modules whose gradients or statistics a worker cannot hand in."""
    for name, module in model.named_modules():
        if getattr(module, "sparse", False) is True:
            raise ModelError(f"module '{name}' makes sparse gradients: they would be sent as dense ones anyway, so build it "
                             "with sparse=False")


def batch_norms(model: Any) -> Iterator[Tuple[str, Any, float]]:
    """The modules with running statistics: name, module, momentum."""
    import torch

    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.modules.batchnorm._NormBase) or getattr(module, "running_mean", None) is None:
            continue
        if module.momentum is None:
            raise ModelError(f"module '{name}' has momentum=None, a mean over all batches since the start: workers that come "
                             "and go have no such mean; give it a momentum, for example 0.1")
        yield name, module, float(module.momentum)


def finite(name: str, tensor: Any) -> None:
    """Refuses initial parameters that are infinite or no numbers."""
    import torch

    if not bool(torch.isfinite(tensor).all()):
        raise ModelError(f"parameter '{name}' has values that are infinite or no numbers (NaN): nothing can be trained from "
                         "there")


def unscaled() -> None:
    """Refuses gradients that a GradScaler of this process has scaled, and that nobody has divided by the scale: one whose scale()
    was called, and no more. Goes through all objects of Python (some 10 ms): before the first gradient is handed in."""
    import gc

    import torch

    kinds = tuple(kind for kind in (getattr(torch.cuda.amp, "GradScaler", None),
                                    getattr(getattr(torch, "amp", None), "GradScaler", None)) if kind is not None)
    for scaler in (found for found in gc.get_objects() if issubclass(type(found), kinds)):
        used = getattr(scaler, "_scale", None) is not None and scaler.is_enabled()
        if not used or getattr(scaler, "_per_optimizer_states", None):
            continue
        begun = float(scaler._scale) == float(scaler._init_scale)
        if begun and float(getattr(scaler, "_growth_tracker", None) or 0) == 0: # update() was never called
            raise StepError(f"the loss was scaled by a GradScaler, and its gradients, {float(scaler._scale):g} times too large, were not "
                            "unscaled: call scaler.unscale_(worker.optimizer) after backward(), then worker.step(loss), and no "
                            "scaler.step(); or compute under torch.autocast with bfloat16, which needs no scaler")


class Watch:
    """Checks that parameters and gradients are still where the engine reads and writes them.

    ``parameters`` are (name, parameter, flat view of the value, flat view of the gradient); gradients of None are not
    watched (local steps). :meth:`look` costs about 0.3 us a parameter.
    """

    def __init__(self, model: Any, parameters: List[Tuple[str, Any, Any]], frozen: List[Tuple[str, Any]]) -> None:
        self.model = model
        self.rows = [(p, grad, p.data_ptr(), name) for name, p, grad in parameters]
        self.frozen = frozen
        every = [p for _, p, _ in parameters] + [p for _, p in frozen] + (list(model.parameters()) if model is not None else [])
        self.known = {id(p): p for p in every} # the parameters, too: an id is of one object while it lives
        # An in-place operation on an empty view counts as one on the parameter, and moves nothing.
        self.counters = [p.detach().flatten()[:0] for _, p, _ in parameters]
        self.versions: List[int] = []

    def renewed(self) -> None:
        """The engine has written new values: a graph made before must not be used again, as after optimizer.step()."""
        for counter in self.counters:
            counter.zero_()
        self.versions = [row[0]._version for row in self.rows]

    def look(self) -> None:
        """Raises if anything has left its place since renewed()."""
        for (p, grad, pointer, _), version in zip(self.rows, self.versions):
            if (grad is not None and p.grad is not grad) or p._version != version or p.data_ptr() != pointer:
                self._explain()

    def _explain(self) -> None:
        for (p, grad, pointer, name), version in zip(self.rows, self.versions):
            if p.data_ptr() != pointer:
                raise ModelError(f"parameter '{name}' has left the engine's buffer (now {p.dtype} on {p.device}): .double(), "
                                 ".half(), .to() and 'p.data = ...' do that. Do them before Worker")
            if grad is not None and p.grad is None:
                raise ModelError(f"the gradient of '{name}' is gone: zero_grad(set_to_none=True), torch's default since 2.0, "
                                 "did that. Leave zero_grad out, worker.step() has done it")
            if grad is not None and p.grad is not grad:
                if p.grad.is_sparse:
                    raise ModelError(f"the gradient of '{name}' is sparse: build its module with sparse=False")
                raise ModelError(f"the gradient of '{name}' is no longer in the engine's buffer: zero_grad(set_to_none=True) or "
                                 "'p.grad = ...' did that. Leave zero_grad out, and change gradients in place")
            if p._version != version:
                raise ModelError(f"parameter '{name}' was changed in place between two steps: by an optimizer's step(), "
                                 "load_state_dict() or an operation of your own. Parameters are the master's: load before "
                                 "Worker, and leave optimizer.step() out")

    def sweep(self) -> None:
        """Finds parameters that were added, or are trained now and were not: not at every step, as it walks the model."""
        for name, p in self.frozen:
            if p.requires_grad:
                raise ModelError(f"parameter '{name}' was frozen when Worker was made, and is not now: the master has no place "
                                 "for it. Unfreeze before Worker; to freeze for a while, multiply its gradient by 0")
        if self.model is None:
            return
        for name, p in self.model.named_parameters():
            if id(p) not in self.known:
                raise ModelError(f"parameter '{name}' was added to the model, or replaced, after Worker was made: the master "
                                 "has no place for it. Build the whole model before Worker")
