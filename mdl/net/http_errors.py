"""Refusals: which error a response with a status of 400 or more is, in the server's own words. Pure.

Header names and codes of the hub: https://huggingface.co/docs (X-Error-Code, X-Error-Message).

A hint names the one thing to change: a variable, a setting, a server. It never sends a person to do what cannot help.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from mdl.errors import AuthError, MdlError, NetworkError, NotFound
from mdl.net.allowlist import host_of
from mdl.net.credentials import HostCredential, certificate_wanted
from mdl.net.headers import retry_after, sign_in_schemes
from mdl.net.policy import LONGEST_RETRY_AFTER
from mdl.net.proxies import UNKNOWN_PROXY, Proxy
from mdl.net.server_messages import filter_hint, request_id, server_message
from mdl.redact import bare_url
from mdl.values import value_class

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_KINDS: dict[int, type[AuthError | NotFound]] = {401: AuthError, 403: AuthError, 404: NotFound, 410: NotFound}
"""Statuses that are an error of another kind than trouble of the server."""
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
"""Statuses that may be followed by a better one."""
_OF_A_PROXY = (403, 502, 503, 504)
"""Statuses of a proxy that may not or cannot reach the host."""
_PROXY_HEADERS = frozenset({"x-squid-error", "proxy-status", "proxy-connection", "x-proxy-error"})
"""Headers by which a proxy says that it wrote the answer to a plain request itself."""
_OF_A_GUARD = (202, 401, 403, 405, 429, 503)
_GUARD_HEADERS = {"cf-mitigated": "Cloudflare", "x-amzn-waf-action": "AWS WAF", "x-datadome": "DataDome"}
"""Headers by which a guard before a server says that it wants a browser, and which guard it is."""
_GUARD_SIGNS = ("challenge", "captcha", "protected")
_CHALLENGE = r"(?i)just a moment|attention required|checking your browser|verify you are (a )?human"
_OF_CERTIFICATES = (400, 401, 403, 495, 496)
_MISSES_CERTIFICATE = r"(?i)no required ssl certificate|client certificate (is )?(required|missing)"
"""How nginx (400, 496), IIS (403.7) and others say in HTTP that they want a client certificate."""
_KEYS_ENDED = b"<Code>ExpiredToken</Code>"
"""How S3 says, with status 400, that temporary keys have ended."""
_IS_REFUSED = (
    r"(?i)(invalid|bad|wrong|unknown|malformed|incorrect) ((user )?access )?(credential|token|authori[sz]ation|api key)"
    r"|(token|credential|api key)s?\b.{0,40}\b(expired|revoked|invalid|not valid|deleted|disabled|no longer)"
    r"|(expired|revoked) (user )?(access )?(token|credential)"
)
"""How hubs say that a token is not, or not any more, one of theirs."""
_LACKS_RIGHT = (
    r"fine-?grained|token settings|(permission|scope|right|role)s?\b.{0,60}\btoken"
    r"|token\b.{0,60}\b(permission|scope|role)|insufficient[ _](scope|permission)"
)
"""How hubs say that a token is good, and may not do this."""
_NO_LOGIN = r"(?i)invalid user ?name|(user ?name|password).{0,20}(invalid|wrong|incorrect)"
"""What hubs say of a wrong token, and of a repository that is private or not there."""
_IS_CLOSED = r"(?i)(resource|repository) is disabled|has been (disabled|taken down)"
"""How hubs say that nobody gets a repository any more."""
_OF_THE_SERVER = (
    (
        r"not yet valid|TimeTooSkewed|request time and the (current|server)",
        "check this machine's clock, its date and time zone: the server checks the time of a request",
    ),
    (
        r"archived blob|being rehydrated|object'?s? (is |has been )?(archived|storage class)",
        "its owner has to ask it back from the archive, which takes hours; or take another source",
    ),
    (
        r"over (its|their) (data )?quota|(quota|bandwidth|download limit)\b.{0,40}\bexceeded",
        "no token helps: try again later, when the quota is free again, or take another source",
    ),
)
"""What no credential changes, and what to do: a clock that differs (S3), an object in cold storage (S3, Azure), a file
or an account of which so much was downloaded that it is closed for now (Git hosts, drives)."""
_OF_A_TOKEN = (
    (_LACKS_RIGHT, "{sent} may not do this: change its rights in the token's settings, or use another token"),
    (_IS_REFUSED, "{sent} is wrong or has expired: make a new one"),
)
"""What a hub says of a token that was sent, and what to do."""
_OF_A_GATE = (
    _OF_A_TOKEN[0],
    (
        r"\b(rejected|denied by)\b",
        "gated: its owners have refused the account of {sent}: ask them, or take another source",
    ),
    (
        r"\b(awaiting|pending)\b",
        "gated: its owners have not yet answered the account of {sent}: wait, or ask them at {page}",
    ),
    ("", "gated: accept the licence at {page} with the token's account"),
)
"""The same, of a gated repository."""
_FEW_WORDS = 4
"""Up to so many words of a refusal give no reason."""
_UNSPOKEN = r"digest|negotiate|ntlm|kerberos|scram-.+|hoba|mutual|aws4-.+"
"""Ways to sign in that no fixed header serves, in lower case. For all others ``send`` names one."""
_ABSENT_BY_CODE = {
    "RevisionNotFound": "check the revision",
    "EntryNotFound": "check the file's path in the repository",
}
"""Codes of the hub for what is missing, and what to do."""


@value_class
class Asker:
    """Who asked for what was refused. ``sent`` is where the token or credential comes from that was sent: a variable or
    a file; '' if none was. ``is_hub``: the hub in use refused it. ``is_redirected``: a redirect led to the one who
    did. ``is_located``: a bucket or a remote gave the link. ``credential`` is what the settings have for the host.
    ``proxy`` is what the request went through. ``is_open_without``: the same was served when it was asked once more
    without the token. ``is_expired``: the URL is signed, and says itself that its time is over. ``hub_moved_to`` is the
    other origin to which the address of the hub leads on; '' if it leads nowhere else."""

    sent: str = ""
    is_hub: bool = False
    is_redirected: bool = False
    is_located: bool = False
    credential: HostCredential | None = None
    proxy: Proxy | None = None
    is_open_without: bool = False
    is_expired: bool = False
    hub_moved_to: str = ""


def is_not_yet(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether the answer to a request for a file says, without an error, that the file is not there yet."""
    return status == 202 or (status == 204 and "retry-after" in headers)


