"""config: every setting with where it is from, one of them changed, and a config.toml that is broken."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.catalogs import entry_of
from support.faults import honest
from support.faulty_server import FaultyServer
from support.shell import Inside, Ran, Shell, done, machine, settings, with_environ, write_catalog

from mdl.config.settings import Config, settings_table

SECRET = "hf_canarycanarycanary"
FILE = """\
# mine
[defaults]  # of all
home = "/x" # there
# last

[remotes.a]
kind = "bucket"
url = "s3://bucket"
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return machine(tmp_path)


def config_of(shell: Shell) -> Path:
    return shell.home / ".config" / "mdl" / "config.toml"


def rows(ran: Ran) -> dict[str, tuple[Any, str]]:
    return {row["name"]: (row["value"], row["source"]) for row in ran.document["settings"]}


def test_every_setting_and_where_it_is_from(shell: Shell, mdl: Inside) -> None:
    """A variable wins over config.toml, that over the default; hosts of all places hold together."""
    settings(shell, '[defaults]\nhome = "/f"\nvia = "hub"\nstall = 9\nallow_hosts = ["f"]\n[stores]\nlink = "copy"\n')
    shell = with_environ(shell, MDL_VIA="hub", MDL_ALLOW_HOSTS="v,w", HF_HUB_OFFLINE="1", MDL_LOG_FILE="")
    found = rows(done(mdl(with_environ(shell, MDL_HOME="/there"), "config", "--json")))
    assert list(found) == list(settings_table())
    assert found["home"] == ("/there", "MDL_HOME")
    assert found["via"] == ("hub", "MDL_VIA")
    assert (found["stall"], found["stores.link"]) == (("9", "config.toml"), ("copy", "config.toml"))
    assert (found["retries"], found["window"]) == ((None, "the default"), (None, "the default"))
    assert found["allow_hosts"] == (["v", "w", "f"], "MDL_ALLOW_HOSTS, [defaults] allow_hosts")
    assert found["offline"] == ("true", "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE")
    assert found["log_file"] == ("", "MDL_LOG_FILE")
    assert rows(done(mdl(shell, "config", "list", "--json")))["home"] == (str(shell.models), "MDL_HOME")


def test_the_log_that_is_written_is_named(shell: Shell, mdl: Inside) -> None:
    """Without a setting the downloads log is in the state folder, and config says so."""
    place = str(shell.home / ".local" / "state" / "mdl" / "downloads.log")
    assert rows(done(mdl(shell, "config", "--json")))["log_file"] == (place, "the user state folder")


def test_the_hub_and_whose_token(shell: Shell, mdl: Inside) -> None:
    """The endpoint and where it and the token are from are told, and never the token; all places are there."""
    shell = with_environ(shell, HF_TOKEN=SECRET)
    for words in (("config",), ("config", "--json")):
        ran = done(mdl(shell, *words))
        assert ("HF_TOKEN" in ran.out, shell.endpoint in ran.out, SECRET in ran.out + ran.err) == (True, True, False)
    assert ran.document["hub"] == {"endpoint": shell.endpoint, "endpoint_from": "HF_ENDPOINT", "token_from": "HF_TOKEN"}
    kinds = [row["what"] for row in ran.document["places"]]
    assert kinds == ["settings", "catalog", "lock", "state", "models", "hub cache"]


def test_get_prints_the_value_alone(shell: Shell, mdl: Inside) -> None:
    """config get is for scripts: the value, a list one a line, an empty line for none; an unknown key is 2."""
    settings(shell, '[stores]\nalso = ["/a", "/b"]\n')
    for key, out in {
        "patience": "5m\n",
        "retries": "\n",
        "stores.also": "/a\n/b\n",
        "window": "\n",
        "catalog": f"{shell.home}/catalog.toml\n",
    }.items():
        assert done(mdl(shell, "config", "get", key)).out == out
    for words in (("get", "conections"), ("set", "conections", "1"), ("unset", "conections")):
        assert "hint: did you mean connections?" in done(mdl(shell, "config", *words), 2).err


