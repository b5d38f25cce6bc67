# Shared by ./demo, ./test and .ci/run, which source it: installs what a clean Debian 12 or 13 lacks.
# shellcheck shell=bash

# QEMU before this differs in what it writes; Debian 12 has this one in its backports.
readonly QEMU_VERSION_MIN=1:10.0

say() { printf '== %s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Makes sure of cargo, of the packages of scripts/packages for the given needs, and of a kernel for
# the guests of the tests.
prepare() {
    need_cargo
    # mke2fs and losetup are here, and not on an ordinary user's path.
    PATH=$PATH:/usr/sbin:/sbin
    command -v dpkg-query >/dev/null ||
        die "this script knows Debian 12 and 13; elsewhere install what scripts/packages names, then run cargo"
    need_packages "$@"
    [[ " $* " != *" test "* ]] || need_guest_kernel
}

# Without the kernel the tests with guests fail in CI and are skipped by name elsewhere.
need_guest_kernel() {
    scripts/guest-kernel.sh ||
        { can_be_root && as_root apt-get update --quiet && scripts/guest-kernel.sh; } ||
        say 'there is no kernel for the guests of the tests'
}

# Finds cargo also where rustup put it while this shell was already open.
need_cargo() {
    command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
    command -v cargo >/dev/null ||
        die "cargo is missing: install rustup's stable toolchain, https://rustup.rs"
}

need_packages() {
    local package missing=() from_backports
    for package in $(packages_for "$@"); do
        is_installed "$package" || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    can_be_root || refuse_to_install "${missing[@]}"

    say "installing ${missing[*]}"
    as_root apt-get update --quiet || say "apt-get update had errors: trying with the lists there are"
    if needs_backports "${missing[@]}"; then
        add_backports
        mapfile -t from_backports < <(qemu_packages "${missing[@]}")
        apt_install --target-release bookworm-backports "${from_backports[@]}"
    fi
    apt_install "${missing[@]}"
    for package in "${missing[@]}"; do
        is_installed "$package" || die "$package could not be installed in the version needed"
    done
}

# Prints the packages for the given needs.
packages_for() {
    local need
    for need; do
        awk -v need="$need" '$1 == need { print $2 }' scripts/packages
    done
}

# Whether a package is there, and QEMU's new enough.
is_installed() {
    local version
    version=$(dpkg-query --show --showformat='${db:Status-Status} ${Version}\n' "$1" 2>/dev/null |
        awk '$1 == "installed" { print $2; exit }')
    [[ -n $version ]] || return 1
    [[ $1 != qemu-* ]] || dpkg --compare-versions "$version" ge "$QEMU_VERSION_MIN"
}

can_be_root() {
    [[ $(id -u) == 0 ]] || sudo -n true 2>/dev/null
}

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
}

# Prints those of the packages that are QEMU's, one a line: all of one version.
qemu_packages() {
    printf '%s\n' "$@" | grep '^qemu-'
}

# Whether QEMU is among the packages and this Debian's own is too old.
needs_backports() {
    qemu_packages "$@" >/dev/null && grep -qx 'VERSION_CODENAME=bookworm' /etc/os-release
}

# Adds bookworm-backports beside the configured sources, unless apt knows it already.
add_backports() {
    local file=/etc/apt/sources.list.d/qed-bookworm-backports.sources
    if [[ -n $(suite_uri bookworm-backports 'Debian Backports') ]]; then return; fi
    [[ ! -e $file ]] || die "$file is there, but apt does not know bookworm-backports"
    say "adding bookworm-backports in $file"
    backports_source | as_root tee "$file" >/dev/null
    as_root apt-get update --quiet
}

# Prints the sources entry of bookworm-backports on the mirror that serves bookworm.
backports_source() {
    local mirror
    mirror=$(suite_uri bookworm Debian)
    printf '%s\n' 'Types: deb' "URIs: ${mirror:-http://deb.debian.org/debian}" \
        'Suites: bookworm-backports' 'Components: main' \
        'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg'
}

# Prints where apt fetches a suite from: by code name and origin, as the fetched lists say.
suite_uri() {
    # apt expands these names, not the shell.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(CODENAME)|$(ORIGIN)|$(REPO_URI)' 'Created-By: Packages' |
        awk -F '|' -v codename="$1" -v origin="$2" '
            $1 == codename && $2 == origin && !found { found = 1; print $3 }'
}

# Says what to install by hand, and stops.
refuse_to_install() {
    local release=
    if needs_backports "$@"; then
        release=' -t bookworm-backports'
        echo 'QEMU 10 comes from bookworm-backports. If apt does not know that suite, as root:'
        echo
        printf "cat > /etc/apt/sources.list.d/qed-bookworm-backports.sources <<'END'\n"
        backports_source
        printf 'END\n\n'
    fi >&2
    {
        echo 'Debian packages are missing. As root:'
        echo "apt-get update && apt-get install -y --no-install-recommends$release $*"
    } >&2
    exit 1
}
