"""Makes folders that look as if gapless study, simulate or train had written them: for tests of the report, and for
looking at it. Numbers are made up, but shaped like real ones.

    python3 make_study.py FOLDER [flagship|small|lr|gap|convergence|train]
"""
import bisect
import csv
import itertools
import json
import math
import os
import random
import sys

RULES = {  # how soon a rule suffers from lag, and what it reaches without
    "asgd": (300, 0.868), "nag-asgd": (9, 0.877), "hb-asgd": (8, 0.876), "multi-asgd": (90, 0.872),
    "lwp": (14, 0.876), "ssgd": (500, 0.874), "sa": (60, 0.872), "ga": (40, 0.875), "ga-global": (34, 0.874),
    "dc-asgd": (10, 0.876), "dc-asgd-a": (11, 0.876), "dana-zero": (40, 0.877), "dana-slim": (39, 0.877),
    "dana-sa": (160, 0.873), "dana-dc": (45, 0.877), "dana-dc-a": (47, 0.877), "dana-ga": (150, 0.877),
    "dana-ga-global": (120, 0.877), "dana-lga": (210, 0.878), "dana-shared": (42, 0.877),
    "shared-lga": (190, 0.877), "sa-plain": (260, 0.864), "ga-plain": (280, 0.866), "dc-plain": (310, 0.868)}
RESULTS = ("final_accuracy final_loss training_loss lag_mean lag_p99 gap_mean gap_p99 gate_mean updates gradients "
           "virtual_seconds time_to_target grad_norm_sq_min master_bytes worker_bytes real_seconds "
           "master_us_per_update status").split()
DEFAULTS = {"rule": "dana-ga", "workers": 8, "seed": 1, "data": "fashion-mnist", "model": "mlp:64", "batch": 32,
            "lr": 0.005, "momentum": 0.9, "epochs": 5, "clock": "homogeneous"}
LAG_EDGES = [0, 1, 2, 3, 4, 5, 6, 7] + [round(8 * 2 ** (i / 5)) for i in range(40)]
GAP_EDGES = [1e-7 * 2 ** (i / 3) for i in range(48)]


def text(value):
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.9g}"
    return str(value)


