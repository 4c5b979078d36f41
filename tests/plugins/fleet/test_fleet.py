"""mdl fleet, with small programs in the place of ssh, Slurm and the nodes' mdl; the real ones are in tests/system."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.catalogs import entry_of
from support.data import SMALL
from support.polling import until
from support.shell import Inside, Ran, Shell, done, ended, machine, started, with_environ, write_catalog

from mdl.catalog.lock import Lock, LockedFile, LockedModel
from mdl.catalog.lock import entry_of as locked_entry
from mdl.catalog.lock_file import lock_text
from mdl.catalog.reader import read_catalog
from mdl.ops.sub_catalog import excerpt
from mdl.paths import RelPath
from mdl.plugins.fleet import slurm

ON_SSH = ("--on", "ssh", "--hosts", "n1,n2,n3")
ON_SLURM = ("--on", "slurm", "--nodes", "3")
GOT = {"name": "one", "path": "/m/one", "status": "present", "error": None}
NODE_MDL = """\
#!/bin/sh
# Answers as ANSWERS/<node> says: its exit code and its document; "wait" is one that does not end.
echo "$@" >"ANSWERS/$NODE.words"
for word; do case "$word" in --catalog=*) cp "${word#*=}" "ANSWERS/$NODE.catalog";; esac; done
[ "$(cat "ANSWERS/$NODE")" = wait ] && { trap 'touch "ANSWERS/$NODE.ended"; exit 143' TERM; touch "ANSWERS/$NODE.began"
    while :; do sleep 0.02; done; }
read -r code text <"ANSWERS/$NODE"
echo "$text"
exit "$code"
"""
SSH = """\
#!/bin/sh
while [ "$1" != -- ]; do shift; done
case "$2" in lost-late) echo welcome; echo "Connection to $2 closed by remote host." >&2; exit 255;; esac
case "$2" in flood) exec cat /dev/zero;; grumbler) cat /dev/zero >&2;; quiet) sleep 60 & ;; esac
case "$2" in garbage) echo welcome; echo "$2 says no"; exit 0;; esac
case "$2" in lost*) echo "ssh: connect to host $2: No route to host" >&2; exit 255;; esac
NODE=$2 PATH="BIN:$PATH" exec sh -c "$3"
"""
SBATCH = """\
#!/bin/sh
echo "$@" >>ANSWERS/sbatch.words
[ -n "$BLIND" ] && exit 1
[ -n "$PENDING" ] && while :; do sleep 0.05; done
[ -n "$REFUSE" ] && { echo "sbatch: error: invalid partition specified: $REFUSE" >&2; exit 1; }
restarts=0
while :; do
    rm -f ANSWERS/requeue
    export SLURM_JOB_ID=7 SLURM_JOB_NODELIST='n1 n2 n3' SLURM_RESTART_COUNT=$restarts SLURMD_NODENAME=n1
    sh job.sh >job.out 2>&1
    [ -e ANSWERS/requeue ] || exit 0
    restarts=$((restarts + 1))
done
"""
SRUN = """\
#!/bin/sh
while :; do case "$1" in -*) shift;; *) break;; esac; done
for run; do :; done
for node in n1 n2 n3; do
    [ "$node" = "$FULL" ] && { : >"$run/$node.code"; continue; }
    [ "$node" = "$WRONG" ] && { (cd "$run" && eval "$LEAVES"); continue; }
    SLURMD_NODENAME=$node NODE=$node PATH="BIN:$PATH" "$@"
done
"""
SCONTROL = """\
#!/bin/sh
case "$1" in
    show) echo "$3" | sed 's/n\\[1-3\\]/n1,n2,n3/' | tr ', ' '\\n\\n';;
    requeue) touch ANSWERS/requeue; echo 0 "$(cat ANSWERS/again)" >ANSWERS/n2; kill "$PPID";;
