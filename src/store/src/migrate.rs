//! Brings a database of an older release to this one's schema. Each step is one commit that also writes the new version,
//! so that an interrupted migration goes on where it stood.

use stoa_engine::{Batch, Durability, Engine, Op};

use crate::{Error, Snapshot, schema, value::Value};

/// A step: what it changes to come from version `n` to `n + 1`.
type Step = fn(&mut Batch);

/// The step from version 1 to 2 would be the first.
const STEPS: [Step; (schema::VERSION - 1) as usize] = [];

pub(crate) async fn run(engine: &dyn Engine) -> Result<(), Error> {
    let snapshot = Snapshot::new(engine.snapshot()).await?;
    let found = snapshot.get(&schema::SCHEMA_VERSION, &()).await?;
    let mut version = match found {
        Some(found) if found > schema::VERSION => return Err(Error::Version { found, known: schema::VERSION }),
        Some(found) => found,
        // A new database needs no steps.
        None => {
            write_version(engine, Batch::default(), schema::VERSION).await?;
            schema::VERSION
        }
    };
    while let Some(step) = STEPS.get((version - 1) as usize) {
        let mut batch = Batch::default();
        step(&mut batch);
        version += 1;
        write_version(engine, batch, version).await?;
        tracing::info!(version, "migrated the database");
    }
    Ok(())
}

async fn write_version(engine: &dyn Engine, mut batch: Batch, version: u32) -> Result<(), Error> {
    let table = &schema::SCHEMA_VERSION;
    batch.ops.push(Op::Put { space: table.space, key: table.key(&()), value: version.to_bytes() });
    Ok(engine.commit(batch, Durability::Synced).await?)
}
