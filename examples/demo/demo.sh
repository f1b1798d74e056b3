#!/usr/bin/env bash
# Shows the life of four tokens on a real API server, in about a minute. `make demo` builds everything that it needs and runs it.
#
#   demo.sh            uses the cluster of KUBECONFIG without asking; for `control-plane run`, which deletes its cluster afterwards
#   demo.sh --current  asks, uses the cluster of the current kubeconfig, and removes everything that it created
#
# PAT_OPERATOR_BIN is the operator to run. The script prints no complete token. It waits for conditions, not for fixed times.
set -euo pipefail
cd "$(dirname "$0")/../.."

operator=${PAT_OPERATOR_BIN:-target/debug/pat-operator}
manifests=examples/demo
current=false
[ "${1:-}" = --current ] && current=true

bold='' dim='' cyan='' green='' red='' plain='' tty=false
if [ -t 1 ]; then
    tty=true
    if [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
        bold=$'\e[1m' dim=$'\e[2m' cyan=$'\e[36m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
    fi
fi

chapter() { printf '\n%s── %s%s\n' "$bold$cyan" "$*" "$plain"; }
say() { printf '%s\n' "$*"; }
good() { printf '%s✓ %s%s\n' "$green" "$*" "$plain"; }
fail() {
    printf '%serror: %s%s\n' "$red" "$*" "$plain" >&2
    if [ -s "$folder/operator.log" ]; then
        printf 'Last log lines of the operator:\n' >&2
        tail -n 5 "$folder/operator.log" >&2
    fi
    exit 1
}

# Prints a command as a user would type it, and runs it.
run() {
    local word line=
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./:=,@%+-]*) line="$line '$word'" ;;
            *) line="$line $word" ;;
        esac
    done
    printf '\n%s$%s%s\n' "$dim" "$line" "$plain"
    "$@"
}

# The names of the CRDs in crds/. Each file is named after the plural of its resource.
crds() {
    local file
    for file in crds/*.yaml; do
        file=${file##*/}
        say "${file%.yaml}.pat-operator.io"
    done
}

# until_true SECONDS WHAT COMMAND…: runs COMMAND again until it succeeds.
until_true() {
    local seconds=$1 what=$2 began=$SECONDS
    shift 2
    $tty || say "… waiting for $what"
    until "$@" >"$folder/answer" 2>&1; do
        if [ $((SECONDS - began)) -ge "$seconds" ]; then
            cat "$folder/answer" >&2
            fail "waited $seconds s for $what, without success"
        fi
        if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then
            fail "the operator has exited"
        fi
        $tty && printf '\r%s… waiting for %s: %s s%s ' "$dim" "$what" $((SECONDS - began)) "$plain"
        sleep 0.2
    done
    $tty && printf '\r\e[K'
    return 0
}

# ── clean-up ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# A signal can arrive while the output of a command is redirected to a file.
exec 3>&1 4>&2

folder=$(umask 077 && mktemp -d "${TMPDIR:-/tmp}/pat-demo.XXXXXX")
pid='' namespace='' namespace_made=false
# Names of CRDs, such as "tokenowners.pat-operator.io": those that existed before, those that did not, and those that this script installed.
present='' absent='' installed=''

end_operator() {
    [ -n "$pid" ] || return 0
    local code=0
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || code=$?
    pid=''
    say "The operator has stopped (exit code $code)."
}

cleanup() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    set +e
    exec >&3 2>&4
    [ "$code" -eq 0 ] || say ''
    end_operator
    if $current && $namespace_made; then
        say "Removing namespace $namespace …"
        kubectl delete namespace "$namespace" --timeout=60s >/dev/null ||
            say "The namespace may still exist. To delete it: kubectl delete namespace $namespace"
    fi
    local crd
    for crd in $installed; do
        if [ -z "$(kubectl get "$crd" --all-namespaces -o name 2>&1)" ]; then
            kubectl delete crd "$crd" --ignore-not-found --timeout=30s >/dev/null &&
                say "Removed the CRD $crd, which this demo installed."
        else
            say "Kept the CRD $crd, because other objects of this type exist now. To delete all of them: kubectl delete crd $crd"
        fi
    done
    rm -rf "$folder"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# ── the cluster ───────────────────────────────────────────────────────────────────────────────────────────────────────

