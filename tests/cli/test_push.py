"""mdl push: a folder or an archive becomes a repository of a hub, by the real huggingface_hub; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.loopback_hub import LoopbackHub, Repo
from support.packing import make_run
from support.shell import Inside, Shell, done, machine, with_environ

REPOS = [Repo("org/open", {"README.md": b"# The card\n", "config.json": b"old"})]
TOKEN = "hf_" + "k3" * 17
SECRET = "hf_" + "aB9x" * 9


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A machine with a run, whose user may write to the hub. Xet needs a server of its own, so it is off."""
    hub.uploads.token = TOKEN
    make_run(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # its variable is read once in a process
    return machine(tmp_path, endpoint=hub.url, HF_TOKEN=TOKEN)


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's own upload
MODEL = {"config.json", "model.safetensors"}


def test_a_folder_becomes_a_private_repository(shell: Shell, mdl: Inside, hub: LoopbackHub) -> None:
    """Packed as pack would, and pushed in one commit to a new repository that is private; mdl gets it back. A second
    push sends nothing again."""
    planned = done(mdl(shell, "push", "run", "hf:org/new", "-n", "--json")).document
    assert (planned["commit"], planned["private"], planned["files"]) == (None, None, 2)
    assert {member["path"] for member in planned["members"]} == MODEL
    assert hub.requests == []
    ran = done(mdl(shell, "push", "run", "hf:org/new", "--json"))
    document = ran.document
    repo = hub.newest("org/new")
    assert repo.private
    assert repo.files.keys() == MODEL | {".gitattributes"}
    assert repo.files["model.safetensors"] == (shell.home / "run/model.safetensors").read_bytes()
    assert (document["commit"], document["private"], document["repo"]) == (repo.commit, True, "hf:org/new")
    assert {row["path"]: row["why"] for row in document["skipped"]}["train.log"].startswith("a log")
    sent = list(hub.uploads.sent)
    assert len(sent) == 1
    again = done(mdl(shell, "push", "run", "hf:org/new"))
    assert again.out == f"hf:org/new@{repo.commit}\n"
    assert hub.uploads.sent == sent
    folder = Path(done(mdl(shell, "get", again.out.strip())).out.strip())
    assert (folder / "config.json").read_bytes() == (shell.home / "run/config.json").read_bytes()


def test_an_archive_and_a_branch(shell: Shell, mdl: Inside, hub: LoopbackHub) -> None:
    """What an archive holds is pushed, without mdl's manifest, to a branch that is made; --public says who may read."""
    archive = done(mdl(shell, "pack", "run", "--checkpoint", "latest")).out.strip()
    done(mdl(shell, "push", archive, "hf:org/new@v2", "--public"))
    repo = hub.newest("org/new", "v2")
    assert not repo.private
    names = repo.files.keys() - {".gitattributes"}
    assert "optimizer.pt" in names
    assert not [name for name in names if "manifest" in name]
    assert hub.newest("org/new").files.keys() == {".gitattributes"}


def test_what_stays_here(shell: Shell, mdl: Inside, hub: LoopbackHub) -> None:
    """A file with a token, .env and .git stay, and so does a model card where the repository has one."""
    run = shell.home / "run"
    (run / "settings.json").write_text(f'{{"token": "{SECRET}"}}')
    (run / ".env").write_text("A=b")
    (run / ".git").mkdir()
    (run / ".git/config").write_text("x")
    (run / "README.md").write_text("---\nlicense: mit\n---\nmine\n")
    ran = done(mdl(shell, "push", "run", "hf:org/open", "--public", "--json"))
    skipped = {row["path"] for row in ran.document["skipped"]}
    assert {"settings.json", ".env", "README.md"} <= skipped
    repo = hub.newest("org/open")
    assert repo.files.keys() == MODEL | {"README.md"}
    assert repo.files["README.md"] == b"# The card\n"
    assert SECRET not in ran.out + ran.err
    done(mdl(shell, "push", "run", "hf:org/other"))
    assert hub.newest("org/other").files["README.md"] == (run / "README.md").read_bytes()


def test_everybody_could_read_it(shell: Shell, mdl: Inside, hub: LoopbackHub) -> None:
    """2 if the repository is public and nobody said so."""
    ran = done(mdl(shell, "push", "run", "hf:org/open"), 2)
    assert "everybody may read this repository" in ran.err
    assert hub.newest("org/open").files.keys() == {"README.md", "config.json"}


def test_who_may_not(shell: Shell, mdl: Inside, hub: LoopbackHub) -> None:
    """4 without a token and with a wrong one, and if the commit is forbidden; the hint names the page of tokens, no
    page that explains HTTP, and no token is in any output."""
    wrong = "hf_" + "w7" * 17
    for token in ("", wrong):
        ran = done(mdl(with_environ(shell, HF_TOKEN=token), "push", "run", "hf:org/new", "--json"), 4)
        assert ran.document["error"]["item"] == "hf:org/new"
        assert wrong not in ran.out + ran.err
        assert ran.document["error"]["message"].endswith(f"for url '{hub.url}/api/repos/create'")
        assert f"{hub.url}/settings/tokens" in ran.document["error"]["hint"]
    hub.uploads.refused = 403
    done(mdl(shell, "push", "run", "hf:org/new"), 4)
    hub.uploads.refused = 404
    done(mdl(shell, "push", "run", "hf:org/new"), 3)
    hub.uploads.refused = 500
    done(mdl(shell, "push", "run", "hf:org/new"), 5)


def test_a_wrong_model_card(shell: Shell, mdl: Inside, hub: LoopbackHub) -> None:
    """2 for a model card that the hub refuses, in its words, and for one that is not UTF-8. Nothing is committed."""
    why = '"base_model" with value "/data/models/base" is not valid'
    card = shell.home / "run/README.md"
    hub.uploads.card_error = why
    for data, told in ((b"---\nbase_model: /data/models/base\n---\n", why), (b"caf\xe9", "README.md: it is not UTF-8")):
        card.write_bytes(data)
        ran = done(mdl(shell, "push", "run", "hf:org/new", "--public"), 2)
        assert told in ran.err
        assert "hint: correct README.md" in ran.err
    assert hub.newest("org/new").files.keys() == {".gitattributes"}


def test_a_hub_that_is_not_there(shell: Shell, mdl: Inside) -> None:
    """5, as with every server."""
    away = machine(shell.home, HF_TOKEN=TOKEN)
    done(mdl(away, "push", "run", "hf:org/new"), 5)


@pytest.fixture
def plain(tmp_path: Path) -> Shell:
    """A machine with a run, and no hub."""
    make_run(tmp_path)
    return machine(tmp_path, HF_TOKEN=TOKEN)


@pytest.mark.parametrize(
    "place", ["https://h/x.bin", "hf:org/new@main/x.bin", "hf:gpt2", f"hf:org/x@{'a' * 40}", "hf:spaces/o/x"]
)
def test_what_is_no_repository(plain: Shell, mdl: Inside, place: str) -> None:
    """2: a URL, a file, a repository without an owner, a commit, a space."""
    assert done(mdl(plain, "push", "run", place), 2).out == ""


def test_what_cannot_be_pushed(plain: Shell, mdl: Inside) -> None:
    """3 for what is not here, 8 offline, 11 for a link that leaves the folder."""
    done(mdl(plain, "push", "nosuch", "hf:org/new"), 3)
    done(mdl(plain, "push", "run", "hf:org/new", "--offline"), 8)
    (plain.home / "run/escape.json").symlink_to("/etc/passwd")
    done(mdl(plain, "push", "run", "hf:org/new"), 11)
