#!/usr/bin/env bash
# Checks what no compiler holds: form, lints, the rules of ARCHITECTURE.md, licences and advisories of dependencies.
# Usage: scripts/check.sh         everything
#        scripts/check.sh rules   the rules alone, in a second and without cargo
set -uo pipefail
shopt -s lastpipe # so that the last command of a pipe can set `failed`
cd "$(dirname "$0")/.."

case "${1-}" in
    "" | rules) ;;
    *) sed -n '2,4s/^# //p' "$0"; exit 2 ;;
esac

failed=0

# Prints a check's name and its verdict, and what it found (standard input) where it found anything.
verdict() {
    local found
    found=$(cat)
    if [ -z "$found" ]; then
        printf 'ok    %s\n' "$1"
    else
        printf 'FAIL  %s\n' "$1"
        printf '%s\n' "$found" | sed 's/^/      /'
        failed=1
    fi
}

# The Rust files under the given directories or files: those that git knows and those that it will be told of.
rust() {
    git ls-files --cached --others --exclude-standard -- "$@" | grep '\.rs$' | while read -r file; do
        [ -f "$file" ] && printf '%s\n' "$file"
    done
}

# Prints the lines of the files on standard input as FILE:LINE:TEXT, without comments. With `code` as its argument it
# leaves out tests too: files named tests.rs, and `mod tests` at the end of a file.
lines() {
    if [ "${1-}" = code ]; then grep -v '/tests\.rs$\|/tests/'; else cat; fi | xargs -r awk -v mode="${1-}" '
        FNR == 1 { tests = 0; marked = 0 }
        tests && mode == "code" { next }
        marked && /^(pub )?mod [a-z_]+ \{/ { tests = 1; next }
        { marked = /^#\[cfg\(test\)\]/ }
        { text = $0; sub(/(^|[^:])\/\/.*/, "", text); if (text ~ /[^ ]/) printf "%s:%d:%s\n", FILENAME, FNR, text }'
}

# --- Imports go down only -------------------------------------------------------------------------------------------
# A module, and those of the crate that it may name beside itself.
imports='
types      :
limits     :
signals    :
codec      : types limits
metrics    : types limits
config     : types limits
logging    : types limits config
record     : types limits
protocol   : types limits record
log        : types limits codec record metrics
metadata   : types limits codec record
group      : types limits codec record
consensus  : types limits codec record log
peer       : types limits codec record log consensus
partition  : types limits codec record log consensus metadata peer
shard      : types limits codec record log consensus metadata group peer partition protocol config metrics
io         : types limits codec record log consensus metadata group peer partition config logging shard metrics signals
sim        : types limits codec record log consensus metadata group peer partition config shard protocol metrics
cli        : types limits codec record log consensus metadata group peer partition config logging shard protocol io sim metrics signals
'
check_imports() {
    rust src | grep -v '^src/\(lib\|main\)\.rs$' | lines | awk -v table="$imports" '
        BEGIN {
            rows = split(table, row, "\n")
            for (r = 1; r <= rows; r++) if (split(row[r], part, ":") == 2) {
                module = part[1]; gsub(/ /, "", module)
                known[module] = 1
                allowed[module] = " " module " " part[2] " "
            }
        }
        {
            split($0, place, ":")
            path = place[1]; sub(/^src\//, "", path); sub(/(\.rs$|\/.*)/, "", path)
            if (!(path in known)) { if (!told[path]++) print place[1] ": module " path " is not in the table of imports"; next }
            text = $0
            while (match(text, /(^|[^a-z_$])crate::[a-z_]+/)) {
                name = substr(text, RSTART, RLENGTH); sub(/.*crate::/, "", name)
                text = substr(text, RSTART + RLENGTH)
                if (name in known && index(allowed[path], " " name " ") == 0)
                    print place[1] ":" place[2] ": " path " may not name " name
            }
            if (match(text, /crate::\{/)) print place[1] ":" place[2] ": name one module an import, so that this check can read it"
        }'
}
check_imports | verdict 'imports go down only'

# --- One door to the machine ----------------------------------------------------------------------------------------
core=$(rust src | grep -v '^src/\(io\|cli\|sim\)/\|^src/\(main\|logging\)\.rs$')

rust src tests benches | grep -v '^src/io/' | lines |
    grep -E '\b(glommio|io_uring)::' | grep -v 'io::probe::io_uring\|probe::io_uring' | verdict 'glommio and io_uring under src/io only'

rust src | grep -v '^src/codec\.rs$' | lines | grep -E '\bbincode::' | verdict 'bincode in src/codec.rs only'

printf '%s\n' "$core" | lines code | grep -E '\b(std::time|Instant|SystemTime|UNIX_EPOCH)\b' |
    verdict 'no clock in the core'
printf '%s\n' "$core" | lines code | grep -E '\b(rand|thread_rng|getrandom|fastrand|RandomState|new_v4|now_v7)(::|\(|\b)' |
    verdict 'no randomness in the core'
printf '%s\n' "$core" | lines code | grep -E '\bstd::(fs|thread|process|env)\b|\b(TcpStream|TcpListener|UdpSocket|println!|eprintln!)' |
    verdict 'no I/O, environment or threads in the core'
printf '%s\n' "$core" | lines code | grep -E '\basync (fn|move|\{)|\.await\b|\b(Mutex|RwLock|Condvar|OnceLock|LazyLock)\b|\bstatic mut\b' |
    verdict 'no async and no locks in the core'
printf '%s\n' "$core" | grep -v '^src/types\.rs$' | lines code | grep -E '\bHash(Map|Set)\b' |
    verdict 'maps of the core have a fixed order (types::Map, BTreeMap)'

# --- Files ----------------------------------------------------------------------------------------------------------
rust . | xargs -r awk '{ n[FILENAME]++ } END { for (f in n) if (n[f] > 800) print f ": " n[f] " lines" }' 2>/dev/null |
    sort | verdict 'no file above 800 lines'
rust . | xargs -r grep -nE '\b(TODO|FIXME|XXX|HACK)\b' | verdict 'nothing left to do in comments'

# --- cargo ----------------------------------------------------------------------------------------------------------
# Runs a command; shows its output only where it fails.
run() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then : | verdict "$name"; else printf '%s\n' "${output:-exit code $?}" | verdict "$name"; fi
}
if [ "${1-}" != rules ]; then
    run 'cargo fmt' cargo fmt --all -- --check
    run 'cargo clippy' cargo clippy --quiet --locked --all-targets -- -D warnings
    if command -v cargo-deny >/dev/null; then
        run 'cargo deny: licences, bans, sources' cargo deny --log-level error check licenses bans sources
        if advisories=$(cargo deny --log-level error check advisories 2>&1); then
            printf 'ok    cargo deny: advisories\n'
        elif printf '%s' "$advisories" | grep -q 'failed to fetch advisory database'; then
            printf 'skip  cargo deny: advisories: their database cannot be fetched\n'
        else
            printf '%s\n' "$advisories" | verdict 'cargo deny: advisories'
        fi
    else
        printf 'skip  cargo deny: not installed (cargo install cargo-deny)\n'
    fi
fi
exit "$failed"
