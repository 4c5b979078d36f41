"""Refusals: which error a response with a status of 400 or more is, in the server's own words. Pure.

Header names and codes of the hub: https://huggingface.co/docs (X-Error-Code, X-Error-Message).

A hint names the one thing to change: a variable, a setting, a server. It never sends a person to do what cannot help.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from mdl.bounds import LONGEST_QUOTE, parse_json
from mdl.errors import AuthError, MdlError, NetworkError, NotFound
from mdl.net.allowlist import DEFAULT_PORTS, AllowList, bracketed, host_of, is_public
from mdl.net.credentials import HostCredential, certificate_wanted
from mdl.net.headers import retry_after
from mdl.net.policy import LONGEST_RETRY_AFTER, is_temporary
from mdl.net.proxies import Proxy
from mdl.paths import shown
from mdl.redact import bare_url, redact_value
from mdl.values import value_class

_LOOKED_AT = 4096
_PAGE = re.compile(rb"<(!doctype\s+html|html|head|title)\b", re.IGNORECASE)
_SAYING = ("error", "errors", "message", "error_description", "detail")
_CLOCK = re.compile(r"not yet valid|TimeTooSkewed|request time and the (current|server)", re.IGNORECASE)
"""How S3 and others say that the time of a signature differs from their own clock."""
_GATEWAY = (502, 503, 504)
"""Statuses of a proxy that cannot reach the host."""
_OF_CERTIFICATES = (400, 401, 403, 495, 496)
_MISSES_CERTIFICATE = re.compile(r"no required ssl certificate|client certificate (is )?(required|missing)", re.I)
"""How nginx (400, 496), IIS (403.7) and others say in HTTP that they want a client certificate."""
_IS_REFUSED = re.compile(
    r"(invalid|bad|wrong|unknown|malformed|incorrect) ((user )?access )?(credential|token|authori[sz]ation|api key)"
    r"|(token|credential|api key)s?\b.{0,40}\b(expired|revoked|invalid|not valid|deleted|disabled|no longer)"
    r"|(expired|revoked) (user )?(access )?(token|credential)",
    re.IGNORECASE,
)
"""How hubs say that a token is not, or not any more, one of theirs."""
_LACKS_RIGHT = re.compile(
    r"fine-?grained|token settings|(permission|scope|right|role)s?\b.{0,60}\btoken"
    r"|token\b.{0,60}\b(permission|scope|role)|insufficient[ _](scope|permission)",
    re.IGNORECASE,
)
"""How hubs say that a token is good, and may not do this."""
_NO_LOGIN = re.compile(r"invalid user ?name|(user ?name|password).{0,20}(invalid|wrong|incorrect)", re.IGNORECASE)
"""What hubs say of a wrong token, and of a repository that is private or not there."""
_QUERY = re.compile(r"(\?|%3f)[^\s?]*\w\S*", re.IGNORECASE)
"""The query in a URL that a server repeats."""
_GUARDS = (
    ("cf-mitigated", "challenge", "Cloudflare"),
    ("x-amzn-waf-action", "challenge|captcha", "AWS WAF"),
    ("x-datadome", ".*", "DataDome"),
    ("server", "ddos-guard", "DDoS-Guard"),
)
"""Headers by which a guard before a server says that it wants a browser: name, value, the guard."""
_CHALLENGE = re.compile(r"just a moment|attention required|checking your browser|verify you are (a )?human", re.I)


def is_not_yet(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether the answer to a request for a file says, without an error, that the file is not there yet."""
    return status == 202 or (status == 204 and "retry-after" in headers)


def safe_excerpt(text: str, secrets: Iterable[str] = (), longest: int = LONGEST_QUOTE) -> str:
    """Return what a server said, in one line of at most ``longest`` characters, without ``secrets`` and without any
    query."""
    for form in (str, html.unescape):
        text = _QUERY.sub("?…", redact_value(form(text), secrets))
    return shown(" ".join(text.split()))[:longest]


def server_message(headers: Mapping[str, str], body: bytes, secrets: Iterable[str] = ()) -> str:
    """Return why the server refused, in one line, from a header, JSON, XML, an HTML title or plain text; "" if it said
    nothing."""
    text = headers.get("x-error-message", "") or _message_in(headers.get("content-type", ""), body)
    return safe_excerpt(text, secrets)


def _message_in(kind: str, body: bytes) -> str:
    text = body[:_LOOKED_AT].decode("utf-8", "replace")
    if "json" in kind or text.lstrip().startswith("{"):
        try:
            return _message_in_json(parse_json(text, allow_nan=True))
        except ValueError:
            pass
    for tag in ("Message", "title", "h1"):
        match = re.search(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.IGNORECASE | re.DOTALL)
        if match:
            return match[1]
    return "" if "<" in text else text.strip().split("\n")[0]


