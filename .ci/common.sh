# What .ci/run and .ci/long share: Debian's packages, and how a step is told. To be sourced.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    missing=()
    pairs=(
        nginx:nginx curl:curl openssl:openssl strace:strace unzip:unzip zip:zip 7z:p7zip-full bsdtar:libarchive-tools
        aria2c:aria2 wget:wget nft:nftables ip:iproute2 faketime:faketime zsh:zsh fish:fish mandoc:mandoc tmux:tmux
        chromium:chromium buildah:buildah debootstrap:debootstrap
        qemu-system-x86_64:qemu-system-x86 cpio:cpio busybox:busybox-static exportfs:nfs-kernel-server
        squid:squid fusermount3:fuse3
        sshfs:sshfs /usr/lib/openssh/sftp-server:openssh-sftp-server
        sbatch:slurm-client slurmctld:slurmctld slurmd:slurmd munged:munge sshd:openssh-server ssh:openssh-client
        crontab:cron systemd-analyze:systemd
    )
    for pair in "${pairs[@]}"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    ls /boot/vmlinuz-* >/dev/null 2>&1 || missing+=(linux-image-amd64) # for the machine of tests/system/test_nfs.py
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
fi

command_of() { # the line after the mark "<!-- $1 -->" and its code fence in the README
    awk -v mark="<!-- $1 -->" '$0 == mark { getline; getline; print; exit }' README.md
}

TIMEFORMAT="  %0R s; the processors worked for %0U + %0S s"
run() { # says how long it took: nothing depends on that, but whoever makes the whole quicker wants to know
    echo "\$ $1"
    time bash -c "$1"
}

together() { # runs all these steps at once; what each said is told when all have ended
    local failed=0 number=0 folder
    local -a pids=()
    folder=$(mktemp -d)
    for step; do
        run "$step" > "$folder/${#pids[@]}" 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || failed=1
        cat "$folder/$number"
        number=$((number + 1))
    done
    return $failed
}
