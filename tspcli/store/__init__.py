"""Feature stores: one HDF5 file of per-video rows, what surrounds it, and what reads it."""

from __future__ import annotations

from tspcli.store.schema import StoreMetadata
from tspcli.store.store import FeatureStore, open_store
from tspcli.store.store_writer import write_store
from tspcli.store.video_features import VideoFeatures

__all__ = ["FeatureStore", "StoreMetadata", "VideoFeatures", "open_store", "write_store"]
