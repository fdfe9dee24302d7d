//! The changes of shape that the database went through, one file a change, oldest first.
//!
//! A change that was released is never edited: a new one follows it. Each runs in a transaction on
//! both databases. When they are run, and by whom, is decided by the daemon's `store` room.

mod dialect;
mod m0001_people;
mod m0002_upstreams;
mod m0003_namespaces;
mod m0004_entrances;
mod m0005_oauth;
mod m0006_new_tools;
mod m0007_logs;
mod m0008_ended_sessions;
mod m0009_items;
mod m0011_uri_naming;
mod m0012_schema_profiles;
mod m0013_upkeep;
mod m0014_ca_certificates;

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::prelude::*;

/// Knows every change, in order.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_people::Migration),
            Box::new(m0002_upstreams::Migration),
            Box::new(m0003_namespaces::Migration),
            Box::new(m0004_entrances::Migration),
            Box::new(m0005_oauth::Migration),
            Box::new(m0006_new_tools::Migration),
            Box::new(m0007_logs::Migration),
            Box::new(m0008_ended_sessions::Migration),
            Box::new(m0009_items::Migration),
            Box::new(m0011_uri_naming::Migration),
            Box::new(m0012_schema_profiles::Migration),
            Box::new(m0013_upkeep::Migration),
            Box::new(m0014_ca_certificates::Migration),
        ]
    }
}

/// The names of every change we know, oldest first.
pub fn known() -> Vec<String> {
    Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect()
}
