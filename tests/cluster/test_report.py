"""The report: what it makes of studies, single runs, mixtures and broken files. The page is taken apart with
html.parser, its JSON is read, and numbers are compared with the CSV. What a browser makes of it: test_page.py."""
import csv
import html.parser
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_study  # noqa: E402

PROGRAM = os.environ.get("GAPLESS_PROGRAM") or (os.path.join(sys.argv[2], "gapless") if len(sys.argv) > 2 else None)
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced; keeps tables as rows of texts, ids, text."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tables, self.faults, self.ids, self.words, self.links = [], [], [], [], [], []
        self.scripts = []
        self.cell = None
        self.feed(text)
        self.close()
        if self.stack:
            self.faults.append(f"left open: {self.stack}")

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "a":
            self.links.append(attrs.get("href", ""))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "table":
            self.tables.append({"class": attrs.get("class"), "rows": []})
        if tag == "tr":
            self.tables[-1]["rows"].append([])
        if tag in ("td", "th"):
            self.cell = ""
        if tag == "br" and self.cell is not None:
            self.cell += "\n"

    def handle_startendtag(self, tag, attrs):
        if "id" in dict(attrs):
            self.ids.append(dict(attrs)["id"])

    def handle_endtag(self, tag):
        if not self.stack or self.stack[-1] != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}, open: {self.stack[-3:]}")
        else:
            self.stack.pop()
        if tag in ("td", "th"):
            self.tables[-1]["rows"][-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data
        if "script" in self.stack:
            self.scripts.append(data)
        elif "style" not in self.stack:
            self.words.append(data)

    def of(self, kind):
        return [table for table in self.tables if table["class"] == kind]


class ReportTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="gapless-report.")
        self.addCleanup(shutil.rmtree, self.folder)

    @classmethod
    def setUpClass(cls):
        cls.template = tempfile.mkdtemp(prefix="gapless-report.")
        cls.addClassCleanup(shutil.rmtree, cls.template)
        make_study.make(cls.template, "small")

    def small(self, *parts):
        shutil.copytree(self.template, self.path(*parts), dirs_exist_ok=True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def report(self, *arguments, code=0):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GAPLESS_")}
        done = subprocess.run([PROGRAM, "report", *arguments], capture_output=True, timeout=250, check=False,
                              env=environment, cwd=self.folder)
        self.assertEqual(done.returncode, code, done.stderr.decode(errors="replace"))
        return done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def check_page(self, path):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        page = Page(text)
        self.assertEqual(page.faults, [])
        self.assertEqual(len(page.ids), len(set(page.ids)), "an id comes twice")
        for link in page.links:
            self.assertIn(link[1:], page.ids)
        page.data = json.loads(page.scripts[0])
        # Nothing is fetched: the only addresses are those in the licences of Chart.js.
        if "no-charts" not in page.ids:  # as it is where the program was built without
            self.assertIn("Released under the MIT License", page.scripts[1])
        outside = text.replace(page.scripts[1].strip() or "\0", "").replace("http://www.w3.org/2000/svg", "")
        self.assertIsNone(re.search(r"https?://|<link|src=|@import|url\((?!#)", outside))
        cells = {cell for table in page.of("data") for row in table["rows"] for cell in row}
        for chart in page.data["charts"]:
            self.check_chart(page, chart, cells)
        return page, text

    def check_chart(self, page, chart, cells):
        """Every number of a chart is in a table."""
        self.assertIn(chart["id"], page.ids)
        self.assertGreater(len(chart["panels"]), 0)
        if chart["kind"] == "course":
            for panel in chart["panels"]:
                for index in panel["runs"]:
                    self.assertIn(panel["of"], page.data["runs"][index]["columns"])
            return
        for panel in chart["panels"]:
            for line in panel["lines"]:
                for point in line["points"]:
                    text = point["text"] + (" " + point["note"] if point.get("note") else "")
                    self.assertIn(text, cells)

    def chart(self, page, name):
        return next(chart for chart in page.data["charts"] if chart["id"] == name)

    def same_numbers(self, page, rows):
        table, = page.of("runs")
        self.assertEqual(table["rows"], [list(row) for row in rows])

    def runs(self, *parts):
        header, *rows = self.csv_rows(*parts)
        return [dict(zip(header, row)) for row in rows]

    def csv_rows(self, *parts):
        with open(self.path(*parts), encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    def test_study(self):
        self.small("s")
        out, err = self.report("s")
        self.assertEqual((out, err), ("s/report.html: 18 runs\n", ""))
        page, text = self.check_page(self.path("s", "report.html"))
        rows = self.csv_rows("s", "study.csv")
        self.same_numbers(page, rows)
        self.assertEqual(self.csv_rows("s", "report.csv"), rows)
        self.assertIn("Three rules", "".join(page.words))
        self.assertIn("gapless study s/study.ini --out s", text)
        self.assertIn("--rule=dana-lga", text)
        self.assertIn("testhost", text)
        self.assertLess(text.index("Time to 85 %"), text.index("Test accuracy by number of workers"))  # as it asked

    def test_means(self):
        """A point is the mean of its seeds, with the least and the most; the table says the same."""
        self.small("s")
        self.report("s", "-q")
        page, _ = self.check_page(self.path("s", "report.html"))
        runs = self.runs("s", "study.csv")
        panel, = self.chart(page, "accuracy-workers")["panels"]
        table, = [table for table in page.of("data") if table["rows"][0] == ["", "1", "8", "64"]
                  and "%" in table["rows"][1][1]]
        states = set()
        for line, row in zip(panel["lines"], table["rows"][1:]):
            self.assertEqual(row[0], line["name"])
            for point, cell in zip(line["points"], row[1:]):
                values = [float(run["final_accuracy"]) for run in runs
                          if run["rule"] == line["name"] and int(run["workers"]) == point["x"]]
                self.assertEqual((point["n"], point["seeds"], point["out"]), (2, 2, 0))
                self.assertAlmostEqual(point["low"], min(values), places=8)
                self.assertAlmostEqual(point["high"], max(values), places=8)
                states.add(point["state"])
                if point["state"] == "mean":
                    self.assertAlmostEqual(point["y"], sum(values) / len(values), places=8)
                    self.assertEqual(cell, f"{100 * point['y']:.2f} % ({100 * min(values):.2f} to {100 * max(values):.2f})")
                else:  # nag-asgd with 64 workers: it learned nothing
                    self.assertIsNone(point["y"])
                    self.assertLess(max(values), 0.2)
                    self.assertEqual(cell, point["text"])
                    self.assertNotIn(".", cell if " to " in cell else "")
        self.assertEqual(states, {"mean", "range"})

    def test_collapse(self):
        """Seeds of which some collapse: a range, and no mean anywhere."""
        def spoil(cell, row, path):
            if cell == "asgd_4_2":
                self.edit(path, final_accuracy=0.104)
                row["final_accuracy"] = 0.104

        make_study.study(self.path("s"), {"": {"rule": ["asgd", "dana-ga"], "workers": [2, 4], "seed": [1, 2, 3]}}, "x",
                         "accuracy-workers", spoil=spoil)
        self.report("s", "-q")
        page, _ = self.check_page(self.path("s", "report.html"))
        point = self.chart(page, "accuracy-workers")["panels"][0]["lines"][0]["points"][1]
        self.assertEqual((point["state"], point["y"], point["low"], point["n"]), ("range", None, 0.104, 3))
        self.assertEqual(point["text"], "10 to 87 %")
        means = self.chart(page, "means")["panels"][0]["lines"][0]["points"][0]
        self.assertEqual((means["text"], means["y"]), ("10 to 87 %", None))

    def test_loss_alone(self):
        """Where nothing but a loss is measured, as of language, that is what the page shows over workers."""
        def spoil(cell, row, path):
            row["final_accuracy"] = ""

        grids = {"": {"rule": ["adamw", "dana-adamw"], "workers": [2, 4], "seed": [1, 2]}}
        make_study.study(self.path("s"), grids, "x", "loss-workers", spoil=spoil)
        make_study.study(self.path("both"), grids, "x", "accuracy-workers")
        self.report("s", "-q")
        page, _ = self.check_page(self.path("s", "report.html"))
        first = page.data["charts"][0]
        self.assertEqual((first["id"], first["panels"][0]["y"]["better"]), ("loss-workers", -1))
        self.assertEqual([len(line["points"]) for line in first["panels"][0]["lines"]], [2, 2])
        self.report("both", "-q")
        page, _ = self.check_page(self.path("both", "report.html"))
        self.assertNotIn("loss-workers", [chart["id"] for chart in page.data["charts"]])

    def edit(self, path, **values):
        with open(os.path.join(path, "result.json"), encoding="utf-8") as file:
            result = json.load(file)
        result.update(values)
        with open(os.path.join(path, "result.json"), "w", encoding="utf-8") as file:
            json.dump(result, file)

    def test_marked_runs(self):
        """A run that diverged or was stopped is marked, and is in no mean."""
        self.small("s")
        self.edit(self.path("s", "cells", "dana-ga_8_1"), final_loss=None)
        self.edit(self.path("s", "cells", "dana-lga_8_1"), training_loss=1e9)
        self.edit(self.path("s", "cells", "dana-lga_8_2"), parameters_rms=None)
        self.report("s", "-q")
        page, text = self.check_page(self.path("s", "report.html"))
        self.assertIn("3 diverged.", "".join(page.words))
        self.assertEqual(text.count('<tr class="out">'), 3)
        runs = self.runs("s", "report.csv")
        self.assertEqual([run["cell"] for run in runs if run["status"] == "diverged"],
                         ["dana-ga_8_1", "dana-lga_8_1", "dana-lga_8_2"])
        accuracy = {run["cell"]: float(run["final_accuracy"]) for run in runs}
        lines = {line["name"]: line["points"][1] for line in self.chart(page, "accuracy-workers")["panels"][0]["lines"]}
        one, none = lines["dana-ga"], lines["dana-lga"]
        self.assertEqual((one["n"], one["out"], one["state"]), (1, 1, "mean"))
        self.assertAlmostEqual(one["y"], accuracy["dana-ga_8_2"], places=8)
        self.assertTrue(one["text"].endswith(", 1 of 2 diverged"))
        self.assertEqual((none["n"], none["out"], none["state"], none["y"]), (0, 2, "diverged", None))
        make_study.make(self.path("runs", "whole"), "train")
        make_study.make(self.path("runs", "cut"), "train")
        self.edit(self.path("runs", "cut"), stopped=True)
        self.report("runs", "-q")
        page, _ = self.check_page(self.path("runs", "report.html"))
        self.assertEqual({run["name"]: run["status"] for run in page.data["runs"]}, {"whole": "done", "cut": "stopped"})
        self.assertIn("1 stopped.", "".join(page.words))
        # In the table once, behind its name, and not before each of its numbers.
        table = next(table for table in page.of("data") if "accuracy %" in table["rows"][0])
        row = next(row for row in table["rows"] if row[0].startswith("cut"))
        self.assertEqual(row[0], "cut stopped")
        self.assertTrue(row[1].endswith(" %") and not any("stopped" in cell for cell in row[1:]), row)

    def test_repeats(self):
        """Runs of the same seed are repeats, not seeds."""
        for name, workers in (("a", 2), ("b", 2), ("c", 8), ("d", 8)):
            make_study.Run({"rule": "asgd", "workers": workers, "seed": 1}).write(self.path("runs", name), "train")
        self.report("runs", "-q")
        page, text = self.check_page(self.path("runs", "report.html"))
        points = self.chart(page, "accuracy-workers")["panels"][0]["lines"][0]["points"]
        self.assertEqual([(point["n"], point["seeds"]) for point in points], [(2, 1), (2, 1)])
        self.assertTrue(points[0]["text"].endswith(", 2 repeats of 1 seed"))
        self.assertIn("Means over up to 2 repeats of one seed", text)

    def test_runs_overlay(self):
        """Plain runs are called by their folders; of the same name, by their paths."""
        make_study.Run({"rule": "asgd", "workers": 2}, 30).write(self.path("x", "same"), "train")
        make_study.Run({"rule": "dana-ga", "workers": 2}, 30).write(self.path("y", "same"), "train")
        make_study.Run({"rule": "dana-ga", "workers": 2}, 700).write(self.path("z"), "train")
        self.report("x", "y", "z", "--out", "page.html")
        page, _ = self.check_page(self.path("page.html"))
        self.assertEqual([run["name"] for run in page.data["runs"]], ["x/same", "y/same", "z"])
        of = [panel["of"] for name in ("course", "gap-course") for panel in self.chart(page, name)["panels"]]
        self.assertEqual(of, ["accuracy", "test_loss", "loss", "rate", "updates_per_second", "lag", "gap"])
        self.assertTrue(all(panel["runs"] == [0, 1, 2] for panel in self.chart(page, "course")["panels"]))
        with open(self.path("x", "same", "metrics.jsonl"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        columns = page.data["runs"][0]["columns"]
        table = page.of("course")[0]["rows"]
        for name, key in (("seconds", "elapsed"), ("loss", "loss"), ("rate", "rate"), ("accuracy", "accuracy")):
            self.assertEqual(columns[name], [line[key] for line in lines])
            at = table[0].index(name)
            self.assertEqual([row[at] for row in table[1:]], ["" if line[key] is None else f"{line[key]:.9g}" for line in lines])
        thinned = page.data["runs"][2]["columns"]["epoch"]
        self.assertEqual((len(thinned), thinned[-1]), (600, 5.0))

    def test_every_kind_of_chart(self):
        wanted = {"lr": ["accuracy-lr", "accuracy-workers"], "gap": ["gap-course", "histograms", "course", "scale"],
                  "convergence": ["convergence"], "small": ["time-to-target", "updates-per-second", "workers"]}
        for kind, ids in wanted.items():
            if kind == "small":
                self.small(kind)
            else:
                make_study.make(self.path(kind), kind)
            self.report(kind, "--quiet")
            page, text = self.check_page(self.path(kind, "report.html"))
            for chart in ids:
                self.assertIn(chart, page.ids)
            self.assertEqual(ids[0], page.data["charts"][0]["id"])
            self.assertEqual(ids[0], re.search(r'<section class="chart" id="([^"]*)"', text).group(1))
        self.assertRegex(self.check_page(self.path("convergence", "report.html"))[1], r"asgd, slope -0\.4\d")

    def test_escaping(self):
        evil = 'a<b>&"\'\x01;</script>'
        name = 'c<i>&"x\''
        make_study.study(self.path("s"), {"g<1>": {"rule": [evil, "dana-ga"], "workers": [2, 4], "seed": [1]}},
                         "about <script>alert(1)</script> & more", "accuracy-workers", 'T <b>"&')
        os.rename(self.path("s"), self.path(name))
        self.report(name)
        page, text = self.check_page(self.path(name, "report.html"))
        self.assertEqual(text.count("<script"), 3 + page.scripts[1].count("<script"))
        self.assertNotIn("alert(1)</script>", text)
        names = {line["name"] for chart in page.data["charts"] if "lines" in chart["panels"][0]
                 for panel in chart["panels"] for line in panel["lines"]}
        self.assertIn("a<b>&\"'\ufffd;</script>", names)
        self.assertNotIn("<b>", text)
        shown = "".join(page.words)
        self.assertIn('a<b>&"\'\ufffd;</script>', shown)
        self.assertIn("about <script>alert(1)</script> & more", shown)
        self.assertIn(name, shown)
        self.assertEqual(self.csv_rows(name, "report.csv"), self.csv_rows(name, "study.csv"))

    def test_hostile_folder(self):
        names = ["</script><script>alert(1)</script>".replace("/", "\u2215"), "<!--", "]]>", "{{data}}", "a\nb\"c'", "-x", "&lt;"]
        for name in names:
            make_study.make(self.path("runs", name), "train")
        self.report("runs", "-q")
        page, text = self.check_page(self.path("runs", "report.html"))
        self.assertEqual({run["name"] for run in page.data["runs"]}, set(names))
        self.assertNotIn("<!--", text.replace(page.scripts[1], ""))
        self.assertEqual({row[0] for row in page.of("runs")[0]["rows"][1:]}, set(names))

    def test_not_utf8(self):
        folder = os.path.join(os.fsencode(self.folder), b"r\xff\xfe")
        make_study.make(os.fsdecode(folder), "train")
        self.report(os.fsdecode(folder))
        with open(os.path.join(folder, b"report.html"), "rb") as file:
            self.assertIn("r\ufffd\ufffd", file.read().decode("utf-8"))

    def test_csv(self):
        self.small("s")
        out, err = self.report("s", "--csv")
        with open(self.path("s", "study.csv"), encoding="utf-8") as file:
            self.assertEqual(out, file.read())
        self.assertEqual(err, "")
        self.assertFalse(os.path.exists(self.path("s", "report.html")))

    def test_target(self):
        self.small("s")
        make_study.make(self.path("t"), "train")
        out, _ = self.report("s", "--csv", "--target", "0.5")
        low = [float(row["time_to_target"] or "1e9") for row in csv.DictReader(io.StringIO(out))]
        high = [float(row["time_to_target"] or "1e9") for row in csv.DictReader(io.StringIO(self.report("s", "--csv")[0]))]
        self.assertTrue(all(a <= b for a, b in zip(low, high)) and low != high)
        with open(self.path("t", "metrics.jsonl"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        expected = next(line["elapsed"] for line in lines if line["accuracy"] >= 0.6)
        out, _ = self.report("t", "--csv", "--target", "0.6")
        self.assertEqual(list(csv.DictReader(io.StringIO(out)))[0]["time_to_target"], f"{expected:.9g}")

    def test_single_run(self):
        make_study.make(self.path("runs", "t"), "train")
        self.report("runs/t", "--title", "One & only")
        page, text = self.check_page(self.path("runs", "t", "report.html"))
        self.assertIn("<title>One &amp; only</title>", text)
        for part in ("means", "course", "gap-course", "workers", "moments", "runs", "commands"):
            self.assertIn(part, page.ids)
        self.assertIn("gapless train --workers 8 --rule dana-ga", text)
        row = dict(zip(*page.of("runs")[0]["rows"]))
        with open(self.path("runs", "t", "result.json"), encoding="utf-8") as file:
            result = json.load(file)
        self.assertEqual(row["final_accuracy"], f"{result['final_accuracy']:.9g}")
        self.assertEqual((row["rule"], row["workers"], row["status"]), ("dana-ga", "8", "done"))

    def test_mixture(self):
        self.small("all", "s")
        make_study.make(self.path("all", "t"), "train")
        make_study.Run({"rule": "asgd", "workers": 40}).write(self.path("all", "deep", "u"))
        self.report("all", "--out", "new/folder/page.html", "all/t")  # one of them named twice
        page, _ = self.check_page(self.path("new", "folder", "page.html"))
        self.assertEqual([len(table["rows"]) for table in page.of("runs")], [19, 3])
        rows = self.csv_rows("new", "folder", "report.csv")
        self.assertEqual(len(rows), 21)
        self.assertTrue(rows[1][0].startswith("made-up/nag-asgd"))
        self.assertEqual(sorted(os.listdir(self.path("new", "folder"))), ["page.html", "report.csv"])
        self.report("all", "--out", "other")  # a folder
        self.check_page(self.path("other", "report.html"))

    def test_no_study_csv(self):
        self.small("s")
        header, *rows = self.csv_rows("s", "study.csv")
        expected = {row[0]: dict(zip(header, row)) for row in rows}
        os.remove(self.path("s", "study.csv"))
        os.remove(self.path("s", "cells", "dana-ga_8_1", "result.json"))
        out, _ = self.report("s", "--csv")
        rows = list(csv.DictReader(io.StringIO(out)))
        self.assertEqual(len(rows), 18)
        for row in rows:
            if row["cell"] == "dana-ga_8_1":
                self.assertEqual((row["status"], row["final_accuracy"]), ("missing", ""))
                continue
            self.assertEqual(row, expected[row["cell"]])

    def test_unreadable(self):
        self.small("s")
        cells = self.path("s", "cells")
        with open(os.path.join(cells, "dana-ga_1_1", "result.json"), "r+b") as file:
            file.truncate(700)
        with open(os.path.join(cells, "dana-ga_1_2", "result.json"), "wb") as file:
            file.write(b"[1, 2]")
        with open(os.path.join(cells, "dana-ga_8_1", "metrics.jsonl"), "ab") as file:
            file.write(b'{"elapsed": 3, "acc')
        with open(os.path.join(cells, "dana-ga_8_2", "run.json"), "wb") as file:
            file.write(b"\x00\xff" * 50)
        os.remove(os.path.join(cells, "dana-ga_64_1", "result.json"))
        with open(os.path.join(cells, "dana-ga_64_2", "result.json"), "w", encoding="utf-8") as file:
            json.dump({"final_accuracy": "x", "lag": 3, "histograms": {"lag": [1] * 48, "workers": [7]},
                       "command": 9, "seconds": -1}, file)
        os.remove(os.path.join(cells, "nag-asgd_1_1", "metrics.jsonl"))
        os.mkfifo(os.path.join(cells, "nag-asgd_1_1", "metrics.jsonl"))
        _, err = self.report("s")
        page, _ = self.check_page(self.path("s", "report.html"))
        shown = "".join(page.words)
        for name in ("dana-ga_1_1/result.json, line", "dana-ga_1_2/result.json: it holds no JSON object",
                     "dana-ga_8_1/metrics.jsonl: line 21", "dana-ga_8_2/run.json", "dana-ga_64_1/result.json",
                     "dana-ga_64_2/result.json: its histograms", "nag-asgd_1_1/metrics.jsonl is a pipe, no regular file"):
            self.assertIn(name, shown)
            self.assertIn(name, err)
        self.same_numbers(page, self.csv_rows("s", "study.csv"))

    def test_wrong_studies(self):
        for spoil in ("", "cell,grid\n", "nonsense\n", "cell,grid,rule,final_accuracy,status\n../x,,r,1,done\nonly,two\n",
                      '"cell"",grid\n'):
            self.small("s")
            with open(self.path("s", "study.csv"), "w", encoding="utf-8") as file:
                file.write(spoil)
            _, err = self.report("s")
            self.assertIn("study.csv", err)
            self.check_page(self.path("s", "report.html"))
        with open(self.path("s", "study.ini"), "w", encoding="utf-8") as file:
            file.write("title\n[study\n= 3\n[study]\n; " + "long comment " * 60 + "\nabout = " + "many words\n  many words\n  " * 20 +
                       "end\n  and on\ntarget = 7\n")
        _, err = self.report("s")
        self.assertIn("study.ini", err)
        self.assertIn("target = 7 is not a share", err)
        page, _ = self.check_page(self.path("s", "report.html"))
        self.assertIn("many words many words end and on", "".join(page.words))
        self.assertNotIn("comment", re.sub(r'<pre class="ini">.*?</pre>', "", "".join(page.words).split("[study")[0]))

    def test_failed_runs(self):
        def spoil(cell, row, path):
            if cell.startswith("dana-ga"):
                shutil.rmtree(path)
                for name in make_study.RESULTS:
                    row[name] = None
                row["status"] = "failed" if cell.endswith("1") else "missing"

        make_study.study(self.path("s"), {"": {"rule": ["asgd", "dana-ga"], "workers": [2, 4], "seed": [1, 2]}}, "x",
                         "table", spoil=spoil)
        _, err = self.report("s")
        self.assertEqual(err, "")
        page, _ = self.check_page(self.path("s", "report.html"))
        self.assertIn("2 missing. 2 failed.", "".join(page.words))
        self.same_numbers(page, self.csv_rows("s", "study.csv"))
        panels = self.chart(page, "means")["panels"]
        self.assertEqual([[line["name"] for line in panel["lines"]] for panel in panels], [["asgd"], ["asgd"]])

    @unittest.skipIf(os.geteuid() == 0, "root reads every folder")
    def test_closed_folder(self):
        os.mkdir(self.path("closed"), 0o300)
        try:
            self.assertIn("cannot read the folder 'closed' (Permission denied)", self.report("closed", code=1)[1])
        finally:
            os.chmod(self.path("closed"), 0o700)  # so that it can be removed

    def test_misuse(self):
        os.mkdir(self.path("empty"))
        with open(self.path("file"), "w", encoding="utf-8") as file:
            file.write("x")
        make_study.make(self.path("t"), "train")
        self.assertIn("name the folder", self.report(code=2)[1])
        self.assertIn("there is no run in empty", self.report("empty", code=1)[1])
        self.assertIn("there is no run in empty", self.report("t", "empty", code=1)[1])
        self.assertIn("cannot open the folder 'nowhere'", self.report("nowhere", code=1)[1])
        self.assertIn("file is a file", self.report("file", code=1)[1])
        self.assertIn("--target", self.report("t", "--target", "2", code=2)[1])
        self.assertIn("choose another --out", self.report("t", "--out", "file/page.html", code=1)[1])
        os.mkfifo(self.path("pipe"))  # a rename would put a file in its place, in that of a device too
        self.assertIn("pipe is there and is no regular file", self.report("t", "--out", "pipe", code=2)[1])
        self.assertTrue(stat.S_ISFIFO(os.stat(self.path("pipe")).st_mode))
        self.assertFalse(os.path.exists(self.path("report.csv")))

    def test_large(self):
        rules = list(make_study.RULES)
        rows = make_study.study(self.path("s"), {"": {"rule": rules, "workers": [1, 16], "seed": [1]}},
                                make_study.ABOUT, "accuracy-workers")
        self.report("s")
        page, text = self.check_page(self.path("s", "report.html"))
        self.assertEqual(len(page.of("runs")[0]["rows"]), len(rows) + 1)
        self.assertEqual(len(self.chart(page, "accuracy-workers")["panels"][0]["lines"]), len(rules))
        self.assertLess(len(text), 3 << 20)


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("usage: test_report.py SOURCE BUILD, or set GAPLESS_PROGRAM")
    unittest.main(argv=sys.argv[:1])
