"""References: hub ids, hub pages and URLs, as people write and paste them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each

from mdl.catalog.reader import parse_catalog
from mdl.catalog.targets import models_of
from mdl.errors import MdlError, Unsafe, UsageError
from mdl.sources import HUB_HOSTS, parse
from mdl.sources.hub_origin import HubOrigin, check_revision, parse_page, parse_reference
from mdl.sources.url_origin import check_url

SHA = "c61c0e422dc8b541b7548cf33a4ef8302b0f8085"

HUB = {
    "hf:org/repo": HubOrigin("org/repo"),
    "hf://org/repo": HubOrigin("org/repo"),
    "hf:org/repo/": HubOrigin("org/repo"),
    "hf:gpt2": HubOrigin("gpt2"),
    "hf:gpt2@main/config.json": HubOrigin("gpt2", revision="main", subpath="config.json"),
    "hf:org/repo@v1.0": HubOrigin("org/repo", revision="v1.0"),
    f"hf:org/repo@{SHA}/a/b.bin": HubOrigin("org/repo", revision=SHA, subpath="a/b.bin"),
    "hf:org/repo/a/b@2x.png": HubOrigin("org/repo", subpath="a/b@2x.png"),
    "hf:org/repo@refs/pr/1": HubOrigin("org/repo", revision="refs/pr/1"),
    "hf:org/repo@refs/pr/12/model.safetensors": HubOrigin("org/repo", "model", "refs/pr/12", "model.safetensors"),
    "hf:org/repo@refs%2Fpr%2F1/x": HubOrigin("org/repo", "model", "refs/pr/1", "x"),
    "hf:org/repo@feature%2Fnew": HubOrigin("org/repo", revision="feature/new"),
    "hf:datasets/org/d@refs/convert/parquet/default": HubOrigin("org/d", "dataset", "refs/convert/parquet", "default"),
    "hf:datasets/squad": HubOrigin("squad", "dataset"),
    "hf:datasets/org/name/data": HubOrigin("org/name", "dataset", None, "data"),
    "hf:spaces/org/app@main": HubOrigin("org/app", "space", "main"),
    "hf:org/repo/100%25.txt": HubOrigin("org/repo", subpath="100%25.txt"),
}


@each(("text", "origin"), HUB.items())
def test_hub_reference_is_read(text: str, origin: HubOrigin) -> None:
    """Every documented form of a hub reference is read into its parts, and so is what the origin says of itself."""
    assert parse_reference(text) == origin == parse_reference(str(origin))


@each(
    "text",
    [
        *("", "gpt2", "org/repo", "HF:org/repo", "https://huggingface.co/org/repo"),
        *("hf:", "hf://", "hf:/", "hf:datasets", "hf:datasets/", "hf:spaces", "hf:@main"),
        *("hf:org/-repo", "hf:org/repo.", "hf:.org/repo", "hf:org/re po", "hf:org/re--po", "hf:org/a..b", "hf:o/r.git"),
        *("hf:org//repo", "hf:../repo", "hf:org/repo\n", "hf:o\u202erg/repo", "hf:org/" + "r" * 97),
        *("hf:org/repo@", "hf:org/repo@/x", "hf:org/repo@a b", "hf:org/repo@-x", "hf:org/repo@a..b", "hf:org/repo@^"),
        *("hf:org/repo@refs", "hf:org/repo@refs/pr/x", "hf:org/repo@refs/heads/main", "hf:org/repo@%00"),
    ],
)
def test_what_is_no_hub_reference_is_refused(text: str) -> None:
    """A malformed reference, id or revision is a usage error (2) before anybody is asked."""
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert caught.value.exit_code == 2


@pytest.mark.fault(77)
@each(
    "text",
    [
        *("hf:org/repo/../x", "hf:org/repo@main/..", "hf:org/repo/a//b"),
        "https://huggingface.co/o/r/resolve/main/..%2F..%2Fetc",
        *("https://huggingface.co/o/r/blob/main/%2e%2e/x", "https://huggingface.co/o/r/blob/main/a%00"),
        *("https://h/..", "https://h/%2e%2e", "https://h/CON", "https://h/a%0Ab", "https://h/x."),
    ],
)
def test_unsafe_path_is_refused(text: str) -> None:
    """A path that would leave its folder is refused in a reference, a page and a URL, also percent-encoded."""
    with pytest.raises(Unsafe):
        origin = parse(text, HUB_HOSTS)
        assert text.startswith("https://h/"), "only a URL's own name is looked at later"
        origin.check_is_file()


@given(st.text(max_size=60))
def test_parsers_only_fail_as_mdl_errors(text: str) -> None:
    """No text whatever makes a parser fail with anything but mdl's own errors."""
    for read in (parse_reference, check_url, check_revision):
        for form in (text, f"hf:{text}", f"https://{text}", f"https://huggingface.co/{text}"):
            try:
                read(form)
            except MdlError:
                continue
    try:
        parse_page(f"https://huggingface.co/{text}", HUB_HOSTS)
    except MdlError:
        pass


