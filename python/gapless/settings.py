"""Settings of a run: what :class:`gapless.Worker`, :class:`gapless.Master` and :func:`gapless.simulate` take by name.

==================  =====================================================================================
``rule``            how a gradient becomes an update; ``gapless rules`` lists them (a worker: ``optimizer``)
``lr``              peak learning rate
``momentum``        0 <= m < 1; Adam's beta1; unset: 0.9
``warmup``          gradients over which the rate rises; unset: none
``steps``           milestones: pairs of gradients consumed, and a factor of the rate from there on
``cosine``          True, or the share of the rate that is left at the end; needs ``gradients``
``gradients``       length of the run, over all workers; unset: until stopped
``kappa``, ``gate``  of the lga rules: see docs/rules.md; the gate is "tensor" or "whole"
``beta2``, ``epsilon``, ``decay``, ``decay_all``  of the Adam rules; ``decay`` is AdamW's
``rest_scale``, ``matrix_threads``  of the Muon rules
``lambda_``         of delay compensation
``horizon``         lwp, la-adamw: updates to look ahead
``gap_ref``         "sent" or "own_lookahead"
``clip_norm``       gradients are scaled down to this norm
``weight_decay``    added to the gradient: times the parameters; not with Adam
``drop_lag``        a gradient that comes this many updates late is dropped
``ssgd_scale_rate``, ``elastic``, ``period``  of ssgd; of easgd and eamsgd
``local_steps``, ``adapt_steps``  batches that a worker takes by an optimizer of its own
``workers``         how many are expected, for the warm-up; ``workers_max``: room; ``workers_wait``: hold until
``observers_max``, ``range_elements``, ``block_elements``, ``gap_every``, ``worker_timeout`` (seconds), ``device``
==================  =====================================================================================

Each is described in ``gapless.h`` under struct gapless_master_config, and by ``gapless master --help``. None means unset.
"""

from __future__ import annotations

import json
import math
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from . import _library as lib
from .errors import BadArgument

_GATES = {"auto": 0, "tensor": 1, "whole": 2}
_GAP_REFS = {"sent": 0, "own_lookahead": 1}

# name: (field of struct gapless_master_config, kind, option of `gapless master`)
_FIELDS: Dict[str, Tuple[str, str, str]] = {
    "rule": ("rule", "text", "rule"),
    "momentum": ("momentum", "signed", "momentum"),
    "kappa": ("kappa", "number", "kappa"),
    "gate": ("gate", "gate", "gate"),
    "beta2": ("beta2", "number", "beta2"),
    "epsilon": ("epsilon", "number", "epsilon"),
    "decay": ("decay", "signed", "decay"),
    "decay_all": ("decay_all", "flag", "decay-all"),
    "rest_scale": ("rest_scale", "number", "rest-scale"),
    "matrix_threads": ("matrix_threads", "count", "matrix-threads"),
    "lambda_": ("lambda_", "number", "lambda"),
    "horizon": ("horizon", "signed", "horizon"),
    "gap_ref": ("gap_ref", "gap_ref", "gap-ref"),
    "clip_norm": ("clip_norm", "number", "clip-norm"),
    "weight_decay": ("weight_decay", "number", "weight-decay"),
    "drop_lag": ("drop_lag", "count", "drop-lag"),
    "ssgd_scale_rate": ("ssgd_scale_rate", "flag", "ssgd-scale-rate"),
    "elastic": ("elastic", "number", "elastic"),
    "period": ("elastic_period", "count", "period"),
    "local_steps": ("local_steps", "count", "local-steps"),
    "adapt_steps": ("adapt_steps", "flag", "adapt-steps"),
    "gradients": ("gradients", "count", ""),
    "workers": ("workers_expected", "count", ""),
    "workers_max": ("workers_max", "count", "workers-max"),
    "workers_wait": ("workers_wait", "count", "workers-wait"),
    "observers_max": ("observers_max", "count", "observers-max"),
    "range_elements": ("range_elements", "count", "range-elements"),
    "block_elements": ("block_elements", "count", "block-elements"),
    "gap_every": ("gap_every", "count", "gap-every"),
    "worker_timeout": ("worker_timeout_ns", "seconds", "worker-timeout"),
    "device": ("device", "text", "device"),
}
_SCHEDULE = ("lr", "warmup", "steps", "cosine")
NAMES = tuple(_FIELDS) + _SCHEDULE


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadArgument(f"{name}={value!r} is no number") from None
    if not math.isfinite(number) or number < 0:
        raise BadArgument(f"{name}={value!r}: a finite number of at least 0 is needed")
    return number


