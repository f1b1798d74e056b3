#!/usr/bin/env bash
# run.sh <script.py>: runs one of the scripts here in a Python environment with requirements.txt, made at the first run and kept
# in the user's cache. Standard input goes to the script: secrets are no arguments.
#
# Exit code 77: this machine cannot have that environment; standard error says why.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
unavailable() {
    echo "$1" >&2
    exit 77
}

command -v python3 >/dev/null || unavailable 'there is no python3'
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pat-operator-tests
# Another Python or other versions get an environment of their own.
key=$({ python3 --version; cat "$here/requirements.txt"; } | cksum | cut -d ' ' -f 1)
environment=$cache/clients-$key

if [ ! -x "$environment/bin/python" ]; then
    mkdir -p "$cache"
    unfinished=$(mktemp -d "$cache/unfinished-XXXXXX")
    trap 'rm -rf "$unfinished"' EXIT
    log=$unfinished/log
    { python3 -m venv "$unfinished/env" && "$unfinished/env/bin/python" -m pip install --quiet --disable-pip-version-check \
        --only-binary :all: --requirement "$here/requirements.txt"; } </dev/null >"$log" 2>&1 ||
        unavailable "no Python environment with $(grep -c == "$here/requirements.txt") packages: $(tail -n 3 "$log")"
    # Whoever is first wins: moving onto a folder that is there would move into it.
    mv -T "$unfinished/env" "$environment" 2>/dev/null || [ -x "$environment/bin/python" ] || mv "$unfinished/env" "$environment"
    rm -rf "$unfinished"
    trap - EXIT
fi
exec "$environment/bin/python" "$here/$1"
