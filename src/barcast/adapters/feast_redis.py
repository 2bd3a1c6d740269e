"""Feast's Redis online store with the order of the embedded one: by event time, then by created time.

Feast's own store never replaces a row of the same event time, so a corrected bar would not arrive. Here Redis
compares and writes in one step (a script), whatever the number of writers; keys and fields are Feast's own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import _mmh3, _redis_key, compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from barcast.adapters.feast_online import micros

# KEYS: the symbol's hash. ARGV: field of the order, event, created (us), life in seconds, field, value ...
_WRITE = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  local event, created = string.match(known, '(%-?%d+):(%-?%d+)')
  event, created = tonumber(event), tonumber(created)
  local new_event, new_created = tonumber(ARGV[2]), tonumber(ARGV[3])
  if new_event < event or (new_event == event and new_created < created) then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. ARGV[3])
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if tonumber(ARGV[4]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
return 1
"""


class OrderedRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """`online_store` of feature_store.yaml; the other keys are those of Feast's Redis store."""

    type: Literal["barcast.adapters.feast_redis.OrderedRedisOnlineStore"] = (
        "barcast.adapters.feast_redis.OrderedRedisOnlineStore"  # type: ignore[assignment]
    )


class OrderedRedisOnlineStore(RedisOnlineStore):
    """Redis online store in which the newer row wins, and a correction replaces what it corrects."""

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Reads only: Feast's asynchronous write would skip the order."""
        return SupportedAsyncMethods(read=True, write=False)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows; a row older than the stored one (event time, then created time) changes nothing."""
        settings = config.online_store
        client = self._get_client(settings)
        view = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
        with client.pipeline(transaction=False) as pipe:
            for entity_key, values, event, created in data:
                key = _redis_key(
                    config.project,
                    entity_key,
                    entity_key_serialization_version=config.entity_key_serialization_version,
                )
                moment = _aware(event)
                stamp = Timestamp()
                stamp.FromDatetime(moment)
                fields: list[Any] = [f"_ts:{view}", stamp.SerializeToString()]
                for name, value in values.items():
                    fields += [_mmh3(f"{view}:{name}"), value.SerializeToString()]
                order = (micros(moment), micros(_aware(created)) if created is not None else micros(moment))
                pipe.eval(_WRITE, 1, key, f"_order:{view}", *order, settings.key_ttl_seconds or 0, *fields)
            pipe.execute()
        if progress:
            progress(len(data))


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
