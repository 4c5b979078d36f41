"""Junk: the names of files that are no part of a model, whatever folder, bucket or archive lists them. Pure.

Two tables: what file systems, NAS systems, file managers, editors and programs that were killed leave behind; and the
logs that trainers, shells and schedulers write. Such a file is never weights, and never makes a model incomplete.
"""

from __future__ import annotations

import re
from functools import cache

_JUNK = {
    "a leftover of a network file system": r"\.nfs[0-9a-f].*|\.fuse_hidden[0-9a-f]+|\.panfs\..+|\.__afs.+",
    "macOS's own": r"\._.+|\.DS_Store|\.AppleDouble|\.AppleDB|\.AppleDesktop|\.Spotlight-V100|\.Trashes|\.fseventsd"
    r"|\.TemporaryItems|\.DocumentRevisions-V100|\.com\.apple\..+|\.apdisk|\.localized|\.VolumeIcon\.icns|Icon\r"
    r"|__MACOSX|Network Trash Folder|Temporary Items",
    "a NAS system's own": r"@eaDir|@__thumb|\.@__thumb|#recycle|@Recycle|@Recently-Snapshot|#snapshot|@tmp|\.snapshots?"
    r"|~snapshot|\.zfs|.+@SynoEAStream|.+@SynoResource|SYNO@\..+|\.SynologyWorkingDirectory|\.streams",
    "a file manager's own": r"Thumbs\.db(:.+)?|ehthumbs\.db|desktop\.ini|\$RECYCLE\.BIN|System Volume Information"
    r"|RECYCLER|.+:Zone\.Identifier|\.directory|\.Trash(-[0-9]+)?|\.thumbnails|\.xdg-volume-info|\.goutputstream-.+|\.hidden"
    r"|\.dropbox(\.(attr|cache|device))?|\.stfolder|\.stversions|\.syncthing\..+\.tmp|~syncthing~.+\.tmp",
    "a leftover of fsck": r"lost\+found|FOUND\.[0-9]{3}|FILE[0-9]{4}\.CHK|FSCK[0-9]{4}\.REC",
    "an editor's own": r".+\.(swp|swo|swn|kate-swp)|\.#.+|#.+#|.+~|\.~lock\..+#|~\$.+|\.idea|\.vscode|\.vs|\.fleet"
    r"|.+\.code-workspace|.+\.sublime-(project|workspace)",
    "half-written": r".+\.(incomplete|crdownload|aria2|!qB|filepart|gstmp|lftp-pget-status)|\..+\.mdl-tmp|\.~tmp~"
    r"|\.rsync-(partial|tmp)|.+\.[0-9a-f]{8}\.partial|\.azDownload-.+"
    r"|.+\.(safetensors|bin|pt|pth|ckpt|gguf|zip)\.[0-9a-f]{8}"
    r"|\..+\.(safetensors|bin|pt|pth|ckpt|gguf|zip)\.[A-Za-z0-9]{6}",
    "a program's own": r".+\.(pyc|pyo|lock|pid)",
    "a cache": r"__pycache__",
}
_ANY_JUNK = "|".join(f"(?:{names})" for names in _JUNK.values())

_JOB = r"[0-9]+([._-][0-9]+)*"
_LOGS = (
    # trainers
    r".+\.log([._-][0-9][0-9._:T-]*)?(\.(gz|xz|zst|bz2))?|(.+[_-])?logs?\.txt|log|trainer_log\.jsonl|progress\.json"
    r"|log_history\.json|events\.out\.tfevents\..+|(metrics|loss)\.(csv|jsonl?)"
    # shells, and programs that record a terminal
    r"|nohup\.(out|err)|(std[_-]?)?(out|err|output|error)([-_.]?[0-9]+)?\.txt|stdout|stderr|.+\.(out|err|stdout|stderr)"
    r"|typescript|screenlog(\.[0-9]+)?"
    # Slurm; PBS and Grid Engine (name.o123, name.e123, of an array with .7); LSF
    rf"|.+\.(out|err)[._-]{_JOB}|.+\.p?[oe][0-9]{{3,}}([._-][0-9]+)?|(lsf|output|error|out|err)\.{_JOB}"
)


@cache
def _compiled(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """These patterns are long: to compile them takes 4 ms, which a command that names no file need not spend."""
    return re.compile(pattern, flags)


def why_junk(name: str) -> str | None:
    """Why a file or folder of this name is no part of a model; None if it may be one. Logs are told by `is_log`."""
    if not _compiled(_ANY_JUNK, re.IGNORECASE).fullmatch(name):
        return None
    return next(why for why, names in _JUNK.items() if _compiled(names, re.IGNORECASE).fullmatch(name))


def why_junk_path(path: str) -> str | None:
    """The same for a path: a file in a junk folder is junk too."""
    whys = map(why_junk, path.split("/"))
    return next((why for why in whys if why), None)


def is_log(name: str) -> bool:
    """Whether a file of this name is a log and nothing else, so that a model does not need it. A path will do."""
    return _compiled(_LOGS).fullmatch(name.rpartition("/")[2]) is not None
