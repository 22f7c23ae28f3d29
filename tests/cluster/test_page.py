"""The page of a report in a browser: the charts are drawn, say what the CSV says, and do what their buttons promise; and
without script its tables are there. Needs Chromium; without it, skipped (77). ctest: plain"""
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import chromium  # noqa: E402
import make_study  # noqa: E402

PROGRAM = os.environ.get("GAPLESS_PROGRAM") or (os.path.join(sys.argv[2], "gapless") if len(sys.argv) > 2 else None)
EVIL = ['</script><script>window.hit=1</script>'.replace("/", "\u2215"), "<img src=x onerror=window.hit=1>", "a&amp;b\"'", "<!--<script>"]

# Of each canvas: how many pixels are not like its first one; and whether one has the colour of each visible series.
DRAWN = """[...document.querySelectorAll('canvas')].map((canvas) => {
  const {width, height} = canvas, bytes = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  let count = 0;
  for (let i = 0; i < bytes.length; i += 4) count += bytes[i + 3] > 40 ? 1 : 0;
  return count;
})"""
# The pixels of a canvas that have a colour, "#rrggbb", nearly.
COLOURED = """((canvas, colour) => {
  const bytes = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const want = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  let count = 0;
  for (let i = 0; i < bytes.length; i += 4)
    count += bytes[i + 3] > 200 && want.every((own, k) => Math.abs(bytes[i + k] - own) < 12) ? 1 : 0;
  return count;
})"""
CANVAS = "document.querySelectorAll('#%s canvas')[%d]"
CHART = "Chart.getChart(" + CANVAS + ")"