def error_for_status(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    url: str,
    asker: Asker = Asker(),
    secrets: Iterable[str] = (),
) -> MdlError:
    """Return the error that an HTTP status of 400 or more is, or a status that `is_not_yet`. The message names the host
    of ``url``.

    ``secrets`` were sent to the server. The message does not contain them, even if the server repeated them.
    """
    secrets = tuple(secrets)
    host = host_of(url)
    words = server_message(headers, body, secrets)
    answer = f"{status} {_PHRASES.get(status, '')}".rstrip()
    says_more = words.lower().strip(". ") not in answer.lower()
    quoted = f": {words}" if says_more else ""
    message = f"{host} answered {answer}{quoted}{request_named(headers, secrets)}"
    guard = guard_of(headers, words)
    if status in _OF_A_GUARD and guard:
        hint = f"{host} ({guard}) wants a browser: download it there, then mdl import, or take another source"
        return AuthError(message, hint=hint)
    if status == 511:
        hint = "the network wants a sign-in: open any page in a browser, sign in, and run the same command again"
        return AuthError(message, hint=hint)
    if is_not_yet(status, headers):
        return server_trouble(f"{host} is preparing the file ({answer}){quoted}", status, headers, may_pass=True)

    proxy = asker.proxy
    if status == 407:
        hint = (proxy or UNKNOWN_PROXY).login_hint(headers.get("proxy-authenticate", ""))
        return AuthError(f"the proxy for {message}", hint=hint)
    if proxy and status in _OF_A_PROXY and url.startswith("http:") and is_of_proxy(headers):
        message = f"the proxy {proxy.shown} for {message}"
        hint = proxy.trouble_hint(url)
        return AuthError(message, hint=hint) if status == 403 else NetworkError(message, hint=hint)
    filtered = filter_hint(f"{words} {headers.get('server', '')}", host)
    if status == 403 and filtered:
        return AuthError(message, hint=filtered)
    if status in _OF_CERTIFICATES and re.search(_MISSES_CERTIFICATE, words):
        return certificate_wanted(url, f"it answered {answer}: {words}")
    if status in _KINDS:
        kind = _KINDS[status]
        return kind(message, hint=_advice(kind, headers, words, url, asker))
    is_bad_token = 400 <= status < 500 and asker.sent != "" and re.search(_IS_REFUSED, words)
    if is_bad_token or (status == 400 and _KEYS_ENDED in body):
        return AuthError(message, hint=_advice(AuthError, {}, words, url, asker))
    return server_trouble(message, status, headers)


