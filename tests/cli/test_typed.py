"""What people type for the hub, at work: repositories without a scheme, files of them, quantisations."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Run, Shell, done, machine
from support.terminal import typed_into

import mdl

GGUF = b"GGUF" + bytes(60)
FILES = {
    **dict.fromkeys(("config.json", "unet/config.json", "unet/b.json"), b'{"a": 1}'),
    **{name: GGUF + name.encode() for name in ("tiny-Q8_0.gguf", "tiny-Q4_K_M.gguf")},
    **{f"tiny-BF16-0000{number}-of-00002.gguf": GGUF + bytes(number) for number in (1, 2)},
}
REPOS = [Repo("org/tiny", FILES)]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path, "schema = 1\nnot a catalog", hub.url)


def here(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and ".mdl" not in path.parts}


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("org/tiny --all", set(FILES)),
        ("{host}/org/tiny --all", set(FILES)),
        ("org/tiny:q8_0", {"tiny-Q8_0.gguf"}),
        ("hf:org/tiny:BF16", {name for name in FILES if "BF16" in name}),
        ("org/tiny unet/config.json", {"unet/config.json"}),
        ("hf:org/tiny@main unet/", {"unet/config.json", "unet/b.json"}),
    ],
)
def test_it_comes(run: Run, shell: Shell, hub: LoopbackHub, words: str, files: set[str]) -> None:
    """A repository, a quantisation with its shards, or files of a repository; a broken catalog has no part in it. Of
    what came verify and path know."""
    text = words.format(host=hub.url.removeprefix("http://"))
    ran = run(f"get {text}")
    place = Path(ran.out.strip())
    assert {place.name} == {Path(path).name for path in files} or here(place) == files
    (shell.home / "catalog.toml").write_text("schema = 1\n")
    folder = Path(run(f"path {text.split()[0]}").out.strip())
    assert folder in (place, *place.parents)
    assert {one["path"] for one in run("verify --json").document["models"][0]["files"]} >= files


def test_a_folder_of_two_words_is_not_a_repository(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """Behind a repository ``sub/dir`` is another repository; if the hub has none of that name, the hint says how its
    folder is named, and that command works."""
    (shell.home / "catalog.toml").write_text("schema = 1\n")
    ran = run("get -n --all org/tiny sub/dir", 3)
    assert "hint: for the folder sub/dir of org/tiny: mdl get org/tiny sub/dir/; else check the name" in ran.err
    alone = run("get -n sub/dir", 3)
    assert "for the folder" not in alone.err
    hub.publish(Repo("org/tiny", {"sub/dir/a.txt": b"a", "b.txt": b"b"}))
    assert run("get -n org/tiny sub/dir/").out.count("fetch") == 1


SEVERAL = "3 quantisations of one model: Q8_0 78 B, Q4_K_M 80 B, BF16 131 B"
WAYS = ["org/tiny", "{host}/org/tiny", "{url}/org/tiny/tree/main", "mine", "ours", "mine other"]


@pytest.mark.parametrize("command", ["get", "get -n", "prefetch", "lock", "update -n"])
@pytest.mark.parametrize("asked", WAYS)
def test_one_of_several_quantisations_must_be_named(
    run: Run, shell: Shell, hub: LoopbackHub, command: str, asked: str
) -> None:
    """Without a terminal nothing of such a repository is fetched: the exit code is 2, and the message has the list with
    the sizes, shards summed, and how to name one. What else was asked for comes."""
    catalog = '[models.mine]\nsource = "hf:org/tiny"\n[models.other]\nsource = "hf:org/tiny:Q8_0"\n'
    (shell.home / "catalog.toml").write_text(f'schema = 1\n{catalog}[groups]\nours = ["mine", "other"]\n')
    if command in ("prefetch", "lock") and asked not in ("mine", "ours", "mine other"):
        pytest.skip("it takes names of the catalog")
    ran = run(f"{command} {asked.format(host=hub.url.removeprefix('http://'), url=hub.url)}", 2)
    assert SEVERAL in ran.err
    is_of_catalog = asked in ("mine", "ours", "mine other")
    named = "name one: mdl get hf:org/tiny:Q8_0; --all downloads all"
    if is_of_catalog:
        named = 'name one in its entry, as in source = "hf:org/tiny:Q8_0"; include = ["*"] there means all of them'
    assert named in ran.err.replace("hf:org/tiny@main:", "hf:org/tiny:")
    fetched = {path.name for path in shell.home.rglob("*.gguf")}
    comes = command in ("get", "prefetch") and asked in ("ours", "mine other")
    assert fetched == ({"tiny-Q8_0.gguf"} if comes else set())


def test_a_library_call_names_the_quantisations(
    shell: Shell, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises a UsageError; ``include`` names files, as --all and --include do."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    with mdl.Client(home=shell.home / "models") as client:
        with pytest.raises(mdl.UsageError, match=SEVERAL):
            client.get(f"{hub.url}/org/tiny")
        assert here(client.get(f"{hub.url}/org/tiny", include="*")) == set(FILES)


def test_files_go_into_a_folder(run: Run, shell: Shell) -> None:
    """Several files of a repository are one target for --into."""
    (shell.home / "catalog.toml").write_text("schema = 1\n")
    run("get org/tiny config.json unet/b.json --into here")
    assert here(shell.home / "here") == {"config.json", "unet/b.json"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("org/tiny:Q5_K_M", 3, "available: BF16, Q4_K_M, Q8_0"),
        ("org/tiny:Q4_K", 3, "Q4_K_M"),
        ("org/tiny confg.json", 3, "available: config.json"),
        ("org/other", 3, "check the name"),
        ("org/tiny --local-dir x", 2, "--into DIR"),
        ("org/tiny/", 3, "write org/tiny, without the slash at its end"),
        ("org/tiny/tree/main", 2, "write hf:org/tiny@main"),
        ("org/tiny/blob/main/config.json", 2, "write hf:org/tiny@main/config.json"),
        ("org/tiny --locked", 8, "mdl add NAME hf:org/tiny, then mdl lock"),
        ("org/tiny --token hf_secret", 2, "HF_TOKEN"),
        ("org/tiny --repo-type dataset", 2, "hf:datasets/org/name"),
    ],
)
def test_what_is_not_there(run: Run, shell: Shell, words: str, code: int, said: str) -> None:
    """A quantisation or file that is not there is 3 with what is; a flag of another tool is 2 with mdl's own words."""
    (shell.home / "catalog.toml").write_text("schema = 1\n")
    ran = run(f"get {words}", code)
    assert said in ran.err.splitlines()[-1]
    assert "hf_secret" not in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("get tiny --max-workers 4", "--connections N is how many at once, in all"),
        ("get tiny -x16", "--connections N is how many at once, in all"),
        ("get tiny --continue", "the same command continues where it was; --force begins again"),
        ("get tiny --dir x", "--into DIR puts the files of one target into DIR itself; --to DIR is the models folder"),
        ("get tiny -k", "every certificate is checked; SSL_CERT_FILE says which are trusted"),
        ("get tiny --quant Q8_0", "write it after the repository: org/repo:Q8_0"),
        ("get tiny --ctalogs x", "did you mean --catalog?"),
        ("get tiny --zzz x", "mdl get --help"),
        ("jobs 1126-k7f3", "for one of that name: mdl jobs show 1126-k7f3; more: mdl jobs --help"),
        ("fetch org/tiny p-1", "to download a model: mdl get org/tiny"),
        ("get tiny --jsn", "did you mean --json?"),
        ("list --branch main", "mdl list --help"),
        ("search --datasets tiny", "--kind dataset"),
        ("rm -n tiny", "without --yes nothing is deleted: it only shows what would be"),
        ("lock -n", "mdl lock --help"),
    ],
)
def test_a_flag_of_others(run: Run, words: str, said: str) -> None:
    """What hf, aria2 or another command calls it is answered with what this command has for it, if it has that; a name
    that is alike in its dashes alone is not offered."""
    assert run(words, 2).err.splitlines()[-1] == f"  hint: {said}"