PAGES = {
    "/org/repo": HubOrigin("org/repo"),
    "/org/repo/": HubOrigin("org/repo"),
    "/gpt2": HubOrigin("gpt2"),
    "/gpt2/resolve/main/config.json": HubOrigin("gpt2", "model", "main", "config.json"),
    "/gpt2/tree/main": HubOrigin("gpt2", revision="main"),
    "/org/repo/tree/main": HubOrigin("org/repo", revision="main"),
    "/org/repo/tree/main/unet/": HubOrigin("org/repo", "model", "main", "unet"),
    "/org/repo/blob/main/a/b.bin": HubOrigin("org/repo", "model", "main", "a/b.bin"),
    f"/org/repo/resolve/{SHA}/m.gguf?download=true": HubOrigin("org/repo", "model", SHA, "m.gguf"),
    "/org/repo/resolve/refs%2Fpr%2F1/m.bin": HubOrigin("org/repo", "model", "refs/pr/1", "m.bin"),
    "/org/repo/resolve/refs/pr/1/m.bin": HubOrigin("org/repo", "model", "refs/pr/1", "m.bin"),
    "/org/repo/resolve/main/a%20b%23c%2B.bin": HubOrigin("org/repo", "model", "main", "a b#c+.bin"),
    "/org/repo/resolve/main/tree/main/x": HubOrigin("org/repo", "model", "main", "tree/main/x"),
    "/org/tree": HubOrigin("org/tree"),
    "/datasets/squad": HubOrigin("squad", "dataset"),
    "/datasets/org/d/resolve/main/data/x.parquet": HubOrigin("org/d", "dataset", "main", "data/x.parquet"),
    "/spaces/org/app/blob/main/app.py": HubOrigin("org/app", "space", "main", "app.py"),
}


@each(("path", "origin"), PAGES.items())
def test_hub_page_is_read(path: str, origin: HubOrigin) -> None:
    """A page's address, copied from a browser, is read into repository, revision and path."""
    assert parse_page("https://huggingface.co" + path, HUB_HOSTS) == origin


@each(
    "url",
    [
        *("https://huggingface.co/api/models/org/repo", "https://huggingface.co/", "https://huggingface.co"),
        *("https://huggingface.co/docs/hub", "https://huggingface.co/datasets", "https://huggingface.co/o/r/x/y"),
        *("https://example.org/org/repo", "https://huggingface.co.example.org/org/repo", "hf:org/repo", "org/repo"),
        *("ftp://huggingface.co/org/repo", "https://u:p@huggingface.co/org/repo", "https://[huggingface.co/org/repo"),
    ],
)
def test_other_addresses_are_no_hub_pages(url: str) -> None:
    """An API address, another host or no URL at all is not taken for a repository."""
    assert parse_page(url, HUB_HOSTS) is None


def test_hub_page_of_another_endpoint() -> None:
    """A host with a port means that port; a host without one any port, as in the allow-list."""
    page = "http://127.0.0.1:8000/org/repo"
    assert parse_page(page, ["127.0.0.1:8000"]) == HubOrigin("org/repo")
    assert parse_page(page, ["127.0.0.1"]) == HubOrigin("org/repo")
    assert parse_page(page, ["127.0.0.1:8001"]) is None


def test_raw_page_is_refused_with_a_hint() -> None:
    """/raw/ serves the pointer of a large file, so it is refused and /resolve/ is named."""
    with pytest.raises(UsageError) as caught:
        parse_page("https://huggingface.co/org/repo/raw/main/model.bin?x=secret", HUB_HOSTS)
    assert "/resolve/" in (caught.value.hint or "")
    assert "secret" not in (caught.value.item or "")


@pytest.mark.parametrize("path", ["/org/repo/discussions/1", "/gpt2/discussions/1", "/datasets/o/d/commit/abc"])
def test_page_without_a_file_is_refused(path: str) -> None:
    """A page that holds no file is refused instead of being saved as one."""
    with pytest.raises(UsageError, match="holds no file"):
        parse_page("https://huggingface.co" + path, HUB_HOSTS)


@each(
    "url",
    [
        *("https://example.org/a/b.bin", "http://127.0.0.1:8000/x", "http://localhost/x?y=z#f", "https://[::1]:8443/x"),
        *("https://[2001:db8::1]/x", "https://my_host.internal:65535/%D9%85.bin", "https://xn--bcher-kva.example/x"),
        *("https://1and1.example/x", "https://example.org/مدل.bin", "https://example.org/a@b/c:d"),
        "https://Example.org/A",
    ],
)
def test_good_url_comes_back_unchanged(url: str) -> None:
    """An ordinary http(s) URL is accepted as it stands; only its scheme is put in lower case."""
    assert check_url(url) == url
    assert check_url(url.replace("http", "HTTP", 1)) == url


