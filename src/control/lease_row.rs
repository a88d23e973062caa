//! A row of the table of leases, as it is read.

use tokio_postgres::Error;

/// Who holds a lease, or held it, as the table says.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseRow {
    /// The lease's name.
    pub name: String,
    /// The number of its last acquisition.
    pub fence: i64,
    /// Whether somebody holds it, expired or not.
    pub is_held: bool,
    /// The holder's machine.
    pub host: String,
    /// The holder's process.
    pub pid: i64,
    /// The holder's thread.
    pub thread: String,
    /// The holder's application.
    pub application: String,
    /// Seconds since it was acquired.
    pub age: f64,
    /// Seconds since it was renewed.
    pub silence: f64,
    /// Seconds until it expires; below zero since it has.
    pub left: f64,
}

/// `$1` a name, or null for all. Whatever a person has written into the table can be read.
pub(super) fn query() -> String {
    // Before PostgreSQL 17 there is no difference to an infinite instant.
    let until = |instant: &str| {
        format!(
            "CASE WHEN {instant} = 'infinity' THEN 'Infinity' WHEN {instant} = '-infinity' THEN '-Infinity' \
             ELSE extract(epoch FROM {instant} - clock_timestamp()) END::float8"
        )
    };
    format!(
        "SELECT name, fence, token IS NOT NULL, coalesce(host, ''), coalesce(pid, 0), coalesce(thread, ''), \
         coalesce(application, ''), {}, {}, {} FROM {{t}} WHERE $1 IS NULL OR name = $1 ORDER BY name",
        until("acquired_at"),
        until("renewed_at"),
        until("expires_at"),
    )
}

impl LeaseRow {
    pub(super) fn read(row: &tokio_postgres::Row) -> Result<Self, Error> {
        Ok(Self {
            name: row.try_get(0)?,
            fence: row.try_get(1)?,
            is_held: row.try_get(2)?,
            host: row.try_get(3)?,
            pid: row.try_get(4)?,
            thread: row.try_get(5)?,
            application: row.try_get(6)?,
            age: -row.try_get::<_, f64>(7)?,
            silence: -row.try_get::<_, f64>(8)?,
            left: row.try_get(9)?,
        })
    }
}