@pytest.mark.parametrize(
    ("key", "values", "table", "value"),
    [
        ("home", ["models"], "defaults", "{home}/models"),
        ("connections", ["8"], "defaults", 8),
        ("limit_rate", ["08:00,2M 22:00,off"], "defaults", "08:00,2M 22:00,off"),
        ("allow_hosts", ["a,b"], "defaults", ["a", "b"]),
        ("log_file", [""], "defaults", ""),
        ("progress", ["lines"], "defaults", "lines"),
        ("hooks.on_complete", ["touch x"], "hooks", "touch x"),
        ("stores.also", ["/a", "b"], "stores", ["/a", "{home}/b"]),
    ],
)
def test_set(shell: Shell, mdl: Inside, key: str, values: list[str], table: str, value: object) -> None:
    """What is set is in config.toml with its own type, under its table; comments and other lines stay, and unset
    takes it out again."""
    text = str(value).replace("{home}", str(shell.home)) if isinstance(value, str) else value
    wanted = [one.replace("{home}", str(shell.home)) for one in value] if isinstance(value, list) else text
    for before in ("", FILE):
        settings(shell, before)
        assert done(mdl(shell, "config", "set", key, *values)).out == f"{config_of(shell)}\n"
        found = config_of(shell).read_text()
        assert tomllib.loads(found)[table][key.rpartition(".")[2]] == wanted
        assert [
            line for line in ("# mine", "# of all", "# last", "[remotes.a]") if line in before and line not in found
        ] == []
        done(mdl(shell, "config", "unset", key))
        assert key.rpartition(".")[2] not in tomllib.loads(config_of(shell).read_text()).get(table, {})
    assert config_of(shell).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("connections 99", "connections: '99' is not a number from 1 to 64"),
        ("connections 1 2", "connections: takes one value, not 2"),
        ("via pigeon", "via: 'pigeon' is not one of http, hub"),
        ("stores.link hrad", "stores.link: 'hrad' is not one of"),
        ("offline 1", "offline: belongs to one run"),
        ("catalog x", "catalog: belongs to one run"),
        ("remotes.a.kind bucket", "remotes.a.kind: there is no such setting"),
        ("hooks.on_failure 'a", "hooks.on_failure: it cannot be run"),
    ],
)
def test_what_cannot_be_set(shell: Shell, mdl: Inside, words: str, told: str) -> None:
    """A wrong value, a setting of one run and an unknown one are 2, and the file stays as it was."""
    settings(shell, FILE)
    assert told in done(mdl(shell, "config", "set", *words.split()), 2).err
    assert config_of(shell).read_text() == FILE


@pytest.mark.parametrize("words", ["config", "config list --json", "config set connections 8 --json", "config --json"])
def test_a_secret_in_a_hook_is_not_shown(shell: Shell, mdl: Inside, words: str) -> None:
    """Who asks for that one setting gets it as it is."""
    command = "curl -H 'Authorization: Bearer canary.1234567890' http://host/"
    settings(shell, f'[hooks]\non_complete = "{command}"\n')
    ran = done(mdl(shell, *words.split()))
    assert "canary" not in ran.out + ran.err
    assert done(mdl(shell, "config", "get", "hooks.on_complete")).out == f"{command}\n"
    [setting] = done(mdl(shell, "config", "get", "hooks.on_complete", "--json")).document["settings"]
    assert setting["value"] == command
    [setting] = done(mdl(shell, "config", "set", "hooks.on_complete", command, "--json")).document["settings"]
    assert "canary" not in setting["value"]


def test_a_variable_has_precedence(shell: Shell, mdl: Inside) -> None:
    """If a variable hides what was just set or removed, a warning says so. One that adds to a list hides nothing."""
    hidden = with_environ(shell, MDL_RETRIES="3", MDL_ALLOW_HOSTS="a.example")
    for words in ("set retries 9", "unset retries", "unset allow_hosts"):
        ran = done(mdl(hidden, "config", *words.split()))
        assert f"MDL_{words.split()[1].upper()} has precedence: {words.split()[1]} stays " in ran.err
    assert "precedence" not in done(mdl(hidden, "config", "set", "allow_hosts", "b.example")).err


def test_the_new_value_is_told(shell: Shell, mdl: Inside) -> None:
    """The document has the value that holds from now on, and where it is from; nothing has precedence over it."""
    shell = with_environ(shell, MDL_HOME="")
    for words, value, source in (
        ("set connections 8", "8", "config.toml"),
        ("set connections 9", "9", "config.toml"),
        ("unset connections", None, "the default"),
        ("set home /models", "/models", "config.toml"),
        ("unset home", None, "the user data folder"),
    ):
        ran = done(mdl(shell, "config", *words.split(), "--json"))
        [setting] = ran.document["settings"]
        assert (ran.err, setting["source"]) == ("", source)
        assert value is None or setting["value"] == value