def rounded(value):
    """As a writer with nine figures would leave it."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(of) for key, of in value.items()}
    if isinstance(value, list):
        return [rounded(of) for of in value]
    return value


def bins(edges, values):
    counts = [0] * len(edges)
    for value in values:
        counts[max(0, bisect.bisect_right(edges, value) - 1)] += 1
    return counts


class Run:
    def __init__(self, options, lines=6):
        self.options = dict(DEFAULTS, **options)
        o = self.options
        self.random = random.Random(repr(sorted(o.items(), key=str)))
        self.results = {}
        n, rule = int(o["workers"]), str(o["rule"])
        limit, best = RULES.get(rule, (50, 0.87))
        self.toy = o["model"] in ("quadratic", "valley")
        lr = float(o["lr"]) / 0.005
        hurt = 1 / (1 + (n * lr / limit) ** 3)
        self.final = 0.1 + (best - 0.1) * hurt - 0.01 * abs(math.log(lr)) + self.random.gauss(0, 0.0015)
        self.final = max(0.1, min(0.99, self.final))
        self.gradients = round(60000 * float(o["epochs"]) / int(o["batch"]))
        self.updates = self.gradients // n if rule == "ssgd" else self.gradients
        self.batch_time = 0.032
        slow = 1.35 if rule == "ssgd" else 1.0
        self.seconds = self.gradients * self.batch_time / n * slow * self.random.uniform(0.995, 1.005)
        self.gap = 1e-5 * (n + 0.1) * lr * (1 + 3 * (rule in ("nag-asgd", "lwp", "hb-asgd", "dc-asgd")))
        self.gap *= 0.4 if "ga" in rule.split("-") or "lga" in rule else 1
        self.lag = 0 if rule == "ssgd" else n - 1
        self.lines = [self.line(k / (lines - 1)) for k in range(lines)]

    def line(self, at):
        curve = self.final * (1 - math.exp(-5 * at)) + 0.1 * math.exp(-5 * at)
        lag = self.lag * min(1, at * 20 + 0.05) if at > 0 else None
        gap = self.gap * (1.2 - at) * math.exp(self.random.gauss(0, 0.08)) if at > 0 else None
        norm = None
        if self.toy:
            norm = 3.0 / (1 + (self.gradients * at) ** (0.5 if self.options["rule"] == "asgd" else 0.8))
            norm *= math.exp(self.random.gauss(0, 0.05))
        return rounded({
            "elapsed": self.seconds * at, "seconds": self.seconds * at, "epoch": float(self.options["epochs"]) * at,
            "gradients": round(self.gradients * at), "updates": round(self.updates * at),
            "updates_per_second": self.updates / self.seconds, "rate": 0.005, "loss": 2.3 * (1 - curve) + 0.05,
            "gate": 1.0, "accuracy": None if self.toy else curve, "test_loss": 2.4 * (1 - curve) + 0.06,
            "lag": {"mean": lag, "p50": lag, "p99": lag, "max": lag},
            "gap_rms": {"mean": gap, "p50": gap, "p99": gap, "max": gap}, "dropped": 0,
            "workers": int(self.options["workers"]), "workers_lost": 0, "lag_mean": lag, "gap_rms_mean": gap,
            "grad_norm_sq": norm})

    def histograms(self):
        per, rows = 30, []
        for worker in range(int(self.options["workers"])):
            slow = 1 + 0.8 * (worker % 5 == 0) * (self.options["clock"] == "heterogeneous")
            rows.append({
                "worker": worker,
                "lag": bins(LAG_EDGES, [max(0, self.random.gauss(self.lag * slow, 0.3 * self.lag + 0.4))
                                        for _ in range(per)]),
                "gap": bins(GAP_EDGES, [self.gap * slow * math.exp(self.random.gauss(0, 0.5)) for _ in range(per)])})
        total = {key: [sum(row[key][b] for row in rows) for b in range(48)] for key in ("lag", "gap")}
        return {"lag_edges": LAG_EDGES, "gap_edges": GAP_EDGES, **total, "workers": rows}

    def result(self, mode="simulate"):
        if mode not in self.results:
            self.results[mode] = self.make_result(mode)
        return self.results[mode]

    def make_result(self, mode):
        o, last = self.options, self.lines[-1]
        ret = {
            "mode": mode, "final_accuracy": last["accuracy"], "final_loss": None if self.toy else last["test_loss"],
            "training_loss": last["loss"], "updates": self.updates,
            "updates_per_second": self.updates / self.seconds, "seconds": self.seconds,
            "lag": {"mean": float(self.lag), "p50": self.lag, "p99": 2.2 * self.lag, "max": 4.0 * self.lag},
            "gap_rms": {"mean": self.gap, "p50": self.gap, "p99": 3 * self.gap, "max": 5 * self.gap},
            "parameters_rms": 0.05, "gradients": self.gradients, "gradients_total": self.gradients, "dropped": 0,
            "partial": 0, "workers_lost": 0, "stopped": False, "failure": None, "rule": o["rule"],
            "workers": int(o["workers"]), "data": o["data"], "model": o["model"], "parameters": 50890,
            "batch": int(o["batch"]), "epochs": float(o["epochs"]), "lr": float(o["lr"]),
            "momentum": float(o["momentum"]), "weight_decay": 0.0, "clip_norm": 0.0, "gap_ref": "sent",
            "schedule": {"warmup": {"amount": 1.0, "unit": "epochs"}, "steps": [], "kind": "constant"},
            "seed": int(o["seed"]), "version": "0.2.0", "histograms": self.histograms(),
            "per_worker": [{"worker": w, "gradients": self.gradients // int(o["workers"]), "dropped": 0,
                            "lag_mean": float(self.lag), "gap_rms_mean": self.gap}
                           for w in range(int(o["workers"]))]}
        if mode == "simulate":
            norms = [line["grad_norm_sq"] for line in self.lines if line["grad_norm_sq"] is not None]
            ret.update({"clock": o["clock"], "virtual_seconds": self.seconds, "batch_time": self.batch_time,
                        "latency": 0.0, "bandwidth": 0.0, "pass_time": 0.0, "events": None, "gradients_by": "blas",
                        "kappa": 10.0, "lambda": None, "horizon": None, "block_elements": 16384, "elastic": None,
                        "period": None, "grad_norm_sq_min": min(norms, default=None),
                        "grad_norm_sq_last": norms[-1] if norms else None,
                        "bytes": {"master": 4 * 50890 * (3 + 3 * int(o["workers"])),
                                  "workers": 8 * 50890 * int(o["workers"]), "buffers": 4096}})
        else:
            ret["command"] = ["gapless", "train", "--workers", str(o["workers"]), "--rule", str(o["rule"])]
        return rounded(ret)

    def real(self):
        if "run" not in self.results:
            self.results["run"] = self.make_real()
        return self.results["run"]

    def make_real(self):
        n = int(self.options["workers"])
        us = 11 * (1 + 0.05 * n / 16) * self.random.uniform(0.97, 1.03)
        return rounded({
            "command": ["gapless", "simulate"] + [f"--{key}={text(value)}" for key, value in self.options.items()],
            "version": "0.2.0", "host": "testhost", "started": "2026-01-01T12:%02d:00Z" % (n % 60), "threads": 2,
            "real_seconds": 4.0 + 0.01 * n, "gradient_seconds": 3.1, "master_seconds": self.updates * us / 1e6,
            "evaluate_seconds": 0.3, "master_us_per_update": us, "peak_rss_bytes": 90000000})

    def write(self, folder, mode="simulate"):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "result.json"), "w", encoding="utf-8") as file:
            json.dump(self.result(mode), file, indent=2)
            file.write("\n")
        with open(os.path.join(folder, "metrics.jsonl"), "w", encoding="utf-8") as file:
            for line in self.lines:
                if mode == "train":
                    line = {key: value for key, value in line.items()
                            if key != "grad_norm_sq"}
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
        if mode == "simulate":
            with open(os.path.join(folder, "run.json"), "w", encoding="utf-8") as file:
                json.dump(self.real(), file, indent=2)

    def row(self, target):
        result, real = self.result(), self.real()
        met = [line["elapsed"] for line in self.lines if line["accuracy"] is not None and line["accuracy"] >= target]
        return {"final_accuracy": result["final_accuracy"], "final_loss": result["final_loss"],
                "training_loss": result["training_loss"], "lag_mean": result["lag"]["mean"],
                "lag_p99": result["lag"]["p99"], "gap_mean": result["gap_rms"]["mean"],
                "gap_p99": result["gap_rms"]["p99"],
                "gate_mean": (result.get("gate") or {}).get("mean"), "updates": result["updates"],
                "gradients": result["gradients"], "virtual_seconds": result["virtual_seconds"],
                "time_to_target": met[0] if met else None, "grad_norm_sq_min": result["grad_norm_sq_min"],
                "master_bytes": result["bytes"]["master"], "worker_bytes": result["bytes"]["workers"],
                "real_seconds": real["real_seconds"], "master_us_per_update": real["master_us_per_update"],
                "status": "done"}


def study(folder, grids, about, chart, title="A study", target=0.85, lines=6, spoil=None):
    """grids: {name: {option: [values]}}. spoil(cell, row, path): a test's chance to break something."""
    os.makedirs(os.path.join(folder, "cells"), exist_ok=True)
    options = list(DEFAULTS)
    for grid in grids.values():
        options += [name for name in grid if name not in options]
    rows = []
    for grid, lists in grids.items():
        for values in itertools.product(*lists.values()):
            chosen = dict(zip(lists, values))
            run = Run(chosen, lines)
            cell = "_".join([grid] * (grid != "") + [str(value).replace("/", "-") for value in values])
            path = os.path.join(folder, "cells", cell)
            run.write(path)
            row = {"cell": cell, "grid": grid, **{name: run.options.get(name) for name in options},
                   **run.row(target)}
            if spoil is not None:
                spoil(cell, row, path)
            rows.append({key: text(value) for key, value in row.items()})
    with open(os.path.join(folder, "study.csv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["cell", "grid"] + options + RESULTS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with open(os.path.join(folder, "study.ini"), "w", encoding="utf-8") as file:
        file.write(f"[study]\nname = made-up\ntitle = {title}\nabout = {about}\ntarget = {target}\n"
                   f"chart = {chart}\n\n[run]\nepochs = 5\n")
        for grid, lists in grids.items():
            file.write(f"\n[grid {grid}]\n" if grid else "\n[grid]\n")
            for name, values in lists.items():
                file.write(f"{name} = {' '.join(map(str, values))}\n")
    return rows


ABOUT = ("All rules under more and more workers, with the learning rate and the momentum that one worker likes best. "
         "What to expect: lag grows with the number of workers for all rules alike; momentum at the master turns lag "
         "into gap, and the accuracy of plain Nesterov falls off a cliff, while rules that tame the gap hold on.")


def make(folder, kind):
    if kind == "flagship":
        study(folder, {"": {"rule": list(RULES), "workers": [1, 2, 4, 8, 16, 32, 64, 128], "seed": [1, 2, 3]}},
              ABOUT, "accuracy-workers", "Accuracy over workers: every rule")
    elif kind == "small":
        study(folder, {"": {"rule": ["nag-asgd", "dana-ga", "dana-lga"], "workers": [1, 8, 64], "seed": [1, 2]}},
              ABOUT, "time-to-target", "Three rules", lines=20)
    elif kind == "lr":
        study(folder, {"": {"rule": ["nag-asgd", "dana-ga", "dana-lga", "ssgd"], "workers": [8, 32, 128],
                            "lr": [0.00125, 0.0025, 0.005, 0.01], "seed": [1, 2]}},
              "Retuned for each number of workers.", "accuracy-lr", "Learning rates")
    elif kind == "gap":
        study(folder, {"": {"rule": ["nag-asgd", "dana-zero", "dana-ga", "dana-lga", "asgd"], "workers": [8, 32],
                            "clock": ["homogeneous", "heterogeneous"]}},
              "Lag is the same for all rules, the gap is not.", "gap-course", "Lag and gap", lines=150)
    elif kind == "convergence":
        study(folder, {"": {"model": ["quadratic", "valley"], "rule": ["asgd", "dana-ga", "shared-lga"],
                            "epochs": [0.1, 0.3, 1, 3], "seed": [1, 2]}},
              "The rate of convergence.", "convergence", "Convergence", lines=40)
    elif kind == "train":
        Run({"rule": "dana-ga", "workers": 8}, 30).write(folder, "train")
    else:
        sys.exit(f"no such kind: {kind}")


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "small")