class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="gapless-page.")
        cls.addClassCleanup(shutil.rmtree, cls.folder, True)
        make_study.make(cls.path("s"), "small")
        make_study.make(cls.path("large"), "lr")
        for name, lines in (("slow", 120), ("fast", 90)):
            make_study.Run({"rule": "dana-ga" if name == "fast" else "asgd", "workers": 8, "seed": 2}, lines).write(
                cls.path("runs", name), "train")
        for name in EVIL:
            make_study.make(cls.path("evil", name), "train")
        make_study.study(cls.path("many"), {"": {"rule": list(make_study.RULES), "workers": [2, 8], "seed": [1]}}, "",
                         "accuracy-workers")
        for name in ("s", "large", "many", "runs", "evil"):
            environment = {key: value for key, value in os.environ.items() if not key.startswith("GAPLESS_")}
            subprocess.run([PROGRAM, "report", "-q", cls.path(name)], check=True, timeout=250, env=environment)
        cls.browser = chromium.Browser()
        cls.addClassCleanup(cls.browser.close)

    @classmethod
    def path(cls, *parts):
        return os.path.join(cls.folder, *parts)

    def open(self, name, **how):
        self.browser.open(self.path(name, "report.html"), **how)
        self.assertEqual(self.browser.faults(), [])

    def value(self, expression):
        return self.browser.value(expression)

    def click(self, expression):
        """Clicks in the middle of an element, with the pointer."""
        self.value(f"({expression}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        at = self.value(f"(() => {{ const own = ({expression}).getBoundingClientRect(); "
                        "return [own.x + own.width / 2, own.y + own.height / 2]; })()")
        self.browser.click(*at)

    def study_means(self, column):
        with open(self.path("s", "study.csv"), encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = {}
        for row in rows:
            found.setdefault((row["rule"], float(row["workers"])), []).append(float(row[column]))
        return {key: sum(values) / len(values) for key, values in found.items()}

    def test_drawn(self):
        for name, least in (("s", 12), ("runs", 10), ("large", 12)):
            self.open(name)
            drawn = self.value(DRAWN)
            self.assertGreaterEqual(len(drawn), least)
            self.assertGreater(min(drawn), 300, drawn)
            self.assertEqual([url for url in self.browser.requests() if not url.startswith("file://")], [])
            blank = self.value("Chart.instances && Object.values(Chart.instances).filter((chart) => !chart.data.datasets.some("
                               "(set) => set.data.some((point) => point.y !== null))).length")
            self.assertEqual(blank, 0)

    def test_values(self):
        """What is drawn is what the CSV says, and so is what is saved from the chart."""
        self.open("s")
        means = self.study_means("final_accuracy")
        drawn = self.value("(" + CHART % ("accuracy-workers", 0) + ").data.datasets.map((set) => "
                           "[set.name, set.data.map(({x, y, own}) => [x, y, own.y, own.low, own.high])])")
        seen = 0
        for name, points in drawn:
            for x, y, mean, low, high in points:
                self.assertAlmostEqual(y, means[name, x] if mean is not None else (low + high) / 2, places=8)
                self.assertTrue(low <= means[name, x] <= high)
                seen += 1
        self.assertEqual(seen, len(means))
        rows = list(csv.DictReader(io.StringIO(self.save("accuracy-workers", "CSV").decode())))
        self.assertEqual(len(rows), len(means))
        for row in rows:
            if row["state"] == "mean":
                self.assertAlmostEqual(float(row["final test accuracy"]), means[row["series"], float(row["workers"])], places=8)
            else:
                self.assertEqual((row["state"], row["final test accuracy"]), ("range", ""))
        with open(self.path("runs", "slow", "metrics.jsonl"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        self.open("runs")
        rows = list(csv.DictReader(io.StringIO(self.save("course", "CSV", panel=2).decode())))
        own = [row for row in rows if row["run"] == "slow"]
        self.assertEqual([float(row["loss"]) for row in own], [line["loss"] for line in lines])
        self.assertEqual([float(row["seconds"]) for row in own], [line["elapsed"] for line in lines])

    def save(self, section, button, panel=0):
        """The file that a button of a panel gives."""
        folder = tempfile.mkdtemp(prefix="gapless-page.")
        self.addCleanup(shutil.rmtree, folder, True)
        self.browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=folder)
        self.click(f"[...document.querySelectorAll('#{section} .panel')[{panel}].querySelectorAll('button')]"
                   f".find((own) => own.textContent === '{button}')")
        until = time.monotonic() + 60
        while time.monotonic() < until:
            names = [name for name in os.listdir(folder) if not name.endswith(".crdownload")]
            if names and os.path.getsize(os.path.join(folder, names[0])) > 0:
                self.assertTrue(names[0].startswith(section) and names[0].endswith("." + button.lower()), names)
                with open(os.path.join(folder, names[0]), "rb") as file:
                    return file.read()
            self.value("new Promise((resolve) => setTimeout(resolve, 50))")
        self.fail(f"nothing was saved by {button}")

    def test_png(self):
        self.open("s")
        picture = self.save("scale", "PNG", panel=1)
        self.assertEqual(picture[:8], b"\x89PNG\r\n\x1a\n")
        width, height = (int.from_bytes(picture[at:at + 4], "big") for at in (16, 20))
        canvas = self.value("(() => { const own = " + CANVAS % ("scale", 1) + "; return [own.width, own.height]; })()")
        self.assertEqual(width, canvas[0])
        self.assertGreater(height, canvas[1])  # title and legend are in it

    def test_legend(self):
        """A click hides a series in all panels of the chart, another shows it again."""
        self.open("s")
        button = "document.querySelectorAll('#scale .legend button')[1]"
        name = self.value(button + ".dataset.name")
        chart = CHART % ("scale", 0)
        colour = self.value(chart + f".data.datasets.find((set) => set.name === '{name}').borderColor")
        count = COLOURED + "(" + CANVAS % ("scale", 0) + f", '{colour}')"
        visible = (f"[0, 1].map((at) => Chart.getChart(document.querySelectorAll('#scale canvas')[at])).map((chart) => "
                   f"chart.isDatasetVisible(chart.data.datasets.findIndex((set) => set.name === '{name}')))")
        self.assertEqual(self.value(visible), [True, True])
        before = self.value(count)
        self.click(button)
        self.assertEqual((self.value(visible), self.value(button + ".getAttribute('aria-pressed')")), ([False, False], "false"))
        self.assertGreater(before, 50)
        self.assertLess(self.value(count), 5)
        self.click(button)
        self.assertEqual((self.value(visible), self.value(count)), ([True, True], before))
        self.assertEqual(self.value("[...document.querySelectorAll('.legend button')].filter((own) => own.scrollWidth > own.clientWidth + 1 "
                                    "|| own.getBoundingClientRect().right > innerWidth).length"), 0)  # no name is cut

    def test_axes(self):
        self.open("s")
        button = "document.querySelectorAll('#accuracy-workers .buttons button')[%d]"
        for at, axis, first, second in ((1, "y", "linear", "logarithmic"), (0, "x", "logarithmic", "linear")):
            kind = CHART % ("accuracy-workers", 0) + f".scales.{axis}.type"
            before = self.value(CANVAS % ("accuracy-workers", 0) + ".toDataURL()")
            self.assertEqual(self.value(kind), first)
            self.click(button % at)
            self.assertEqual(self.value(kind), second)
            self.assertIn(f"{axis}: {second[:3]}", self.value(button % at + ".textContent"))
            self.assertNotEqual(self.value(CANVAS % ("accuracy-workers", 0) + ".toDataURL()"), before)
            self.click(button % at)
            self.assertEqual(self.value(kind), first)
        self.assertGreater(min(self.value(DRAWN)), 300)

    def test_hover(self):
        self.open("s")
        chart = CHART % ("accuracy-workers", 0)
        self.value("document.querySelector('#accuracy-workers').scrollIntoView({behavior: 'instant'})")
        x, y = self.value(f"(() => {{ const chart = {chart}, own = chart.canvas.getBoundingClientRect(), "
                          "point = chart.getDatasetMeta(1).data[1]; return [own.x + point.x, own.y + point.y]; })()")
        self.browser.pointer("mouseMoved", x - 3, y)
        self.browser.pointer("mouseMoved", x, y)
        until = time.monotonic() + 30
        while self.value(f"{chart}.tooltip.opacity") == 0 and time.monotonic() < until:
            self.value("new Promise((resolve) => setTimeout(resolve, 50))")
        title, body = self.value(f"[{chart}.tooltip.title, {chart}.tooltip.body.map((part) => part.lines.join())]")
        means = self.study_means("final_accuracy")
        self.assertEqual(title, ["workers 8", "2 runs, 2 seeds"])
        self.assertEqual(len(body), 3)
        self.assertIn(f"dana-ga: {100 * means['dana-ga', 8]:.2f} % (", "".join(body))

    def test_smoothing(self):
        self.open("runs")
        chart = CHART % ("course", 2)
        raw = self.value(f"{chart}.data.datasets[0].data.map((point) => point.y)")
        self.value("(() => { const own = document.querySelector('#course input[type=range]'); own.value = .6; "
                   "own.dispatchEvent(new Event('input')); })()")
        smooth = self.value(f"{chart}.data.datasets[0].data.map((point) => point.y)")
        mean = norm = 0.0
        for before, after in zip(raw, smooth):
            mean, norm = 0.6 * mean + 0.4 * before, 0.6 * norm + 0.4
            self.assertAlmostEqual(after, mean / norm, places=9)
        self.assertEqual(self.value(f"{chart}.data.datasets[0].raw.map((point) => point.y)"), raw)
        self.value("(() => { const own = document.querySelector('#course select'); own.value = 'epoch'; "
                   "own.dispatchEvent(new Event('change')); })()")
        self.assertAlmostEqual(self.value(f"Math.max(...{chart}.data.datasets[0].data.map((point) => point.x))"), 5)

    def test_colours(self):
        """A name has one colour on the page, and a colour one name."""
        for name, dark in (("many", False), ("many", True), ("runs", False)):
            self.open(name, dark=dark)
            pairs = {tuple(pair) for pair in self.value("Object.values(Chart.instances).flatMap((chart) => "
                                                        "chart.data.datasets.map((set) => [set.name, set.borderColor]))")}
            self.assertEqual(len(pairs), len({pair[0] for pair in pairs}))
            self.assertEqual(len(pairs), len({pair[1] for pair in pairs}))

    def test_many_series(self):
        """Of very many series some are shown at first; any other by a click, all by one."""
        self.open("many")
        shown = ("[..." + CHART % ("accuracy-workers", 0) + ".data.datasets.keys()].filter((at) => " + CHART % ("accuracy-workers", 0)
                 + ".isDatasetVisible(at)).length")
        all_of = len(make_study.RULES)
        self.assertEqual(self.value(shown), 10)
        self.assertIn(f"10 of {all_of} are shown at first", self.value("document.querySelector('#accuracy-workers .tools').textContent"))
        self.click("[...document.querySelectorAll('#accuracy-workers .legend button')].find((own) => own.ariaPressed === 'false')")
        self.assertEqual(self.value(shown), 11)
        for button, count in (("All", all_of), ("None", 0)):
            self.click(f"[...document.querySelectorAll('#accuracy-workers .legend button')].find((own) => own.textContent === '{button}')")
            self.assertEqual(self.value(shown), count)

    def test_dark_and_phone(self):
        self.open("s")
        light = self.value("[getComputedStyle(document.body).backgroundColor, " + CHART % ("scale", 0) + ".data.datasets[0].borderColor]")
        self.browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        self.value("new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 50)))")
        dark = self.value("[getComputedStyle(document.body).backgroundColor, " + CHART % ("scale", 0) + ".data.datasets[0].borderColor]")
        self.assertEqual((light[0], dark[0]), ("rgb(255, 255, 255)", "rgb(21, 23, 26)"))
        self.assertNotEqual(light[1], dark[1])
        for name in ("s", "runs", "evil"):
            self.open(name, width=390, height=844)
            self.assertLessEqual(self.value("document.documentElement.scrollWidth"), 390)
            self.assertGreater(min(self.value(DRAWN)), 200)

    def test_hostile_names(self):
        self.open("evil")
        self.assertIsNone(self.value("window.hit"))
        shown = self.value("[...document.querySelectorAll('#course .legend button[data-name]')].map((own) => own.textContent)")
        self.assertEqual(sorted(shown), sorted(EVIL))
        self.assertEqual(self.value("document.querySelectorAll('img').length"), 0)

    def test_without_script(self):
        self.browser.call("Emulation.setScriptExecutionDisabled", value=True)
        try:
            self.browser.open(self.path("s", "report.html"))
            self.assertEqual(self.value("document.querySelectorAll('canvas').length"), 0)
            self.assertIn("The tables have every number.", self.value("document.querySelector('noscript').textContent"))
            self.assertGreater(self.value("document.querySelectorAll('table.data').length"), 5)
            self.assertGreater(self.value("document.querySelector('#means table').getBoundingClientRect().height"), 50)
        finally:
            self.browser.call("Emulation.setScriptExecutionDisabled", value=False)


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("usage: test_page.py SOURCE BUILD, or set GAPLESS_PROGRAM")
    if chromium.find() is None:
        print("chromium not found (Debian: apt-get install chromium)")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="gapless-page.") as place:
        make_study.make(place, "train")
        subprocess.run([PROGRAM, "report", "-q", place], check=True, timeout=250)
        with open(os.path.join(place, "report.html"), encoding="utf-8") as one:
            if 'id="no-charts"' in one.read():
                print("Chart.js not found when the program was built (Debian: apt-get install libjs-chart.js)")
                sys.exit(77)
    unittest.main(argv=sys.argv[:1])
