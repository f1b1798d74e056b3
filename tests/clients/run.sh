#!/usr/bin/env bash
# run.sh <script>: runs one of the scripts here, in Python (.py) with requirements.txt or in Node.js (.mjs) with package-lock.json,
# those beside the script. What it needs is installed at the first run and kept in the user's cache. Standard input goes to the script:
# secrets are no arguments.
#
# Exit code 77: this machine cannot have that; standard error says why.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
unavailable() {
    echo "$1" >&2
    exit 77
}

install_python() {
    python3 -m venv "$1" && "$1/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --requirement "$wanted"
}

install_node() {
    mkdir "$1" && cp "$beside/package.json" "$wanted" "$1" &&
        npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error
}

script=$here/$1
beside=$(dirname "$script")
case $1 in
*.py) language=python program=python3 wanted=$beside/requirements.txt ;;
*.mjs) language=node program=node wanted=$beside/package-lock.json ;;
*) echo "run.sh: $1 is neither .py nor .mjs" >&2 && exit 2 ;;
esac
command -v "$program" >/dev/null || unavailable "there is no $program"
[ "$language" = python ] || command -v npm >/dev/null || unavailable 'there is no npm'
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pat-operator-tests
# Another interpreter or other versions get an environment of their own.
key=$({ "$program" --version; cat "$wanted"; } | cksum | cut -d ' ' -f 1)
environment=$cache/clients-$language-$key

if [ ! -d "$environment" ]; then
    mkdir -p "$cache"
    unfinished=$(mktemp -d "$cache/unfinished-XXXXXX")
    trap 'rm -rf "$unfinished"' EXIT
    "install_$language" "$unfinished/env" </dev/null >"$unfinished/log" 2>&1 ||
        unavailable "what $wanted lists cannot be installed: $(tail -n 3 "$unfinished/log")"
    # Whoever is first wins: moving onto a folder that is there would move into it.
    mv -T "$unfinished/env" "$environment" 2>/dev/null || [ -d "$environment" ] || mv "$unfinished/env" "$environment"
    rm -rf "$unfinished"
    trap - EXIT
fi
if [ "$language" = python ]; then
    exec "$environment/bin/python" "$script"
fi
CLIENTS=$environment exec node "$script"
