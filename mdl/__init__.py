"""mdl: models to the machine that needs them, trained runs away from the machine that made them. Every byte verified.

    import mdl

    path = mdl.get("hf:org/repo@v1.0", include=["*.safetensors"])
    report = mdl.download(["bert-fa", "nightly"], home="/models", locked=True)

The functions here are one operation each under the settings given; `Client` keeps the settings for several. Names are
imported when they are first used. See docs/python.md.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would cost more than all of this
    from mdl.api import (
        ArchiveLimits,
        ArchiveMember,
        PackPlan,
        PackResult,
        ReleaseResult,
        UnpackResult,
        checkpoints,
        contents,
        download,
        get,
        lock,
        pack,
        plan,
        plan_pack,
        release,
        rollback,
        unpack,
        verify,
        write_pack,
    )
    from mdl.cancel import CancelToken
    from mdl.catalog.model import Catalog, Model
    from mdl.client import Client, MdlWarning
    from mdl.config import Settings
    from mdl.engine.status import ModelStatus
    from mdl.errors import (
        AuthError,
        Busy,
        Cancelled,
        CatalogError,
        Deadline,
        DigestMismatch,
        LockError,
        MdlError,
        NetworkError,
        NoSpace,
        NotFinished,
        NotFound,
        Occupied,
        PartialFailure,
        ProtocolError,
        StateError,
        StorageError,
        TlsError,
        Unsafe,
        UsageError,
    )
    from mdl.operations.clean import Waste
    from mdl.reports import FileReport, LockReport, ModelReport, PlanReport, Report, VerifyReport
    from mdl.trainers.runs import Run

__all__ = [
    "ArchiveLimits",
    "ArchiveMember",
    "AuthError",
    "Busy",
    "CancelToken",
    "Cancelled",
    "Catalog",
    "CatalogError",
    "Client",
    "Deadline",
    "DigestMismatch",
    "FileReport",
    "LockError",
    "LockReport",
    "MdlError",
    "MdlWarning",
    "Model",
    "ModelReport",
    "ModelStatus",
    "NetworkError",
    "NoSpace",
    "NotFinished",
    "NotFound",
    "Occupied",
    "PackPlan",
    "PackResult",
    "PartialFailure",
    "PlanReport",
    "ProtocolError",
    "ReleaseResult",
    "Report",
    "Run",
    "Settings",
    "StateError",
    "StorageError",
    "TlsError",
    "UnpackResult",
    "Unsafe",
    "UsageError",
    "VerifyReport",
    "Waste",
    "__version__",
    "checkpoints",
    "contents",
    "download",
    "get",
    "lock",
    "pack",
    "plan",
    "plan_pack",
    "release",
    "rollback",
    "unpack",
    "verify",
    "write_pack",
]
_HOMES = {
    "mdl.api": (
        *("ArchiveLimits", "ArchiveMember", "PackPlan", "PackResult", "ReleaseResult", "UnpackResult", "checkpoints"),
        *("contents", "download", "get", "lock", "pack", "plan", "plan_pack", "release", "rollback", "unpack"),
        *("verify", "write_pack"),
    ),
    "mdl.cancel": ("CancelToken",),
    "mdl.catalog.model": ("Catalog", "Model"),
    "mdl.client": ("Client", "MdlWarning"),
    "mdl.config": ("Settings",),
    "mdl.engine.status": ("ModelStatus",),
    "mdl.operations.clean": ("Waste",),
    "mdl.reports": ("FileReport", "LockReport", "ModelReport", "PlanReport", "Report", "VerifyReport"),
    "mdl.trainers.runs": ("Run",),
}
"""The modules of the public names; every other one is an error."""
_MODULES = ("errors", "events", "reports")
"""The public modules beside them."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return importlib.import_module(f"mdl.{name}")
        if name not in __all__:
            raise AttributeError(f"module 'mdl' has no attribute {name!r}")
        home = next((module for module, names in _HOMES.items() if name in names), "mdl.errors")
        found = globals()[name] = getattr(importlib.import_module(home), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
