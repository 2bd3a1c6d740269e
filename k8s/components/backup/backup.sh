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
trap 'rm -rf "$target"' EXIT # what did not finish takes no space
trap 'exit 1' INT TERM
# Logs and bars are written meanwhile: tar's 1 says that a file changed under it, only what is above is a failure.
save() { tar -C "$1" -czf "$2" . || [ $? -eq 1 ]; }
for database in $(psql -At -d postgres -c "select datname from pg_database where not datistemplate and datname <> 'postgres'"); do
  pg_dump -Fc -d "$database" -f "$target/$database.dump"
done
save "$MODELS" "$target/models.tar.gz"
save "$STATE" "$target/state.tar.gz"
(cd "$target" && sha256sum -- * > SHA256SUMS)
mv "$target" "$BACKUPS/$name" # only a finished backup has a name without a dot
ls -1 "$BACKUPS" | sort -r | tail -n +$((KEEP + 1)) | while read -r old; do rm -rf "${BACKUPS:?}/$old"; done
echo "backup $name complete"
