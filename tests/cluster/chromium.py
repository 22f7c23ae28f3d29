"""Drives a headless Chromium over its debugging pipe, with the standard library only: opens a page, evaluates
JavaScript, moves and clicks the pointer, takes pictures."""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"]


def find():
    return next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)


class Browser:
    """Every call has a bound of `limit` seconds, after which the browser is taken for dead."""

    def __init__(self, limit=120):
        self.limit, self.last, self.events, self.left = limit, 0, [], b""
        self.folder = tempfile.mkdtemp(prefix="gapless-chromium.")
        to_child, self.write_fd = os.pipe()
        self.read_fd, from_child = os.pipe()
        # The browser reads commands from descriptor 3 and writes to 4.
        script = 'exec "$@" 3<&%d 4>&%d' % (to_child, from_child)
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", find(), *FLAGS, "--remote-debugging-pipe", "--user-data-dir=" + self.folder,
             "about:blank"],
            pass_fds=(to_child, from_child), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=dict(os.environ, HOME=self.folder))
        os.close(to_child)
        os.close(from_child)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.write_fd)
        os.close(self.read_fd)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def receive(self, until):
        while b"\0" not in self.left:
            if not select.select([self.read_fd], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            got = os.read(self.read_fd, 1 << 20)
            if not got:
                raise EOFError("the browser has ended")
            self.left += got
        text, self.left = self.left.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        rest = json.dumps(message).encode() + b"\0"
        while rest:
            rest = rest[os.write(self.write_fd, rest):]
        until = time.monotonic() + self.limit
        while True:
            answer = self.receive(until)
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def open(self, path, width=1200, height=900, dark=False, fragment=""):
        """Opens a file and waits until it is loaded, which is when its script has run."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.events.clear()
        self.call("Page.navigate", url="file://" + os.path.abspath(path) + fragment)
        until = time.monotonic() + self.limit
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive(until))

    def requests(self):
        return [event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"]

    def faults(self):
        """What the page's console has to complain of."""
        ret = [event["params"]["exceptionDetails"] for event in self.events if event["method"] == "Runtime.exceptionThrown"]
        return ret + [event["params"] for event in self.events if event["method"] == "Runtime.consoleAPICalled"
                      and event["params"]["type"] in ("error", "warning")]

    def value(self, expression):
        """The JSON value of an expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression[:200]}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def pointer(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x, y):
        self.pointer("mouseMoved", x, y)
        self.pointer("mousePressed", x, y, button="left", clickCount=1)
        self.pointer("mouseReleased", x, y, button="left", clickCount=1)

    def picture(self, path, whole=True):
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **(
            {"clip": {"x": 0, "y": 0, "scale": 1, "width": self.value("document.documentElement.scrollWidth"),
                      "height": min(16000, self.value("document.documentElement.scrollHeight"))}} if whole else {}))
        with open(path, "wb") as file:
            file.write(base64.b64decode(answer["data"]))
