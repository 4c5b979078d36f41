"""Run the network tests with httpx2, the maintained continuation of httpx, in the place of httpx.

A copy of the tree is made in which ``mdl/net`` imports httpx2 and httpcore2, and a virtual environment in which that
copy is installed, because many tests start ``python -m mdl``. The tests themselves still say httpx: in their process it
is an alias of httpx2, so that pytest-httpx and the tests see the classes that mdl uses.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "cli/test_certificates.py",
    "engine/test_deadline.py",
    "engine/test_encodings.py",
    "engine/test_headers.py",
    "engine/test_hub_answers.py",
    "engine/test_messages.py",
    "engine/test_redirects.py",
    "engine/test_trickles.py",
    "system/test_network_tls.py",
    "system/test_networks.py",
    "system/test_proxy_use.py",
    "unit/net/test_connection.py",
    "unit/net/test_decoding.py",
    "unit/net/test_handing_over.py",
    "unit/net/test_locators.py",
    "unit/net/test_one_answer.py",
    "unit/net/test_private_addresses.py",
    "unit/net/test_proxies.py",
    "unit/net/test_throttle.py",
    "unit/sources/test_hub.py",
    "unit/sources/test_hub_refusals.py",
)
EXCEPT = {
    "engine/test_redirects.py::test_locations_by_the_letter[////127.0.0.1/moved-11-None]": (
        "httpx refuses this Location by itself; httpx2 does not, and mdl asks the same host for //127.0.0.1/moved"
    ),
}
"""The tests that cannot pass with httpx2, and why."""
CHECK = "import sys, mdl.net.client; assert 'httpx2' in sys.modules and 'httpx' not in sys.modules, mdl.__file__"
ALIAS = "import httpx2\n\nhttpx2.alias_httpx()\n"


def moved(text: str) -> str:
    """The source of a module with httpx2 and httpcore2 imported under the names of httpx and httpcore."""
    text = re.sub(r"^import (httpx|httpcore)$", r"import \g<1>2 as \1", text, flags=re.MULTILINE)
    return re.sub(r"^from (httpx|httpcore)\b", r"from \g<1>2", text, flags=re.MULTILINE).replace("httpx._", "httpx2._")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mdl-httpx2-") as folder:
        tree, environment = Path(folder, "tree"), Path(folder, "venv")
        skipped = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, tree, symlinks=True, ignore=skipped)
        for file in (tree / "mdl" / "net").glob("*.py"):
            file.write_text(moved(file.read_text("utf-8")), "utf-8")
        (tree / "alias.py").write_text(ALIAS, "utf-8")
        venv.create(environment, symlinks=True)
        paths = {"base": str(environment), "platbase": str(environment)}
        packages = [path for path in sys.path if "site-packages" in path and Path(path).is_dir()]
        Path(sysconfig.get_path("purelib", "venv", paths), "tree.pth").write_text("\n".join([str(tree), *packages]))
        python = environment / "bin" / "python"
        subprocess.run([python, "-c", CHECK], cwd=folder, check=True)
        words: list[str | Path] = [python, "-m", "pytest", "-q", "-p", "alias", "-p", "no:xdist"]
        words += ["-o", "addopts=--strict-markers --strict-config --import-mode=importlib"]
        words += [word for name in EXCEPT for word in ("--deselect", f"tests/{name}")]
        return subprocess.run([*words, *(f"tests/{name}" for name in TESTS)], cwd=tree, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