@each(
    ("url", "why"),
    [
        *(
            (url, "only http")
            for url in ("file:///etc/passwd", "ftp://h/x", "data:text/plain,x", "javascript:x", "s3://b/k")
        ),
        *((url, "only http") for url in ("", "x", "/x", "//h/x", "org/repo", "hf:org/repo", "ssh://h/x", "h:80/x")),
        *((url, "no host") for url in ("https:", "https://", "https:///x", "https:/x", "https:x", "http://:80/x")),
        *((f"https://h/{char}x", "invisible") for char in " \t\r\n\x00\x1b\x7f\x85\u00a0\u202e\u200b\ufeff"),
        *((f"{char}https://h/x", "invisible") for char in " \n\x00"),
        *((f"https://{char}/x", "invisible") for char in ("h\r\nX: y", "a b")),
        ("https://h\\@other/x", "backslash"),
        *((url, "user name") for url in ("https://u:pw@h/x", "https://u@h/x", "https://@h/x", "https://a:b@c@h/x")),
        *((f"https://h:{port}/x", "port") for port in ("0", "65536", "99999", "-1", "8x")),
        *(
            (f"http://{host}/x", "odd spelling")
            for host in ("127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0x7f000001")
        ),
        *((f"http://{host}/x", "odd spelling") for host in ("127.0.0.1.", "1.2.3.256", "1.2.3.4.5", "example.0x", "1")),
        *((f"http://{host}/x", "odd spelling") for host in ("[::ffff:127.0.0.1]", "[0:0:0:0:0:0:0:1]", "[::0]")),
        *(
            (f"http://{host}/x", "host")
            for host in ("a..b", ".a", "%31.example", "a" * 64, "h%00", "a,b", "[::1", "[x]")
        ),
        *((f"http://{host}/x", "beside") for host in ("[::1]x", "[::1]^]", "[::1]^80", "[::1]]:80")),
        ("http://[fe80::1%25eth0]/x", "zone"),
        ("https://huggingfаce.co/x", "beyond ASCII"),
        ("http://①②⑦.0.0.1/x", "beyond ASCII"),
    ],
)
def test_bad_url_is_refused(url: str, why: str) -> None:
    """A URL that is unsafe, ambiguous or of another scheme is a usage error that says why."""
    with pytest.raises(UsageError, match=why):
        check_url(url)


@each(
    "url",
    [
        *("https://user:hunter2@h/x", "https://hunter2@h/x", "ftp://user:hunter2@h/x", "https:user:hunter2@h"),
        *("https://user:a/hunter2@h:99999/x", "https://h:0/x?token=hunter2", "https://user:hunter2@h/ x"),
        "https://h/\x1b]52;c;x\x07",
    ],
)
def test_an_error_shows_no_secret_and_no_control_character(url: str) -> None:
    """Whatever is wrong with a URL, its password and query are in no part of the error, and a terminal obeys none."""
    with pytest.raises(UsageError) as caught:
        check_url(url)
    assert "hunter2" not in f"{caught.value.message} {caught.value.item} {caught.value.hint}"
    assert (caught.value.item or "").isprintable()


@each(
    ("url", "name"),
    [
        ("https://h/a/b.bin?x=/y#/z", "b.bin"),
        ("https://h/a%20b.bin", "a b.bin"),
        ("https://h/b.bin;v=1;type=a", "b.bin"),
        ("https://h/a%3Bb.bin", "a;b.bin"),
        ("hf:org/repo@main/dir/m.gguf", "m.gguf"),
        ("hf:org/repo/100%25.txt", "100%25.txt"),
    ],
)
def test_name_of_a_url(url: str, name: str) -> None:
    """A file's name is the last segment of its URL, decoded."""
    assert parse(url, ()).file_name.text == name


@pytest.mark.fault(239)
def test_the_fragment_of_a_url() -> None:
    """A fragment is no part of the URL that a file is asked for by, however it was named."""
    text = '[[models.m.files]]\npath = "f"\nurl = "https://h/f?x#y"\nmirrors = ["https://i/f#part"]\n'
    catalog = parse_catalog(f'schema = 1\n[models.m]\ntitle = "m"\nsource = "https://h/g.bin;v=1#y"\n{text}', Path("c"))
    first, second = catalog.models["m"].files
    assert {first.url, second.url} == {"https://h/f?x", "https://h/g.bin;v=1"}
    assert {first.path.text, second.path.text} == {"f", "g.bin"}
    assert {*first.mirrors, *second.mirrors} == {"https://i/f"}
    (model,) = models_of(["https://h/f.bin;v=1?x#y"], catalog, HUB_HOSTS)
    assert (model.files[0].url, model.files[0].path.text) == ("https://h/f.bin;v=1?x", "f.bin")


@pytest.mark.parametrize("url", ["https://h", "https://h/", "https://h/a/", "https://h/a%2Fb", "hf:org/repo"])
def test_url_without_a_name(url: str) -> None:
    """A URL that ends in no file name asks for a path."""
    with pytest.raises(UsageError):
        parse(url, ()).check_is_file()
