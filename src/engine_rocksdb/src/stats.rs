//! What the engine says about itself.

use rocksdb::properties;
use stoa_engine::{Space, Stats};

use crate::Core;

/// Name of the figure, property of RocksDB that is added up over the spaces.
const SUMS: [(&str, &rocksdb::properties::PropName); 7] = [
    ("keys_estimated", properties::ESTIMATE_NUM_KEYS),
    ("table_bytes", properties::TOTAL_SST_FILES_SIZE),
    ("table_reader_bytes", properties::ESTIMATE_TABLE_READERS_MEM),
    ("compaction_pending_bytes", properties::ESTIMATE_PENDING_COMPACTION_BYTES),
    ("compactions_running", properties::NUM_RUNNING_COMPACTIONS),
    ("flushes_running", properties::NUM_RUNNING_FLUSHES),
    ("immutable_buffers", properties::NUM_IMMUTABLE_MEM_TABLE),
];

/// The same for properties of the database as a whole.
const WHOLE: [(&str, &rocksdb::properties::PropName); 4] = [
    ("snapshots", properties::NUM_SNAPSHOTS),
    ("background_errors", properties::BACKGROUND_ERRORS),
    ("writes_stopped", properties::IS_WRITE_STOPPED),
    ("write_rate_limited_to", properties::ACTUAL_DELAYED_WRITE_RATE),
];

impl Core {
    /// Cheap, but it lists the folder: not for every request.
    pub(crate) fn stats(&self) -> Stats {
        let readers = self.sum(properties::ESTIMATE_TABLE_READERS_MEM);
        let mut more = vec![
            ("cache_bytes", self.cache.get_usage() as u64),
            ("cache_pinned_bytes", self.cache.get_pinned_usage() as u64),
            ("buffer_bytes", self.buffers.get_usage() as u64),
            ("buffer_limit_bytes", self.buffers.get_buffer_size() as u64),
        ];
        more.extend(SUMS.map(|(name, property)| (name, self.sum(property))));
        more.extend(
            WHOLE.map(|(name, property)| (name, self.db.property_int_value(property).ok().flatten().unwrap_or(0))),
        );
        // The buffers are charged to the cache, so they are in its figure already.
        Stats { disk_bytes: self.disk_bytes(), memory_bytes: self.cache.get_usage() as u64 + readers, more }
    }

    fn sum(&self, property: &rocksdb::properties::PropName) -> u64 {
        let families = Space::ALL.into_iter().filter_map(|space| self.family(space).ok());
        families.filter_map(|family| self.db.property_int_value_cf(family, property).ok().flatten()).sum()
    }

    fn disk_bytes(&self) -> u64 {
        let Ok(files) = std::fs::read_dir(&self.path) else { return 0 };
        files.flatten().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }
}
