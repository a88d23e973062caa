//! The table of leases: its definition, and every statement about it.
//!
//! Two things about its keys are load-bearing. The fence is an identity column: it grows with every acquisition of any
//! lease of the table, also when rows were deleted meanwhile. And it is unique, so an acquisition, which changes it,
//! needs the row's strongest lock, while a renewal, which does not, gets by with a weaker one: a transaction that holds
//! `FOR KEY SHARE` on the row keeps others from taking the lease over, and does not keep the holder from renewing it.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::error::ControlError;
use super::server::Server;

/// Name and type of each column, in alphabetical order.
const COLUMNS: &[(&str, &str)] = &[
    ("acquired_at", "timestamp with time zone"),
    ("application", "text"),
    ("expires_at", "timestamp with time zone"),
    ("fence", "bigint"),
    ("host", "text"),
    ("name", "text"),
    ("pid", "bigint"),
    ("renewed_at", "timestamp with time zone"),
    ("thread", "text"),
    ("token", "text"),
];

/// Who holds a lease, or held it, as the table says.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
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

/// A table of leases, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// As it stands in a statement.
    name: String,
    quoted: String,
}

impl Table {
    /// The table `name`, or `schema.name`: as the server stores it, not quoted.
    pub fn named(name: &str) -> Self {
        let parts = name.split('.').map(quoted).collect::<Vec<_>>();
        Self {
            name: name.to_owned(),
            quoted: parts.join("."),
        }
    }

    /// Puts the table's name where a statement says `{t}`.
    pub(crate) fn sql(&self, statement: &str) -> String {
        statement.replace("{t}", &self.quoted)
    }

    /// Makes sure that the table is there and is as it must be; creates it when it is not there.
    ///
    /// # Errors
    ///
    /// [`ControlError::Table`] when it has other columns or keys, or cannot be created.
    pub(crate) async fn prepare(
        &self,
        server: &Server,
        within: Duration,
    ) -> Result<(), ControlError> {
        if self.check(server, within).await? {
            return Ok(());
        }
        // One message is one transaction, so the lock is held until the table is there, through a pooler as well.
        // Without it, two who create it at once collide in the catalogue.
        let lock = "SELECT pg_advisory_xact_lock(hashtext('poolproof'), hashtext('lease'));";
        let create = format!("{lock}\n{}", self.sql(DEFINITION));
        match server.batch(within, &create).await {
            Ok(_) => {}
            Err(error) => return Err(self.not_created(error)),
        }
        if self.check(server, within).await? {
            return Ok(());
        }
        Err(self.wrong("was created and cannot be seen: look at search_path".into()))
    }

    /// False when there is no such table.
    async fn check(&self, server: &Server, within: Duration) -> Result<bool, ControlError> {
        let found = server
            .query(within, LOOK_AT_TABLE, &[(&self.quoted, Type::TEXT)])
            .await
            .map_err(|error| self.refused(error))?;
        let [row] = found.as_slice() else {
            return Ok(false);
        };
        let kind: String = row.get(0);
        let columns: Vec<String> = row.get(1);
        let expected: Vec<String> = COLUMNS
            .iter()
            .map(|(name, kind)| format!("{name} {kind}"))
            .collect();
        if kind != "r" && kind != "p" {
            return Err(self.wrong("is not a table".into()));
        }
        if columns != expected {
            let only = |of: &[String], not: &[String]| {
                let found = of.iter().filter(|one| !not.contains(one));
                let found = found.map(String::as_str).collect::<Vec<_>>();
                if found.is_empty() {
                    "nothing".into()
                } else {
                    found.join(", ")
                }
            };
            return Err(self.wrong(format!(
                "exists with other columns: it lacks {} and has {} besides",
                only(&expected, &columns),
                only(&columns, &expected),
            )));
        }
        let (unique_name, unique_fence, identity): (bool, bool, bool) =
            (row.get(2), row.get(3), row.get(4));
        if !(unique_name && unique_fence && identity) {
            return Err(self.wrong(
                "exists, but its name and its fence must each be unique, and its fence an identity column".into(),
            ));
        }
        Ok(true)
    }

    fn wrong(&self, what: String) -> ControlError {
        ControlError::Table {
            what: format!(
                "the table {} {what}. Take another name (table=), or drop it and let poolproof lease init create it",
                self.name
            ),
        }
    }

    /// Says what a role needs that was refused; other errors stay as they are.
    pub(crate) fn refused(&self, error: ControlError) -> ControlError {
        if error.sqlstate() != Some("42501") {
            return error;
        }
        let schema = self
            .quoted
            .rsplit_once('.')
            .map_or_else(String::new, |(schema, _)| {
                format!("; and GRANT USAGE ON SCHEMA {schema} to it")
            });
        ControlError::Table {
            what: format!(
                "this role may not use the table {}, or not create it ({error}). Let the owner run poolproof lease \
                 init, and GRANT SELECT, INSERT, UPDATE ON {} to this role{schema}",
                self.name, self.quoted
            ),
        }
    }

    fn not_created(&self, error: ControlError) -> ControlError {
        let reason = match error.sqlstate() {
            Some("25006") => "the server is read-only: leases need one that takes writes",
            Some("42501") => return self.refused(error),
            Some("3F000") => "there is no such schema",
            _ => return error,
        };
        ControlError::Table {
            what: format!(
                "the table {} cannot be created: {reason} ({error})",
                self.name
            ),
        }
    }

