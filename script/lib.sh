# What the other scripts share: find Python, make the virtual environment, get Debian packages.
# Sourced, never run.

NARTHEX_VENV=${NARTHEX_VENV:-$PWD/.venv}

die() {
    printf 'narthex: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '  what to do: %s\n' "$2" >&2
    exit 1
}

# Run quietly; on failure show what was said.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# apt_install PACKAGE...: install what is missing, as root, without starting any service of theirs.
apt_install() {
    local missing=() package made='' fresh=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || return 1
    printf '  installing %s …\n' "${missing[*]}"
    # policy-rc.d forbids that maintainer scripts start services: see invoke-rc.d(8).
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        made=yes
    fi
    local done=0
    if ! DEBIAN_FRONTEND=noninteractive quietly apt-get install -y --no-install-recommends "${missing[@]}"; then
        quietly apt-get update &&
            DEBIAN_FRONTEND=noninteractive quietly apt-get install -y --no-install-recommends "${missing[@]}" ||
            done=1
    fi
    [ -z "$made" ] || rm -f /usr/sbin/policy-rc.d
    # Nor shall they start with the machine: we run the programs ourselves.
    for package in "${missing[@]}"; do
        case $package in
        prometheus | prometheus-alertmanager | prometheus-node-exporter | prometheus-process-exporter)
            fresh+=("$package.service")
            ;;
        docker.io) fresh+=(docker.service docker.socket containerd.service) ;;
        smartmontools) fresh+=(smartmontools.service) ;;
        esac
    done
    if [ ${#fresh[@]} -gt 0 ] && [ -d /run/systemd/system ]; then
        systemctl disable "${fresh[@]}" >/dev/null 2>&1 || true
    fi
    return $done
}

find_python() {
    local candidate
    for candidate in ${NARTHEX_PYTHON:-} python3.13 python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            PYTHON=$candidate
            return 0
        fi
    done
    die "Python 3.11 or newer is not installed" "install it, or name it in NARTHEX_PYTHON"
}

# make_venv EXTRA: a virtual environment with the product, made anew when pyproject.toml changes.
make_venv() {
    local extra=$1 stamp want
    find_python
    stamp=$NARTHEX_VENV/.narthex-$extra
    want=$({ cat pyproject.toml && "$PYTHON" --version && pwd; } | sha256sum | cut -d' ' -f1)
    # The developers' environment holds everything that the others do.
    if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] ||
        [ "$(cat "$NARTHEX_VENV/.narthex-dev" 2>/dev/null)" = "$want" ]; then
        return 0
    fi
    printf '  making the virtual environment %s …\n' "$NARTHEX_VENV"
    if [ ! -x "$NARTHEX_VENV/bin/python" ]; then
        if ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
            apt_install "$(basename "$(readlink -f "$(command -v "$PYTHON")")")-venv" ||
                die "this Python cannot make virtual environments" "as root: apt-get install python3-venv"
        fi
        "$PYTHON" -m venv "$NARTHEX_VENV" || die "cannot make $NARTHEX_VENV"
    fi
    quietly "$NARTHEX_VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[$extra]" ||
        die "cannot install the product's Python packages" "see above; pip needs a package index"
    printf '%s' "$want" >"$stamp"
}
