//! How RocksDB is set up: one budget of memory, and each space by the way it is used.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel,
    WriteBufferManager,
};
use stoa_engine::Space;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What an operator decides about the database.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for everything that RocksDB keeps: blocks, indexes, filters and what is not yet in table files.
    pub memory_bytes: usize,
    /// Table files kept open; each is one file descriptor. Reads of others wait for the disk.
    pub max_open_files: i32,
    /// Threads that flush and compact. 0: as many as fit this machine.
    pub background_jobs: i32,
    /// How many backups are kept in the folder of backups; older ones are removed when a new one is made.
    pub backups_kept: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { memory_bytes: 256 * MIB, max_open_files: 512, background_jobs: 0, backups_kept: 7 }
    }
}

/// The settings of one database.
///
/// One budget: the block cache has most of it, and the write buffers are charged to that cache, so what is written
/// takes from what is cached and the sum stays. Indexes and filters are partitioned blocks in the same cache instead of
/// growing beside it. The quarter that is left is for what RocksDB does not charge: what the allocator rounds up (a block
/// of 8.2 KB takes 10), compaction, table readers, iterators.
///
/// Write buffers are full, each by itself, at less than half of `buffer_bytes`. Where flushing does not keep up they grow
/// beyond that, up to the whole; then writers wait.
pub(crate) struct Tuning {
    pub(crate) cache: Cache,
    pub(crate) buffers: WriteBufferManager,
    budget: usize,
    buffer_bytes: usize,
    jobs: i32,
    max_open_files: i32,
}

impl Tuning {
    pub(crate) fn new(options: &Options) -> Self {
        let budget = options.memory_bytes.max(16 * MIB);
        let cache = Cache::new_hyper_clock_cache(budget - budget / 4, 0);
        let buffer_bytes = (budget / 2).min(1024 * MIB);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(buffer_bytes, true, cache.clone());
        let cores = std::thread::available_parallelism().map_or(2, |cores| i32::try_from(cores.get()).unwrap_or(2));
        let jobs = if options.background_jobs > 0 { options.background_jobs } else { cores.clamp(2, 8) };
        Tuning { cache, buffers, budget, buffer_bytes, jobs, max_open_files: options.max_open_files }
    }

    /// Settings of the database as a whole.
    pub(crate) fn database(&self) -> rocksdb::Options {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_write_buffer_manager(&self.buffers);
        options.set_max_background_jobs(self.jobs);
        options.set_max_open_files(self.max_open_files);
        options.set_max_file_opening_threads(self.jobs);
        // Bounds the time that opening takes after a crash, and flushes families where little happens.
        options.set_max_total_wal_size(self.buffer_bytes.clamp(64 * MIB, 1024 * MIB) as u64);
        recovery(&mut options);
        // Writes to table files reach the disk in steps, not in one burst that holds up the log's syncs.
        options.set_bytes_per_sync(MIB as u64);
        // For each file that takes part in a compaction, so with little memory less.
        options.set_compaction_readahead_size((self.budget / 256).clamp(64 * KIB, 2 * MIB));
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_is_fd_close_on_exec(true);
        // The program has its own log and metrics; RocksDB's is for the case that something is wrong with it.
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(4 * MIB);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options
    }