esac
"""
SQUEUE = """\
#!/bin/sh
case "$*" in *mdl-fleet-busy*) echo RUNNING None;; esac
[ -n "$PENDING" ] || exit 0
echo >>ANSWERS/looks
[ "$(wc -l <ANSWERS/looks)" -gt 2 ] && echo "$PENDING" || echo PENDING Resources
"""
SCANCEL = """\
#!/bin/sh
[ -z "$DEAF" ] || { echo "scancel: error: $DEAF" >&2; exit 1; }
"""


def document(code: int = 0, status: str = "present", **facts: object) -> str:
    """What a node's `mdl get --json` prints, after its exit code."""
    files = [{"path": "f", "size": len(SMALL), "action": "fetched"}]
    error = {"code": "DEADLINE", "message": "its time is over", "hint": None, "item": None} if code else None
    models = [GOT | {"status": status, "files": files}]
    head = {"schema": "mdl.get/1", "ok": not code, "exit_code": code, "error": error}
    return f"{code} {json.dumps(head | {'bytes_fetched': len(SMALL), 'seconds': 1.5, 'models': models} | facts)}"


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    folder = tmp_path / "answers"
    folder.mkdir()
    for node in ("n1", "n2", "n3"):
        (folder / node).write_text(document())
    return folder


@pytest.fixture
def head(tmp_path: Path, answers: Path) -> Shell:
    """The machine on which the fleet is called: its programs are small scripts, its model is locked."""
    programs = {
        "mdl": NODE_MDL,
        "ssh": SSH,
        "sbatch": SBATCH,
        "srun": SRUN,
        "scontrol": SCONTROL,
        "scancel": SCANCEL,
        "squeue": SQUEUE,
    }
    place = tmp_path / "bin"
    place.mkdir()
    for name, text in programs.items():
        (place / name).write_text(text.replace("ANSWERS", str(answers)).replace("BIN", str(place)))
        (place / name).chmod(0o755)
    catalog = "schema = 1\n" + entry_of("one", "https://models.example/f", SMALL)
    shell = machine(tmp_path / "home", catalog, PATH=f"{place}:{os.environ['PATH']}", HF_TOKEN="hf_" + "s" * 30)
    [model] = read_catalog((shell.home / "catalog.toml",)).models.values()
    file = LockedFile(RelPath("f"), "https://models.example/f", len(SMALL))
    lock = Lock({"one": LockedModel("one", locked_entry(model), (file,))})
    (shell.home / "mdl.lock").write_text(lock_text(lock))
    assert excerpt([model], lock).lock == lock_text(lock)
    return shell


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm is looked at and asked without pauses."""
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(slurm, "ASK_SECONDS", 0.0)


@pytest.mark.parametrize("on", [ON_SSH, ON_SLURM])
def test_every_node_is_asked_with_the_lock(mdl: Inside, head: Shell, answers: Path, on: tuple[str, ...]) -> None:
    """Each node runs `mdl get --locked --json` on a catalog with this entry alone, and is a row; the settings given go
    along, and no secret is in any word."""
    ran = done(mdl(head, "fleet", "get", "one", *on, "--to=/m", "--connections=3", "--json"))
    rows = [(row["node"], row["exit_code"], row["bytes"], row["status"]) for row in ran.document["nodes"]]
    assert rows == [(name, 0, len(SMALL), "present") for name in ("n1", "n2", "n3")]
    assert {row["document"]["schema"] for row in ran.document["nodes"]} == {"mdl.get/1"}
    words = (answers / "n2.words").read_text()
    assert words.startswith("get --json --progress=none --locked --to=/m --connections=3 --catalog=")
    assert words.endswith("/catalog.toml -- one\n")
    assert "[models.one]" in (answers / "n3.catalog").read_text()
    assert not [file for file in answers.iterdir() if "hf_ss" in file.read_text()]


@pytest.mark.parametrize("on", [ON_SSH, ON_SLURM])
def test_no_secret_of_a_url_is_sent(mdl: Inside, head: Shell, answers: Path, on: tuple[str, ...]) -> None:
    """A query that may be a secret is in no script, word or file of a node; its file is named, here alone."""
    url = "https://models.example/f?auth=S3CRET&version=2"
    write_catalog(head, "schema = 1\n" + entry_of("one", url, SMALL))
    done(mdl(head, "lock", "--offline"))
    ran = done(mdl(head, "fleet", "get", "one", *on, "--json"))
    assert ran.document["queries_left_out"] == ["one/f.bin"]
    assert [line for line in ran.err.splitlines() if line.endswith("left out: one/f.bin")]
    assert "?version=2" in (answers / "n3.catalog").read_text()
    kept = [file.read_text() for file in answers.iterdir()]
    assert not [text for text in (*kept, ran.out, ran.err) if "S3CRET" in text]


@pytest.mark.parametrize(("task", "begins"), [("verify", "verify --json"), ("status", "list --json")])
def test_other_tasks(mdl: Inside, head: Shell, answers: Path, task: str, begins: str) -> None:
    """A verify is the node's `mdl verify`, a status its `mdl list`; a status takes no flags of a download."""
    mdl(head, "fleet", task, "one", *ON_SSH, "--layout=plain")
    assert (answers / "n1.words").read_text().startswith(f"{begins} --progress=none --layout=plain --catalog=")
    mdl(head, "fleet", "verify", "one", *ON_SSH, "--repair")
    assert "verify --json --progress=none --repair --catalog=" in (answers / "n1.words").read_text()


