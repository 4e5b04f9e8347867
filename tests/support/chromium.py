"""Pages tried in headless Chromium: a harness beside the page runs a script in a frame of a phone's or a desk's width."""

import json
import re
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HARNESS = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" src="{page}" style="border:0;width:{width}px;height:900px"></iframe>
<script>
// What is written in the elements that a selector finds: pixels of height, drawings' scale included, and the text.
const textSizes = (window, selector) => [...window.document.querySelectorAll(selector)].filter((element) => {{
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  return own && element.getBoundingClientRect().width && !["SCRIPT", "STYLE"].includes(element.tagName);
}}).map((element) => {{
  const svg = element.closest("svg"), scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
  return [parseFloat(window.getComputedStyle(element).fontSize) * scale, element.textContent.slice(0, 40)];
}}).sort((a, b) => a[0] - b[0]);
const frame = document.getElementById("page");
frame.addEventListener("load", () => setTimeout(() => {{
  const window = frame.contentWindow, document = frame.contentDocument;
  const found = ((window, document) => {{ {script} }})(window, document);
  const out = self.document.createElement("script");
  out.type = "application/json"; out.id = "found"; out.textContent = JSON.stringify(found);
  self.document.body.append(out);
}}, 50));
</script>
"""


def run_in(page, script, width=1280, dark=False):
    """What the body of a function of (window, document) returns in a page, and the messages on its console."""
    harness = page.with_name("harness.html")
    harness.write_text(HARNESS.format(page=page.name, width=width, script=script), encoding="utf-8")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--enable-logging=stderr", "--log-level=0"]
    command += ["--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", harness.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    harness.unlink()
    found = re.search(r'<script type="application/json" id="found">(.*?)</script>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(found[1]), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
