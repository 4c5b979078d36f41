"""Default excludes: what is never packed unless a user names it: secrets, and what tools leave behind. Pure.

The patterns are the names that programs really give to their keys, tokens and histories, so that no file of a model
is mistaken for one. Two names are close: people keep an access token in ``token.txt``, which is excluded;
``tokens.txt`` is the vocabulary of speech models (icefall, k2, sherpa), which is packed.
"""

from __future__ import annotations

import re

from mdl.weights.junk import why_junk

_TRACKER = "an experiment tracker's own files"
_CREDENTIALS = (
    ".ssh .aws .azure .gcloud .oci .kube .docker .gnupg .pki .password-store .huggingface .kaggle"
    " .databricks .cloudflared .terraform.d .mc .vnc .jupyter .secret .secrets .credentials"
)
_WHY_HIDDEN = {
    **dict.fromkeys((".git", ".hg", ".svn", ".jj"), "version control"),
    **dict.fromkeys((".neptune", ".clearml", ".aim", ".dvc"), _TRACKER),
    **dict.fromkeys((".cache", ".ipynb_checkpoints", ".pytest_cache", ".mypy_cache", ".ruff_cache"), "a cache"),
    **dict.fromkeys((".venv", ".env"), "an environment"),
    **dict.fromkeys(_CREDENTIALS.split(), "credentials"),
    **dict.fromkeys((".config", ".ipython", ".history"), "settings and histories of other programs"),
    ".mdl": "mdl's own",
}
"""Names of folders; a file of such a name (a submodule's ``.git``) is excluded too."""
_WHY_FOLDER = {
    **dict.fromkeys(("secrets", "credentials", "private_keys", "keyrings"), "credentials"),
    **dict.fromkeys(("venv", "node_modules"), "an environment"),
    "wandb": _TRACKER,
}

_TEXT = r"(\.(txt|json|ya?ml|toml|ini|cfg|conf|csv|xml|env|db|pickle|enc))?"
"""The suffixes of a text file that may hold nothing but a secret; weights have other suffixes."""
_OWNER = (
    r"(api|access|refresh|auth|oauth|bearer|jwt|session|secret|private|personal|service|bot|deploy"
    r"|hf|hugging[-_]?face|git|gh|github|gitlab|openai|anthropic|wandb|runpod|civitai|modal|replicate|kaggle"
    r"|aws|s3|gcp|gcs|gcloud|google|firebase|sa|azure|vault|ssh|pypi|npm|slack|discord|telegram)"
)
"""Whose key or token it is. Any other word before it may be a model's: ``eos_token.txt``, ``label_key.json``."""
_NAMES = (
    # tokens, keys, passwords in files of their own
    r"\.?token(\.(txt|json|pickle))?|stored_tokens|rootkey\.csv|client[-_]?secrets?.*\.json",
    r"\.?o?auth\.(json|toml)|\.?cookies?\.(txt|json|sqlite)",
    # private keys
    r"id_(rsa|dsa|ecdsa|ed25519)(_sk)?([-_.].+)?|ssh_host_.+_key|kubeconfig(\.ya?ml)?|krb5cc_.+",
    # environments and settings that hold them
    r"\.env(\..+)?|\.envrc|[._]netrc|\.git-credentials|\.pypirc|\.npmrc|\.yarnrc\.yml|\.?pgpass(\.conf)?|\.htpasswd",
    r"\.my(login)?\.cnf|\.s3cfg|\.s3curl|\.boto|\.?passwd-s3fs|\.?rclone\.conf|\.databrickscfg|\.cdsapirc|\.terraformrc",
    r"credentials\.tfrc\.json|\.dockercfg|\.dockerconfigjson|kaggle\.json|\.modal\.toml|\.comet\.config|\.sentryclirc",
    # histories of commands, and keys to the screen
    r"\..*history|fish_history|\.octave_hist|\.lesshst|\.viminfo|\.zhistory|\.(X|ICE)authority",
)
_ENDINGS = (
    rf"(^|[-_.]){_OWNER}[-_.]?(access[-_]?)?(tokens?|key){_TEXT}|(^|[-_.])(api|access|secret|private|ssh)[-_.]?keys{_TEXT}",
    rf"(^|[-_.])(secrets?|credentials?|passw(or)?ds?|passphrase){_TEXT}|service[-_]?account.*\.json",
    r"-firebase-adminsdk-.*\.json|\.(key|pem|p8|p12|pfx|pkcs12|der|ppk|keystore|jks|keytab|kdbx|ovpn|kubeconfig)",
    r"\.(env|tfvars|tfvars\.json|tfstate|tfstate\.backup)",
)
_SECRET = re.compile(rf"^({'|'.join(_NAMES)})$|({'|'.join(_ENDINGS)})$", re.IGNORECASE | re.DOTALL)
_NOT_SECRET = re.compile(r"\.env\.(example|sample|template|dist)|(example|sample|template)\.env|.+\.pub", re.IGNORECASE)
_BACKUP = re.compile(r"(~|[._-](bak|backup|old|orig|save|copy))+$", re.IGNORECASE)
"""What is appended to the name of a second copy."""


def why_excluded(name: str, *, is_folder: bool) -> str | None:
    """Return why an entry of this name is excluded, or None."""
    lower = name.lower()
    if is_folder and lower in _WHY_FOLDER:
        return _WHY_FOLDER[lower]
    if not is_folder and _is_secret(name):
        return "may hold a secret"
    return _WHY_HIDDEN.get(lower) or why_junk(name)


def _is_secret(name: str) -> bool:
    """Tell whether a file of this name, or the file that it is a copy of, is one that programs keep a secret in."""
    if _SECRET.search(name):
        return not _NOT_SECRET.fullmatch(name)
    original = _BACKUP.sub("", name)
    return original != name and _is_secret(original)