def _message_in_json(data: Any) -> str:
    """Return what an answer says under the usual keys; a whole sentence rather than the one word of a code before
    it."""
    if not isinstance(data, dict):
        return ""
    sayings = [_text_in(data.get(key)) for key in _SAYING]
    for saying in sayings:
        if " " in saying.strip():
            return saying
    return next(filter(None, sayings), "")


def _text_in(value: Any) -> str:
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("message") or value.get("msg")  # FastAPI writes ``msg`` of what it refuses
    return value if isinstance(value, str) else ""


def impostor(body: bytes) -> tuple[str, str] | None:
    """Return what a body is, by its beginning, if it is not the file, and what to do: a web page or a git-lfs
    pointer."""
    if body.startswith(b"version https://git-lfs.github.com/spec/"):
        return "what came is a git-lfs pointer, not the file", "use the URL under which the file itself is served"
    if not _PAGE.search(body[:_LOOKED_AT]):
        return None
    title = server_message({}, body)
    what = "what came is a web page" + (f", {title!r}" if title else "")
    return what, "if your network requires a sign-in, sign in first; else look at the URL in a browser"


def request_id(headers: Mapping[str, str], secrets: Iterable[str] = ()) -> str:
    """Return the server's own name for the request, to give to its support; "" if it has none."""
    for name in ("x-request-id", "x-amzn-trace-id", "x-amz-cf-id", "x-amz-request-id"):
        if headers.get(name):
            return safe_excerpt(headers[name], secrets, 100)
    return ""


@value_class
class Asker:
    """Who asked for what was refused. ``sent`` is where the token or credential comes from that was sent: a variable or
    a file; '' if none was. ``is_hub``: the hub in use refused it. ``is_redirected``: a redirect led to the one who
    did. ``is_located``: a bucket or a remote gave the link. ``credential`` is what the settings have for the host.
    ``proxy`` is what the request went through. ``is_open_without``: the same was served when it was asked once more
    without the token."""

    sent: str = ""
    is_hub: bool = False
    is_redirected: bool = False
    is_located: bool = False
    credential: HostCredential | None = None
    proxy: Proxy | None = None
    is_open_without: bool = False

    def is_of_hub(self, url: str, code: str) -> bool:
        """Return whether a hub refused ``url``, with its own ``code`` if it has one."""
        return self.is_hub or bool(code) or AllowList(frozenset()).allows(host_of(url), DEFAULT_PORTS["https"])


