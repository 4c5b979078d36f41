"""mdl: models to the machine that needs them, trained runs away from the machine that made them. Every byte verified.

    import mdl

    path = mdl.get("hf:org/repo@v1.0", include=["*.safetensors"])
    report = mdl.download(["bert-fa", "nightly"], home="/models", locked=True)

The functions here are one operation each under the settings given; `Client` keeps the settings for several. Names are
imported when they are first used. See docs/python.md.
"""

from __future__ import annotations

import importlib

__version__ = "0.2.0"

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would cost more than all of this
    # isort: off
    from mdl import errors as errors, events as events, reports as reports
    from mdl.api import (
        checkpoints as checkpoints,
        download as download,
        fetch as fetch,
        get as get,
        lock as lock,
        plan as plan,
        verify as verify,
    )
    from mdl.archive.base import ArchiveLimits as ArchiveLimits
    from mdl.cancel import CancelToken as CancelToken
    from mdl.catalog.model import Catalog as Catalog, Model as Model
    from mdl.client import Client as Client, MdlWarning as MdlWarning
    from mdl.config.settings import Settings as Settings
    from mdl.local.status import ModelStatus as ModelStatus
    from mdl.errors import (
        AuthError as AuthError,
        Busy as Busy,
        Cancelled as Cancelled,
        CatalogError as CatalogError,
        Deadline as Deadline,
        DigestMismatch as DigestMismatch,
        LockError as LockError,
        MdlError as MdlError,
        NetworkError as NetworkError,
        NoSpace as NoSpace,
        NotFinished as NotFinished,
        NotFound as NotFound,
        Occupied as Occupied,
        PartialFailure as PartialFailure,
        ProtocolError as ProtocolError,
        StateError as StateError,
        StorageError as StorageError,
        TlsError as TlsError,
        Unsafe as Unsafe,
        UsageError as UsageError,
    )
    from mdl.local.clean import Waste as Waste
    from mdl.ops.configure import SettingValue as SettingValue
    from mdl.ops.export import Export as Export, ExportedFile as ExportedFile
    from mdl.ops.fetch import FetchReport as FetchReport
    from mdl.local.import_folder import ImportedFile as ImportedFile, ImportReport as ImportReport
    from mdl.local.delete import DeletedModel as DeletedModel, DeleteReport as DeleteReport
    from mdl.local.delete_plan import KeptFile as KeptFile
    from mdl.local.move import MovedModel as MovedModel, MoveReport as MoveReport
    from mdl.ops.remote_model import RemoteModel as RemoteModel
    from mdl.local.inventory import Inventory as Inventory
    from mdl.ops.lock import LockReport as LockReport
    from mdl.ops.outdated import (
        FileChange as FileChange,
        ModelVersion as ModelVersion,
        Move as Move,
        OutdatedReport as OutdatedReport,
        UpdateReport as UpdateReport,
    )
    from mdl.ops.push import PushedFile as PushedFile, PushResult as PushResult
    from mdl.ops.pack import (
        PackPlan as PackPlan,
        PackRequest as PackRequest,
        PackResult as PackResult,
        pack as pack,
        plan_pack as plan_pack,
        write_pack as write_pack,
    )
    from mdl.ops.release import (
        ReleaseList as ReleaseList,
        ReleaseRequest as ReleaseRequest,
        ReleaseResult as ReleaseResult,
        ReleaseVersion as ReleaseVersion,
        release as release,
        releases as releases,
        rollback as rollback,
    )
    from mdl.ops.unpack import (
        ArchiveMember as ArchiveMember,
        UnpackRequest as UnpackRequest,
        UnpackResult as UnpackResult,
        contents as contents,
        unpack as unpack,
        verify_archive as verify_archive,
    )
    from mdl.ops.remote import CleanedJob as CleanedJob, RemoteReport as RemoteReport
    from mdl.local.verify import VerifyReport as VerifyReport
    from mdl.reports import (
        FileReport as FileReport,
        LeftOutFile as LeftOutFile,
        ModelReport as ModelReport,
        PlanReport as PlanReport,
        Report as Report,
    )
    from mdl.results.base import RemoteJob as RemoteJob
    from mdl.sources.gguf import Quantisation as Quantisation
    from mdl.sources.hub_api import FoundRepo as FoundRepo
    from mdl.runs.run import Run as Run

_HOMES = {
    "mdl.api": "checkpoints download fetch get lock plan verify",
    "mdl.archive.base": "ArchiveLimits",
    "mdl.cancel": "CancelToken",
    "mdl.catalog.model": "Catalog Model",
    "mdl.client": "Client MdlWarning",
    "mdl.config.settings": "Settings",
    "mdl.local.status": "ModelStatus",
    "mdl.errors": "AuthError Busy Cancelled CatalogError Deadline DigestMismatch LockError MdlError NetworkError "
    "NoSpace NotFinished NotFound Occupied PartialFailure ProtocolError StateError StorageError TlsError Unsafe "
    "UsageError",
    "mdl.local.clean": "Waste",
    "mdl.ops.configure": "SettingValue",
    "mdl.ops.export": "Export ExportedFile",
    "mdl.ops.fetch": "FetchReport",
    "mdl.local.import_folder": "ImportReport ImportedFile",
    "mdl.local.delete": "DeletedModel DeleteReport",
    "mdl.local.delete_plan": "KeptFile",
    "mdl.local.move": "MoveReport MovedModel",
    "mdl.ops.remote_model": "RemoteModel",
    "mdl.local.inventory": "Inventory",
    "mdl.ops.lock": "LockReport",
    "mdl.ops.push": "PushResult PushedFile",
    "mdl.ops.pack": "PackPlan PackRequest PackResult pack plan_pack write_pack",
    "mdl.ops.release": "ReleaseList ReleaseRequest ReleaseResult ReleaseVersion release releases rollback",
    "mdl.ops.unpack": "ArchiveMember UnpackRequest UnpackResult contents unpack verify_archive",
    "mdl.ops.remote": "CleanedJob RemoteReport",
    "mdl.ops.outdated": "FileChange ModelVersion Move OutdatedReport UpdateReport",
    "mdl.local.verify": "VerifyReport",
    "mdl.reports": "FileReport LeftOutFile ModelReport PlanReport Report",
    "mdl.results.base": "RemoteJob",
    "mdl.sources.gguf": "Quantisation",
    "mdl.sources.hub_api": "FoundRepo",
    "mdl.runs.run": "Run",
}
"""The public names, by the module that has them."""
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
_MODULES = ("errors", "events", "reports")
"""The public modules."""
__all__ = ["__version__", *_MODULE_OF]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return importlib.import_module(f"mdl.{name}")
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'mdl' has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
        return found


def __dir__() -> list[str]:
    """The public names, and those that every module has."""
    return sorted({*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))})
