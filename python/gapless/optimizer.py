"""A worker as torch sees an optimizer: for learning rate schedulers, and for trainers that call ``optimizer.step()``."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

import torch

from .errors import NotSupported, StepError


class WorkerOptimizer(torch.optim.Optimizer):
    """``worker.optimizer``. Its groups' ``lr`` may be changed, by a scheduler or by hand: the factor by which all of them
    differ from where they began goes to the master with each gradient, and multiplies the master's own rate.

    ``step()`` is ``worker.step()`` without a loss. It takes gradients that are not in the engine's buffer any more, as a
    trainer's ``model.zero_grad()`` leaves them, at the cost of a copy.
    """

    # Has GradScaler come to step() even where it found infinities, so that it can be refused in words.
    _step_supports_amp_scaling = True

    def __init__(self, worker: Any, groups: List[Dict[str, Any]]) -> None:
        self._worker: Any = None
        super().__init__(groups, {"lr": groups[0]["lr"]})
        self._worker = worker
        self._first = [float(group["lr"]) for group in self.param_groups]
        self._factor = 1.0

    def factor(self) -> float:
        """By how much the groups' rates differ from the first ones. StepError: not all by the same."""
        factors = [float(group["lr"]) / first for group, first in zip(self.param_groups, self._first)]
        if max(factors) - min(factors) > 1e-6 * max(max(factors), 1e-30):
            raise StepError(f"the groups' rates were changed by different factors, {factors}: the master takes one factor for all; "
                            "give groups their own lr when the worker is made")
        return factors[0]

    def _apply(self) -> Optional[float]:
        """The factor, if it is another than before."""
        self._step_count = getattr(self, "_step_count", 0) + 1 # schedulers warn where no step was taken before theirs
        self._opt_called = True
        factor = self.factor()
        if factor == self._factor:
            return None
        self._factor = factor
        return factor

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], Any]] = None, *, grad_scaler: Any = None) -> Any: # type: ignore[override]
        """Hands in the gradient and takes new parameters; see :meth:`gapless.Worker.step`."""
        if grad_scaler is not None or getattr(self, "found_inf", None) is not None:
            raise NotSupported("a GradScaler: gradients go to the master unscaled. Compute under torch.autocast with bfloat16, "
                               "which needs none, or call scaler.unscale_(worker.optimizer) and then worker.step(loss)")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._worker._gather()
        self._worker.step(loss)
        return loss

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Sets gradients to zero in place; ``set_to_none`` makes no difference."""
        self._worker.zero_grad()

    def state_dict(self) -> Dict[str, Any]:
        """Only the rates: momenta and the like are the master's."""
        return {"state": {}, "param_groups": [{"lr": group["lr"]} for group in self.param_groups]}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Sets the rates."""
        for group, saved in zip(self.param_groups, state_dict["param_groups"]):
            group["lr"] = saved["lr"]
