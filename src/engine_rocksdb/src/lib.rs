//! stoa-engine-rocksdb
