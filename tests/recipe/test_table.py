#!/usr/bin/env python3
"""The table of rules for people (docs/rules.md, or README.md where there is none) has every rule of `gapless rules`, with
its vectors and its bytes, and no other. Run as: test_table.py SOURCE BUILD"""
import json
import os
import re
import subprocess
import sys

source, build = sys.argv[1], sys.argv[2]
program = os.environ.get("GAPLESS_PROGRAM", os.path.join(build, "gapless"))


def cells_of(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table_of(path):
    """Rows of the table whose head has the columns below: (line, names, vectors, bytes)."""
    head, rows = None, []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.startswith("|"):
                head = None
                continue
            cells = cells_of(line)
            if cells[0] == "rule" and any(cell.startswith("vectors") for cell in cells):
                head = {"vectors": next(i for i, cell in enumerate(cells) if cell.startswith("vectors")),
                        "bytes": next(i for i, cell in enumerate(cells) if cell.startswith("bytes"))}
            elif head and not set(line) <= set("|-: \n"):
                rows.append((number, re.findall(r"`([^`]+)`", cells[0]), re.findall(r"(\d+) \+ (\d+)", cells[head["vectors"]]),
                             re.findall(r"\d+", cells[head["bytes"]])))
    return rows


def each(values, count):
    """One value for each of several rules in a row, or one for all."""
    return values * count if len(values) == 1 else values


def faults_of(path, rules):
    name, seen = os.path.relpath(path, source), set()
    rows = table_of(path)
    if not rows:
        yield f"{name}: no table with the columns rule, vectors, bytes"
    for line, names, vectors, sizes in rows:
        vectors, sizes = each(vectors, len(names)), each(sizes, len(names))
        if len(vectors) != len(names) or len(sizes) != len(names):
            yield f"{name}:{line}: {len(names)} rules, {len(vectors)} pairs of vectors, {len(sizes)} numbers of bytes"
            continue
        for rule, pair, size in zip(names, vectors, sizes):
            if rule not in rules:
                yield f"{name}:{line}: `gapless rules` has no {rule}"
                continue
            if rule in seen:
                yield f"{name}:{line}: {rule} once more"
            seen.add(rule)
            row = rules[rule]
            want = (row["vectors_shared"], row["vectors_per_worker"], row["bytes_per_parameter"])
            if (int(pair[0]), int(pair[1]), int(size)) != want:
                yield f"{name}:{line}: {rule} has {pair[0]} + {pair[1]} vectors and {size} bytes here, " \
                      f"{want[0]} + {want[1]} and {want[2]} in the program"
    for rule, row in rules.items():
        if rule not in seen and rows:
            yield (f"{name}: add a row: | `{rule}` | ... | {row['vectors_shared']} + {row['vectors_per_worker']} | "
                   f"{row['bytes_per_parameter']} | {row['source']} |")


def main():
    shown = subprocess.run([program, "rules", "--json"], capture_output=True, text=True, check=True, timeout=30)
    rules = {row["name"]: row for row in json.loads(shown.stdout)}
    path = os.path.join(source, "docs/rules.md")
    if not os.path.exists(path):
        path = os.path.join(source, "README.md")
    faults = list(faults_of(path, rules))
    for fault in faults:
        print(fault)
    print(f"{len(rules)} rules, {len(faults)} faults in {os.path.relpath(path, source)}")
    return 1 if faults else 0


sys.exit(main())