command -v kubectl >/dev/null || fail 'kubectl is not on PATH: install it, or run `make demo` without CLUSTER=current'
[ -x "$operator" ] || fail "$operator does not exist: run \`make demo\`, which builds it"

if $current; then
    context=$(kubectl config current-context 2>/dev/null) ||
        fail 'the kubeconfig has no current context: kubectl config use-context …, or run `make demo` without CLUSTER=current'
    server=$(kubectl config view --minify -o 'jsonpath={.clusters[0].cluster.server}')
    namespace=pat-demo-$RANDOM
    for crd in $(crds); do
        there=$(kubectl get crd "$crd" --ignore-not-found -o name --request-timeout=10s) ||
            fail "the cluster of context $context does not respond, or you may not read CRDs"
        if [ -n "$there" ]; then present="$present $crd"; else absent="$absent $crd"; fi
    done
    say "This demo uses the cluster of context ${bold}$context${plain} ($server):"
    for crd in $present; do
        say "  - keeps the CRD $crd, which exists already"
    done
    [ -z "$present" ] || say "    (if an operator runs in the cluster, both will reconcile the tokens of the demo)"
    for crd in $absent; do
        say "  - installs the CRD $crd, and removes it at the end"
    done
    say "  - creates namespace $namespace with four tokens, and deletes it at the end"
    say '  - runs the operator on this machine, for this namespace only'
    answer=n
    printf 'Continue? [y/N] '
    read -r answer || say ''
    case $answer in
        y | Y | yes | Yes) ;;
        *)
            say 'Nothing was changed.'
            exit 0
            ;;
    esac
else
    namespace=demo present=$(crds)
fi

# A separate kubeconfig: if the user switches contexts, the script is not affected. Its commands need no --namespace.
(umask 077 && kubectl config view --raw --flatten --minify >"$folder/kubeconfig")
export KUBECONFIG="$folder/kubeconfig"
kubectl config set-context --current --namespace="$namespace" >/dev/null

began=$SECONDS
chapter 'Preparation'
for crd in $present; do
    run kubectl get crd "$crd"
done
for crd in $absent; do
    installed="$installed $crd"
    run kubectl apply -f "crds/${crd%%.*}.yaml"
    kubectl wait --for=condition=Established "crd/$crd" --timeout=30s >/dev/null
done
run kubectl create namespace "$namespace"
namespace_made=true

printf '\n%s$ pat-operator controller --namespaces %s --lease-namespace %s --health-addr 127.0.0.1:0 &%s\n' \
    "$dim" "$namespace" "$namespace" "$plain"
# In a separate process group: Ctrl-C stops only this script, which then stops the operator gracefully.
set -m
"$operator" controller --namespaces "$namespace" --lease-namespace "$namespace" --health-addr 127.0.0.1:0 \
    >"$folder/operator.log" 2>&1 </dev/null 3>&- 4>&- &
pid=$!
set +m
until_true 30 'the operator to become leader' grep -q 'leading: reconciling every PersonalAccessToken' "$folder/operator.log"
good "The operator runs: process $pid on this machine."

# ── the demo ──────────────────────────────────────────────────────────────────────────────────────────────────────────

events='custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.note'
credentials='jsonpath={range .status.credentials[*]}{.id}  {.state}  until {.expiresAt}{"\n"}{end}'
conditions='go-template={{range .status.conditions}}{{printf "%-8s %-6s %-8s %s\n" .type .status .reason .message}}{{end}}'
# Never the complete token: only its prefix, and its id, which is public.
start_of_token='go-template={{slice (base64decode .data.token) 0 17}}…{{"\n"}}'
start_of_both='go-template={{range $k, $v := .data}}{{$k}}: {{slice (base64decode $v) 0 17}}…{{"\n"}}{{end}}'

