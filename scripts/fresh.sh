#!/usr/bin/env bash
# Proves that ./demo and ./test need nothing but what the README says: in a new Debian root made by
# debootstrap, with git, the toolchain and a clone, and nothing else. Needs root. Words are releases.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly MIRROR=http://deb.debian.org/debian
mounted=()
root=

# Takes the root apart, but never with something of the machine still mounted in it.
take_apart() {
    local at
    for at in "${mounted[@]}"; do
        umount --recursive "$at" || {
            echo "left behind: $root" >&2
            return
        }
    done
    mounted=()
    [[ -z $root ]] || rm -rf --one-file-system "$root"
}

# Mounts something at a folder of the root; an unmount in there must not reach the machine's own mounts.
mount_at() {
    local at=$root/$1
    shift
    mkdir -p "$at"
    mount "$@" "$at"
    mounted=("$at" "${mounted[@]}")
    mount --make-rprivate "$at"
}

make_root() {
    debootstrap --variant=minbase --include=ca-certificates,git "$1" "$root" "$MIRROR"
    # The resolver, and the certificates of a proxy if this machine sits behind one.
    cp /etc/resolv.conf "$root/etc/"
    cp -r /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$root" update-ca-certificates
    mount_at proc -t proc proc
    mount_at dev --rbind /dev
    # The toolchain, read-only, as rustup would have installed it.
    mount_at opt/toolchain --bind -o ro "$(rustc --print sysroot)"
    git clone --quiet --no-local . "$root/srv/qed"
}

[[ $(id -u) -eq 0 ]] || {
    echo "fresh needs root: it makes a Debian root and enters it" >&2
    exit 1
}
trap take_apart EXIT
for release in "${@:-bookworm}"; do
    [[ $release == bookworm || $release == trixie ]] || {
        echo "there is no release $release: bookworm or trixie" >&2
        exit 1
    }
    root=$PWD/target/fresh/$release
    [[ ! -e $root ]] || {
        echo "$root is left of another run: remove it" >&2
        root=
        exit 1
    }
    mkdir -p "$root"
    make_root "$release"
    for script in ./demo ./test; do
        echo "== $release: $script"
        # With an environment that has nothing of ours.
        chroot "$root" env -i CI=true HOME=/root PATH=/opt/toolchain/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            sh -c "cd /srv/qed && exec $script"
    done
    take_apart
    root=
    echo "== $release: ./demo and ./test pass in a new root"
done