def test_not_through_a_link_out_of_the_folder(shell: Shell, mdl: Inside) -> None:
    """A config.toml that is a link to another folder is not written, 11; one within the folder, and a folder that is
    a link, are."""
    place, away = config_of(shell), shell.home / "away.toml"
    settings(shell, "")
    place.unlink()
    away.write_text("")
    place.symlink_to(away)
    ran = done(mdl(shell, "config", "set", "retries", "9"), 11)
    assert (str(away) in ran.err, away.read_text(), place.is_symlink()) == (True, "", True)
    place.unlink()
    place.symlink_to("mine.toml")
    done(mdl(shell, "config", "set", "retries", "9"))
    assert (place.is_symlink(), (place.parent / "mine.toml").read_text()) == (True, "[defaults]\nretries = 9\n")
    place.parent.rename(shell.home / "dotfiles")
    place.parent.symlink_to(shell.home / "dotfiles")
    done(mdl(shell, "config", "set", "retries", "8"))
    assert done(mdl(shell, "config", "get", "retries")).out == "8\n"


BROKEN = {
    "[defaults\n": "not TOML",
    "[defaults]\nconnections = 99\n": "config.toml:2: defaults.connections: 99 is not a number from 1 to 64",
    "[defaults]\nhome = 3\n[stores]\nalso = 1\n": "2 mistakes in config.toml:",
    "[default]\n": "config.toml:1: default: unknown key; did you mean defaults?",
    "defaults = 1\n": "config.toml:1: defaults: must be a table, not a number",
}


@pytest.mark.parametrize(("text", "told"), BROKEN.items(), ids=BROKEN)
def test_a_broken_file(shell: Shell, mdl: Inside, text: str, told: str) -> None:
    """config and doctor work, say what is wrong and end with 2; path is 0; every hint leads out, not round."""
    settings(shell, text)
    assert mdl(shell, "config", "path").out == f"{config_of(shell)}\n"
    assert done(mdl(shell, "config", "path")).err == ""
    for words in (("config",), ("config", "get", "retries"), ("list",)):
        ran = done(mdl(shell, *words), 2)
        assert (told in ran.err, "hint: fix that file" in ran.err, "mdl config" in ran.err) == (True, True, False)
    assert "connections" in mdl(shell, "config").out
    ran = mdl(shell, "doctor", "--offline")
    assert (ran.code, "FAIL  settings" in ran.out, told in ran.out, "ok    catalog" in ran.out) == (2, True, True, True)


@pytest.mark.fault(460)
@pytest.mark.parametrize("text", [*BROKEN, "= x\n", "[[defaults]]\n", "[defaults]\nretries = 1\nretries = 2\n", "\0"])
def test_a_broken_file_is_not_changed(shell: Shell, mdl: Inside, text: str) -> None:
    """What is wrong with the file, 2, also as a document; not one byte of it changes."""
    settings(shell, text)
    for words in ("retries 9", "retries 9 --json"):
        assert "hint: fix that file" in done(mdl(shell, "config", "set", *words.split()), 2).err
    assert config_of(shell).read_text() == text


@pytest.mark.fault(460)
def test_a_file_of_windows(shell: Shell, mdl: Inside) -> None:
    """A byte-order mark hinders nothing, and the line ends stay as they are."""
    config_of(shell).parent.mkdir(parents=True)
    config_of(shell).write_bytes(b"\xef\xbb\xbf# mine\r\n[defaults]\r\nretries = 4 # four\r\nvia = 'http'\r\n")
    assert done(mdl(shell, "config", "get", "retries")).out == "4\n"
    done(mdl(shell, "config", "set", "retries", "9"))
    assert config_of(shell).read_bytes() == b"# mine\r\n[defaults]\r\nretries = 9 # four\r\nvia = 'http'\r\n"
    done(mdl(shell, "config", "unset", "retries"))
    assert config_of(shell).read_bytes() == b"# mine\r\n[defaults]\r\nvia = 'http'\r\n"


