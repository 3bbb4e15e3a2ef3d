#!/usr/bin/env python3
"""Open a page that `ironwarp profile --html` wrote in a headless Chromium, and fail if it was not rendered.

    scripts/check-report.py PAGE.html

Fails if the script of the page printed an error, or if the number of rows in the table of operations is 0 or differs
from the number of profiles in the data, one for each operation and shape.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120


def render(browser, page):
    """The rendered page as HTML, and the browser's log."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--disable-gpu", "--no-sandbox", f"--user-data-dir={profile}",
                   "--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom", page.as_uri()]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode != 0:
        sys.exit(f"check-report: {browser} exited with status {done.returncode}:\n{done.stderr}")
    return done.stdout, done.stderr


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    page = Path(sys.argv[1]).resolve()
    data = re.search(r'<script type="application/json" id="profile">(.*?)</script>', page.read_text("utf-8"), re.S)
    if not data:
        sys.exit(f"check-report: {page} contains no profile")
    profiles = json.loads(data[1]).get("profiles", [])
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        sys.exit(f"check-report: found none of {', '.join(BROWSERS)}")
    dom, log = render(browser, page)
    errors = [line for line in log.splitlines() if "CONSOLE" in line]
    if errors:
        sys.exit("check-report: the page's console is not empty:\n" + "\n".join(errors))
    summary = re.search(r'<section id="summary".*?</section>', dom, re.S)
    rows = len(re.findall(r"<tr data-name=", summary[0])) if summary else 0
    if rows == 0 or rows != len(profiles):
        sys.exit(f"check-report: {rows} rows rendered for {len(profiles)} profiles in {page}")
    print(f"check-report: {rows} rows rendered")


if __name__ == "__main__":
    main()
