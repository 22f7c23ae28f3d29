"""Metrics where people look: callbacks for ``gapless.Worker(..., on_step=...)``.

>>> from torch.utils.tensorboard import SummaryWriter
>>> gapless.Worker(model, on_step=gapless.metrics.tensorboard(SummaryWriter()))

Each shows, at one step in ``every``: the worker's loss, and of the run the loss, rate, lag, gap, gate, throughput and
number of workers, with the worker's own lag and gap. The x axis is the batch number, which all workers count together.
"""

from __future__ import annotations

import importlib
from typing import Any, Callable, Dict

Callback = Callable[[Any], None]


def _every(every: int, show: Callable[[Dict[str, float], int], None], prefix: str = "") -> Callback:
    def on_step(step: Any) -> None:
        if step.number % every == 0 or not step.running:
            show({prefix + name: value for name, value in step.metrics().items()}, step.batch)

    return on_step


def tensorboard(writer: Any, every: int = 50) -> Callback:
    """``writer``: a SummaryWriter, or anything with add_scalar(name, value, step)."""

    def show(values: Dict[str, float], at: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, at)

    return _every(every, show, "gapless/")


def wandb(run: Any = None, every: int = 50) -> Callback:
    """Weights & Biases. ``run``: what wandb.init() returned; None: the present one."""
    target = run if run is not None else importlib.import_module("wandb")
    return _every(every, lambda values, at: target.log(values, step=at), "gapless/")


def mlflow(module: Any = None, every: int = 50) -> Callback:
    """MLflow, into the active run. ``module``: mlflow, or anything with log_metrics(values, step=)."""
    target = module if module is not None else importlib.import_module("mlflow")
    return _every(every, lambda values, at: target.log_metrics(values, step=at), "gapless.")


def accelerate(accelerator: Any, every: int = 50) -> Callback:
    """The trackers of a Hugging Face Accelerator."""
    return _every(every, lambda values, at: accelerator.log(values, step=at), "gapless/")


def trainer_callback(worker: Any) -> Any:
    """For Hugging Face's Trainer: ``Trainer(..., optimizers=(worker.optimizer, scheduler), callbacks=[trainer_callback(worker)])``.
    Adds the run's metrics to each log, and ends training where the run has ended."""
    base = importlib.import_module("transformers").TrainerCallback

    class GaplessCallback(base): # type: ignore[misc, valid-type]
        """Metrics of the run in the Trainer's logs."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            """Before the logs are shown."""
            if logs is not None and worker.running:
                logs.update({"gapless_" + name: value for name, value in worker.metrics().items()})

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
            """After each step."""
            if not worker.running:
                control.should_training_stop = True
            return control

    return GaplessCallback()


def several(*callbacks: Callback) -> Callback:
    """Calls each of them in turn."""

    def on_step(step: Any) -> None:
        for callback in callbacks:
            callback(step)

    return on_step
