"""What is never packed unless it is named: secrets, and what tools leave behind. Pure."""

from __future__ import annotations

import re

_FOLDERS = {
    **dict.fromkeys((".git", ".hg", ".svn"), "version control"),
    **dict.fromkeys(("wandb", ".neptune", ".clearml", ".aim", ".dvc"), "an experiment tracker's own files"),
    **dict.fromkeys(
        (".cache", "__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".mypy_cache", ".ruff_cache"), "a cache"
    ),
    **dict.fromkeys((".venv", "venv", "node_modules"), "an environment"),
    **dict.fromkeys((".ssh", ".aws", ".gnupg", ".kube", ".docker", ".huggingface"), "credentials"),
    ".mdl": "mdl's own",
}
_SECRET = re.compile(
    r"\.env(\..+)?|\.envrc|\.netrc|_netrc|\.git-credentials|\.pypirc|\.npmrc|\.pgpass|\.htpasswd"
    r"|token|\.token|hf_token|stored_tokens|credentials(\.json)?|secrets?\.(json|ya?ml|toml|env)"
    r"|id_(rsa|dsa|ecdsa|ed25519)|.+\.(pem|p12|pfx|keystore|jks)|service[-_]account.*\.json|kaggle\.json",
    re.IGNORECASE,
)
_NOT_SECRET = re.compile(r"\.env\.(example|sample|template)", re.IGNORECASE)
_JUNK = re.compile(r"\.DS_Store|Thumbs\.db|desktop\.ini|.+\.(pyc|swp|lock|incomplete)|\..+\.mdl-tmp", re.IGNORECASE)


def why_left_out(name: str, *, is_folder: bool) -> str | None:
    """Why an entry of this name is left out, or None."""
    if is_folder and name.lower() in _FOLDERS:
        return _FOLDERS[name.lower()]
    if _SECRET.fullmatch(name) and not _NOT_SECRET.fullmatch(name):
        return "may hold a secret"
    if _JUNK.fullmatch(name):
        return "not part of a model"
    return None
