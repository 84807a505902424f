# shellcheck shell=bash
# What scripts/run and the verify scripts of the scenarios share: children that
# never outlive the script, configuration files with other ports, and checks.
#
# The files in the scenario folders hold literal default ports and the default
# certificate folder; conf_render puts others in their place.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
CERTS_DEFAULT=build/run/certs
NATS_SERVER=${NATS_SERVER:-$ROOT/build/bin/nats-server}
HAPROXY=${HAPROXY:-haproxy}

# conf_render FILE PORT=OTHER... writes FILE to stdout with other ports, and
# with the certificates of $CERTS.
conf_render() {
  local file=$1 pair rules=()
  shift
  # Through names first: a new port may be the same number as another old one.
  for pair in "$@"; do
    rules+=(-e "s/(:|port )${pair%%=*}([^0-9]|\$)/\\1@${pair%%=*}@\\2/g")
  done
  for pair in "$@"; do
    rules+=(-e "s/@${pair%%=*}@/${pair#*=}/g")
  done
  sed -E "${rules[@]}" -e "s#$CERTS_DEFAULT#${CERTS:-$CERTS_DEFAULT}#g" "$file"
}

# Children, by process id. start_child LOG COMMAND... leaves the id in $child.
children=()
start_child() {
  local log=$1
  shift
  "$@" </dev/null >>"$log" 2>&1 &
  child=$!
  children+=("$child")
}

running() { kill -0 "$1" 2>/dev/null; }

