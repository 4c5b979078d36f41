"""A virtual machine with a real NFS server and real NFS clients: Debian's kernel in QEMU, on the files of this system.

It has no network and writes nothing to this system's disk, which it mounts read-only; `support.nfs_guest` runs in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_SECONDS = 900.0
_TOOLS = ("qemu-system-x86_64", "cpio", "modprobe", "busybox", "rpcbind", "exportfs", "mount.nfs", "mkfs.ext4")
_DRIVERS = ("virtio_pci", "9pnet_virtio", "9p")
_INIT = """#!/bin/busybox sh
for kind in proc sysfs devtmpfs; do /bin/busybox mount -t $kind none /$kind; done
for file in /drivers/*; do /bin/busybox insmod $file; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144,cache=loose host /host
/bin/busybox mount -t proc none /host/proc
/bin/busybox mount -t sysfs none /host/sys
/bin/busybox mount -t devtmpfs none /host/dev
/bin/busybox env -i PATH={path} PYTHONPATH={modules} PYTHONDONTWRITEBYTECODE=1 HOME=/run \\
    /bin/busybox chroot /host {python} -m support.nfs_guest {scenes}
/bin/busybox poweroff -f
"""
MARK = "ROW "


def rows(folder: Path, *scenes: str) -> list[dict[str, Any]]:
    """What each of these scenes of `support.nfs_guest` ended with. Skips the test if a part is not installed."""
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    lacking = [tool for tool in _TOOLS if not shutil.which(tool, path=path)]
    kernels = sorted(one for one in Path("/boot").glob("vmlinuz-*") if _modules(one.name).exists())
    if lacking or not kernels:
        pytest.skip(f"NO REAL NFS HERE: {', '.join(lacking) or 'no kernel in /boot'} is not installed")
    init = _INIT.format(path=path, modules=os.pathsep.join(sys.path), python=sys.executable, scenes=" ".join(scenes))
    words = ("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2048", "-smp", "2")
    words += ("-nographic", "-no-reboot", "-net", "none", "-kernel", str(kernels[-1]))
    words += ("-initrd", str(_first_disk(folder, kernels[-1], init, path)), "-append", "console=ttyS0 quiet panic=-1")
    words += ("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap")
    words += ("-device", "virtio-9p-pci,fsdev=host,mount_tag=host")
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_SECONDS)
    said = done.stdout.decode(errors="replace").splitlines()
    found = [json.loads(line.partition(MARK)[2]) for line in said if MARK in line]
    assert len(found) == len(scenes), "\n".join(said[-30:])
    return found


def _modules(kernel: str) -> Path:
    return Path("/lib/modules", kernel.removeprefix("vmlinuz-"))


def _first_disk(folder: Path, kernel: Path, init: str, path: str) -> Path:
    """The archive from which the machine starts: what it takes to mount this system's root folder."""
    root, disk = folder / "first", folder / "first.cpio"
    for name in ("bin", "drivers", "proc", "sysfs", "devtmpfs", "host"):
        (root / name).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), root / "bin" / "busybox")
    (root / "init").write_text(init)
    (root / "init").chmod(0o755)
    found: list[str] = []
    for driver in _DRIVERS:
        words = ("modprobe", "-S", _modules(kernel.name).name, "--show-depends", driver)
        told = subprocess.run(words, env={"PATH": path}, capture_output=True, text=True, check=True).stdout
        found += [line.split()[1] for line in told.splitlines() if line.startswith("insmod")]
    for number, driver in enumerate(dict.fromkeys(found), 100):
        shutil.copy(driver, root / "drivers" / f"{number}-{Path(driver).name}")
    names = "\n".join(str(one.relative_to(root)) for one in sorted(root.rglob("*")))
    with disk.open("wb") as file:
        subprocess.run(("cpio", "-o", "-H", "newc", "--quiet"), cwd=root, input=names.encode(), stdout=file, check=True)
    return disk
