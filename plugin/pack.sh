#!/usr/bin/env bash
# Packs a compiled kubectl-pat: `plugin/pack.sh target/release/kubectl-pat dist https://…`.
# Writes the archive for this platform, and the krew manifest of all archives in the folder.
set -euo pipefail

bin=$1 dist=$2 base_url=$3
here=$(cd "$(dirname "$0")" && pwd)

os=$(uname -s | tr '[:upper:]' '[:lower:]')
arch=$(uname -m)
case "$arch" in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; esac

sum() {
	if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

folder=$dist/kubectl-pat
rm -rf "$folder"
mkdir -p "$folder/completions"
cp "$bin" "$here/../LICENSE" "$folder"
"$bin" man "$folder/man" >/dev/null
for shell in bash zsh fish; do "$bin" completion "$shell" >"$folder/completions/kubectl-pat.$shell"; done
"$bin" completion kubectl >"$folder/kubectl_complete-pat"
chmod +x "$folder/kubectl_complete-pat"
tar -czf "$dist/kubectl-pat-$os-$arch.tar.gz" -C "$folder" .

# The archives of other platforms are built elsewhere. Krew refuses a manifest with an empty checksum for any platform, so platforms
# without an archive are left out, from their selector to their bin.
version=$("$bin" --version | cut -d' ' -f2)
edits=(-e "s|@VERSION@|$version|; s|@BASE_URL@|$base_url|")
missing=
for platform in $(sed -n 's/.*@SHA256_\([a-z0-9_]*\)@.*/\1/p' "$here/pat.yaml"); do
	archive=$dist/kubectl-pat-${platform/_/-}.tar.gz
	if [ -f "$archive" ]; then
		edits+=(-e "s|@SHA256_$platform@|$(sum "$archive")|")
	else
		missing+=" ${platform/_/-}"
		edits+=(-e "/os: ${platform%_*}, arch: ${platform#*_}}/,/bin:/d")
	fi
done
sed "${edits[@]}" "$here/pat.yaml" >"$dist/pat.yaml"

ls "$dist"/kubectl-pat-*.tar.gz "$dist/pat.yaml"
[ -z "$missing" ] || echo "platforms without an archive in $dist/, left out of the manifest:$missing"