# stop_children asks the children to end, the last one started first, gives all
# of them ten seconds, and leaves none.
stop_children() {
  local i pid deadline=$((SECONDS + 10))
  for ((i = ${#children[@]} - 1; i >= 0; i--)); do
    kill -TERM "${children[i]}" 2>/dev/null || true
  done
  for pid in ${children[@]+"${children[@]}"}; do
    while running "$pid" && ((SECONDS < deadline)); do
      sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  children=()
}

# until_ok SECONDS COMMAND... tries until it works or the time is over.
until_ok() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# ended PID SECONDS: its exit status, within the time.
ended() {
  until_ok "$2" not running "$1" && wait "$1"
}

not() { ! "$@"; }

#
# For the verify scripts.
#

# fail REASON... ends the script; what the server and the edge said goes along.
fail() {
  local log
  echo "not ok $scenario: $*" >&2
  for log in "$tmp"/server.log "$tmp"/haproxy.log; do
    [[ -s $log ]] && { echo "--- $(basename "$log"), last lines:"; tail -n 15 "$log"; } >&2
  done
  exit 1
}

# scenario_begin NAME: temporary folder, tools, certificates; all gone at exit.
scenario_begin() {
  scenario=$1
  tmp=$(mktemp -d)
  trap 'stop_children; rm -rf -- "$tmp"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  command -v "$HAPROXY" >/dev/null ||
    fail "haproxy is not installed: apt-get install haproxy, or name one in HAPROXY"
  [[ -x $NATS_SERVER ]] ||
    fail "no server at ${NATS_SERVER#"$ROOT"/}: make build, or name one in NATS_SERVER"
  (cd "$ROOT" && go build -o "$tmp/" ./scripts/devcert ./scripts/natsdemo) ||
    fail "the tools do not build"
  natsdemo=$tmp/natsdemo
  CERTS=$tmp/certs
  "$tmp/devcert" -dir "$CERTS" >/dev/null || fail "no certificates"
  # shellcheck disable=SC2034 # for the verify scripts
  client_cert=(--tlscert "$CERTS/client.pem" --tlskey "$CERTS/client-key.pem")
}

# scenario_start PORT...: the scenario's server and HAProxy on free ports. The
# arguments are the ports in its files; port PORT prints what became of one.
scenario_start() {
  local old new chosen
  mapfile -t chosen < <("$natsdemo" freeports $#)
  ((${#chosen[@]} == $#)) || fail "no free ports"
  ports=()
  for old in "$@"; do
    ports+=("$old=${chosen[${#ports[@]}]}")
  done
  for new in nats-server.conf haproxy.cfg; do
    conf_render "$ROOT/conf/$scenario/$new" "${ports[@]}" >"$tmp/$new"
  done
  "$NATS_SERVER" -t -c "$tmp/nats-server.conf" >"$tmp/check.log" 2>&1 ||
    fail "nats-server.conf: $(cat "$tmp/check.log")"
  "$HAPROXY" -c -f "$tmp/haproxy.cfg" >"$tmp/check.log" 2>&1 ||
    fail "haproxy.cfg: $(cat "$tmp/check.log")"

  start_child "$tmp/server.log" "$NATS_SERVER" -c "$tmp/nats-server.conf"
  server_pid=$child
  until_ok 20 inside rtt || fail "the server's plain port does not answer"
  start_child "$tmp/haproxy.log" "$HAPROXY" -db -f "$tmp/haproxy.cfg"
  haproxy_pid=$child
}

port() {
  local pair
  for pair in "${ports[@]}"; do
    [[ ${pair%%=*} == "$1" ]] && { echo "${pair#*=}"; return; }
  done
  fail "port $1 is none of this scenario's"
}

# inside ARGUMENTS...: natsdemo at the plain port.
inside() { ${replace:-} "$natsdemo" -s "nats://127.0.0.1:$(port 4222)" "$@"; }

# outside EDGE-PORT ARGUMENTS...: natsdemo at the edge, from an address that
# neither the edge nor the server has.
CLIENT_IP=127.0.0.7
outside() {
  local edge=$1
  shift
  ${replace:-} "$natsdemo" -s "tls://127.0.0.1:$(port "$edge")" --tlsca "$CERTS/ca.pem" --from "$CLIENT_IP" "$@"
}

# check_plain_info: the plain port says nothing of TLS, as upstream's would.
check_plain_info() {
  local info
  info=$(inside info) || fail "no INFO on the plain port"
  [[ $info != *'"tls_'* ]] || fail "the plain port speaks of TLS: $info"
}

# check_edge EDGE-PORT LISTENER CLIENT-FLAGS...: messages both ways through the
# edge, and the client's real address in /connz.
check_edge() {
  local edge=$1 listener=$2 n out answer who address
  shift 2
  n=$scenario-$edge-$RANDOM
  until_ok 10 outside "$edge" "$@" rtt ||
    fail "$listener: no connection through the edge: $(outside "$edge" "$@" rtt 2>&1)"

  # Inside to outside.
  start_subscriber "$tmp/$n.out" outside "$edge" "$@" --name "$n-outside" --count 1 sub "$n.out"
  out=$child
  # While it waits: /connz knows its listener, and its address as itself knows it.
  who=$("$natsdemo" connz "http://127.0.0.1:$(port 8222)" "$n-outside") || fail "$listener: $who"
  address=$(sed -n 's/^subscribed to .* from //p' "$tmp/$n.out.err")
  [[ $address == "$CLIENT_IP":* ]] || fail "$listener: the client is at $address, not at $CLIENT_IP"
  [[ $who == *"client $address"* ]] || fail "$listener: /connz has not the client's address $address: $who"
  [[ $who == *"listener $listener"* ]] || fail "/connz has not the listener $listener: $who"
  [[ $who == *"proxied_by 127.0.0.1:"* ]] || fail "$listener: /connz has not the edge's address: $who"
  inside pub "$n.out" "to the outside" >/dev/null || fail "$listener: publish inside"
  ended "$out" 10 || fail "$listener: the subscriber outside: $(cat "$tmp/$n.out.err")"
  [[ $(cat "$tmp/$n.out") == "$n.out: to the outside" ]] || fail "$listener: outside got $(cat "$tmp/$n.out")"

  # Outside to inside.
  start_subscriber "$tmp/$n.in" inside --name "$n-inside" --count 1 sub "$n.in"
  out=$child
  outside "$edge" "$@" pub "$n.in" "to the inside" >/dev/null || fail "$listener: publish outside"
  ended "$out" 10 || fail "$listener: the subscriber inside: $(cat "$tmp/$n.in.err")"
  [[ $(cat "$tmp/$n.in") == "$n.in: to the inside" ]] || fail "$listener: inside got $(cat "$tmp/$n.in")"

  # And there and back.
  start_subscriber "$tmp/$n.req" inside --count 1 reply "$n.req" answered
  out=$child
  answer=$(outside "$edge" "$@" req "$n.req" asked 2>&1) || fail "$listener: request outside: $answer"
  [[ $answer == answered ]] || fail "$listener: the reply is $answer"
  ended "$out" 10 || fail "$listener: the service inside: $(cat "$tmp/$n.req.err")"
}

# start_subscriber FILE COMMAND...: in the background, its messages to FILE; back
# once it has subscribed. The command takes the place of its subshell, so that
# $child is natsdemo itself and stop_children reaches it.
start_subscriber() {
  local file=$1
  shift
  (
    replace="exec"
    "$@"
  ) </dev/null >"$file" 2>"$file.err" &
  child=$!
  children+=("$child")
  until_ok 10 grep -q '^subscribed' "$file.err" || fail "no subscription: $(cat "$file.err")"
}

# check_refused EDGE-PORT WHY CLIENT-FLAGS...: a client that must not get in.
check_refused() {
  local edge=$1 why=$2
  shift 2
  ! outside "$edge" --timeout 2s "$@" rtt >/dev/null 2>&1 || fail "let in: $why"
}

# check_no_header PORT...: a listener answers nobody without a header. Loopback is
# trusted here, so this is a client that came to the wrong port.
check_no_header() {
  local old
  for old in "$@"; do
    ! "$natsdemo" -s "nats://127.0.0.1:$(port "$old")" --timeout 2s rtt >/dev/null 2>&1 ||
      fail "port $old serves a client without a PROXY header"
  done
}

# scenario_end: both still run; all is stopped.
scenario_end() {
  running "$server_pid" || fail "the server has ended"
  running "$haproxy_pid" || fail "HAProxy has ended"
  stop_children
  echo "ok $scenario"
}
