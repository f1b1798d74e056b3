#!/usr/bin/env bash
# run.sh <script>: runs a script of this folder, in Python (.py) with the requirements.txt next to it, or in Node.js (.mjs) with the
# package-lock.json next to it. The dependencies are installed at the first run and cached for the user. The script gets stdin, which may
# have secrets; arguments never do.
#
# Exit code 77: the dependencies are not available on this machine. stderr says why.
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
    mkdir "$1" && cp "$folder/package.json" "$wanted" "$1" &&
        npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error
}

script=$here/$1
folder=$(dirname "$script")
case $1 in
*.py) language=python program=python3 wanted=$folder/requirements.txt ;;
*.mjs) language=node program=node wanted=$folder/package-lock.json ;;
*) echo "run.sh: $1 is neither .py nor .mjs" >&2 && exit 2 ;;
esac
command -v "$program" >/dev/null || unavailable "$program is not installed"
[ "$language" = python ] || command -v npm >/dev/null || unavailable 'npm is not installed'
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pat-operator-tests
# Each version of the interpreter and of the dependencies has its own environment.
key=$({ "$program" --version; cat "$wanted"; } | cksum | cut -d ' ' -f 1)
environment=$cache/clients-$language-$key

if [ ! -d "$environment" ]; then
    mkdir -p "$cache"
    unfinished=$(mktemp -d "$cache/unfinished-XXXXXX")
    trap 'rm -rf "$unfinished"' EXIT
    "install_$language" "$unfinished/env" </dev/null >"$unfinished/log" 2>&1 ||
        unavailable "cannot install the packages of $wanted: $(tail -n 3 "$unfinished/log")"
    # The first process wins. A plain mv would move the folder into an existing one.
    mv -T "$unfinished/env" "$environment" 2>/dev/null || [ -d "$environment" ] || mv "$unfinished/env" "$environment"
    rm -rf "$unfinished"
    trap - EXIT
fi
if [ "$language" = python ]; then
    exec "$environment/bin/python" "$script"
fi
CLIENTS=$environment exec node "$script"