    /// Every lease of the table, or one of them.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn rows(
        &self,
        server: &Server,
        within: Duration,
        name: Option<&str>,
    ) -> Result<Vec<Row>, ControlError> {
        let found = server
            .query(within, &self.sql(ROWS), &[(&name, Type::TEXT)])
            .await
            .map_err(|error| self.refused(error))?;
        Ok(found
            .iter()
            .map(|row| Row {
                name: row.get(0),
                fence: row.get(1),
                is_held: row.get(2),
                host: row.get(3),
                pid: row.get(4),
                thread: row.get(5),
                application: row.get(6),
                age: row.get(7),
                silence: row.get(8),
                left: row.get(9),
            })
            .collect())
    }

    /// Makes sure that the table, if it is there, is one of leases.
    ///
    /// # Errors
    ///
    /// [`ControlError::Table`] when it is another.
    pub async fn verify(&self, server: &Server, within: Duration) -> Result<(), ControlError> {
        self.check(server, within).await.map(drop)
    }

    /// Creates the table if it is not there.
    ///
    /// # Errors
    ///
    /// As of a lease that is acquired.
    pub async fn init(&self, server: &Server, within: Duration) -> Result<(), ControlError> {
        self.prepare(server, within).await
    }

    /// Takes a lease away from whoever holds it. False when nobody does.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn free(
        &self,
        server: &Server,
        within: Duration,
        name: &str,
    ) -> Result<bool, ControlError> {
        let freed = server
            .query(within, &self.sql(FREE), &[(&name, Type::TEXT)])
            .await
            .map_err(|error| self.refused(error))?;
        Ok(!freed.is_empty())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const DEFINITION: &str = "\
CREATE TABLE IF NOT EXISTS {t} (
  name text PRIMARY KEY,
  fence bigint GENERATED BY DEFAULT AS IDENTITY UNIQUE,
  token text,
  host text,
  pid bigint,
  thread text,
  application text,
  acquired_at timestamptz NOT NULL,
  renewed_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL
) WITH (fillfactor = 50)";

const LOOK_AT_TABLE: &str = "\
SELECT c.relkind::text,
  ARRAY(SELECT a.attname || ' ' || format_type(a.atttypid, NULL) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attname COLLATE \"C\"),
  EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'name'
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL
      AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum),
  EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'fence'
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL
      AND i.indexprs IS NULL AND a.attnum = ANY(i.indkey::int2[])),
  EXISTS (SELECT FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attname = 'fence' AND a.attidentity <> '')
FROM pg_class c WHERE c.oid = to_regclass($1)";

/// The token and its new owner: `$1` name, `$2` token, `$3` host, `$4` pid, `$5` thread, `$6` application, `$7` ttl.
pub(crate) const INSERT: &str = "\
INSERT INTO {t} (name, token, host, pid, thread, application, acquired_at, renewed_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp(), clock_timestamp(),
  clock_timestamp() + $7 * interval '1 second')
ON CONFLICT (name) DO NOTHING RETURNING fence";

/// As [`INSERT`]; `$8` tokens of attempts of ours whose end is not known, `$9` the grace in seconds.
///
/// The row that is guarded by a transaction is left out, not waited for: nobody is held up on the server.
pub(crate) const TAKE_OVER: &str = "\
WITH free AS (
  SELECT name FROM {t} WHERE name = $1
    AND (token IS NULL OR token = ANY($8) OR expires_at + $9 * interval '1 second' <= clock_timestamp())
  FOR UPDATE SKIP LOCKED)
UPDATE {t} AS lease SET fence = DEFAULT, token = $2, host = $3, pid = $4, thread = $5, application = $6,
  acquired_at = clock_timestamp(), renewed_at = clock_timestamp(),
  expires_at = clock_timestamp() + $7 * interval '1 second'
FROM free WHERE lease.name = free.name RETURNING lease.fence";

/// `$1` name, `$2` fence, `$3` token, `$4` ttl. No row: it is not ours any more.
pub(crate) const RENEW: &str = "\
UPDATE {t} SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + $4 * interval '1 second'
WHERE name = $1 AND fence = $2 AND token = $3 RETURNING 1";

/// `$1` name, `$2` tokens of ours.
pub(crate) const RELEASE: &str = "\
UPDATE {t} SET token = NULL, expires_at = clock_timestamp() WHERE name = $1 AND token = ANY($2) RETURNING 1";

const FREE: &str = "UPDATE {t} SET token = NULL, expires_at = clock_timestamp() WHERE name = $1 AND token IS NOT NULL RETURNING 1";

const ROWS: &str = "\
SELECT name, fence, token IS NOT NULL, coalesce(host, ''), coalesce(pid, 0), coalesce(thread, ''),
  coalesce(application, ''),
  extract(epoch FROM clock_timestamp() - acquired_at)::float8,
  extract(epoch FROM clock_timestamp() - renewed_at)::float8,
  extract(epoch FROM expires_at - clock_timestamp())::float8
FROM {t} WHERE $1 IS NULL OR name = $1 ORDER BY name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let table = Table::named("a\"b.c d");
        assert_eq!(
            table.sql("SELECT FROM {t}"),
            "SELECT FROM \"a\"\"b\".\"c d\""
        );
    }
}
