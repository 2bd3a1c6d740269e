#!/bin/sh
# Bring a backup back: NAME of its folder, or nothing for the newest. Stop gateway, console, worker and mlflow first.
set -eu
: "${BACKUPS:?}" "${PGHOST:?}" "${MODELS:?}" "${STATE:?}"
name=${1:-$(ls -1 "$BACKUPS" | sort | tail -n 1)}
source="$BACKUPS/$name"
[ -d "$source" ] || { echo "there is no backup '$name' in $BACKUPS" >&2; exit 1; }
(cd "$source" && sha256sum -c --quiet SHA256SUMS) || { echo "backup $name is damaged: nothing was restored" >&2; exit 1; }
for dump in "$source"/*.dump; do
  database=$(basename "$dump" .dump)
  psql -q -d postgres -c "drop database if exists \"$database\" with (force)" -c "create database \"$database\""
  pg_restore --no-owner -d "$database" "$dump"
done
for part in models state; do
  case $part in models) target=$MODELS ;; *) target=$STATE ;; esac
  find "$target" -mindepth 1 -delete
  tar -C "$target" -xzf "$source/$part.tar.gz"
done
echo "restored $name"