def test_rows_for_people(told: Callable[..., str], head: Shell, answers: Path) -> None:
    """One row a node, why the ones that are not well are not, and one closing sentence."""
    (answers / "n2").write_text(document(75))
    text = told(head, "fleet", "get", "one", "--on", "ssh", "--hosts", "n1,n2,lost")
    for words in ("NODE", "its time is over", "No route to host", "1 of 3 nodes ok: ", "2 of 3 nodes are not ok: "):
        assert words in text


@pytest.mark.fault(521)
@pytest.mark.parametrize(
    ("hosts", "n2", "code"),
    [
        ("n1,lost", "", 5),
        ("n1,lost-late", "", 5),
        ("n1,n2", document(75), 75),
        ("lost,n2", document(75), 10),
        ("n1,n2", "7 no", 7),
    ],
)
def test_exit_codes(mdl: Inside, head: Shell, answers: Path, hosts: str, n2: str, code: int) -> None:
    """The code of the one reason, or 10; a host that cannot be reached is a row, in ssh's words."""
    (answers / "n2").write_text(n2 or document())
    found = done(mdl(head, "fleet", "get", "one", "--on", "ssh", "--hosts", hosts, "--json"), code).document["nodes"]
    assert [row["node"] for row in found] == sorted(hosts.split(","))
    assert [row["status"] for row in found if "lost" in row["node"]] == ["no answer"] * ("lost" in hosts)


@pytest.mark.fault(524)
@pytest.mark.fault(527)
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nobody_waits_any_more(head: Shell, answers: Path, how: signal.Signals, code: int) -> None:
    """If the fleet's mdl is stopped or killed, that of a node is ended. Every node is a row, also those that did not
    answer until then."""
    (answers / "n2").write_text("wait")
    with started(head, "fleet", "get", "one", *ON_SSH, "--json") as process:
        until((answers / "n2.began").exists)
        process.send_signal(how)
        ran = ended(process, code)
    until((answers / "n2.ended").exists)
    if code == 130:
        assert "cancelled on the nodes too" in ran.err
        rows = {row["node"]: row["status"] for row in ran.document["nodes"]}
        assert (rows.keys(), rows["n2"]) == ({"n1", "n2", "n3"}, "no answer")


@pytest.mark.fault(525)
def test_a_job_of_slurm_requeues_itself(mdl: Inside, head: Shell, answers: Path) -> None:
    """A node that ends with 75 has the job requeued, and its last answer counts; after three times that is final."""
    (answers / "n2").write_text(document(75))
    (answers / "again").write_text(document().partition(" ")[2])
    ran = done(mdl(head, "fleet", "get", "one", *ON_SLURM, "--json"))
    assert [row["exit_code"] for row in ran.document["nodes"]] == [0, 0, 0]
    assert "Slurm's job 7 runs on" in ran.err
    (answers / "n3").write_text(document(9))
    done(mdl(head, "fleet", "get", "one", *ON_SLURM), 9)
    assert not list((head.home / ".local/state/mdl/fleet").iterdir())


def test_hosts_of_a_file(mdl: Inside, head: Shell, tmp_path: Path) -> None:
    """Hosts come from the flag and from a file of any editor, with comments, each once; Slurm has them as node list."""
    (tmp_path / "hosts").write_text("\ufeffn1  # the first\r\n\n# all\nn2\n")
    words = ("fleet", "get", "one", "--hosts", "n2", "--hosts-file", str(tmp_path / "hosts"), "--json")
    ran = done(mdl(head, *words, "--on", "ssh"))
    assert [row["node"] for row in ran.document["nodes"]] == ["n1", "n2"]
    done(mdl(head, "fleet", "get", "one", "--hosts", "n1,n2,n3", "--on", "slurm"))
    assert "--nodes=3 " in (said := (tmp_path / "answers" / "sbatch.words").read_text())
    assert "--nodelist=n1,n2,n3" in said


