#!/usr/bin/env bash
# Fetches what the tests with real guests boot: Debian's kernel for virtual machines, with the modules
# for virtio, into target/guest. It is unpacked and never installed. Needs no rights.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly AT=target/guest
readonly MODULES=(virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk
    virtio_console crc16 crc32c_generic mbcache jbd2 ext4)

# Prints the package with the kernel, which the other one stands for.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }'
}

[[ ! -e $AT/vmlinuz ]] || exit 0
mkdir -p target
work=$(mktemp -d "$PWD/target/guest.XXXXXX")
trap 'rm -rf "$work"' EXIT
package=$(kernel_package)
[[ $package == linux-image-* ]] || {
    echo 'apt knows no linux-image-cloud-amd64: apt-get update' >&2
    exit 1
}
# A download as root for a folder of root's is told about at length.
(cd "$work" && apt-get download --quiet -o APT::Sandbox::User="$(id -un)" "$package")
dpkg-deb --extract "$work"/linux-image-*.deb "$work/tree"
mkdir "$work/guest"
cp "$work"/tree/boot/vmlinuz-* "$work/guest/vmlinuz"
for module in "${MODULES[@]}"; do
    # Some kernels have one built in, or compress them.
    find "$work/tree" -name "$module.ko*" -exec cp -t "$work/guest" {} +
done
find "$work/guest" -name '*.xz' -exec busybox unxz {} +
rm -rf "$AT"
mv "$work/guest" "$AT"