def error_for_status(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    url: str,
    asker: Asker = Asker(),
    secrets: Iterable[str] = (),
) -> MdlError:
    """Return the error that an HTTP status of 400 or more is. The message names the host of ``url``.

    ``secrets`` were sent to the server. The message does not contain them, even if the server repeated them.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    words = server_message(headers, body, secrets)
    code = headers.get("x-error-code", "")
    ident = request_id(headers, secrets)
    answer = f"{status} {phrase}".rstrip()
    says_more = words.lower().strip(". ") not in ("", str(status), phrase.lower(), answer.lower())
    message = f"{host_of(url)} answered {answer}" + (f": {words}" if says_more else "")
    message += f" (request {ident})" if ident else ""
    if status == 407:
        hint = proxy_login_hint(asker.proxy, headers.get("proxy-authenticate", ""))
        return AuthError(f"the proxy for {message}", hint=hint)
    is_plain = asker.proxy is not None and urlsplit(url).scheme == "http"
    if is_plain and status in (403, *_GATEWAY) and is_of_proxy(headers):
        assert asker.proxy is not None
        message = f"the proxy {asker.proxy.shown} for {message}"
        hint = proxy_trouble_hint(url, asker.proxy)
        return AuthError(message, hint=hint) if status == 403 else NetworkError(message, hint=hint)
    if status in (401, 403, 429, 503) and (guard := guard_of(headers, words)):
        return AuthError(message, hint=browser_hint(url, guard))
    has_expired = status == 400 and b"<Code>ExpiredToken</Code>" in body  # so says S3 when temporary keys have ended
    if urlsplit(url).scheme == "https" and status in _OF_CERTIFICATES and _MISSES_CERTIFICATE.search(words):
        return certificate_wanted(url, f"it answered {answer}: {words}")
    if status in (401, 403, 404, 410) or has_expired:
        kind = NotFound if status in (404, 410) else AuthError
        return kind(message, hint=_advice(kind, code, words, url, asker))
    asked = retry_after(headers)
    if is_not_yet(status, headers):
        message = f"{host_of(url)} is preparing the file ({answer})" + (f": {words}" if words else "")
    elif not is_temporary(status, None) and asked is None:  # who names a time will serve it later
        return NetworkError(message, hint="the server will not serve this as asked", final=True, is_answer=True)
    if asked is not None and asked > LONGEST_RETRY_AFTER:
        return NetworkError(
            f"{message}; it asks to wait {asked:.0f} s",
            hint="run the same command again later",
            final=True,
            is_answer=True,
        )
    hint = "run the same command again later; what was fetched is kept"
    return NetworkError(message, hint=hint, retry_after=asked, is_answer=True)


def _advice(kind: type[MdlError], code: str, words: str, url: str, asker: Asker) -> str:
    """Return what to do about a refusal: that depends on who refused, and on what it was sent."""
    if kind is AuthError and _CLOCK.search(words):
        return "check this machine's clock, its date and time zone: the server checks the time of a request"
    if asker.is_located:
        return "look whether the file is still there, and whether the keys for it may read it"
    if asker.is_of_hub(url, code):
        return _advice_of_hub(kind, code, words, url, asker)
    if asker.is_redirected:
        return "a redirect led there, and no credential goes along: run it again for a new link, or use a direct URL"
    return _advice_of_host(kind, url, asker)


def _advice_of_hub(kind: type[MdlError], code: str, words: str, url: str, asker: Asker) -> str:
    """Return what to do about a refusal of a hub, which has a ``code`` of its own for some of them."""
    if kind is NotFound:
        if code == "RevisionNotFound":
            return "check the revision"
        if code == "EntryNotFound":
            return "check the file's path in the repository"
        access = "a private repository needs HF_TOKEN"
        if asker.sent:
            access = f"a token was sent ({asker.sent}): is it allowed? 'mdl doctor' says whose it is"
        return f"check the name{_or_dataset(url)}; {access}"
    page = page_of(url)
    if asker.sent and asker.is_open_without:
        return f"{asker.sent} is not accepted; without it this repository is open: unset it, or make a new one"
    if asker.sent and _LACKS_RIGHT.search(words):
        return f"{asker.sent} lacks a right for this: change it in the token's settings, or use another token"
    if code == "GatedRepo":
        need = "with an account that has access, then set HF_TOKEN"
        if asker.sent:
            need = "with the token's account"
        return f"gated: accept the licence at {page} {need}"
    if _IS_REFUSED.search(words):
        return f"{asker.sent or 'HF_TOKEN'} is wrong or has expired; make a new one"
    if asker.sent:
        return (
            f"a token was sent ({asker.sent}), and has no access, or the repository does not exist: the server does "
            "not say which; 'mdl doctor' says whose token it is"
        )
    return f"absent, private or gated: the server does not say which; if it exists, set HF_TOKEN{_or_dataset(url)}"


def page_of(url: str) -> str:
    """Return the page of the repository that a URL of the hub is about."""
    page = re.sub(r"/(resolve|api|raw)/.*", "", bare_url(url).replace("/api/models/", "/").replace("/api/", "/"))
    return re.sub(r"/(tree|revision)/.*", "", page)


def may_be_the_token(words: str) -> bool:
    """Return whether a hub says that the token itself is at fault, so that without it the answer may be another one."""
    return bool(_IS_REFUSED.search(words) or _NO_LOGIN.search(words))


def _or_dataset(url: str) -> str:
    """Return how a dataset is named, if ``url`` asks the hub for a model: a repository that is not there may be one."""
    return "; a dataset is hf:datasets/OWNER/NAME" if "/api/models/" in url else ""


def _advice_of_host(kind: type[MdlError], url: str, asker: Asker) -> str:
    """Return what to do about a refusal of any other host. A token of the hub has nothing to do with it."""
    if asker.sent and kind is NotFound:
        return f"check the URL; {asker.sent} was sent"
    if asker.sent:
        return f"{asker.sent} was sent: is it still valid?"
    credential = asker.credential
    if credential and credential.secret:
        only = "a credential goes over https only, and not through a proxy without TLS"
        return f"{credential.source} was not sent: {only}"
    if credential:
        return f'[hosts."{credential.place}"] names {credential.source}, which has nothing for it: set it'
    parts = urlsplit(url)
    place = parts.netloc.lower()
    variable = _variable_of(parts.hostname or "")
    need = "if it needs a token"
    if kind is NotFound:
        need = f"check the URL; {need}"
    return f"""{need}, write into config.toml: [hosts."{place}"] token_env = "{variable}"; then set {variable}"""


def _variable_of(host: str) -> str:
    """Return a name for the variable with the token of a host: ``CIVITAI_TOKEN`` for civitai.com."""
    words = re.findall("[A-Z]+[A-Z0-9]*", host.removeprefix("www.").upper())
    if len(words) < 2:
        return "MY_TOKEN"
    return f"{words[-2]}_TOKEN"


# Hints: what to do, from what the answer, the error and the environment show.


def guard_of(headers: Mapping[str, str], words: str) -> str:
    """Return the guard before a server that refused because it wants a browser; '' if there is no sign of one."""
    for name, value, guard in _GUARDS:
        found = headers.get(name)
        is_certain = name != "server" or bool(_CHALLENGE.search(words))
        if found is not None and is_certain and re.fullmatch(value, found.strip(), re.I):
            return guard
    if _CHALLENGE.search(words):
        return "Cloudflare" if "cloudflare" in headers.get("server", "").lower() else "a guard before it"
    return ""


def browser_hint(url: str, guard: str) -> str:
    """Return what to do about a host that wants a browser."""
    return f"{host_of(url)} ({guard}) wants a browser: download it there, then mdl import, or take another source"


def proxy_login_hint(proxy: Proxy | None, offers: str) -> str:
    """Return what to do about a proxy that wants another login. ``offers`` are its Proxy-Authenticate headers."""
    variable = proxy.variable if proxy else "the proxy variable"
    words = [part.split()[0] for part in offers.split(",") if part.strip()]
    schemes = [word for word in dict.fromkeys(words) if "=" not in word]
    if schemes and "basic" not in (scheme.lower() for scheme in schemes):
        return (
            f"the proxy takes {', '.join(schemes)} alone, and mdl speaks Basic: a password in {variable} cannot help; "
            "run a local helper that signs in, such as px or cntlm, and name that"
        )
    if proxy and "@" in proxy.url:
        return f"check the user name and password of {variable}; in a password / is %2F, : is %3A and @ is %40"
    return f"write user name and password into {variable}: http://USER:PASSWORD@HOST:PORT"


def proxy_trouble_hint(url: str, proxy: Proxy) -> str:
    """Return what to do about a proxy that cannot be reached, or cannot reach the host of ``url``."""
    host = host_of(url)
    if not is_public(host):
        return f"{host} is of your own network: NO_PROXY={host} has it asked directly; else check {proxy.variable}"
    return f"check {proxy.variable}; if {host} needs no proxy, add it to NO_PROXY"


def is_of_proxy(headers: Mapping[str, str]) -> bool:
    """Return whether a proxy wrote this answer to a plain request itself."""
    names = ("x-squid-error", "proxy-status", "proxy-connection", "x-proxy-error")
    return any(name in headers for name in names) or "squid" in headers.get("server", "").lower()


def loop_hint(hops: Sequence[Mapping[str, str]]) -> str:
    """Return what to do about redirects without an end. ``hops`` are their headers, and the URL of each as ``:url``."""
    urls = [hop[":url"] for hop in hops]
    if any("set-cookie" in hop for hop in hops):
        return "the answers set a cookie, which mdl never sends: download it in a browser, then mdl import"
    if len(set(urls)) < len(urls):
        hosts = " and ".join(dict.fromkeys(host_of(url) for url in urls))
        return f"its addresses lead back to one another: that is a setting of {hosts}; take another URL or a mirror"
    return "give the URL at which the redirects end"


def plain_http_hint(current: str, target: str) -> str:
    """Return what to do about a redirect from https to http."""
    if host_of(current) == host_of(target):
        return (
            f"that is a setting of {host_of(current)}: behind a TLS proxy it must know its own address "
            "(X-Forwarded-Proto: https), or name the http:// URL yourself"
        )
    return f"that is a setting of {host_of(current)}: ask its owner for an https URL, or name the http:// URL yourself"


def not_http_hint(words: str, url: str) -> str:
    """Return what to do about a server whose answer is no HTTP/1.1. ``words`` quote how it begins."""
    place = bracketed(host_of(url))
    if r"\x15\x03" in words:
        return f"{place} speaks TLS on this port: write https://"
    if "SSH-" in words:
        return "an SSH server answers there: check the port in the URL"
    if re.search(r"\\x00\\x00.{1,4}\\x04\\x00", words):
        return f"{place} speaks HTTP/2 alone on this port, and mdl speaks HTTP/1.1: use another port or URL of it"
    return f"what answers at {place} on this port is no web server: check host and port in the URL, and the proxy"
