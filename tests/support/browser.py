"""Chromium by its WebDriver, over HTTP: what the tests of pages need, without a package for it."""

import base64
import json
import re
import shutil
import subprocess
import urllib.request

WANTED = ("chromium", "chromedriver")


def missing():
    """Why there is no browser, or ""."""
    lacking = [name for name in WANTED if shutil.which(name) is None]
    return f"not installed: {', '.join(lacking)} (Debian: chromium chromium-driver)" * bool(lacking)


class Browser:
    """A headless browser; a context manager."""

    def __enter__(self):
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in self.driver.stdout:
            found = re.search(r"started successfully on port (\d+)", line)
            if found:
                break
        self.base = f"http://127.0.0.1:{found.group(1)}/session"
        options = {
            "binary": shutil.which("chromium"),
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--window-size=1300,1000", "--hide-scrollbars"],
        }  # fmt: skip
        always = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""
        made = self.call("POST", "", {"capabilities": {"alwaysMatch": always}})
        self.session = "/" + made["sessionId"]
        return self

    def __exit__(self, *_):
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(20)
            self.driver.stdout.close()

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + self.session + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, path):
        self.call("POST", "/url", {"url": path.as_uri()})

    def run(self, script):
        """What a JavaScript function body returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def console(self):
        """What the page said on the console, and network and security errors."""
        return self.call("POST", "/se/log", {"type": "browser"})

    def command(self, name, **parameters):
        """A command of the DevTools protocol."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def prefer(self, scheme):
        """Light or dark, as the system would."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def picture(self, path, width=1300, height=None, scale=1):
        """The whole page as PNG."""
        tall = height or self.run("return document.documentElement.scrollHeight")
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=tall, deviceScaleFactor=scale, mobile=False,
        )  # fmt: skip
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))