def request_named(headers: Mapping[str, str], secrets: Iterable[str] = ()) -> str:
    """Return the end of a message that has the server's own name for the request; '' if it has none."""
    name = request_id(headers, secrets)
    return f" (request {name})" if name else ""


def server_trouble(message: str, status: int, headers: Mapping[str, str], *, may_pass: bool = False) -> NetworkError:
    """Return the error for a status that is trouble of the server. It is final unless the status often passes, the
    server names a time at which to ask again, or the caller knows that it ``may_pass``."""
    asked = retry_after(headers)
    if asked is not None and asked > LONGEST_RETRY_AFTER:
        message += f"; it asks to wait {asked:.0f} s"
        return NetworkError(message, hint="run the same command again later", final=True, is_answer=True)
    if status in _TEMPORARY or asked is not None or may_pass:
        hint = "run the same command again later; what was fetched is kept"
        return NetworkError(message, hint=hint, retry_after=asked, is_answer=True)
    return NetworkError(message, hint="the server will not serve this as asked", final=True, is_answer=True)


def is_of_proxy(headers: Mapping[str, str]) -> bool:
    """Return whether a proxy wrote this answer to a plain request itself."""
    return "squid" in headers.get("server", "").lower() or not _PROXY_HEADERS.isdisjoint(headers)


def guard_of(headers: Mapping[str, str], words: str) -> str:
    """Return the guard before a server that refused because it wants a browser; '' if there is no sign of one."""
    for name, guard in _GUARD_HEADERS.items():
        if headers.get(name) in _GUARD_SIGNS:
            return guard
    if not re.search(_CHALLENGE, words):
        return ""
    return "Cloudflare" if "cloudflare" in headers.get("server", "").lower() else "a guard before it"


def _advice(kind: type[MdlError], headers: Mapping[str, str], words: str, url: str, asker: Asker) -> str:
    """Return what to do about a refusal: that depends on who refused, and on what it was sent."""
    code = headers.get("x-error-code", "")
    hint = _hint_for(words, _OF_THE_SERVER)
    if hint:
        return hint
    if asker.is_located:
        return "look whether the file is still there, and whether the keys for it may read it"
    if asker.hub_moved_to and code not in _ABSENT_BY_CODE:
        return f"HF_ENDPOINT leads on to {asker.hub_moved_to}, and no token goes along: set HF_ENDPOINT to that"
    if asker.is_expired and not asker.is_redirected:
        return "the signature of this link has expired: get a new link where this one came from"
    if asker.is_hub or code:
        if kind is NotFound:
            return _advice_on_absent(code, url, asker.sent)
        return _advice_of_hub(code, words, url, asker)
    if asker.is_redirected:
        return "a redirect led there, and no credential goes along: run it again for a new link, or use a direct URL"
    return _advice_of_host(kind, url, asker, sign_in_schemes(headers.get("www-authenticate", "")))


def _hint_for(words: str, hints: Sequence[tuple[str, str]]) -> str:
    """Return the hint beside the first pattern that is in a server's words; '' if none is."""
    for pattern, hint in hints:
        if re.search(pattern, words, re.IGNORECASE):
            return hint
    return ""


def _advice_on_absent(code: str, url: str, sent: str) -> str:
    """Return what to do if a hub has no such thing, which has a ``code`` for some of them."""
    if code in _ABSENT_BY_CODE:
        return _ABSENT_BY_CODE[code]
    access = "a private repository needs HF_TOKEN"
    if sent:
        access = f"a token was sent ({sent}): is it allowed? 'mdl doctor' says whose it is"
    return f"check the name{_or_dataset(url)}; {access}"