@pytest.mark.fault(461)
@pytest.mark.parametrize(
    "words",
    [
        "list --catalog round",
        "lock --catalog round",
        "remove x --catalog round",
        "list --catalog around.toml",
        "config set retries 9",
    ],
)
def test_a_link_that_leads_to_itself(shell: Shell, mdl: Inside, words: str) -> None:
    """It is 2, in the system's own words, and no fault of mdl's."""
    config_of(shell).parent.mkdir(parents=True)
    link = config_of(shell) if "config" in words else shell.home / "round"
    link.symlink_to(link.name)
    (shell.home / "around.toml").write_text('schema = 1\nextends = ["round"]\n')
    assert "Too many levels of symbolic links" in done(mdl(shell, *words.split()), 2).err


def test_a_wrong_value_can_be_set_right(shell: Shell, mdl: Inside) -> None:
    """config set mends the value that hinders every other command."""
    settings(shell, "[defaults]\nconnections = 99\n")
    done(mdl(shell, "config", "set", "connections", "9"))
    assert config_of(shell).read_text() == "[defaults]\nconnections = 9\n"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"MDL_CONNECTIONS": "99"}, "MDL_CONNECTIONS: '99' is not a number from 1 to 64"),
        ({"MDL_PROGRESS": "loud"}, "MDL_PROGRESS: 'loud' is not one of auto, bars, lines, json, none"),
    ],
)
def test_a_wrong_variable_is_named(shell: Shell, mdl: Inside, variables: dict[str, str], told: str) -> None:
    """The error names the variable, not a flag that nobody typed; mdl config tells it too, and shows the rest."""
    wrong = with_environ(shell, **variables)
    for words in (("get", "x"), ("config",), ("doctor", "--offline")):
        ran = done(mdl(wrong, *words), 2)
        assert told.removeprefix("MDL_") in ran.err + ran.out, words
        assert "--" not in ran.err.partition("\n")[0]
    assert "retries" in mdl(wrong, "config").out


def test_variables_that_mean_nothing(shell: Shell, mdl: Inside) -> None:
    """One that is misspelt is named once, with the one that was meant; flags of any command, and what mdl sets for
    hooks and its GitHub action, are known."""
    known = {
        "MDL_INTO": "",
        "MDL_KEEP": "3",
        "MDL_HOOK_JOB": "x",
        "MDL_RELEASE_PATH": "x",
        "MDL_ACTION_CATALOG": "x",
        "MDL_METRICS": "",
        "MDL_YES": "",
    }
    assert "MDL_" not in done(mdl(with_environ(shell, **known), "list")).err
    ran = done(mdl(with_environ(shell, MDL_CONECTIONS="3", MDL_ZZ="1"), "list"))
    assert ran.err.count("MDL_CONECTIONS") == 1
    assert "the variable MDL_CONECTIONS means nothing to mdl; did you mean MDL_CONNECTIONS?" in ran.err
    assert "the variable MDL_ZZ means nothing to mdl; 'mdl config' lists the settings" in ran.err