field() { kubectl get pat "$1" -o "jsonpath={.status.$2}"; }
events_of() { run kubectl get events.events.k8s.io --field-selector "regarding.name=$1" -o "$events"; }
reason_is() { [ "$(field "$1" 'conditions[?(@.type=="Ready")].reason')" = "$2" ]; }

chapter '1. A manifest becomes a token in a Secret'
run cat "$manifests/ci.yaml"
run kubectl apply -f "$manifests"
run kubectl wait --for=condition=Ready pat --all --timeout=30s
run kubectl get pat
run kubectl get secrets
say ''
say 'The token is only in the Secret. These are its first characters (this demo never prints a complete token):'
run kubectl get secret ci -o "$start_of_token"
say ''
say 'Outside the Secret, the API server stores only the SHA-256 of the token. It is enough to verify the token:'
run kubectl get pat ci -o 'jsonpath={.status.credentials[0].sha256}{"\n"}'
sha256=sha256sum
command -v sha256sum >/dev/null || sha256='shasum -a 256'
printf "\n%s\$ kubectl get secret ci -o 'go-template={{base64decode .data.token}}' | %s%s\n" "$dim" "$sha256" "$plain"
kubectl get secret ci -o 'go-template={{base64decode .data.token}}' | $sha256

chapter '2. A deleted Secret is repaired'
before=$(kubectl get secret registry -o 'jsonpath={.metadata.uid}')
repaired() {
    local after
    after=$(kubectl get secret registry -o 'jsonpath={.metadata.uid}') && [ "$after" != "$before" ] &&
        [ "$(field registry 'credentials[0].state')" = Active ]
}
run kubectl delete secret registry
until_true 30 'the Secret to come back' repaired
run kubectl get secret registry
events_of registry
say ''
say 'The controller issued a new token. Clients that have read the old one can use it for its grace period (here: one day):'
run kubectl get pat registry -o "$credentials"

chapter '3. A token is revoked'
run kubectl patch pat partner --type merge -p '{"spec":{"revoked":true}}'
until_true 30 'the revocation' reason_is partner Revoked
run kubectl get pat partner -o "$conditions"
run kubectl get secret partner
say ''
say 'The Secret still exists, because Pods may mount it, but it is empty (DATA is 0).'

chapter '4. A token is rotated: the new and the old one both work'
revision=$(field ci revision)
say "ci is rotated every 20 seconds. The next rotation is due at $(field ci nextRotationAt)."
rotated() {
    [ "$(field ci revision)" -gt "$revision" ] && [ "$(field ci 'credentials[*].state')" = 'Active Grace' ]
}
until_true 60 'the rotation' rotated
run kubectl get secret ci -o "$start_of_both"
run kubectl get pat ci -o "$credentials"
say ''
say 'Clients with the old token keep working, and have 8 seconds to read the Secret again. Then the old token expires:'
old=$(field ci 'credentials[1].id')
over() {
    local ids
    ids=$(field ci 'credentials[*].id') && case $ids in *"$old"*) false ;; esac
}
until_true 30 "the end of $old" over
run kubectl get pat ci -o "$credentials"
until_true 15 'its removal from the Secret' sh -c "! kubectl get secret ci -o 'go-template={{range .data}}{{base64decode .}} {{end}}' | grep -q '$old'"
good "$old has expired, and is no longer in the Secret."
events_of ci

chapter '5. A token expires'
say 'trial is valid for 25 seconds and is not rotated.'
until_true 45 'its end' reason_is trial Expired
run kubectl get pat trial -o "$conditions"
run kubectl get secret trial
events_of trial

chapter '6. An object is deleted, and its Secret with it'
run kubectl delete pat registry
gone() { [ -z "$(kubectl get secret registry --ignore-not-found -o name)" ]; }
until_true 60 'the garbage collector' gone
run kubectl get secrets
say ''

end_operator
good "That was the life of four tokens, in $((SECONDS - began)) seconds."
say 'The manifests are in examples/demo/. For more examples, see examples/. For the meaning of conditions, see docs/conditions.md.'