def test_a_quantisation_of_a_catalog(run: Run, shell: Shell) -> None:
    """A source of a catalog may name one, and the lock has its files."""
    (shell.home / "catalog.toml").write_text('schema = 1\n[models.tiny]\nsource = "hf:org/tiny:Q8_0"\n')
    run("lock")
    assert here(Path(run("get tiny --locked").out.strip())) == {"tiny-Q8_0.gguf"}
    assert run("list --json").document["models"][0]["status"] == "present"


CHOICES = [
    ([b"2\n"], "tiny-Q4_K_M.gguf"),
    ([b"bf16\n"], "tiny-BF16"),
    ([b"no\n", b"1\n"], "tiny-Q8_0.gguf"),
    ([b"\n"], ""),
]


@pytest.mark.parametrize(
    ("target", "answers", "chosen"), [("mine", *CHOICES[0]), *(("org/tiny", *choice) for choice in CHOICES)]
)
def test_a_terminal_is_asked_which_one(run: Run, shell: Shell, target: str, answers: list[bytes], chosen: str) -> None:
    """On a terminal the quantisations are listed with their sizes and whether they fit into memory, and a number or a
    name chooses one. No answer is 2 with the list. The job asks for what was chosen."""
    (shell.home / "catalog.toml").write_text('schema = 1\n[models.mine]\nsource = "hf:org/tiny"\n')
    text, code = typed_into(shell, answers, "get", target)
    assert "  1  Q8_0        78 B  fits into memory\r\n   2  Q4_K_M      80 B  fits into memory\r\n" in text
    fetched = {path.name for path in shell.home.rglob("*.gguf")}
    assert code == (0 if chosen else 2), text
    assert {name for name in fetched if name.startswith(chosen)} == fetched
    assert bool(fetched) == bool(chosen)
    if not chosen:
        assert SEVERAL in " ".join(text.split())
    elif target == "org/tiny":
        assert f"get hf:org/tiny:{chosen.removeprefix('tiny-').removesuffix('.gguf')}" in run("jobs show").out