def test_it_is_read_once(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many settings a command asks for, config.toml is read once."""
    settings(shell, "[defaults]\nretries = 3\n")
    read: list[Path] = []
    monkeypatch.setattr("mdl.config.settings.read_text", lambda path: read.append(path) or path.read_text())
    done(mdl(shell, "config"))
    assert read == [config_of(shell)]


AROUND = {
    "blanks": "  {} ",
    "line end of Windows": "{}\\r",
    "quotes": "'{}'",
    "mark": "\\ufeff{}",
    "all": " \\ufeff'{}' \\r\\n",
}
PASTED = {
    "home": ("/models", "/models"),
    "via": ("hub", "hub"),
    "connections": ("3", "3"),
    "stall": ("9s", "9s"),
    "limit_rate": ("20M", "20M"),
    "window": ("22:00-06:00", "22:00-06:00"),
    "allow_hosts": (["a.example", "b.example"], ["a.example", "b.example"]),
    "mirror": (["s3://bucket/prefix"], ["s3://bucket/prefix"]),
    "stores.link": ("copy", "copy"),
    "stores.also": (["/other"], ["/other"]),
    "log_file": ("/log", "/log"),
    "hooks.on_complete": ("true", "true"),
}


def written(around: str, value: str | list[str]) -> str:
    """A value of TOML, its texts with what editors and .env files put around them."""
    if isinstance(value, list):
        return "[" + ", ".join(written(around, text) for text in value) + "]"
    return f'"{around.format(value)}"'


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_what_is_put_around_a_value(shell: Shell, mdl: Inside, around: str) -> None:
    """Blanks, quotes, a line end of Windows and a byte-order mark around a value of config.toml are no part of it, as
    in a variable, whatever it is: a path, a URL, a choice, a number, a list, a host's or a remote's."""
    tables: dict[str, list[str]] = {}
    for name, (value, _) in PASTED.items():
        table, key = settings_table()[name].key
        tables.setdefault(table, []).append(f"{key} = {written(around, value)}")
    lines = [line for table, keys in tables.items() for line in (f"[{table}]", *keys)]
    pasted = {name: written(around, name) for name in ("bucket", "s3://bucket/p", "FILES_TOKEN", "basic")}
    lines += ["[remotes.store]", f"kind = {pasted['bucket']}", f"url = {pasted['s3://bucket/p']}"]
    lines += ['[hosts."files.example"]', f"token_env = {pasted['FILES_TOKEN']}", f"send = {pasted['basic']}"]
    settings(shell, "\n".join(lines))
    shell = with_environ(shell, MDL_HOME="")
    found = rows(done(mdl(shell, "config", "--json")))
    assert {name: found[name][0] for name in PASTED} == {name: meant for name, (_, meant) in PASTED.items()}
    [remote] = done(mdl(shell, "remote", "list", "--json")).document["remotes"]
    assert (remote["kind"], remote["address"]) == ("bucket", "s3://bucket/p")


def test_a_long_command(shell: Shell, mdl: Inside) -> None:
    """It is longer than a path may be, and no fault of mdl."""
    settings(shell, f'[hooks]\non_complete = "/bin/echo {300 * "x"}"\n')
    done(mdl(shell, "config"))


@pytest.mark.parametrize("quote", ["", "'", '\\"'])
@pytest.mark.parametrize("of", ["file", "variable", "flag"])
def test_a_hook_with_a_blank_in_its_path(shell: Shell, mdl: Inside, of: str, quote: str) -> None:
    """Quotes around a whole value are taken off, and what is left is one program all the same."""
    program = shell.home / "My Scripts" / "note"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ntouch told\n")
    program.chmod(0o755)
    text = f"{quote}{program}{quote}"
    words = ["get", "one"]
    if of == "file":
        settings(shell, f'[hooks]\non_complete = "{text}"\n')
    elif of == "variable":
        shell = with_environ(shell, MDL_ON_COMPLETE=text.replace("\\", ""))
    else:
        words += ["--on-complete", text.replace("\\", "")]
    with FaultyServer(honest(b"whole")) as server:
        write_catalog(shell, "schema = 1\n" + entry_of("one", f"{server.url}/f", b"whole"))
        done(mdl(shell, *words))
    assert list(shell.home.rglob("told"))


def test_relative_paths_of_the_file(shell: Shell, mdl: Inside) -> None:
    """They mean one place, whatever the current folder: they count from the folder of config.toml."""
    settings(shell, '[defaults]\nhome = "m"\nlog_file = "log"\n[stores]\nalso = ["../a", "/b"]\n')
    found = rows(done(mdl(with_environ(shell, MDL_HOME=""), "config", "--json")))
    folder = config_of(shell).parent
    assert found["home"][0] == f"{folder}/m"
    assert found["log_file"][0] == f"{folder}/log"
    assert found["stores.also"][0] == [f"{folder}/../a", "/b"]
    [setting] = done(mdl(shell, "config", "set", "log_file", "here", "--json")).document["settings"]
    assert setting["value"] == f"{shell.home}/here"


def test_folders_in_a_variable(shell: Shell, mdl: Inside) -> None:
    """They are written as in PATH; a folder that is there may have such a sign in its name."""
    (shell.home / "c:d").mkdir()
    for text, meant in (("/a:~/b:", ["/a", "~/b", ""]), (f"{shell.home}/c:d", f"{shell.home}/c:d")):
        found = rows(done(mdl(with_environ(shell, MDL_STORES_ALSO=text), "config", "--json")))
        assert found["stores.also"][0] == meant
    config = Config(environ={"MDL_STORES_ALSO": "/a:~/b:", "HOME": str(shell.home)}, read=dict)
    assert config["stores.also"] == (Path("/a"), Path("~/b").expanduser())


def test_a_list_of_a_variable(shell: Shell, mdl: Inside) -> None:
    """Each item of a list may have blanks and quotes around it."""
    found = rows(done(mdl(with_environ(shell, MDL_ALLOW_HOSTS=" a.example , 'b.example',"), "config", "--json")))
    assert found["allow_hosts"][0] == ["a.example", "b.example"]
