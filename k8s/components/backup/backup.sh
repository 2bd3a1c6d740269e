#!/bin/sh
# One folder per backup: every database, the served models, ledgers and artifacts, with their hashes.
set -eu
: "${BACKUPS:?}" "${PGHOST:?}" "${MODELS:?}" "${STATE:?}" "${KEEP:=14}"
name=$(date -u +%Y%m%dT%H%M%SZ)
while [ -e "$BACKUPS/$name" ]; do # a name belongs to one backup
  sleep 1
  name=$(date -u +%Y%m%dT%H%M%SZ)
done
target="$BACKUPS/.$name"
mkdir -p "$target"
for database in $(psql -At -d postgres -c "select datname from pg_database where not datistemplate and datname <> 'postgres'"); do
  pg_dump -Fc -d "$database" -f "$target/$database.dump"
done
tar -C "$MODELS" -czf "$target/models.tar.gz" .
tar -C "$STATE" -czf "$target/state.tar.gz" .
(cd "$target" && sha256sum -- * > SHA256SUMS)
mv "$target" "$BACKUPS/$name" # only a finished backup has a name without a dot
ls -1 "$BACKUPS" | sort -r | tail -n +$((KEEP + 1)) | while read -r old; do rm -rf "${BACKUPS:?}/$old"; done
echo "backup $name complete"