def test_a_plan_and_a_job_in_the_background_are_asked_too(run: Run, shell: Shell) -> None:
    """-n asks, and fetches nothing. --detach asks about a repository before it goes to the background, and not about a
    model of the catalog, whose quantisation no words name."""
    (shell.home / "catalog.toml").write_text('schema = 1\n[models.mine]\nsource = "hf:org/tiny"\n')
    text, code = typed_into(shell, [b"3\n"], "get", "-n", "org/tiny")
    assert (code, "tiny-BF16-00002-of-00002.gguf" in text) == (0, True)
    assert not [*shell.home.rglob("*.gguf")]
    text, code = typed_into(shell, [b"1\n"], "get", "--detach", "org/tiny")
    assert code == 0
    run("jobs watch")
    assert {path.name for path in shell.home.rglob("*.gguf")} == {"tiny-Q8_0.gguf"}
    text, code = typed_into(shell, [b"1\n"], "get", "--detach", "mine")
    assert "Which one" not in text
    run("jobs watch", 2)  # it ends here, and not after an hour without its hub


@pytest.mark.parametrize("words", ["get", "get -n", "prefetch", "verify", "update"])
def test_only_one_place(mdl: Inside, shell: Shell, words: str) -> None:
    """--into beside --to is 2: one of them would do nothing. A models folder of the machine's own hinders nobody."""
    ran = done(mdl(shell, *words.split(), "org/tiny:Q8_0", "--into", "a", "--to", "b"), 2)
    assert "--into and --to do not go together" in ran.err
    assert not [place for place in ("a", "b") if (shell.home / place).exists()]


@pytest.mark.parametrize("words", ["prefetch", "get --progress json"])
def test_nobody_is_asked_without_the_list(shell: Shell, words: str) -> None:
    """Where only failures are shown, and where a program reads, it is 2 with the list, on a terminal too."""
    text, code = typed_into(shell, [], *words.split(), "org/tiny")
    assert (code, "Which one" in text, "Q4_K_M" in text) == (2, False, True), text


def test_an_interrupted_choice(shell: Shell) -> None:
    """Ctrl-C at the question is 130, and nothing was downloaded."""
    text, code = typed_into(shell, [b"\x03"], "get", "hf:org/tiny")
    assert (code, "hint: nothing was downloaded" in text) == (130, True), text
    assert not [*shell.home.rglob("*.gguf")]


@pytest.mark.parametrize("words", ["add", "jobs pause", "rm", "mv", "show", "pack", "unpack", "push", "fetch", "path"])
def test_a_missing_argument_has_an_example(tmp_path: Path, mdl: Inside, words: str) -> None:
    """What a command needs is said, and its hint has the command as it could be typed."""
    ran = done(mdl(Shell(tmp_path), *words.split()), 2)
    assert "missing argument" in ran.err
    assert f"hint: for example: mdl {words} " in ran.err
