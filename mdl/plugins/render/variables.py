"""Variables: those of this shell that mdl reads. A scheduler starts mdl without them, so a manifest names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mdl.config.settings import settings_table
from mdl.redact import Secrets, has_secret, redact
from mdl.units import as_meant

_SECRET = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "RUNPOD_API_KEY"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)
_OPEN = (
    *("HF_ENDPOINT", "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"),
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_PROGRESS_BARS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"),
    *("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    *("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "NO_COLOR"),
)
"""Variables of other programs that mdl reads, as the page of the configuration lists them."""


def variables_of(environ: Mapping[str, str], credentials: Iterable[str] = ()) -> dict[str, str]:
    """The variables that mdl reads and ``environ`` has, by their names, each with its value.

    The value is '' if it may be a secret, or is more than one line. ``credentials`` are the names of variables whose
    values are secrets.
    """
    secret_names = {*_SECRET, *credentials}
    settings = {setting.variable_name for setting in settings_table().values()}
    secrets = Secrets.of(environ)
    secrets.add_all(environ.get(name) for name in secret_names)
    found: dict[str, str] = {}
    for name in sorted(secret_names.union(_OPEN, settings).intersection(environ)):
        value = as_meant(environ[name])
        if not value:
            continue
        is_open = name not in secret_names and value.isprintable() and not has_secret(value)
        found[name] = value if is_open and redact(value, secrets) == value else ""
    return found
