"""What runs in the virtual machine of `support.nfs_machine`: an NFS server, and machines that mount what it exports.

Each machine is a process in mount and PID name spaces of its own, and mounts the folder for itself, so that it has its
own caches of names and attributes. ``nolock`` (NFS 3) has `flock` ask this machine alone: another one is not kept out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from support.catalogs import catalog_of
from support.data import DATA, sha256
from support.faulty_server import FaultyServer
from support.jobs import Gate
from support.nfs_machine import MARK

EXPORTED, SHARED, RUN = Path("/mnt/exported"), Path("/mnt/shared"), Path("/run/nodes")
MOUNTS = {
    "v3": "vers=3,nolock,nosharecache,tcp 127.0.0.1:/mnt/exported",
    "v4": "vers=4.2,nosharecache 127.0.0.1:/",
}
COUNT = 3
_NODE = """
mount -t nfs -o {mount} {shared} || exit 99
cat {shared}/models/one/f.bin  # what is not there is remembered as such
touch ready.{number}
while ! [ -e go.{number} ]; do sleep 0.1; done
{mdl} get one --connections 1 --stall 300 --progress lines > said.{number} 2>&1
echo $? > code.{number}
sha256sum {shared}/models/one/f.bin > sum.{number}
"""


def serve() -> None:
    """Start the NFS server on a disk in memory."""
    for folder in (RUN.parent, EXPORTED.parent, Path("/var/lib/nfs")):
        sh(f"mount -t tmpfs none {folder}")
    sh("mkdir -p /run/rpcbind /var/lib/nfs/sm /var/lib/nfs/rpc_pipefs /var/lib/nfs/v4recovery")
    sh("touch /var/lib/nfs/etab /var/lib/nfs/rmtab; ip link set lo up; modprobe brd rd_nr=1 rd_size=200000")
    sh("modprobe -a ext4 nfsd nfsv3 nfsv4; mkfs.ext4 -q /dev/ram0")
    for folder in (EXPORTED, SHARED, RUN):
        folder.mkdir(parents=True)
    sh(f"mount /dev/ram0 {EXPORTED}; mount -t nfsd nfsd /proc/fs/nfsd; rpcbind")
    sh(f"exportfs -i -o rw,no_root_squash,no_subtree_check,fsid=0 127.0.0.1:{EXPORTED}; rpc.mountd")
    sh("echo 10 > /proc/fs/nfsd/nfsv4leasetime; echo 10 > /proc/fs/nfsd/nfsv4gracetime; rpc.nfsd 8")


def sh(line: str) -> None:
    subprocess.run(line, shell=True, check=True)


def scene(name: str) -> dict[str, object]:
    """Several machines fetch one model at once over the mount called so; with ``-killed`` the one that downloads is
    killed when 70 per cent have come. Returns how often the origin served the file, and how each machine ended."""
    sh(f"rm -rf {EXPORTED}/models {RUN}; mkdir -p {EXPORTED}/models/one {RUN}")
    mount, _, kill = name.partition("-")
    gate, running = Gate(), []
    with FaultyServer(gate) as server:
        (RUN / "catalog.toml").write_text(catalog_of(one=server.url))
        for number in range(COUNT):
            mdl = f"{sys.executable} -m support.node {number} none" if kill else f"{sys.executable} -m mdl"
            line = _NODE.format(mount=f"{MOUNTS[mount]}", shared=SHARED, mdl=mdl, number=number)
            more = {"HOME": f"{RUN}/{number}", "MDL_HOME": f"{SHARED}/models", "HF_ENDPOINT": "http://127.0.0.1:9"}
            words = ("unshare", "-m", "-p", "--fork", "--mount-proc", "--kill-child", "sh", "-c", line)
            running.append(subprocess.Popen(words, env={**os.environ, **more}, cwd=RUN, stderr=subprocess.DEVNULL))
        wait_for(lambda: len(list(RUN.glob("ready.*"))) == COUNT)
        (RUN / "go.0").touch()
        if kill:
            wait_for(gate.reached.is_set)
        for number in range(1, COUNT):
            (RUN / f"go.{number}").touch()
        wait_for(lambda: sum("waiting for" in said.read_text() for said in RUN.glob("said.*")) == COUNT - 1)
        if kill:
            running[0].kill()
        gate.opened.set()
        for one in running:
            one.wait()
        served = server.bytes_sent / len(DATA)
    codes = [(RUN / f"code.{number}") for number in range(COUNT)]
    sums = [path.read_text().split()[0] == sha256(DATA) for path in sorted(RUN.glob("sum.*"))]
    left = sorted(path.name for path in EXPORTED.rglob("*") if path.is_file())
    ended = [int(code.read_text()) if code.exists() else None for code in codes]
    return {"scene": name, "served": served, "codes": ended, "right": sums, "left": left}


def wait_for(holds: object) -> None:
    while not holds():  # type: ignore[operator]
        time.sleep(0.1)


if __name__ == "__main__":
    serve()
    for word in sys.argv[1:]:
        print(MARK + json.dumps(scene(word)), flush=True)