@pytest.mark.fault(528)
@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("one",), 2, "--on: no engine is named"),
        (("one", "--on", "ssh"), 2, "no hosts are named"),
        (("one", "--on", "ssh", "--hosts", "-oProxyCommand=x"), 2, "does not begin with '-'"),
        (("one", "--on", "slurm", "--hosts=--help"), 2, "does not begin with '-'"),
        (("one", "--on", "slurm", "--hosts=n1,-x"), 2, "does not begin with '-'"),
        (("one", "--on", "slurm"), 2, "how many nodes?"),
        (("one", "--on", "slurm", "--nodes", "0"), 2, "0 is not a number of nodes"),
        (("one", "--on", "ssh", "--hosts", "a", "--fan-out", "sbcast"), 2, "no such fan-out"),
        (("one", *ON_SLURM, "--fan-out", "sbcast"), 2, "--to /local/models"),
        (("one", *ON_SLURM, "--fan-out", "sbcast", "--to=/l", "--layout=hf-cache"), 2, "into plain folders"),
        (("one", "--on", "ray", "--hosts", "a"), 2, "Ray chooses the nodes"),
        (("none", *ON_SSH), 3, "none: not in the catalog"),
        (("other", *ON_SSH), 8, "other: not in the lock"),
    ],
)
def test_what_cannot_be_begun(mdl: Inside, head: Shell, words: tuple[str, ...], code: int, why: str) -> None:
    """A wrong call, and a model that is not locked, are told before any node is asked."""
    catalog = head.home / "catalog.toml"
    catalog.write_text(catalog.read_text() + entry_of("other", "https://models.example/o", SMALL))
    ran = done(mdl(head, "fleet", "get", *words), code)
    assert why in ran.err
    assert not list((head.home.parent / "answers").glob("*.words"))


@pytest.mark.fault(528)
def test_slurm_refuses(mdl: Inside, head: Shell, quick: None) -> None:
    """What sbatch says is what the user reads, and nothing is left behind; so is a Slurm that is not there."""
    ran = done(mdl(with_environ(head, REFUSE="gpu"), "fleet", "get", "one", *ON_SLURM), 2)
    assert "sbatch: invalid partition specified: gpu" in ran.err
    assert not list((head.home / ".local/state/mdl/fleet").iterdir())
    (head.home.parent / "bin" / "sbatch").unlink()
    ran = done(mdl(with_environ(head, PATH=str(head.home.parent / "bin")), "fleet", "get", "one", *ON_SLURM), 2)
    assert "sbatch: it is not installed here" in ran.err


def test_a_large_fleet_lists_what_is_not_well(mdl: Inside, head: Shell, answers: Path) -> None:
    """Of 33 nodes only the one that is not well is a row; the sum comes first."""
    names = [f"m{number}" for number in range(33)]
    for name in names:
        (answers / name).write_text(document())
    (answers / "m7").write_text(document(75))
    ran: Ran = mdl(head, "fleet", "get", "one", "--on", "ssh", "--hosts", ",".join(names))
    assert (ran.code, [line.split()[0] for line in ran.out.splitlines()]) == (75, ["NODE", "m7"])
    assert len(ran.err.splitlines()) < 30


@pytest.mark.fault(485)
def test_more_hosts_than_files_may_be_open(head: Shell) -> None:
    """What one host needed is closed before the next is asked, so that every one of them is a row."""
    hosts = ",".join(f"lost{number}" for number in range(150))
    words = ("fleet", "get", "one", "--on", "ssh", "--hosts", hosts, "--json")
    rows = done(head.run(*words, prefix=("prlimit", "--nofile=128")), 5).document["nodes"]
    assert [row["status"] for row in rows] == ["no answer"] * 150


