"""A child Python of mdl begins here. ``python -I …/mdl/disk/child.py MODULE WORD…`` runs ``main()`` of a module.

`mdl.disk.process.python_command` gives the words. With ``-I`` the child's path has neither the current folder, nor the
folder of the user's packages, nor what a variable ``PYTHON…`` names: nothing that was downloaded is imported. The mdl
that is imported is the one that this file is part of, wherever that is installed.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def main() -> None:
    """Import this very mdl, and the module that the first word names, and do what that module does."""
    folder = Path(__file__).resolve().parents[1]
    spec = spec_from_file_location("mdl", folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    sys.modules["mdl"] = package
    spec.loader.exec_module(package)
    beside = str(folder.parent)
    if beside not in sys.path:
        sys.path.append(beside)  # mdl's libraries, if it was installed with pip install --user or --target
    del sys.argv[0]
    importlib.import_module(sys.argv[0]).main()


if __name__ == "__main__":
    main()