def _advice_of_hub(code: str, words: str, url: str, asker: Asker) -> str:
    """Return what to do if a hub refuses access, which has a ``code`` for some of the reasons."""
    sent = asker.sent
    is_gated = code == "GatedRepo"
    if re.search(_IS_CLOSED, words):
        return "the hub gives it to nobody any more: take another source"
    if not sent:
        if is_gated:
            return f"gated: accept the licence at {page_of(url)} with an account that has access, then set HF_TOKEN"
        return f"absent, private or gated: the server does not say which; if it exists, set HF_TOKEN{_or_dataset(url)}"
    if asker.is_open_without:
        return f"{sent} is not accepted; without it this repository is open: unset it, or make a new one"
    hint = _hint_for(words, _OF_A_GATE if is_gated else _OF_A_TOKEN)
    if hint:
        return hint.format(sent=sent, page=page_of(url))
    if not code and len(words.split()) > _FEW_WORDS and not re.search(_NO_LOGIN, words):
        return f"{sent} was sent, and the server says why it does not help; 'mdl doctor' says whose token it is"
    return (
        f"a token was sent ({sent}), and has no access, or the repository does not exist: the server does "
        "not say which; 'mdl doctor' says whose token it is"
    )


def may_be_the_token(status: int, code: str, words: str) -> bool:
    """Return whether a hub says that the token itself is at fault, so that without it the answer may be another one.
    That is what 401 means, whatever the words, if a token was sent; the hub has a ``code`` for gated repositories."""
    is_unknown = status == 401 and code != "GatedRepo"
    return is_unknown or bool(re.search(_IS_REFUSED, words) or re.search(_NO_LOGIN, words))


def page_of(url: str) -> str:
    """Return the page of the repository that a URL of the hub is about."""
    page = re.sub(r"/(resolve|api|raw)/.*", "", bare_url(url).replace("/api/models/", "/").replace("/api/", "/"))
    return re.sub(r"/(tree|revision)/.*", "", page)


def _or_dataset(url: str) -> str:
    """Return how a dataset is named, if ``url`` asks the hub for a model: a repository that is not there may be one."""
    return "; a dataset is hf:datasets/OWNER/NAME" if "/api/models/" in url else ""


def _advice_of_host(kind: type[MdlError], url: str, asker: Asker, offers: list[str]) -> str:
    """Return what to do about a refusal of any other host, which ``offers`` these ways to sign in. A token of the hub
    has nothing to do with it."""
    check = "check the URL; " if kind is NotFound else ""
    schemes = {scheme.lower() for scheme in offers}
    is_basic = "basic" in schemes and "bearer" not in schemes
    credential = asker.credential
    if asker.sent:
        other = '; the host asks for send = "basic"' if is_basic and credential and credential.send != "basic" else ""
        return f"{check}{asker.sent} was sent: is it still valid?{other}"
    if credential:
        if credential.secret:
            only = "a credential goes over https only, and not through a proxy without TLS"
            return f"{credential.source} was not sent: {only}"
        return f'[hosts."{credential.place}"] names {credential.source}, which has nothing for it: set it'
    if schemes and all(re.fullmatch(_UNSPOKEN, scheme) for scheme in schemes):
        ways = ", ".join(offers)
        return f"{host_of(url)} takes {ways} alone, which mdl does not speak: fetch it with curl, then mdl import"
    place = urlsplit(url).netloc.lower()
    variable = _variable_of(host_of(url))
    table = f'[hosts."{place}"] token_env = "{variable}"'
    if is_basic:
        return f'{check}write into config.toml: {table}, and send = "basic"; then set {variable} to USER:PASSWORD'
    return f"{check}if it needs a token, write into config.toml: {table}; then set {variable}"


def _variable_of(host: str) -> str:
    """Return a name for the variable with the token of a host: ``CIVITAI_TOKEN`` for civitai.com."""
    words = re.findall("[A-Z]+[A-Z0-9]*", host.removeprefix("www.").upper())
    return f"{words[-2]}_TOKEN" if len(words) > 1 else "MY_TOKEN"