def test_a_node_that_does_not_stop_talking(head: Shell) -> None:
    """It is ended, its row says so, the others are well, and neither memory nor the temporary folder fills."""
    folder = head.home / "tmp"
    folder.mkdir()
    (head.home.parent / "answers" / "quiet").write_text(document())
    small = with_environ(head, TMPDIR=str(folder))
    words = ("fleet", "status", "one", "--on", "ssh", "--hosts", "n1,flood,n2,garbage,quiet", "--json")
    ran = done(small.run(*words, prefix=("prlimit", f"--as={600 * 2**20}")), 6)
    rows = {row["node"]: row for row in ran.document["nodes"]}
    assert sorted(name for name, row in rows.items() if row["error"] is None) == ["n1", "n2", "quiet"]
    assert {row["error"]["exit_code"] for row in rows.values() if row["error"]} == {6}
    assert "its answer has more than 16 MiB" in rows["flood"]["error"]["message"]
    assert "garbage says no" in rows["garbage"]["error"]["message"]
    assert list(folder.iterdir()) == []


def test_a_node_that_grumbles_for_ever(head: Shell) -> None:
    """Ctrl-C is heard while a node fills its standard error."""
    with started(head, "fleet", "status", "one", "--on", "ssh", "--hosts", "n1,grumbler", "--json") as process:
        until(lambda: (head.home.parent / "answers" / "n1.words").exists())
        process.send_signal(signal.SIGINT)
        ran = ended(process, 130)
    assert {row["node"]: row["status"] for row in ran.document["nodes"]}["grumbler"] == "no answer"


PLANTED = {
    "a pipe": ("mkfifo n2.code", "n2.code is a pipe"),
    "a link": ("ln -s /etc/passwd n2.code", "n2.code is a link"),
    "a link to errors": ("ln -s /etc/passwd n2.err; : >n2.out; echo 5 1 >n2.code", "n2.err is a link"),
    "a folder": ("mkdir n2.code", "n2.code is a folder"),
    "a device": ("mknod n2.code c 1 5", "n2.code is a device"),
    "another user's": ("echo 0 1 >n2.code; chown 12345 n2.code", "n2.code is a file of"),
    "a large answer": ("truncate -s 1G n2.out; : >n2.err; echo 0 1 >n2.code", "n2.out is a file of more than"),
    "a large code": ("truncate -s 1G n2.code", "n2.code is a file of more than"),
    "a code of many digits": (f"echo {'9' * 6000} 1 >n2.code", "n2.code has no exit code in it: 999"),
    "a code that no process has": ("echo 256 1 >n2.code", "n2.code has no exit code in it: 256"),
    "words": ("echo hello >n2.code", "n2.code has no exit code in it: hello"),
}


@pytest.mark.parametrize(("left", "words"), PLANTED.values(), ids=PLANTED)
def test_what_a_node_leaves_is_no_file(mdl: Inside, head: Shell, left: str, words: str) -> None:
    """Only regular files of this user are read, within bounds, and behind no link: the row says what lies there."""
    if os.geteuid() and ("mknod" in left or "chown" in left):
        pytest.skip("needs root")
    ran = done(mdl(with_environ(head, WRONG="n2", LEAVES=left), "fleet", "get", "one", *ON_SLURM, "--json"), 6)
    rows = {row["node"]: row for row in ran.document["nodes"]}
    assert (rows["n1"]["error"], rows["n3"]["error"]) == (None, None)
    assert words in rows["n2"]["error"]["message"]
    assert "root:" not in ran.out + ran.err


@pytest.mark.parametrize("name", ["9" * 200, "1000000000", "07", "٣"])
def test_a_run_that_slurm_did_not_number(mdl: Inside, head: Shell, name: str) -> None:
    """A folder that looks like a later run of the job is not waited for."""
    left = f"mkdir ../{name}; echo 7 >../{name}/job"
    rows = done(mdl(with_environ(head, WRONG="n2", LEAVES=left), "fleet", "get", "one", *ON_SLURM, "--json"), 5)
    assert [row["status"] for row in rows.document["nodes"]] == ["present", "no answer", "present"]


@pytest.mark.parametrize("program", ["scontrol", "squeue"])
def test_a_slurm_that_does_not_stop_talking(mdl: Inside, head: Shell, quick: None, program: str) -> None:
    """A program of Slurm that says more than it may is ended: 6, naming it."""
    place = head.home.parent / "bin" / program
    place.write_text("#!/bin/sh\nexec cat /dev/zero\n")
    words = ("--hosts", "n1,n2") if program == "scontrol" else ("--nodes", "2")
    ran = done(mdl(with_environ(head, PENDING="PENDING None"), "fleet", "get", "one", "--on", "slurm", *words), 6)
    assert f"{program}: it says more than" in ran.err


