"""Check the built documentation: `make docs-check`, or `python docs/check_site.py docs/_build/html`.

In the files: links and anchors that lead nowhere, images that are not there, anything that needs a network,
markup left in the text, an empty section navigation, and pages that no menu leads to. In a headless
Chromium, where there is one: pages that scroll sideways or are cut off on a phone of 390 px, and formulas
that are not drawn.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

# Sphinx makes these for its own links and search: no menu needs to have them.
NO_MENU = ("_modules/", "genindex.html", "search.html", "py-modindex.html", "index.html")
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
# Text in these may look like markup.
NO_PROSE = {"script", "style", "code", "pre", "title"}
LEFT_MARKUP = re.compile(
    r"\\(?:frac|mathrm|mathbb|mathcal|left|text|varepsilon|alpha|beta|eta|sum|int)(?![a-zA-Z])"
    r"|\$\$|:(?:doc|ref|math|class|func|term|meth):"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE = 390


class Page(HTMLParser):
    """What a page holds: anchors, links, images, the links of its menus, and its prose."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.menu, self.files, self.prose = set(), [], [], [], []
        self.sections = self.section_links = 0
        self._open = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        classes = set(values.get("class", "").split())
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        kinds = set(self._open[-1][1]) if self._open else set()
        if tag == "nav" or "toctree-wrapper" in classes:
            kinds.add("menu")
        if "bd-docs-nav" in classes:
            kinds.add("section")
            self.sections += 1
        if tag in NO_PROSE or "math" in classes:
            kinds.add("no prose")
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
            if "menu" in kinds:
                self.menu.append(values["href"])
            self.section_links += "section" in kinds
        if tag in ("img", "script", "source", "iframe") and "src" in values:
            self.files.append(values["src"])
        if tag == "link" and {"stylesheet", "icon"} & set(values.get("rel", "").split()):
            self.files.append(values.get("href", ""))
        if tag not in VOID:
            self._open.append((tag, kinds))

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self._open and "no prose" not in self._open[-1][1]:
            self.prose.append(data)


def is_away(link):
    return bool(re.match(r"[a-z]+:|//", link))


def check_files(root, pages):
    """Yield a line for all that is wrong in the files of `pages`, a Page for each path below `root`."""
    in_menu = set()
    for path, page in pages.items():
        for link in page.menu:
            if not is_away(link):
                in_menu.add(unquote(urldefrag(urljoin(path, link)).url))
        for link in dict.fromkeys(page.links):
            url, anchor = urldefrag(link)
            if is_away(link):
                continue
            target = unquote(urljoin(path, url)) if url else path
            if target in pages and anchor and unquote(anchor) not in pages[target].anchors:
                yield f"{path}: no place '{anchor}' in {target}"
            if target not in pages and not (root / target).is_file():
                yield f"{path}: no file for the link {link}"
        for name in dict.fromkeys(page.files):
            if is_away(name):
                if not name.startswith("data:"):
                    yield f"{path}: needs the network for {name}"
            elif not (root / unquote(urldefrag(urljoin(path, name)).url.split("?")[0])).is_file():
                yield f"{path}: no file {name}"
        for left in sorted(set(LEFT_MARKUP.findall(" ".join(page.prose)))):
            yield f"{path}: markup in the text: {left}"
        if page.sections and not page.section_links:
            yield f"{path}: the section navigation is empty"
    for path in pages:
        if path not in in_menu and not path.startswith(NO_MENU):
            yield f"{path}: no menu leads here"


LOOK = """
<!doctype html><meta charset="utf-8"><body><script>
const PHONE = %d, PAGES = %s;
// The theme lets the whole article scroll, which hides from the page's own width what is too wide.
const SCROLLS =
  "pre, .pst-scrollable-table-container, div.math, .wide-figure, .output_html, mjx-assistive-mml";

function cut(view) {  // what reaches beyond the screen, but for what is meant to scroll
  const found = [];
  for (const element of view.document.querySelectorAll("main *")) {
    const box = element.getBoundingClientRect();
    if (box.right <= PHONE + 1 || !box.height) continue;
    if (element.children.length || element.closest(SCROLLS)) continue;
    found.push(`${element.tagName.toLowerCase()} "${element.textContent.trim().slice(0, 40)}"`);
  }
  return found.slice(0, 3);
}

async function look(page) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${PHONE}px; height: 800px; border: 0`;
  const loaded = new Promise(done => frame.onload = done);
  frame.src = page;
  document.body.append(frame);
  await loaded;
  const view = frame.contentWindow;
  if (view.MathJax?.startup) await view.MathJax.startup.promise;
  await new Promise(done => setTimeout(done, 20));
  const problems = [];
  const width = view.document.documentElement.scrollWidth;
  const parts = cut(view);
  if (width > PHONE) problems.push(`scrolls sideways: ${width} of ${PHONE} px`);
  for (const part of parts) problems.push(`beyond the screen: ${part}`);
  const formulas = view.document.querySelectorAll(".math");
  const bad = [...formulas].filter(f => !f.querySelector("mjx-container") || f.querySelector("mjx-merror"));
  if (bad.length) problems.push(`formula not drawn: ${bad[0].textContent.slice(0, 60)}`);
  frame.remove();
  return problems.map(problem => `${page}: ${problem}`);
}

(async () => {
  const problems = [];
  for (const page of PAGES) problems.push(...await look(page).catch(error => [`${page}: ${error}`]));
  fetch("/_problems", {method: "POST", body: JSON.stringify(problems)});
})();
</script>
"""


class Handler(SimpleHTTPRequestHandler):
    """Serve the pages, the one that looks at them all, and take what it found."""

    def do_GET(self):
        if self.path != "/_look.html":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.server.look.encode())

    def do_POST(self):
        self.server.problems = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.done.set()

    def log_message(self, *arguments):
        pass


def check_on_phone(root, paths, browser, seconds):
    """Return a line for all that is wrong on a phone. One browser opens one page after the other."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=root))
    server.look, server.done, server.problems = LOOK % (PHONE, json.dumps(paths)), threading.Event(), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={profile}",
                f"http://127.0.0.1:{server.server_port}/_look.html",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        finished = server.done.wait(seconds)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    server.shutdown()
    return server.problems if finished else [f"{browser} did not finish in {seconds} seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", default="docs/_build/html", help="the folder of the built pages")
    parser.add_argument("--seconds", type=int, default=400, help="how long the browser may take")
    arguments = parser.parse_args()
    root = Path(arguments.root).resolve()
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.html"))
    paths = [path for path in paths if not path.startswith(("_static/", "_downloads/"))]
    problems = list(check_files(root, {path: Page(root / path) for path in paths}))
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser:
        problems += check_on_phone(root, paths, browser, arguments.seconds)
    else:
        print(f"Skipped what a phone shows: there is none of {', '.join(BROWSERS)}.")
    print(*problems, f"{len(paths)} pages, {len(problems)} problems", sep="\n")
    return bool(problems or not paths)


if __name__ == "__main__":
    sys.exit(main())
