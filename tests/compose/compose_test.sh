#!/bin/sh
# Builds the images, brings docker-compose.yml up and lets the demo learn a little in it.
#
# Needs a Docker engine and `docker compose` or `docker-compose`; fails without them. Settings:
#   DOCKER_BUILD_ARGS="--network host"   further arguments for `docker build`
#   TORCH_INDEX_URL=                     pip's own choice of torch instead of the CPU index
#   SKIP_BUILD=1                         use the images of the last run
#   RL4SYS_STREAM_PORT=16379             port on loopback
set -eu
cd "$(dirname "$0")/../.."

export COMPOSE_PROJECT_NAME="rl4sys-stream-test"
export RL4SYS_STREAM_PORT="${RL4SYS_STREAM_PORT:-16379}"
export RL4SYS_STREAM_WORKER_IMAGE="rl4sys-stream-worker:test"
export RL4SYS_STREAM_APPLICATION_IMAGE="rl4sys-stream-application:test"
export RL4SYS_STREAM_REDIS_PASSWORD="compose-test-only"
# Untrained landers fall in 50 to 120 steps: enough for several updates of 2048 steps.
export DEMO_ITERATIONS="${DEMO_ITERATIONS:-80}"
CLIENT=lunar_lander

say() { echo "compose-test: $*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

command -v docker >/dev/null || fail "docker is not installed"
docker info >/dev/null 2>&1 || fail "the Docker engine does not answer; start it"
if docker compose version >/dev/null 2>&1; then
  compose() { docker compose "$@"; }
elif command -v docker-compose >/dev/null; then
  compose() { docker-compose "$@"; }
else
  fail "neither 'docker compose' nor 'docker-compose' is installed"
fi

finish() {
  code=$?
  if [ "$code" -ne 0 ]; then
    compose --profile demo logs --no-color --tail 60 >&2 || true
  fi
  compose --profile demo down --volumes --timeout 20 >/dev/null 2>&1 || true
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

# eventually SECONDS WHAT COMMAND…: repeats the command until it succeeds.
eventually() {
  seconds=$1 what=$2
  shift 2
  deadline=$(($(date +%s) + seconds))
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$deadline" ] || fail "not within $seconds s: $what"
    sleep 0.5
  done
  say "$what"
}

same() { [ "$2" = "$3" ] || fail "$1 is '$2' instead of '$3'"; }
container() { compose ps -q "$1"; }
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }
redis() { compose exec -T redis redis-cli --raw "$@" | tr -d '\r'; }
version() { redis hget "rl4sys:{$CLIENT}:head" version; }
version_at_least() { [ "$(version)" -ge "$1" ]; }
stream() { compose exec -T dispatcher rl4sys-stream "$@"; }
balanced() { stream audit --client "$CLIENT"; }

if [ -z "${SKIP_BUILD:-}" ]; then
  say "building the images"
  # shellcheck disable=SC2086 -- several arguments in one variable
  docker build ${DOCKER_BUILD_ARGS:-} -f workers/Dockerfile -t "$RL4SYS_STREAM_WORKER_IMAGE" \
    --build-arg "TORCH_INDEX_URL=${TORCH_INDEX_URL-https://download.pytorch.org/whl/cpu}" .
  # shellcheck disable=SC2086
  docker build ${DOCKER_BUILD_ARGS:-} -f workers/Dockerfile.application \
    -t "$RL4SYS_STREAM_APPLICATION_IMAGE" .
fi

for image in "$RL4SYS_STREAM_WORKER_IMAGE" "$RL4SYS_STREAM_APPLICATION_IMAGE"; do
  same "the user id in $image" "$(docker run --rm --entrypoint id "$image" -u)" 10001
done
docker run --rm "$RL4SYS_STREAM_APPLICATION_IMAGE" python -c '
import importlib.util, sys
sys.exit("the application image holds torch" if importlib.util.find_spec("torch") else 0)
' || fail "the application image must stay free of torch"

compose --profile demo down --volumes >/dev/null 2>&1 || true
compose up -d --no-build
eventually 60 "redis is healthy" healthy redis
eventually 60 "the dispatcher is healthy" healthy dispatcher

same appendonly "$(redis config get appendonly | tail -1)" yes
same maxmemory-policy "$(redis config get maxmemory-policy | tail -1)" noeviction
same "the published address" "$(docker port "$(container redis)" 6379/tcp)" \
  "127.0.0.1:$RL4SYS_STREAM_PORT"
refused=$(compose exec -T -e REDISCLI_AUTH=wrong redis redis-cli ping 2>&1 || true)
case $refused in *NOAUTH*) ;; *) fail "Redis answers without the password: $refused" ;; esac
say "Redis keeps an append-only file, evicts nothing, listens on loopback, asks for the password"

compose --profile demo up --no-build --no-deps -d demo
eventually 180 "model version 2 is published" version_at_least 2
code=$(timeout 300 docker wait "$(compose --profile demo ps -q demo)") || fail "the demo hangs"
same "the demo's exit code" "$code" 0
eventually 60 "the audit closes" balanced
stream status --client "$CLIENT"

before=$(version)
compose restart --timeout 30 redis
eventually 60 "redis is healthy again" healthy redis
version_at_least "$before" || fail "version $before was lost over a restart of Redis"
eventually 60 "the audit closes after the restart" balanced

dispatcher=$(container dispatcher)
compose stop dispatcher
same "the dispatcher's exit code" "$(docker inspect -f '{{.State.ExitCode}}' "$dispatcher")" 0
say "all passed"