@pytest.mark.fault(486)
def test_nodes_as_slurm_writes_them(mdl: Inside, head: Shell, answers: Path) -> None:
    """A list in Slurm's notation is that many nodes, and one that is named twice is asked once."""
    done(mdl(head, "fleet", "get", "one", "--on", "slurm", "--hosts", "n[1-3],n2"))
    said = (answers / "sbatch.words").read_text()
    assert "--nodes=3 " in said
    assert said.endswith("--nodelist=n1,n2,n3 job.sh\n")
    ran = done(mdl(head, "fleet", "get", "one", "--on", "slurm", "--hosts", "n[1-3]", "--nodes", "2"), 2)
    assert "--hosts names 3 nodes, and --nodes says 2" in ran.err


@pytest.mark.fault(487)
def test_a_job_that_waits_is_cancelled_from_outside(mdl: Inside, head: Shell, quick: None) -> None:
    """Why a job waits is told once for each reason, and when it was cancelled mdl ends."""
    ran = done(mdl(with_environ(head, PENDING="CANCELLED None"), "fleet", "get", "one", *ON_SLURM), 143)
    assert ran.err.count("the job waits: Slurm says Resources") == 1
    assert "Slurm's job was cancelled" in ran.err


@pytest.mark.fault(488)
def test_a_folder_that_no_node_sees(mdl: Inside, head: Shell, quick: None, tmp_path: Path) -> None:
    """If a job ends and nobody has answered, the hint names the folder for the answers."""
    words = ("fleet", "get", "one", *ON_SLURM, "--shared", str(tmp_path / "shared"))
    ran = done(mdl(with_environ(head, BLIND="yes"), *words), 5)
    assert f"all nodes must see {tmp_path}/shared; --shared names another folder" in ran.err


@pytest.mark.fault(489)
@pytest.mark.parametrize(("deaf", "hint"), [("", "was cancelled on the nodes"), ("timed out", "scancel --name=mdl-")])
def test_what_could_not_be_cancelled_is_told(head: Shell, answers: Path, deaf: str, hint: str) -> None:
    """It says that the nodes have stopped only if Slurm has cancelled the job."""
    waiting = with_environ(head, PENDING="PENDING Resources", DEAF=deaf)
    with started(waiting, "fleet", "get", "one", *ON_SLURM) as process:
        until((answers / "sbatch.words").exists)
        process.send_signal(signal.SIGINT)
        err = ended(process, 130).err
    assert hint in err
    assert ("may continue (timed out)" in err, "cancelled on the nodes" in err) == (bool(deaf), not deaf)


@pytest.mark.fault(490)
def test_an_answer_that_the_disk_had_no_room_for(mdl: Inside, head: Shell) -> None:
    """A node whose answer is empty did not answer; the others did."""
    rows = done(mdl(with_environ(head, FULL="n2"), "fleet", "get", "one", *ON_SLURM, "--json"), 5).document["nodes"]
    assert [row["status"] for row in rows] == ["present", "no answer", "present"]


@pytest.mark.fault(491)
@pytest.mark.fault(492)
def test_what_a_killed_fleet_left_is_removed(mdl: Inside, head: Shell, tmp_path: Path) -> None:
    """Copies of a job whose folder is gone, and old folders of jobs that are over, are removed; those of a job that is
    queued, and young ones, stay."""
    shared, disk = tmp_path / "shared", tmp_path / "a disk"
    for name in ("dead", "busy", "young"):
        (shared / f"mdl-fleet-{name}").mkdir(parents=True)
        (disk / f".mdl-fleet-{name}").mkdir(parents=True)
    for name in ("dead", "busy"):
        os.utime(shared / f"mdl-fleet-{name}", (0, 0))
    done(mdl(head, "fleet", "get", "one", *ON_SLURM, "--shared", str(shared), "--to", str(disk)))
    assert {path.name for path in shared.iterdir()} == {"mdl-fleet-busy", "mdl-fleet-young"}
    assert {path.name for path in disk.iterdir()} == {".mdl-fleet-busy", ".mdl-fleet-young"}