    /// One column family a space, and the one that RocksDB wants to be there: it stays empty, but with its own settings
    /// it would have a cache of its own, and RocksDB would want room for 64 MB on a disk that was full to go on.
    pub(crate) fn families(&self) -> std::result::Result<Vec<ColumnFamilyDescriptor>, rocksdb::Error> {
        let family = |space: Space| Ok(ColumnFamilyDescriptor::new(space.name(), self.family(space)?));
        let mut unused = rocksdb::Options::default();
        unused.set_write_buffer_size(64 * KIB);
        unused.set_block_based_table_factory(&self.table());
        let unused = ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, unused);
        Space::ALL.into_iter().map(family).chain([Ok(unused)]).collect()
    }

    fn family(&self, space: Space) -> std::result::Result<rocksdb::Options, rocksdb::Error> {
        let mut options = match space {
            Space::Events => self.dictionary()?,
            _ => rocksdb::Options::default(),
        };
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_target_file_size_base(64 * MIB as u64);
        options.set_max_write_buffer_number(3);
        // Once a month every file is rewritten, so that what was deleted leaves the disk also where nothing changes.
        options.set_periodic_compaction_seconds(30 * 24 * 3600);
        options.set_compression_type(DBCompressionType::Lz4);
        let mut table = self.table();
        match space {
            Space::Events => self.events(&mut options, &mut table),
            Space::Rows => self.rows(&mut options, &mut table),
            Space::Indexes => self.indexes(&mut options, &mut table),
            Space::Queues => self.queues(&mut options, &mut table),
        }
        options.set_block_based_table_factory(&table);
        Ok(options)
    }

    /// Compression with a dictionary, for old data. RocksDB keeps what it has not compressed yet in memory until it has
    /// the dictionary: a whole file, if nobody says how much. Only this text can say it.
    fn dictionary(&self) -> std::result::Result<rocksdb::Options, rocksdb::Error> {
        let sample = (self.buffer_bytes / 64).clamp(128 * KIB, 2 * MIB);
        let dictionary = sample / 100;
        rocksdb::Options::default().get_options_from_string(format!(
            "bottommost_compression_opts={{window_bits=-14;level=3;strategy=0;enabled=true;max_dict_bytes={dictionary};\
             zstd_max_train_bytes={sample};max_dict_buffer_bytes={sample}}}"
        ))
    }

    fn table(&self) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_format_version(6);
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(4 * KIB);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_top_level_index_and_filter(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_optimize_filters_for_memory(true);
        table
    }

    /// Written once, read often, large: blocks that compress well, with a dictionary because events are alike.
    fn events(&self, options: &mut rocksdb::Options, table: &mut BlockBasedOptions) {
        options.set_write_buffer_size(self.buffer_bytes / 8);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        options.set_max_bytes_for_level_base(256 * MIB as u64);
        table.set_block_size(16 * KIB);
        // Entries are large, so finding one must not mean walking over sixteen of them.
        table.set_block_restart_interval(4);
        // A third smaller than a bloom filter; new files, which are soon rewritten, get the one that is quicker to build.
        table.set_hybrid_ribbon_filter(10.0, 1);
    }

    /// Small rows, read one by one: small blocks with a hash index inside, so that a read touches little.
    fn rows(&self, options: &mut rocksdb::Options, table: &mut BlockBasedOptions) {
        options.set_write_buffer_size(self.buffer_bytes / 8);
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.02);
        table.set_block_size(4 * KIB);
        table.set_data_block_index_type(rocksdb::DataBlockIndexType::BinaryAndHash);
        table.set_bloom_filter(10.0, false);
    }

    /// Scanned in order, and of small entries that share long prefixes.
    fn indexes(&self, options: &mut rocksdb::Options, table: &mut BlockBasedOptions) {
        options.set_write_buffer_size(self.buffer_bytes / 8);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        table.set_block_size(8 * KIB);
        table.set_bloom_filter(10.0, false);
    }

    /// Written, read once, deleted: a file with many removals in a row is compacted at once, because every scan from the
    /// head of a queue would walk over them.
    fn queues(&self, options: &mut rocksdb::Options, table: &mut BlockBasedOptions) {
        options.set_write_buffer_size((self.buffer_bytes / 16).min(32 * MIB));
        options.set_max_bytes_for_level_base(64 * MIB as u64);
        options.set_target_file_size_base(16 * MIB as u64);
        options.add_compact_on_deletion_collector_factory(4096, 1024, 0.5);
        table.set_block_size(8 * KIB);
        table.set_bloom_filter(10.0, false);
    }
}

/// What opening does with a log that a power cut tore.
///
/// Up to the first record that is not whole, everything is taken; nothing after it, so the order of commits has no
/// holes. The pages of a write that was not yet synced may reach the disk in any order, so a bad checksum near the end
/// is normal, and `TolerateCorruptedTailRecords` would refuse to open because of it. What was acknowledged as synced
/// lies before that point. That a whole log that had been closed is missing or too short is noticed, because the
/// manifest knows its size; and so is a table that is newer than the log's end: then opening fails, instead of losing
/// commits quietly.
fn recovery(options: &mut rocksdb::Options) {
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
}
