# Sourced by the other scripts: brings programs that are missing, by Debian's package manager.

packages=()

# need PROGRAM PACKAGE: remembers the package where the program is missing.
need() {
    command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || packages+=("$2")
}

# Installs what was remembered, and says so; without apt or the right to use it, says what is missing and ends.
install_needed() {
    [ ${#packages[@]} -gt 0 ] || return 0
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
    if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
        echo "please install: ${packages[*]}" >&2
        exit 1
    fi
    echo "installing with apt: ${packages[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}