def _count(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != int(number) or number >= 2 ** 63:
        raise BadArgument(f"{name}={value!r} is no whole number")
    return int(number)


def _choice(name: str, value: Any, among: Mapping[str, int]) -> int:
    if value not in among:
        raise BadArgument(f"{name}={value!r}: one of {', '.join(among)} is needed")
    return among[value]


class Settings:
    """Settings of a run, checked. ``given`` has those that are set, by their names here."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        unknown = sorted(set(given) - set(NAMES))
        if unknown:
            raise BadArgument(f"there is no setting {unknown[0]!r}; settings are: {', '.join(sorted(NAMES))}")
        self.given = {name: value for name, value in given.items() if value is not None}
        self._check()

    def _check(self) -> None:
        for name, value in self.given.items():
            if name in _FIELDS:
                self._convert(name, value)
        self._milestones()
        if "lr" in self.given and not _number("lr", self.given["lr"]) > 0:
            raise BadArgument("lr must be above 0")
        _count("warmup", self.given.get("warmup", 0))
        if self.given.get("cosine") not in (None, False):
            self._cosine_to()
            if not self.given.get("gradients"):
                raise BadArgument("cosine needs the length of the run: gradients=EPOCHS * len(loader)")

    def _convert(self, name: str, value: Any) -> Any:
        kind = _FIELDS[name][1]
        if kind == "text":
            return str(value).encode()
        if kind == "flag":
            return bool(value)
        if kind == "count":
            return _count(name, value)
        if kind == "seconds":
            return lib.nanoseconds(_number(name, value))
        if kind == "gate":
            return _choice(name, value, _GATES)
        if kind == "gap_ref":
            return _choice(name, value, _GAP_REFS)
        number = _number(name, value)
        return -1.0 if kind == "signed" and number == 0 else number  # the library's 0 is its default

    def _milestones(self) -> List[Tuple[int, float]]:
        steps: Sequence[Any] = self.given.get("steps") or ()
        try:
            pairs = [(_count("steps", at), _number("steps", factor)) for at, factor in steps]
        except (TypeError, ValueError):
            raise BadArgument(f"steps={steps!r}: pairs of gradients and a factor are needed, as in [(30000, 0.1)]") from None
        if len(pairs) > lib.STEPS_MAX:
            raise BadArgument(f"steps: {len(pairs)} milestones, {lib.STEPS_MAX} are possible")
        return pairs

    def _cosine_to(self) -> Optional[float]:
        cosine = self.given.get("cosine")
        if cosine is None or cosine is False:
            return None
        to = 0.0 if cosine is True else _number("cosine", cosine)
        if to > 1:
            raise BadArgument(f"cosine={cosine!r}: a share of the rate is needed, from 0 to 1")
        return to

    def fill(self, config: lib.MasterConfig) -> None:
        """Writes them into a configuration; the texts stay alive with it."""
        for name, value in self.given.items():
            if name in _FIELDS:
                setattr(config, _FIELDS[name][0], self._convert(name, value))
        schedule = config.schedule
        schedule.rate = _number("lr", self.given.get("lr", 0))
        schedule.warmup = _count("warmup", self.given.get("warmup", 0))
        for i, (at, factor) in enumerate(self._milestones()):
            schedule.steps[i].at, schedule.steps[i].factor = at, factor
            schedule.steps_count = i + 1
        to = self._cosine_to()
        schedule.cosine, schedule.cosine_to = to is not None, to or 0.0

    def options(self) -> Dict[str, str]:
        """The same as options of ``gapless master``, by name without dashes in front."""
        found: Dict[str, str] = {}
        for name, value in self.given.items():
            option = _FIELDS[name][2] if name in _FIELDS else ""
            if not option or (_FIELDS[name][1] == "flag" and not value):
                continue
            found[option] = "yes" if _FIELDS[name][1] == "flag" else _plain(value)
        if "lr" in self.given:
            found["lr"] = _plain(self.given["lr"])
        found["warmup"] = f"{_count('warmup', self.given.get('warmup', 0))}updates"
        pairs = self._milestones()
        found["steps"] = ",".join(f"{at}updates:{_plain(factor)}" for at, factor in pairs) or "none"
        to = self._cosine_to()
        if to is not None:
            found["schedule"] = f"cosine:{_plain(to)}"
        return found


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value) == int(value) else repr(float(value))


def job_text(seed: int, job: Optional[str]) -> str:
    """What the master hands to every worker: the seed of the batches' order, and the user's own text."""
    text = json.dumps({"seed": seed, "job": job or ""})
    if len(text.encode()) >= lib.JOB_MAX:
        raise BadArgument(f"job: {len(text.encode())} bytes, {lib.JOB_MAX - 1} are possible")
    return text


def job_read(text: str) -> Tuple[Optional[int], str]:
    """The seed, or None if this text is not job_text's, and the user's own text."""
    try:
        found = json.loads(text)
        return int(found["seed"]), str(found["job"])
    except (ValueError, KeyError, TypeError):
        return None, text


def rule(name: str) -> lib.Rule:
    """A row of the table of rules; NotThere, with the names, if there is none of this name."""
    error, found = lib.Error(), lib.Rule()
    lib.check(lib.load().rule_find(name.encode(), found, error), error)
    return found
