#!/usr/bin/env python3
"""The package's structures are the header's: ctest: plain

A C program prints the size of each structure and where each member is; a member more, less, moved or of another size is
found, and so is a constant of another value.
"""
import ctypes
import os
import re
import subprocess
import sys
import tempfile
import unittest

import bed
from gapless import _library as lib
from gapless import errors

HEADER = os.path.join(bed.SOURCE, "engine", "include", "gapless", "gapless.h")
CONSTANTS = {"GAPLESS_WORKERS_MAX": lib.WORKERS_MAX, "GAPLESS_STEPS_MAX": lib.STEPS_MAX, "GAPLESS_NAME_MAX": lib.NAME_MAX,
             "GAPLESS_JOB_MAX": lib.JOB_MAX, "GAPLESS_BINS": lib.BINS, "GAPLESS_NO_DECAY": lib.NO_DECAY,
             "GAPLESS_TENSOR_NOT_MATRIX": lib.TENSOR_NOT_MATRIX, "GAPLESS_OK": lib.OK, "GAPLESS_AGAIN": lib.AGAIN,
             "GAPLESS_TIMEOUT": lib.TIMEOUT, "GAPLESS_PEER_LOST": lib.PEER_LOST, "GAPLESS_MODEL": lib.MODEL,
             "GAPLESS_CAPACITY": lib.CAPACITY, "GAPLESS_NOT_FINITE": lib.NOT_FINITE, "GAPLESS_STOPPED": lib.STOPPED,
             "GAPLESS_MISSING": lib.MISSING, "GAPLESS_GATE_AUTO": 0, "GAPLESS_GATE_TENSOR": 1, "GAPLESS_GATE_WHOLE": 2,
             "GAPLESS_GAP_SENT": 0, "GAPLESS_GAP_OWN_LOOKAHEAD": 1, "GAPLESS_RUN_WAITING": 0, "GAPLESS_RUN_DONE": 3}


def c_name(field):
    return field.rstrip("_")


def members(name, structure):
    for field, *_ in structure._fields_:
        yield f"{name}.{c_name(field)}", f"struct {name}", c_name(field), getattr(structure, field)


def program():
    lines = ["#include <gapless/gapless.h>", "#include <stdio.h>", "int main(void) {"]
    for name, structure in lib.STRUCTURES.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        for key, c_type, member, _ in members(name, structure):
            lines.append(f'printf("{key} %zu %zu\\n", offsetof({c_type}, {member}), sizeof((({c_type} *)0)->{member}));')
    lines.append('printf("step %zu\\n", sizeof(((struct gapless_schedule *)0)->steps[0]));')
    for name in CONSTANTS:
        lines.append(f'printf("{name} %.17g\\n", (double){name});')
    return "\n".join([*lines, "return 0; }", ""])


class Structures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory(prefix="gapless-structures-") as folder:
            source, made = os.path.join(folder, "print.c"), os.path.join(folder, "print")
            with open(source, "w", encoding="ascii") as file:
                file.write(program())
            compiler = os.environ.get("CC") or "cc"
            subprocess.run([*compiler.split(), "-I", os.path.dirname(os.path.dirname(HEADER)), source, "-o", made], check=True)
            output = subprocess.run([made], check=True, stdout=subprocess.PIPE, text=True).stdout
        cls.said = {key: [float(value) for value in values] for key, *values in map(str.split, output.splitlines())}

    def test_sizes_and_offsets(self):
        self.assertEqual(self.said["step"], [ctypes.sizeof(lib.ScheduleStep)])
        for name, structure in lib.STRUCTURES.items():
            with self.subTest(name):
                self.assertEqual(self.said[name], [ctypes.sizeof(structure)])
            for key, _, _, field in members(name, structure):
                with self.subTest(key):
                    self.assertEqual(self.said[key], [field.offset, field.size])

    def test_every_structure_is_there(self):
        with open(HEADER, encoding="utf-8") as file:
            defined = set(re.findall(r"^struct (gapless_\w+) \{", file.read(), re.MULTILINE))
        self.assertEqual(defined, set(lib.STRUCTURES) - {"gapless_error"})

    def test_every_member_is_there(self):
        """A member that fits into a hole changes no size: the names are compared, too."""
        with open(HEADER, encoding="utf-8") as file:
            text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.DOTALL)
        for name, structure in lib.STRUCTURES.items():
            body = re.search(r"^struct %s \{(.*?)^\}" % name, text, re.MULTILINE | re.DOTALL)
            if body is None:
                continue
            flat = re.sub(r"struct \{[^}]*\}", "struct", body.group(1))
            flat = re.sub(r"\(\*(\w+)\)\([^)]*\)", r"\1", flat)
            found = re.findall(r"(\w+)(?:\[\w+\])?\s*(?=[,;])", flat)
            self.assertEqual(found, [c_name(field) for field, *_ in structure._fields_], name)

    def test_constants(self):
        for name, value in CONSTANTS.items():
            self.assertEqual(self.said[name], [value], name)

    def test_every_status_has_an_exception(self):
        with open(os.path.join(os.path.dirname(HEADER), "status.h"), encoding="utf-8") as file:
            table = re.findall(r"X\((\w+), (-?\d+), ", file.read())
        self.assertGreater(len(table), 15)
        for name, value in table:
            if name not in ("OK", "AGAIN"):
                error = errors.by_status(int(value), "text")
                self.assertEqual((error.status, type(error).status, str(error)), (int(value), int(value), "text"), name)

    def test_every_function_is_exported(self):
        with open(os.path.join(bed.SOURCE, "engine", "gapless.map"), encoding="ascii") as file:
            exported = set(re.findall(r"^    gapless_(\w+);", file.read(), re.MULTILINE))
        self.assertEqual(set(lib._FUNCTIONS) - exported, set())

    def test_library_loads_alone(self):
        """The package needs neither torch nor numpy to be imported, nor the library before it is used."""
        code = ("import sys, gapless; assert not {'torch', 'numpy', 'gapless._library'} & set(sys.modules); "
                "from gapless import _library; print(_library.load().path)")
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        self.assertEqual(done.stdout.strip(), os.environ["GAPLESS_LIBRARY"])


if __name__ == "__main__":
    bed.main()
